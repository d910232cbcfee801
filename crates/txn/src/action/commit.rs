//! Commit: turn locks into commit records.

use super::{ActionResult, commit_lock, lock_not_found, own_lock};
use crate::read::{MvccReader, TxnRecord};
use crate::{KeyError, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// The second phase of a transaction's commit, for those of its keys that lie in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The user keys.
    pub keys: Vec<Bytes>,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Taken after every prewrite succeeded.
    pub commit_ts: TimeStamp,
}

/// Commits all keys or none; returns the commit timestamp. Repeating it succeeds and changes nothing.
pub(crate) fn commit(command: &Commit, view: &dyn View) -> ActionResult<TimeStamp> {
    let &Commit { start_ts, commit_ts, .. } = command;
    if commit_ts <= start_ts || commit_ts.is_max() {
        let text = format!("the commit timestamp {commit_ts} is not above the start timestamp {start_ts}");
        return Err(KeyError::Abort(text).into());
    }
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    for key in &command.keys {
        match own_lock(&reader, key, start_ts)? {
            Some(lock) => commit_lock(&mut batch, &reader, key, lock, commit_ts)?,
            // A missing lock proves nothing; only write records do.
            None => match reader.record_of(key, start_ts)? {
                TxnRecord::Committed { .. } => {}
                TxnRecord::RolledBack | TxnRecord::None { .. } => {
                    return Err(lock_not_found(key, start_ts, commit_ts));
                }
            },
        }
    }
    assert!(batch.len() <= 2 * command.keys.len(), "one record put and one lock deleted per key");
    Ok((commit_ts, batch))
}

#[cfg(test)]
#[path = "commit_test.rs"]
mod tests;
