//! The way in to the write path: checks, queues, answers; and derived commits, which need no leader.
//!
//! What a leader does with a group of logged commits is in `lead.rs`.

use super::completion::{Completion, Done, Waiter};
use super::core::Core;
use super::lead::refusal;
use super::queue::Pending;
use crate::batch::BatchEntry;
use crate::log::{RECORD_HEADER_BYTES, commit_bytes_max};
use crate::vlog::ValuePin;
use crate::{Commit, Durability, Error, Result, SequenceNumber, WriteBatch};

/// Most bytes of one commit in the log. Far above what a replicated entry or a client's batch may have, and small enough
/// that a segment of its own for it is no burden.
pub(crate) const COMMIT_BYTES_MAX: u64 = 256 << 20;

/// What the first look at a commit has found.
struct Checked {
    /// The most bytes that it takes in the log.
    bytes: u64,
    /// Its conditions hold up to this number.
    checked_through: SequenceNumber,
    /// Of its large values, which are in the value log by now.
    values: Option<ValuePin>,
}

impl Core {
    /// A blocking commit.
    pub(crate) fn commit(&self, commit: Commit) -> Result<SequenceNumber> {
        let (commit, checked) = self.admit(commit)?;
        let (waiter, done) = Waiter::new();
        self.place(commit, checked, done);
        loop {
            if let Some(result) = waiter.try_take() {
                return result;
            }
            if self.queue.try_lead() {
                let led = self.lead();
                if self.queue.stop_leading() {
                    // Others queued up behind this group. They are led by the job: who leads for others for ever
                    // never gets to its own caller.
                    self.wake_commit();
                }
                self.writes.completions.run();
                if led {
                    continue;
                }
            }
            // Somebody else leads, or there is no room: the answer comes from another thread, or from a job.
            if self.env.tasks.threaded() {
                return waiter.wait();
            }
            if !self.env.tasks.step() {
                let nobody = || Error::Bug("a commit waits for background work that nobody does".into());
                return waiter.try_take().unwrap_or_else(|| Err(self.background_error().unwrap_or_else(nobody)));
            }
        }
    }

    /// A commit that does not block; `done` gets the answer, also that of a refusal.
    pub(crate) fn submit(&self, commit: Commit, done: Done) {
        match self.admit(commit) {
            Ok((commit, checked)) => {
                let logged = commit.durability != Durability::Derived;
                self.place(commit, checked, done);
                if logged {
                    self.wake_commit();
                }
            }
            Err(error) => {
                self.writes.completions.push([Completion { done, result: Err(error) }]);
                self.writes.completions.run();
            }
        }
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

    /// Checks a commit and, if it will be logged, moves its large values to the value log.
    fn admit(&self, mut commit: Commit) -> Result<(Commit, Checked)> {
        let mut checked = self.check_commit(&commit)?;
        if commit.durability != Durability::Derived {
            (commit.batch, checked.values) = self.separate(commit.batch)?;
            if checked.values.is_some() {
                checked.bytes = RECORD_HEADER_BYTES + commit_bytes_max(&commit.batch, &commit.streams);
            }
        }
        Ok((commit, checked))
    }

    /// Refuses what must not be written; returns the most bytes that the commit takes in the log.
    fn check_commit(&self, commit: &Commit) -> Result<Checked> {
        self.check_writable()?;
        commit.batch.validate()?;
        if commit.batch.entries().any(|entry| matches!(entry, BatchEntry::DeleteRange { .. })) {
            return Err(Error::InvalidArgument("range deletes cannot be flushed yet".into()));
        }
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
        Ok(Checked { bytes, checked_through: self.check_unchanged(&commit.unchanged)?, values: None })
    }

    /// Puts a checked commit in its queue; derived ones are written at once, if there is room.
    fn place(&self, commit: Commit, checked: Checked, done: Done) {
        let Checked { bytes, checked_through, values } = checked;
        let Commit { batch, streams, durability, unchanged } = commit;
        let pending = Pending { batch, streams, durability, unchanged, checked_through, _values: values, done };
        if durability == Durability::Derived {
            self.queue.derived.lock().push_back(pending);
            self.insert_derived(true);
            self.writes.completions.run();
        } else {
            self.queue.push(pending, bytes);
        }
        // A close or stop after the commit was checked may have found the queue still empty.
        if let Err(error) = self.check_writable() {
            self.refuse_all(&error);
        }
    }

    fn check_families(&self, batch: &WriteBatch) -> Result<()> {
        let version = self.context.versions.current();
        for family in batch.entries().map(|entry| entry.family()) {
            if version.family(family).is_none() {
                return Err(Error::InvalidArgument(format!("{family:?} does not exist in this database")));
            }
        }
        Ok(())
    }

    /// Answers everything that waits with `error`, for good. Not under any lock.
    pub(crate) fn refuse_all(&self, error: &Error) {
        self.refuse_logged(error);
        let derived: Vec<Pending> = self.queue.derived.lock().drain(..).collect();
        self.writes.completions.push(derived.into_iter().map(|pending| refusal(pending, error)));
        self.writes.completions.run();
    }

    /// Answers the logged commits that wait with `error`; the caller runs the completions.
    pub(crate) fn refuse_logged(&self, error: &Error) {
        let logged = self.queue.take_logged();
        self.writes.completions.push(logged.into_iter().map(|pending| refusal(pending, error)));
    }

    /// Writes derived commits as far as there is room, in order. With `retry`, asks for room if there is none: for new
    /// commits only, since the job is woken by the very work that failed to make room, and the two would chase each
    /// other for as long as the disk is full.
    fn insert_derived(&self, retry: bool) {
        let mut waiting = self.queue.derived.lock();
        while let Some(pending) = waiting.front() {
            if pending.batch.is_empty() {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                self.writes.complete_after_all(Completion { done, result: Ok(self.writes.visible()) });
                continue;
            }
            let Some((tickets, frozen)) = self.writes.begin(1) else {
                if retry {
                    self.note_stall();
                }
                return;
            };
            if frozen {
                self.wake_flush();
            }
            let Pending { batch, done, .. } = waiting.pop_front().expect("there is a front");
            let ticket = tickets.into_iter().next().expect("one was asked for");
            self.counters.note_commit(Durability::Derived);
            let sequence = ticket.sequence;
            assert!(sequence > self.writes.visible(), "nobody may read at a number before its batch is in");
            ticket.slot.memtable.apply(&batch, sequence);
            if self.writes.finish(ticket, vec![Completion { done, result: Ok(sequence) }]) {
                self.wake_flush();
            }
        }
    }

    /// There is no room in memory: writers wait.
    pub(crate) fn note_stall(&self) {
        self.counters.note_stall();
        self.wake_flush();
        self.wake_compact();
    }

    /// Why flush or compaction did not get on at their last attempt.
    pub(crate) fn background_error(&self) -> Option<Error> {
        let progress = self.progress.get();
        progress.flush_error.or(progress.compaction_error)
    }
}
