//! How far raft logs are behind, as metrics and as JSON.
//!
//! The number of series does not depend on the number of regions: sums, the worst of each kind, and by region only the
//! few worst of the followers beyond the bound.

use super::metrics::{NodeCollector, count, gauge};
use crate::driver::{LagReport, Lagging};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};
use std::fmt;

impl NodeCollector {
    pub(super) fn lag(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (report, warnings) = (self.0.lag(), self.0.counters().lag_warnings.get());
        count(encoder, "raft_lag_warnings", "Warnings that a follower has lagged for long", warnings)?;
        encode(encoder, &report)
    }
}

fn encode(encoder: &mut DescriptorEncoder<'_>, report: &LagReport) -> fmt::Result {
    let all = &report.all;
    for (name, help, value) in [
        ("raft_log_entries", "Entries of raft logs that are not truncated, all regions", all.log_entries),
        ("raft_log_largest_bytes", "Bytes of the largest raft log of a region", all.log_bytes_max),
        ("raft_unapplied_entries", "Entries committed and not applied here, all regions", all.unapplied_entries),
        ("raft_unapplied_entries_worst", "Of the region with most of them", all.unapplied_entries_max),
        ("raft_unflushed_entries", "Entries applied and in no table here, all regions", all.unflushed_entries),
        ("raft_unflushed_entries_worst", "Of the region with most of them", all.unflushed_entries_max),
        ("raft_follower_lag_entries", "Entries that followers of regions led here lack, all", all.follower_entries),
        ("raft_follower_lag_entries_worst", "Of the follower that lacks most", all.follower_entries_max),
        ("raft_follower_lag_bytes", "Bytes of the entries that followers of regions led here lack", all.follower_bytes),
        ("raft_follower_lag_bytes_worst", "Of the follower that lacks most", all.follower_bytes_max),
        ("raft_followers_lagging", "Followers beyond the bound, or that need a snapshot", report.lagging_count),
        ("raft_replay_bytes_max", "Bound of the bytes of the log that a restart reads", report.replay_bytes_max),
    ] {
        gauge(encoder, name, help, value)?;
    }
    let help = "Bytes that a follower beyond the bound lacks; the worst ones only";
    let mut samples = encoder.encode_descriptor("raft_lagging_follower_bytes", help, None, MetricType::Gauge)?;
    for Lagging { follower, .. } in &report.lagging {
        let labels = [("region", follower.region.0), ("store", follower.store.0)];
        let bytes = ConstGauge::new(i64::try_from(follower.bytes).unwrap_or(i64::MAX));
        bytes.encode(samples.encode_family(&labels)?)?;
    }
    Ok(())
}

/// For `/status`.
pub(super) fn describe(report: &LagReport) -> Value {
    let all = &report.all;
    let lagging = report.lagging.iter().map(|Lagging { follower, since }| {
        json!({
            "region": follower.region.0, "store": follower.store.0, "entries": follower.entries,
            "bytes": follower.bytes, "needs_snapshot": follower.needs_snapshot, "seconds": since.as_secs(),
        })
    });
    let largest = all.largest.iter().map(|(region, bytes)| json!({ "region": region.0, "bytes": bytes }));
    json!({
        "entries": all.log_entries,
        "unapplied_entries": all.unapplied_entries,
        "unflushed_entries": all.unflushed_entries,
        "follower_lag_entries": all.follower_entries,
        "follower_lag_bytes": all.follower_bytes,
        "followers_lagging": report.lagging_count,
        "lagging": lagging.collect::<Vec<_>>(),
        "largest": largest.collect::<Vec<_>>(),
        "replay_bytes_max": report.replay_bytes_max,
    })
}

#[cfg(test)]
#[path = "lag_test.rs"]
mod tests;
