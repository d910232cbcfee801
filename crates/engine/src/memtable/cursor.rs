//! A cursor that owns its memtable.

use super::{Memtable, Position};
use crate::iterator::{Cursor, KeyRef};
use crate::kind::Kind;
use crate::{Direction, Family, Result, SequenceNumber};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

/// Most versions fetched at once; the first fetch after a seek takes one and each following one twice as many, so
/// a point-like read pays little and a long scan amortises the search of the skip list.
const CHUNK_VERSIONS_MAX: usize = 64;

/// Walks over one family of a memtable.
///
/// Entries of the skip list borrow it, so instead of holding one the cursor fetches versions in chunks (two
/// reference counts each) and searches again from the last. Versions inserted meanwhile may be missed within a
/// chunk: they are above the sequence number of whoever reads, since publication follows insertion.
pub struct MemtableCursor {
    memtable: Arc<Memtable>,
    family: Family,
    direction: Direction,
    chunk: VecDeque<Version>,
    chunk_versions: usize,
}

struct Version {
    user_key: Bytes,
    sequence: SequenceNumber,
    kind: Kind,
    stored: Bytes,
}

impl MemtableCursor {
    /// A cursor over `family` in `direction`.
    pub fn new(memtable: Arc<Memtable>, family: Family, direction: Direction) -> MemtableCursor {
        MemtableCursor { memtable, family, direction, chunk: VecDeque::new(), chunk_versions: 1 }
    }

    fn fetch(&mut self, from: Bound<KeyRef<'_>>) {
        self.chunk.clear();
        let from = from.map(|key| (self.family, key));
        let from = match &from {
            Bound::Included(position) => Bound::Included(position as &dyn Position),
            Bound::Excluded(position) => Bound::Excluded(position as &dyn Position),
            Bound::Unbounded => Bound::Unbounded,
        };
        let mut next = match self.direction {
            Direction::Forward => self.memtable.map.lower_bound(from),
            Direction::Backward => self.memtable.map.upper_bound(from),
        };
        while let Some(entry) = next {
            let key = entry.key();
            if key.family != self.family {
                break;
            }
            debug_assert!(
                self.chunk.back().is_none_or(|last| {
                    let (a, b) = (KeyRef::new(&last.user_key, last.sequence), KeyRef::new(&key.user_key, key.sequence));
                    if self.direction == Direction::Forward { a < b } else { a > b }
                }),
                "the skip list is in order"
            );
            self.chunk.push_back(Version {
                user_key: key.user_key.clone(),
                sequence: key.sequence,
                kind: entry.value().kind,
                stored: entry.value().stored.clone(),
            });
            if self.chunk.len() >= self.chunk_versions {
                break;
            }
            next = match self.direction {
                Direction::Forward => entry.next(),
                Direction::Backward => entry.prev(),
            };
        }
        debug_assert!(self.chunk.len() <= self.chunk_versions);
        self.chunk_versions = (self.chunk_versions * 2).min(CHUNK_VERSIONS_MAX);
    }

    fn current(&self) -> &Version {
        self.chunk.front().expect("the caller checked valid()")
    }
}

impl Cursor for MemtableCursor {
    fn valid(&self) -> bool {
        !self.chunk.is_empty()
    }

    fn key(&self) -> KeyRef<'_> {
        let version = self.current();
        KeyRef::new(&version.user_key, version.sequence)
    }

    fn kind(&self) -> Kind {
        self.current().kind
    }

    fn stored(&self) -> Bytes {
        self.current().stored.clone()
    }

    fn stored_slice(&self) -> &[u8] {
        &self.current().stored
    }

    fn advance(&mut self) -> Result<()> {
        let last = self.chunk.pop_front().expect("the caller checked valid()");
        if self.chunk.is_empty() {
            self.fetch(Bound::Excluded(KeyRef::new(&last.user_key, last.sequence)));
        }
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.chunk_versions = 1;
        self.fetch(Bound::Included(target));
        Ok(())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.chunk_versions = 1;
        match self.direction {
            Direction::Forward => self.fetch(Bound::Included(KeyRef::before_all(&[]))),
            Direction::Backward => match self.family.0.checked_add(1) {
                // The first position of the next family lies after everything of this one.
                Some(next) => self.fetch_before(Family(next)),
                None => self.fetch(Bound::Unbounded),
            },
        }
        Ok(())
    }
}

impl MemtableCursor {
    /// Backward: starts at the last version before every version of `next`.
    fn fetch_before(&mut self, next: Family) {
        self.chunk.clear();
        let memtable = self.memtable.clone();
        let limit = (next, KeyRef::before_all(&[]));
        let last = memtable.map.upper_bound(Bound::Excluded(&limit as &dyn Position));
        if let Some(entry) = last.filter(|entry| entry.key().family == self.family) {
            self.fetch(Bound::Included(KeyRef::new(&entry.key().user_key, entry.key().sequence)));
        }
    }
}
