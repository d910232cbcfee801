//! Reports how far raft logs are behind: for metrics and status, and as a warning when a follower lags for long.
//!
//! The sums cost a walk over all replicas, so they are made once in [`LAG_TICKS`]; the log of one region is looked up
//! when it is asked for. raftstore knows the bound ([`kontiki_raftstore::Config::lag_warn_bytes`]).

use super::error::NodeError;
use super::inbox::Reply;
use super::lag_watch::{LagReport, Warning};
use super::{Driver, FLUSHED_TICKS};
use kontiki_placement::Now;
use kontiki_raftstore::{LAGS_NAMED_MAX, RegionError, RegionId, ReplicaLag};
use std::sync::Arc;

/// Ticks between reports: as often as raftstore learns what tables contain, which moves most of the distances.
const LAG_TICKS: u64 = FLUSHED_TICKS;

impl Driver {
    pub(super) fn tend_lag(&mut self, now: Now) {
        if !self.ticks.is_multiple_of(LAG_TICKS) {
            return;
        }
        let all = self.store.lag();
        let (mut lagging, warning) = self.lag_watch.see(&all.beyond, now.monotonic);
        if let Some(warning) = warning {
            self.warn_of_lag(warning);
        }
        let lagging_count = lagging.len() as u64;
        lagging.truncate(LAGS_NAMED_MAX);
        let replay_bytes_max = self.replay_bytes_max;
        *self.shared.lag.lock() = Arc::new(LagReport { all, lagging, lagging_count, replay_bytes_max });
    }

    fn warn_of_lag(&self, Warning { worst, count }: Warning) {
        self.shared.counters.lag_warnings.increment();
        let lag = worst.follower;
        let connection = self.shared.inbox.peer_failures.lock().get(&lag.store).map(|(why, _)| why.clone());
        let advice = match connection {
            Some(why) => format!("there is no connection to that store ({why}): is its node running?"),
            None if lag.needs_snapshot => "it needs a snapshot: see the log of that node, the free space of its disk, \
                                           and kontiki_snapshots_abandoned_total here"
                .to_owned(),
            None => "see kontiki_log_sync_seconds and kontiki_raft_log_unwritable_total of that node, and the network"
                .to_owned(),
        };
        tracing::warn!(
            region = lag.region.0,
            store = lag.store.0,
            entries = lag.entries,
            bytes = lag.bytes,
            needs_snapshot = lag.needs_snapshot,
            seconds = worst.since.as_secs(),
            followers = count,
            "a follower lags behind the log of its leader: {advice}; `kontiki status --region {}` shows more",
            lag.region
        );
    }

    /// The log of one replica here.
    pub(super) fn answer_replica_lag(&self, region: RegionId, reply: Reply<ReplicaLag>) {
        let found = self.store.replica_lag(region);
        reply.send(found.ok_or_else(|| NodeError::Region(RegionError::RegionNotFound { region })));
    }
}
