//! When a leader transfers its leadership by itself.
//!
//! **It has to**, because its store takes no leadership ([`crate::leadership`]):
//!
//! - The log cannot be written. A full or stalled disk does not keep a leader from sending heartbeats, so the followers
//!   would not depose it; but nothing that it proposes is ever applied. Its followers have its entries, because appends
//!   are sent before the leader's own write, so a transfer needs no write of the leader.
//! - The process is about to end ([`crate::Event::StopLeading`]). Its followers would notice after an election timeout,
//!   during which nothing could be read or written.
//!
//! Such a replica leads only until another one can be found, and does not campaign, even when ordered to. So does a
//! leader that is a learner when a joint configuration has ended, but it may campaign (`changes.rs`). Either transfers
//! only if a quorum without it is able to lead: an election needs durable votes, and without an election the leader at
//! least serves reads.
//!
//! **It prefers another store**, one with a higher priority, or any one whose log is not slow while its own is
//! ([`crate::log_speed`]). That can wait: the target's log is close to its own, because no proposals are accepted while
//! a transfer waits for the target; and for a priority, it has led for some time. A slow log is left only if the others
//! are a quorum without a slow one: otherwise writes wait for a slow log in any case. No leadership goes to a slow log
//! by itself, whatever its priority.
//!
//! If the target does not become leader, the next one is tried after a delay, because each attempt costs the lease for
//! one election timeout. The delay of a transfer that can wait grows. With each tick a bounded number of transfers
//! begins, over all regions.

use super::Peer;
use crate::consensus::wire::RaftMessage;
use crate::consensus::{Outgoing, OutgoingKind};
use crate::outbox::Outbox;
use crate::region::{self, PeerId};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// Election timeouts between attempts; an attempt may take one.
const RETRY_ELECTIONS: u64 = 4;
/// The delay of a transfer that can wait doubles so often.
const RETRY_DOUBLINGS_MAX: u32 = 4;
/// Entries by which a preferred store's log may end before the leader's: some round trips of a busy region.
const PREFERRED_LAG_ENTRIES_MAX: u64 = 128;

#[derive(Default)]
pub(super) struct LeaderTransfer {
    /// Other replicas that install a snapshot, as their last messages said.
    without_data: BTreeSet<PeerId>,
    attempts: u32,
    next_tick: u64,
    /// A transfer to this replica is ordered when what is in the log has been decided, or at this tick.
    draining: Option<(PeerId, u64)>,
}

impl LeaderTransfer {
    /// Transfers may begin at `tick`.
    fn restart(&mut self, tick: u64) {
        (self.attempts, self.next_tick, self.draining) = (0, tick, None);
    }
}

impl Peer {
    /// The store takes leadership again, or not any more.
    pub fn ability_changed(&mut self, is_able: bool) {
        if !is_able {
            self.group.give_election_up();
        }
        // A disk's failure may affect other disks: their stores get time to report it. A leader that hibernated gets
        // time to hear from its followers.
        self.leader_transfer.restart(self.ticks + 2 * self.config.heartbeat_ticks as u64);
    }

    /// The store's log is slow from now on, or not any more.
    pub fn log_speed_changed(&mut self) {
        self.leader_transfer.restart(self.ticks);
    }

    /// It leads from now on.
    pub(super) fn begin_to_lead(&mut self) {
        self.leader_transfer.restart(self.ticks);
    }

    /// Records what a message of another replica says about its data.
    pub(super) fn learn_data(&mut self, from: PeerId, without_data: bool) {
        if without_data {
            self.leader_transfer.without_data.insert(from);
        } else {
            self.leader_transfer.without_data.remove(&from);
        }
    }

    /// Whether a replica has its data, and no entry of the log removes it.
    pub(super) fn is_whole(&self, id: PeerId) -> bool {
        !self.is_leaving(id) && !self.leader_transfer.without_data.contains(&id)
    }

