//! How far the followers of a leader are behind its log, and how far this replica is behind its own.

use super::Peer;
use crate::region::{PeerId, RegionId, StoreId};

/// A follower, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerLag {
    /// The region.
    pub region: RegionId,
    /// The follower.
    pub peer: PeerId,
    /// Its store.
    pub store: StoreId,
    /// Entries of the leader's log that the follower is not known to have. If `needs_snapshot`, it lacks more.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The leader's log begins above the follower's: only a snapshot helps it.
    pub needs_snapshot: bool,
}

/// The log of one replica, and who is behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLag {
    /// The region.
    pub region: RegionId,
    /// Whether the replica leads it.
    pub leads: bool,
    /// Entries of the log that are not truncated.
    pub log_entries: u64,
    /// Their bytes, in memory or not.
    pub log_bytes: u64,
    /// Entries that are committed and not visible to readers here.
    pub unapplied_entries: u64,
    /// Entries that are visible here and that no table is known to contain: what a restart applies again.
    pub unflushed_entries: u64,
    /// The followers, of a replica that leads.
    pub followers: Vec<FollowerLag>,
}

impl Peer {
    /// Without the followers.
    pub fn own_lag(&self) -> ReplicaLag {
        let (group, applied) = (&self.group, self.applied.index);
        let truncated = group.truncated().index;
        ReplicaLag {
            region: self.region.id,
            leads: self.leads(),
            log_entries: group.last_index() - truncated,
            log_bytes: group.log_bytes() as u64,
            unapplied_entries: group.committed() - applied,
            // What is truncated is in tables. After a start that is all that is known of them at first.
            unflushed_entries: applied.saturating_sub(self.flushed.max(truncated)),
            followers: Vec::new(),
        }
    }

    /// The followers of a leader.
    pub fn follower_lags(&self) -> impl Iterator<Item = FollowerLag> + '_ {
        let others = self.members.peers.iter().filter(|peer| self.leading.is_some() && peer.id != self.me.id);
        others.filter_map(|peer| self.follower_lag(peer.id, peer.store))
    }

    /// `None` of one that has not had the time to answer this leader.
    fn follower_lag(&self, peer: PeerId, store: StoreId) -> Option<FollowerLag> {
        let matched = self.group.matched(peer)?;
        let led_ticks = self.leading.as_ref().map_or(0, |leading| self.ticks - leading.since_tick);
        if matched == 0 && led_ticks <= self.config.election_ticks as u64 {
            return None;
        }
        let truncated = self.group.truncated().index;
        Some(FollowerLag {
            region: self.region.id,
            peer,
            store,
            entries: self.group.last_index().saturating_sub(matched.max(truncated)),
            bytes: self.group.bytes_after(matched) as u64,
            needs_snapshot: matched < truncated,
        })
    }
}
