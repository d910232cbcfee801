//! How the scripts of [`crate::script_test`] write timestamps, keys, records and answers.

use crate::testing::{MapStore, TestError};
use crate::*;
use ::bytes::Bytes;
use std::error::Error;
use std::fmt::Write as _;

/// `12`, `5000ms` (the physical part), or `max`.
pub(crate) fn timestamp(text: &str) -> std::result::Result<TimeStamp, Box<dyn Error>> {
    if text == "max" {
        return Ok(TimeStamp::MAX);
    }
    Ok(match text.strip_suffix("ms") {
        Some(physical) => TimeStamp::compose(physical.parse()?, 0),
        None => TimeStamp(text.parse()?),
    })
}

/// One byte for each character: scripts write any byte as `"\xff"`.
pub(crate) fn bytes(text: &str) -> Bytes {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("a byte")).collect()
}

/// `a.b.c`
pub(crate) fn key_list(text: &str) -> Vec<Bytes> {
    text.split('.').map(bytes).collect()
}

/// As scripts write it.
pub(crate) fn ts(ts: TimeStamp) -> String {
    match (ts.is_max(), ts.physical_ms(), ts.logical()) {
        (true, ..) => "max".to_owned(),
        (_, 0, logical) => logical.to_string(),
        (_, physical, 0) => format!("{physical}ms"),
        (_, physical, logical) => format!("{physical}ms+{logical}"),
    }
}

/// Long values by their length.
fn value(value: &[u8]) -> String {
    match value.len() {
        0..=20 => format!("\"{}\"", value.escape_ascii()),
        length => format!("{length} bytes"),
    }
}

pub(crate) fn describe_version(version: &Version) -> String {
    format!("{} (committed at {})", value(&version.value), ts(version.commit_ts))
}

pub(crate) fn describe_lock(lock: &LockInfo) -> String {
    let mut text = format!("lock {}: ", lock.key.escape_ascii());
    text += match lock.kind {
        LockKind::Put => "put",
        LockKind::Delete => "delete",
        LockKind::Lock => "lock",
        LockKind::Pessimistic => "pessimistic",
    };
    let _ = write!(text, " by {}, primary {}, ttl {}", ts(lock.start_ts), lock.primary.escape_ascii(), lock.ttl_ms);
    if !lock.min_commit_ts.is_zero() {
        let _ = write!(text, ", min_commit_ts {}", ts(lock.min_commit_ts));
    }
    if !lock.for_update_ts.is_zero() {
        let _ = write!(text, ", for_update_ts {}", ts(lock.for_update_ts));
    }
    if lock.use_async_commit {
        let keys: Vec<String> = lock.secondaries.iter().map(|key| key.escape_ascii().to_string()).collect();
        let _ = write!(text, ", async commit with [{}]", keys.join(" "));
    }
    text
}

fn describe_write(write: &Write) -> String {
    let start_ts = ts(write.start_ts);
    let mut text = match (write.kind, &write.short_value) {
        (WriteKind::Put, Some(short)) => format!("put by {start_ts}, {}", value(short)),
        (WriteKind::Put, None) => format!("put by {start_ts}, value in the default family"),
        (WriteKind::Delete, _) => format!("delete by {start_ts}"),
        (WriteKind::Lock, _) => format!("lock by {start_ts}"),
        (WriteKind::Rollback, _) => "rollback".to_owned(),
    };
    if write.overlapped_rollback {
        text += ", and a rollback of the transaction with that timestamp";
    }
    text
}

/// All entries of the three families, a line each.
pub(crate) fn describe_state(store: &MapStore) -> Vec<String> {
    let versioned = |physical: &[u8]| {
        let (encoded, at) = keys::split_versioned(physical).unwrap();
        format!("{}@{}", memcomparable_decode(encoded).unwrap().escape_ascii(), ts(at))
    };
    let mut lines = Vec::new();
    for (physical, record) in store.family(TXN_LOCK) {
        let (key, lock) = (memcomparable_decode(&physical).unwrap(), Lock::decode(&record).unwrap());
        let short = lock.short_value.as_ref().map(|short| format!(", {}", value(short))).unwrap_or_default();
        lines.push(describe_lock(&lock.info(&key)) + &short);
    }
    for (physical, record) in store.family(TXN_WRITE) {
        lines.push(format!("write {}: {}", versioned(&physical), describe_write(&Write::decode(&record).unwrap())));
    }
    for (physical, long) in store.family(TXN_DEFAULT) {
        lines.push(format!("default {}: {}", versioned(&physical), value(&long)));
    }
    lines
}

