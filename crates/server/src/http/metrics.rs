//! The numbers of raftstore, driver and engine, read when they are asked for.

use crate::driver::NodeHandle;
use kontiki_engine::{Histogram, SYNC_LATENCY_BOUNDS_US};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

/// Shows a node's counters; names begin with the registry's prefix.
pub struct NodeCollector(pub NodeHandle);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.raft(&mut encoder)?;
        self.placement(&mut encoder)?;
        self.engine_counters(&mut encoder)?;
        self.engine_gauges(&mut encoder)
    }
}

impl NodeCollector {
    fn raft(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        for (name, help, counter) in [
            ("raft_proposals", "Proposals given to raft", &c.proposals),
            ("raft_proposals_applied", "Proposals committed and applied", &c.proposals_applied),
            ("raft_proposals_refused", "Proposals refused with a region error", &c.proposals_refused),
            ("raft_proposals_undetermined", "Proposals whose outcome stayed unknown", &c.proposals_undetermined),
            ("raft_requests_busy", "Requests refused because too many waited", &c.busy),
            ("raft_requests_disk_full", "Proposals refused because the disk was full", &c.disk_full),
            ("raft_persists", "Synced log commits of raft state, of all regions together", &c.persists),
            ("raft_persist_retries", "Log commits tried again after the disk had been full", &c.persist_retries),
            ("raft_applies", "Batches of committed entries applied", &c.applies),
            ("reads_lease", "Views served under a leader lease", &c.reads_lease),
            ("reads_barrier", "Views served after a read barrier", &c.reads_barrier),
            ("raft_messages_received", "Raft messages taken from other nodes", &c.messages_received),
            ("raft_messages_dropped", "Messages dropped because the inbox was full", &c.messages_dropped),
            ("raft_messages_malformed", "Messages that did not decode", &c.messages_malformed),
            ("snapshots_built", "Snapshots built", &c.snapshots_built),
            ("snapshots_installed", "Snapshots installed", &c.snapshots_installed),
        ] {
            count(encoder, name, help, counter.get())?;
        }
        let status = self.0.status();
        let leading = status.regions.iter().filter(|region| region.leading_term.is_some()).count();
        gauge(encoder, "regions", "Regions with a replica here", status.regions.len() as u64)?;
        gauge(encoder, "regions_led", "Regions led here", leading as u64)?;
        gauge(encoder, "disk_full", "1 while writes are refused for want of space", u64::from(status.disk_full))
    }

    fn placement(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let c = self.0.counters();
        count(encoder, "placement_calls", "Placement calls begun here", c.placement_calls.get())?;
        count(encoder, "placement_proxied", "Placement calls taken from other nodes", c.placement_proxied.get())?;
        count(encoder, "placement_timeouts", "Placement calls without an answer in time", c.placement_timeouts.get())
    }

    fn engine_counters(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.db().stats();
        for (name, help, value) in [
            ("engine_commits_sync", "Commits that were to survive power loss", stats.commits_sync),
            ("engine_commits_buffered", "Commits that were to survive a killed process", stats.commits_buffered),
            ("engine_commits_derived", "Commits that are logged elsewhere", stats.commits_derived),
            ("engine_log_groups", "Groups of commits written to the log", stats.groups),
            ("engine_write_stalls", "Times that a writer waited for memory", stats.write_stalls),
            ("engine_log_appended_bytes", "Bytes appended to the log", stats.log_appended_bytes),
            ("engine_log_rewritten_bytes", "Bytes moved to the log's tail to free segments", stats.log_rewritten_bytes),
            ("engine_log_segments_deleted", "Log segments deleted", stats.log_segments_deleted),
            ("engine_flushes", "Memtables flushed", stats.flushes),
            ("engine_flushed_bytes", "Bytes of memtables flushed", stats.flushed_bytes),
            ("engine_compactions", "Compactions", stats.compactions),
            ("engine_compacted_bytes", "Bytes written by compactions", stats.compacted_bytes),
            ("engine_block_cache_hits", "Blocks found in the cache", stats.block_cache_hits),
            ("engine_block_cache_misses", "Blocks read from files", stats.block_cache_misses),
        ] {
            count(encoder, name, help, value)?;
        }
        let help = "Latency of log syncs, in seconds";
        histogram(encoder, "engine_log_sync_seconds", help, &stats.log_sync_latency)
    }

    fn engine_gauges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.db().stats();
        for (name, help, value) in [
            ("engine_commits_waiting", "Commits that wait now", stats.commits_waiting),
            ("engine_log_segments", "Log segments", stats.log_segments),
            ("engine_log_bytes", "Bytes of log in use", stats.log_bytes),
            ("engine_memtables", "Memtables", stats.memtables),
            ("engine_memtable_bytes", "Bytes of memtables", stats.memtable_bytes),
            ("engine_tables", "Tables", stats.tables()),
            ("engine_table_bytes", "Bytes of tables", stats.table_bytes()),
            ("engine_block_cache_bytes", "Bytes in the block cache", stats.block_cache_bytes),
        ] {
            gauge(encoder, name, help, value)?;
        }
        let mut tables =
            encoder.encode_descriptor("engine_level_tables", "Tables by level", None, MetricType::Gauge)?;
        for family in &stats.families {
            for (level, numbers) in family.levels.iter().enumerate() {
                let labels = [("family", family.name.clone()), ("level", level.to_string())];
                encode_gauge(tables.encode_family(&labels)?, numbers.tables)?;
            }
        }
        Ok(())
    }
}

fn count(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    encode_gauge(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?, value)
}

fn encode_gauge(encoder: MetricEncoder<'_>, value: u64) -> fmt::Result {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
}

fn histogram(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, from: &Histogram) -> fmt::Result {
    let bounds = SYNC_LATENCY_BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::MAX]);
    let buckets: Vec<_> = bounds.zip(from.counts.iter().copied().chain(std::iter::repeat(0))).collect();
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(from.sum_us as f64 / 1e6, from.count(), &buckets, None)
}
