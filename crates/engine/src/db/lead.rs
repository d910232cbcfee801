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
//! Derived commits (`submit.rs`) skip the log: number, memtable, finish, at once, also while a leader waits for the disk. They
//! become visible in order with the rest.
//!
//! Not yet: several groups in flight, each with a sync of its own (disks with cheap flushes gain from it). It would
//! change this file only.

use super::completion::Completion;
use super::core::Core;
use super::queue::{Pending, Work};
use super::writes::Ticket;
use crate::log::{
    LogWriter, Outgoing, RecordKind, RecordPosition, decode_commit_streams, decode_rewrite, encode_commit,
    encode_rewrite,
};
use crate::planted::{self, Bug};
use crate::stream::collect_rewrite;
use crate::{Durability, Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Bytes of one rewrite record: bounds how long a rewrite holds up commits.
const REWRITE_BYTES_MAX: u64 = 1 << 20;

impl Core {
    /// Does one unit of logged work; the caller leads. Returns false when there was no room for it.
    pub(super) fn lead(&self) -> bool {
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

    fn write_group(&self, log: &mut LogWriter, group: Vec<Pending>) {
        let group = self.check_streams(group);
        let batches = group.iter().filter(|pending| !pending.batch.is_empty()).count();
        // Derived commits take numbers without leading, and have them in memory when they let this lock go: so the
        // conditions are judged with everything before in sight, and nothing comes between the judgement and the number.
        let derived = group.iter().any(|pending| !pending.unchanged.is_empty()).then(|| self.queue.derived.lock());
        let group = self.check_conditions(group);
        let batches = if group.is_empty() { 0 } else { batches };
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
        drop(derived);
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
        // A segment was finished: look whether old ones may go.
        if self.segments.newest() != newest {
            self.wake_flush();
        }
        // What a full disk stopped is tried again with each group.
        if self.background_error().is_some() {
            self.wake_flush();
            self.wake_compact();
        }
    }

    /// Answers the commits whose conditions do not hold, and returns the others.
    fn check_conditions(&self, group: Vec<Pending>) -> Vec<Pending> {
        debug_assert!(group.len() <= 1 || group.iter().all(|pending| pending.unchanged.is_empty()));
        let mut holding = Vec::with_capacity(group.len());
        for pending in group {
            let (state, _) = self.writes.read_point();
            let outcome =
                pending.unchanged.iter().try_for_each(|condition| condition.check(&state, pending.checked_through));
            match outcome {
                Ok(()) => holding.push(pending),
                Err(error) => self.writes.completions.push([refusal(pending, &error)]),
            }
        }
        holding
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
        assert!(positions.is_sorted(), "the log is written in order");
        assert!(tickets.is_sorted_by_key(|ticket| ticket.sequence), "and its numbers grow with it");
        let mut tickets = tickets.into_iter();
        let mut open: Vec<Ticket> = Vec::new();
        let mut completions = Vec::with_capacity(group.len());
        for (pending, position) in group.into_iter().zip(positions) {
            self.counters.note_commit(pending.durability);
            let mut answer = None;
            if !pending.batch.is_empty() {
                let ticket = tickets.next().expect("a number for each batch");
                assert!(ticket.sequence > self.writes.visible(), "not visible before it is in the log and in memory");
                ticket.slot.pin_log(position.segment);
                ticket.slot.memtable.apply(&pending.batch, ticket.sequence);
                answer = Some(ticket.sequence);
                open.push(ticket);
            }
            let result = Ok(answer.unwrap_or_else(|| self.writes.visible()));
            completions.push(Completion { done: pending.done, result });
        }
        assert!(tickets.next().is_none(), "every number has its batch");
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

pub(super) fn refusal(pending: Pending, error: &Error) -> Completion {
    Completion { done: pending.done, result: Err(error.clone()) }
}
