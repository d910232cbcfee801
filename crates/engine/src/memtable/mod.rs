//! The memtable: recent writes of all families in memory, in order.
//!
//! All families share it, so a flush moves a consistent prefix of history to tables for all of them at once; that makes
//! the apply of replicated entries safe without a separate log record. Inside, each family has a separate tree
//! (`tree`); all trees share one arena, which is freed as a whole.
//!
//! For `db/`: [`Memtable::apply`] inserts a batch under one sequence number; any number of threads may do so at
//! once, and readers never block. The memtable does not handle publication: a reader reads at a sequence number
//! that `db/` has published, after every insert at or below it has returned. **Invariant for rotation**: when a
//! memtable is frozen, every sequence number that has been assigned is either in it (or an older one) or will never
//! be inserted; so the sequence numbers of successive memtables do not interleave. Reads stop at the first source
//! that has the key, and `version::VersionSet::apply` checks the rule at each flush.
//!
//! Rejected: one memtable per family (flushes not atomic over families).

mod cursor;
mod family_trees;
mod sync;
#[allow(unsafe_code, reason = "records and nodes point to each other in an arena; see UNSAFE.md")]
mod tree;

pub use crate::range::RangeTombstone;
pub use cursor::MemtableCursor;

use crate::dead_ranges::DeadRanges;
use crate::range::{RecentView, newest_of_both, work};
use crate::types::{BEYOND_ALL_KEYS, BatchEntry, Decoded, Found, Kind, SEQUENCE_NUMBER_MAX};
use crate::{Family, SequenceNumber, WriteBatch};
use bytes::Bytes;
use family_trees::Families;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use tree::{Arena, Position, Record};

/// Bytes of a range tombstone in addition to its bounds. An estimate.
const RANGE_TOMBSTONE_OVERHEAD_BYTES: usize = 256;

/// An ordered map from (family, user key, sequence number descending) to kind and stored bytes.
#[derive(Default)]
pub struct Memtable {
    arena: Arc<Arena>,
    families: Families,
    /// Whether any family has a range tombstone: most memtables have none, which costs a lookup one load.
    has_ranges: AtomicBool,
    /// Largest sequence number inserted; 0 when empty.
    largest_sequence: AtomicU64,
    /// `!smallest` of the sequence numbers inserted, so that 0 means none and `fetch_max` works.
    smallest_sequence_inverted: AtomicU64,
    /// `!time` of the wall clock from which on something in it is dead, 0 while nothing ever is: a deletion from the
    /// beginning of time, an expiring value from its end.
    dead_from_inverted_ms: AtomicU64,
    /// Notified of each put, before it is visible.
    dead: Option<Arc<DeadRanges>>,
}

/// The keys of the versions among a batch's first operations.
fn keys_before(batch: &WriteBatch, count: usize) -> BTreeSet<(Family, &[u8])> {
    let keys = batch.entries().take(count).inspect(|_| work::note(1)).filter_map(|entry| match entry {
        BatchEntry::Version { family, key, .. } => Some((family, key)),
        BatchEntry::DeleteRange { .. } => None,
    });
    keys.collect()
}

fn kind_of(record: Record<'_>) -> Kind {
    Kind::from_byte(record.kind()).expect("insert writes kinds only")
}

impl Memtable {
    /// An empty memtable.
    pub fn new() -> Memtable {
        Memtable::default()
    }

    /// An empty memtable of a database with these dead ranges.
    pub(crate) fn beside(dead: &Arc<DeadRanges>) -> Memtable {
        Memtable { dead: Some(dead.clone()), ..Memtable::default() }
    }

    /// Inserts every operation of `batch` at `sequence`. Of several operations on one key the last one stays.
    pub fn apply(&self, batch: &WriteBatch, sequence: SequenceNumber) {
        // From the first range delete on: the keys that the batch has put so far and no range delete of it has removed.
        let mut earlier: Option<BTreeSet<(Family, &[u8])>> = None;
        for (at, entry) in batch.entries().enumerate() {
            match entry {
                BatchEntry::Version { family, key, kind, stored } => {
                    self.put(family, key, sequence, kind, stored);
                    if let Some(earlier) = &mut earlier {
                        earlier.insert((family, key));
                    }
                }
                BatchEntry::DeleteRange { family, start, end } if start < end => {
                    // What the batch has put there before is not hidden by a tombstone of the same number.
                    let earlier = earlier.get_or_insert_with(|| keys_before(batch, at));
                    while let Some(&put) = earlier.range((family, start)..(family, end)).next() {
                        work::note(1);
                        earlier.remove(&put);
                        self.put(family, put.1, sequence, Kind::Delete, &[]);
                    }
                    self.add_range(family, start, end, sequence);
                }
                BatchEntry::DeleteRange { .. } => {}
            }
        }
        self.note_sequence(sequence);
        if let Some(dead) = &self.dead {
            dead.note_puts(batch);
        }
    }