    /// Whether the region lets this replica lead: it is whole, and votes, also when a joint configuration has ended.
    pub(super) fn could_take_over(&self, id: PeerId) -> bool {
        self.is_whole(id) && self.members.is_lasting_voter(id)
    }

    /// Whether a follower answers, and can vote.
    fn can_vote(&self, peer: region::Peer, out: &Outbox) -> bool {
        peer.id != self.me.id && self.answers(peer.id, out) && out.leadership.is_able_elsewhere(peer.store)
    }

    /// Whether a follower answers, and may lead.
    fn is_able(&self, peer: region::Peer, out: &Outbox) -> bool {
        self.can_vote(peer, out) && self.could_take_over(peer.id)
    }

    /// Whether another leader could be elected: by the others among themselves, if this store cannot give a vote that
    /// lasts.
    fn can_be_replaced(&self, out: &Outbox) -> bool {
        let votes_here = |id| id == self.me.id && out.leadership.is_able();
        self.group.is_quorum(|id| votes_here(id) || self.members.peer(id).is_some_and(|peer| self.can_vote(peer, out)))
    }

    /// Whether this replica leads, and another one is about to take over because this store has stopped leading.
    /// `woken_for`: the time since then.
    pub fn hands_over(&self, woken_for: Duration, out: &Outbox) -> bool {
        let is_asked = self.leads() && !self.removed && !self.is_sole_voter();
        // A leader that hibernated has not heard from its followers yet.
        let is_new = woken_for < self.config.promise_duration();
        is_asked && (is_new || self.is_transferring() || self.any_target(out).is_some())
    }

    /// Starts a transfer, if one is due.
    pub(super) fn transfer_if_due(&mut self, out: &mut Outbox) {
        if !self.leads() || self.ticks < self.leader_transfer.next_tick || self.is_transferring() {
            return;
        }
        let is_able = out.leadership.is_able() && !self.is_passing_leader();
        let target = if is_able { self.preferred_target(out) } else { self.any_target(out) };
        let Some(target) = target.filter(|_| out.leadership.take_transfer()) else { return };
        let (region, to) = (self.region.id.0, target.store.0);
        if !out.leadership.is_writable() {
            tracing::warn!(region, to, "the log cannot be written: transferring the leadership");
        } else if !out.leadership.is_able() {
            tracing::debug!(region, to, "the store stops: transferring the leadership");
        } else if self.is_passing_leader() {
            tracing::info!(region, to, "this replica is to be a learner: transferring the leadership");
        } else if out.leadership.log_speed.is_slow() {
            tracing::info!(region, to, "the log is slow: transferring the leadership");
        } else {
            tracing::info!(region, to, "transferring the leadership to a store with a higher priority");
        }
        let doublings = if is_able { self.leader_transfer.attempts.min(RETRY_DOUBLINGS_MAX) } else { 0 };
        self.leader_transfer.attempts += 1;
        let delay = (RETRY_ELECTIONS * self.config.election_ticks as u64) << doublings;
        self.leader_transfer.next_tick = self.ticks + delay;
        self.begin_transfer(target.id);
    }

    /// Accepts no proposals from now on, and orders the transfer when all that are in the log are committed: what the
    /// next leader finds uncommitted would have an unknown outcome here.
    pub(super) fn begin_transfer(&mut self, target: PeerId) {
        let latest = self.ticks + self.config.election_ticks as u64;
        self.leader_transfer.draining = Some((target, latest));
    }

    /// Whether proposals are refused because another replica is about to lead.
    pub(super) fn is_transferring(&self) -> bool {
        self.leader_transfer.draining.is_some() || self.group.is_transferring()
    }

    /// Orders the transfer that waits, if it is time.
    pub(super) fn order_transfer(&mut self) {
        let Some((target, latest)) = self.leader_transfer.draining else { return };
        let is_decided = self.queue.is_empty() && self.group.committed() == self.group.last_index();
        if !self.leads() {
            self.leader_transfer.draining = None;
        } else if is_decided || self.ticks >= latest {
            self.leader_transfer.draining = None;
            self.group.transfer_leader(target);
        }
    }

