//! Prewrite: check every key and lock it.

use super::ActionResult;
use crate::error::ActionFailure;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, default_key, lock_key};
use crate::planted::{self, Bug};
use crate::read::{MvccReader, TxnRecord};
use crate::{
    Assertion, AssertionLevel, ConflictReason, Failure, KeyError, Lock, LockKind, SHORT_VALUE_BYTES_MAX, TimeStamp,
    WriteKind,
};
use bytes::Bytes;
use kontiki_engine::{BatchOp, View, WriteBatch};
use std::collections::BTreeSet;

/// What a mutation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MutationOp {
    /// Sets the value.
    Put(Bytes),
    /// Deletes the key.
    Delete,
    /// Changes nothing, but conflicts with other writers.
    Lock,
    /// Sets the value; fails if the key exists.
    Insert(Bytes),
    /// Fails if the key exists; locks nothing.
    CheckNotExists,
}

/// One key of a prewrite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The user key.
    pub key: Bytes,
    /// What happens to it.
    pub op: MutationOp,
    /// The state that the client expects of it.
    pub assertion: Assertion,
}

/// The first phase of a transaction's commit, for those of its keys that lie in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prewrite {
    /// The keys, each once.
    pub mutations: Vec<Mutation>,
    /// The primary: the key that decides the outcome, in this or another region.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// Milliseconds until others may roll it back.
    pub ttl_ms: u64,
    /// How many keys it writes in all; a hint.
    pub txn_size: u64,
    /// Minimum commit timestamp; 0 forbids readers to push it.
    pub min_commit_ts: TimeStamp,
    /// Not 0: a pessimistic transaction, which is refused.
    pub for_update_ts: TimeStamp,
    /// Which assertions are checked.
    pub assertion_level: AssertionLevel,
    /// Async commit is requested. It is declined: the locks are ordinary ones, and the answer says so.
    pub use_async_commit: bool,
    /// One-phase commit is requested. It is declined as well.
    pub try_one_pc: bool,
}

/// The answer of a successful prewrite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prewritten {
    /// Not 0: prewritten for async commit, with this minimum commit timestamp.
    pub min_commit_ts: TimeStamp,
    /// Not 0: committed in one phase at this timestamp.
    pub one_pc_commit_ts: TimeStamp,
}

/// Locks all keys or none. Locks of others are collected and reported together; any other error is reported alone.
/// Repeating a successful prewrite succeeds and changes nothing.
pub(crate) fn prewrite(command: &Prewrite, view: &dyn View) -> ActionResult<Prewritten> {
    check_command(command)?;
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    let mut locked = Vec::new();
    for mutation in &command.mutations {
        match prewrite_key(command, mutation, &reader, &mut batch) {
            Ok(()) => {}
            Err(Failure::Keys(errors)) if errors.iter().all(|error| matches!(error, KeyError::Locked(_))) => {
                locked.extend(errors);
            }
            Err(other) => return Err(other),
        }
    }
    if !locked.is_empty() {
        return Err(Failure::Keys(locked));
    }
    // Each key writes its lock, and perhaps a long value; nothing is deleted.
    assert!(batch.len() <= 2 * command.mutations.len(), "no key writes more");
    debug_assert!(batch.ops().all(|op| matches!(op, BatchOp::Put { family, .. } if family != TXN_WRITE)));
    // Async and one-phase commit are declined: both timestamps stay 0, and clients continue in two phases.
    Ok((Prewritten::default(), batch))
}

fn check_command(command: &Prewrite) -> Result<(), ActionFailure> {
    let abort = |text: &str| Err(KeyError::Abort(text.to_string()).into());
    if !command.for_update_ts.is_zero() {
        return abort("pessimistic transactions are not supported by this version: use optimistic ones");
    }
    if command.start_ts.is_zero() || command.start_ts.is_max() {
        return abort("a prewrite needs a start timestamp of the placement driver");
    }
    let distinct: BTreeSet<&Bytes> = command.mutations.iter().map(|mutation| &mutation.key).collect();
    if distinct.len() != command.mutations.len() {
        return abort("a key appears twice in one prewrite");
    }
    Ok(())
}

