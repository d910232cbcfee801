//! How far the logs of a store's replicas are behind: in sums and maxima, and by name what stands out.
//!
//! The sums are over all replicas, so there may be ten thousand terms; what is named is bounded ([`WORST_MAX`]), except
//! the followers beyond the bound, which are few unless a store is away.

use super::Store;
use crate::peer::{FollowerLag, ReplicaLag};
use crate::region::RegionId;
use std::cmp::Reverse;

/// How many followers, and logs, are named at most because they are the worst.
pub const WORST_MAX: usize = 5;

/// How far the logs of all replicas of a store are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreLag {
    /// Entries of all logs that are not truncated.
    pub log_entries: u64,
    /// Bytes of the largest log.
    pub log_bytes_max: u64,
    /// Entries that are committed and not visible to readers here: all, and those of the worst replica.
    pub unapplied_entries: u64,
    /// See `unapplied_entries`.
    pub unapplied_entries_max: u64,
    /// Entries that are visible here and that no table is known to contain: all, and those of the worst replica.
    pub unflushed_entries: u64,
    /// See `unflushed_entries`.
    pub unflushed_entries_max: u64,
    /// Entries that the followers of the regions that are led here are not known to have: all, and those of the worst.
    pub follower_entries: u64,
    /// See `follower_entries`.
    pub follower_entries_max: u64,
    /// Their bytes: all, and those of the worst follower.
    pub follower_bytes: u64,
    /// See `follower_bytes`.
    pub follower_bytes_max: u64,
    /// The followers that are furthest behind, the worst first; none that has everything.
    pub worst: Vec<FollowerLag>,
    /// The largest logs with their bytes, the largest first.
    pub largest: Vec<(RegionId, u64)>,
    /// The followers beyond [`crate::Config::lag_warn_bytes`], or that need a snapshot.
    pub beyond: Vec<FollowerLag>,
}

/// Whether it takes a follower longer to get what it lacks. One that needs a snapshot lacks more than its bytes say.
fn badness(lag: &FollowerLag) -> (bool, u64, u64) {
    (lag.needs_snapshot, lag.bytes, lag.entries)
}

impl StoreLag {
    fn add_replica(&mut self, lag: &ReplicaLag) {
        self.log_entries += lag.log_entries;
        self.log_bytes_max = self.log_bytes_max.max(lag.log_bytes);
        self.unapplied_entries += lag.unapplied_entries;
        self.unapplied_entries_max = self.unapplied_entries_max.max(lag.unapplied_entries);
        self.unflushed_entries += lag.unflushed_entries;
        self.unflushed_entries_max = self.unflushed_entries_max.max(lag.unflushed_entries);
        let entry = (lag.region, lag.log_bytes);
        insert_worst(&mut self.largest, entry, |(_, bytes)| *bytes);
    }

    fn add_follower(&mut self, lag: FollowerLag, warn_bytes: u64) {
        self.follower_entries += lag.entries;
        self.follower_entries_max = self.follower_entries_max.max(lag.entries);
        self.follower_bytes += lag.bytes;
        self.follower_bytes_max = self.follower_bytes_max.max(lag.bytes);
        if lag.entries > 0 || lag.needs_snapshot {
            insert_worst(&mut self.worst, lag, badness);
        }
        if lag.bytes > warn_bytes || lag.needs_snapshot {
            self.beyond.push(lag);
        }
    }
}

/// Keeps the [`WORST_MAX`] worst, the worst first.
fn insert_worst<T, K: Ord>(worst: &mut Vec<T>, new: T, key: impl Fn(&T) -> K) {
    let at = worst.partition_point(|known| key(known) >= key(&new));
    if at < WORST_MAX {
        worst.insert(at, new);
        worst.truncate(WORST_MAX);
    }
}

impl Store {
    /// How far the logs of all replicas are behind. Linear in their number.
    pub fn lag(&self) -> StoreLag {
        let (mut all, warn_bytes) = (StoreLag::default(), self.config.lag_warn_bytes as u64);
        for peer in self.peers.values().filter(|peer| !peer.is_removed()) {
            all.add_replica(&peer.own_lag());
            // The followers of a leader that hibernates have everything.
            if !peer.hibernates() {
                peer.follower_lags().for_each(|lag| all.add_follower(lag, warn_bytes));
            }
        }
        all.beyond.sort_by_key(|lag| Reverse(badness(lag)));
        all
    }

    /// The log of one replica.
    pub fn replica_lag(&self, region: RegionId) -> Option<ReplicaLag> {
        let peer = self.peers.get(&region).filter(|peer| !peer.is_removed())?;
        Some(ReplicaLag { followers: peer.follower_lags().collect(), ..peer.own_lag() })
    }
}

#[cfg(test)]
#[path = "lag_test.rs"]
mod tests;
