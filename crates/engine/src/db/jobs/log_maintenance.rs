//! Maintenance of the log: its old segments are deleted as soon as nothing needs them, and the next one is made ahead.

use crate::Result;
use crate::db::write::WritePath;
use crate::lock::{Mutex, Rank};
use crate::log::{Retention, RetentionInput, SegmentFacts, SegmentUse, Watchdog, plan_retention};
use crate::planted::{self, Bug};
use std::sync::atomic::{AtomicU64, Ordering};

/// What is remembered between two checks of the log.
pub(crate) struct LogMaintenance {
    /// The holders of the log, and what was reported of them.
    pub(super) watchdog: Mutex<Watchdog>,
    /// The newest segment when streams last requested a flush.
    flushed_for_streams_at: AtomicU64,
}

impl Default for LogMaintenance {
    fn default() -> LogMaintenance {
        let watchdog = Mutex::new(Rank::LogWatch, Watchdog::default());
        LogMaintenance { watchdog, flushed_for_streams_at: AtomicU64::new(0) }
    }
}

impl LogMaintenance {
    /// Deletes what retention releases, and starts the work that it requests. Returns whether a flush can follow at
    /// once.
    pub(super) fn maintain(&self, write: &WritePath) -> Result<bool> {
        let input = self.retention_input(write);
        let (mut delete, next) = plan_retention(&input);
        if planted::is_set(Bug::TruncateNeededSegment) && input.segments.len() > delete.len() + 1 {
            delete.push(input.segments[delete.len()].number);
        }
        if !delete.is_empty() {
            // What made a segment free (a truncation, say) may be unsynced; it must not be lost after the segment.
            write.sync_log()?;
            // Recorded once for all of them.
            delete.last().map_or(Ok(()), |last| write.log.next_segments.begin_log_at(last + 1))?;
            for number in delete {
                debug_assert_eq!(write.log.segments.list()[0].0, number, "oldest first");
                write.log.segments.delete_oldest(number, &write.log.next_segments)?;
                write.shared.counters.note_segment_deleted();
            }
            if write.shared.options.feed_retention_bytes > 0 {
                write.shared.jobs.wake_values(); // What was kept for the feed may be collected now.
            }
        }
        match next {
            Retention::Rest => Ok(false),
            Retention::Rewrite(segment) => {
                if write.queue.request_rewrite(segment) {
                    write.shared.jobs.wake_commit();
                }
                Ok(false)
            }
            Retention::Flush => {
                write.memtables.freeze_oldest();
                Ok(write.memtables.flushable().is_some())
            }
            Retention::FlushForStreams => {
                let newest = input.segments.last().map_or(0, |segment| segment.number);
                self.flushed_for_streams_at.store(newest, Ordering::Relaxed);
                write.memtables.freeze_oldest();
                Ok(write.memtables.flushable().is_some())
            }
        }
    }

    /// The order matters: segments first, then pins. See [`RetentionInput`].
    fn retention_input(&self, write: &WritePath) -> RetentionInput {
        let segments = write.log.segments.facts();
        self.watch(write, &segments);
        let mut feed_bytes = feed_bytes(write, &segments).into_iter();
        let segments = {
            let streams = write.log.streams.lock();
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
        let (memtable_pin, memtable_filled) = write.memtables.log_pin();
        RetentionInput {
            segments,
            memtable_pin,
            memtable_filled,
            flushed_for_streams_at: self.flushed_for_streams_at.load(Ordering::Relaxed),
            budget_bytes: write.shared.options.log_bytes_max,
            feed_budget_bytes: write.shared.options.feed_retention_bytes,
        }
    }
}

/// For each log segment what its retention for subscribers costs: its bytes, and those of the value segments whose
/// last batch it has, since they cannot be collected before it is deleted.
fn feed_bytes(write: &WritePath, segments: &[SegmentFacts]) -> Vec<u64> {
    let mut costs: Vec<u64> = segments.iter().map(|facts| facts.bytes).collect();
    if write.shared.options.feed_retention_bytes == 0 {
        return costs;
    }
    let version = write.shared.context.versions.current();
    for (file, bound) in write.shared.context.values.bounds() {
        let Some(bytes) = version.values().files().get(&file).and_then(|state| state.sealed_bytes()) else {
            continue;
        };
        if bound <= write.log.segments.deleted_through() {
            continue;
        }
        // The last segment that begins at or below the bound; segments without batches have no beginning.
        let has_it = |facts: &SegmentFacts| facts.first_sequence > 0 && facts.first_sequence <= bound;
        if let Some(at) = segments.iter().rposition(has_it) {
            costs[at] = costs[at].saturating_add(bytes);
        }
    }
    costs
}

/// One step of the `log` job: makes the next segment, if the last one was taken.
pub(in crate::db) fn make_next_segment(write: &WritePath) -> bool {
    if write.shared.health.check_writable().is_err() || write.shared.is_stopping() {
        return false;
    }
    // Zeros save work in syncs; while no commit needs a sync they would only be written twice.
    let syncs = write.shared.counters.commits_sync.load(Ordering::Relaxed);
    let fill = || write.shared.counters.filled_at.swap(syncs + 1, Ordering::Relaxed) != syncs + 1;
    if let Err(error) = write.log.next_segments.prepare(fill) {
        // The writer makes one when it needs it, or reports the error to the waiters.
        tracing::warn!(%error, "the next log segment was not made ahead");
    }
    false
}
