//! What waits to be written.

use super::completion::Done;
use crate::vlog::ValuePin;
use crate::{Durability, SequenceNumber, StreamOp, Unchanged, WriteBatch};
use parking_lot::Mutex;
use std::collections::VecDeque;

/// A commit on its way into the log.
pub(crate) struct Pending {
    pub(crate) batch: WriteBatch,
    pub(crate) streams: Vec<StreamOp>,
    pub(crate) durability: Durability,
    pub(crate) unchanged: Vec<Unchanged>,
    /// The conditions hold up to this number.
    pub(crate) checked_through: SequenceNumber,
    /// Kept until the batch is in a memtable or was refused.
    pub(crate) _values: Option<ValuePin>,
    pub(crate) done: Done,
}

/// What a leader takes.
pub(crate) enum Work {
    /// Commits of one group, in order; at least one.
    Group(Vec<Pending>),
    /// Rewrite what streams have in this segment.
    Rewrite(u64),
}

/// Two queues. `logged` is emptied by leaders, one at a time; `derived` by whoever gets its lock, since derived commits
/// never wait for the log.
#[derive(Default)]
pub(crate) struct Queue {
    logged: Mutex<Logged>,
    pub(crate) derived: Mutex<VecDeque<Pending>>,
}

#[derive(Default)]
struct Logged {
    waiting: VecDeque<(Pending, u64)>,
    rewrite: Option<u64>,
    leading: bool,
}

impl Queue {
    /// Adds a commit that takes `bytes` of the log.
    pub(crate) fn push(&self, pending: Pending, bytes: u64) {
        self.logged.lock().waiting.push_back((pending, bytes));
    }

    /// Asks the next leader to rewrite what streams have in `segment`. Returns whether this was not yet asked.
    pub(crate) fn ask_rewrite(&self, segment: u64) -> bool {
        self.logged.lock().rewrite.replace(segment).is_none()
    }

    /// Becomes the leader, if there is none and there is something to do.
    pub(crate) fn try_lead(&self) -> bool {
        let mut logged = self.logged.lock();
        if logged.leading || (logged.waiting.is_empty() && logged.rewrite.is_none()) {
            return false;
        }
        logged.leading = true;
        true
    }

    /// Ends leading; returns whether something waits.
    pub(crate) fn stop_leading(&self) -> bool {
        let mut logged = self.logged.lock();
        assert!(logged.leading, "only the leader ends leading");
        logged.leading = false;
        !logged.waiting.is_empty() || logged.rewrite.is_some()
    }

    /// Takes the next work, at most about `bytes_max` of it; a larger commit goes alone. Commits with a batch are only
    /// taken when there is room for it in memory. For the leader.
    pub(crate) fn take(&self, bytes_max: u64, room: impl Fn() -> bool) -> Option<Work> {
        let mut logged = self.logged.lock();
        assert!(logged.leading, "only the leader takes");
        if let Some(segment) = logged.rewrite.take() {
            return Some(Work::Rewrite(segment));
        }
        let mut group = Vec::new();
        let mut total = 0;
        let mut batches = 0;
        while let Some((pending, bytes)) = logged.waiting.front() {
            // Whoever has conditions goes alone, so that everything before it is in memory when they are judged.
            let alone = |pending: &Pending| !pending.unchanged.is_empty();
            if !group.is_empty() && (total + bytes > bytes_max || alone(pending) || group.iter().any(alone)) {
                break;
            }
            if !pending.batch.is_empty() {
                batches += 1;
                if batches == 1 && !room() {
                    break;
                }
            }
            total += bytes;
            let (pending, _) = logged.waiting.pop_front().expect("there is a front");
            group.push(pending);
        }
        (!group.is_empty()).then_some(Work::Group(group))
    }

    /// Takes all logged commits that wait, to answer them with an error.
    pub(crate) fn take_logged(&self) -> Vec<Pending> {
        self.logged.lock().waiting.drain(..).map(|(pending, _)| pending).collect()
    }

    /// Number of commits that wait.
    pub(crate) fn len(&self) -> usize {
        self.logged.lock().waiting.len() + self.derived.lock().len()
    }
}
