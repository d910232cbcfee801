//! Hibernation: a region in which nothing happens costs no ticks and no messages.
//!
//! A leader that had nothing to do for [`crate::Config::hibernate_ticks`], and whose followers have its whole log, asks
//! each of them to stop counting to an election. When all have agreed it stops, too. From then on none of them is
//! ticked. The liveness of the leader's store takes the place of its heartbeats ([`crate::liveness`]).
//!
//! *No promise rests on ticks.* A leader's lease and a follower's promise are times of a clock ([`super::promise`]):
//! they end during hibernation as always. The first read after it needs a round of messages, as without a lease.
//!
//! What ends it, for a follower: every message of its region but the leader's heartbeats and requests to hibernate; the
//! silence of that leader's store for an election timeout; another process of that store. For the leader: every
//! request, and every message but the answers to its own heartbeats and appends. A leader that does not know its
//! followers any more wakes up as one that has just been elected: it sends heartbeats at once.
//!
//! # Why no region waits for a leader forever
//!
//! Of the replicas of a region, let some hibernate as followers of L in term T, with L's store alive and the same
//! process. If L still leads in T, it performs requests and wakes the others by them. If it leads no more, a message of
//! its region has ended its hibernation, so it counts to an election, and its requests for votes end that of every
//! replica that they reach. A replica that is removed was the leader of an entry which the others got. So every replica
//! that is connected to L's store is reached by L or by a candidate. A follower that only hears that store, while the
//! region's new leader on a third store cannot reach it, hibernates on until it can: it could neither be elected nor
//! help to elect another.
//!
//! The consensus core refuses votes while it has heard from a leader within an election timeout, counted in ticks. A
//! follower that wakes because its leader's store is silent has heard nothing for that long, which is made known to the
//! core ([`crate::consensus::Group::leader_is_silent`]); so the election takes as long as without hibernation.

use super::Peer;
use crate::consensus::Role;
use crate::consensus::wire::{Hibernate, RaftMessage, StoreMessage};
use crate::outbox::Outbox;
use crate::region::{self, PeerId};
use prost::Message;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Default)]
pub(super) struct Hibernation {
    hibernates: bool,
    /// The leader's term and the end of its log when it last had something to do.
    since: (u64, u64),
    /// Ticks since then.
    idle_ticks: u64,
    /// Followers that have agreed since then.
    agreed: BTreeSet<PeerId>,
    /// When the leader last woke up: its followers could not confirm anything before.
    woken_at: Option<Duration>,
}

impl Hibernation {
    pub fn woken_at(&self) -> Option<Duration> {
        self.woken_at
    }
}

impl Peer {
    pub fn hibernates(&self) -> bool {
        self.hibernation.hibernates
    }

    /// Something happens in the region: this replica needs ticks again.
    pub fn wake(&mut self, now: Duration) {
        self.hibernation.idle_ticks = 0;
        self.hibernation.agreed.clear();
        if std::mem::take(&mut self.hibernation.hibernates) && self.leads() {
            self.hibernation.woken_at = Some(now);
            self.group.ping();
        }
    }

    /// The leader's store is silent, or has another process.
    pub fn wake_without_leader(&mut self, now: Duration) {
        self.wake(now);
        self.group.leader_is_silent();
    }

    /// Nothing was heard of the leader's store for an election timeout.
    pub fn leader_is_silent(&mut self) {
        self.group.leader_is_silent();
    }

    /// Whether a request came here since the replica began to hibernate, or since the last call.
    pub fn take_request(&self) -> bool {
        self.slot.take_read()
    }

    /// It leads from now on: nothing was heard of its followers before.
    pub(super) fn forget_hibernation(&mut self) {
        self.hibernation = Hibernation::default();
    }

    /// It hibernates until it gets a message or its turn.
    pub fn begin_in_hibernation(&mut self) {
        self.hibernation.hibernates = true;
    }

    /// Whether the replica stays in hibernation although this message arrived.
    pub(super) fn sleeps_through(&self, from: region::Peer, raft: &RaftMessage) -> bool {
        if raft.term != self.group.term() {
            return false;
        }
        match self.group.role() {
            Role::Leader => raft.is_answer_to_leader(),
            Role::Follower => raft.is_heartbeat() && self.group.leader() == Some(from.id),
            Role::Candidate => false,
        }
    }

