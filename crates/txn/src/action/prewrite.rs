//! Prewrite: check every key and lock it, or, in one phase, commit it.
//!
//! A prewrite that computes the commit timestamp (async commit, one-phase commit) gets a lower bound of it, which
//! exceeds every read that could miss its locks ([`crate::ConcurrencyManager`]); without one it is declined: the locks
//! are ordinary ones, both timestamps of the answer are 0, and the client continues in two phases. A repeated prewrite
//! finds its locks or records and answers as the first one did.

use super::mutation::{Mutation, MutationOp, PessimisticAction, Prewrite, Prewritten};
use super::{ActionResult, commit_record, newer_commit, pessimistic_lock_not_found, write_conflict};
use crate::error::ActionFailure;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, default_key, lock_key};
use crate::planted::{self, Bug};
use crate::read::{MvccReader, TxnRecord};
use crate::{
    Assertion, AssertionLevel, ConflictReason, Failure, KeyError, Lock, LockKind, SHORT_VALUE_BYTES_MAX, TimeStamp,
    WriteKind,
};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};
use std::collections::BTreeSet;

/// What was found at a key.
enum Found {
    /// It is not locked by this transaction, or pessimistically: `held` is that lock.
    Open { held: Option<Lock> },
    /// It is prewritten; with the minimum commit timestamp if that was for async commit.
    Prewritten { async_commit: Option<TimeStamp> },
    /// It is committed.
    Committed { commit_ts: TimeStamp },
    /// It is checked, and not locked.
    Checked,
}

