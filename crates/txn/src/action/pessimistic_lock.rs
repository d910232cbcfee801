//! Pessimistic locks: taken while a transaction runs, before it is known what it writes.

use super::{ActionResult, newer_commit, write_conflict};
use crate::error::ActionFailure;
use crate::keys::{TXN_LOCK, lock_key};
use crate::planted::{self, Bug};
use crate::read::{MvccReader, TxnRecord};
use crate::{ConflictReason, Failure, KeyError, Lock, LockKind, TimeStamp, WriteKind};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};
use std::collections::BTreeSet;

/// A key to lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyToLock {
    /// The user key.
    pub key: Bytes,
    /// Fail if the key has a value.
    pub must_not_exist: bool,
}

/// Locks keys of one region for a pessimistic transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PessimisticLock {
    /// The keys, each once.
    pub keys: Vec<KeyToLock>,
    /// The key that will decide the transaction.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds until others may roll it back.
    pub ttl_ms: u64,
    /// The keys are read at this timestamp; a newer commit is a conflict.
    pub for_update_ts: TimeStamp,
    /// Minimum commit timestamp; 0 forbids readers to push it.
    pub min_commit_ts: TimeStamp,
    /// Answer the values.
    pub return_values: bool,
    /// Answer whether the keys have values.
    pub check_existence: bool,
    /// Do not lock keys without a value. Only with `return_values`.
    pub lock_only_if_exists: bool,
    /// Lock keys with commits newer than the for-update timestamp, too, and answer their newest values.
    pub allow_conflict: bool,
}

/// A key that was locked (or, with `lock_only_if_exists`, found absent).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockedKey {
    /// Its value, if it has one and values were asked for.
    pub value: Option<Bytes>,
    /// Whether it has a value; only known if values or existence were asked for.
    pub exists: bool,
    /// Not 0: the commit above the for-update timestamp in spite of which the key was locked. It is the newest one, and
    /// the value is of then.
    pub conflict_ts: TimeStamp,
}

impl PessimisticLock {
    fn reads(&self) -> bool {
        self.return_values || self.check_existence || self.lock_only_if_exists
    }
}

/// Locks all keys or none; the answer is in the order of the keys. Repeating it succeeds, and may raise the for-update
/// timestamp.
pub(crate) fn pessimistic_lock(command: &PessimisticLock, view: &dyn View) -> ActionResult<Vec<LockedKey>> {
    check_command(command)?;
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    let mut answer = Vec::with_capacity(command.keys.len());
    let mut locked = Vec::new();
    for key in &command.keys {
        match lock_one(command, key, &reader, &mut batch) {
            Ok(found) => answer.push(found),
            Err(Failure::Keys(errors)) if matches!(errors[..], [KeyError::Locked(_)]) => locked.extend(errors),
            Err(other) => return Err(other),
        }
    }
    if !locked.is_empty() {
        return Err(Failure::Keys(locked));
    }
    assert_eq!(answer.len(), command.keys.len(), "clients rely on one answer a key");
    assert!(batch.len() <= command.keys.len(), "one lock a key");
    Ok((answer, batch))
}

fn check_command(command: &PessimisticLock) -> Result<(), ActionFailure> {
    let abort = |text: &str| Err(KeyError::Abort(text.to_string()).into());
    if command.start_ts.is_zero() || command.start_ts.is_max() {
        return abort("a pessimistic lock needs a start timestamp of the placement driver");
    }
    if command.for_update_ts < command.start_ts || command.for_update_ts.is_max() {
        return abort("the for-update timestamp is not a timestamp at or above the start timestamp");
    }
    if command.lock_only_if_exists && !command.return_values {
        return abort("lock_only_if_exists needs return_values");
    }
    let distinct: BTreeSet<&Bytes> = command.keys.iter().map(|key| &key.key).collect();
    if distinct.len() != command.keys.len() {
        return abort("a key appears twice in one request for locks");
    }
    Ok(())
}

