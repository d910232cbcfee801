//! Reads at replicas that do not lead. The design is in docs/internals/replica-reads.md.
//!
//! A follower asks its leader two things, each in one message for all that wait:
//!
//! - *what a fresh read has to see*: the leader answers as it does a barrier of its own (by its lease, if it has one),
//!   with what it has applied; the follower waits until it has applied that, too;
//! - *whether a state may be shown* that goes beyond it: the leader answers when it has applied as much. Otherwise a
//!   client could see a write here and then, at the leader, not.

use super::Peer;
use super::reads::Waiter;
use crate::consensus::wire::{ReplicaRead, StoreMessage};
use crate::effect::Answer;
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{self, Epoch, PeerId, Ticket};
use prost::Message;
use std::collections::BTreeMap;

/// Election timeouts after which a leader that does not answer is no longer waited for.
const WAIT_ELECTIONS: u64 = 2;

/// What waits for one kind of answer: at most one request is on its way, and what comes meanwhile shares the next.
#[derive(Default)]
struct Asking {
    waiting: Vec<Ticket>,
    /// The highest index that one of them may show; 0: a read.
    shown: u64,
    /// The highest of what the leader's read gate is asked.
    read_at: u64,
    sent: Option<Sent>,
}

struct Sent {
    request: ReplicaRead,
    to: region::Peer,
    at_tick: u64,
    tickets: Vec<Ticket>,
}

#[derive(Default)]
pub(super) struct ReplicaReads {
    reads: Asking,
    shows: Asking,
    /// By the index that must be applied here.
    confirmed: BTreeMap<u64, Vec<Ticket>>,
    /// Numbers begin at a random one: an answer to an earlier process of this store may still be on its way.
    last_request: u64,
}

impl Asking {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_none()
    }

    /// All tickets, which the caller answers.
    fn take(&mut self) -> Vec<Ticket> {
        let sent = self.sent.take().into_iter().flat_map(|sent| sent.tickets);
        (self.shown, self.read_at) = (0, 0);
        sent.chain(std::mem::take(&mut self.waiting)).collect()
    }
}

