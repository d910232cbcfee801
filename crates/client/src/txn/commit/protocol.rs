//! Which of the three ways a commit takes, and the timestamps that bound the faster ones.

use super::Committer;
use crate::Result;
use crate::backoff::Backoff;
use crate::keys::Mode;
use crate::transport::Transport;
use crate::tso::LOGICAL_BITS;

/// Async commit lists all other keys in the primary's lock, so they are few and small: the bounds of TiKV's clients.
const ASYNC_KEYS_MAX: usize = 256;
const ASYNC_KEY_BYTES_MAX: usize = 4 << 10;
/// How far a computed commit timestamp may be above the present. It follows the greatest timestamp of the reads that a
/// node has served: a reader with a timestamp in the future must not move commits there, where snapshots of the present
/// do not see them.
const COMMIT_AHEAD_MS_MAX: u64 = 2_000;

/// How one commit proceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) one_phase: bool,
    pub(super) async_commit: bool,
    /// Not 0: the lowest commit timestamp. In two phases readers may push it instead of waiting.
    pub(super) min_commit_ts: u64,
    /// Not 0: a commit timestamp that is computed is not greater.
    pub(super) max_commit_ts: u64,
}

impl Protocol {
    /// Whether its prewrites decide.
    pub(super) fn decides(&self) -> bool {
        self.one_phase || self.async_commit
    }
}

impl<T: Transport> Committer<T> {
    pub(super) async fn protocol(&self, backoff: &mut Backoff<T>) -> Result<Protocol> {
        let key_bytes: usize = self.keys.iter().map(|key| key.len()).sum();
        let fits = self.keys.len() <= ASYNC_KEYS_MAX && key_bytes <= ASYNC_KEY_BYTES_MAX;
        let async_commit = self.options.async_commit && fits && !self.keys.is_empty();
        let one_phase = self.options.one_phase_commit
            && !self.keys.is_empty()
            && self.snapshot.cluster.one_region(Mode::Txn, &self.mutations, backoff).await?.is_some();
        let newest_lock = self.pessimistic.as_ref().map_or(0, |(for_update_ts, _)| *for_update_ts);
        let above_own = self.start_ts().max(newest_lock) + 1;
        if !one_phase && !async_commit {
            // A chosen timestamp must not be pushed out of reach.
            let min_commit_ts = if self.chosen_commit_ts.is_some() { 0 } else { above_own };
            return Ok(Protocol { one_phase, async_commit, min_commit_ts, max_commit_ts: 0 });
        }
        // What is computed there follows the reads of the written keys only. Without this timestamp a commit could get
        // a lower one than another transaction, on other keys, that was acknowledged before this commit began: a
        // snapshot in between would show the later and miss the earlier.
        let now = self.snapshot.cluster.timestamp(backoff).await?;
        let max_commit_ts = now.saturating_add(COMMIT_AHEAD_MS_MAX << LOGICAL_BITS);
        Ok(Protocol { one_phase, async_commit, min_commit_ts: now.max(above_own), max_commit_ts })
    }
}
