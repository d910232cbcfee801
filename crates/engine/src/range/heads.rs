//! The beginnings of ascending keys, side by side, so that a binary search finds them in few cache lines.
//!
//! All keys of a family often begin alike, so a head is the eight bytes that follow what all keys share.

use super::work;
use std::ops::Range;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// What all keys begin with.
    shared: Box<[u8]>,
    /// Of each key the bytes behind that, big-endian, with zeros behind a short one: so heads are in the order of keys,
    /// and different keys can have the same.
    heads: Box<[u64]>,
}

impl Heads {
    /// Of keys in ascending order.
    pub fn new<'a>(mut keys: impl DoubleEndedIterator<Item = &'a [u8]> + Clone) -> Heads {
        let mut all = keys.clone();
        let Some(first) = keys.next() else { return Heads::default() };
        // A prefix that the first and the last of ascending keys share is shared by all others.
        let last = keys.next_back().unwrap_or(first);
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let heads = all.by_ref().map(|key| head(&key[shared..])).collect();
        Heads { shared: first[..shared].into(), heads }
    }

    /// Which keys have the head of `key`: all before them are less than `key`, all behind them greater. Of keys that
    /// have it the head does not decide.
    pub fn equal(&self, key: &[u8]) -> Range<usize> {
        let shared = &self.shared[..];
        let begins = &key[..key.len().min(shared.len())];
        if begins < shared {
            return 0..0;
        }
        if begins > shared {
            return self.heads.len()..self.heads.len();
        }
        let wanted = head(&key[shared.len()..]);
        let is_less = |head: &u64| {
            work::note(1);
            *head < wanted
        };
        let start = self.heads.partition_point(is_less);
        let same = self.heads[start..].iter().take(FEW).take_while(|head| **head == wanted).count();
        let end = match same < FEW {
            true => start + same,
            false => start + self.heads[start..].partition_point(|head| *head == wanted),
        };
        start..end
    }
}

/// Equal heads that are counted one by one.
const FEW: usize = 4;

fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let count = bytes.len().min(8);
    head[..count].copy_from_slice(&bytes[..count]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
#[path = "heads_test.rs"]
mod tests;
