//! The write path: from a commit to its answer.
//!
//! Logged commits queue up. Whoever finds nobody leading may lead: a blocking caller on its own thread (no hand-over
//! between threads when there is no contention), else the `commit` job, which `submit` wakes. The leader takes a group
//! and
//!
//! 1. checks the stream operations of each commit against the index as the commits before it will leave it;
//! 2. takes sequence numbers for the batches;
//! 3. frames one record per commit; appends them with one write, and syncs once if any of them asked for that;
//! 4. puts the stream operations into the index, the batches into their memtables;
//! 5. finishes the numbers, in order; when they are visible, the commits are answered.
//!
//! If 3 fails, nothing of 4 happens: the numbers are finished empty, and the group is answered with the error. With
//! `NoSpace` the log is as it was and the next group tries again; any other failure stops writes for good, because the
//! tail of the log is then unknown.
//!
//! Derived commits skip the log: number, memtable, finish, at once, also while a leader waits for the disk. They
//! become visible in order with the rest.
//!
//! Rejected: syncing on a thread of its own with several groups in flight (faster on this hardware, see
//! performance.md; it comes with the engine's second issue, and changes this file only).

use super::completion::{Completion, Done, Waiter};
use super::core::Core;
use super::queue::{Pending, Work};
use super::writes::Ticket;
use crate::log::{
    LogWriter, Outgoing, RECORD_HEADER_BYTES, RecordKind, RecordPosition, commit_bytes_max, decode_commit_streams,
    decode_rewrite, encode_commit, encode_rewrite,
};
use crate::planted::{self, Bug};
use crate::stream::collect_rewrite;
use crate::{Commit, Durability, Error, Result, SequenceNumber};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Most bytes of one commit in the log. Far above what a replicated entry or a client's batch may have, and small enough
/// that a segment of its own for it is no burden.
pub(crate) const COMMIT_BYTES_MAX: u64 = 256 << 20;

/// Bytes of one rewrite record: bounds how long a rewrite holds up commits.
const REWRITE_BYTES_MAX: u64 = 1 << 20;

