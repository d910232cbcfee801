//! The leader's lease.
//!
//! Every heartbeat carries its send time by the leader's clock, and every acknowledgement returns it, with the length
//! of the promise that it makes ([`super::promise`], where the proof is). A follower's promise of length P to a
//! heartbeat sent at s lets the leader count on that follower until s + [`Config::lease_of`]`(P)`. The lease holds
//! until the latest time through which the leader can count on a quorum: the core's own quorum, of both halves in a
//! joint configuration. It is renewed by the ordinary heartbeats, at a cost of 24 bytes in each; an idle region has no
//! further cost.
//!
//! A transfer of leadership releases promises: followers vote for its target at once. Transfers are numbered from 1 in
//! each term, when their order is sent. From then on only those acknowledgements count that know this number to be
//! void, and the leader declares it void when it has given the transfer up. The lease is therefore available again one
//! round trip later, from any quorum, whether the target is alive or not; and every follower that supports the lease
//! refuses an order or a vote request that was delayed in the network. *Rejected:* waiting for the target to confirm a
//! later entry (a target that died costs the lease until it is back); a time limit in the order (needs a clock reading
//! of every voter, and what was confirmed before still has to be thrown away).
//!
//! The leader itself needs no promise: any end of its leadership ends the lease in the same poll, before any vote of
//! this replica is sent.
//!
//! [`Config::lease_of`]: crate::Config::lease_of

use super::Peer;
use crate::consensus::step::HeartbeatAck;
use crate::region::{PeerId, StoreId};
use std::collections::BTreeMap;
use std::time::Duration;

/// What supports a leader's lease. Times are those of the leader's own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// When the lease ends, unless it is renewed.
    pub until: Duration,
    /// The other stores with a promise not to vote, and until when the leader counts on each.
    pub promises: Vec<(StoreId, Duration)>,
}

/// What a follower has confirmed in this term.
#[derive(Clone, Copy, Default)]
struct Confirmed {
    /// Latest send time of a heartbeat that it acknowledged.
    sent_at: Duration,
    /// Until when the leader can count on its promise.
    until: Duration,
}

#[derive(Default)]
pub(super) struct Lease {
    confirmed: BTreeMap<PeerId, Confirmed>,
    /// Transfers ordered in this term.
    ordered: u64,
    /// The target of the last one, if it is not given up.
    target: Option<PeerId>,
    /// A planted bug: see [`crate::planted::Planted::lease_through_transfer`].
    through_transfer: bool,
}

impl Lease {
    pub fn new(through_transfer: bool) -> Lease {
        Lease { through_transfer, ..Lease::default() }
    }

    /// A follower confirmed a heartbeat of this term with a promise on which the leader can count for `lease`.
    pub fn confirm(&mut self, ack: HeartbeatAck, now: Duration, lease: Duration) {
        // A time from the future is not ours.
        if ack.sent_at > now {
            return;
        }
        let confirmed = self.confirmed.entry(ack.from).or_default();
        confirmed.sent_at = confirmed.sent_at.max(ack.sent_at);
        if ack.void_through == self.ordered || self.through_transfer {
            confirmed.until = confirmed.until.max(ack.sent_at + lease);
        }
    }

    /// An order to campaign is sent: returns the transfer's number.
    pub fn order(&mut self, to: PeerId) -> u64 {
        if self.target != Some(to) {
            self.target = Some(to);
            self.ordered += 1;
            if !self.through_transfer {
                self.confirmed.values_mut().for_each(|confirmed| confirmed.until = Duration::ZERO);
            }
        }
        self.ordered
    }

    /// The transfer in progress, to `target`, failed. Returns whether there was one.
    fn give_up(&mut self, target: Option<PeerId>) -> bool {
        self.target.take_if(|ordered| target != Some(*ordered)).is_some()
    }

    /// Transfers through this number are void.
    pub fn void_through(&self) -> u64 {
        if self.target.is_some() { self.ordered - 1 } else { self.ordered }
    }

    /// When a follower last confirmed anything.
    pub fn confirmed_at(&self, peer: PeerId) -> Option<Duration> {
        self.confirmed.get(&peer).map(|confirmed| confirmed.sent_at)
    }

    /// Until when a follower can be counted on.
    fn until(&self, peer: PeerId) -> Duration {
        self.confirmed.get(&peer).map_or(Duration::ZERO, |confirmed| confirmed.until)
    }
}

impl Peer {
    pub(super) fn confirm_lease(&mut self, ack: HeartbeatAck, now: Duration) {
        if self.leads() && self.members.peer(ack.from).is_some() {
            let late =
                if self.config.planted().lease_from_answer { now.saturating_sub(ack.sent_at) } else { Duration::ZERO };
            let lease = self.config.lease_of(ack.promise).min(self.config.lease_duration()) + late;
            self.lease.confirm(ack, now, lease);
        }
    }

    /// Detects that a transfer was given up, and informs the followers at once.
    pub(super) fn observe_transfer(&mut self) {
        if self.lease.give_up(self.group.transfer_target()) && self.leads() {
            self.group.ping();
        }
    }

    /// Until when the leader may serve reads.
    pub(super) fn lease_until(&self, now: Duration) -> Option<Duration> {
        self.leading.as_ref()?;
        if self.is_merging() {
            // The target may serve its keys.
            return None;
        }
        if self.may_have_lost_keys() && !self.config.planted().lease_through_split {
            return None;
        }
        if self.is_sole_voter() {
            // No other replica can be elected, so it needs no renewal. The change that adds a voter ends it.
            return Some(Duration::MAX);
        }
        let mine = now + self.config.lease_duration();
        let until = self.group.quorum_time(|peer| if peer == self.me.id { mine } else { self.lease.until(peer) });
        assert!(until <= mine, "nothing is confirmed in the future");
        Some(until).filter(|until| *until > Duration::ZERO)
    }

    pub fn lease_status(&self, now: Duration) -> Option<LeaseStatus> {
        let until = self.lease_until(now)?;
        let others = self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        Some(LeaseStatus { until, promises: others.map(|peer| (peer.store, self.lease.until(peer.id))).collect() })
    }
}

#[cfg(test)]
#[path = "lease_test.rs"]
mod tests;
