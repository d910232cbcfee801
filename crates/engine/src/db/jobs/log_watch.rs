//! Reports what holds the log, and warns when a holder retains too much of it.

use super::log_maintenance::LogMaintenance;
use crate::Db;
use crate::db::write::WritePath;
use crate::log::{HolderKind, Holding, LogSegmentStatus, SegmentFacts, explain, feed_bytes, pinned_bytes};
use std::sync::atomic::Ordering;

/// Bytes of the log by holder. A segment may have several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeldBytes {
    pub(crate) by_memtables: u64,
    pub(crate) by_streams: u64,
    pub(crate) for_feed: u64,
}

impl Db {
    /// Every segment of the log, oldest first: which holders need it, and since when it would otherwise have been
    /// deleted. In a database that is in use, as of a moment ago.
    pub fn log_retention(&self) -> Vec<LogSegmentStatus> {
        let core = self.core();
        // First the segments, then the pins: as for retention.
        let segments = core.write.log.segments.facts();
        let memtables = core.write.memtables.memtable_pins();
        let readers: Vec<(u64, u64)> = core
            .shared()
            .subscribers
            .subscribers()
            .iter()
            .map(|subscriber| (subscriber.id, subscriber.segment))
            .collect();
        let explained = {
            let index = core.write.log.streams.lock();
            let streams = |number| index.users(number).map(|(stream, _, items)| (stream, items as u64)).collect();
            let feed = (core.shared().options.feed_retention_bytes > 0).then_some(&readers[..]);
            explain(&Holding { segments: &segments, memtables: &memtables, streams: &streams, feed })
        };
        let mut watchdog = core.background.log.watchdog.lock();
        watchdog.see(&segments, core.shared().env.clock.wall_ms());
        let status = |(facts, holders): (SegmentFacts, _)| LogSegmentStatus {
            segment: facts.number,
            bytes: facts.bytes,
            sequences: (facts.first_sequence > 0).then_some((facts.first_sequence, facts.last_sequence)),
            held_since_ms: watchdog.full_since_ms(facts.number),
            holders,
        };
        explained.into_iter().map(status).collect()
    }
}

impl LogMaintenance {
    /// Bytes of these segments by holder.
    pub(crate) fn held_bytes(write: &WritePath, segments: &[SegmentFacts]) -> HeldBytes {
        let (memtables, _) = write.memtables.log_pin();
        let streams = write.log.streams.lock().oldest_segment();
        let needed = memtables.into_iter().chain(streams).min();
        HeldBytes {
            by_memtables: pinned_bytes(segments, memtables),
            by_streams: pinned_bytes(segments, streams),
            for_feed: feed_bytes(segments, needed),
        }
    }

    /// The age of the oldest segment, counted from when it was full.
    pub(crate) fn oldest_held_ms(&self, write: &WritePath, segments: &[SegmentFacts]) -> u64 {
        let now_ms = write.shared.env.clock.wall_ms();
        let mut watchdog = self.watchdog.lock();
        watchdog.see(segments, now_ms);
        let oldest = segments.first().and_then(|facts| watchdog.full_since_ms(facts.number));
        oldest.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// Warns if memtables or streams keep more of the log than [`crate::Options::log_holder_warn_bytes`]. Called
    /// whenever the log is maintained.
    pub(super) fn watch(&self, write: &WritePath, segments: &[SegmentFacts]) {
        let bound = write.shared.options.log_holder_warn_bytes;
        let held = LogMaintenance::held_bytes(write, segments);
        let (memtables, streams) = {
            let mut watchdog = self.watchdog.lock();
            watchdog.see(segments, write.shared.env.clock.wall_ms());
            (
                watchdog.warns(HolderKind::Memtables, held.by_memtables, bound),
                watchdog.warns(HolderKind::Streams, held.by_streams, bound),
            )
        };
        if memtables {
            let error = write.shared.progress.get().flush_error.map(|error| error.to_string());
            tracing::warn!(bytes = held.by_memtables, bound, ?error, "memtables that are not flushed hold the log");
            write.shared.counters.log_holder_warnings.fetch_add(1, Ordering::Relaxed);
        }
        if streams {
            let (example, count) = {
                let index = write.log.streams.lock();
                let oldest = index.oldest_segment().unwrap_or(0);
                (index.users(oldest).next().map(|(stream, ..)| stream.0), index.users(oldest).count())
            };
            let what = "streams that are not truncated hold the log";
            tracing::warn!(bytes = held.by_streams, bound, stream = ?example, streams = count, what);
            write.shared.counters.log_holder_warnings.fetch_add(1, Ordering::Relaxed);
        }
    }
}