impl Core {
    /// A blocking commit.
    pub(crate) fn commit(&self, commit: Commit) -> Result<SequenceNumber> {
        let bytes = self.check_commit(&commit)?;
        let (waiter, done) = Waiter::new();
        self.place(commit, bytes, done);
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
        match self.check_commit(&commit) {
            Ok(bytes) => {
                let logged = commit.durability != Durability::Derived;
                self.place(commit, bytes, done);
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
        self.insert_derived();
        let mut again = false;
        if self.queue.try_lead() {
            let led = self.lead();
            again = self.queue.stop_leading() && led;
        }
        self.writes.completions.run();
        again
    }

    /// Refuses what must not be written; returns the most bytes that the commit takes in the log.
    fn check_commit(&self, commit: &Commit) -> Result<u64> {
        self.check_writable()?;
        commit.batch.validate()?;
        self.check_families(&commit.batch)?;
        let bytes = RECORD_HEADER_BYTES + commit_bytes_max(&commit.batch, &commit.streams);
        if bytes > COMMIT_BYTES_MAX {
            let message = format!("a commit has {bytes} bytes; at most {COMMIT_BYTES_MAX} are accepted");
            return Err(Error::InvalidArgument(message));
        }
        if commit.durability == Durability::Derived && !commit.streams.is_empty() {
            return Err(Error::InvalidArgument("a derived commit holds no stream operations".into()));
        }
        Ok(bytes)
    }

    /// Puts a checked commit in its queue; derived ones are written at once, if there is room.
    fn place(&self, commit: Commit, bytes: u64, done: Done) {
        let Commit { batch, streams, durability } = commit;
        let pending = Pending { batch, streams, durability, done };
        if durability == Durability::Derived {
            self.queue.derived.lock().push_back(pending);
            self.insert_derived();
            self.writes.completions.run();
        } else {
            self.queue.push(pending, bytes);
        }
        // A close or stop after the commit was checked may have found the queue still empty.
        if let Err(error) = self.check_writable() {
            self.refuse_all(&error);
        }
    }

    fn check_families(&self, batch: &crate::WriteBatch) -> Result<()> {
        let version = self.context.versions.current();
        for op in batch.ops() {
            let (crate::BatchOp::Put { family, .. } | crate::BatchOp::Delete { family, .. }) = op;
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
    fn refuse_logged(&self, error: &Error) {
        let logged = self.queue.take_logged();
        self.writes.completions.push(logged.into_iter().map(|pending| refusal(pending, error)));
    }

    /// Writes derived commits as far as there is room, in order.
    fn insert_derived(&self) {
        let mut waiting = self.queue.derived.lock();
        while let Some(pending) = waiting.front() {
            if pending.batch.is_empty() {
                let Pending { done, .. } = waiting.pop_front().expect("there is a front");
                self.writes.completions.push([Completion { done, result: Ok(self.writes.visible()) }]);
                continue;
            }
            let Some((tickets, frozen)) = self.writes.begin(1) else {
                self.note_stall();
                return;
            };
            if frozen {
                self.wake_flush();
            }
            let Pending { batch, done, .. } = waiting.pop_front().expect("there is a front");
            let ticket = tickets.into_iter().next().expect("one was asked for");
            self.counters.note_commit(Durability::Derived);
            let sequence = ticket.sequence;
            ticket.slot.memtable.apply(&batch, sequence);
            if self.writes.finish(ticket, vec![Completion { done, result: Ok(sequence) }]) {
                self.wake_flush();
            }
        }
    }

    /// There is no room in memory: writers wait.
    fn note_stall(&self) {
        self.counters.note_stall();
        self.wake_flush();
        self.wake_compact();
    }

    /// Does one unit of logged work; the caller leads. Returns false when there was no room for it.
    fn lead(&self) -> bool {
        let mut log = self.log.lock();
        if let Err(error) = self.check_writable() {
            self.refuse_logged(&error);
            return true;
        }
        let bytes_max = self.options.group_bytes_max.min(log.group_bytes_max());
        match self.queue.take(bytes_max, || self.writes.has_room()) {
            Some(Work::Group(group)) => self.write_group(&mut log, group),
            Some(Work::Rewrite(segment)) => self.rewrite(&mut log, segment),
            None => {
                drop(log);
                self.note_stall();
                // If the reason is a full disk, waiting would be for ever. Those that wait are told; the flush has been
                // woken to try again, so a later write finds room as soon as the disk has some. Derived commits go
                // on waiting: whoever applies replicated entries must not fail where others succeed.
                let Some(error) = self.background_error() else { return false };
                self.refuse_logged(&error);
            }
        }
        true
    }

    /// Why flush or compaction did not get on at their last attempt.
    fn background_error(&self) -> Option<Error> {
        let progress = self.progress.get();
        progress.flush_error.or(progress.compaction_error)
    }

    fn write_group(&self, log: &mut LogWriter, group: Vec<Pending>) {
        let group = self.check_streams(group);
        let batches = group.iter().filter(|pending| !pending.batch.is_empty()).count();
        let mut tickets = Vec::new();
        if batches > 0 {
            // Room was there when the group was taken; only derived commits can have used it since, and the bound
            // is soft by a batch anyway, so the group goes on.
            let (taken, frozen) = self.writes.begin_reserved(batches);
            tickets = taken;
            if frozen {
                self.wake_flush();
            }
        }
        let mut numbers = tickets.iter().map(|ticket| ticket.sequence);
        let frames: Vec<Vec<u8>> = group
            .iter()
            .map(|pending| {
                let sequence =
                    if pending.batch.is_empty() { 0 } else { numbers.next().expect("a number for each batch") };
                let mut payload = Vec::with_capacity(pending.batch.as_bytes().len() + 64);
                encode_commit(&mut payload, sequence, &pending.batch, &pending.streams);
                payload
            })
            .collect();
        let sync = group.iter().any(|pending| pending.durability == Durability::Sync);
        let newest = self.segments.newest();
        match self.append(log, RecordKind::Commit, &frames, sync) {
            Ok(positions) => self.insert_group(group, tickets, &frames, &positions),
            Err(error) => self.give_up_group(group, tickets, &error),
        }
        // A segment was finished: look whether old ones may go. A failed flush is tried again with each group.
        if self.segments.newest() != newest || self.background_error().is_some() {
            self.wake_flush();
        }
    }

    /// Answers the commits whose stream operations do not fit, and returns the others.
    fn check_streams(&self, group: Vec<Pending>) -> Vec<Pending> {
        let streams = self.streams.lock();
        let mut ahead = BTreeMap::new();
        let mut fitting = Vec::with_capacity(group.len());
        for pending in group {
            match streams.check(&pending.streams, &mut ahead) {
                Ok(()) => fitting.push(pending),
                Err(error) => {
                    self.writes.completions.push([Completion { done: pending.done, result: Err(error) }]);
                }
            }
        }
        fitting
    }

    /// Appends records and, if asked, syncs. Any error but `NoSpace` stops writes.
    fn append(
        &self,
        log: &mut LogWriter,
        kind: RecordKind,
        frames: &[Vec<u8>],
        sync: bool,
    ) -> Result<Vec<RecordPosition>> {
        let records: Vec<Outgoing<'_>> = frames.iter().map(|payload| Outgoing { kind, payload }).collect();
        let sync = sync && !planted::is_set(Bug::AcknowledgeBeforeSync);
        let result = if records.is_empty() { Ok(Vec::new()) } else { log.append(&records) };
        let result = result.and_then(|positions| {
            self.counters.note_append(&positions);
            if sync {
                let start = self.env.clock.monotonic();
                log.sync()?;
                self.counters.note_sync(self.env.clock.monotonic().saturating_sub(start));
            }
            Ok(positions)
        });
        result.inspect_err(|error| {
            if !error.is_retryable() {
                self.stop(error);
            }
        })
    }

    fn insert_group(
        &self,
        group: Vec<Pending>,
        tickets: Vec<Ticket>,
        frames: &[Vec<u8>],
        positions: &[RecordPosition],
    ) {
        assert_eq!(group.len(), positions.len(), "each commit has a record");
        {
            let mut streams = self.streams.lock();
            for ((pending, payload), position) in group.iter().zip(frames).zip(positions) {
                if !pending.streams.is_empty() {
                    let records = decode_commit_streams(payload).expect("this is what was just encoded");
                    streams.apply(*position, records);
                }
            }
        }
        let mut tickets = tickets.into_iter();
        let mut open: Vec<Ticket> = Vec::new();
        let mut completions = Vec::with_capacity(group.len());
        for (pending, position) in group.into_iter().zip(positions) {
            self.counters.note_commit(pending.durability);
            let mut answer = None;
            if !pending.batch.is_empty() {
                let ticket = tickets.next().expect("a number for each batch");
                ticket.slot.pin_log(position.segment);
                ticket.slot.memtable.apply(&pending.batch, ticket.sequence);
                answer = Some(ticket.sequence);
                open.push(ticket);
            }
            let result = Ok(answer.unwrap_or_else(|| self.writes.visible()));
            completions.push(Completion { done: pending.done, result });
        }
        self.finish_group(open, completions);
    }

    /// Finishes the numbers of a group; its answers, all together, follow its last number, or the last one of an
    /// earlier group, so that logged commits are answered in order.
    fn finish_group(&self, tickets: Vec<Ticket>, completions: Vec<Completion>) {
        let last = tickets.last().map(|ticket| ticket.sequence);
        let Some(last) = last else {
            self.writes.complete_after(self.last_logged.load(Ordering::Acquire), completions);
            return;
        };
        self.last_logged.store(last, Ordering::Release);
        let mut completions = Some(completions);
        for ticket in tickets {
            let is_last = ticket.sequence == last;
            let answers = if is_last { completions.take().unwrap_or_default() } else { Vec::new() };
            if self.writes.finish(ticket, answers) {
                self.wake_flush();
            }
        }
    }

    fn give_up_group(&self, group: Vec<Pending>, tickets: Vec<Ticket>, error: &Error) {
        let completions = group.into_iter().map(|pending| refusal(pending, error)).collect();
        self.finish_group(tickets, completions);
    }

    /// Writes a part of what streams have in `segment` again at the tail. Retention asks again while something is left.
    fn rewrite(&self, log: &mut LogWriter, segment: u64) {
        let outcome = collect_rewrite(&self.streams, &self.segments, segment, REWRITE_BYTES_MAX).and_then(|ops| {
            if ops.is_empty() {
                return Ok(());
            }
            let mut payload = Vec::new();
            encode_rewrite(&mut payload, &ops);
            // Synced before the old segment can go: retention sees the new positions only after this.
            let positions = self.append(log, RecordKind::Rewrite, std::slice::from_ref(&payload), true)?;
            let records = decode_rewrite(&payload).expect("this is what was just encoded");
            self.streams.lock().apply(positions[0], records);
            self.counters.note_rewrite(payload.len() as u64);
            Ok(())
        });
        match outcome {
            Ok(()) => self.wake_flush(),
            // Tried again when retention next looks; until then the log is over its budget.
            Err(error) if error.is_retryable() => tracing::warn!(%error, "no room to rewrite the log's oldest segment"),
            Err(error) => self.stop(&error),
        }
    }
}

fn refusal(pending: Pending, error: &Error) -> Completion {
    Completion { done: pending.done, result: Err(error.clone()) }
}
