//! A checksum of a region's data in a view, to compare its replicas by.
//!
//! It depends on every key and value and on their order, and not on how the replica stores them. Computed in parts, so
//! that a large region keeps no thread busy for long; how it is cut into parts does not matter.
//!
//! Keys that expire vanish at different moments on each replica, because each reads by its own clock. A checksum is
//! therefore over the keys that do not expire before a time that all replicas agree on; a replica that is read later
//! than that has no checksum.

use crate::families::Families;
use crate::region::Region;
use bytes::Bytes;
use kontiki_engine::{Direction, Error, Family, Range, View};
use kontiki_env::codec::put_varint;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Which entries of a view count: all replicas must agree about that, at the same index of the log.
pub trait ChecksumFilter: Send {
    /// Whether an entry counts. Called for every entry of a family, in order.
    fn counts(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<bool, Error>;
}

/// A checksum that is being computed: XXH3-64.
pub struct Checksum {
    families: &'static Families,
    region: Arc<Region>,
    /// Keys that expire before this wall time do not count; 0: there must be none that expire.
    expires_after_ms: u64,
    filter: Option<Box<dyn ChecksumFilter>>,
    /// The family that is being read, as its place in the table, and where in it.
    family: usize,
    next_key: Bytes,
    hash: Box<Xxh3>,
    /// Bytes of keys and values so far.
    bytes: u64,
}

impl Checksum {
    /// Of nothing yet. The descriptor says which keys count, and of these only those that do not expire before
    /// `expires_after_ms`; the view that it is computed of must be of an earlier time. 0: there are none that expire.
    pub fn new(families: &'static Families, region: Arc<Region>, expires_after_ms: u64) -> Checksum {
        let next_key = region.start_key.clone();
        Checksum {
            families,
            region,
            expires_after_ms,
            filter: None,
            family: 0,
            next_key,
            hash: Box::default(),
            bytes: 0,
        }
    }

    /// Only of entries that the filter counts.
    pub fn of_those(self, filter: Box<dyn ChecksumFilter>) -> Checksum {
        Checksum { filter: Some(filter), ..self }
    }

    /// Reads about `bytes_max` bytes further, always of the same view. Returns the checksum when all is read.
    pub fn advance(&mut self, view: &dyn View, bytes_max: u64) -> Result<Option<u64>, Error> {
        let until = self.bytes.saturating_add(bytes_max);
        while let Some(&family) = self.families.of(self.region.space).get(self.family) {
            let range = Range::region(&self.next_key, &self.region.end_key);
            let mut entries = view.entries(family, range, Direction::Forward)?;
            let mut head = Vec::new();
            while let Some((key, value)) = entries.next().transpose()? {
                let expires_at_ms = entries.expires_at_ms();
                if expires_at_ms.is_some() && self.expires_after_ms == 0 {
                    let text = "a checksum of a store that knows no keys that expire: upgrade it";
                    return Err(Error::InvalidArgument(text.into()));
                }
                let counts = match &mut self.filter {
                    Some(filter) => filter.counts(family, &key, &value)?,
                    None => true,
                };
                if counts && expires_at_ms.is_none_or(|at| at >= self.expires_after_ms) {
                    head.clear();
                    put_varint(&mut head, u64::from(family.0));
                    put_varint(&mut head, key.len() as u64);
                    put_varint(&mut head, value.len() as u64);
                    expires_at_ms.iter().for_each(|at| put_varint(&mut head, *at));
                    [&head[..], &key, &value].into_iter().for_each(|part| self.hash.update(part));
                }
                self.bytes += (key.len() + value.len()) as u64;
                if self.bytes >= until {
                    // The next possible key.
                    self.next_key = [&key[..], &[0]].concat().into();
                    return Ok(None);
                }
            }
            self.family += 1;
            self.next_key = self.region.start_key.clone();
        }
        Ok(Some(self.hash.digest()))
    }

    /// Bytes of keys and values that were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
#[path = "checksum_test.rs"]
mod tests;
