//! The `compact` jobs: compactions that are due or requested, and the removal of obsolete files.

use super::dead_range_requests;
use super::failure::{background_failed, wait_after_failure};
use super::idle::IdleWatch;
use crate::Result;
use crate::compaction;
use crate::db::shared::Shared;
use crate::db::shared::progress::ProgressState;
use crate::db::write::WritePath;

/// One step of a job.
pub(super) struct CompactionJob<'a> {
    write: &'a WritePath,
    shared: &'a Shared,
    idle: &'a IdleWatch,
}

impl<'a> CompactionJob<'a> {
    pub(super) fn new(write: &'a WritePath, idle: &'a IdleWatch) -> CompactionJob<'a> {
        CompactionJob { write, shared: &write.shared, idle }
    }

    /// One step of the first `compact` job. Returns whether to call it again.
    pub(crate) fn step(&self) -> bool {
        if self.shared.health.check_writable().is_err() || self.shared.is_stopping() {
            return false;
        }
        let progress = self.shared.progress.get();
        // In a stepped world an ingest that excludes compactions lets jobs step while it waits for a flush: a job that
        // waited for the ingest here would wait for ever. `compaction::step` plans around it, the others can be done
        // after it.
        let held = !self.shared.env.tasks.threaded() && !self.shared.context.state.in_flight().is_empty();
        let requested = (progress.compactions_requested > progress.compactions_done && !held)
            .then_some(progress.compactions_requested);
        let pop = |state: &mut ProgressState| if held { None } else { state.compact_for_values.pop_first() };
        let outcome = match requested {
            Some(_) => self.compact_all().map(|()| true),
            None => match self.shared.progress.update(pop) {
                Some(family) => compaction::compact_all(&self.shared.context, family).map(|()| true),
                None => match (!held).then(|| dead_range_requests::next(&self.shared.progress)).flatten() {
                    Some(request) => {
                        compaction::compact_range(&self.shared.context, request.family, &request.range).map(|()| true)
                    }
                    None => self.compact_one(),
                },
            },
        };
        let again = self.after_compaction(outcome, requested);
        if !again {
            self.idle.check(self.write);
        }
        again
    }

    /// One step of a further `compact` job.
    pub(crate) fn further_step(&self) -> bool {
        if self.shared.health.check_writable().is_err() || self.shared.is_stopping() {
            return false;
        }
        let outcome = self.compact_one();
        if let Ok(false) = outcome {
            return false; // The first job notifies the waiters and removes obsolete files.
        }
        self.after_compaction(outcome, None)
    }

    fn compact_one(&self) -> Result<bool> {
        let started = self.shared.recorder.now();
        let outcome = compaction::step(&self.shared.context);
        self.shared
            .recorder
            .end(&self.shared.recorder.compaction, Some(started).filter(|_| matches!(outcome, Ok(true))));
        outcome
    }

    /// `requested` is the full compaction that this was, if it was one.
    fn after_compaction(&self, outcome: Result<bool>, requested: Option<u64>) -> bool {
        if !matches!(outcome, Ok(false)) {
            // Also after an error: a full compaction may have finished some families before it.
            self.write.install_version();
            self.write.note_compaction_debt();
        }
        if matches!(outcome, Ok(true)) {
            // Not after a failure: the collection of garbage would request the same compaction again, and on a full
            // disk the two jobs would keep each other busy.
            self.shared.jobs.wake_values();
        }
        let (again, error) = match outcome {
            Ok(worked) => (worked, None),
            Err(error) => {
                background_failed(self.write, &error);
                (false, Some(error))
            }
        };
        let failed = error.is_some();
        self.shared.progress.update(|state| {
            if let Some(ticket) = requested {
                state.compactions_done = ticket;
                state.full_compaction_error = error.clone();
            }
            state.failed_compactions += u64::from(failed);
            state.compaction_error = error;
        });
        if again || failed {
            self.shared.jobs.wake_commit(); // There may be capacity now, or the waiters must get the error.
        }
        // After each unit: in a busy database this may continue for ever, and must free space all the same.
        if let Err(error) = self.shared.context.versions.remove_obsolete(&self.shared.context.tables) {
            tracing::warn!(%error, "obsolete files stay for now");
        }
        if failed { wait_after_failure(self.shared) } else { again }
    }

    fn compact_all(&self) -> Result<()> {
        let families: Vec<_> = self.shared.context.versions.current().families().keys().collect();
        families.into_iter().try_for_each(|family| compaction::compact_all(&self.shared.context, family))
    }
}
