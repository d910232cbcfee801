//! Read barriers: ReadIndex through a quorum.
//!
//! All barriers that arrive between two polls share one request. A request waits until the leader has committed an
//! entry of its own term (before that it does not know how far the log is committed), then for a quorum, then until the
//! index it got is applied.

use super::Peer;
use crate::consensus::wire::ReplicaRead;
use crate::effect::{Answer, SafeTsTask};
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{self, Epoch, Ticket};
use std::collections::BTreeMap;

/// Maximum number of requests to the core at a time: further barriers share the next one. Bounds the core's table.
const REQUESTS_MAX: usize = 16;

/// Who gets the answer.
pub(super) enum Waiter {
    Local(Ticket),
    /// A follower (`replica_reads.rs`).
    Replica {
        from: region::Peer,
        message: ReplicaRead,
    },
    /// A round of safe timestamps, which has this one (`safe_ts.rs`).
    SafeTs(u64),
}

#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<Waiter>,
    requested: BTreeMap<u64, Vec<Waiter>>,
    /// By the index that must be applied.
    confirmed: BTreeMap<u64, Vec<Waiter>>,
    next_request: u64,
}

impl Reads {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.requested.is_empty() && self.confirmed.is_empty()
    }
}

impl Peer {
    pub fn read_barrier(&mut self, epoch: Epoch, ticket: Ticket, out: &mut Outbox) {
        let checked =
            if self.leads() { RegionError::check_epoch(&self.region, epoch) } else { Err(self.not_leader(out)) };
        match checked {
            Ok(()) => self.reads.waiting.push(Waiter::Local(ticket)),
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    /// A follower's read. The lease, if there is one now, says that no other leader has acknowledged anything.
    pub(super) fn ask_barrier(&mut self, waiter: Waiter, out: &Outbox) {
        let is_readable = self.leading.is_some() && self.applied.term == self.group.term();
        match self.lease_until(out.now).filter(|until| is_readable && *until > out.now) {
            Some(_) => self.confirm_at(self.group.committed(), waiter),
            None => self.reads.waiting.push(waiter),
        }
    }

    /// It is answered once `index` is applied.
    pub(super) fn confirm_at(&mut self, index: u64, waiter: Waiter) {
        self.reads.confirmed.entry(index).or_default().push(waiter);
    }

    pub(super) fn flush_reads(&mut self) {
        let reads = &mut self.reads;
        if reads.waiting.is_empty() || reads.requested.len() >= REQUESTS_MAX || self.leading.is_none() {
            return;
        }
        // One that cannot confirm a read is about to hand over; then they are refused.
        if self.group.committed_own_term() && self.group.can_confirm_reads() {
            reads.next_request += 1;
            let before = reads.requested.insert(reads.next_request, std::mem::take(&mut reads.waiting));
            assert!(before.is_none(), "requests are numbered");
            self.group.read_index(reads.next_request);
        }
    }

    pub(super) fn confirm_reads(&mut self, confirmed: &[(u64, u64)]) {
        for (request, index) in confirmed {
            assert!(*index <= self.group.committed(), "a read index is committed");
            if let Some(waiters) = self.reads.requested.remove(request) {
                self.reads.confirmed.entry(*index).or_default().extend(waiters);
            }
        }
    }

    pub(super) fn complete_reads(&mut self, out: &mut Outbox) {
        if self.is_merging() && !self.reads.is_empty() {
            // The target of the merge may have acknowledged newer writes.
            let error = self.busy("it is being merged");
            self.refuse_reads_with(&error, out);
        }
        let (applied, at_once) = (self.applied.index, self.config.planted().barrier_before_apply);
        while let Some(first) = self.reads.confirmed.first_entry().filter(|first| at_once || *first.key() <= applied) {
            for waiter in first.remove() {
                match waiter {
                    Waiter::Local(ticket) => out.answer(ticket, Answer::Ok { index: applied }),
                    Waiter::Replica { from, message } => {
                        // The replica waits until it has applied as much.
                        self.group.announce_commits_to(from.id);
                        self.send_replica_read(from, ReplicaRead { is_answer: true, applied, ..message }, out);
                    }
                    Waiter::SafeTs(ts) => out.safe_ts.push(SafeTsTask { region: self.region.clone(), ts }),
                }
            }
        }
    }

    pub(super) fn refuse_reads(&mut self, out: &mut Outbox) {
        self.refuse_reads_with(&self.not_leader(out), out);
    }

    fn refuse_reads_with(&mut self, error: &RegionError, out: &mut Outbox) {
        let refusal = Answer::Refused(error.clone());
        let reads = std::mem::take(&mut self.reads);
        self.reads.next_request = reads.next_request;
        let requested = reads.requested.into_values().chain(reads.confirmed.into_values()).flatten();
        for waiter in reads.waiting.into_iter().chain(requested) {
            match waiter {
                Waiter::Local(ticket) => out.answer(ticket, refusal.clone()),
                Waiter::Replica { from, message } => {
                    self.send_replica_read(from, ReplicaRead { is_answer: true, ..message }, out);
                }
                Waiter::SafeTs(_) => {}
            }
        }
    }
}
