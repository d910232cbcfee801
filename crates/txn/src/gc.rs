//! Which stored versions no transaction needs any more.
//!
//! A *safe point* is a timestamp below which no read is served and no prewrite accepted. Of each key, then, these are
//! needed and nothing else:
//! - what is above the safe point;
//! - the newest put at or below it, if no delete is newer there: what a read at the safe point sees;
//! - locks, whatever their timestamp, and the long values that belong to what is needed.
//!
//! So a record *below* the safe point is dead if it is a rollback or lock record (they concern only transactions that
//! cannot prewrite any more), if a newer put or delete is at or below the safe point, or if it is a delete with nothing
//! older to hide. A long value is dead if its transaction began below the safe point and has neither a lock on the key
//! nor a record there that is needed.
//!
//! Nothing that is dead comes to life again, whatever is applied later. docs/internals/gc.md says why, and who raises
//! the safe point in which order.

use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, split_versioned};
use crate::planted::{self, Bug};
use crate::{Lock, Malformed, StorageError, TimeStamp, Write, WriteKind};
use bytes::Bytes;
use kontiki_engine::{Direction, Family, Range, View};
use std::collections::BTreeSet;

/// The maximum number of records of one key that are looked through for those to which long values belong. The long
/// values of a key with more of them stay until the records are fewer.
const RECORDS_OF_A_KEY_MAX: usize = 64 << 10;

/// Why it is not known whether an entry is dead.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GcError {
    /// Reading failed.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A stored record is not what was written.
    #[error("corruption at key {}: {what}", .key.escape_ascii())]
    Corrupt {
        /// The physical key.
        key: Bytes,
        /// What was found.
        what: &'static str,
    },
}

impl From<kontiki_engine::Error> for GcError {
    fn from(error: kontiki_engine::Error) -> GcError {
        GcError::Storage(error.into())
    }
}

fn corrupt(physical: &[u8], what: Malformed) -> GcError {
    GcError::Corrupt { key: Bytes::copy_from_slice(physical), what: what.0 }
}

/// Safe points of key ranges that do not overlap: what lies in none has none.
#[derive(Clone, Debug, Default)]
pub struct SafePoints {
    /// By ascending start.
    ranges: Vec<(Range, TimeStamp)>,
}

impl SafePoints {
    /// Of these ranges of encoded keys.
    pub fn new(ranges: impl IntoIterator<Item = (Range, TimeStamp)>) -> SafePoints {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(_, safe_point)| !safe_point.is_zero()).collect();
        ranges.sort_by(|(a, _), (b, _)| a.start.cmp(&b.start));
        SafePoints { ranges }
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    fn of(&self, key: &[u8]) -> TimeStamp {
        let behind = self.ranges.partition_point(|(range, _)| range.start.as_deref().is_none_or(|start| start <= key));
        let range = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        range.filter(|(range, _)| range.contains(key)).map_or(TimeStamp::ZERO, |(_, safe_point)| *safe_point)
    }
}

/// Distinguishes dead entries of a family from the others, in a pass over its keys in ascending order.
///
/// A pass over *some* entries, as a merge of some tables makes it, calls dead what may be dropped now. `view` holds
/// every entry of the pass, or what has replaced it.
///
/// A pass over *all* entries of `view` calls dead what may be dropped at some time, which does not depend on what was
/// dropped already: what is left is the same on all replicas.
pub struct GcPass<V> {
    family: Family,
    safe_points: SafePoints,
    view: V,
    /// The encoded user key of the last entry.
    key: Vec<u8>,
    safe_point: TimeStamp,
    /// A put or delete of the key at or below the safe point has passed.
    has_newest: bool,
    sees_all: bool,
    /// The transactions to which long values of the key belong; `None`: they are too many to tell.
    owners: Option<BTreeSet<TimeStamp>>,
}

/// Whether entries of the family can be dead.
pub fn can_be_dead(family: Family) -> bool {
    family == TXN_WRITE || family == TXN_DEFAULT
}

impl<V: View> GcPass<V> {
    /// Over some entries of a family.
    pub fn over_some(family: Family, safe_points: SafePoints, view: V) -> GcPass<V> {
        let (key, safe_point) = (Vec::new(), TimeStamp::ZERO);
        GcPass { family, safe_points, view, key, safe_point, has_newest: false, sees_all: false, owners: None }
    }

    /// Over all entries of a family in the view.
    pub fn over_all(family: Family, safe_points: SafePoints, view: V) -> GcPass<V> {
        GcPass { sees_all: true, ..GcPass::over_some(family, safe_points, view) }
    }

