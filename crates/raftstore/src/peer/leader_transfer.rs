//! A leader whose log cannot be written transfers its leadership.
//!
//! A full or stalled disk does not keep a leader from sending heartbeats, so the followers would not depose it; but
//! nothing that it proposes is ever applied. Its followers have its entries, because appends are sent before the
//! leader's own write, so a transfer needs no write of the leader. While the log cannot be written, this replica leads
//! only until another one can be found. It does not campaign, even when ordered to, because its own vote could not
//! become durable.
//!
//! The driver reports whether the log can be written ([`crate::Event::LogWritable`]); every message between peers
//! contains it, too, so a leader knows the state of its followers. A leader transfers only if a quorum without it can
//! write: an election needs durable votes, and without an election the leader at least serves reads. If the target does
//! not become leader, the next one is tried after a delay, because each attempt costs the lease for one election
//! timeout.

use super::Peer;
use crate::region::{self, PeerId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Election timeouts between attempts; an attempt may take one.
const RETRY_ELECTIONS: u64 = 4;

#[derive(Default)]
pub(super) struct LeaderTransfer {
    unwritable: bool,
    /// Other peers whose last message reported this.
    unwritable_peers: BTreeSet<PeerId>,
    attempts: usize,
    next_tick: u64,
}

impl Peer {
    /// The log can be written from now on, or it cannot.
    pub fn set_writable(&mut self, writable: bool) {
        self.leader_transfer.unwritable = !writable;
        self.leader_transfer.attempts = 0;
        // The cause of this failure may affect other disks: their stores get time to report it.
        self.leader_transfer.next_tick = self.ticks + 2 * self.config.heartbeat_ticks as u64;
    }

    pub(super) fn is_writable(&self) -> bool {
        !self.leader_transfer.unwritable
    }

    /// Whether another peer has reported that its log cannot be written.
    pub(super) fn is_unwritable_at(&self, peer: PeerId) -> bool {
        self.leader_transfer.unwritable_peers.contains(&peer)
    }

    /// Records what a message of another peer says about its log.
    pub(super) fn learn_writable(&mut self, from: region::Peer, unwritable: bool) {
        if unwritable {
            self.leader_transfer.unwritable_peers.insert(from.id);
        } else {
            self.leader_transfer.unwritable_peers.remove(&from.id);
        }
    }

    /// Starts a transfer to the next follower, if one is due.
    pub(super) fn transfer_if_unwritable(&mut self, now: Duration) {
        let due = self.ticks >= self.leader_transfer.next_tick && !self.group.is_transferring();
        if self.is_writable() || !self.leads() || !due {
            return;
        }
        let able = |peer: PeerId| {
            let heard_at = self.lease.confirmed_at(peer);
            peer != self.me.id
                && heard_at.is_some_and(|at| now.saturating_sub(at) < self.config.promise_duration())
                && !self.leader_transfer.unwritable_peers.contains(&peer)
        };
        if !self.group.is_quorum(able) {
            return;
        }
        let mut targets: Vec<_> = self.members.peers.iter().filter(|peer| able(peer.id)).copied().collect();
        // The follower with the longest log first: it needs the least time.
        targets.sort_by_key(|peer| std::cmp::Reverse(self.group.matched(peer.id)));
        let Some(target) = targets.get(self.leader_transfer.attempts % targets.len().max(1)).copied() else { return };
        tracing::warn!(
            region = self.region.id.0,
            to = target.store.0,
            "the log cannot be written: transferring the leadership"
        );
        self.leader_transfer.attempts += 1;
        self.leader_transfer.next_tick = self.ticks + RETRY_ELECTIONS * self.config.election_ticks as u64;
        self.group.transfer_leader(target.id);
    }
}
