//! One merge, in pieces of the key range that several jobs do at once.
//!
//! The job that plans a large merge cuts its key range at bounds of tables and puts the pieces on a list; jobs without
//! a compaction take from it, as does the owner, which then installs the outputs of all pieces in one edit. If a piece
//! fails, nothing of the merge is installed.

use super::CompactionContext;
use super::merge::{Merged, merge_range};
use super::plan::Plan;
use crate::lock::{Condvar, Mutex, Rank};
use crate::version::Version;
use crate::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;

/// See the head of this file.
pub(super) struct Pieces {
    version: Arc<Version>,
    plan: Plan,
    /// Wall clock of the whole merge.
    now_ms: u64,
    /// Piece `i` begins at `bounds[i - 1]` and ends before `bounds[i]`.
    bounds: Vec<Bytes>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    next: usize,
    results: Vec<Option<Result<Merged>>>,
}

impl Pieces {
    /// Of a plan made for `version`; as many as there are jobs, unless they would be too small.
    pub(super) fn new(context: &CompactionContext, version: Arc<Version>, plan: Plan, now_ms: u64) -> Pieces {
        let table_bytes = context.options_of(plan.family).table_bytes.max(1);
        // A piece of less than two tables would write small ones.
        let most = usize::try_from(plan.bytes() / (2 * table_bytes)).unwrap_or(usize::MAX);
        let count = context.options.background_jobs_max.min(most).max(1);
        let mut tables: Vec<_> = plan.tables().map(|(_, table)| table.meta()).collect();
        tables.sort_by(|a, b| a.smallest_key.cmp(&b.smallest_key));
        let mut bounds = super::guards::even_guards(&tables, count);
        bounds.dedup();
        let results = (0..=bounds.len()).map(|_| None).collect();
        Pieces {
            version,
            plan,
            now_ms,
            bounds,
            progress: Mutex::new(Rank::PieceResults, Progress { next: 0, results }),
            changed: Condvar::new(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.bounds.len() + 1
    }

    /// Does one piece that no job has taken; returns whether there was one.
    pub(super) fn work(&self, context: &CompactionContext) -> bool {
        let at = {
            let mut progress = self.progress.lock();
            let at = progress.next;
            if at >= self.len() {
                return false;
            }
            progress.next += 1;
            at
        };
        // Taken back by the real result below; what stays if the merge panics, so that the owner does not wait for
        // ever.
        let mut result =
            Entered { pieces: self, at, result: Some(Err(Error::Bug("a piece of a merge panicked".into()))) };
        let start = at.checked_sub(1).and_then(|before| self.bounds.get(before));
        let merged = merge_range(context, &self.version, &self.plan, self.now_ms, start, self.bounds.get(at));
        result.result = Some(merged);
        true
    }

    /// Waits for the pieces that others have taken, and returns all results in key order.
    pub(super) fn results(&self) -> Vec<Result<Merged>> {
        let mut progress = self.progress.lock();
        assert!(progress.next >= self.len(), "every piece was taken");
        self.changed.wait_while(&mut progress, |progress| progress.results.iter().any(Option::is_none));
        progress.results.iter_mut().filter_map(Option::take).collect()
    }
}

struct Entered<'a> {
    pieces: &'a Pieces,
    at: usize,
    result: Option<Result<Merged>>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut progress = self.pieces.progress.lock();
        if let Some(slot) = progress.results.get_mut(self.at) {
            *slot = self.result.take();
        }
        self.pieces.changed.notify_all();
    }
}
