//! The outcome of a transaction whose client has stopped: asked of its primary, or decided there, and carried out.
//!
//! With async commit the primary alone does not know: the transaction is committed if all its keys are prewritten, at
//! the greatest of their minimum commit timestamps. A key that is not prewritten gets a rollback record by being asked,
//! so the answer stays true whatever arrives later.

use super::stores::{CallError, Stores};
use bytes::Bytes;
use kontiki_proto::calls::{KvCheckSecondaryLocks, KvCheckTxnStatus, KvPessimisticRollback, KvResolveLock};
use kontiki_proto::kvrpcpb::{
    CheckSecondaryLocksRequest, CheckTxnStatusRequest, CheckTxnStatusResponse, KeyError, LockInfo,
    PessimisticRollbackRequest, ResolveLockRequest,
};
use kontiki_txn::{Lock, LockKind, TimeStamp};

/// What came of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    /// Its transaction goes on.
    Lives,
    /// It is committed or rolled back.
    Finished,
}

/// Finishes the transaction of a lock, as far as it concerns this key, if its client has stopped.
pub(super) async fn resolve<S: Stores>(
    stores: &S,
    key: &Bytes,
    lock: &Lock,
    now: TimeStamp,
) -> Result<Resolution, CallError> {
    let Some(commit_ts) = outcome(stores, lock, now).await? else { return Ok(Resolution::Lives) };
    if lock.kind == LockKind::Pessimistic {
        // Without a record: its client may have chosen another primary since, and may prewrite this key yet.
        let (start_version, for_update_ts) = (lock.start_ts.0, lock.for_update_ts.0);
        let keys = vec![key.clone()];
        let request = PessimisticRollbackRequest { start_version, for_update_ts, keys, ..Default::default() };
        let reply = stores.call::<KvPessimisticRollback>(key, request).await?;
        refuse(reply.errors.first())?;
        return Ok(Resolution::Finished);
    }
    carry_out(stores, lock.start_ts.0, commit_ts, vec![key.clone()]).await?;
    Ok(Resolution::Finished)
}

/// The commit timestamp, 0 if it is rolled back; `None`: it is not decided.
async fn outcome<S: Stores>(stores: &S, lock: &Lock, now: TimeStamp) -> Result<Option<u64>, CallError> {
    let status = check(stores, lock, now, false).await?;
    let Some(primary) = status.lock_info.filter(|_| status.lock_ttl > 0) else {
        return Ok(Some(status.commit_version));
    };
    let expires_ms = TimeStamp(primary.lock_version).physical_ms().saturating_add(primary.lock_ttl);
    if !primary.use_async_commit || expires_ms >= now.physical_ms() {
        return Ok(None);
    }
    match of_all_keys(stores, &primary).await? {
        Some(commit_ts) => {
            let keys = primary.secondaries.iter().cloned().chain([primary.primary_lock.clone()]).collect();
            carry_out(stores, primary.lock_version, commit_ts, keys).await?;
            Ok(Some(commit_ts))
        }
        // Some of its locks are ordinary ones, so its primary decides after all.
        None => {
            let status = check(stores, lock, now, true).await?;
            Ok(Some(status.commit_version).filter(|_| status.lock_ttl == 0))
        }
    }
}

async fn check<S: Stores>(
    stores: &S,
    lock: &Lock,
    now: TimeStamp,
    force_sync_commit: bool,
) -> Result<CheckTxnStatusResponse, CallError> {
    let request = CheckTxnStatusRequest {
        primary_key: lock.primary.clone(),
        lock_ts: lock.start_ts.0,
        caller_start_ts: 0,
        current_ts: now.0,
        rollback_if_not_exist: true,
        force_sync_commit,
        resolving_pessimistic_lock: lock.kind == LockKind::Pessimistic,
        ..Default::default()
    };
    let reply = stores.call::<KvCheckTxnStatus>(&lock.primary, request).await?;
    refuse(reply.error.as_ref())?;
    Ok(reply)
}

/// The outcome by all keys of an async commit; `None`: it is none, after all.
async fn of_all_keys<S: Stores>(stores: &S, primary: &LockInfo) -> Result<Option<u64>, CallError> {
    let mut commit_ts = primary.min_commit_ts;
    for keys in stores.by_region(&primary.secondaries).await? {
        let (first, count) = (keys.first().cloned().unwrap_or_default(), keys.len());
        let request = CheckSecondaryLocksRequest { keys, start_version: primary.lock_version, ..Default::default() };
        let reply = stores.call::<KvCheckSecondaryLocks>(&first, request).await?;
        refuse(reply.error.as_ref())?;
        if reply.locks.len() != count {
            return Ok(Some(reply.commit_ts));
        }
        if reply.locks.iter().any(|lock| !lock.use_async_commit) {
            return Ok(None);
        }
        commit_ts = reply.locks.iter().map(|lock| lock.min_commit_ts).fold(commit_ts, u64::max);
    }
    Ok(Some(commit_ts))
}

/// Commits or rolls back the locks on these keys.
async fn carry_out<S: Stores>(stores: &S, start_ts: u64, commit_ts: u64, keys: Vec<Bytes>) -> Result<(), CallError> {
    for keys in stores.by_region(&keys).await? {
        let first = keys.first().cloned().unwrap_or_default();
        let request =
            ResolveLockRequest { start_version: start_ts, commit_version: commit_ts, keys, ..Default::default() };
        let reply = stores.call::<KvResolveLock>(&first, request).await?;
        refuse(reply.error.as_ref())?;
    }
    Ok(())
}

fn refuse(error: Option<&KeyError>) -> Result<(), CallError> {
    error.map_or(Ok(()), |error| Err(CallError::Key(format!("{error:?}"))))
}

#[cfg(test)]
#[path = "outcome_test.rs"]
mod tests;
