//! Messages from other peers.

use super::Peer;
use crate::consensus::step::{Stepped, Transfer};
use crate::consensus::wire::{RaftMessage, StoreMessage};
use crate::consensus::{Group, Role};
use crate::effect::Observation;
use crate::outbox::Outbox;
use crate::region::{self, PeerId, StoreId};
use std::time::Duration;

impl Peer {
    /// The sender, if the envelope is one of a peer of this region to this replica.
    pub fn sender(&mut self, envelope: &StoreMessage) -> Option<region::Peer> {
        let ours = envelope.to_peer == self.me.id.0 && envelope.to_store == self.me.store.0;
        let from = region::Peer { id: PeerId(envelope.from_peer), store: StoreId(envelope.from_store) };
        (ours && from.id != self.me.id && self.knows(from, envelope.conf_version)).then_some(from)
    }

    /// Takes a message other than a snapshot's.
    pub fn message(&mut self, from: region::Peer, envelope: StoreMessage, out: &mut Outbox) {
        let Some(mut raft) = envelope.raft else {
            // One that cannot stand for election misses its leader (`tick_members`).
            return if self.leads() {
                self.wake(out.now)
            };
        };
        if !self.sleeps_through(from, &raft) {
            self.wake(out.now);
        }
        self.learn_data(from.id, envelope.without_data);
        if raft.is_snapshot() {
            // It must come with its file.
            return;
        }
        if !self.has_room_for(&raft, out) {
            // Treated as lost; but with what the message says of commits, entries that wait here can be applied.
            raft.entries.clear();
        }
        if envelope.full {
            self.flow.full_followers.insert(from.id);
        } else {
            self.flow.full_followers.remove(&from.id);
        }
        let Some(transfer) = self.admit_election(from, &mut raft, out) else { return };
        let (term, void_through) = (raft.term, raft.heartbeat_void_through());
        let region = self.region.clone();
        let promise = self.promise.length(&self.config);
        let stepped = self.voting(out.now, transfer, |group| group.step(from.id, raft, &region, promise));
        match stepped {
            Stepped::Taken(ack) => {
                if let Some(ack) = ack {
                    self.confirm_lease(ack, out.now);
                }
                if self.group.leader() == Some(from.id) {
                    self.learn_replicated(envelope.replicated);
                    if let Some(void_through) = void_through.filter(|_| term == self.group.term()) {
                        self.promise.make(term, void_through, out.now, promise, &self.config);
                    }
                }
            }
            Stepped::Ignored => {}
            Stepped::Refused(why) => {
                let (region, from) = (self.region.id, from.store);
                out.observations.push(Observation::Refused { region, from, why });
            }
        }
    }

    /// Whether this replica has promised not to vote.
    pub(super) fn has_promised(&mut self, now: Duration) -> bool {
        self.promise.holds(now, self.group.leader().is_some())
    }

    /// Refuses a message that asks for a vote that this replica has promised not to give, to another replica or to
    /// itself. Returns `Some` with the transfer that permits the vote, if there is one. See [`super::promise`].
    fn admit_election(&mut self, from: region::Peer, raft: &mut RaftMessage, out: &Outbox) -> Option<Option<Transfer>> {
        let has_promised = self.has_promised(out.now);
        if let Some(order) = raft.order_to_campaign() {
            let follows = self.group.role() == Role::Follower && self.group.leader() == Some(from.id);
            let admitted = follows
                && out.leadership.is_able()
                && self.can_apply()
                && order.term == self.group.term()
                && !self.promise.knows_void(order)
                && (!has_promised || self.promise.excepts(order));
            self.campaigned_for = if admitted { Some(order) } else { self.campaigned_for };
            return admitted.then_some(Some(order));
        }
        if raft.is_vote_request() {
            let transfer = raft.vote_for_transfer().filter(|transfer| self.is_ordered(*transfer));
            if transfer.is_none() {
                // Late, or not from the leader that holds the promise: an ordinary request.
                raft.forget_transfer();
            }
            return (!has_promised || transfer.is_some()).then_some(transfer);
        }
        Some(None)
    }

    /// Whether the leader that holds this replica's promise (or this replica, if it leads) has ordered the transfer and
    /// not given it up.
    fn is_ordered(&self, transfer: Transfer) -> bool {
        if self.leads() {
            transfer.term == self.group.term() && transfer.number > self.lease.void_through()
        } else {
            self.promise.excepts(transfer)
        }
    }

    /// Does something to the group that may make it vote; asserts that the vote was permitted.
    pub(super) fn voting<T>(
        &mut self,
        now: Duration,
        transfer: Option<Transfer>,
        act: impl FnOnce(&mut Group) -> T,
    ) -> T {
        let has_promised = self.has_promised(now);
        let before = (self.group.term(), self.group.vote());
        let result = act(&mut self.group);
        let after = (self.group.term(), self.group.vote());
        if after != before && after.1 != 0 {
            assert!(!has_promised || transfer.is_some(), "no vote is sent against a promise");
            self.promise.release();
        }
        result
    }
}
