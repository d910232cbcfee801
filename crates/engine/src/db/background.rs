//! Background work: flush, maintenance of the log, compaction. Each function is one step of a job.

use super::core::Core;
use super::order::Due;
use super::writes::MemtableSlot;
use crate::compaction;
use crate::log::{Retention, RetentionInput, SegmentFacts, SegmentUse, plan_retention};
use crate::planted::{self, Bug};
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a flush or compaction that found no space waits before it tries again. Each attempt may write as much as
/// the disk still takes, so not too often; and writing should resume soon after space was freed.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl Core {
    /// One step of the `flush` job: flushes the oldest frozen memtable, or maintains the log. Returns whether to
    /// call it again.
    pub(crate) fn flush_step(&self) -> bool {
        if self.check_writable().is_err() || self.is_stopping() {
            return false;
        }
        let outcome = match self.flush_one() {
            Ok(false) => self.look_after_log(),
            flushed => flushed,
        };
        let error = outcome.as_ref().err().cloned();
        if let Some(error) = &error {
            self.background_failed(error);
        }
        if error.is_some() || self.progress.get().flush_error.is_some() {
            // Writers that wait for memory must be woken; the next write tries again.
            let failed = error.is_some();
            self.progress.update(|state| {
                state.failed_flushes += u64::from(failed);
                state.flush_error = error;
            });
            self.wake_commit();
            if failed {
                return self.wait_after_failure();
            }
        }
        outcome.unwrap_or(false)
    }

    /// Writes the oldest frozen memtable to tables, if its batches have all finished. If there is no space for it, all
    /// frozen memtables are flushed together: what newer ones delete then takes none.
    fn flush_one(&self) -> Result<bool> {
        let Some(slot) = self.writes.flushable() else { return Ok(false) };
        let mut slots = vec![slot];
        let began = self.env.clock.monotonic();
        match self.flush_slots(&slots) {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {
                slots = self.writes.flushable_together();
                if slots.len() < 2 {
                    return Err(error);
                }
                self.flush_slots(&slots)?;
            }
            Err(error) => return Err(error),
        }
        let bytes = slots.iter().map(|slot| slot.memtable.approximate_bytes() as u64).sum();
        self.counters.note_flush(bytes);
        self.throttle.note_flush(bytes, self.env.clock.monotonic().saturating_sub(began));
        self.writes.install(&self.context.versions, &slots);
        self.look_at_debt();
        self.progress.update(|state| {
            for slot in &slots {
                assert_eq!(state.flushed_id + 1, slot.id, "memtables are flushed one after the other");
                state.flushed_id = slot.id;
            }
        });
        self.wake_commit();
        self.wake_compact();
        self.wake_values();
        Ok(true)
    }

    /// Writes the oldest frozen memtables, which have finished, to tables.
    fn flush_slots(&self, slots: &[Arc<MemtableSlot>]) -> Result<()> {
        // A buffered commit's batch must not become durable in a table while the stream operations of the same
        // commit, or earlier commits, are still unsynced in the log: that would tear it, or reorder history.
        self.sync_log()?;
        let through = slots.last().map_or(0, |slot| slot.last_sequence());
        assert!(through <= self.writes.visible(), "a finished memtable is visible as a whole");
        let mut memtables: Vec<_> = slots.iter().map(|slot| slot.memtable.clone()).collect();
        if memtables.len() > 1 {
            // One may hold nothing but the number of an ingest.
            memtables.retain(|memtable| !memtable.is_empty());
        }
        let flush = || compaction::flush(&self.context, &memtables, through, None);
        self.recorder.time(&self.recorder.flush, flush).map(drop)
    }

    /// Makes everything in the log survive power loss. A failure stops writes.
    pub(crate) fn sync_log(&self) -> Result<()> {
        let log_end = {
            let log = self.log.lock();
            self.writes.order.written(log.end());
            log.end()
        };
        self.wait_due(Due { sequence: 0, log_end })?;
        self.writes.completions.run();
        Ok(())
    }

    /// One step of the `log` job: makes the next segment, if the last one was taken.
    pub(crate) fn log_step(&self) -> bool {
        if self.check_writable().is_err() || self.is_stopping() {
            return false;
        }
        // Zeros save work in syncs; while no commit needs a sync they would only be written twice.
        let syncs = self.counters.commits_sync.load(Ordering::Relaxed);
        let fill = || self.counters.filled_at.swap(syncs + 1, Ordering::Relaxed) != syncs + 1;
        if let Err(error) = self.next_segments.prepare(fill) {
            // The writer makes one when it needs it, or reports the error to the waiters.
            tracing::warn!(%error, "the next log segment was not made ahead");
        }
        false
    }

    /// Deletes what retention releases, and starts the work that it requests. Returns whether a flush can follow at
    /// once.
    fn look_after_log(&self) -> Result<bool> {
        let input = self.retention_input();
        let (mut delete, next) = plan_retention(&input);
        if planted::is_set(Bug::TruncateNeededSegment) && input.segments.len() > delete.len() + 1 {
            delete.push(input.segments[delete.len()].number);
        }
        if !delete.is_empty() {
            // What made a segment free (a truncation, say) may be unsynced; it must not be lost after the segment.
            self.sync_log()?;
            // Recorded once for all of them.
            delete.last().map_or(Ok(()), |last| self.next_segments.begin_log_at(last + 1))?;
            for number in delete {
                debug_assert_eq!(self.segments.list()[0].0, number, "oldest first");
                self.segments.delete_oldest(number, &self.next_segments)?;
                self.counters.note_segment_deleted();
            }
            if self.options.feed_retention_bytes > 0 {
                self.wake_values(); // What was kept for the feed may be collected now.
            }
        }
        match next {
            Retention::Rest => Ok(false),
            Retention::Rewrite(segment) => {
                if self.queue.request_rewrite(segment) {
                    self.wake_commit();
                }
                Ok(false)
            }
            Retention::Flush => {
                self.writes.freeze_oldest();
                Ok(self.writes.flushable().is_some())
            }
            Retention::FlushForStreams => {
                let newest = input.segments.last().map_or(0, |segment| segment.number);
                self.flushed_for_streams_at.store(newest, Ordering::Relaxed);
                self.writes.freeze_oldest();
                Ok(self.writes.flushable().is_some())
            }
        }
    }

    /// The order matters: segments first, then pins. See [`RetentionInput`].
    fn retention_input(&self) -> RetentionInput {
        let segments = self.segments.facts();
        self.watch_log(&segments);
        let mut feed_bytes = self.feed_bytes(&segments).into_iter();
        let segments = {
            let streams = self.streams.lock();
            let with_usage = |facts: SegmentFacts| {
                let usage = streams.usage(facts.number);
                SegmentUse {
                    number: facts.number,
                    bytes: facts.bytes,
                    stream_items: usage.items,
                    stream_bytes: usage.bytes,
                    feed_bytes: feed_bytes.next().unwrap_or(0),
                }
            };
            segments.into_iter().map(with_usage).collect()
        };
        let (memtable_pin, memtable_filled) = self.writes.log_pin();
        RetentionInput {
            segments,
            memtable_pin,
            memtable_filled,
            flushed_for_streams_at: self.flushed_for_streams_at.load(Ordering::Relaxed),
            budget_bytes: self.options.log_bytes_max,
            feed_budget_bytes: self.options.feed_retention_bytes,
        }
    }

    /// One step of the first `compact` job. Returns whether to call it again.
    pub(crate) fn compact_step(&self) -> bool {
        if self.check_writable().is_err() || self.is_stopping() {
            return false;
        }
        let progress = self.progress.get();
        // In a stepped world an ingest that excludes compactions lets jobs step while it waits for a flush: a job that
        // waited for the ingest here would wait for ever. `compaction::step` plans around it, the others can be done
        // after it.
        let held = !self.env.tasks.threaded() && !self.context.state.in_flight().is_empty();
        let requested =
            (progress.compactions_asked > progress.compactions_done && !held).then_some(progress.compactions_asked);
        let pop =
            |state: &mut super::core::ProgressState| if held { None } else { state.compact_for_values.pop_first() };
        let outcome = match requested {
            Some(_) => self.compact_all().map(|()| true),
            None => match self.progress.update(pop) {
                Some(family) => compaction::compact_all(&self.context, family).map(|()| true),
                None => match (!held).then(|| self.next_dead_request()).flatten() {
                    Some(request) => self.compact_dead(&request),
                    None => self.compact_one(),
                },
            },
        };
        let again = self.after_compaction(outcome, requested);
        if !again {
            self.look_whether_idle();
        }
        again
    }

    /// One step of a further `compact` job.
    pub(crate) fn more_compact_step(&self) -> bool {
        if self.check_writable().is_err() || self.is_stopping() {
            return false;
        }
        let outcome = self.compact_one();
        if let Ok(false) = outcome {
            return false; // The first job notifies the waiters and removes obsolete files.
        }
        self.after_compaction(outcome, None)
    }

    fn compact_one(&self) -> Result<bool> {
        let started = self.recorder.now();
        let outcome = compaction::step(&self.context);
        self.recorder.end(&self.recorder.compaction, Some(started).filter(|_| matches!(outcome, Ok(true))));
        outcome
    }

    /// `requested` is the full compaction that this was, if it was one.
    fn after_compaction(&self, outcome: Result<bool>, requested: Option<u64>) -> bool {
        if !matches!(outcome, Ok(false)) {
            // Also after an error: a full compaction may have finished some families before it.
            self.writes.install(&self.context.versions, None);
            self.look_at_debt();
        }
        if matches!(outcome, Ok(true)) {
            // Not after a failure: the collection of garbage would request the same compaction again, and on a full
            // disk the two jobs would keep each other busy.
            self.wake_values();
        }
        let (again, error) = match outcome {
            Ok(worked) => (worked, None),
            Err(error) => {
                self.background_failed(&error);
                (false, Some(error))
            }
        };
        let failed = error.is_some();
        self.progress.update(|state| {
            if let Some(ticket) = requested {
                state.compactions_done = ticket;
                state.full_compaction_error = error.clone();
            }
            state.failed_compactions += u64::from(failed);
            state.compaction_error = error;
        });
        if again || failed {
            self.wake_commit(); // There may be capacity now, or the waiters must get the error.
        }
        // After each unit: in a busy database this may continue for ever, and must free space all the same.
        if let Err(error) = self.context.versions.remove_obsolete(&self.context.tables) {
            tracing::warn!(%error, "obsolete files stay for now");
        }
        if failed { self.wait_after_failure() } else { again }
    }

    /// Returns whether a job whose step found no space should be called again, after a wait: commits may depend on it
    /// that no writer waits for, so the retry must not need a write. The wait ends early when the database closes or
    /// stops. In a stepped world time does not advance; there only writes try again.
    pub(super) fn wait_after_failure(&self) -> bool {
        if !self.env.tasks.threaded() {
            return false;
        }
        self.progress.wait_for_end(RETRY_DELAY, || self.check_writable().is_err());
        self.check_writable().is_ok()
    }

    fn compact_all(&self) -> Result<()> {
        let families: Vec<_> = self.context.versions.current().families().keys().collect();
        families.into_iter().try_for_each(|family| compaction::compact_all(&self.context, family))
    }

    /// A full disk is waited out; the end of the database is no error; anything else stops writes.
    pub(super) fn background_failed(&self, error: &Error) {
        match error {
            Error::Closed => {}
            error if error.is_retryable() => {
                tracing::warn!(%error, "background work is put off");
                if let Error::NoSpace { .. } = error {
                    self.next_segments.release();
                }
            }
            error => self.stop(error),
        }
    }
}
