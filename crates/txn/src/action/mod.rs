//! The actions of the protocol, one per file. Each is a pure function of a command and a view, and returns an answer
//! and the batch to write. The caller holds the latches of the command's keys, so nothing changes between view and
//! write.
//!
//! Two rules hold for every action: a lock is deleted in the same batch that writes its commit or rollback record, and
//! an action that fails writes nothing.

mod check_secondary;
mod check_status;
mod cleanup;
mod commit;
mod heartbeat;
mod mutation;
mod pessimistic_lock;
mod pessimistic_rollback;
mod prewrite;
mod resolve;
mod rollback;

pub use check_secondary::{CheckSecondaryLocks, SecondaryStatus};
pub use check_status::{CheckTxnStatus, StatusAction, TxnStatus};
pub use cleanup::Cleanup;
pub use commit::Commit;
pub use heartbeat::TxnHeartBeat;
pub use mutation::{Mutation, MutationOp, PessimisticAction, Prewrite, Prewritten};
pub use pessimistic_lock::{KeyToLock, LockedKey, PessimisticLock};
pub use pessimistic_rollback::PessimisticRollback;
pub use resolve::ResolveLock;
pub use rollback::BatchRollback;

pub(crate) use check_secondary::check_secondary_locks;
pub(crate) use check_status::check_txn_status;
pub(crate) use cleanup::cleanup;
pub(crate) use commit::commit;
pub(crate) use heartbeat::txn_heart_beat;
pub(crate) use pessimistic_lock::pessimistic_lock;
pub(crate) use pessimistic_rollback::pessimistic_rollback;
pub(crate) use prewrite::prewrite;
pub(crate) use resolve::resolve_keys;
pub(crate) use rollback::batch_rollback;

use crate::error::ActionFailure;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, default_key, lock_key, write_key};
use crate::planted::{self, Bug};
use crate::read::MvccReader;
use crate::{ConflictReason, KeyError, Lock, LockKind, TimeStamp, Write, WriteKind};
use bytes::Bytes;
use kontiki_engine::WriteBatch;

/// An answer and what to write for it.
pub(crate) type ActionResult<T> = Result<(T, WriteBatch), ActionFailure>;

/// Turns a transaction's lock into its commit record.
fn commit_lock(
    batch: &mut WriteBatch,
    reader: &MvccReader<'_>,
    key: &[u8],
    lock: Lock,
    commit_ts: TimeStamp,
) -> Result<(), ActionFailure> {
    assert!(commit_ts > lock.start_ts, "checked when the command came in");
    let min_commit_ts = lock.lowest_commit_ts();
    if commit_ts < min_commit_ts && !planted::is_set(Bug::CommitBelowMinimum) {
        return Err(KeyError::CommitTsExpired {
            start_ts: lock.start_ts,
            attempted_commit_ts: commit_ts,
            key: key.to_vec().into(),
            min_commit_ts,
        }
        .into());
    }
    commit_record(batch, reader, key, lock, commit_ts)?;
    batch.delete(TXN_LOCK, lock_key(key));
    Ok(())
}

/// Writes the commit record of a transaction that holds `lock`, or would.
fn commit_record(
    batch: &mut WriteBatch,
    reader: &MvccReader<'_>,
    key: &[u8],
    lock: Lock,
    commit_ts: TimeStamp,
) -> Result<(), ActionFailure> {
    let kind = match lock.kind {
        LockKind::Put => WriteKind::Put,
        LockKind::Delete => WriteKind::Delete,
        LockKind::Lock => WriteKind::Lock,
        // It was never prewritten, so there is nothing to commit.
        LockKind::Pessimistic => return Err(lock_not_found(key, lock.start_ts, commit_ts)),
    };
    let overlapped_rollback = match reader.write_at(key, commit_ts)? {
        None => false,
        Some(other) if other.kind == WriteKind::Rollback => true,
        Some(other) => {
            let text = format!("commit timestamp {commit_ts} belongs to transaction {} already", other.start_ts);
            return Err(KeyError::Abort(text).into());
        }
    };
    let write = Write { kind, start_ts: lock.start_ts, short_value: lock.short_value, overlapped_rollback };
    assert!(write.start_ts < commit_ts, "a commit is later than its start");
    assert_ne!(write.kind, WriteKind::Rollback, "a lock becomes a record of its kind");
    batch.put(TXN_WRITE, write_key(key, commit_ts), write.encode());
    Ok(())
}

