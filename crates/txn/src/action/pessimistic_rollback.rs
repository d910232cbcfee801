//! Pessimistic rollback: gives locks back that were taken and are not needed.

use super::{ActionResult, own_lock};
use crate::keys::{TXN_LOCK, lock_key};
use crate::read::MvccReader;
use crate::{LockKind, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Removes a transaction's pessimistic locks on some keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PessimisticRollback {
    /// The user keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Locks with a greater for-update timestamp stay: they were taken later.
    pub for_update_ts: TimeStamp,
}

/// Removes the locks without a record: nothing was prewritten, and the transaction may lock the keys again.
pub(crate) fn pessimistic_rollback(command: &PessimisticRollback, view: &dyn View) -> ActionResult<()> {
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    for key in &command.keys {
        let lock = own_lock(&reader, key, command.start_ts)?;
        let is_meant =
            lock.is_some_and(|lock| lock.kind == LockKind::Pessimistic && lock.for_update_ts <= command.for_update_ts);
        if is_meant {
            batch.delete(TXN_LOCK, lock_key(key));
        }
    }
    assert!(batch.len() <= command.keys.len(), "one lock a key");
    Ok(((), batch))
}
