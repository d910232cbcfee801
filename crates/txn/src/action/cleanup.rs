//! Cleanup: an older form of rollback on one key, which respects the time to live.

use super::rollback::rollback_key;
use super::{ActionResult, own_lock};
use crate::read::MvccReader;
use crate::{KeyError, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Rolls back a transaction on one key if its time to live has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleanup {
    /// The user key.
    pub key: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// The current time; 0 rolls back at once, regardless of the time to live.
    pub current_ts: TimeStamp,
}

/// Returns the commit timestamp if the transaction is committed on the key, 0 if it is rolled back (by this call or
/// before). A live lock is an error, and so is one with async commit.
pub(crate) fn cleanup(command: &Cleanup, view: &dyn View) -> ActionResult<TimeStamp> {
    let reader = MvccReader::new(view);
    if let Some(lock) = own_lock(&reader, &command.key, command.start_ts)? {
        let lives = !command.current_ts.is_zero() && !lock.is_expired(command.current_ts);
        // With async commit it may be committed without its primary: only all its keys together say so.
        if lives || lock.use_async_commit {
            return Err(KeyError::Locked(lock.info(&command.key)).into());
        }
    }
    let mut batch = WriteBatch::new();
    let committed = rollback_key(&mut batch, &reader, &command.key, command.start_ts)?;
    assert!(committed.is_none() || batch.is_empty(), "a commit is not changed");
    Ok((committed.unwrap_or(TimeStamp::ZERO), batch))
}

#[cfg(test)]
#[path = "cleanup_test.rs"]
mod tests;
