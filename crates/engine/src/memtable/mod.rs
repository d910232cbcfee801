//! The memtable: recent writes of all families in one ordered map.
//!
//! All families share it, so a flush moves a consistent prefix of history to tables for all of them at once; that
//! is what makes the apply of replicated entries safe without a log record of its own.
//!
//! For `db/`: [`Memtable::apply`] inserts a batch under one sequence number; any number of threads may do so at
//! once, and readers never block. The memtable knows nothing of publication: a reader asks at a sequence number
//! that `db/` has published, after every insert at or below it has returned. **Invariant for rotation**: when a
//! memtable is frozen, every sequence number that has been given out is either in it (or an older one) or will never
//! be inserted; so the sequence numbers of successive memtables do not interleave. Reads stop at the first source
//! that has the key, and `version::VersionSet::apply` checks the rule at each flush.
//!
//! Rejected: one memtable per family (flushes not atomic over families); an arena skip list of our own comes when
//! measured, behind the same face.

mod cursor;

pub use crate::version::RangeTombstone;
pub use cursor::MemtableCursor;

use crate::batch::BatchEntry;
use crate::iterator::{Found, KeyRef, SEQUENCE_NUMBER_MAX};
use crate::kind::Kind;
use crate::{Family, SequenceNumber, WriteBatch};
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use parking_lot::RwLock;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// What a version costs beside its key and value: skip list node, two `Bytes`, allocation headers. An estimate.
const VERSION_OVERHEAD_BYTES: usize = 128;

/// An ordered map from (family, user key, sequence number descending) to value or tombstone.
#[derive(Default)]
pub struct Memtable {
    map: SkipMap<MemKey, Stored>,
    /// In the order of their batches.
    range_tombstones: RwLock<Vec<(Family, RangeTombstone)>>,
    has_range_tombstones: AtomicBool,
    bytes: AtomicUsize,
    /// Largest sequence number inserted; 0 when empty.
    largest_sequence: AtomicU64,
    /// `!smallest` of the sequence numbers inserted, so that 0 means none and `fetch_max` works.
    smallest_sequence_inverted: AtomicU64,
}

/// What a version says.
struct Stored {
    kind: Kind,
    stored: Bytes,
}

struct MemKey {
    family: Family,
    user_key: Bytes,
    sequence: SequenceNumber,
}

/// Lets the map be searched with borrowed keys: a lookup allocates nothing.
trait Position {
    fn position(&self) -> (Family, KeyRef<'_>);
}

impl Position for MemKey {
    fn position(&self) -> (Family, KeyRef<'_>) {
        (self.family, KeyRef::new(&self.user_key, self.sequence))
    }
}

impl Position for (Family, KeyRef<'_>) {
    fn position(&self) -> (Family, KeyRef<'_>) {
        *self
    }
}

impl<'a> Borrow<dyn Position + 'a> for MemKey {
    fn borrow(&self) -> &(dyn Position + 'a) {
        self
    }
}

impl PartialEq for dyn Position + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.position() == other.position()
    }
}

impl Eq for dyn Position + '_ {}

impl PartialOrd for dyn Position + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Position + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position().cmp(&other.position())
    }
}

impl PartialEq for MemKey {
    fn eq(&self, other: &Self) -> bool {
        self.position() == other.position()
    }
}

impl Eq for MemKey {}

impl PartialOrd for MemKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MemKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position().cmp(&other.position())
    }
}

impl Memtable {
    /// An empty memtable.
    pub fn new() -> Memtable {
        Memtable::default()
    }

    /// Inserts every operation of `batch` at `sequence`. Of several operations on one key the last stays.
    /// The batch's encoding is copied once; keys and values are slices of that copy.
    pub fn apply(&self, batch: &WriteBatch, sequence: SequenceNumber) {
        let shared = Bytes::copy_from_slice(batch.as_bytes());
        let base = batch.as_bytes().as_ptr() as usize;
        let slice = |part: &[u8]| {
            // An empty slice may point anywhere.
            let start = if part.is_empty() { 0 } else { part.as_ptr() as usize - base };
            shared.slice(start..start + part.len())
        };
        for (at, entry) in batch.entries().enumerate() {
            match entry {
                BatchEntry::Version { family, key, kind, stored } => {
                    self.insert(family, slice(key), sequence, kind, slice(stored));
                }
                BatchEntry::DeleteRange { family, start, end } if start < end => {
                    // What the batch has put there before is not hidden by a tombstone of the same number.
                    for earlier in batch.entries().take(at) {
                        let BatchEntry::Version { family: of, key, .. } = earlier else { continue };
                        if of == family && start <= key && key < end {
                            self.insert(family, slice(key), sequence, Kind::Delete, Bytes::new());
                        }
                    }
                    self.delete_range(family, RangeTombstone { start: slice(start), end: slice(end), sequence });
                }
                BatchEntry::DeleteRange { .. } => {}
            }
        }
    }

