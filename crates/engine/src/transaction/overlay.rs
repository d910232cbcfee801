//! What a transaction has written and not committed: laid over its snapshot by its reads, and turned into a batch at
//! its end.
//!
//! Of each key the last write is kept, and deleted ranges as a set; a write to a key in a deleted range comes after the
//! deletion, because a range delete drops what is pending inside. Savepoints work by an undo log: the first change of a
//! key after a savepoint records what was there before. Without a savepoint nothing is recorded.
//!
//! Each family's part is shared with iterators, which continue to show it as it was when they were made: a write
//! while one lives copies the part first, once for each such iterator.

use super::range_set::{Inserted, RangeSet, range_bytes};
use crate::{Error, Family, Result, WriteBatch};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Bytes of a pending key in addition to its own: the entry in the map and two shared slices.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// The last operation of a transaction on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    /// Sets it.
    Put(Bytes),
    /// Sets it until a time, in milliseconds of the wall clock.
    PutExpiring(Bytes, u64),
    /// Removes it.
    Delete,
    /// Nothing is written: the newest value, as found under the key's lock after the snapshot was taken.
    Seen(Option<Bytes>),
}

impl Pending {
    /// Whether the commit writes it.
    pub(super) fn is_write(&self) -> bool {
        !matches!(self, Pending::Seen(_))
    }

