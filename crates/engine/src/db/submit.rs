//! The entry to the write path: checks, blocking commits, submitted ones, derived ones.
//!
//! A blocking commit runs entirely on its caller's thread (`lead.rs`), unless submitted ones are before it: then it
//! waits in the queue behind them. Derived commits need no log.

use super::completion::{Completion, Done, Waiter};
use super::core::Core;
use super::lead::{Placed, refusal};
use super::order::Due;
use super::queue::{Pending, Write};
use crate::log::{CommitPayload, RECORD_HEADER_BYTES, commit_bytes_max};
use crate::{Commit, Durability, Error, Result, SequenceNumber};
use std::sync::atomic::Ordering;

/// Most bytes of one commit in the log. Far above what a replicated entry or a client's batch may have, and small
/// enough that a separate segment for it is acceptable.
pub(crate) const COMMIT_BYTES_MAX: u64 = 256 << 20;

impl Core {
    /// A blocking commit.
    pub(crate) fn commit(&self, commit: Commit) -> Result<SequenceNumber> {
        let started = self.recorder.start_sampled();
        self.recorder.note_writes(&commit.batch, started);
        let outcome = self.commit_unmeasured(commit, started.is_some());
        self.recorder.end(&self.recorder.write, started.filter(|_| outcome.is_ok()));
        outcome
    }

    fn commit_unmeasured(&self, commit: Commit, measure_wait: bool) -> Result<SequenceNumber> {
        let write = self.check_commit(commit)?;
        if write.durability != Durability::Derived && !write.batch.is_empty() {
            self.wait_for_turn(write.bytes)?;
        }
        let outcome = if write.durability != Durability::Derived && self.writes.completions.all_answered() {
            self.commit_directly(&write, measure_wait)
        } else {
            self.commit_in_order(write)
        };
        if let Err(Error::Conflict { .. }) = &outcome {
            // So that a caller that reads again sees the conflicting write.
            self.wait_due(Due { sequence: self.writes.next_sequence() - 1, log_end: 0 })?;
        }
        outcome
    }

    fn commit_directly(&self, write: &Write, measure_wait: bool) -> Result<SequenceNumber> {
        let placed = loop {
            match self.sequence(write)? {
                Some(placed) => break placed,
                None => self.wait_for_capacity()?,
            }
        };
        let placed_at = measure_wait.then(|| self.recorder.now());
        let answer = match placed {
            Placed::Batch(mut ticket) => {
                self.insert(write, &mut ticket, None);
                self.wait_due(ticket.due())?;
                ticket.sequence
            }
            Placed::Streams(due) => {
                self.wait_due(due)?;
                self.writes.visible()
            }
        };
        self.recorder.end(&self.recorder.commit_wait, placed_at);
        // Commits that others have submitted meanwhile may have been waiting for this one.
        self.writes.completions.run();
        self.retry_background();
        Ok(answer)
    }

    /// A blocking commit behind those that were submitted before.
    fn commit_in_order(&self, write: Write) -> Result<SequenceNumber> {
        let (waiter, done) = Waiter::new();
        self.place(write, done);
        loop {
            if let Some(result) = waiter.try_take() {
                return result;
            }
            if self.queue.try_lead() {
                let led = self.lead();
                if self.queue.stop_leading() {
                    // Others have queued up behind. The job leads them: a caller that led for others would never
                    // return.
                    self.wake_commit();
                }
                self.writes.completions.run();
                if led {
                    continue;
                }
            }
            // Another thread leads, or there is no capacity: the answer comes from another thread, or from a job.
            if self.env.tasks.threaded() {
                return waiter.wait();
            }
            if !self.env.tasks.step() {
                let unserved = || Error::Bug("a commit waits for background work that no job does".into());
                return waiter.try_take().unwrap_or_else(|| Err(self.background_error().unwrap_or_else(unserved)));
            }
        }
    }

    /// Waits until there may be capacity in memory. If the reason is a full disk, that would be for ever: when flush or
    /// compaction have tried again and found no space, the error is returned.
    fn wait_for_capacity(&self) -> Result<()> {
        let failed_before = self.progress.get().failures();
        let _stalled = self.counters.stalled();
        self.note_stall();
        self.wait_for(|progress| {
            if self.writes.has_room() {
                return Some(Ok(()));
            }
            progress.error_since(failed_before).or_else(|| self.check_writable().err()).map(Err)
        })
    }

    /// A commit that does not block; `done` gets the answer, also a refusal.
    pub(crate) fn submit(&self, commit: Commit, done: Done) {
        let done = self.measured(&commit, done);
        match self.check_commit(commit) {
            Ok(write) => {
                let logged = write.durability != Durability::Derived;
                self.place(write, done);
                if logged {
                    self.wake_commit();
                }
            }
            Err(error) => {
                // Refused at once, before those that wait: they are valid, this one never was.
                self.writes.completions.expect();
                self.writes.completions.push([Completion { done, result: Err(error) }]);
                self.writes.completions.run();
            }
        }
    }