fn lock_one(
    command: &PessimisticLock,
    KeyToLock { key, must_not_exist }: &KeyToLock,
    reader: &MvccReader<'_>,
    batch: &mut WriteBatch,
) -> Result<LockedKey, ActionFailure> {
    let held = match reader.lock(key)? {
        Some(lock) if lock.start_ts != command.start_ts => return Err(KeyError::Locked(lock.info(key)).into()),
        Some(lock) if lock.kind != LockKind::Pessimistic => {
            let text = format!("transaction {} has prewritten the key already", command.start_ts);
            return Err(KeyError::Abort(text).into());
        }
        held => held,
    };
    // Also if the key is held already: perhaps in spite of that commit, by a first try whose answer was lost.
    let conflict = newer_commit(reader, key, command.for_update_ts)?;
    if held.is_none() {
        check_undecided(command, key, reader)?;
    }
    if let Some(other) = conflict.filter(|_| !command.allow_conflict) {
        return Err(write_conflict(command.start_ts, &command.primary, key, other, ConflictReason::PessimisticRetry));
    }
    let conflict_ts = conflict.map_or(TimeStamp::ZERO, |(_, commit_ts)| commit_ts);
    let read_ts = command.for_update_ts.max(conflict_ts);
    let found = if command.reads() || *must_not_exist || !conflict_ts.is_zero() {
        reader.newest_change(key, read_ts)?.filter(|(_, write)| write.kind == WriteKind::Put)
    } else {
        None
    };
    if *must_not_exist && found.is_some() {
        return Err(KeyError::AlreadyExist { key: key.clone() }.into());
    }
    let wants_value = command.return_values || !conflict_ts.is_zero();
    let value = found.as_ref().filter(|_| wants_value).map(|(_, write)| reader.value(key, write)).transpose()?;
    let answer = LockedKey { value, exists: found.is_some(), conflict_ts };
    if command.lock_only_if_exists && found.is_none() && held.is_none() {
        return Ok(LockedKey { conflict_ts: TimeStamp::ZERO, ..answer });
    }
    put_lock(command, key, held, read_ts, batch);
    Ok(answer)
}

/// A transaction whose outcome on the key is on record takes no lock any more.
fn check_undecided(command: &PessimisticLock, key: &Bytes, reader: &MvccReader<'_>) -> Result<(), ActionFailure> {
    let start_ts = command.start_ts;
    match reader.record_of(key, start_ts)? {
        TxnRecord::None { .. } => Ok(()),
        TxnRecord::Committed { commit_ts } => {
            Err(KeyError::AlreadyCommitted { start_ts, commit_ts, key: key.clone() }.into())
        }
        TxnRecord::RolledBack => {
            let own = (start_ts, start_ts);
            Err(write_conflict(start_ts, &command.primary, key, own, ConflictReason::SelfRolledBack))
        }
    }
}

fn put_lock(
    command: &PessimisticLock,
    key: &Bytes,
    held: Option<Lock>,
    for_update_ts: TimeStamp,
    batch: &mut WriteBatch,
) {
    let lock = match &held {
        Some(before) => Lock {
            ttl_ms: before.ttl_ms.max(command.ttl_ms),
            for_update_ts: before.for_update_ts.max(for_update_ts),
            min_commit_ts: before.min_commit_ts.max(command.min_commit_ts),
            ..before.clone()
        },
        None => Lock {
            kind: LockKind::Pessimistic,
            start_ts: command.start_ts,
            primary: command.primary.clone(),
            ttl_ms: command.ttl_ms,
            short_value: None,
            for_update_ts,
            min_commit_ts: command.min_commit_ts,
            txn_size: 0,
            use_async_commit: false,
            secondaries: Vec::new(),
        },
    };
    // Those of every second transaction.
    let is_lost = planted::is_set(Bug::LosePessimisticLocks) && command.start_ts.physical_ms().is_multiple_of(2);
    if held.as_ref() != Some(&lock) && !is_lost {
        batch.put(TXN_LOCK, lock_key(key), lock.encode());
    }
}

#[cfg(test)]
#[path = "pessimistic_lock_test.rs"]
mod tests;
