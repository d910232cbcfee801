//! The log.

use super::Stats;
use super::metric::Unit::{Bytes, None as No, Seconds};
use super::metric::{MetricKind, Sample, Subsystem};
use crate::db::{Core, LogMaintenance};
use std::sync::atomic::Ordering::Relaxed;

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Segments now.
    pub segments: u64,
    /// Files that were segments and wait to be used again, now; see `Options::log_segments_recycled_max`.
    pub segments_free: u64,
    /// Bytes that unflushed memtables retain: from the oldest segment that one needs. See
    /// [`Db::log_retention`](crate::Db::log_retention).
    pub held_by_memtables_bytes: u64,
    /// Bytes that streams retain, likewise.
    pub held_by_streams_bytes: u64,
    /// Bytes that are retained for subscribers of changes alone.
    pub held_for_feed_bytes: u64,
    /// How long the oldest segment has been full, in milliseconds.
    pub oldest_held_ms: u64,
    /// Warnings that one kind of holder retains more than `Options::log_holder_warn_bytes`, counted.
    pub holder_warnings: u64,
    /// Segments deleted or put aside for use again, counted.
    pub segments_deleted: u64,
    /// Segments made of files that were segments before, counted.
    pub segments_recycled: u64,
    /// Bytes in use now: about what a restart would read.
    pub bytes: u64,
    /// Bytes appended, counted.
    pub appended_bytes: u64,
    /// Bytes of streams' entries rewritten at the tail to free old segments, counted.
    pub rewritten_bytes: u64,
    /// Bytes of records that open replayed.
    pub replayed_bytes: u64,
    /// Syncs for commits, counted: sync commits per sync is what grouping gains.
    pub syncs: u64,
    /// Streams now.
    pub streams: u64,
}

pub(super) fn collect(core: &Core) -> LogStats {
    let counters = &core.shared().counters;
    let segments = core.write.log.segments.facts();
    let held = LogMaintenance::held_bytes(&core.write, &segments);
    LogStats {
        held_by_memtables_bytes: held.by_memtables,
        held_by_streams_bytes: held.by_streams,
        held_for_feed_bytes: held.for_feed,
        oldest_held_ms: core.background.log.oldest_held_ms(&core.write, &segments),
        holder_warnings: counters.log_holder_warnings.load(Relaxed),
        segments: segments.len() as u64,
        segments_free: core.write.log.next_segments.free_count() as u64,
        segments_deleted: counters.segments_deleted.load(Relaxed),
        segments_recycled: core.write.log.next_segments.recycled_count(),
        bytes: segments.iter().map(|facts| facts.bytes).sum(),
        appended_bytes: counters.appended_bytes.load(Relaxed),
        rewritten_bytes: counters.rewritten_bytes.load(Relaxed),
        replayed_bytes: counters.replayed_bytes.load(Relaxed),
        syncs: counters.syncs.load(Relaxed),
        streams: core.write.log.streams.lock().len() as u64,
    }
}

impl Stats {
    pub(super) fn describe_log(&self, subsystem: &mut Subsystem<'_>) {
        let log = &self.log;
        subsystem.gauge("segments", No, "Segments", log.segments);
        subsystem.gauge("segments_free", No, "Files that wait to be segments again", log.segments_free);
        subsystem.counter("segments_deleted", No, "Segments that were deleted or recycled", log.segments_deleted);
        subsystem.counter(
            "segments_recycled",
            No,
            "Segments made of files that were segments before",
            log.segments_recycled,
        );
        subsystem.gauge("used", Bytes, "Bytes in use: what a restart would read", log.bytes);
        let help = "Bytes retained, by holder: a segment may have several";
        let by = |who: &str, bytes: u64| Sample { labels: vec![("by", who.to_string())], value: bytes.into() };
        let held = vec![
            by("memtables", log.held_by_memtables_bytes),
            by("streams", log.held_by_streams_bytes),
            by("feed", log.held_for_feed_bytes),
        ];
        subsystem.labelled(MetricKind::Gauge, "held", Bytes, help, held);
        let help = "How long the oldest segment has been full";
        subsystem.gauge("oldest_held_age", Seconds, help, log.oldest_held_ms as f64 / 1e3);
        subsystem.counter("holder_warnings", No, "Warnings that a holder keeps too much", log.holder_warnings);
        subsystem.counter("appended", Bytes, "Bytes appended", log.appended_bytes);
        subsystem.counter("rewritten", Bytes, "Bytes moved to the tail to free segments", log.rewritten_bytes);
        subsystem.gauge("replayed", Bytes, "Bytes of records that open replayed", log.replayed_bytes);
        subsystem.counter("syncs", No, "Syncs for commits", log.syncs);
        subsystem.gauge("streams", No, "Streams", log.streams);
        subsystem.histogram("sync", "Syncs for commits, with the sync of values before", &self.latency.log_sync);
    }
}
