//! Blocking commits. One runs entirely on its caller's thread (`pipeline.rs`), unless submitted ones are before it:
//! then it waits in the queue behind them.

use super::WritePath;
use super::completion::Waiter;
use super::pipeline::Placed;
use super::prepare::PreparedCommit;
use super::visibility::Due;
use crate::{Commit, Durability, Error, Result, SequenceNumber};

impl WritePath {
    /// A blocking commit.
    pub(crate) fn commit(&self, commit: Commit) -> Result<SequenceNumber> {
        let started = self.shared.recorder.start_sampled();
        self.shared.recorder.note_writes(&commit.batch, started);
        let outcome = self.commit_unmeasured(commit, started.is_some());
        self.shared.recorder.end(&self.shared.recorder.write, started.filter(|_| outcome.is_ok()));
        outcome
    }

    fn commit_unmeasured(&self, commit: Commit, measure_wait: bool) -> Result<SequenceNumber> {
        let commit = self.prepare(commit)?;
        if commit.durability != Durability::Derived && !commit.batch.is_empty() {
            self.delay_write(commit.bytes)?;
        }
        let outcome = if commit.durability != Durability::Derived && self.memtables.completions.all_answered() {
            self.commit_directly(&commit, measure_wait)
        } else {
            self.commit_in_order(commit)
        };
        if let Err(Error::Conflict { .. }) = &outcome {
            // So that a caller that reads again sees the conflicting write.
            self.wait_due(Due { sequence: self.memtables.next_sequence() - 1, log_end: 0 })?;
        }
        outcome
    }

    fn commit_directly(&self, commit: &PreparedCommit, measure_wait: bool) -> Result<SequenceNumber> {
        let placed = loop {
            match self.sequence(commit)? {
                Some(placed) => break placed,
                None => self.wait_for_capacity()?,
            }
        };
        let placed_at = measure_wait.then(|| self.shared.recorder.now());
        let answer = match placed {
            Placed::Batch(mut ticket) => {
                self.insert(commit, &mut ticket, None);
                self.wait_due(ticket.due())?;
                ticket.sequence
            }
            Placed::Streams(due) => {
                self.wait_due(due)?;
                self.memtables.visible()
            }
        };
        self.shared.recorder.end(&self.shared.recorder.commit_wait, placed_at);
        // Commits that others have submitted meanwhile may have been waiting for this one.
        self.memtables.completions.run();
        self.retry_background();
        Ok(answer)
    }

    /// A blocking commit behind those that were submitted before.
    fn commit_in_order(&self, commit: PreparedCommit) -> Result<SequenceNumber> {
        let (waiter, done) = Waiter::new();
        self.place(commit, done);
        loop {
            if let Some(result) = waiter.try_take() {
                return result;
            }
            if self.queue.try_lead() {
                let led = self.lead();
                if self.queue.stop_leading() {
                    // Others have queued up behind. The job leads them: a caller that led for others would never
                    // return.
                    self.shared.jobs.wake_commit();
                }
                self.memtables.completions.run();
                if led {
                    continue;
                }
            }
            // Another thread leads, or there is no capacity: the answer comes from another thread, or from a job.
            if self.shared.env.tasks.threaded() {
                return waiter.wait();
            }
            if !self.shared.env.tasks.step() {
                let unserved = || Error::Bug("a commit waits for background work that no job does".into());
                return waiter.try_take().unwrap_or_else(|| Err(self.shared.progress.error().unwrap_or_else(unserved)));
            }
        }
    }

    /// Waits until there may be capacity in memory. If the reason is a full disk, that would be for ever: when flush or
    /// compaction have tried again and found no space, the error is returned.
    fn wait_for_capacity(&self) -> Result<()> {
        let failed_before = self.shared.progress.get().failures();
        let _stalled = self.shared.counters.stalled();
        self.note_stall();
        self.shared.wait_for(|progress| {
            if self.memtables.has_capacity() {
                return Some(Ok(()));
            }
            progress.error_since(failed_before).or_else(|| self.shared.health.check_writable().err()).map(Err)
        })
    }
}
