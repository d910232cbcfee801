//! ResolveLock: carry out on other keys what a transaction's primary has decided.

use super::{ActionResult, commit_lock, remove_lock, rollback_lock};
use crate::read::MvccReader;
use crate::{KeyError, LockKind, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};
use std::collections::BTreeMap;

/// Commits or rolls back locks of decided transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolveLock {
    /// Start timestamps and their commit timestamps; 0 is rolled back.
    pub txns: BTreeMap<TimeStamp, TimeStamp>,
    /// Only these user keys; empty: every lock of the transactions in the region.
    pub keys: Vec<Bytes>,
}

/// Resolves the locks that the transactions hold on `keys`. A key that none of them locks is skipped: another client
/// has resolved it.
///
/// A rollback below `safe_point`, the view's, leaves no record: no prewrite is accepted there any more. The record
/// could fall on that of another commit, which would be written anew although other replicas may have dropped it
/// together with the newer one that hides it.
pub(crate) fn resolve_keys(
    txns: &BTreeMap<TimeStamp, TimeStamp>,
    keys: &[Bytes],
    safe_point: TimeStamp,
    view: &dyn View,
) -> ActionResult<()> {
    for (start_ts, commit_ts) in txns {
        if !commit_ts.is_zero() && (commit_ts <= start_ts || commit_ts.is_max()) {
            let text = format!("the commit timestamp {commit_ts} is not above the start timestamp {start_ts}");
            return Err(KeyError::Abort(text).into());
        }
    }
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    for key in keys {
        let Some(lock) = reader.lock(key)? else { continue };
        match txns.get(&lock.start_ts) {
            None => {}
            Some(commit_ts) if commit_ts.is_zero() || lock.kind == LockKind::Pessimistic => {
                if lock.start_ts < safe_point {
                    remove_lock(&mut batch, key, &lock);
                } else {
                    rollback_lock(&mut batch, &reader, key, &lock)?;
                }
            }
            Some(commit_ts) => commit_lock(&mut batch, &reader, key, lock, *commit_ts)?,
        }
    }
    assert!(batch.len() <= 3 * keys.len(), "one record put, one lock and one value deleted per key");
    Ok(((), batch))
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