    fn add_range(&self, family: Family, start: &[u8], end: &[u8], sequence: SequenceNumber) {
        let (start, end) = if end == BEYOND_ALL_KEYS {
            self.arena.note_bytes(start.len() + RANGE_TOMBSTONE_OVERHEAD_BYTES);
            (Bytes::copy_from_slice(start), Bytes::from_static(BEYOND_ALL_KEYS))
        } else {
            self.arena.note_bytes(start.len() + end.len() + RANGE_TOMBSTONE_OVERHEAD_BYTES);
            let both = Bytes::from([start, end].concat());
            (both.slice(..start.len()), both.slice(start.len()..))
        };
        self.families.ranges_or_add(family, &self.arena).add(RangeTombstone { start, end, sequence });
        self.note_dead_from(0);
        if !self.has_ranges.load(Relaxed) {
            self.has_ranges.store(true, Release);
        }
    }

    /// Inserts one version. Replaces the same version of the same key.
    #[cfg(test)]
    pub fn insert(&self, family: Family, user_key: &[u8], sequence: SequenceNumber, kind: Kind, stored: &[u8]) {
        self.put(family, user_key, sequence, kind, stored);
        self.note_sequence(sequence);
    }

    fn put(&self, family: Family, key: &[u8], sequence: SequenceNumber, kind: Kind, stored: &[u8]) {
        let tree = self.families.get_or_add(family, &self.arena);
        tree.insert(Position { key, sequence }, kind.to_byte(), stored);
        if kind != Kind::Put
            && let Ok(decoded) = Decoded::new(kind, stored)
        {
            let end = if kind.is_delete() { Some(0) } else { decoded.expires_at_ms };
            end.into_iter().for_each(|from_ms| self.note_dead_from(from_ms));
        }
    }

    fn note_dead_from(&self, ms: u64) {
        // As in `note_sequence`.
        if self.dead_from_inverted_ms.load(Relaxed) < !ms {
            self.dead_from_inverted_ms.fetch_max(!ms, Relaxed);
        }
    }

    /// Whether something in it is dead at a time of the wall clock: deletions, and what has expired.
    pub(crate) fn has_dead(&self, now_ms: u64) -> bool {
        let inverted = self.dead_from_inverted_ms.load(Relaxed);
        inverted > 0 && !inverted <= now_ms
    }

    fn note_sequence(&self, sequence: SequenceNumber) {
        assert!(sequence > 0 && sequence < SEQUENCE_NUMBER_MAX, "sequence number {sequence} is out of range");
        // Most numbers change only one of them; a load is cheaper than to take the cache line from other threads.
        for (slot, candidate) in [(&self.largest_sequence, sequence), (&self.smallest_sequence_inverted, !sequence)] {
            if slot.load(Relaxed) < candidate {
                slot.fetch_max(candidate, Relaxed);
            }
        }
    }

    /// The newest version of a key at or below `sequence`, if this memtable has one.
    pub fn get(&self, family: Family, user_key: &[u8], sequence: SequenceNumber) -> Option<Found> {
        let record = self.families.get(family)?.get(Position { key: user_key, sequence })?;
        debug_assert!(record.sequence() <= sequence, "a lower bound does not go back");
        Some(Found { sequence: record.sequence(), kind: kind_of(record), stored: record.stored() })
    }

    /// The range tombstones of a family, in no particular order.
    pub fn range_tombstones(&self, family: Family) -> Vec<RangeTombstone> {
        self.recent_ranges(family).map_or_else(Vec::new, |ranges| ranges.all().cloned().collect())
    }

    /// The same, for many lookups; `None` if there are none.
    #[inline]
    pub(crate) fn recent_ranges(&self, family: Family) -> Option<Arc<RecentView>> {
        if !self.has_ranges.load(Acquire) {
            return None;
        }
        self.families.ranges(family)?.view()
    }

    /// Of each key of a family that range tombstones of any of the memtables cover the newest: ascending, disjoint
    /// ranges.
    pub(crate) fn newest_ranges(memtables: &[Arc<Memtable>], family: Family) -> Vec<RangeTombstone> {
        let views = memtables.iter().filter_map(|memtable| memtable.recent_ranges(family));
        views.fold(Vec::new(), |newest, view| newest_of_both(&newest, &view.newest_only()))
    }

    /// The newest range tombstone at or below `sequence` that covers the key, by its number.
    pub fn covering_sequence(
        &self,
        family: Family,
        user_key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<SequenceNumber> {
        if !self.has_ranges.load(Acquire) {
            return None;
        }
        self.families.ranges(family)?.covering(user_key, sequence)
    }

    /// Bytes of memory that it takes: what the size limit is compared with. Grows in steps of at least 1 KiB.
    pub fn approximate_bytes(&self) -> usize {
        self.arena.footprint_bytes()
    }

    /// Number of versions; counts them.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let count = |tree: Arc<tree::Tree>| {
            let mut walk = tree::Walk::new(tree, false);
            walk.seek_to_first();
            let mut count = 0;
            while walk.current().is_some() {
                count += 1;
                walk.advance();
            }
            count
        };
        self.families.all().into_values().map(|tree| count(tree.clone())).sum()
    }

    /// Whether nothing was inserted.
    pub fn is_empty(&self) -> bool {
        self.largest_sequence().is_none()
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

    /// The families that were written to.
    pub fn families(&self) -> BTreeSet<Family> {
        self.families.all().into_keys().collect()
    }
}

#[cfg(test)]
#[path = "memtable_test.rs"]
mod tests;

// In this folder, not in `tree`: the model test compiles that module over other types.
#[cfg(test)]
#[path = "tree_test.rs"]
mod tree_tests;
