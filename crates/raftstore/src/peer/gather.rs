//! Whether queued proposals are appended at once, or wait for others to form a larger group.
//!
//! A group of entries costs every replica a write of its log, an apply, two or three messages and several changes of
//! threads, for one proposal or for fifty. Under load these costs limit how many proposals a store can take, so a queue
//! waits while it is smaller than what is in the log and not committed. A queue therefore never waits when nothing is
//! uncommitted, two clients never wait for each other, and with more of them about one half is in the log while the
//! other half gathers. (Nagle's algorithm for TCP, RFC 896, has the same idea.)
//!
//! The price is at most the rest of one round of replication. Where a round is long (replicas far apart, a slow disk),
//! waiting costs more than it saves: nothing waits then.

use super::Peer;
use std::time::Duration;

/// A queue of so many bytes does not wait: writing and sending it costs more than what a group costs.
const BYTES_FULL: usize = 64 << 10;

/// How long entries take from the log to their commit.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The group that is measured: when it was appended, and its last index.
    measured: Option<(Duration, u64)>,
    last_round: Duration,
}

impl Gathering {
    /// Entries through `last_index` were appended.
    fn appended(&mut self, now: Duration, last_index: u64) {
        self.measured.get_or_insert((now, last_index));
    }

    fn committed(&mut self, now: Duration, committed: u64) {
        if let Some((begun_at, _)) = self.measured.take_if(|(_, last_index)| *last_index <= committed) {
            self.last_round = now.saturating_sub(begun_at);
        }
    }

    fn waits(&self, queued: usize, queued_bytes: usize, uncommitted: u64, round_max: Duration) -> bool {
        let is_small = (queued as u64) < uncommitted && queued_bytes < BYTES_FULL;
        is_small && self.last_round <= round_max && !round_max.is_zero()
    }
}

impl Peer {
    /// Whether the queue waits. It is looked at again whenever something is committed, because that polls the replica.
    pub(super) fn gathers(&self) -> bool {
        let uncommitted = self.group.last_index() - self.group.committed();
        // A transfer of the leadership waits for the queue.
        let round_max = self.config.gather_round_max;
        !self.is_transferring() && self.gathering.waits(self.queue.len(), self.queued_bytes(), uncommitted, round_max)
    }

    pub(super) fn measure_round(&mut self, now: Duration) {
        self.gathering.committed(now, self.group.committed());
    }

    pub(super) fn begin_round(&mut self, now: Duration) {
        self.gathering.appended(now, self.group.last_index());
    }
}

#[cfg(test)]
#[path = "gather_test.rs"]
mod tests;