    fn delete_range(&self, family: Family, tombstone: RangeTombstone) {
        assert!(tombstone.start < tombstone.end, "an empty range deletes nothing");
        self.note(tombstone.sequence, tombstone.start.len() + tombstone.end.len() + VERSION_OVERHEAD_BYTES);
        self.range_tombstones.write().push((family, tombstone));
        self.has_range_tombstones.store(true, Release);
    }

    /// The range tombstones of a family.
    pub fn range_tombstones(&self, family: Family) -> Vec<RangeTombstone> {
        if !self.has_range_tombstones.load(Acquire) {
            return Vec::new();
        }
        let all = self.range_tombstones.read();
        all.iter().filter(|(of, _)| *of == family).map(|(_, tombstone)| tombstone.clone()).collect()
    }

    /// The newest range tombstone at or below `sequence` that covers the key, by its number.
    pub fn covering_sequence(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<SequenceNumber> {
        if !self.has_range_tombstones.load(Acquire) {
            return None;
        }
        let all = self.range_tombstones.read();
        let covering = |(of, tombstone): &&(Family, RangeTombstone)| {
            *of == family && tombstone.sequence <= sequence && tombstone.covers(user_key)
        };
        all.iter().filter(covering).map(|(_, tombstone)| tombstone.sequence).max()
    }

    /// Inserts one version. Replaces the same version of the same key.
    pub fn insert(&self, family: Family, user_key: Bytes, sequence: SequenceNumber, kind: Kind, stored: Bytes) {
        assert!(sequence > 0 && sequence < SEQUENCE_NUMBER_MAX, "sequence number {sequence} is out of range");
        let bytes = user_key.len() + stored.len() + VERSION_OVERHEAD_BYTES;
        self.map.insert(MemKey { family, user_key, sequence }, Stored { kind, stored });
        self.note(sequence, bytes);
    }

    fn note(&self, sequence: SequenceNumber, bytes: usize) {
        self.bytes.fetch_add(bytes, Relaxed);
        self.largest_sequence.fetch_max(sequence, Relaxed);
        self.smallest_sequence_inverted.fetch_max(!sequence, Relaxed);
    }

    /// The newest version of a key at or below `sequence`, if this memtable has one.
    pub fn get(&self, family: Family, user_key: &[u8], sequence: SequenceNumber) -> Option<Found> {
        let target = (family, KeyRef::new(user_key, sequence));
        let entry = self.map.lower_bound(Bound::Included(&target as &dyn Position))?;
        let key = entry.key();
        if key.family != family || key.user_key != user_key {
            return None;
        }
        debug_assert!(key.sequence <= sequence, "a lower bound does not go back");
        debug_assert!(self.largest_sequence() >= Some(key.sequence), "the largest number covers every version");
        Some(Found { sequence: key.sequence, kind: entry.value().kind, stored: entry.value().stored.clone() })
    }

    /// Bytes held, overhead included: what the size limit is compared with.
    pub fn approximate_bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Number of versions.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty() && !self.has_range_tombstones.load(Acquire)
    }

    /// Largest sequence number inserted, `None` when empty.
    pub fn largest_sequence(&self) -> Option<SequenceNumber> {
        Some(self.largest_sequence.load(Relaxed)).filter(|&sequence| sequence > 0)
    }

    /// Smallest sequence number inserted, `None` when empty.
    pub fn smallest_sequence(&self) -> Option<SequenceNumber> {
        let inverted = self.smallest_sequence_inverted.load(Relaxed);
        (inverted > 0).then_some(!inverted)
    }

    /// The families that have versions here.
    pub fn families(&self) -> BTreeSet<Family> {
        let mut families = BTreeSet::new();
        let mut next = self.map.front();
        while let Some(entry) = next {
            let family = entry.key().family;
            let new = families.insert(family);
            assert!(new, "families come in ascending order");
            let Some(following) = family.0.checked_add(1) else { break };
            let target = (Family(following), KeyRef::before_all(&[]));
            next = self.map.lower_bound(Bound::Included(&target as &dyn Position));
        }
        families
    }
}

#[cfg(test)]
#[path = "memtable_test.rs"]
mod tests;
