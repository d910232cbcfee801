//! The write path of one commit: from its check to its place in history.
//!
//! 1. Under the lock that orders commits (`Core::log`): there is capacity in memory; the conditions hold; the stream
//!    operations fit the index; the batch gets its sequence number and memtable; the record is copied into the log; the
//!    stream operations go into the index.
//! 2. Without a lock: the batch is inserted into its memtable, on the thread of its writer.
//! 3. `order.rs`: the log is synced if the commit requires that, and numbers become visible in order.
//!
//! If the copy into the log fails, nothing has happened: no number was taken. With `NoSpace` the log is as it was and
//! the next commit tries again; any other failure stops writes for good, because the tail of the log is then unknown.
//!
//! Submitted commits are led through by the `commit` job, in order, one sync for all that wait. Derived commits
//! (`submit.rs`) skip the log.

use super::completion::Completion;
use super::core::Core;
use super::order::{Due, SyncError};
use super::panics::Unwinding;
use super::queue::{Pending, Write};
use super::writes::Ticket;
use crate::lock::{MutexGuard, check_wait};
use crate::log::{
    Appended, LogWriter, Need, Outgoing, RecordKind, decode_commit_streams, decode_rewrite, encode_rewrite,
};
use crate::planted::{self, Bug};
use crate::stream::collect_rewrite;
use crate::{Durability, Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Bytes of one rewrite record: bounds how long a rewrite delays commits.
const REWRITE_BYTES_MAX: u64 = 1 << 20;

/// A commit that has its place in history.
pub(super) enum Placed {
    /// With a batch, which must be put into its memtable now.
    Batch(Ticket),
    /// Stream operations alone: they wait for the log only, and for the commits before them.
    Streams(Due),
}

impl Core {
    /// Step 1 of the head of this file. `None` if there is no capacity in memory.
    pub(super) fn sequence(&self, write: &Write) -> Result<Option<Placed>> {
        let parts = write.payload.parts(&write.batch);
        let record = Outgoing::new(RecordKind::Commit, parts);
        let sync = write.durability == Durability::Sync && !planted::is_set(Bug::AcknowledgeBeforeSync);
        let need = match sync {
            true if write.streams.is_empty() => Need::Synced,
            true => Need::SyncedAndRead,
            false => Need::Written,
        };
        let mut log = self.lock_to_order(!write.unchanged.is_empty());
        // Dropped before the lock: nothing is appended behind what a panic has left.
        let _unwinding = self.unwinding("a commit on its way into the log");
        self.check_writable()?;
        // Derived commits take numbers without this lock, and have their batches in memory when they release theirs.
        let derived = (!write.unchanged.is_empty()).then(|| self.queue.derived.lock());
        self.check_families_again(&write.batch, write.drops)?;
        self.check_conditions(write)?;
        if !write.streams.is_empty() {
            self.streams.lock().check(&write.streams, &mut BTreeMap::new())?;
        }
        let newest = self.segments.newest();
        let outcome = if write.batch.is_empty() {
            self.append(&mut log, &record, 0, need).map(|appended| {
                self.writes.order.written(appended.end);
                let log_end = if sync { appended.end } else { 0 };
                Some((Placed::Streams(Due { sequence: self.last_logged.load(Ordering::Acquire), log_end }), appended))
            })
        } else {
            let mut at = None;
            let begun = self.writes.begin(sync, |sequence| {
                at = Some(self.append(&mut log, &record, sequence, need)?);
                Ok(at)
            });
            begun.map(|begun| {
                let (ticket, frozen) = begun?;
                if frozen {
                    self.wake_flush();
                }
                self.last_logged.store(ticket.sequence, Ordering::Release);
                Some((Placed::Batch(ticket), at?))
            })
        };
        drop(derived);
        if let Ok(Some((_, appended))) = &outcome
            && !write.streams.is_empty()
        {
            let [payload, _] = parts;
            let records = decode_commit_streams(payload).expect("this is what was just encoded");
            self.streams.lock().apply(appended.position, records);
        }
        let rotated = self.segments.newest() != newest;
        drop(log);
        if rotated {
            // The next segment is due; and old ones may be deletable.
            self.wake_log();
            self.wake_flush();
        }
        match outcome {
            Ok(placed) => Ok(placed.map(|(placed, _)| {
                self.counters.note_commit(write.durability);
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
            let log = self.log.lock();
            if !conditional || !self.writes.order.is_installing() {
                return log;
            }
            drop(log);
            self.writes.order.wait_all_installed();
        }
    }

    fn check_conditions(&self, write: &Write) -> Result<()> {
        if write.unchanged.is_empty() {
            return Ok(());
        }
        // Threads that insert need no lock that is held here: `lock::Unfinished`.
        self.writes.order.wait_all_inserted();
        let (state, _) = self.writes.read_point();
        let horizon = self.context.versions.horizon();
        write.unchanged.iter().try_for_each(|condition| condition.check(&state, write.checked_through, horizon))
    }

    pub(super) fn append(
        &self,
        log: &mut LogWriter,
        record: &Outgoing<'_>,
        sequence: u64,
        need: Need,
    ) -> Result<Appended> {
        let appended = log.append(record, sequence, self.writes.order.durable(), need)?;
        self.counters.note_append(appended.position.bytes);
        Ok(appended)
    }

    /// Step 2: puts the batch into its memtable. `answer` is for a commit that no caller waits for.
    pub(super) fn insert(&self, write: &Write, ticket: &mut Ticket, answer: Option<Completion>) {
        let insertion = Insertion::new(self, ticket, answer);
        assert!(!planted::is_set(Bug::PanicAtInsertion), "a planted panic");
        insertion.ticket.slot.memtable.apply(&write.batch, insertion.ticket.sequence);
        drop(insertion);
        self.feed.notify();
    }

    /// Step 3: waits until everything that is due has come, and syncs the log where that is needed. Not under the lock
    /// that orders commits, which a sync takes to write out what is staged.
    pub(super) fn wait_due(&self, due: Due) -> Result<()> {
        check_wait();
        let sync = |slot: usize, durable: u64| {
            // Others may wait for this very sync.
            let _unwinding = self.unwinding("a sync of the log");
            self.recorder.time(&self.recorder.log_sync, || {
                self.log.lock().write_out()?;
                self.tail.sync(slot, durable)
            })?;
            self.counters.note_sync();
            Ok(())
        };
        let outcome = self.writes.order.wait(due, &sync, &mut |answer| self.writes.completions.push([answer]));
        self.feed.notify();
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
    pub(super) fn end_insertion(&self, ticket: &mut Ticket, answer: Option<Completion>) {
        let (left, flushable) = self.writes.inserted(ticket, answer);
        if flushable {
            self.wake_flush();
        }
        left.into_iter().for_each(|answer| self.refuse(answer));
    }

    /// Writes submitted commits, up to about `group_bytes_max` of them. Returns false when there was no capacity for
    /// the first. The caller leads.
    pub(super) fn lead(&self) -> bool {
        if let Some(segment) = self.queue.take_rewrite() {
            self.rewrite(segment);
        }
        let mut left = self.options.group_bytes_max;
        let mut log_end = 0;
        let mut led = false;
        while let Some(pending) = self.queue.take(if led { left } else { u64::MAX }) {
            left = left.saturating_sub(pending.write.bytes);
            let taken = Taken { core: self, pending: Some(pending) };
            match self.sequence(taken.write()) {
                Ok(Some(placed)) => log_end = self.lead_one(taken.out(), placed).max(log_end),
                Ok(None) => {
                    self.queue.put_back(taken.out());
                    self.note_stall();
                    // If the reason is a full disk, the wait would be for ever. The waiting commits get the error; the
                    // flush has been woken to try again, so a later write succeeds as soon as the disk has space.
                    match self.background_error() {
                        Some(error) => self.refuse_logged(&error),
                        None => break,
                    }
                }
                Err(error) => {
                    let due = Due { sequence: self.last_logged.load(Ordering::Acquire), log_end: 0 };
                    let answer = Completion { done: taken.out().done, result: Err(error) };
                    self.writes.answer(due, answer).into_iter().for_each(|answer| self.refuse(answer));
                }
            }
            led = true;
        }
        if log_end > 0 {
            // All waiters have the error already.
            let _ = self.wait_due(Due { sequence: 0, log_end });
        }
        self.retry_background();
        led
    }

    /// Returns what it waits for in the log.
    fn lead_one(&self, pending: Pending, placed: Placed) -> u64 {
        let Pending { write, done } = pending;
        let (due, result, ticket) = match placed {
            Placed::Batch(ticket) => (ticket.due(), Ok(ticket.sequence), Some(ticket)),
            Placed::Streams(due) => (due, Ok(due.sequence.max(self.writes.visible())), None),
        };
        // Before the insertion: from here on the answer is given whatever happens to this thread.
        self.writes.answer(due, Completion { done, result }).into_iter().for_each(|answer| self.refuse(answer));
        if let Some(mut ticket) = ticket {
            self.insert(&write, &mut ticket, None);
        }
        due.log_end
    }

    /// What a full disk stopped is tried again with each write.
    pub(super) fn retry_background(&self) {
        if self.progress.has_error() {
            self.wake_flush();
            self.wake_compact();
            self.wake_values();
        }
    }

    /// Writes a part of what streams have in `segment` again at the tail. Retention requests more while something is
    /// left.
    fn rewrite(&self, segment: u64) {
        // Held all the time: nothing may change between the read of the index and the record.
        let mut log = self.log.lock();
        let _unwinding = self.unwinding("a rewrite of the log");
        let outcome = self.check_writable().and_then(|()| {
            let ops = collect_rewrite(&self.streams, &self.segments, segment, REWRITE_BYTES_MAX)?;
            if ops.is_empty() {
                return Ok(());
            }
            let mut payload = Vec::new();
            encode_rewrite(&mut payload, &ops);
            // Retention syncs the log before it releases the old segment.
            let appended =
                self.append(&mut log, &Outgoing::new(RecordKind::Rewrite, [&payload, &[]]), 0, Need::Written)?;
            self.writes.order.written(appended.end);
            let records = decode_rewrite(&payload).expect("this is what was just encoded");
            self.streams.lock().apply(appended.position, records);
            self.counters.note_rewrite(payload.len() as u64);
            Ok(())
        });
        drop(log);
        match outcome {
            Ok(()) => {
                self.wake_log();
                self.wake_flush();
            }
            // Tried again at the next check of retention; until then the log is over its budget.
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "no space to rewrite the log's oldest segment")
            }
            Err(Error::Closed) => {}
            Err(error) => self.stop(&error),
        }
    }

    /// Answers with the reason why nothing is written any more.
    pub(super) fn refuse(&self, answer: Completion) {
        let error = if self.check_open().is_ok() { self.cut_off() } else { Error::Closed };
        self.writes.completions.push([Completion { done: answer.done, result: Err(error) }]);
    }

    /// For a commit that was in progress when writes stopped. Its record may be in the log, and be replayed by a
    /// restart: so this is not [`Error::Stopped`], which states that nothing was written.
    fn cut_off(&self) -> Error {
        let why = self.why_stopped().unwrap_or_else(|| "a sync of the log failed".into());
        let message =
            format!("writes stopped before this commit was durable, and it may survive a restart or not: {why}");
        Error::Io { file: self.directory.clone(), kind: std::io::ErrorKind::Other, message }
    }
}

/// A number for which a batch or an ingest must follow: others wait until it has. It ends when this is dropped, also by
/// a panic; then the database stops first, so that a partial batch never becomes visible.
pub(super) struct Insertion<'a> {
    core: &'a Core,
    ticket: &'a mut Ticket,
    answer: Option<Completion>,
    unwinding: Option<Unwinding<'a>>,
}

impl<'a> Insertion<'a> {
    pub(super) fn new(core: &'a Core, ticket: &'a mut Ticket, answer: Option<Completion>) -> Insertion<'a> {
        Insertion { core, ticket, answer, unwinding: Some(core.unwinding("a commit on its way into memory")) }
    }
}

impl Drop for Insertion<'_> {
    fn drop(&mut self) {
        drop(self.unwinding.take());
        self.core.end_insertion(self.ticket, self.answer.take());
    }
}

/// A submitted commit that a leader has taken. If the leader panics before it has a number, it is refused.
struct Taken<'a> {
    core: &'a Core,
    pending: Option<Pending>,
}

impl Taken<'_> {
    fn write(&self) -> &Write {
        &self.pending.as_ref().expect("until it is taken out").write
    }

    fn out(mut self) -> Pending {
        self.pending.take().expect("taken out once")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            let why = self.core.why_stopped().unwrap_or_else(|| "its leader panicked".into());
            self.core.writes.completions.push([refusal(pending, &Error::Stopped(why))]);
        }
    }
}

pub(super) fn refusal(pending: Pending, error: &Error) -> Completion {
    Completion { done: pending.done, result: Err(error.clone()) }
}