    /// Whether nothing happens at this leader or follower, as far as it knows.
    fn has_nothing_to_do(&self, out: &Outbox) -> bool {
        let group = &self.group;
        let last = group.last_index();
        group.committed() == last
            && group.durable_index() == last
            && self.handed == last
            && self.applied.index == last
            && self.queue.is_empty()
            && self.proposals.is_empty()
            && self.outstanding.is_empty()
            && self.reads.is_empty()
            && self.replica_reads.is_empty()
            && self.serving.is_idle()
            && !self.checks_consistency()
            && !self.waits_for_view()
            && !self.waits_for_install()
            && self.changes.is_empty()
            && !self.is_transferring()
            && !self.is_full(out)
            && out.leadership.is_able()
            && !self.prefers_another(out)
            && !self.members.is_joint()
            && !self.is_passing_leader()
            && !self.is_merging()
            && !self.waits_for_source()
            && !self.removed
    }

    /// A tick of the leader: counts how long nothing happened, asks the followers, and hibernates when all agree.
    pub(super) fn tick_hibernation(&mut self, out: &mut Outbox) {
        let is_announced = self.leading.as_ref().is_some_and(|leading| leading.announced);
        if self.config.hibernate_ticks == 0 || self.is_alone() || !is_announced {
            return;
        }
        let now = (self.group.term(), self.group.last_index());
        let others = || self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        let all_have_everything = others().all(|peer| {
            self.group.matched(peer.id) == Some(now.1)
                && !self.flow.full_followers.contains(&peer.id)
                && out.leadership.is_able_elsewhere(peer.store)
        });
        let was_read = self.slot.take_read();
        if now != self.hibernation.since || was_read || !all_have_everything || !self.has_nothing_to_do(out) {
            self.hibernation.since = now;
            return self.wake(out.now);
        }
        self.hibernation.idle_ticks += 1;
        let waited = self.hibernation.idle_ticks.checked_sub(self.config.hibernate_ticks);
        let Some(waited) = waited else { return };
        let missing: Vec<_> = others().filter(|peer| !self.hibernation.agreed.contains(&peer.id)).copied().collect();
        if missing.is_empty() {
            self.hibernate(out);
        } else if waited.is_multiple_of(self.config.heartbeat_ticks as u64) {
            missing.into_iter().for_each(|peer| self.send_hibernate(peer, false, out));
        }
    }

    /// The leader asks this follower to hibernate, or a follower has agreed.
    pub fn take_hibernate(
        &mut self,
        from: region::Peer,
        message: &Hibernate,
        replicated: u64,
        is_alive: bool,
        out: &mut Outbox,
    ) {
        if message.agreed && !self.leads() && !self.removed {
            // It would wait for this store as long as that gives signs of life.
            return self.send_not_a_member(from, None, out);
        }
        if (message.term, message.index) != (self.group.term(), self.group.last_index()) || self.removed {
            return;
        }
        if message.agreed {
            if self.leads() {
                self.hibernation.agreed.insert(from.id);
            }
            return;
        }
        let is_able = self.config.hibernate_ticks > 0 && is_alive;
        let follows = is_able && self.group.role() == Role::Follower && self.group.leader() == Some(from.id);
        if follows && self.has_nothing_to_do(out) {
            self.learn_replicated(replicated);
            self.slot.take_read();
            self.hibernate(out);
            self.send_hibernate(from, true, out);
        }
    }

    fn hibernate(&mut self, out: &mut Outbox) {
        self.hibernation.hibernates = true;
        // Every replica has the whole log, so none will need its entries soon.
        self.evict(usize::MAX, false, out);
        self.free_buffers();
    }

    /// Returns memory that only a busy replica needs: buffers keep the size that they needed once.
    fn free_buffers(&mut self) {
        self.group.free_buffers();
        self.noted.shrink_to_fit();
        self.changes.shrink_to_fit();
        self.replaced.shrink_to_fit();
        self.queue.shrink_to_fit();
        self.proposals.shrink_to_fit();
        self.outstanding.shrink_to_fit();
        self.deferred.shrink_to_fit();
        self.truncations.shrink_to_fit();
        self.flow.applying.shrink_to_fit();
    }

    pub(super) fn send_hibernate(&self, to: region::Peer, agreed: bool, out: &mut Outbox) {
        let (term, index) = (self.group.term(), self.group.last_index());
        let hibernate = Some(Hibernate { term, index, agreed });
        let envelope = StoreMessage { hibernate, ..self.envelope(to, out) };
        out.send.push((to.store, envelope.encode_to_vec().into()));
    }
}