    /// The log here is lost, and the process is about to end: another replica campaigns at once, if one is able to,
    /// whatever its log still lacks. Of two only the one with the longer log can be elected.
    pub fn abdicate(&mut self, out: &mut Outbox) {
        if !self.leads() || self.removed || self.hibernates() || !self.can_be_replaced(out) {
            return;
        }
        let able = self.members.peers.iter().copied().filter(|peer| self.is_able(*peer, out));
        let Some(target) = able.max_by_key(|peer| self.group.matched(peer.id)) else { return };
        if out.leadership.take_transfer() {
            let message = RaftMessage::campaign_now(self.group.term());
            self.send(Outgoing { to: target.id, message, kind: OutgoingKind::TimeoutNow }, out);
        }
    }

    pub(super) fn any_target(&self, out: &Outbox) -> Option<region::Peer> {
        if !self.can_be_replaced(out) {
            return None;
        }
        let members = self.members.peers.iter().copied();
        let mut targets: Vec<_> = members.filter(|peer| self.is_able(*peer, out)).collect();
        // A slow log is the last choice. Those that have everything committed need the least time. Among them the order
        // depends on the region, so that not all regions get the same leader.
        targets.sort_by_key(|peer| {
            let lacks = self.group.committed().saturating_sub(self.group.matched(peer.id).unwrap_or(0));
            let is_slow = out.leadership.is_slow_elsewhere(peer.store);
            (is_slow, lacks, Reverse(out.leadership.priority(peer.store)), self.place(*peer))
        });
        targets.get(self.leader_transfer.attempts as usize % targets.len().max(1)).copied()
    }

    /// The member's place in an order of the members that begins with another one in each region.
    fn place(&self, peer: region::Peer) -> usize {
        let count = self.members.peers.len();
        let place = self.members.peers.iter().position(|member| *member == peer).unwrap_or(0);
        (place + self.region.id.0 as usize) % count
    }

    /// The followers that are able to lead and have a higher priority, or a log that is not slow while this store's is.
    fn preferred<'a>(&'a self, out: &'a Outbox) -> impl Iterator<Item = region::Peer> + 'a {
        let (own, leaves) = (out.leadership.own_priority(), self.leaves_slow_log(out));
        let members = self.members.peers.iter().copied();
        let is_better = move |peer: &region::Peer| leaves || out.leadership.priority(peer.store) > own;
        let is_fast = |peer: &region::Peer| !out.leadership.is_slow_elsewhere(peer.store);
        members.filter(move |peer| is_better(peer) && is_fast(peer) && self.is_able(*peer, out))
    }

    /// Whether the log of this store is slow, and the others are a quorum without a slow one.
    fn leaves_slow_log(&self, out: &Outbox) -> bool {
        let is_fast = |peer: region::Peer| !out.leadership.is_slow_elsewhere(peer.store) && self.can_vote(peer, out);
        out.leadership.log_speed.is_slow() && self.group.is_quorum(|id| self.members.peer(id).is_some_and(is_fast))
    }

    /// Whether it leads only until the log of a preferred follower is close to its own.
    pub(super) fn prefers_another(&self, out: &Outbox) -> bool {
        self.leads() && self.preferred(out).next().is_some()
    }

    fn preferred_target(&self, out: &Outbox) -> Option<region::Peer> {
        let leading = self.leading.as_ref().filter(|leading| leading.announced)?;
        let is_settled = self.ticks - leading.since_tick >= self.config.settled_ticks;
        if !is_settled && !self.leaves_slow_log(out) {
            return None;
        }
        let last = self.group.last_index();
        let is_close = |peer: &region::Peer| {
            let matched = self.group.matched(peer.id).unwrap_or(0);
            matched + PREFERRED_LAG_ENTRIES_MAX >= last && !self.flow.full_followers.contains(&peer.id)
        };
        let close = self.preferred(out).filter(is_close);
        close.max_by_key(|peer| (out.leadership.priority(peer.store), self.place(*peer)))
    }
}