fn prewrite_key(
    command: &Prewrite,
    mutation: &Mutation,
    reader: &MvccReader<'_>,
    batch: &mut WriteBatch,
) -> Result<(), ActionFailure> {
    let key = &mutation.key;
    match reader.lock(key)? {
        Some(lock) if lock.start_ts == command.start_ts => return Ok(()),
        Some(lock) => return Err(KeyError::Locked(lock.info(key)).into()),
        None => {}
    }
    match reader.record_of(key, command.start_ts)? {
        TxnRecord::None { .. } => {}
        // A late repetition: the key was already locked and decided. Locking again would permit a second outcome.
        TxnRecord::Committed { .. } => return Ok(()),
        TxnRecord::RolledBack if planted::is_set(Bug::PrewriteAfterRollback) => {}
        TxnRecord::RolledBack => {
            let own = (command.start_ts, command.start_ts);
            return Err(conflict(command, key, own, ConflictReason::SelfRolledBack));
        }
    }
    if let Some(other) =
        newer_commit(reader, key, command.start_ts)?.filter(|_| !planted::is_set(Bug::MissNewerCommits))
    {
        return Err(conflict(command, key, other, ConflictReason::Optimistic));
    }
    check_existence(command, mutation, reader)?;
    let (kind, value) = match &mutation.op {
        MutationOp::Put(value) | MutationOp::Insert(value) => (LockKind::Put, Some(value)),
        MutationOp::Delete => (LockKind::Delete, None),
        MutationOp::Lock => (LockKind::Lock, None),
        MutationOp::CheckNotExists => return Ok(()),
    };
    let short_value = value.filter(|value| value.len() <= SHORT_VALUE_BYTES_MAX).cloned();
    if let Some(long) = value.filter(|value| value.len() > SHORT_VALUE_BYTES_MAX) {
        batch.put(TXN_DEFAULT, default_key(key, command.start_ts), long);
    }
    let lock = Lock {
        kind,
        start_ts: command.start_ts,
        primary: command.primary.clone(),
        ttl_ms: command.ttl_ms,
        short_value,
        for_update_ts: TimeStamp::ZERO,
        min_commit_ts: command.min_commit_ts,
        txn_size: command.txn_size,
        use_async_commit: false,
        secondaries: Vec::new(),
    };
    assert!(!lock.use_async_commit && lock.secondaries.is_empty(), "async commit is declined");
    batch.put(TXN_LOCK, lock_key(key), lock.encode());
    Ok(())
}

/// The newest commit above `start_ts` (its start and commit timestamps). Rollbacks of later transactions do not
/// conflict: they changed nothing.
fn newer_commit(
    reader: &MvccReader<'_>,
    key: &[u8],
    start_ts: TimeStamp,
) -> Result<Option<(TimeStamp, TimeStamp)>, ActionFailure> {
    let mut writes = reader.writes(key, TimeStamp::MAX, start_ts.next())?;
    while let Some((commit_ts, write)) = writes.next()? {
        if write.kind != WriteKind::Rollback {
            assert!(commit_ts > start_ts, "the range begins above the start timestamp");
            return Ok(Some((write.start_ts, commit_ts)));
        }
    }
    Ok(None)
}

fn check_existence(command: &Prewrite, mutation: &Mutation, reader: &MvccReader<'_>) -> Result<(), ActionFailure> {
    let insert = matches!(mutation.op, MutationOp::Insert(_) | MutationOp::CheckNotExists);
    let asserted = command.assertion_level != AssertionLevel::Off && mutation.assertion != Assertion::None;
    if !insert && !asserted {
        return Ok(());
    }
    let newest = reader.newest_change(&mutation.key, TimeStamp::MAX)?;
    let exists = newest.as_ref().is_some_and(|(_, write)| write.kind == WriteKind::Put);
    if insert && exists {
        return Err(KeyError::AlreadyExist { key: mutation.key.clone() }.into());
    }
    let holds = match mutation.assertion {
        Assertion::None => true,
        Assertion::Exist => exists,
        Assertion::NotExist => !exists,
    };
    if !asserted || holds {
        return Ok(());
    }
    let (existing_commit_ts, existing_start_ts) =
        newest.map_or((TimeStamp::ZERO, TimeStamp::ZERO), |(commit_ts, write)| (commit_ts, write.start_ts));
    Err(KeyError::AssertionFailed {
        start_ts: command.start_ts,
        key: mutation.key.clone(),
        assertion: mutation.assertion,
        existing_start_ts,
        existing_commit_ts,
    }
    .into())
}

fn conflict(
    command: &Prewrite,
    key: &Bytes,
    (conflict_start_ts, conflict_commit_ts): (TimeStamp, TimeStamp),
    reason: ConflictReason,
) -> ActionFailure {
    KeyError::WriteConflict {
        start_ts: command.start_ts,
        conflict_start_ts,
        conflict_commit_ts,
        key: key.clone(),
        primary: command.primary.clone(),
        reason,
    }
    .into()
}

#[cfg(test)]
#[path = "prewrite_test.rs"]
mod tests;
