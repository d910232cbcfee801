//! The metrics of raftstore, driver and engine, read when they are scraped.

use crate::driver::{MembershipState, NodeHandle};
use kontiki_engine::stats::{Metric, MetricKind, Sample, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Encodes a node's counters; names begin with the registry's prefix.
pub struct NodeCollector(pub NodeHandle);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.raft(&mut encoder)?;
        self.reads(&mut encoder)?;
        self.logs(&mut encoder)?;
        self.lag(&mut encoder)?;
        self.snapshots(&mut encoder)?;
        self.placement(&mut encoder)?;
        self.consistency(&mut encoder)?;
        self.engine(&mut encoder)
    }
}

impl NodeCollector {
    fn log_speed(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        let write = "Microseconds that a write of the raft log takes until it is durable, averaged over the last ones";
        gauge(encoder, "raft_log_write_us", write, c.log_write_us.get())?;
        let slow = "1 while these are much longer than on other nodes, which lead instead";
        gauge(encoder, "raft_log_slow", slow, c.log_slow.get())
    }

    fn raft(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        for (name, help, counter) in [
            ("raft_proposals", "Proposals submitted to raft", &c.proposals),
            ("raft_proposals_applied", "Proposals committed and applied", &c.proposals_applied),
            ("raft_proposals_refused", "Proposals refused with a region error", &c.proposals_refused),
            ("raft_proposals_undetermined", "Proposals whose outcome remained unknown", &c.proposals_undetermined),
            ("raft_requests_busy", "Requests refused because too many waited", &c.busy),
            ("raft_requests_disk_full", "Proposals refused because the disk was full", &c.disk_full),
            ("raft_persists", "Synced log commits of raft state, each for all regions", &c.persists),
            ("raft_persist_retries", "Log commits retried after the disk was full", &c.persist_retries),
            (
                "raft_log_unwritable",
                "Times the raft log became unwritable: full disk, or a write over 2 s",
                &c.log_unwritable,
            ),
            ("region_splits", "Regions that were split by this node as their leader", &c.splits),
            ("region_splits_by_load", "Of these, splits because of the region's load", &c.splits_by_load),
            ("region_hot_keys", "Keys reported as the cause of a region's load", &c.hot_keys_reported),
            ("region_merges", "Replicas here whose range another region has taken over", &c.merges),
            ("raft_applies", "Batches of committed entries applied", &c.applies),
            ("raft_messages_received", "Raft messages received from other nodes", &c.messages_received),
            ("raft_messages_dropped", "Messages dropped because the inbox was full", &c.messages_dropped),
            (
                "raft_messages_ignored",
                "Raft messages ignored while this node does not take part in consensus",
                &c.messages_ignored,
            ),
            ("raft_messages_refused", "Raft messages that no correct peer sends", &c.messages_refused),
            ("raft_messages_malformed", "Messages that did not decode", &c.messages_malformed),
        ] {
            count(encoder, name, help, counter.get())?;
        }
        count(
            encoder,
            "raft_log_memory_refused",
            "Appends and proposals refused because the memory budget of raft logs was used up",
            c.log_memory_refused.get(),
        )?;
        self.log_speed(encoder)?;
        let resting = "Replicas without ticks: they hibernate, or have nothing to do and no peers";
        gauge(encoder, "regions_resting", resting, c.regions_resting.get())?;
        let waking = "Replicas that hibernate and wait for their turn to wake up";
        gauge(encoder, "regions_waking", waking, c.regions_waking.get())?;
        let overloaded = "Regions led here of which more is served than their limits";
        gauge(encoder, "regions_overloaded", overloaded, c.regions_overloaded.get())?;
        let indivisible = "Of these, regions whose load no boundary divides";
        gauge(encoder, "regions_indivisible", indivisible, c.regions_indivisible.get())?;
        gauge(encoder, "raft_log_memory_bytes", "Bytes of raft logs in memory, all regions", c.log_memory_bytes.get())?;
        gauge(encoder, "raft_log_memory_bytes_max", "Budget of raft logs in memory", c.log_memory_bytes_max.get())?;
        gauge(
            encoder,
            "raft_applying_bytes",
            "Bytes of committed entries in flight to the engine",
            c.applying_bytes.get(),
        )?;
        let status = self.0.status();
        let leading = status.regions.iter().filter(|region| region.leading_term.is_some()).count();
        gauge(encoder, "regions", "Regions with a replica here", status.regions.len() as u64)?;
        gauge(encoder, "regions_led", "Regions led here", leading as u64)?;
        let member = u64::from(status.membership == MembershipState::Member);
        gauge(encoder, "member", "1 while this node takes part in consensus", member)?;
        let stuck = status.regions.iter().filter(|region| region.refusal.is_some()).count();
        gauge(encoder, "regions_refusing", "Regions whose replica here refuses messages of its peers", stuck as u64)?;
        gauge(encoder, "disk_full", "1 while writes are refused for lack of disk space", u64::from(status.disk_full))
    }

