//! CheckSecondaryLocks: are all these keys of an async-commit transaction prewritten?

use super::rollback::rollback_key;
use super::{ActionResult, own_lock};
use crate::read::MvccReader;
use crate::{LockInfo, LockKind, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Asks about a transaction's keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSecondaryLocks {
    /// The user keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecondaryStatus {
    /// Every key is locked.
    Locked(Vec<LockInfo>),
    /// Committed at this timestamp.
    Committed(TimeStamp),
    /// Rolled back, by this call or before.
    RolledBack,
}

/// The first key without a (prewritten) lock decides: it is committed, or is rolled back by this call.
pub(crate) fn check_secondary_locks(command: &CheckSecondaryLocks, view: &dyn View) -> ActionResult<SecondaryStatus> {
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    let mut locks = Vec::new();
    for key in &command.keys {
        match own_lock(&reader, key, command.start_ts)? {
            Some(lock) if lock.kind != LockKind::Pessimistic => locks.push(lock.info(key)),
            _ => {
                let status = match rollback_key(&mut batch, &reader, key, command.start_ts)? {
                    Some(commit_ts) => SecondaryStatus::Committed(commit_ts),
                    None => SecondaryStatus::RolledBack,
                };
                return Ok((status, batch));
            }
        }
    }
    assert_eq!(locks.len(), command.keys.len(), "each key has a lock");
    Ok((SecondaryStatus::Locked(locks), batch))
}

#[cfg(test)]
#[path = "check_secondary_test.rs"]
mod tests;
