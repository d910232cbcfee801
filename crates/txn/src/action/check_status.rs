//! CheckTxnStatus: ask a primary key for the outcome of its transaction, and decide it if its client has stopped.

use super::{ActionResult, own_lock, put_rollback, rollback_lock};
use crate::error::ActionFailure;
use crate::keys::{TXN_LOCK, lock_key};
use crate::planted::{self, Bug};
use crate::read::{MvccReader, TxnRecord};
use crate::{KeyError, Lock, LockInfo, LockKind, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Asks for a transaction's outcome at its primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckTxnStatus {
    /// The primary's user key.
    pub primary: Bytes,
    /// The transaction asked about.
    pub start_ts: TimeStamp,
    /// Start timestamp of the caller: commits at or below it are prevented if possible. MAX: a read of the newest
    /// version.
    pub caller_start_ts: TimeStamp,
    /// The current time, with which the time to live is compared. MAX: the lock counts as expired.
    pub current_ts: TimeStamp,
    /// If there is neither lock nor record: roll it back (otherwise that is an error).
    pub rollback_if_not_exist: bool,
    /// Treat an async-commit lock as an ordinary one.
    pub force_sync_commit: bool,
    /// The lock that led here is pessimistic.
    pub resolving_pessimistic_lock: bool,
    /// Fail if the lock names another primary.
    pub verify_is_primary: bool,
}

/// What was done about the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusAction {
    /// Nothing.
    None,
    /// Its time to live had ended: rolled back.
    TtlExpireRollback,
    /// It was unknown: a rollback record now keeps it from prewriting.
    LockNotExistRollback,
    /// It cannot commit at or below the caller's start timestamp any more.
    MinCommitTsPushed,
    /// Its pessimistic lock had expired: dropped.
    TtlExpirePessimisticRollback,
    /// It was unknown, and a pessimistic lock needs no record.
    LockNotExistDoNothing,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnStatus {
    /// Committed at this timestamp, if not 0.
    pub commit_ts: TimeStamp,
    /// The primary's lock as it is now: the transaction is undecided. Otherwise, with `commit_ts` 0, it is rolled
    /// back (or nothing is known, see the action). Its `ttl_ms` is never 0 here: see `check_txn_status`.
    pub lock: Option<LockInfo>,
    /// What was done.
    pub action: StatusAction,
}

impl TxnStatus {
    /// Milliseconds of the live lock, 0 if there is none.
    pub fn lock_ttl_ms(&self) -> u64 {
        self.lock.as_ref().map_or(0, |lock| lock.ttl_ms)
    }

    fn decided(commit_ts: TimeStamp, action: StatusAction) -> TxnStatus {
        TxnStatus { commit_ts, lock: None, action }
    }
}

/// Clients read a time to live of 0 as "no lock"; a live lock that was written with 0 is reported with 1.
const LIVE_TTL_MS_MIN: u64 = 1;

pub(crate) fn check_txn_status(command: &CheckTxnStatus, view: &dyn View) -> ActionResult<TxnStatus> {
    let reader = MvccReader::new(view);
    match own_lock(&reader, &command.primary, command.start_ts)? {
        Some(lock) => locked(command, &reader, lock),
        None => missing(command, &reader),
    }
}

fn locked(command: &CheckTxnStatus, reader: &MvccReader<'_>, mut lock: Lock) -> ActionResult<TxnStatus> {
    let key = &command.primary;
    let mut batch = WriteBatch::new();
    if command.verify_is_primary && lock.primary != *key {
        return Err(KeyError::PrimaryMismatch(lock.info(key)).into());
    }
    if lock.use_async_commit && !command.force_sync_commit && !planted::is_set(Bug::RollBackAsyncCommit) {
        return Ok((undecided(&lock, key, StatusAction::None), batch));
    }
    if lock.is_expired(command.current_ts) {
        if lock.kind == LockKind::Pessimistic && command.resolving_pessimistic_lock {
            batch.delete(TXN_LOCK, lock_key(key));
            return Ok((TxnStatus::decided(TimeStamp::ZERO, StatusAction::TtlExpirePessimisticRollback), batch));
        }
        rollback_lock(&mut batch, reader, key, &lock)?;
        return Ok((TxnStatus::decided(TimeStamp::ZERO, StatusAction::TtlExpireRollback), batch));
    }
    let caller = command.caller_start_ts;
    // 0 means that the client does not expect to be pushed.
    if !lock.min_commit_ts.is_zero() && !caller.is_max() && caller >= lock.min_commit_ts {
        let before = lock.min_commit_ts;
        lock.min_commit_ts = caller.next().max(command.current_ts);
        assert!(lock.min_commit_ts > before, "a minimum only rises");
        if !planted::is_set(Bug::PushInAnswerOnly) {
            batch.put(TXN_LOCK, lock_key(key), lock.encode());
        }
    }
    assert!(!lock.is_expired(command.current_ts), "it lives");
    let pushed = caller.is_max() || (!caller.is_zero() && lock.min_commit_ts > caller);
    let action = if pushed { StatusAction::MinCommitTsPushed } else { StatusAction::None };
    Ok((undecided(&lock, key, action), batch))
}

fn undecided(lock: &Lock, key: &[u8], action: StatusAction) -> TxnStatus {
    let mut info = lock.info(key);
    assert_eq!(info.start_ts, lock.start_ts, "the lock that was asked for");
    info.ttl_ms = info.ttl_ms.max(LIVE_TTL_MS_MIN);
    TxnStatus { commit_ts: TimeStamp::ZERO, lock: Some(info), action }
}

fn missing(command: &CheckTxnStatus, reader: &MvccReader<'_>) -> Result<(TxnStatus, WriteBatch), ActionFailure> {
    let mut batch = WriteBatch::new();
    let status = match reader.record_of(&command.primary, command.start_ts)? {
        TxnRecord::Committed { commit_ts } => TxnStatus::decided(commit_ts, StatusAction::None),
        TxnRecord::RolledBack => TxnStatus::decided(TimeStamp::ZERO, StatusAction::None),
        TxnRecord::None { .. } if !command.rollback_if_not_exist => {
            let primary = command.primary.clone();
            return Err(KeyError::TxnNotFound { start_ts: command.start_ts, primary }.into());
        }
        TxnRecord::None { .. } if command.resolving_pessimistic_lock => {
            TxnStatus::decided(TimeStamp::ZERO, StatusAction::LockNotExistDoNothing)
        }
        TxnRecord::None { overlapped } => {
            if !planted::is_set(Bug::RollBackWithoutRecord) {
                put_rollback(&mut batch, &command.primary, command.start_ts, overlapped);
            }
            TxnStatus::decided(TimeStamp::ZERO, StatusAction::LockNotExistRollback)
        }
    };
    assert!(status.lock.is_none(), "there is none");
    assert!(status.commit_ts.is_zero() || status.commit_ts > command.start_ts, "a commit is later than its start");
    Ok((status, batch))
}

#[cfg(test)]
#[path = "check_status_test.rs"]
mod tests;