    fn reads(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        for (name, help, counter) in [
            ("reads_lease", "Views served under a leader lease", &c.reads_lease),
            ("reads_barrier", "Views served after a read barrier", &c.reads_barrier),
            ("reads_replica", "Views served by replicas that do not lead", &c.reads_replica),
            ("reads_stale", "Views served by replicas for stale reads", &c.reads_stale),
            ("reads_stale_refused", "Stale reads refused because the replica was behind", &c.reads_stale_refused),
            ("locks_resolved", "Transactions of clients that had stopped, finished here", &c.locks_resolved),
            ("locks_unresolved", "Tries to finish such a transaction that failed", &c.locks_unresolved),
            ("gc_records_read", "Write records read to find dead versions", &c.gc_records_read),
            ("gc_regions_collected", "Compactions of a region because versions were dead", &c.gc_regions_collected),
            ("safe_ts_locks_read", "Locks read to advance the timestamps of stale reads", &c.safe_ts_locks_read),
        ] {
            count(encoder, name, help, counter.get())?;
        }
        let safe_point = "The timestamp below which transactional reads are refused, as placement has last answered";
        gauge(encoder, "gc_safe_point", safe_point, c.gc_safe_point.get())?;
        let age = "How far the GC safe point is behind this node's clock; 0 as long as there is none";
        gauge(encoder, "gc_safe_point_age_milliseconds", age, c.gc_safe_point_age_ms.get())?;
        let behind = "How far the regions that are read stale here are behind this node's clock, the last of them";
        gauge(encoder, "safe_ts_lag_milliseconds", behind, c.safe_ts_lag_ms.get())
    }

