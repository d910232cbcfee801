//! The write path of one commit: from its check to its place in history.
//!
//! 1. Under the lock that orders commits (`commit_log.rs`): there is capacity in memory; the conditions hold; the
//!    stream operations fit the index; the batch gets its sequence number and memtable; the record is copied into the
//!    log; the stream operations go into the index.
//! 2. Without a lock: the batch is inserted into its memtable, on the thread of its writer.
//! 3. `visibility.rs`: the log is synced if the commit requires that, and numbers become visible in order.
//!
//! If the copy into the log fails, nothing has happened: no number was taken. With `NoSpace` the log is as it was and
//! the next commit tries again; any other failure stops writes for good, because the tail of the log is then unknown.
//!
//! Submitted commits are written by a leader (`group_commit.rs`). Derived commits (`submit.rs`) skip the log.

use super::WritePath;
use super::completion::Completion;
use super::memtable_slot::Ticket;
use super::prepare::PreparedCommit;
use super::stop::Unwinding;
use super::visibility::{Due, SyncError};
use crate::lock::{MutexGuard, check_wait};
use crate::log::{LogWriter, Need, Outgoing, RecordKind, decode_commit_streams};
use crate::planted::{self, Bug};
use crate::{Durability, Error, Result};
use std::collections::BTreeMap;

/// A commit that has its place in history.
pub(crate) enum Placed {
    /// With a batch, which must be put into its memtable now.
    Batch(Ticket),
    /// Stream operations alone: they wait for the log only, and for the commits before them.
    Streams(Due),
}

impl WritePath {
    /// Step 1 of the head of this file. `None` if there is no capacity in memory.
    pub(crate) fn sequence(&self, commit: &PreparedCommit) -> Result<Option<Placed>> {
        let parts = commit.payload.parts(&commit.batch);
        let record = Outgoing::new(RecordKind::Commit, parts);
        let sync = commit.durability == Durability::Sync && !planted::is_set(Bug::AcknowledgeBeforeSync);
        let need = match sync {
            true if commit.streams.is_empty() => Need::Synced,
            true => Need::SyncedAndRead,
            false => Need::Written,
        };
        let mut log = self.lock_to_order(!commit.unchanged.is_empty());
        // Dropped before the lock: nothing is appended behind what a panic has left.
        let _unwinding = self.unwinding("a commit on its way into the log");
        self.shared.health.check_writable()?;
        // Derived commits take numbers without this lock, and have their batches in memory when they release theirs.
        let derived = (!commit.unchanged.is_empty()).then(|| self.queue.derived.lock());
        self.check_families_again(&commit.batch, commit.drops)?;
        self.check_conditions(commit)?;
        if !commit.streams.is_empty() {
            self.log.streams.lock().check(&commit.streams, &mut BTreeMap::new())?;
        }
        let newest = self.log.segments.newest();
        let outcome = if commit.batch.is_empty() {
            self.append(&mut log, &record, 0, need).map(|appended| {
                self.memtables.visibility.note_appended(appended.end);
                let log_end = if sync { appended.end } else { 0 };
                Some((Placed::Streams(Due { sequence: self.log.last_sequence(), log_end }), appended))
            })
        } else {
            let mut at = None;
            let begun = self.memtables.begin(sync, |sequence| {
                at = Some(self.append(&mut log, &record, sequence, need)?);
                Ok(at)
            });
            begun.map(|begun| {
                let (ticket, frozen) = begun?;
                if frozen {
                    self.shared.jobs.wake_flush();
                }
                self.log.set_last_sequence(ticket.sequence);
                Some((Placed::Batch(ticket), at?))
            })
        };
        drop(derived);
        if let Ok(Some((_, appended))) = &outcome
            && !commit.streams.is_empty()
        {
            let [payload, _] = parts;
            let records = decode_commit_streams(payload).expect("this is what was just encoded");
            self.log.streams.lock().apply(appended.position, records);
        }
        let rotated = self.log.segments.newest() != newest;
        drop(log);
        if rotated {
            // The next segment is due; and old ones may be deletable.
            self.shared.jobs.wake_log();
            self.shared.jobs.wake_flush();
        }
        match outcome {
            Ok(placed) => Ok(placed.map(|(placed, _)| {
                self.shared.counters.note_commit(commit.durability);
                placed
            })),
            Err(error) => {
                if !error.is_retryable() {
                    self.stop(&error);
                }
                Err(error)
            }
        }
    }