    /// The same, with the time until the answer recorded, if this commit was sampled for that.
    fn measured(&self, commit: &Commit, done: Done) -> Done {
        let Some(started) = self.recorder.start_sampled() else { return done };
        self.recorder.note_writes(&commit.batch, Some(started));
        let recorder = self.recorder.clone();
        Box::new(move |result| {
            recorder.end(&recorder.write, Some(started).filter(|_| result.is_ok()));
            done(result);
        })
    }

    /// One step of the `commit` job; returns whether to call it again.
    pub(crate) fn commit_step(&self) -> bool {
        if let Err(error) = self.check_writable() {
            self.refuse_all(&error);
            return false;
        }
        self.insert_derived(false);
        let mut again = false;
        if self.queue.try_lead() {
            let led = self.lead();
            again = self.queue.stop_leading() && led;
        }
        self.writes.completions.run();
        again
    }

    /// Refuses invalid commits, moves large values to the value log if the commit will be logged, and makes it
    /// ready for the log.
    fn check_commit(&self, commit: Commit) -> Result<Write> {
        self.check_writable()?;
        match commit.durability {
            // It was checked where it was proposed.
            Durability::Derived => commit.batch.validate()?,
            _ => commit.batch.validate_at(|| self.env.clock.wall_ms())?,
        }
        let drops = self.family_changes.drops();
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
            self.recorder.hot_keys.admit(&batch, || self.recorder.now())?;
        }
        // The large values of derived commits are separated by the flush; and a small commit that waits for the disk
        // should wait only once.
        let together =
            durability == Durability::Sync && batch.as_bytes().len() as u64 <= self.options.sync_value_bytes_max;
        let (batch, values) =
            if durability == Durability::Derived || together { (batch, None) } else { self.separate(batch)? };
        let payload = CommitPayload::new(&batch, &streams);
        Ok(Write { batch, streams, durability, unchanged, checked_through, drops, payload, bytes, _values: values })
    }

    /// Puts a checked commit in its queue; derived ones are written at once, if there is capacity.
    fn place(&self, write: Write, done: Done) {
        self.writes.completions.expect();
        let derived = write.durability == Durability::Derived;
        let pending = Pending { write, done };
        if derived {
            self.queue.derived.lock().push_back(pending);
            self.insert_derived(true);
            self.writes.completions.run();
        } else {
            self.queue.push(pending);
        }
        // A close or stop after the commit was checked may have found the queue still empty.
        if let Err(error) = self.check_writable() {
            self.refuse_all(&error);
        }
    }

    /// Answers everything that waits with `error`, for good. Not under any lock.
    pub(crate) fn refuse_all(&self, error: &Error) {
        self.refuse_logged(error);
        let derived: Vec<Pending> = self.queue.derived.lock().drain(..).collect();
        self.writes.completions.push(derived.into_iter().map(|pending| refusal(pending, error)));
        self.writes.completions.run();
    }

    /// Answers the logged commits that wait with `error`, after those that are in progress; the caller runs the
    /// completions.
    pub(crate) fn refuse_logged(&self, error: &Error) {
        for pending in self.queue.take_logged() {
            let due = Due { sequence: self.last_logged.load(Ordering::Acquire), log_end: 0 };
            let left = self.writes.answer(due, refusal(pending, error));
            left.into_iter().for_each(|answer| self.refuse(answer));
        }
    }

    /// Writes derived commits while there is capacity, in order. With `retry`, requests a flush if there is none: for
    /// new commits only, since the job is woken by the very work that failed to free memory, and the two would keep
    /// each other busy for as long as the disk is full.
    fn insert_derived(&self, retry: bool) {
        let mut waiting = self.queue.derived.lock();
        while let Some(pending) = waiting.front() {
            if pending.write.batch.is_empty() {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                let left = self.writes.answer_after_all(Completion { done, result: Ok(self.writes.visible()) });
                left.into_iter().for_each(|answer| self.refuse(answer));
                continue;
            }
            if let Err(error) = self.check_families_again(&pending.write.batch, pending.write.drops) {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                let left = self.writes.answer_after_all(Completion { done, result: Err(error) });
                left.into_iter().for_each(|answer| self.refuse(answer));
                continue;
            }
            let begun = self.writes.begin(false, |_| Ok(None)).expect("nothing is appended, so nothing fails");
            let Some((mut ticket, frozen)) = begun else {
                if retry {
                    self.note_stall();
                }
                return;
            };
            if frozen {
                self.wake_flush();
            }
            let Pending { write, done } = waiting.pop_front().expect("there is a front");
            self.counters.note_commit(Durability::Derived);
            let result = Ok(ticket.sequence);
            self.insert(&write, &mut ticket, Some(Completion { done, result }));
        }
    }

    /// There is no capacity in memory: writers wait.
    pub(crate) fn note_stall(&self) {
        self.counters.note_stall();
        self.wake_flush();
        self.wake_compact();
    }

    /// The error of the last attempt of flush or compaction.
    pub(crate) fn background_error(&self) -> Option<Error> {
        self.progress.get().error()
    }
}