    /// Entries of raft logs that are not in memory, and what followers have not answered.
    fn logs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        let read = "Entries read back from raft logs on disk for followers that lag";
        count(encoder, "raft_log_entries_read", read, c.log_entries_read.get())?;
        let failed = "Reads of raft logs on disk that failed; they are repeated";
        count(encoder, "raft_log_reads_failed", failed, c.log_reads_failed.get())?;
        let delayed = "Appends delayed because a follower had the maximum of bytes in flight";
        count(encoder, "raft_appends_delayed", delayed, c.appends_delayed.get())?;
        let reading = "Bytes of entries that are being read back from raft logs on disk";
        gauge(encoder, "raft_log_reading_bytes", reading, c.log_reading_bytes.get())?;
        let stored = "Bytes of raft logs in memory or not, all regions";
        gauge(encoder, "raft_log_stored_bytes", stored, c.log_stored_bytes.get())?;
        let stored_max = "Bytes of raft logs above which none is retained for followers";
        gauge(encoder, "raft_log_stored_bytes_max", stored_max, c.log_stored_bytes_max.get())?;
        self.log_files(encoder)
    }

    /// Raft logs in files of their own; all zero while they are in the engine's log.
    fn log_files(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let usage = self.0.log_usage();
        let help = "Files of raft logs, one for each region (--raft-log per-group)";
        gauge(encoder, "raft_log_files", help, usage.files)?;
        gauge(encoder, "raft_log_files_bytes", "Bytes of these files, with space allocated ahead", usage.bytes)?;
        gauge(encoder, "raft_log_files_open", "Of these files, those open for writing", usage.open_files)?;
        count(encoder, "raft_log_file_syncs", "Syncs of files of raft logs", usage.syncs)?;
        let help = "Files of raft logs that were written again without what is truncated";
        count(encoder, "raft_log_file_rewrites", help, usage.rewrites)?;
        let help = "Bytes written by these rewrites of files of raft logs";
        count(encoder, "raft_log_file_rewritten_bytes", help, usage.rewritten_bytes)
    }

    fn snapshots(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        count(encoder, "snapshots_prepared", "Views taken for sending snapshots", c.snapshots_prepared.get())?;
        let refused = "Snapshots refused because the disk has no space for their files and tables";
        count(encoder, "snapshots_refused", refused, c.snapshots_refused.get())?;
        count(encoder, "snapshots_installed", "Snapshots installed", c.snapshots_installed.get())?;
        let as_tables = "Of these, snapshots that were taken in as tables";
        count(encoder, "snapshots_installed_as_tables", as_tables, c.snapshots_installed_as_tables.get())?;
        let table_bytes = "Bytes of the tables that snapshots were taken in as";
        count(encoder, "snapshot_table_bytes", table_bytes, c.snapshot_table_bytes.get())?;
        count(
            encoder,
            "snapshot_installed_bytes",
            "Bytes of the files that were installed",
            c.snapshot_installed_bytes.get(),
        )?;
        let took = "Time that installs of snapshots took";
        count(encoder, "snapshot_install_milliseconds", took, c.snapshot_install_ms.get())?;
        let abandoned = c.snapshots_abandoned.get();
        count(encoder, "snapshots_abandoned", "Snapshots in flight when the log outgrew its bound", abandoned)?;
        gauge(encoder, "snapshot_views", "Views retained for sending snapshots", c.snapshot_views.get())?;
        let state = self.0.snapshots();
        gauge(encoder, "snapshots_arriving", "Snapshot files that are arriving or being checked", state.arriving)?;
        gauge(encoder, "snapshots_waiting", "Snapshot files that wait for their install", state.waiting)?;
        gauge(encoder, "snapshots_installing", "Snapshot files that are being installed", state.installing)?;
        let promised = "Disk space that is promised to snapshots and not taken yet";
        gauge(encoder, "snapshot_promised_bytes", promised, state.promised_bytes)
    }

    fn consistency(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        let all = "Regions led by this node whose replicas were compared";
        count(encoder, "consistency_checks", all, c.consistency_checks.get())?;
        let incomplete = "Of these, comparisons without the result of some replica";
        count(encoder, "consistency_checks_incomplete", incomplete, c.consistency_checks_incomplete.get())?;
        let different = "Of these, comparisons that found replicas with different data";
        count(encoder, "consistency_differences", different, c.consistency_differences.get())
    }

    fn placement(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        count(encoder, "placement_calls", "Placement calls started on this node", c.placement_calls.get())?;
        count(encoder, "placement_proxied", "Placement calls forwarded by other nodes", c.placement_proxied.get())?;
        count(encoder, "placement_timeouts", "Placement calls without an answer in time", c.placement_timeouts.get())
    }

    /// The engine's metrics, under the engine's names.
    fn engine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.state().stats();
        let metrics = stats.built_in.map(|stats| stats.metrics()).unwrap_or_default();
        metrics.iter().try_for_each(|metric| describe(encoder, metric))
    }
}

fn describe(encoder: &mut DescriptorEncoder<'_>, metric: &Metric) -> fmt::Result {
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    let name = metric.name();
    let mut samples = encoder.encode_descriptor(&name, metric.help, None, kind)?;
    for Sample { labels, value } in &metric.samples {
        match labels.as_slice() {
            [] => encode_value(&mut samples, metric.kind, value)?,
            _ => encode_value(&mut samples.encode_family(labels)?, metric.kind, value)?,
        }
    }
    Ok(())
}

fn encode_value(encoder: &mut MetricEncoder<'_>, kind: MetricKind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (MetricKind::Counter, Value::Whole(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
        (MetricKind::Counter, Value::Float(value)) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
        (_, Value::Whole(value)) => encoder.encode_gauge(&i64::try_from(*value).unwrap_or(i64::MAX)),
        (_, Value::Float(value)) => encoder.encode_gauge(value),
        (_, Value::Histogram(histogram)) => {
            let (sum, buckets) = (histogram.sum().as_secs_f64(), histogram.buckets_seconds());
            encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
        }
    }
}

pub(super) fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

pub(super) fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}