    /// The lock that orders commits; for a commit with conditions once every ingest that has its number is in the
    /// version. That wait is without the lock, which the ingest needs for its sync; under it no ingest gets a number.
    fn lock_to_order(&self, conditional: bool) -> MutexGuard<'_, LogWriter> {
        loop {
            let log = self.log.writer.lock();
            if !conditional || !self.memtables.visibility.is_installing() {
                return log;
            }
            drop(log);
            self.memtables.visibility.wait_all_installed();
        }
    }

    fn check_conditions(&self, commit: &PreparedCommit) -> Result<()> {
        if commit.unchanged.is_empty() {
            return Ok(());
        }
        // Threads that insert need no lock that is held here: `lock::Unfinished`.
        self.memtables.visibility.wait_all_inserted();
        let (state, _) = self.memtables.read_point();
        let horizon = self.shared.context.versions.horizon();
        commit.unchanged.iter().try_for_each(|condition| condition.check(&state, commit.checked_through, horizon))
    }

    /// Step 2: puts the batch into its memtable. `answer` is for a commit that no caller waits for.
    pub(crate) fn insert(&self, commit: &PreparedCommit, ticket: &mut Ticket, answer: Option<Completion>) {
        let insertion = Insertion::new(self, ticket, answer);
        assert!(!planted::is_set(Bug::PanicAtInsertion), "a planted panic");
        insertion.ticket.slot.memtable.apply(&commit.batch, insertion.ticket.sequence);
        drop(insertion);
        self.shared.subscribers.notify();
    }

    /// Step 3: waits until everything that is due has come, and syncs the log where that is needed. Not under the lock
    /// that orders commits, which a sync takes to write out what is staged.
    pub(crate) fn wait_due(&self, due: Due) -> Result<()> {
        check_wait();
        let sync = |slot: usize, durable: u64| {
            // Others may wait for this very sync.
            let _unwinding = self.unwinding("a sync of the log");
            self.shared.recorder.time(&self.shared.recorder.log_sync, || {
                self.log.writer.lock().write_out()?;
                self.log.tail.sync(slot, durable)
            })?;
            self.shared.counters.note_sync();
            Ok(())
        };
        let outcome =
            self.memtables.visibility.wait(due, &sync, &mut |answer| self.memtables.completions.push([answer]));
        self.shared.subscribers.notify();
        match outcome {
            Ok(()) => Ok(()),
            Err(SyncError::Failed(error)) => {
                let error: Error = error;
                self.stop(&error);
                Err(error)
            }
            Err(SyncError::Stopped(_)) => Err(self.cut_off()),
        }
    }

    /// What has the ticket's number is in memory or in the version, or never will be because the database has stopped.
    pub(crate) fn end_insertion(&self, ticket: &mut Ticket, answer: Option<Completion>) {
        let (left, flushable) = self.memtables.inserted(ticket, answer);
        if flushable {
            self.shared.jobs.wake_flush();
        }
        left.into_iter().for_each(|answer| self.refuse(answer));
    }
}

/// A number for which a batch or an ingest must follow: others wait until it has. It ends when this is dropped, also by
/// a panic; then the database stops first, so that a partial batch never becomes visible.
pub(crate) struct Insertion<'a> {
    write: &'a WritePath,
    ticket: &'a mut Ticket,
    answer: Option<Completion>,
    unwinding: Option<Unwinding<'a>>,
}

impl<'a> Insertion<'a> {
    pub(crate) fn new(write: &'a WritePath, ticket: &'a mut Ticket, answer: Option<Completion>) -> Insertion<'a> {
        Insertion { write, ticket, answer, unwinding: Some(write.unwinding("a commit on its way into memory")) }
    }
}

impl Drop for Insertion<'_> {
    fn drop(&mut self) {
        drop(self.unwinding.take());
        self.write.end_insertion(self.ticket, self.answer.take());
    }
}
