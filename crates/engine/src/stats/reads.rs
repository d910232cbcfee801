//! Reads, what they pin, and what filters saved them.

use super::metric::Unit::{Bytes, None as No, Seconds};
use super::metric::{MetricKind, Sample, Subsystem};
use super::{LevelReads, ReadStats, Stats, level_label};
use crate::db::Core;

pub(super) fn collect(core: &Core) -> ReadStats {
    let held = core.write.memtables.held();
    let age = held.oldest_past_since.map(|since| core.shared().env.clock.monotonic().saturating_sub(since));
    let dead = core.write.memtables.dead.stats();
    ReadStats {
        dead_ranges: dead.known,
        dead_ranges_recorded: dead.recorded,
        dead_ranges_refused: dead.refused,
        dead_ranges_cut: dead.cut,
        open: held.readers,
        pinned_states: held.past_states,
        oldest_pinned_age_ms: age.map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        pinned_memtable_bytes: held.past_memtable_bytes,
        ..core.shared().recorder.reads()
    }
}

impl Stats {
    pub(super) fn describe_reads(&self, subsystem: &mut Subsystem<'_>) {
        let reads = &self.reads;
        subsystem.counter("gets", No, "Gets, estimated from those that were sampled", reads.gets);
        subsystem.counter("gets_found", No, "Gets that found a value, estimated", reads.gets_found);
        subsystem.counter("gets_in_memtables", No, "Gets that memory answered, estimated", reads.gets_in_memtables);
        subsystem.counter("scans", No, "Scans begun, estimated", reads.scans);
        let level = |value: &dyn Fn(&LevelReads) -> u64| {
            let labelled = reads.levels.iter().enumerate();
            labelled.map(|(level, of)| Sample { labels: level_label(level), value: value(of).into() }).collect()
        };
        let kind = MetricKind::Counter;
        let help = "Tables that gets searched, estimated";
        subsystem.labelled(kind, "level_tables_read", No, help, level(&|level| level.tables_read));
        let help = "Tables in which gets found their key, estimated";
        subsystem.labelled(kind, "level_found", No, help, level(&|level| level.found));
        subsystem.gauge("open", No, "Snapshots and iterators", reads.open);
        subsystem.gauge("pinned_states", No, "Past sets of tables that they hold", reads.pinned_states);
        let help = "How long the oldest of these has been out of date";
        subsystem.gauge("pinned_age", Seconds, help, reads.oldest_pinned_age_ms as f64 / 1e3);
        subsystem.gauge(
            "pinned_memtable",
            Bytes,
            "Bytes of memtables that only these hold",
            reads.pinned_memtable_bytes,
        );
        let help = "Dead versions that scans passed over";
        subsystem.counter("dead_versions_passed", No, help, reads.dead_versions_passed);
        let help = "Times that a scan skipped a range that is known to be dead";
        subsystem.counter("dead_ranges_skipped", No, help, reads.dead_ranges_skipped);
        subsystem.gauge("dead_ranges", No, "Ranges that are known to be dead", reads.dead_ranges);
        subsystem.counter("dead_ranges_recorded", No, "Times that a scan recorded one", reads.dead_ranges_recorded);
        let help = "Times that it could not, for a write came between";
        subsystem.counter("dead_ranges_refused", No, help, reads.dead_ranges_refused);
        subsystem.counter("dead_ranges_cut", No, "Times that a write into one cut it", reads.dead_ranges_cut);
        subsystem.histogram("get", "Gets, sampled", &self.latency.get);
        subsystem.histogram("seek", "First seeks of scans, sampled", &self.latency.seek);
        subsystem.histogram("multi_get", "Multi-gets, sampled", &self.latency.multi_get);
    }

    pub(super) fn describe_filters(&self, subsystem: &mut Subsystem<'_>) {
        let filters = self.reads.filters();
        subsystem.counter("queries", No, "Filters of tables queried by gets, estimated", filters.queries);
        subsystem.counter("useful", No, "Searches that filters saved, estimated", filters.useful);
        subsystem.counter(
            "false_positives",
            No,
            "Searches that filters failed to save, estimated",
            filters.false_positives,
        );
    }
}
