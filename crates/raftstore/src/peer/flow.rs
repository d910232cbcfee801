//! Flow control: how much a follower accepts from its leader, and how much waits for the engine.
//!
//! Without it, a follower whose applies make no progress would accept and acknowledge everything that its leader sends,
//! and hold it in memory without limit. A follower therefore accepts an append only if the region and the store have
//! capacity ([`crate::memory`]). Otherwise it does not answer, as if the message were lost, and reports in all its
//! messages that it is full. A leader sends no entries to a full follower. Heartbeats continue, so leases hold, and
//! their answers report when the follower has capacity again; then the core finds out by a refused append where the
//! follower's log ends.
//!
//! An append that does not begin at the log's end is always accepted: it repeats entries, or replaces entries that can
//! never be committed and so would never be released. An append with the leader's first entry of its term, or with
//! entries before it, is also always accepted (that is no more than the leader's log, which has its own bound): a
//! leader commits the entries of earlier terms only with that entry, so without it a quorum that is full of uncommitted
//! entries would stay full forever. An append to a full follower is sent without its entries: its answer says how far
//! the follower's log matches, and the follower may learn the commit index up to there. If everything else is applied,
//! one append is accepted regardless of the bounds, unless the store is far beyond its budget ([`crate::memory`]): then
//! the append waits for a flush.

use super::Peer;
use crate::consensus::wire::RaftMessage;
use crate::memory::Share;
use crate::outbox::Outbox;
use crate::region::PeerId;
use std::collections::{BTreeSet, VecDeque};

#[derive(Default)]
pub(super) struct Flow {
    /// This region's share of the store's memory budget, as last counted.
    accounted: Share,
    /// Appends that were accepted since then.
    taken_bytes: usize,
    /// Bytes of entries in flight to the engine, one number per apply round.
    pub(super) applying: VecDeque<usize>,
    /// Full followers, at the leader.
    pub(super) full_followers: BTreeSet<PeerId>,
}

impl Peer {
    /// Whether `bytes` more exceed the limit on what is not applied yet.
    pub(super) fn is_full_for(&self, bytes: usize, out: &Outbox) -> bool {
        let waiting = self.group.unapplied_log_bytes() + self.flow.taken_bytes;
        let fills = waiting > 0 && (waiting + bytes > self.config.unapplied_bytes_max || out.memory.is_full_for(bytes));
        fills || out.memory.is_exhausted()
    }

    /// Whether to report to the leader that this replica is full. One append ahead of the limit, so that few are sent
    /// without effect.
    pub(super) fn is_full(&self, out: &Outbox) -> bool {
        !self.leads()
            && !self.config.planted().followers_unbounded
            && !self.group.lacks_first_of_term()
            && self.is_full_for(self.config.append_bytes_max, out)
    }

    /// Whether to accept the entries of a message from the leader.
    pub(super) fn has_room_for(&mut self, raft: &RaftMessage, out: &mut Outbox) -> bool {
        let Some(bytes) = raft.extends(self.group.last_index()) else { return true };
        let is_needed = raft.precedes_first_of_term();
        if self.is_full_for(bytes, out) && !is_needed && !self.config.planted().followers_unbounded {
            out.memory.refused += 1;
            return false;
        }
        self.flow.taken_bytes += bytes;
        self.count_taken(bytes, out);
        true
    }

    /// Counts what will be in the log with the next poll.
    pub(super) fn count_taken(&mut self, bytes: usize, out: &mut Outbox) {
        let share = self.flow.accounted;
        out.memory.replace(&mut self.flow.accounted, Share { bytes: share.bytes + bytes, ..share });
    }

    /// Brings the store's total up to date.
    pub fn account(&mut self, out: &mut Outbox) {
        let applying: usize = self.flow.applying.iter().sum();
        self.flow.taken_bytes = 0;
        let bytes = self.group.memory_bytes() + applying + self.queued_bytes();
        let share = Share { bytes, evictable: self.group.evictable_bytes(), stored: self.group.log_bytes() };
        out.memory.replace(&mut self.flow.accounted, share);
        out.memory.appends_delayed += self.group.take_appends_delayed();
    }

    /// The replica ends.
    pub(super) fn count_nothing(&mut self, out: &mut Outbox) {
        out.memory.replace(&mut self.flow.accounted, Share::default());
    }

    /// Whether committed entries wait although no install has to finish first. A region without an apply round in
    /// flight never waits, so its next entries are handed out when that round has ended.
    pub(super) fn has_enough_applies(&self, out: &Outbox) -> bool {
        self.applies_in_flight > 0 && out.memory.applies_enough() && !self.config.planted().followers_unbounded
    }
}
