//! Group commit: one thread, the leader, writes what was submitted, in order, with one sync for all of it; and it
//! rewrites the oldest part of the log when retention requests that.

use super::WritePath;
use super::completion::Completion;
use super::pipeline::Placed;
use super::prepare::PreparedCommit;
use super::queue::Pending;
use super::visibility::Due;
use crate::Error;
use crate::log::{Need, Outgoing, RecordKind, decode_rewrite, encode_rewrite};
use crate::stream::collect_rewrite;

/// Bytes of one rewrite record: bounds how long a rewrite delays commits.
const REWRITE_BYTES_MAX: u64 = 1 << 20;

impl WritePath {
    /// Writes submitted commits, up to about `group_bytes_max` of them. Returns false when there was no capacity for
    /// the first. The caller leads.
    pub(crate) fn lead(&self) -> bool {
        if let Some(segment) = self.queue.take_rewrite() {
            self.rewrite(segment);
        }
        let mut left = self.shared.options.group_bytes_max;
        let mut log_end = 0;
        let mut led = false;
        while let Some(pending) = self.queue.take(if led { left } else { u64::MAX }) {
            left = left.saturating_sub(pending.commit.bytes);
            let taken = Taken { write: self, pending: Some(pending) };
            match self.sequence(taken.commit()) {
                Ok(Some(placed)) => log_end = self.lead_one(taken.out(), placed).max(log_end),
                Ok(None) => {
                    self.queue.put_back(taken.out());
                    self.note_stall();
                    // If the reason is a full disk, the wait would be for ever. The waiting commits get the error; the
                    // flush has been woken to try again, so a later write succeeds as soon as the disk has space.
                    match self.shared.progress.error() {
                        Some(error) => self.refuse_logged(&error),
                        None => break,
                    }
                }
                Err(error) => {
                    let due = Due { sequence: self.log.last_sequence(), log_end: 0 };
                    let answer = Completion { done: taken.out().done, result: Err(error) };
                    self.memtables.answer(due, answer).into_iter().for_each(|answer| self.refuse(answer));
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
        let Pending { commit, done } = pending;
        let (due, result, ticket) = match placed {
            Placed::Batch(ticket) => (ticket.due(), Ok(ticket.sequence), Some(ticket)),
            Placed::Streams(due) => (due, Ok(due.sequence.max(self.memtables.visible())), None),
        };
        // Before the insertion: from here on the answer is given whatever happens to this thread.
        self.memtables.answer(due, Completion { done, result }).into_iter().for_each(|answer| self.refuse(answer));
        if let Some(mut ticket) = ticket {
            self.insert(&commit, &mut ticket, None);
        }
        due.log_end
    }

    /// What a full disk stopped is tried again with each write.
    pub(crate) fn retry_background(&self) {
        if self.shared.progress.has_error() {
            self.shared.jobs.wake_flush();
            self.shared.jobs.wake_compact();
            self.shared.jobs.wake_values();
        }
    }

    /// Writes a part of what streams have in `segment` again at the tail. Retention requests more while something is
    /// left.
    fn rewrite(&self, segment: u64) {
        // Held all the time: nothing may change between the read of the index and the record.
        let mut log = self.log.writer.lock();
        let _unwinding = self.unwinding("a rewrite of the log");
        let outcome = self.shared.health.check_writable().and_then(|()| {
            let ops = collect_rewrite(&self.log.streams, &self.log.segments, segment, REWRITE_BYTES_MAX)?;
            if ops.is_empty() {
                return Ok(());
            }
            let mut payload = Vec::new();
            encode_rewrite(&mut payload, &ops);
            // Retention syncs the log before it releases the old segment.
            let appended =
                self.append(&mut log, &Outgoing::new(RecordKind::Rewrite, [&payload, &[]]), 0, Need::Written)?;
            self.memtables.visibility.note_appended(appended.end);
            let records = decode_rewrite(&payload).expect("this is what was just encoded");
            self.log.streams.lock().apply(appended.position, records);
            self.shared.counters.note_rewrite(payload.len() as u64);
            Ok(())
        });
        drop(log);
        match outcome {
            Ok(()) => {
                self.shared.jobs.wake_log();
                self.shared.jobs.wake_flush();
            }
            // Tried again at the next check of retention; until then the log is over its budget.
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "no space to rewrite the log's oldest segment")
            }
            Err(Error::Closed) => {}
            Err(error) => self.stop(&error),
        }
    }
}

/// A submitted commit that a leader has taken. If the leader panics before it has a number, it is refused.
struct Taken<'a> {
    write: &'a WritePath,
    pending: Option<Pending>,
}

impl Taken<'_> {
    fn commit(&self) -> &PreparedCommit {
        &self.pending.as_ref().expect("until it is taken out").commit
    }

    fn out(mut self) -> Pending {
        self.pending.take().expect("taken out once")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            let why = self.write.shared.health.why_stopped().unwrap_or_else(|| "its leader panicked".into());
            self.write.memtables.completions.push([refusal(pending, &Error::Stopped(why))]);
        }
    }
}

pub(crate) fn refusal(pending: Pending, error: &Error) -> Completion {
    Completion { done: pending.done, result: Err(error.clone()) }
}
