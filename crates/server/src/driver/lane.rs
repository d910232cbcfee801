//! Commits that must take effect in order: raft persists (`Sync`), and applies (`Derived`).
//!
//! # The rule
//! At most one commit of a lane is in the engine at a time; commits that arrive meanwhile wait and are submitted as one
//! merged commit. Hence (1) commits take effect and are reported in order, no matter which thread completes them, (2) a
//! commit refused for lack of space can be tried again without a later one having overtaken it, which would leave a gap
//! in a raft log, and (3) the load itself forms the groups: the next batch fills while the last one syncs. *Rejected:*
//! several commits in flight. The engine would not group them better, and there is no remedy if the first is refused
//! and the second accepted.

use bytes::Bytes;
use kontiki_engine::{Commit, Durability, StreamOp, WriteBatch};
use std::collections::VecDeque;

/// Largest merged commit, in bytes of payload: far below the engine's largest record, large enough that a sync is
/// shared by thousands of small entries. A single commit that is larger is submitted alone.
const MERGE_BYTES_MAX: usize = 4 << 20;

/// Commits of one kind, in order.
pub(super) struct Lane<Id> {
    durability: Durability,
    waiting: VecDeque<(Id, Commit)>,
    /// Ids in the engine now, in order.
    in_flight: Vec<Id>,
    /// The commit in the engine, retained if a full disk may refuse it.
    kept: Option<Commit>,
    /// The engine refused for lack of space; nothing is submitted before [`Lane::retry`].
    blocked: bool,
}

impl<Id: Copy> Lane<Id> {
    pub(super) fn new(durability: Durability) -> Lane<Id> {
        Lane { durability, waiting: VecDeque::new(), in_flight: Vec::new(), kept: None, blocked: false }
    }

    /// Queues a commit.
    pub(super) fn push(&mut self, id: Id, commit: Commit) {
        assert_eq!(commit.durability, self.durability, "a lane carries one kind of commit");
        self.waiting.push_back((id, commit));
    }

    /// The next commit for the engine, if none is in the engine and the lane is not blocked.
    pub(super) fn take(&mut self) -> Option<Commit> {
        if !self.in_flight.is_empty() || self.blocked {
            return None;
        }
        let (id, mut commit) = self.waiting.pop_front()?;
        self.in_flight.push(id);
        let mut bytes = payload_bytes(&commit);
        while let Some((_, next)) = self.waiting.front() {
            bytes += payload_bytes(next);
            if bytes > MERGE_BYTES_MAX {
                break;
            }
            let (id, next) = self.waiting.pop_front().expect("the front was just seen");
            self.in_flight.push(id);
            commit.batch.append(&next.batch);
            commit.streams.extend(next.streams);
        }
        // Applies are not logged, so a full disk cannot refuse them: only the others are retained for a retry.
        if self.durability != Durability::Derived {
            self.kept = Some(commit.clone());
        }
        Some(commit)
    }

    /// The commit in flight took effect: its ids, in order.
    pub(super) fn succeeded(&mut self) -> Vec<Id> {
        assert!(!self.in_flight.is_empty(), "a completion belongs to a commit in flight");
        self.kept = None;
        std::mem::take(&mut self.in_flight)
    }

    /// The commit in flight was refused and had no effect: it waits for [`Lane::retry`]. Returns false if this lane
    /// cannot try again.
    pub(super) fn refused(&mut self) -> bool {
        assert!(!self.in_flight.is_empty(), "a completion belongs to a commit in flight");
        self.blocked = self.kept.is_some();
        self.blocked
    }

    /// Whether a full disk blocks the lane.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether a commit is in the engine now.
    #[cfg(test)]
    pub(super) fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty() && !self.blocked
    }

    /// The refused commit again, if the lane is blocked by one.
    pub(super) fn retry(&mut self) -> Option<Commit> {
        if !std::mem::take(&mut self.blocked) {
            return None;
        }
        self.kept.clone()
    }
}

/// A `Derived` commit of `batch`.
pub(super) fn derived(batch: WriteBatch) -> Commit {
    Commit { batch, streams: Vec::new(), durability: Durability::Derived, unchanged: vec![] }
}

fn payload_bytes(commit: &Commit) -> usize {
    let stream_bytes = |op: &StreamOp| match op {
        StreamOp::Append { entries, .. } => entries.iter().map(Bytes::len).sum(),
        StreamOp::State { state, .. } => state.len(),
        StreamOp::Truncate { .. } | StreamOp::Remove { .. } => 0,
    };
    commit.batch.as_bytes().len() + commit.streams.iter().map(stream_bytes).sum::<usize>()
}

#[cfg(test)]
#[path = "lane_test.rs"]
mod tests;