    /// What a read at the wall time `now_ms` finds.
    pub(super) fn value(&self, now_ms: u64) -> Option<Bytes> {
        match self {
            Pending::Put(value) => Some(value.clone()),
            Pending::PutExpiring(value, expires_at_ms) => (now_ms < *expires_at_ms).then(|| value.clone()),
            Pending::Delete => None,
            Pending::Seen(value) => value.clone(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Pending::Put(value) | Pending::PutExpiring(value, _) | Pending::Seen(Some(value)) => value.len() as u64,
            Pending::Delete | Pending::Seen(None) => 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    pending: Pending,
    /// The savepoint since which the undo log has what was there before; 0 for none.
    logged_at: u64,
}

/// The part of one family.
#[derive(Clone, Debug, Default)]
pub(super) struct FamilyOverlay {
    points: BTreeMap<Bytes, Entry>,
    deleted: RangeSet,
}

impl FamilyOverlay {
    /// The pending operation on a key, if there is one.
    pub(super) fn find(&self, key: &[u8], now_ms: u64) -> Option<Option<Bytes>> {
        match self.points.get(key) {
            Some(entry) => Some(entry.pending.value(now_ms)),
            None => self.deleted.contains(key).then_some(None),
        }
    }

    /// The first pending key within the bounds, in ascending order.
    pub(super) fn first(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Option<(&Bytes, &Pending)> {
        let (key, entry) = self.points.range::<[u8], _>((lower, upper)).next()?;
        Some((key, &entry.pending))
    }

    /// The last one.
    pub(super) fn last(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Option<(&Bytes, &Pending)> {
        let (key, entry) = self.points.range::<[u8], _>((lower, upper)).next_back()?;
        Some((key, &entry.pending))
    }

    /// Whether it has nothing about any key.
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.deleted.is_empty()
    }

    /// Deleted ranges; pending keys inside are not deleted.
    pub(super) fn deleted(&self) -> &RangeSet {
        &self.deleted
    }

    fn written(&self) -> impl Iterator<Item = &Bytes> {
        self.points.iter().filter(|(_, entry)| entry.pending.is_write()).map(|(key, _)| key)
    }
}

enum Undo {
    Point { family: Family, key: Bytes, before: Option<Entry> },
    Range { family: Family, inserted: Inserted, removed: Vec<(Bytes, Entry)> },
}

/// See the head of this file.
pub(super) struct Overlay {
    families: BTreeMap<Family, Arc<FamilyOverlay>>,
    undo: Vec<Undo>,
    /// Serial numbers and lengths of the undo log, both ascending.
    savepoints: Vec<(u64, usize)>,
    next_savepoint: u64,
    /// About the memory that points, and those in the undo log, take.
    point_bytes: u64,
    /// The same of ranges.
    range_bytes: u64,
    bytes_max: u64,
}

impl Overlay {
    pub(super) fn new(bytes_max: u64) -> Overlay {
        Overlay {
            families: BTreeMap::new(),
            undo: Vec::new(),
            savepoints: Vec::new(),
            next_savepoint: 1,
            point_bytes: 0,
            range_bytes: 0,
            bytes_max,
        }
    }

    /// The part of a family, if it has one.
    pub(super) fn family(&self, family: Family) -> Option<&Arc<FamilyOverlay>> {
        self.families.get(&family)
    }

    /// The parts in order.
    pub(super) fn families(&self) -> impl Iterator<Item = (Family, &FamilyOverlay)> {
        self.families.iter().map(|(family, part)| (*family, &**part))
    }

    /// The keys that the commit writes, in order.
    pub(super) fn written(&self) -> impl Iterator<Item = (Family, Bytes)> {
        self.families().flat_map(|(family, part)| part.written().map(move |key| (family, key.clone())))
    }

    /// Whether the commit has nothing to write.
    pub(super) fn is_read_only(&self) -> bool {
        self.families.values().all(|part| part.deleted.is_empty() && part.written().next().is_none())
    }

    /// Whether the transaction has written the key, by itself or by a range delete.
    pub(super) fn has_written(&self, family: Family, key: &[u8]) -> bool {
        self.families.get(&family).is_some_and(|part| match part.points.get(key) {
            Some(entry) => entry.pending.is_write(),
            None => part.deleted.contains(key),
        })
    }

    /// Records a write to a key.
    pub(super) fn write(&mut self, family: Family, key: &[u8], pending: Pending) -> Result<()> {
        assert!(pending.is_write(), "what was seen is recorded by `see`");
        let savepoint = self.savepoints.last().map_or(0, |(serial, _)| *serial);
        let part = Arc::make_mut(self.families.entry(family).or_default());
        let before = part.points.get(key);
        let log = before.map_or(0, |entry| entry.logged_at) < savepoint;
        let freed = if log { 0 } else { before.map_or(0, |entry| entry_bytes(key, entry)) };
        let noted = if log && before.is_none() { note_bytes(key) } else { 0 };
        let entry = Entry { pending, logged_at: savepoint };
        let point_bytes = self.point_bytes - freed + noted + entry_bytes(key, &entry);
        check_size(point_bytes + self.range_bytes, self.bytes_max)?;
        self.point_bytes = point_bytes;
        let key = part.points.get_key_value(key).map_or_else(|| Bytes::copy_from_slice(key), |(key, _)| key.clone());
        let before = part.points.insert(key.clone(), entry);
        if log {
            self.undo.push(Undo::Point { family, key, before });
        }
        Ok(())
    }

    /// Records a range delete; an empty `end` is none.
    pub(super) fn delete_range(&mut self, family: Family, start: &[u8], end: &[u8]) -> Result<()> {
        let end = (!end.is_empty()).then(|| Bytes::copy_from_slice(end));
        let start = Bytes::copy_from_slice(start);
        if end.as_ref().is_some_and(|end| *end <= start) {
            return Ok(());
        }
        // Before what it absorbs is known: at most so much.
        check_size(self.point_bytes + self.range_bytes + range_bytes(&start, end.as_ref()), self.bytes_max)?;
        let part = Arc::make_mut(self.families.entry(family).or_default());
        let upper = end.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let inside = part.points.range((Bound::Included(start.clone()), upper));
        let keys: Vec<Bytes> = inside.map(|(key, _)| key.clone()).collect();
        let removed: Vec<(Bytes, Entry)> = keys
            .into_iter()
            .map(|key| {
                let entry = part.points.remove(&key).expect("the key was found just now");
                (key, entry)
            })
            .collect();
        let before = part.deleted.bytes();
        let inserted = part.deleted.insert(start, end);
        self.range_bytes = self.range_bytes - before + part.deleted.bytes();
        if self.savepoints.is_empty() {
            self.point_bytes -= removed.iter().map(|(key, entry)| entry_bytes(key, entry)).sum::<u64>();
        } else {
            self.range_bytes += inserted.bytes();
            self.undo.push(Undo::Range { family, inserted, removed });
        }
        Ok(())
    }

    /// Records what a key holds now, found under its lock. It stays when a savepoint is rolled back to, as the lock
    /// does.
    pub(super) fn see(&mut self, family: Family, key: Bytes, value: Option<Bytes>) {
        debug_assert!(!self.has_written(family, &key), "the transaction's own write is newer");
        let entry = Entry { pending: Pending::Seen(value), logged_at: 0 };
        self.point_bytes += entry_bytes(&key, &entry);
        let part = Arc::make_mut(self.families.entry(family).or_default());
        let before = part.points.insert(key, entry);
        assert!(before.is_none(), "a key is locked once");
    }

    /// Counts a lock, which stays until the end.
    pub(super) fn note_lock(&mut self, key: &[u8]) -> Result<()> {
        let bytes = note_bytes(key);
        check_size(self.point_bytes + self.range_bytes + bytes, self.bytes_max)?;
        self.point_bytes += bytes;
        Ok(())
    }

    /// Marks the present state; returns its serial number.
    pub(super) fn savepoint(&mut self) -> u64 {
        let serial = self.next_savepoint;
        self.next_savepoint += 1;
        self.savepoints.push((serial, self.undo.len()));
        serial
    }

    /// Undoes what was written since the savepoint, which stays; those after it are removed.
    pub(super) fn rollback_to(&mut self, serial: u64) -> Result<()> {
        let Ok(at) = self.savepoints.binary_search_by_key(&serial, |(serial, _)| *serial) else {
            return Err(Error::InvalidArgument("the savepoint was undone by a rollback to an earlier one".into()));
        };
        let (_, undo_len) = self.savepoints[at];
        self.savepoints.truncate(at + 1);
        while self.undo.len() > undo_len {
            let undo = self.undo.pop().expect("the log is longer than it was");
            self.take_back(undo);
        }
        Ok(())
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Point { family, key, before } => {
                let part = self.families.get_mut(&family).expect("what was written to exists");
                let points = &mut Arc::make_mut(part).points;
                self.point_bytes -= if before.is_none() { note_bytes(&key) } else { 0 };
                let undone = match before {
                    Some(before) => points.insert(key.clone(), before),
                    None => points.remove(&key),
                };
                let undone = undone.expect("what is undone was done");
                self.point_bytes -= entry_bytes(&key, &undone);
            }
            Undo::Range { family, inserted, removed } => {
                let part = self.families.get_mut(&family).expect("what was written to exists");
                let part = Arc::make_mut(part);
                let before = part.deleted.bytes() + inserted.bytes();
                part.deleted.undo_insert(inserted);
                self.range_bytes = self.range_bytes - before + part.deleted.bytes();
                part.points.extend(removed);
            }
        }
    }

    /// The commit's batch: range deletes first, because a range delete removes what its batch put before it.
    pub(super) fn batch(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (family, part) in self.families() {
            for (start, end) in part.deleted.iter() {
                batch.delete_range(family, start.as_ref()..end.map_or(&[][..], AsRef::as_ref));
            }
            for (key, entry) in &part.points {
                match &entry.pending {
                    Pending::Put(value) => batch.put(family, key, value),
                    Pending::PutExpiring(value, expires_at_ms) => {
                        batch.put_expiring(family, key, value, *expires_at_ms);
                    }
                    Pending::Delete => batch.delete(family, key),
                    Pending::Seen(_) => {}
                }
            }
        }
        batch
    }

    /// About the memory it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.point_bytes + self.range_bytes
    }
}

fn entry_bytes(key: &[u8], entry: &Entry) -> u64 {
    key.len() as u64 + entry.pending.bytes() + ENTRY_OVERHEAD_BYTES
}

/// Bytes in the undo log for a key that was not there before. (An entry that was there moves to the log as it is.)
fn note_bytes(key: &[u8]) -> u64 {
    key.len() as u64 + ENTRY_OVERHEAD_BYTES
}

fn check_size(bytes: u64, bytes_max: u64) -> Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Error::TransactionTooLarge { option: "write_bytes_max", limit: bytes_max })
}

#[cfg(test)]
#[path = "overlay_test.rs"]
mod tests;