/// Removes a lock, and its value.
fn remove_lock(batch: &mut WriteBatch, key: &[u8], lock: &Lock) {
    if lock.kind == LockKind::Put && lock.short_value.is_none() && !planted::is_set(Bug::LeaveLongValue) {
        batch.delete(TXN_DEFAULT, default_key(key, lock.start_ts));
    }
    assert!(lock.kind == LockKind::Put || lock.short_value.is_none(), "only a put has a value");
    batch.delete(TXN_LOCK, lock_key(key));
}

/// Replaces a transaction's own lock by its rollback record.
fn rollback_lock(
    batch: &mut WriteBatch,
    reader: &MvccReader<'_>,
    key: &[u8],
    lock: &Lock,
) -> Result<(), ActionFailure> {
    remove_lock(batch, key, lock);
    let overlapped = reader.write_at(key, lock.start_ts)?;
    put_rollback(batch, key, lock.start_ts, overlapped);
    Ok(())
}

/// Writes a rollback record; `overlapped` is the record that stands at the start timestamp already, if any.
fn put_rollback(batch: &mut WriteBatch, key: &[u8], start_ts: TimeStamp, overlapped: Option<Write>) {
    let write = match overlapped {
        Some(other) if other.kind != WriteKind::Rollback => {
            assert_ne!(other.start_ts, start_ts, "a transaction does not commit at its start timestamp");
            Write { overlapped_rollback: true, ..other }
        }
        _ => Write::rollback(start_ts),
    };
    assert!(write.kind == WriteKind::Rollback || write.overlapped_rollback, "the rollback is on record");
    batch.put(TXN_WRITE, write_key(key, start_ts), write.encode());
}

/// The newest commit above `ts` (its start and commit timestamps). Rollbacks do not conflict: they changed nothing.
fn newer_commit(
    reader: &MvccReader<'_>,
    key: &[u8],
    ts: TimeStamp,
) -> Result<Option<(TimeStamp, TimeStamp)>, ActionFailure> {
    let mut writes = reader.writes(key, TimeStamp::MAX, ts.next())?;
    while let Some((commit_ts, write)) = writes.next()? {
        if write.kind != WriteKind::Rollback {
            assert!(commit_ts > ts, "the range begins above the timestamp");
            return Ok(Some((write.start_ts, commit_ts)));
        }
    }
    Ok(None)
}

fn write_conflict(
    start_ts: TimeStamp,
    primary: &Bytes,
    key: &Bytes,
    (conflict_start_ts, conflict_commit_ts): (TimeStamp, TimeStamp),
    reason: ConflictReason,
) -> ActionFailure {
    let (key, primary) = (key.clone(), primary.clone());
    KeyError::WriteConflict { start_ts, conflict_start_ts, conflict_commit_ts, key, primary, reason }.into()
}

fn pessimistic_lock_not_found(key: &Bytes, start_ts: TimeStamp) -> ActionFailure {
    KeyError::PessimisticLockNotFound { start_ts, key: key.clone() }.into()
}

fn lock_not_found(key: &[u8], start_ts: TimeStamp, commit_ts: TimeStamp) -> ActionFailure {
    KeyError::TxnLockNotFound { start_ts, commit_ts, key: key.to_vec().into() }.into()
}

/// The lock on the key if it is this transaction's.
fn own_lock(reader: &MvccReader<'_>, key: &[u8], start_ts: TimeStamp) -> Result<Option<Lock>, ActionFailure> {
    Ok(reader.lock(key)?.filter(|lock| lock.start_ts == start_ts))
}

#[cfg(test)]
#[path = "earlier_defects_test.rs"]
mod earlier_defects_tests;
