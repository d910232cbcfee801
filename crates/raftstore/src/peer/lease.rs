//! The leader's lease.
//!
//! Every heartbeat carries its send time by the leader's clock, and every answer brings it back. The lease starts at
//! the latest send time that a quorum (the leader included) has confirmed, and lasts [`Config::lease_duration`]: a
//! confirming follower votes for nobody else before its election time-out has passed since it heard that heartbeat. So
//! the lease is renewed by the heartbeats that are sent anyway, at the price of 8 bytes in each; an idle region costs
//! nothing more.
//!
//! What would break the promise, and what is done about it:
//!
//! - *A transfer of leadership*: its votes are given regardless of a known leader. From sending TimeoutNow on the lease
//!   is suspended. A delayed TimeoutNow could still start an election much later, so it names the log's last index and
//!   is ignored by a target whose log has grown since; the suspicion ends when the target has confirmed a later entry
//!   in the same term, for then it has not campaigned and never will on that message. (ReadIndex alone would not
//!   prove that.)
//! - *A restarted follower* has forgotten whom it confirmed: it gives no vote for one election time-out
//!   (`silent_until_tick`).
//! - *Ticks that pile up* while a process is stalled would run an election time-out too fast: ticks are counted by the
//!   clock, so `n` of them take more than `n - 1` intervals.
//!
//! [`Config::lease_duration`]: crate::Config::lease_duration

use super::Peer;
use crate::consensus::step::HeartbeatAck;
use crate::region::{PeerId, Region};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Lease {
    /// Latest send time that each follower has confirmed in this term.
    confirmed: BTreeMap<PeerId, Duration>,
    /// Told to campaign when the log ended at this index.
    suspect: Option<(PeerId, u64)>,
}

impl Lease {
    /// A follower confirmed a heartbeat of this term.
    pub fn confirm(&mut self, ack: HeartbeatAck, now: Duration) {
        // A time from the future is not ours.
        if ack.sent_at <= now {
            let latest = self.confirmed.entry(ack.from).or_default();
            *latest = (*latest).max(ack.sent_at);
        }
    }

    pub fn suspect(&mut self, peer: PeerId, index: u64) {
        assert!(index > 0, "the message names the log's last index");
        self.suspect = Some((peer, index));
    }

    /// When a follower last confirmed anything.
    pub fn confirmed_at(&self, peer: PeerId) -> Option<Duration> {
        self.confirmed.get(&peer).copied()
    }

    /// Until when the leader may serve reads. A quorum is a majority of the voters; joint configurations will need
    /// one of each half.
    pub fn until(&self, region: &Region, me: PeerId, now: Duration, duration: Duration) -> Option<Duration> {
        if self.suspect.is_some() {
            return None;
        }
        let mut times: Vec<Duration> = region
            .peers
            .iter()
            .filter_map(|peer| if peer.id == me { Some(now) } else { self.confirmed_at(peer.id) })
            .collect();
        assert!(times.contains(&now) && times.iter().all(|time| *time <= now), "nothing is confirmed in the future");
        times.sort_unstable_by(|a, b| b.cmp(a));
        let majority = region.peers.len() / 2 + 1;
        times.get(majority - 1).map(|start| *start + duration)
    }
}

impl Peer {
    pub(super) fn confirm_lease(&mut self, ack: HeartbeatAck, now: Duration) {
        if self.leads() && self.region.peer(ack.from).is_some() {
            self.lease.confirm(ack, now);
        }
    }

    pub(super) fn clear_suspicion(&mut self) {
        if let Some((target, index)) = self.lease.suspect
            && !self.group.is_transferring()
            && self.group.matched(target).is_some_and(|matched| matched > index)
        {
            self.lease.suspect = None;
        }
    }

    /// A transfer came to nothing and nobody writes: an empty entry lets the target show that it did not campaign.
    pub(super) fn probe_after_transfer(&mut self) {
        if self.leads()
            && !self.group.is_transferring()
            && self.lease.suspect.is_some_and(|(_, index)| self.group.last_index() == index)
        {
            // A refusal is as good: it means that leadership is on its way out.
            let _ = self.group.propose(vec![(Bytes::new(), Bytes::new())]);
        }
    }
}