    /// Whether an entry is dead. `value` is `None` if it is not at hand.
    pub fn is_dead(&mut self, physical: &[u8], value: Option<&[u8]>) -> Result<bool, GcError> {
        if !can_be_dead(self.family) || self.safe_points.is_empty() {
            return Ok(false);
        }
        let (encoded, ts) = split_versioned(physical).map_err(|what| corrupt(physical, what))?;
        if self.key != encoded || self.safe_point.is_zero() {
            self.begin_key(encoded)?;
        }
        // Of the newest version at or below it, a read at the safe point needs the record; below it lie the others.
        if ts > self.safe_point {
            return Ok(false);
        }
        match (self.family == TXN_WRITE, value) {
            (true, Some(value)) => {
                let write = Write::decode_at(ts, value).map_err(|what| corrupt(physical, what))?;
                self.is_dead_record(ts, &write)
            }
            // A record is never that large.
            (true, None) => Ok(false),
            (false, _) => Ok(ts < self.safe_point && self.owners.as_ref().is_some_and(|owners| !owners.contains(&ts))),
        }
    }

    fn begin_key(&mut self, encoded: &[u8]) -> Result<(), GcError> {
        self.key.clear();
        self.key.extend_from_slice(encoded);
        self.has_newest = false;
        self.safe_point = self.safe_points.of(encoded);
        self.owners = None;
        if self.family == TXN_DEFAULT && !self.safe_point.is_zero() {
            self.owners = self.owners_of_values()?;
        }
        Ok(())
    }

    fn is_dead_record(&mut self, commit_ts: TimeStamp, write: &Write) -> Result<bool, GcError> {
        let below = commit_ts < self.safe_point;
        match write.kind {
            // Its transaction cannot prewrite any more, so nothing has to keep it from that.
            WriteKind::Rollback | WriteKind::Lock => Ok(below),
            WriteKind::Put | WriteKind::Delete => {
                let is_newest = !std::mem::replace(&mut self.has_newest, true);
                if !is_newest || planted::is_set(Bug::DropNeededVersion) {
                    return Ok(below);
                }
                if !below || write.kind != WriteKind::Delete {
                    return Ok(false);
                }
                Ok(self.sees_all || !self.has_older_change(commit_ts)?)
            }
        }
    }

    /// Whether a put or delete of the key below `commit_ts` is still stored.
    fn has_older_change(&self, commit_ts: TimeStamp) -> Result<bool, GcError> {
        let Some(range) = self.records_below(commit_ts) else { return Ok(false) };
        let mut entries = self.view.entries(TXN_WRITE, range, Direction::Forward)?;
        while let Some((physical, bytes)) = entries.next().transpose()? {
            let write = Write::decode(&bytes).map_err(|what| corrupt(&physical, what))?;
            if matches!(write.kind, WriteKind::Put | WriteKind::Delete) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The physical keys of the current key's records below a timestamp.
    fn records_below(&self, commit_ts: TimeStamp) -> Option<Range> {
        let newest = commit_ts.0.checked_sub(1)?;
        let with = |ts: u64| [&self.key[..], &(!ts).to_be_bytes()].concat();
        let mut end = with(0);
        end.push(0);
        Some(Range { start: Some(with(newest).into()), end: Some(end.into()) })
    }

    /// The transactions that a long value of the current key can belong to.
    fn owners_of_values(&self) -> Result<Option<BTreeSet<TimeStamp>>, GcError> {
        let mut owners = BTreeSet::new();
        // One view, so a commit is seen as its lock or as its record.
        if let Some(bytes) = self.view.get(TXN_LOCK, &self.key)? {
            let lock = Lock::decode(&bytes).map_err(|what| corrupt(&self.key, what))?;
            owners.insert(lock.start_ts);
        }
        let Some(range) = self.records_below(TimeStamp::MAX) else { return Ok(None) };
        let mut entries = self.view.entries(TXN_WRITE, range, Direction::Forward)?;
        let mut is_first_below = true;
        // A pass over everything says the same whatever was dropped, so it has to know.
        let records_max = if self.sees_all { usize::MAX } else { RECORDS_OF_A_KEY_MAX };
        for _ in 0..records_max {
            let Some((physical, bytes)) = entries.next().transpose()? else { return Ok(Some(owners)) };
            let (_, ts) = split_versioned(&physical).map_err(|what| corrupt(&physical, what))?;
            let write = Write::decode_at(ts, &bytes).map_err(|what| corrupt(&physical, what))?;
            let changes = matches!(write.kind, WriteKind::Put | WriteKind::Delete);
            let is_needed = ts > self.safe_point || changes && std::mem::replace(&mut is_first_below, false);
            if is_needed && write.kind == WriteKind::Put {
                owners.insert(write.start_ts);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "gc_test.rs"]
mod tests;