impl ReplicaReads {
    pub fn new(random: u64) -> ReplicaReads {
        ReplicaReads { last_request: random >> 1, ..ReplicaReads::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.shows.is_empty() && self.confirmed.is_empty()
    }

    fn sent(&self) -> impl Iterator<Item = &Sent> {
        [&self.reads, &self.shows].into_iter().filter_map(|asking| asking.sent.as_ref())
    }
}

impl Peer {
    /// A read at this replica, whether it leads or not.
    pub fn replica_read(&mut self, epoch: Epoch, read_at: u64, ticket: Ticket, out: &mut Outbox) {
        if self.leads() {
            return self.read_barrier(epoch, ticket, out);
        }
        match RegionError::check_epoch(&self.region, epoch).and_then(|()| self.check_follows(out)) {
            Ok(()) => {
                let reads = &mut self.replica_reads.reads;
                reads.waiting.push(ticket);
                reads.read_at = reads.read_at.max(read_at);
            }
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    /// A read took a view in which `index` is applied.
    pub fn replica_shows(&mut self, index: u64, ticket: Ticket, out: &mut Outbox) {
        if self.leads() {
            return self.confirm_at(index, Waiter::Local(ticket));
        }
        match self.check_follows(out) {
            Ok(()) => {
                let shows = &mut self.replica_reads.shows;
                shows.waiting.push(ticket);
                shows.shown = shows.shown.max(index);
            }
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    /// Whether it has a leader to ask, and data to show.
    fn check_follows(&mut self, out: &Outbox) -> Result<(), RegionError> {
        let is_silent = |leader: region::Peer| out.leadership.is_silent(leader.store);
        if self.waits_for_install() || self.leader().is_none_or(is_silent) {
            return Err(self.not_leader(out));
        }
        // A request may be lost: it needs ticks.
        self.wake(out.now);
        Ok(())
    }

    /// Sends what waits, and answers what is applied. What another leader was asked for is refused.
    pub(super) fn tend_replica_reads(&mut self, out: &mut Outbox) {
        if self.replica_reads.is_empty() {
            return;
        }
        let leader = self.leader().filter(|leader| leader.id != self.me.id && !self.waits_for_install());
        let Some(leader) = leader.filter(|leader| self.replica_reads.sent().all(|sent| sent.to == *leader)) else {
            return self.refuse_replica_reads(out);
        };
        let (tick, reads) = (self.ticks, &mut self.replica_reads);
        let mut requests = Vec::new();
        for asking in [&mut reads.reads, &mut reads.shows] {
            if asking.sent.is_none() && !asking.waiting.is_empty() {
                reads.last_request += 1;
                let (shown, read_at) = (std::mem::take(&mut asking.shown), std::mem::take(&mut asking.read_at));
                let request = ReplicaRead { number: reads.last_request, shown, read_at, ..ReplicaRead::default() };
                let tickets = std::mem::take(&mut asking.waiting);
                asking.sent = Some(Sent { request, to: leader, at_tick: tick, tickets });
                requests.push(request);
            }
        }
        requests.into_iter().for_each(|request| self.send_replica_read(leader, request, out));
        let applied = self.applied.index;
        while let Some(first) = self.replica_reads.confirmed.first_entry().filter(|first| *first.key() <= applied) {
            let (index, tickets) = first.remove_entry();
            self.answer_all(tickets, &Answer::Ok { index }, out);
        }
    }

    pub(super) fn send_replica_read(&self, to: region::Peer, message: ReplicaRead, out: &mut Outbox) {
        let envelope = StoreMessage { replica_read: Some(message), ..self.envelope(to, out) };
        out.send.push((to.store, envelope.encode_to_vec().into()));
    }

    /// A request or its answer may have been lost: it is sent again, and given up at last.
    pub(super) fn tick_replica_reads(&mut self, out: &mut Outbox) {
        let (time_max, interval) = (WAIT_ELECTIONS * self.config.election_ticks as u64, self.config.heartbeat_ticks);
        let asked: Vec<_> =
            self.replica_reads.sent().map(|sent| (self.ticks - sent.at_tick, sent.to, sent.request)).collect();
        if asked.iter().any(|(waited, ..)| *waited > time_max) {
            return self.refuse_replica_reads(out);
        }
        for (waited, to, request) in asked {
            if waited > 0 && waited.is_multiple_of(interval as u64) {
                self.send_replica_read(to, request, out);
            }
        }
    }

    /// A follower asks, or the leader has answered.
    pub fn take_replica_read(&mut self, from: region::Peer, message: ReplicaRead, out: &mut Outbox) {
        if message.is_answer {
            return self.take_answer(from.id, message, out);
        }
        if !self.leads() {
            return self.send_replica_read(from, ReplicaRead { is_answer: true, ..message }, out);
        }
        self.wake(out.now);
        if message.read_at != 0 && !out.read_gate.admits(&self.region, message.read_at) {
            return; // The follower asks again at its next heartbeat.
        }
        let waiter = Waiter::Replica { from, message };
        match message.shown {
            0 => self.ask_barrier(waiter, out),
            shown => self.confirm_at(shown, waiter),
        }
    }

    fn take_answer(&mut self, from: PeerId, message: ReplicaRead, out: &mut Outbox) {
        let reads = &mut self.replica_reads;
        let is_asked = |sent: &mut Sent| (sent.to.id, sent.request.number) == (from, message.number);
        let asked = if message.shown == 0 { &mut reads.reads } else { &mut reads.shows };
        let Some(sent) = asked.sent.take_if(is_asked) else { return };
        match message.applied {
            0 => {
                let refusal = Answer::Refused(self.not_leader(out));
                self.answer_all(sent.tickets, &refusal, out);
            }
            // What may be shown is applied here.
            _ if message.shown != 0 => self.answer_all(sent.tickets, &Answer::Ok { index: message.applied }, out),
            applied => reads.confirmed.entry(applied).or_default().extend(sent.tickets),
        }
    }

    pub(super) fn refuse_replica_reads(&mut self, out: &mut Outbox) {
        let reads = &mut self.replica_reads;
        let mut tickets = reads.reads.take();
        tickets.extend(reads.shows.take());
        tickets.extend(std::mem::take(&mut reads.confirmed).into_values().flatten());
        let refusal = Answer::Refused(self.not_leader(out));
        self.answer_all(tickets, &refusal, out);
    }
}
