//! Commits that were submitted and wait to be written.

use super::completion::Done;
use super::prepare::PreparedCommit;
use crate::lock::{Mutex, Rank};
use std::collections::VecDeque;

/// A commit that no caller waits for.
pub(crate) struct Pending {
    pub(crate) commit: PreparedCommit,
    pub(crate) done: Done,
}

/// Two queues. `logged` is emptied by one thread at a time; `derived` by the thread that gets its lock, since derived
/// commits never wait for the log.
pub(crate) struct Queue {
    logged: Mutex<Logged>,
    pub(crate) derived: Mutex<VecDeque<Pending>>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            logged: Mutex::new(Rank::LoggedQueue, Logged::default()),
            derived: Mutex::new(Rank::DerivedQueue, VecDeque::new()),
        }
    }
}

#[derive(Default)]
struct Logged {
    waiting: VecDeque<Pending>,
    rewrite: Option<u64>,
    leading: bool,
}

impl Queue {
    /// Adds a commit.
    pub(crate) fn push(&self, pending: Pending) {
        self.logged.lock().waiting.push_back(pending);
    }

    /// Asks the next leader to rewrite what streams have in `segment`. Returns whether this is a new request.
    pub(crate) fn request_rewrite(&self, segment: u64) -> bool {
        self.logged.lock().rewrite.replace(segment).is_none()
    }

    /// Becomes the leader, which empties the queue of logged commits, if there is none and there is work.
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

    /// Takes the segment to rewrite, if that was requested. For the leader.
    pub(crate) fn take_rewrite(&self) -> Option<u64> {
        self.logged.lock().rewrite.take()
    }

    /// Takes the first commit if it has at most `bytes_max`. For the leader.
    pub(crate) fn take(&self, bytes_max: u64) -> Option<Pending> {
        let mut logged = self.logged.lock();
        assert!(logged.leading, "only the leader takes");
        if logged.waiting.front()?.commit.bytes > bytes_max {
            return None;
        }
        logged.waiting.pop_front()
    }

    /// Puts back what [`Queue::take`] gave last. For the leader.
    pub(crate) fn put_back(&self, pending: Pending) {
        let mut logged = self.logged.lock();
        assert!(logged.leading, "only the leader puts back");
        logged.waiting.push_front(pending);
    }

    /// Takes all logged commits that wait, to answer them with an error.
    pub(crate) fn take_logged(&self) -> Vec<Pending> {
        self.logged.lock().waiting.drain(..).collect()
    }

    /// Number of commits that wait.
    pub(crate) fn len(&self) -> usize {
        let logged = self.logged.lock().waiting.len();
        logged + self.derived.lock().len()
    }
}
