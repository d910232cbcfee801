//! The entry to the write path: a commit is checked, its large values go to the value log, and a blocking one is
//! written and waited for.
//!
//! A blocking commit runs entirely on its caller's thread (`pipeline.rs`), unless submitted ones are before it: then it
//! waits in the queue behind them.

use super::WritePath;
use super::completion::Waiter;
use super::pipeline::Placed;
use super::queue::PreparedCommit;
use super::visibility::Due;
use crate::log::{CommitPayload, RECORD_HEADER_BYTES, commit_bytes_max};
use crate::{Commit, Durability, Error, Result, SequenceNumber};

/// Most bytes of one commit in the log. Far above what a replicated entry or a client's batch may have, and small
/// enough that a separate segment for it is acceptable.
pub(crate) const COMMIT_BYTES_MAX: u64 = 256 << 20;

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
        let commit = self.check_commit(commit)?;
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

    /// Refuses invalid commits, moves large values to the value log if the commit will be logged, and makes it
    /// ready for the log.
    pub(super) fn check_commit(&self, commit: Commit) -> Result<PreparedCommit> {
        self.shared.health.check_writable()?;
        match commit.durability {
            // It was checked where it was proposed.
            Durability::Derived => commit.batch.validate()?,
            _ => commit.batch.validate_at(|| self.shared.env.clock.wall_ms())?,
        }
        let drops = self.family_drops.count();
        self.check_families(&commit.batch)?;
        let bytes = RECORD_HEADER_BYTES + commit_bytes_max(&commit.batch, &commit.streams);
        if bytes > COMMIT_BYTES_MAX {
            let message = format!("a commit has {bytes} bytes; at most {COMMIT_BYTES_MAX} are accepted");
            return Err(Error::InvalidArgument(message));
        }
        if commit.durability == Durability::Derived && !commit.streams.is_empty() {
            return Err(Error::InvalidArgument("a derived commit holds no stream operations".into()));
        }
        if commit.durability == Durability::Derived && !commit.unchanged.is_empty() {
            return Err(Error::InvalidArgument("a derived commit has no conditions".into()));
        }
        let checked_through = self.check_unchanged(&commit.unchanged)?;
        let Commit { batch, streams, durability, unchanged } = commit;
        if durability != Durability::Derived && streams.is_empty() {
            // What replication logs is applied in every case, whatever the load here.
            self.shared.recorder.hot_keys.admit(&batch, || self.shared.recorder.now())?;
        }
        // The large values of derived commits are separated by the flush; and a small commit that waits for the disk
        // should wait only once.
        let together =
            durability == Durability::Sync && batch.as_bytes().len() as u64 <= self.shared.options.sync_value_bytes_max;
        let (batch, values) =
            if durability == Durability::Derived || together { (batch, None) } else { self.separate_values(batch)? };
        let payload = CommitPayload::new(&batch, &streams);
        Ok(PreparedCommit {
            batch,
            streams,
            durability,
            unchanged,
            checked_through,
            drops,
            payload,
            bytes,
            _values: values,
        })
    }
}
