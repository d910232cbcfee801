//! How much a replica takes: flow control from the follower, and what waits for the engine.
//!
//! A follower whose applies do not get on would otherwise take, and acknowledge, whatever its leader sends, and hold it
//! in memory without limit. So it takes an append only if there is room in the region and in the store
//! ([`crate::memory`]); otherwise it stays silent, as if the message were lost, and says that it is full in all its
//! messages. A leader sends no entries to a full follower. Heartbeats go on, so leases hold, and their answers tell when
//! there is room; then the core finds out by a refused append where the follower's log ends.
//!
//! An append that does not begin at the log's end is always taken: it repeats what is here, or replaces entries that can
//! never be committed and so could never make room. So is one that brings the leader's first entry of its term, or what
//! is before it (no more than the leader's log, which has a bound of its own): a leader commits what earlier ones left with
//! that entry only, so without it a quorum that is full of what is not committed would stay full for ever. To a full
//! follower an append goes without its entries: its answer says how far the follower's log matches, and that much of the
//! commit index it may know. One append is taken whatever the bounds say if all else is applied, unless the store is far
//! beyond its budget ([`crate::memory`]): then it waits for a flush.

use super::Peer;
use crate::consensus::wire::RaftMessage;
use crate::outbox::Outbox;
use crate::region::PeerId;
use std::collections::{BTreeSet, VecDeque};

#[derive(Default)]
pub(super) struct Flow {
    /// This region's share of the store's memory, as it was last counted.
    accounted: usize,
    /// Appends that were taken since.
    taken_bytes: usize,
    /// Bytes of entries on their way to the engine, one number for each round.
    pub(super) applying: VecDeque<usize>,
    /// Followers without room, at the leader.
    pub(super) full_followers: BTreeSet<PeerId>,
}

impl Peer {
    /// Whether `bytes` more are too much beside what is not applied yet.
    pub(super) fn is_full_for(&self, bytes: usize, out: &Outbox) -> bool {
        let waiting = self.group.unapplied_log_bytes() + self.flow.taken_bytes;
        let fills = waiting > 0 && (waiting + bytes > self.config.unapplied_bytes_max || out.memory.is_full_for(bytes));
        fills || out.memory.is_exhausted()
    }

    /// What to tell the leader. An append's worth ahead, so that few are sent in vain.
    pub(super) fn is_full(&self, out: &Outbox) -> bool {
        !self.leads()
            && !self.config.planted().followers_unbounded
            && !self.group.lacks_first_of_term()
            && self.is_full_for(self.config.append_bytes_max, out)
    }

    /// Whether to take a message from the leader.
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
        let share = self.flow.accounted + bytes;
        out.memory.replace(&mut self.flow.accounted, share);
    }

    /// Brings the store's total up to date.
    pub fn account(&mut self, out: &mut Outbox) {
        let applying: usize = self.flow.applying.iter().sum();
        let queued: usize = self.queue.iter().map(|queued| queued.bytes).sum();
        self.flow.taken_bytes = 0;
        out.memory.replace(&mut self.flow.accounted, self.group.log_bytes() + applying + queued);
    }

    /// Whether committed entries wait although no install is before them. A region without a round on its way is never
    /// held up, so its next entries go out when that round has ended.
    pub(super) fn has_enough_applies(&self, out: &Outbox) -> bool {
        self.applies_in_flight > 0 && out.memory.applies_enough() && !self.config.planted().followers_unbounded
    }
}
