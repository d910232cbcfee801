//! The range tombstones of one family in a memtable.
//!
//! They are added one by one, from several threads, while others read. A new one is added to a short unsorted *tail*; a
//! full tail becomes a [`Run`], and when there are [`FAN_IN`] runs of one size they become one of the next size. So
//! each tombstone is merged a logarithmic number of times, and a lookup searches a logarithmic number of runs. When
//! lookups are frequent they merge, too: once they have together spent on the tail and the surplus of runs what it
//! costs to merge all of them, one does that. So a burst of lookups finds one run, and a burst of deletes does not pay
//! for an order that no lookup needs.
//!
//! Invariants: lists are never changed but at the end of their tail, so a reader that holds one sees every tombstone
//! that was added before it took it, and may see later ones, which are above its sequence number. Runs are in the order
//! in which their tombstones came, newest last.
//!
//! Rejected: one ordered map of fragments that is changed in place (a wide range would touch every fragment under it,
//! and readers of older sequence numbers need what was there before); fragments computed by the first reader after each
//! change, as RocksDB does (deletes and reads that alternate cost the square of their number).

use super::{RangeTombstone, Run, Span, newest_of_both, work};
use crate::SequenceNumber;
use crate::lock::{Mutex, Rank};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Tombstones that are searched one by one.
const TAIL_MAX: usize = 16;

/// Runs of a size that become one of the next: the more, the fewer times a tombstone is merged, and the more runs a
/// lookup searches.
const FAN_IN: usize = 8;

/// See the head of this file.
pub(crate) struct Recent {
    /// Most families have none, which costs a lookup one load.
    some: AtomicBool,
    view: ArcSwapOption<RecentView>,
    /// Held by a thread that adds, or replaces the view; the filled entries of the view's tail.
    adding: Mutex<usize>,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent {
            some: AtomicBool::new(false),
            view: ArcSwapOption::empty(),
            adding: Mutex::new(Rank::MemtableRanges, 0),
        }
    }
}

/// All tombstones at a moment, and maybe later ones.
#[derive(Default)]
pub(crate) struct RecentView {
    runs: Vec<Arc<Run>>,
    /// Filled from the first on.
    tail: [OnceLock<RangeTombstone>; TAIL_MAX],
    /// What lookups have spent because there is more than one run, or a tail.
    surplus: AtomicU64,
}

impl Recent {
    pub(crate) fn add(&self, tombstone: RangeTombstone) {
        assert!(tombstone.start < tombstone.end, "an empty range deletes nothing");
        let mut filled = self.adding.lock();
        let view = match self.view.load_full() {
            Some(view) if *filled < TAIL_MAX => view,
            view => {
                let view = Arc::new(view.map_or_else(RecentView::default, |full| full.with_tail_in_order()));
                self.view.store(Some(view.clone()));
                *filled = 0;
                view
            }
        };
        let free = view.tail.get(*filled).map(|place| place.set(tombstone));
        assert_eq!(free, Some(Ok(())), "the tail is filled under the lock");
        *filled += 1;
        self.some.store(true, Ordering::Release);
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.some.load(Ordering::Acquire)
    }

    /// The newest one at or below `at` that covers the key, by its number.
    pub(crate) fn covering(&self, user_key: &[u8], at: SequenceNumber) -> Option<SequenceNumber> {
        if self.is_empty() {
            return None;
        }
        let view = self.view.load();
        let view = view.as_ref()?;
        self.note_lookup(view);
        Some(view.covering(user_key, at)).filter(|sequence| *sequence > 0)
    }

    /// The present tombstones, for many lookups; `None` if there are none.
    pub(crate) fn view(&self) -> Option<Arc<RecentView>> {
        if self.is_empty() {
            return None;
        }
        let view = self.view.load_full()?;
        self.note_lookup(&view);
        Some(view)
    }

    /// Counts what a lookup costs, and merges all runs and the tail once that pays. A tail costs about what a run does.
    fn note_lookup(&self, view: &Arc<RecentView>) {
        let has_tail = view.tail.first().is_some_and(|first| first.get().is_some());
        let surplus = (view.runs.len() + usize::from(has_tail)).saturating_sub(1) as u64;
        if surplus == 0 {
            return;
        }
        let all: usize = view.runs.iter().map(|run| run.len()).sum();
        if view.surplus.fetch_add(surplus, Ordering::Relaxed) + surplus >= all as u64 {
            self.merge_all();
        }
    }

