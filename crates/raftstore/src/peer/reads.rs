//! Read barriers: ReadIndex through a quorum.
//!
//! All barriers that arrive between two polls share one request. A request waits until the leader has committed an
//! entry of its own term (before that it does not know how far the log is committed), then for a quorum, then until the
//! index it got is applied.

use super::Peer;
use crate::effect::Answer;
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{Epoch, Ticket};
use std::collections::BTreeMap;

/// Maximum number of requests to the core at a time: further barriers share the next one. Bounds the core's table.
const REQUESTS_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Reads {
    waiting: Vec<Ticket>,
    requested: BTreeMap<u64, Vec<Ticket>>,
    /// By the index that must be applied.
    confirmed: BTreeMap<u64, Vec<Ticket>>,
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
            Ok(()) => self.reads.waiting.push(ticket),
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    pub(super) fn flush_reads(&mut self) {
        let reads = &mut self.reads;
        if reads.waiting.is_empty() || reads.requested.len() >= REQUESTS_MAX || self.leading.is_none() {
            return;
        }
        if self.group.committed_own_term() {
            reads.next_request += 1;
            let before = reads.requested.insert(reads.next_request, std::mem::take(&mut reads.waiting));
            assert!(before.is_none(), "requests are numbered");
            self.group.read_index(reads.next_request);
        }
    }

    pub(super) fn confirm_reads(&mut self, confirmed: &[(u64, u64)]) {
        for (request, index) in confirmed {
            assert!(*index <= self.group.committed(), "a read index is committed");
            if let Some(tickets) = self.reads.requested.remove(request) {
                self.reads.confirmed.entry(*index).or_default().extend(tickets);
            }
        }
    }

    pub(super) fn complete_reads(&mut self, out: &mut Outbox) {
        let at_once = self.config.planted().barrier_before_apply;
        let is_due = |index: &u64| at_once || *index <= self.applied.index;
        while let Some(first) = self.reads.confirmed.first_entry().filter(|first| is_due(first.key())) {
            let tickets = first.remove();
            self.answer_all(tickets, &Answer::Ok { index: self.applied.index }, out);
        }
    }

    pub(super) fn refuse_reads(&mut self, out: &mut Outbox) {
        let refusal = Answer::Refused(self.not_leader(out));
        let reads = &mut self.reads;
        let requested = std::mem::take(&mut reads.requested).into_values().flatten();
        let confirmed = std::mem::take(&mut reads.confirmed).into_values().flatten();
        let tickets: Vec<Ticket> =
            std::mem::take(&mut reads.waiting).into_iter().chain(requested).chain(confirmed).collect();
        self.answer_all(tickets, &refusal, out);
    }
}
