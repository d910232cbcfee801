//! Conditions of commits: has anything been written to a key or a range since a sequence number?
//!
//! The answer must hold when the commit gets its number. So it is computed twice: first without any lock, up to what
//! was visible then, which may read tables; then under the lock that gives numbers, for what was written since, which
//! is in memory except in rare cases. All batches with a number are in memory at the second time.
//!
//! The newest version of a key answers for the key. Compaction drops older versions, and a tombstone too once it hides
//! nothing; it keeps a tombstone while it is newer than the oldest registered start ([`TransactionStarts`]) or held
//! snapshot, so that a deletion by a later commit is still found. For a number that is no longer held the answer may be
//! unknown: then the condition counts as broken (`version/horizon.rs`).

use super::{Core, Snapshot};
use crate::lock::{Mutex, Rank};
use crate::read::ReadState;
use crate::version::Horizon;
use crate::{Commit, Durability, Error, Precondition, Result, SequenceNumber, Unchanged, WriteBatch};
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// The sequence numbers at which open transactions read: while one is open, compaction keeps the tombstones that are
/// newer, so that their conditions can be answered.
pub(crate) struct TransactionStarts {
    open: Mutex<BTreeMap<SequenceNumber, u64>>,
    /// Called with the smallest of them, for compaction.
    horizon: Arc<Horizon>,
}

/// Registers a start until it is dropped.
pub(crate) struct TransactionStart {
    core: Arc<Core>,
    start: SequenceNumber,
}

impl TransactionStarts {
    /// None yet.
    pub(crate) fn new(horizon: Arc<Horizon>) -> TransactionStarts {
        TransactionStarts { open: Mutex::new(Rank::TransactionStarts, BTreeMap::new()), horizon }
    }

    /// The smallest number that an open transaction reads at, `u64::MAX` while none is open.
    pub(crate) fn oldest(&self) -> SequenceNumber {
        self.horizon.transactions()
    }

    /// Number of those that are registered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> u64 {
        self.open.lock().values().sum()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<SequenceNumber, u64>)) {
        let mut open = self.open.lock();
        change(&mut open);
        self.horizon.set_transactions(open.first_key_value().map_or(u64::MAX, |(oldest, _)| *oldest));
    }
}

impl Drop for TransactionStart {
    fn drop(&mut self) {
        self.core.transaction_starts.change(|open| {
            let count = open.get_mut(&self.start).expect("it was registered");
            *count -= 1;
            if *count == 0 {
                open.remove(&self.start);
            }
        });
    }
}

impl Core {
    /// The smallest sequence number that an open transaction reads at, `u64::MAX` while none is open. Compaction keeps
    /// tombstones that are newer.
    pub(crate) fn oldest_transaction_start(&self) -> SequenceNumber {
        self.transaction_starts.oldest()
    }

    /// A snapshot whose number commits may name in their conditions while the registration lives.
    ///
    /// Registered first, read second: what a compaction that missed the registration may drop was visible before, so
    /// the snapshot sees it as absent.
    pub(crate) fn begin_transaction(self: &Arc<Core>) -> (Snapshot, TransactionStart) {
        let mut start = 0;
        self.transaction_starts.change(|open| {
            start = self.writes.visible();
            *open.entry(start).or_default() += 1;
        });
        let registration = TransactionStart { core: self.clone(), start };
        let (state, sequence) = self.writes.read_point();
        assert!(sequence >= start, "the visible number never decreases");
        (Snapshot::new(state, sequence), registration)
    }

    /// The first check of a commit's conditions, without a lock. Returns the number up to which they have been checked.
    pub(super) fn check_unchanged(&self, conditions: &[Unchanged]) -> Result<SequenceNumber> {
        if conditions.is_empty() {
            return Ok(0);
        }
        let (state, visible) = self.writes.read_point();
        for condition in conditions {
            if condition.since() > visible {
                let since = condition.since();
                let message = format!("a condition since sequence number {since}; {visible} is the newest so far");
                return Err(Error::InvalidArgument(message));
            }
            condition.check(&state, 0, self.context.versions.horizon())?;
        }
        Ok(visible)
    }

    /// See `Db::write_if`.
    pub(super) fn write_if(
        self: &Arc<Core>,
        batch: &WriteBatch,
        conditions: &[Precondition],
        durability: Durability,
    ) -> Result<SequenceNumber> {
        loop {
            self.check_open()?;
            let (snapshot, _registration) = self.begin_transaction();
            let mut unchanged = Vec::with_capacity(conditions.len());
            for condition in conditions {
                let (family, key) = condition.key();
                let found = snapshot.state.get(family, key, snapshot.sequence)?;
                if !condition.holds(found.as_deref()) {
                    return Err(Error::Conflict { family, key: key.clone() });
                }
                unchanged.push(Unchanged::Key { family, key: key.clone(), since: snapshot.sequence });
            }
            match self.commit(Commit { unchanged, ..Commit::new(batch.clone(), durability) }) {
                // Another writer has written one of the keys meanwhile; whether the conditions still hold is checked
                // again. One of the conflicting writers succeeds each time, so this ends.
                Err(Error::Conflict { .. }) => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
#[path = "conditions_test.rs"]
mod tests;