/// Locks all keys or none. Locks of others are collected and reported together; any other error is reported alone.
/// Repeating a successful prewrite succeeds and changes nothing. `computed`: a lower bound of the commit timestamp.
pub(crate) fn prewrite(command: &Prewrite, computed: Option<TimeStamp>, view: &dyn View) -> ActionResult<Prewritten> {
    check_command(command)?;
    let reader = MvccReader::new(view);
    let (mut locked, mut open, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for mutation in &command.mutations {
        match check_key(command, mutation, &reader) {
            Ok(Found::Open { held }) => open.push((mutation, held)),
            Ok(Found::Checked) => {}
            Ok(before) => repeated.push(before),
            Err(Failure::Keys(errors)) if errors.iter().all(|error| matches!(error, KeyError::Locked(_))) => {
                locked.extend(errors);
            }
            Err(other) => return Err(other),
        }
    }
    if !locked.is_empty() {
        return Err(Failure::Keys(locked));
    }
    if open.is_empty() {
        return Ok((answer_again(command, &repeated), WriteBatch::new()));
    }
    let held = open.iter().filter_map(|(_, held)| held.as_ref());
    let computed = computed.map(|ts| held.map(Lock::lowest_commit_ts).fold(ts, TimeStamp::max));
    let too_late = |ts: &TimeStamp| !command.max_commit_ts.is_zero() && *ts > command.max_commit_ts;
    let first_declined = repeated.iter().any(|found| matches!(found, Found::Prewritten { async_commit: None }));
    let computed = computed.filter(|ts| !too_late(ts) && !first_declined);
    let mut batch = WriteBatch::new();
    let answer = match computed {
        Some(ts) if command.is_whole() && repeated.is_empty() => {
            for (mutation, held) in open {
                commit_at_once(command, mutation, held.as_ref(), ts, &reader, &mut batch)?;
            }
            Prewritten { one_pc_commit_ts: ts, ..Prewritten::default() }
        }
        Some(ts) if command.use_async_commit => {
            let lowest = if planted::is_set(Bug::IgnoreMaxTs) { command.start_ts.next() } else { ts };
            for (mutation, held) in open {
                put_lock(&mut batch, mutation, lock_of(command, mutation, held.as_ref(), Some(lowest)));
            }
            let before = answer_again(command, &repeated).min_commit_ts;
            Prewritten { min_commit_ts: lowest.max(before), ..Prewritten::default() }
        }
        _ => {
            for (mutation, held) in open {
                put_lock(&mut batch, mutation, lock_of(command, mutation, held.as_ref(), None));
            }
            Prewritten::default()
        }
    };
    // Each key writes its lock or its record, and perhaps a long value; a record may replace a pessimistic lock.
    assert!(batch.len() <= 3 * command.mutations.len(), "no key writes more");
    Ok((answer, batch))
}

/// The answer to a repetition, by what the first one left.
fn answer_again(command: &Prewrite, repeated: &[Found]) -> Prewritten {
    let mut newest = TimeStamp::ZERO;
    let mut all_committed = !repeated.is_empty();
    for found in repeated {
        match found {
            Found::Prewritten { async_commit: None } => return Prewritten::default(),
            Found::Prewritten { async_commit: Some(ts) } => {
                newest = newest.max(*ts);
                all_committed = false;
            }
            Found::Committed { commit_ts } => newest = newest.max(*commit_ts),
            Found::Open { .. } | Found::Checked => {}
        }
    }
    match (command.try_one_pc && all_committed, command.use_async_commit) {
        (true, _) => Prewritten { one_pc_commit_ts: newest, ..Prewritten::default() },
        (_, true) => Prewritten { min_commit_ts: newest, ..Prewritten::default() },
        _ => Prewritten::default(),
    }
}

fn check_command(command: &Prewrite) -> Result<(), ActionFailure> {
    let abort = |text: &str| Err(KeyError::Abort(text.to_string()).into());
    if command.start_ts.is_zero() || command.start_ts.is_max() {
        return abort("a prewrite needs a start timestamp of the placement driver");
    }
    if command.is_pessimistic() && command.for_update_ts < command.start_ts {
        return abort("the for-update timestamp is below the start timestamp");
    }
    // A commit timestamp that is computed is above both: nothing could ever be written to the keys again.
    if command.for_update_ts.is_max() || command.min_commit_ts.is_max() {
        return abort("a prewrite with a for-update or minimum commit timestamp that no placement driver hands out");
    }
    let distinct: BTreeSet<&Bytes> = command.mutations.iter().map(|mutation| &mutation.key).collect();
    if distinct.len() != command.mutations.len() {
        return abort("a key appears twice in one prewrite");
    }
    Ok(())
}

fn check_key(command: &Prewrite, mutation: &Mutation, reader: &MvccReader<'_>) -> Result<Found, ActionFailure> {
    let key = &mutation.key;
    let must_hold = command.is_pessimistic() && mutation.pessimistic == PessimisticAction::CheckLock;
    let held = match reader.lock(key)? {
        Some(lock) if lock.start_ts != command.start_ts => {
            // Its own lock may have become a commit before the other transaction came.
            if let TxnRecord::Committed { commit_ts } = reader.record_of(key, command.start_ts)? {
                return Ok(Found::Committed { commit_ts });
            }
            return Err(if must_hold {
                pessimistic_lock_not_found(key, command.start_ts)
            } else {
                locked(command, &lock, key)
            });
        }
        Some(lock) if lock.kind != LockKind::Pessimistic => {
            return Ok(Found::Prewritten { async_commit: lock.use_async_commit.then_some(lock.min_commit_ts) });
        }
        held => held,
    };
    if let Some(lock) = &held {
        if !command.is_pessimistic() {
            let text = format!("transaction {} is pessimistic, its prewrite is not", command.start_ts);
            return Err(KeyError::Abort(text).into());
        }
        if mutation.expected_for_update_ts.is_some_and(|expected| expected != lock.for_update_ts) {
            return Err(pessimistic_lock_not_found(key, command.start_ts));
        }
        check_assertion(command, mutation, AssertionLevel::Strict, reader)?;
        return Ok(if mutation.op == MutationOp::CheckNotExists { Found::Checked } else { Found::Open { held } });
    }
    match reader.record_of(key, command.start_ts)? {
        TxnRecord::None { .. } => {}
        // A late repetition: the key was already locked and decided. Locking again would permit a second outcome.
        TxnRecord::Committed { commit_ts } => return Ok(Found::Committed { commit_ts }),
        TxnRecord::RolledBack if planted::is_set(Bug::PrewriteAfterRollback) => {}
        TxnRecord::RolledBack => {
            let own = (command.start_ts, command.start_ts);
            return Err(conflict(command, key, own, ConflictReason::SelfRolledBack));
        }
    }
    check_constraints(command, mutation, reader)?;
    Ok(if mutation.op == MutationOp::CheckNotExists { Found::Checked } else { Found::Open { held: None } })
}

/// The checks of a key on which the transaction holds no lock.
fn check_constraints(command: &Prewrite, mutation: &Mutation, reader: &MvccReader<'_>) -> Result<(), ActionFailure> {
    let key = &mutation.key;
    if command.is_pessimistic() && mutation.pessimistic == PessimisticAction::Skip {
        return check_assertion(command, mutation, AssertionLevel::Strict, reader);
    }
    let missed =
        planted::is_set(Bug::MissNewerCommits) || (command.try_one_pc && planted::is_set(Bug::OnePhaseSkipsConflicts));
    let missed = missed || (command.is_pessimistic() && planted::is_set(Bug::LosePessimisticLocks));
    if let Some(other) = newer_commit(reader, key, command.start_ts)?.filter(|_| !missed) {
        return Err(match command.is_pessimistic() && mutation.pessimistic == PessimisticAction::CheckLock {
            true => pessimistic_lock_not_found(key, command.start_ts),
            false => conflict(command, key, other, ConflictReason::Optimistic),
        });
    }
    if command.is_pessimistic() && mutation.pessimistic == PessimisticAction::CheckLock {
        // The lock is lost, but nothing was committed since the transaction began: it is as good as held.
        return check_assertion(command, mutation, AssertionLevel::Strict, reader);
    }
    let insert = matches!(mutation.op, MutationOp::Insert(_) | MutationOp::CheckNotExists);
    if insert && exists(reader.newest_change(key, TimeStamp::MAX)?.as_ref()) {
        return Err(KeyError::AlreadyExist { key: key.clone() }.into());
    }
    check_assertion(command, mutation, AssertionLevel::Fast, reader)
}

fn exists(newest: Option<&(TimeStamp, crate::Write)>) -> bool {
    newest.is_some_and(|(_, write)| write.kind == WriteKind::Put)
}

/// Checks the assertion if assertions of `level` are checked.
fn check_assertion(
    command: &Prewrite,
    mutation: &Mutation,
    level: AssertionLevel,
    reader: &MvccReader<'_>,
) -> Result<(), ActionFailure> {
    if command.assertion_level < level || mutation.assertion == Assertion::None {
        return Ok(());
    }
    let newest = reader.newest_change(&mutation.key, TimeStamp::MAX)?;
    if exists(newest.as_ref()) == (mutation.assertion == Assertion::Exist) {
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

/// The lock that the key gets; `async_commit` is its minimum commit timestamp then.
fn lock_of(command: &Prewrite, mutation: &Mutation, held: Option<&Lock>, async_commit: Option<TimeStamp>) -> Lock {
    let (kind, value) = match &mutation.op {
        MutationOp::Put(value) | MutationOp::Insert(value) => (LockKind::Put, Some(value)),
        MutationOp::Delete => (LockKind::Delete, None),
        MutationOp::Lock | MutationOp::CheckNotExists => (LockKind::Lock, None),
    };
    let pushed = held.map_or(TimeStamp::ZERO, |lock| lock.min_commit_ts);
    let is_primary = mutation.key == command.primary;
    Lock {
        kind,
        start_ts: command.start_ts,
        primary: command.primary.clone(),
        // A heartbeat may have prolonged it.
        ttl_ms: held.map_or(0, |lock| lock.ttl_ms).max(command.ttl_ms),
        short_value: value.filter(|value| value.len() <= SHORT_VALUE_BYTES_MAX).cloned(),
        for_update_ts: command.for_update_ts,
        min_commit_ts: async_commit.unwrap_or(command.min_commit_ts).max(pushed),
        txn_size: command.txn_size,
        use_async_commit: async_commit.is_some(),
        secondaries: if async_commit.is_some() && is_primary { command.secondaries.clone() } else { Vec::new() },
    }
}

fn put_long_value(batch: &mut WriteBatch, mutation: &Mutation, start_ts: TimeStamp) {
    if let MutationOp::Put(value) | MutationOp::Insert(value) = &mutation.op
        && value.len() > SHORT_VALUE_BYTES_MAX
    {
        batch.put(TXN_DEFAULT, default_key(&mutation.key, start_ts), value);
    }
}

fn put_lock(batch: &mut WriteBatch, mutation: &Mutation, lock: Lock) {
    put_long_value(batch, mutation, lock.start_ts);
    batch.put(TXN_LOCK, lock_key(&mutation.key), lock.encode());
}

fn commit_at_once(
    command: &Prewrite,
    mutation: &Mutation,
    held: Option<&Lock>,
    commit_ts: TimeStamp,
    reader: &MvccReader<'_>,
    batch: &mut WriteBatch,
) -> Result<(), ActionFailure> {
    let lock = lock_of(command, mutation, held, Some(commit_ts));
    put_long_value(batch, mutation, command.start_ts);
    commit_record(batch, reader, &mutation.key, lock, commit_ts)?;
    if held.is_some() {
        batch.delete(TXN_LOCK, lock_key(&mutation.key));
    }
    Ok(())
}

/// A pessimistic transaction does not wait for a lock when it prewrites: its client resolves it at once, whatever its
/// time to live.
fn locked(command: &Prewrite, lock: &Lock, key: &Bytes) -> ActionFailure {
    let mut info = lock.info(key);
    if command.is_pessimistic() {
        info.ttl_ms = 0;
    }
    KeyError::Locked(info).into()
}

fn conflict(command: &Prewrite, key: &Bytes, other: (TimeStamp, TimeStamp), reason: ConflictReason) -> ActionFailure {
    write_conflict(command.start_ts, &command.primary, key, other, reason)
}

#[cfg(test)]
#[path = "prewrite_test.rs"]
mod tests;
