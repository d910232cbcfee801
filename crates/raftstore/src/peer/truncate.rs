//! When the log may lose its beginning.
//!
//! Never beyond what tables hold: after a crash the log is all there is of the rest. Normally not beyond what every
//! live replica has either, so that nobody needs a snapshot; the leader tells its followers how far that is with every
//! message. Past a size the log goes through the flushed index alone, and laggards get a snapshot.

use super::Peer;
use std::time::Duration;

/// A snapshot on its way holds the log above it, unless the log has grown to this multiple of its bound.
const HELD_BY_SNAPSHOT_FACTOR: usize = 2;

impl Peer {
    /// The index through which the logs of all live replicas are known to be the same; 0 if this replica does not lead.
    pub(super) fn replicated_through(&self, now: Duration) -> u64 {
        let Some(leading) = &self.leading else { return 0 };
        let others = self.region.peers.iter().filter(|peer| peer.id != self.me.id);
        let matched = others.filter_map(|peer| {
            let dead = match self.lease.confirmed_at(peer.id) {
                Some(at) => now.saturating_sub(at) > self.dead_after(),
                None => self.ticks - leading.since_tick > self.config.follower_dead_ticks,
            };
            if dead { None } else { self.group.matched(peer.id) }
        });
        matched.fold(self.group.durable_index(), u64::min)
    }

    fn dead_after(&self) -> Duration {
        let ticks = u32::try_from(self.config.follower_dead_ticks).unwrap_or(u32::MAX);
        self.config.tick_interval.saturating_mul(ticks)
    }

    pub(super) fn learn_replicated(&mut self, through: u64) {
        self.replicated = self.replicated.max(through);
    }

    /// Truncates if there is enough to gain.
    pub fn maybe_truncate(&mut self, now: Duration, is_memory_tight: bool) {
        if self.waits_for_install() {
            return;
        }
        let over = is_memory_tight || self.group.log_bytes() > self.config.log_bytes_max;
        let mut target = self.flushed.min(self.applied.index);
        if !over {
            let shared = if self.leading.is_some() { self.replicated_through(now) } else { self.replicated };
            target = target.min(shared);
        }
        if !is_memory_tight
            && self.group.log_bytes() <= self.config.log_bytes_max.saturating_mul(HELD_BY_SNAPSHOT_FACTOR)
        {
            target = target.min(self.serving.lowest_in_use().unwrap_or(u64::MAX));
        }
        let gain = target.saturating_sub(self.group.truncated().index);
        if gain >= self.config.truncate_entries_min || (over && gain > 0) {
            assert!(target <= self.flushed, "what is truncated is flushed");
            assert!(target <= self.applied.index, "what is truncated is applied");
            assert!(over || target <= self.group.durable_index(), "what is truncated is durable");
            self.group.truncate(target);
            self.truncations.push_back(target);
            self.state_dirty = true;
        }
    }
}
