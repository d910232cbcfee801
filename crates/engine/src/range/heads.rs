//! The beginnings of ascending keys, side by side, so that a search finds them in few cache lines.
//!
//! All keys of a family often begin alike, so a head is the eight bytes that follow what all keys share. Above the
//! heads are levels with every sixteenth of the level below, as in a static B-tree: a search reads two cache lines of
//! each level, where a binary search over all heads would read one for each of its steps.

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
    /// Every [`FAN_OUT`]th of the level below, the lowest first: of the heads, then of this list, until there are few.
    levels: Vec<Box<[u64]>>,
    /// The length of all keys, if they have one length and their heads hold the whole rest: then no two keys of this
    /// length have the same head.
    whole_bytes: Option<usize>,
}

impl Heads {
    /// Of keys in ascending order.
    pub fn new<'a>(mut keys: impl DoubleEndedIterator<Item = &'a [u8]> + Clone) -> Heads {
        let (mut all, mut lengths) = (keys.clone(), keys.clone().map(<[u8]>::len));
        let Some(first) = keys.next() else { return Heads::default() };
        // A prefix that the first and the last of ascending keys share is shared by all others.
        let last = keys.next_back().unwrap_or(first);
        let shared = first.iter().zip(last).take_while(|(a, b)| a == b).count();
        let heads: Box<[u64]> = all.by_ref().map(|key| head(&key[shared..])).collect();
        let mut levels: Vec<Box<[u64]>> = Vec::new();
        loop {
            let below = levels.last().unwrap_or(&heads);
            if below.len() <= TOP_MAX {
                break;
            }
            levels.push(below.iter().copied().step_by(FAN_OUT).collect());
        }
        let whole_bytes =
            Some(first.len()).filter(|bytes| *bytes <= shared + 8 && lengths.all(|other| other == *bytes));
        Heads { shared: first[..shared].into(), heads, levels, whole_bytes }
    }

    /// Whether a key of the list with the head of `key` is `key` itself.
    pub fn decide(&self, key: &[u8]) -> bool {
        self.whole_bytes == Some(key.len())
    }

    /// Which keys have the head of `key`: all before them are less than `key`, all behind them greater. Of keys that
    /// have it the head does not decide, unless [`Heads::decide`] says so.
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
        let start = self.first_not_less(wanted);
        let same = self.heads[start..].iter().take(FEW).take_while(|head| **head == wanted).count();
        let end = match same < FEW {
            true => start + same,
            false => start + self.heads[start..].partition_point(|head| *head == wanted),
        };
        start..end
    }

    /// The number of heads that are less.
    fn first_not_less(&self, wanted: u64) -> usize {
        let is_less = |head: &u64| {
            work::note(1);
            *head < wanted
        };
        let mut part = 0..usize::MAX;
        let mut less = 0;
        for level in self.levels.iter().rev().chain([&self.heads]) {
            less = part.start + level[part.start..part.end.min(level.len())].partition_point(is_less);
            // The place is between the last that is less and the one behind it.
            let Some(before) = less.checked_sub(1) else { return 0 };
            part = before * FAN_OUT..less * FAN_OUT;
        }
        less
    }
}

/// Heads below one of the next level: two cache lines.
const FAN_OUT: usize = 16;
/// A level that is searched as a whole.
const TOP_MAX: usize = 64;

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