    /// One run of all, unless another thread is adding.
    fn merge_all(&self) {
        let Some(mut filled) = self.adding.try_lock() else { return };
        let Some(view) = self.view.load_full() else { return };
        if view.runs.len() > 1 || *filled > 0 {
            let mut runs = view.runs.clone();
            if *filled > 0 {
                runs.push(Arc::new(view.tail_as_run()));
            }
            let merged = if runs.len() > 1 { vec![Arc::new(Run::merged(&runs))] } else { runs };
            self.view.store(Some(Arc::new(RecentView { runs: merged, ..RecentView::default() })));
            *filled = 0;
        }
    }
}

impl RecentView {
    /// The same with an empty tail.
    fn with_tail_in_order(&self) -> RecentView {
        let mut runs = self.runs.clone();
        runs.push(Arc::new(self.tail_as_run()));
        loop {
            let size = runs.last().map_or(0, |run| size_of(run));
            let same = runs.iter().rev().take_while(|run| size_of(run) <= size).count();
            if same < FAN_IN {
                break;
            }
            let together = runs.split_off(runs.len() - same);
            runs.push(Arc::new(Run::merged(&together)));
        }
        RecentView { runs, ..RecentView::default() }
    }

    fn tail(&self) -> impl Iterator<Item = &RangeTombstone> {
        self.tail.iter().map_while(OnceLock::get)
    }

    fn tail_as_run(&self) -> Run {
        Run::new(self.tail().cloned().collect())
    }

    /// The number of the newest one at or below `at` that covers the key, 0 if there is none.
    fn covering(&self, user_key: &[u8], at: SequenceNumber) -> SequenceNumber {
        let mut newest = 0;
        for tombstone in self.tail() {
            work::note(1);
            if tombstone.sequence <= at && tombstone.sequence > newest && tombstone.covers(user_key) {
                newest = tombstone.sequence;
            }
        }
        for run in self.runs.iter().rev() {
            if run.smallest <= at && run.largest > newest {
                newest = newest.max(run.covering(user_key, at));
            }
        }
        newest
    }

    /// The same, and how far around the key it holds.
    #[cfg(test)]
    pub(crate) fn span(&self, user_key: &[u8], at: SequenceNumber) -> Span<'_> {
        self.span_from(user_key, at, &mut 0)
    }

    /// As `span`, of keys that come in order: `near` is where the largest run had the one before, and gets the place of
    /// this one. Any number is right; a near one saves the search.
    pub(crate) fn span_from(&self, user_key: &[u8], at: SequenceNumber, near: &mut usize) -> Span<'_> {
        let mut span = Span::NOTHING;
        for (number, run) in self.runs.iter().enumerate().filter(|(_, run)| run.smallest <= at) {
            span = span.and(if number == 0 { run.span_from(user_key, at, near) } else { run.span(user_key, at) });
        }
        for RangeTombstone { start, end, sequence } in self.tail().filter(|tombstone| tombstone.sequence <= at) {
            work::note(1);
            span = span.and(if user_key < start {
                Span { end: Some(start), ..Span::NOTHING }
            } else if end <= user_key {
                Span { start: Some(end), ..Span::NOTHING }
            } else {
                Span { start: Some(start), end: Some(end), sequence: *sequence }
            });
        }
        span
    }

    /// A key of `start..end` (no bound: all that follow) that a tombstone above `since` covers.
    pub(crate) fn covered_since(&self, start: &[u8], end: Option<&[u8]>, since: SequenceNumber) -> Option<Bytes> {
        let within = |tombstone: &RangeTombstone| {
            work::note(1);
            let here = tombstone.sequence > since
                && tombstone.end > start
                && end.is_none_or(|end| tombstone.start < end && start < end);
            here.then(|| if tombstone.start < start { Bytes::copy_from_slice(start) } else { tombstone.start.clone() })
        };
        let in_tail = self.tail().find_map(within);
        in_tail.or_else(|| self.runs.iter().rev().find_map(|run| run.covered_since(start, end, since)))
    }

    /// As they were written, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &RangeTombstone> {
        self.runs.iter().flat_map(|run| run.tombstones()).chain(self.tail())
    }

    /// The newest over each key: ascending, disjoint ranges.
    pub(crate) fn newest_only(&self) -> Vec<RangeTombstone> {
        let tail = self.tail_as_run().newest_only();
        // From the smallest run to the largest.
        self.runs.iter().rev().fold(tail, |newest, run| newest_of_both(&newest, &run.newest_only()))
    }
}

/// Runs of the same size are merged with each other.
fn size_of(run: &Run) -> u32 {
    (run.len() / TAIL_MAX).max(1).ilog(FAN_IN)
}

#[cfg(test)]
#[path = "recent_test.rs"]
mod tests;
