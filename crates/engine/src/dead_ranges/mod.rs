//! Dead ranges: ranges of keys in which no reader finds anything, recorded by scans that passed over them and skipped
//! by those that follow. docs/internals/reads.md has the design and what was rejected.
//!
//! A range is *known* with a sequence number and a wall time: a reader at or above both finds nothing in it. That
//! stays true until something is put there, and the writer takes the key out of the range before the put is
//! visible ([`DeadRanges::note_puts`]).
//!
//! A scan at number S has proven that nothing at or below S is visible. Writes above S may have come while it walked.
//! So it announces the range first (*pending*) and then checks whether anything was written there above S
//! ([`DeadRanges::learn`]). A writer inserts first and then looks for ranges. One of the two sees the other: both put a

mod lists;

use crate::lock::{Mutex, Rank};
use crate::types::BatchEntry;
use crate::{Family, Range, SequenceNumber, WriteBatch};
use arc_swap::ArcSwap;
use bytes::Bytes;
use lists::{DeadRange, Lists};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// A range that a scan has walked over.
pub(crate) struct Proof {
    pub(crate) family: Family,
    /// First user key.
    pub(crate) start: Bytes,
    /// First user key behind it.
    pub(crate) end: Bytes,
    /// The scan reads at this number.
    pub(crate) sequence: SequenceNumber,
    /// And decides expiry at this wall time.
    pub(crate) now_ms: u64,
    /// Versions that it passed over.
    pub(crate) versions: u64,
    /// The walk ends here: a compaction may be requested.
    pub(crate) is_last: bool,
}

/// Tables may hold many dead versions in a range.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) family: Family,
    pub(crate) range: Range,
    /// Versions that scans passed over there.
    pub(crate) versions: u64,
}

/// Whether nothing in a range was written after a number.
pub(crate) type IsUnchanged = Box<dyn Fn(Family, &Range, SequenceNumber) -> bool + Send + Sync>;

/// What the database does for dead ranges.
pub(crate) struct Hooks {
    /// Whether nothing was written to a range above a number, as for a condition of a commit. Everything counts that
    /// was in memory at the call, visible or not.
    pub(crate) is_unchanged: IsUnchanged,
    /// Takes a request for a compaction.
    pub(crate) request: Box<dyn Fn(Request) + Send + Sync>,
}

/// See the head of this file. One for a database.
pub(crate) struct DeadRanges {
    /// A scan records a range if it passed over so many versions in it; 0: never.
    versions_min: u64,
    /// A compaction is requested after so many in one range; 0: never.
    request_versions: u64,
    /// Whether there are any: the only check of writers and scans while there are none.
    any: AtomicBool,
    lists: ArcSwap<Lists>,
    /// Held by a thread that replaces the lists; has the last number given to a range.
    last_id: Mutex<u64>,
    hooks: OnceLock<Hooks>,
    recorded: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
}

/// Statistics of dead ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeadRangeStats {
    pub(crate) known: u64,
    pub(crate) recorded: u64,
    pub(crate) refused: u64,
    pub(crate) cut: u64,
}

impl DeadRanges {
    pub(crate) fn new(versions_min: u64, request_versions: u64) -> DeadRanges {
        DeadRanges {
            versions_min,
            request_versions,
            any: AtomicBool::new(false),
            lists: ArcSwap::default(),
            last_id: Mutex::new(Rank::DeadRanges, 0),
            hooks: OnceLock::new(),
            recorded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cut: AtomicU64::new(0),
        }
    }

    /// Sets the callbacks into the database. Once, at open; nothing is recorded before.
    pub(crate) fn set_hooks(&self, hooks: Hooks) {
        assert!(self.hooks.set(hooks).is_ok(), "set once, at open");
    }

    /// A scan records a range if it passed over so many versions; `u64::MAX`: never.
    pub(crate) fn versions_min(&self) -> u64 {
        if self.versions_min == 0 || self.hooks.get().is_none() { u64::MAX } else { self.versions_min }
    }

    pub(crate) fn stats(&self) -> DeadRangeStats {
        DeadRangeStats {
            known: self.lists.load().known.len() as u64,
            recorded: self.recorded.load(Relaxed),
            refused: self.refused.load(Relaxed),
            cut: self.cut.load(Relaxed),
        }
    }