pub(crate) fn describe_status(status: &TxnStatus) -> String {
    let outcome = match &status.lock {
        Some(lock) => format!("undecided, {}", describe_lock(lock)),
        None if status.commit_ts.is_zero() => "rolled back".to_owned(),
        None => format!("committed at {}", ts(status.commit_ts)),
    };
    let action = match status.action {
        StatusAction::None => "nothing was done",
        StatusAction::TtlExpireRollback => "its time to live had ended, it was rolled back now",
        StatusAction::LockNotExistRollback => "it was unknown, a rollback record now refuses its prewrite",
        StatusAction::MinCommitTsPushed => "it cannot commit at or below the caller's timestamp",
        StatusAction::TtlExpirePessimisticRollback => "its pessimistic lock had expired and was removed",
        StatusAction::LockNotExistDoNothing => "it was unknown, and needs no record",
    };
    format!("{outcome}: {action}")
}

/// The answer to a request for pessimistic locks.
pub(crate) fn describe_locked(keys: &[Bytes], locked: &[LockedKey]) -> String {
    assert_eq!(keys.len(), locked.len(), "an answer for each key");
    let describe = |(key, locked): (&Bytes, &LockedKey)| {
        let mut text = match (&locked.value, locked.exists) {
            (Some(found), _) => format!("{}: {}", key.escape_ascii(), value(found)),
            (None, true) => format!("{}: exists", key.escape_ascii()),
            (None, false) => key.escape_ascii().to_string(),
        };
        if !locked.conflict_ts.is_zero() {
            let _ = write!(text, " (in spite of a commit at {})", ts(locked.conflict_ts));
        }
        text
    };
    format!("locked {}", keys.iter().zip(locked).map(describe).collect::<Vec<_>>().join(", "))
}

pub(crate) fn describe_failure(failure: &Failure<TestError>) -> String {
    match failure {
        Failure::Keys(errors) => errors.iter().map(describe_error).collect::<Vec<_>>().join("\n       "),
        other => other.to_string(),
    }
}

fn describe_error(error: &KeyError) -> String {
    let (key, text) = match error {
        KeyError::Locked(lock) => return format!("blocked by {}", describe_lock(lock)),
        KeyError::PrimaryMismatch(lock) => return format!("not the primary: {}", describe_lock(lock)),
        KeyError::WriteConflict { conflict_start_ts, conflict_commit_ts, key, reason, .. } => {
            let other = format!("{}, committed at {}", ts(*conflict_start_ts), ts(*conflict_commit_ts));
            (key, format!("write conflict with {other}: {reason}"))
        }
        KeyError::TxnLockNotFound { key, start_ts, commit_ts } => {
            (key, format!("transaction {} holds no lock to commit at {}", ts(*start_ts), ts(*commit_ts)))
        }
        KeyError::AlreadyExist { key } => (key, error.to_string()),
        KeyError::CommitTsExpired { key, .. } | KeyError::AlreadyCommitted { key, .. } => (key, error.to_string()),
        KeyError::AssertionFailed { key, existing_commit_ts, .. } => {
            (key, format!("{error}; newest change at {}", ts(*existing_commit_ts)))
        }
        KeyError::PessimisticLockNotFound { key, start_ts } => {
            (key, format!("transaction {} does not hold its pessimistic lock", ts(*start_ts)))
        }
        KeyError::Deadlock { key, waits_for, wait_chain } => {
            let steps = wait_chain.iter().map(|wait| format!("{} waits for {}", ts(wait.waiter), ts(wait.holder)));
            let steps = steps.collect::<Vec<_>>().join(", ");
            (key, format!("deadlock: {} holds it, {steps}", ts(*waits_for)))
        }
        KeyError::TxnNotFound { primary, start_ts } => (primary, format!("transaction {} not found", ts(*start_ts))),
        KeyError::BelowSafePoint { .. } => return error.to_string(),
        KeyError::Abort(text) => return text.clone(),
    };
    format!("key {}: {text}", key.escape_ascii())
}

/// The encodings of keys, in hexadecimal, in the order in which the families sort them.
pub(crate) fn describe_physical(keys: &[Bytes]) -> String {
    let mut physical: Vec<(Vec<u8>, String)> = Vec::new();
    for key in keys {
        physical.push((lock_key(key), format!("lock of \"{}\"", key.escape_ascii())));
        for at in [9, 10] {
            physical.push((write_key(key, TimeStamp(at)), format!("\"{}\"@{at}", key.escape_ascii())));
        }
    }
    physical.sort();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    physical.iter().map(|(bytes, name)| format!("{} {name}", hex(bytes))).collect::<Vec<_>>().join("\n")
}
