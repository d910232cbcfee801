//! When the log is truncated.
//!
//! Never beyond what tables contain: after a crash only the log contains the rest. Normally not beyond what every live
//! replica has either, so that no replica needs a snapshot; the leader reports that index to its followers with every
//! message. Above a certain size the log is truncated through the flushed index regardless of the followers, and those
//! that lag get a snapshot. The entries after a snapshot in flight are retained up to a larger size ([`super::serve`]).

use super::Peer;
use crate::outbox::Outbox;
use crate::region::PeerId;
use std::time::Duration;

impl Peer {
    /// The index through which the logs of all live replicas are known to be the same; 0 if this replica does not lead.
    pub(super) fn replicated_through(&self, now: Duration) -> u64 {
        if self.leading.is_none() {
            return 0;
        }
        let others = self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        let live = others.filter(|peer| !self.is_dead(peer.id, now));
        let held = self.held_for_merge().unwrap_or(u64::MAX);
        live.filter_map(|peer| self.group.matched(peer.id)).fold(self.group.durable_index(), u64::min).min(held)
    }

    /// Whether a follower has been silent for so long that the log is not retained for it.
    pub(super) fn is_dead(&self, peer: PeerId, now: Duration) -> bool {
        // While it hibernated it had nothing to confirm.
        match (self.lease.confirmed_at(peer).max(self.hibernation.woken_at()), &self.leading) {
            (Some(at), _) => now.saturating_sub(at) > self.dead_after(),
            (None, Some(leading)) => self.ticks - leading.since_tick > self.config.follower_dead_ticks,
            (None, None) => true,
        }
    }

    fn dead_after(&self) -> Duration {
        let ticks = u32::try_from(self.config.follower_dead_ticks).unwrap_or(u32::MAX);
        self.config.tick_interval.saturating_mul(ticks)
    }

    pub(super) fn learn_replicated(&mut self, through: u64) {
        self.replicated = self.replicated.max(through);
    }

    /// Whether enough entries could be removed, if no follower needed them.
    pub(super) fn can_truncate(&self) -> bool {
        let gain = self.flushed.min(self.applied.index).saturating_sub(self.group.truncated().index);
        gain >= self.config.truncate_entries_min || gain > 0 && self.group.log_bytes() > self.config.log_bytes_max
    }

    /// Truncates if enough entries can be removed.
    pub fn maybe_truncate(&mut self, now: Duration, is_memory_tight: bool, out: &mut Outbox) {
        if self.waits_for_install() || self.removed {
            return;
        }
        let truncated = self.group.truncated().index;
        let over = is_memory_tight || self.group.log_bytes() > self.config.log_bytes_max;
        let mut target = self.flushed.min(self.applied.index);
        if !over {
            let shared = if self.leading.is_some() { self.replicated_through(now) } else { self.replicated };
            target = target.min(shared);
        }
        let is_held = self.leads() && !is_memory_tight && !self.config.planted().log_not_held;
        if is_held && self.group.log_bytes() <= self.config.snapshot_log_bytes_max {
            target = target.min(self.serving.lowest_in_use(truncated).unwrap_or(u64::MAX));
        }
        target = target.min(self.held_for_merge().unwrap_or(u64::MAX));
        let gain = target.saturating_sub(truncated);
        if gain >= self.config.truncate_entries_min || (over && gain > 0) {
            assert!(target <= self.flushed, "what is truncated is flushed");
            assert!(target <= self.applied.index, "what is truncated is applied");
            assert!(over || target <= self.group.durable_index(), "what is truncated is durable");
            self.group.truncate(target);
            self.truncations.push_back(target);
            self.state_dirty = true;
            self.give_holds_up(truncated, out);
        }
    }
}
