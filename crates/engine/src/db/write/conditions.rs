//! Conditions of commits: has anything been written to a key or a range since a sequence number?
//!
//! The answer must hold when the commit gets its number. So it is computed twice: first without any lock, up to what
//! was visible then, which may read tables; then under the lock that gives numbers, for what was written since, which
//! is in memory except in rare cases. All batches with a number are in memory at the second time.
//!
//! The newest version of a key answers for the key. Compaction drops older versions, and a tombstone too once it hides
//! nothing; it keeps a tombstone while it is newer than the oldest registered start (`db/transactions.rs`) or held
//! snapshot, so that a deletion by a later commit is still found. For a number that is no longer held the answer may be
//! unknown: then the condition counts as broken (`version/horizon.rs`).

use super::WritePath;
use crate::read::ReadState;
use crate::version::Horizon;
use crate::{Error, Result, SequenceNumber, Unchanged};

impl Unchanged {
    /// Refuses with `Conflict` if `state`, which holds every write so far, has one that this condition rules out and
    /// whose number is larger than `after`.
    ///
    /// Also if a deletion since then may have been dropped, according to `horizon` after `state` was pinned.
    pub(crate) fn check(&self, state: &ReadState, after: SequenceNumber, horizon: &Horizon) -> Result<()> {
        let since = self.since().max(after);
        let written = match self {
            _ if since < horizon.dropped_through() => Some(self.named_key()),
            Unchanged::Key { family, key, .. } => state.newest_sequence(*family, key, since)?.map(|_| key.clone()),
            Unchanged::Range { family, range, .. } => state.written_since(*family, range, since)?,
        };
        written.map_or(Ok(()), |key| Err(Error::Conflict { family: self.family(), key }))
    }
}

impl WritePath {
    /// The first check of a commit's conditions, without a lock. Returns the number up to which they have been checked.
    pub(crate) fn check_unchanged(&self, conditions: &[Unchanged]) -> Result<SequenceNumber> {
        if conditions.is_empty() {
            return Ok(0);
        }
        let (state, visible) = self.memtables.read_point();
        for condition in conditions {
            if condition.since() > visible {
                let since = condition.since();
                let message = format!("a condition since sequence number {since}; {visible} is the newest so far");
                return Err(Error::InvalidArgument(message));
            }
            condition.check(&state, 0, self.shared.context.versions.horizon())?;
        }
        Ok(visible)
    }
}

#[cfg(test)]
#[path = "conditions_test.rs"]
mod tests;
