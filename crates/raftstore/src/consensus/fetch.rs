//! What leaders send to followers that lag: entries that were read from the stream, and at most so many bytes at a
//! time.
//!
//! *Entries from the stream.* The core asks the log for evicted ones, does without them at the moment, and the log
//! notes where the append would have begun. When they are read, every follower that continues there gets them, and then
//! they are forgotten. What is noted needs no term and no follower: where a follower continues is looked up at the end,
//! and evicted entries are committed, so index and term say whether they are those of this log.
//!
//! *Bytes in flight.* The core bounds the messages that a follower has not answered, not their bytes. It asks the log
//! for entries whenever it sends from behind the log's end, so there the log's answer limits what one call may send
//! ([`Group::allowance`]). New proposals do not come from the log, and a commit makes the core send to all followers:
//! around such calls, followers with enough in flight are made to look as if their window of messages was full
//! ([`Group::within_window`]). One append is always sent in answer to a heartbeat's answer: the ones in flight may be
//! lost.

use super::{Entry, Group, Role};
use crate::region::PeerId;
use raft::eraftpb::{Message, MessageType};
use raft::{Progress, ProgressState};
use std::collections::BTreeSet;
use std::ops::Range;

impl Group {
    /// Bytes of the log in memory.
    pub fn memory_bytes(&self) -> usize {
        self.node.store().memory_bytes()
    }

    /// Bytes that [`Group::evict`] could release.
    pub fn evictable_bytes(&self) -> usize {
        self.node.store().evictable_bytes()
    }

    /// Evicts applied entries through `index` at most, the oldest first, until so many bytes are released.
    pub fn evict(&mut self, index: u64, bytes: usize) {
        assert!(index <= self.durable_index(), "what is evicted can be read");
        assert!(index <= self.node.raft.raft_log.applied || self.evict_handed_out, "what is evicted is applied");
        self.node.mut_store().evict(index, bytes);
    }

    /// The evicted entries with which appends would have begun, since the last call.
    pub fn take_entries_wanted(&self) -> BTreeSet<u64> {
        self.node.store().take_wanted()
    }

    /// Which evicted entries to read for an append from `low` on, and their bytes; `None` if `low` is not evicted.
    pub fn evicted_from(&self, low: u64, bytes_max: usize) -> Option<(Range<u64>, usize)> {
        self.node.store().evicted_from(low, bytes_max)
    }

    /// Entries from `low` on were read: the followers that continue there get them. Does nothing if the log begins
    /// above `low` by now, or if this group does not lead. `Err`: they are not those of this log.
    pub fn entries_fetched(&mut self, low: u64, entries: Vec<Entry>) -> Result<(), &'static str> {
        if !self.node.store().is_evicted(low) || self.role() != Role::Leader {
            return Ok(());
        }
        let are_ours = (low..).zip(&entries);
        let are_ours = are_ours.map(|(index, entry)| entry.index == index && self.term_at(index) == Some(entry.term));
        if !are_ours.into_iter().all(|is_ours| is_ours) {
            return Err("the entries that were read are not those of the log");
        }
        let read = low..low + entries.len() as u64;
        self.node.mut_store().set_fetched(entries);
        let mut followers: Vec<u64> = self.node.raft.prs().iter().map(|(id, _)| *id).collect();
        followers.retain(|id| *id != self.node.raft.id);
        // The core has them in the order of a hash map, which differs between processes.
        followers.sort_unstable();
        followers.into_iter().for_each(|id| self.send_fetched(id, &read));
        self.node.mut_store().set_fetched(Vec::new());
        Ok(())
    }

    /// Sends appends to a follower as long as it continues in `read`, and notes what it needs after that. The first is
    /// sent with a full window, too: the read was permitted by one that was not, or by an answer to a heartbeat, and
    /// then the ones in flight may be lost.
    fn send_fetched(&mut self, id: u64, read: &Range<u64>) {
        let Some(mut next) = self.progress(id).map(|progress| progress.next_idx) else { return };
        let mut allowance_min = 1;
        while read.contains(&next) {
            let sendable = self.progress(id).map_or(0, |progress| self.sendable_to(progress, progress.matched));
            self.node.store().set_allowance(sendable.max(std::mem::take(&mut allowance_min)));
            self.node.raft.send_append(id);
            let before = std::mem::replace(&mut next, self.progress(id).map_or(0, |progress| progress.next_idx));
            if next <= before {
                break; // It probes: the next append waits for the answer to this one.
            }
        }
        if next == read.end && next <= self.last_index() {
            self.node.raft.send_append(id);
        }
        self.node.store().set_allowance(usize::MAX);
    }

    /// The followers whose next append begins at `low`, at the leader.
    pub fn followers_at(&self, low: u64) -> impl Iterator<Item = PeerId> + '_ {
        let progress = self.node.raft.prs().iter();
        let others = progress.filter(move |(id, progress)| **id != self.node.raft.id && progress.next_idx == low);
        others.filter(|_| self.role() == Role::Leader).map(|(id, _)| PeerId(*id))
    }

    fn progress(&self, id: u64) -> Option<&Progress> {
        self.node.raft.prs().get(id)
    }

    /// Bytes that may be sent to a follower that has everything through `matched`.
    fn sendable_to(&self, progress: &Progress, matched: u64) -> usize {
        let log = self.node.store();
        let in_flight = log.bytes_after(matched).saturating_sub(log.bytes_after(progress.next_idx.saturating_sub(1)));
        match progress.state {
            ProgressState::Replicate => self.inflight_bytes_max.saturating_sub(in_flight),
            // One message, and then the answer is awaited.
            ProgressState::Probe | ProgressState::Snapshot => self.inflight_bytes_max,
        }
    }

    /// How many bytes this message may make a leader send from behind the end of its log. Appends that a call begins
    /// within its allowance are sent whole.
    pub(super) fn allowance(&self, message: &Message) -> usize {
        let Some(progress) = self.progress(message.from).filter(|_| self.role() == Role::Leader) else {
            return usize::MAX;
        };
        match message.get_msg_type() {
            MessageType::MsgAppendResponse if !message.reject => {
                self.sendable_to(progress, progress.matched.max(message.index))
            }
            MessageType::MsgHeartbeatResponse => self.sendable_to(progress, progress.matched).max(1),
            // A refused append makes the follower one that is probed.
            _ => usize::MAX,
        }
    }

    /// Lets `act`, which may make the core send to all followers, not send to those that have enough in flight; except
    /// to `answering`, whose answer is handled.
    pub(super) fn within_window<T>(&mut self, answering: Option<u64>, act: impl FnOnce(&mut Group) -> T) -> T {
        if self.role() != Role::Leader {
            return act(self);
        }
        let is_full = |(id, progress): &(&u64, &Progress)| {
            progress.state == ProgressState::Replicate
                && **id != self.node.raft.id
                && Some(**id) != answering
                && self.sendable_to(progress, progress.matched) == 0
        };
        let full: Vec<u64> = self.node.raft.prs().iter().filter(is_full).map(|(id, _)| *id).collect();
        full.iter().for_each(|id| self.node.raft.adjust_max_inflight_msgs(*id, 1));
        let result = act(self);
        full.iter().for_each(|id| self.node.raft.adjust_max_inflight_msgs(*id, self.inflight_appends_max));
        if answering.is_none() {
            self.appends_delayed += full.len() as u64;
        }
        result
    }

    /// Appends that were not sent because a follower had enough in flight, since the last call.
    pub fn take_appends_delayed(&mut self) -> u64 {
        self.node.store().take_delayed() + std::mem::take(&mut self.appends_delayed)
    }
}