    /// What a scan may skip.
    pub(crate) fn skips(&self, family: Family, sequence: SequenceNumber, now_ms: u64) -> Option<Skips> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let lists = self.lists.load();
        let of_family = lists.of_family(family);
        (!of_family.is_empty()).then(|| Skips { lists: lists.clone(), of_family, sequence, now_ms })
    }

    /// Records what a scan has proven, if nothing was written there since.
    pub(crate) fn learn(&self, proof: &Proof) {
        let Some(hooks) = self.hooks.get() else { return };
        if proof.start >= proof.end {
            return;
        }
        let id = self.change(|lists, last_id| {
            *last_id += 1;
            lists.announce(*last_id, proof).then_some(*last_id)
        });
        let Some(id) = id else {
            self.refused.fetch_add(1, Relaxed);
            return;
        };
        fence(Ordering::SeqCst);
        // A write that did not see the range is in memory, or was.
        let range = Range { start: Some(proof.start.clone()), end: Some(proof.end.clone()) };
        let holds = (hooks.is_unchanged)(proof.family, &range, proof.sequence);
        let known = self.change(|lists, _| lists.settle(id, holds));
        let Some(known) = known else {
            self.refused.fetch_add(1, Relaxed);
            return;
        };
        self.recorded.fetch_add(1, Relaxed);
        if proof.is_last {
            self.request(hooks, known);
        }
    }

    /// Requests a compaction, again only when twice as many versions have been passed over.
    fn request(&self, hooks: &Hooks, known: DeadRange) {
        if self.request_versions == 0 || known.versions < self.request_versions.max(known.requested.saturating_mul(2)) {
            return;
        }
        self.change(|lists, _| lists.note_requested(known.id, known.versions));
        let range = Range { start: Some(known.start), end: Some(known.end) };
        (hooks.request)(Request { family: known.family, range, versions: known.versions });
    }

    /// A batch has been put into a memtable, and is not visible yet.
    pub(crate) fn note_puts(&self, batch: &WriteBatch) {
        fence(Ordering::SeqCst);
        if !self.any.load(Relaxed) {
            return;
        }
        let lists = self.lists.load();
        for entry in batch.entries() {
            if let BatchEntry::Version { family, key, kind, .. } = entry
                && !kind.is_delete()
                && lists.has(family, key)
            {
                self.take_out(family, key, Some(&crate::types::successor(key)));
            }
        }
    }

    /// Something is there, or may be, between two keys. Before it is visible.
    pub(crate) fn take_out(&self, family: Family, start: &[u8], end: Option<&[u8]>) {
        let cut = self.change(|lists, _| lists.take_out(family, start, end));
        self.cut.fetch_add(cut, Relaxed);
    }

    fn change<R>(&self, change: impl FnOnce(&mut Lists, &mut u64) -> R) -> R {
        let mut last_id = self.last_id.lock();
        let mut lists = Lists::clone(&self.lists.load());
        let result = change(&mut lists, &mut last_id);
        let any = !lists.is_empty();
        self.lists.store(Arc::new(lists));
        self.any.store(any, Ordering::Release);
        result
    }
}

/// The dead ranges that a scan may skip: those that were known when it began.
pub(crate) struct Skips {
    lists: Arc<Lists>,
    of_family: std::ops::Range<usize>,
    sequence: SequenceNumber,
    now_ms: u64,
}

impl Skips {
    /// The dead range that has the key, by its first key and the first key behind it.
    pub(crate) fn around(&self, key: &[u8]) -> Option<(Bytes, Bytes)> {
        let ranges = self.lists.known.get(self.of_family.clone())?;
        let range = ranges.get(ranges.partition_point(|range| range.end <= key))?;
        self.usable(range).filter(|(start, _)| start <= key)
    }

    /// The dead range that has the keys right below `end`, likewise.
    pub(crate) fn below(&self, end: &[u8]) -> Option<(Bytes, Bytes)> {
        let ranges = self.lists.known.get(self.of_family.clone())?;
        let range = ranges.get(ranges.partition_point(|range| range.end < end))?;
        self.usable(range).filter(|(start, _)| start < end)
    }

    fn usable(&self, range: &DeadRange) -> Option<(Bytes, Bytes)> {
        let usable = range.sequence <= self.sequence && range.now_ms <= self.now_ms;
        usable.then(|| (range.start.clone(), range.end.clone()))
    }
}

#[cfg(test)]
#[path = "dead_ranges_test.rs"]
mod tests;
