//! Changes of a region's replicas, one at a time. The design is in docs/internals/membership.md; which changes a leader
//! proposes, in `changes.rs`.
//!
//! A change is a separate log entry. The core uses the new configuration from the moment at which the entry is handed
//! out for apply (`members`); the descriptor that readers see follows when the apply is visible (`region`).
//!
//! # Why a replica never stands for election with a configuration that is two changes old
//!
//! Configurations that are one change apart have a voter in common in any two of their majorities, so a leader elected
//! by either has all that is committed by the other. Configurations that are two changes apart may not. After a crash a
//! replica's configuration is that of its flushed data, and its log may hold any number of later changes. But:
//!
//! 1. A leader proposes a change only when it has applied the one before, so a message with an entry of change k + 1
//!    implies that change k is committed. Both are recorded in one persist (`take_ready` sets the state blob dirty with
//!    every such entry).
//! 2. The core does not stand for election while a change that it knows to be committed is not applied.
//!
//! A replica whose log holds change k + 1 therefore applies change k first, after a restart, too. A replica whose log
//! does not hold it cannot win: the entry is on a majority of the previous configuration, which has a voter in common
//! with any majority of the configuration before that, and the log of this voter is newer. *Rejected:* taking the
//! configuration of the last entry in the log whether committed or not (what the core does when it is overwritten
//! differs); the configuration in the state blob (a second place for what the descriptor says, and recovery would have
//! to skip changes that it meets again).
//!
//! The same overlap keeps leases apart: a leader's configuration is never older than that of a candidate, and at most
//! one change newer.
//!
//! # A replica that is removed
//!
//! It destroys itself (`store/destroy.rs`), but not before the members know that the change is committed: one that does
//! not know it counts the votes of the previous configuration, and would wait for the vote of the one that is gone.
//!
//! 1. A leader's messages to the replica do not say that its removal is committed: their commit index ends before it.
//!    One that leads, and so knows it by itself, does not apply it. It goes on as the leader of the previous
//!    configuration until another one is elected, because the members that have applied the change ignore it.
//! 2. Once the change is applied at the leader, it sends the replica nothing more. The replica misses its leader and
//!    asks for votes; or, if it hibernates, asks its leader in turn whether it is still a member
//!    ([`crate::Config::member_check_ticks`]); or, if it cannot stand for election, asks all members. The same holds
//!    for a replica that was away, or that a late snapshot or split has created after its removal.
//! 3. A leader answers with the descriptor in which it is not, when the commit of the change is durable here and a
//!    quorum of the members knows it, as their answers say. The replica ends, unless the logs of regions that a split
//!    of its own makes still need it; then it asks again.
//! 4. A member that does not lead passes such a message on to its leader. It answers the question of a replica that
//!    hibernates by saying that it does not lead, as a store without a replica does: that one wakes up, and asks all.
//!
//! An identity is never added again after its removal: it contains the directory, and the conf_version of its addition
//! (`store/create.rs`).

use super::Peer;
use crate::command::{self, Carrier, Change};
use crate::consensus::Entry;
use crate::consensus::wire::{RegionRecord, StoreMessage};
use crate::outbox::Outbox;
use crate::region::{self, MemberChange, PeerId, Region, StoreId};
use prost::Message;
use std::sync::Arc;

/// Election timeouts between two questions of a replica that cannot stand for election.
const QUESTION_ELECTIONS: u64 = 4;
/// Addresses of peers that only newer descriptors name: more than a region ever has at once.
const STRANGERS_MAX: usize = 16;

impl Peer {
    /// A committed command that changes the members is applied; without a change: an unsafe recovery.
    pub(super) fn change_members(
        &mut self,
        index: u64,
        change: Option<MemberChange>,
        changed: Region,
        out: &mut Outbox,
    ) -> Result<(), String> {
        if changed.peer(self.me.id).is_none() {
            // The core is not used any more: as a leader it could go on.
            self.be_removed(out);
        } else {
            self.group.change_members(&self.members, change.as_ref(), &changed)?;
        }
        let what = change.as_ref().map_or("unsafe recovery".into(), |change| format!("{change:?}"));
        tracing::info!(region = self.region.id.0, index, "members changed: {what}");
        self.strangers.retain(|id, _| changed.peer(*id).is_none());
        self.change_descriptor(index, changed, out);
        self.members_replaced(index, out);
        Ok(())
    }

    /// A message came from a replica that is not a member, or is not one any more: it gets to know.
    pub fn answer_stranger(&mut self, envelope: StoreMessage, out: &mut Outbox) {
        let from = region::Peer { id: PeerId(envelope.from_peer), store: StoreId(envelope.from_store) };
        let is_ours = envelope.to_peer == self.me.id.0 && envelope.to_store == self.me.store.0;
        let is_older = envelope.conf_version < self.members.epoch.conf_version;
        let was_removed = is_older && self.members.peer(from.id).is_none() && from.store != self.me.store;
        if !is_ours || !was_removed || self.removed {
            return;
        }
        if !self.leads() {
            self.pass_on(from, envelope, out);
        } else if self.members_unrecorded.is_none() && self.members_are_known() {
            self.send_not_a_member(from, Some(RegionRecord::from(&*self.members)), out);
        } else {
            // The members may not have heard of it because the region hibernates.
            self.wake(out.now);
        }
    }

