//! Rollback: remove locks, and make sure that the transaction can never prewrite these keys again.

use super::{ActionResult, own_lock, put_rollback, rollback_lock};
use crate::error::ActionFailure;
use crate::planted::{self, Bug};
use crate::read::{MvccReader, TxnRecord};
use crate::{KeyError, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Rolls back a transaction on some keys of one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRollback {
    /// The user keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
}

/// Rolls back all keys or none. Locks of other transactions stay. Repeating it succeeds and changes nothing.
pub(crate) fn batch_rollback(command: &BatchRollback, view: &dyn View) -> ActionResult<()> {
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    for key in &command.keys {
        if let Some(commit_ts) = rollback_key(&mut batch, &reader, key, command.start_ts)? {
            let &BatchRollback { start_ts, .. } = command;
            return Err(KeyError::AlreadyCommitted { start_ts, commit_ts, key: key.clone() }.into());
        }
    }
    assert!(batch.len() <= 3 * command.keys.len(), "one record put, one lock and one value deleted per key");
    Ok(((), batch))
}

/// Rolls back one key, unless it is committed: then returns the commit timestamp, and adds nothing to the batch.
pub(super) fn rollback_key(
    batch: &mut WriteBatch,
    reader: &MvccReader<'_>,
    key: &[u8],
    start_ts: TimeStamp,
) -> Result<Option<TimeStamp>, ActionFailure> {
    if let Some(lock) = own_lock(reader, key, start_ts)? {
        rollback_lock(batch, reader, key, &lock)?;
        return Ok(None);
    }
    match reader.record_of(key, start_ts)? {
        TxnRecord::Committed { commit_ts } => return Ok(Some(commit_ts)),
        TxnRecord::RolledBack => {}
        // The prewrite may still be in flight: the record will refuse it.
        TxnRecord::None { .. } if planted::is_set(Bug::RollBackWithoutRecord) => {}
        TxnRecord::None { overlapped } => put_rollback(batch, key, start_ts, overlapped),
    }
    Ok(None)
}

#[cfg(test)]
#[path = "rollback_test.rs"]
mod tests;
