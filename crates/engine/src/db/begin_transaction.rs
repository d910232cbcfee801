//! Transactions begin: a snapshot is taken, and the number that it reads at is registered.

use super::{Core, Snapshot};
use crate::{Commit, Durability, Error, Precondition, Result, SequenceNumber, Unchanged, WriteBatch};
use std::sync::Arc;

/// Registers a start until it is dropped.
pub(crate) struct TransactionStart {
    core: Arc<Core>,
    start: SequenceNumber,
}

impl Drop for TransactionStart {
    fn drop(&mut self) {
        self.core.transactions.starts.change(|open| {
            let count = open.get_mut(&self.start).expect("it was registered");
            *count -= 1;
            if *count == 0 {
                open.remove(&self.start);
            }
        });
    }
}

impl Core {
    /// A snapshot whose number commits may name in their conditions while the registration lives.
    ///
    /// Registered first, read second: what a compaction that missed the registration may drop was visible before, so
    /// the snapshot sees it as absent.
    pub(crate) fn begin_transaction(self: &Arc<Core>) -> (Snapshot, TransactionStart) {
        let mut start = 0;
        self.transactions.starts.change(|open| {
            start = self.write.memtables.visible();
            *open.entry(start).or_default() += 1;
        });
        let registration = TransactionStart { core: self.clone(), start };
        let (state, sequence) = self.write.memtables.read_point();
        assert!(sequence >= start, "the visible number never decreases");
        (Snapshot::new(state, sequence), registration)
    }

    /// See `Db::write_if`.
    pub(super) fn write_if(
        self: &Arc<Core>,
        batch: &WriteBatch,
        conditions: &[Precondition],
        durability: Durability,
    ) -> Result<SequenceNumber> {
        loop {
            self.shared().health.check_open()?;
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
            match self.write.commit(Commit { unchanged, ..Commit::new(batch.clone(), durability) }) {
                // Another writer has written one of the keys meanwhile; whether the conditions still hold is checked
                // again. One of the conflicting writers succeeds each time, so this ends.
                Err(Error::Conflict { .. }) => {}
                result => return result,
            }
        }
    }
}