    /// Only the leader can answer. One that hibernates asks the wrong store: it wakes up, and asks all.
    fn pass_on(&mut self, from: region::Peer, envelope: StoreMessage, out: &mut Outbox) {
        if envelope.hibernate.is_some() {
            return self.send_not_a_member(from, None, out);
        }
        let leader = self.leader().filter(|leader| leader.store != from.store && leader.id != self.me.id);
        if let Some(leader) = leader.filter(|_| !envelope.passed_on) {
            let message = StoreMessage {
                to_store: leader.store.0,
                to_peer: leader.id.0,
                passed_on: true,
                raft: None,
                ..envelope
            };
            out.send.push((leader.store, message.encode_to_vec().into()));
        }
    }

    /// Whether a quorum of the members knows that they are the members, as their answers say.
    fn members_are_known(&self) -> bool {
        let knows = |id| self.group.committed_at(id).is_some_and(|known| known >= self.members_since);
        self.group.is_quorum(|id| id == self.me.id || knows(id))
    }

    /// Without a descriptor: this replica does not lead.
    pub(super) fn send_not_a_member(&self, to: region::Peer, descriptor: Option<RegionRecord>, out: &mut Outbox) {
        let answer = StoreMessage { not_a_member: true, descriptor, ..self.envelope(to, out) };
        out.send.push((to.store, answer.encode_to_vec().into()));
    }

    /// Whether an entry of the log that is not handed out removes this member.
    pub(super) fn is_leaving(&self, member: PeerId) -> bool {
        self.removals().any(|(_, removed)| removed == member)
    }

    /// The highest commit index for messages to a member: it lies before the member's own removal.
    pub(super) fn commit_max_for(&self, to: PeerId) -> u64 {
        let removal = self.removals().find(|(_, removed)| *removed == to);
        removal.map_or(u64::MAX, |(index, _)| index - 1)
    }

    /// Another store answered that this replica is not a member; or, without a descriptor, that it does not lead.
    pub fn learn_not_a_member(&mut self, from: StoreId, envelope: &StoreMessage, out: &mut Outbox) {
        let is_ours = envelope.to_peer == self.me.id.0 && envelope.to_store == self.me.store.0;
        if !is_ours || self.removed {
            return;
        }
        let Some(descriptor) = &envelope.descriptor else {
            if self.hibernates() && self.leader().is_some_and(|leader| leader.store == from) {
                self.wake_without_leader(out.now);
            }
            return;
        };
        let Some(region) = descriptor.to_region().ok().filter(|region| region.id == self.region.id) else { return };
        let is_newer = region.epoch.conf_version > self.members.epoch.conf_version;
        if is_newer && region.peer(self.me.id).is_none() {
            tracing::info!(region = region.id.0, by = from.0, "this replica was removed while it was away");
            self.members = Arc::new(region);
            self.be_removed(out);
        }
    }

    /// A replica that cannot stand for election, because it has no data or may not apply its own removal, asks for no
    /// votes when it misses its leader: it asks every member, now and then, by an empty message.
    pub(super) fn tick_members(&mut self, out: &mut Outbox) {
        let cannot_campaign = self.waits_for_install() || self.is_leaving(self.me.id) || !self.group.is_voter();
        let interval = QUESTION_ELECTIONS * self.config.election_ticks as u64;
        if cannot_campaign && self.group.misses_leader() && self.ticks.is_multiple_of(interval) {
            for peer in self.members.peers.iter().filter(|peer| peer.id != self.me.id) {
                out.send.push((peer.store, self.envelope(*peer, out).encode_to_vec().into()));
            }
        }
    }

    /// Asks the leader that this replica hibernates under whether it is still a member; that it agrees to hibernate is
    /// no news to a leader that has it as a member.
    pub fn ask_for_membership(&self, out: &mut Outbox) {
        if let Some(leader) = self.leader().filter(|_| self.hibernates() && !self.leads()) {
            self.send_hibernate(leader, true, out);
        }
    }

    /// `members` are others from now on. That the change is committed is recorded with this poll's persist: after a
    /// restart of all that are left, the one that was removed cannot vote any more.
    pub(super) fn members_replaced(&mut self, index: u64, out: &mut Outbox) {
        self.members_since = index;
        self.members_unrecorded = Some(out.persist_id);
        out.persisting.insert(self.region.id);
        self.state_dirty = true;
    }

    /// Whether this committed entry removes this replica. It is not handed out, nor is what follows: a leader's answer
    /// ends this replica when the others can do without it.
    pub(super) fn removes_this(&self, entry: &Entry) -> bool {
        if !self.removals().any(|removal| removal == (entry.index, self.me.id)) {
            return false;
        }
        let command = command::decode(self.families, Carrier::MemberChange, &entry.context, &entry.data);
        let change = command.ok().flatten().map(|command| command::decide(self.families, &self.members, command));
        matches!(change, Some(Ok(Change::Members { .. })))
    }

    /// The address of a peer.
    pub(super) fn address(&self, id: PeerId) -> Option<region::Peer> {
        self.members.peer(id).or_else(|| self.strangers.get(&id).copied())
    }

    /// Whether to listen to a peer that has this `conf_version`. A peer that is not in this replica's descriptor is
    /// listened to if its own descriptor is newer: it may lead, and its messages bring this replica up to date.
    /// Otherwise it was removed.
    pub(super) fn knows(&mut self, from: region::Peer, conf_version: u64) -> bool {
        if self.members.peers.contains(&from) {
            return true;
        }
        let may_be_newer = conf_version > self.members.epoch.conf_version && self.members.peer(from.id).is_none();
        if may_be_newer && (self.strangers.len() < STRANGERS_MAX || self.strangers.contains_key(&from.id)) {
            self.strangers.insert(from.id, from);
            return true;
        }
        false
    }
}
