//! Errors in replies, and what follows from them.

use crate::{Error, LockWait, Result};
use kontiki_proto::ANSWER_TOO_LARGE;
use kontiki_proto::kvrpcpb::{Deadlock, KeyError, KvPair, LockInfo, write_conflict::Reason};

/// In the text with which servers refuse the prewrite of a key whose pessimistic lock is gone.
const PESSIMISTIC_LOCK_LOST: &str = "PessimisticLockNotFound";

/// The caller's error for an error about a key. Locks are resolved before.
pub(crate) fn error_of(error: KeyError) -> Error {
    if let Some(conflict) = error.conflict {
        if conflict.reason == Reason::SelfRolledBack as i32 {
            return Error::RolledBack("another client found it abandoned".to_string());
        }
        return Error::Conflict { key: conflict.key, conflict_commit_ts: conflict.conflict_commit_ts };
    }
    if let Some(exists) = error.already_exist {
        return Error::AlreadyExists { key: exists.key };
    }
    if error.txn_lock_not_found.is_some() {
        return Error::RolledBack("its locks were removed; it took longer than their time to live".to_string());
    }
    if let Some(deadlock) = error.deadlock {
        return deadlock_of(deadlock);
    }
    if let Some(expired) = error.commit_ts_expired {
        return Error::CommitTsTooLow { key: expired.key, min_commit_ts: expired.min_commit_ts };
    }
    if error.abort.contains(PESSIMISTIC_LOCK_LOST) {
        return Error::RolledBack("a lock was lost; it took longer than its time to live".to_string());
    }
    if let Some(lock) = error.locked {
        return Error::RolledBack(format!("locked by transaction {}", lock.lock_version));
    }
    if !error.retryable.is_empty() {
        return Error::RolledBack(error.retryable);
    }
    Error::Server(if error.abort.is_empty() { "an error without a text".to_string() } else { error.abort })
}

fn deadlock_of(deadlock: Deadlock) -> Error {
    let waits = deadlock.wait_chain.into_iter();
    let chain = waits.map(|entry| LockWait { waiter: entry.txn, holder: entry.wait_for_txn, key: entry.key }).collect();
    Error::Deadlock { key: deadlock.lock_key, holder: deadlock.lock_ts, chain }
}

/// The locks among errors about keys; anything else is the caller's error.
pub(crate) fn locks_of(errors: Vec<KeyError>) -> Result<Vec<LockInfo>> {
    errors
        .into_iter()
        .map(|mut error| match error.locked.take() {
            Some(lock) => Ok(lock),
            None => Err(error_of(error)),
        })
        .collect()
}

/// The caller's error for an error that is only a text.
pub(crate) fn check(error: String) -> Result<()> {
    if error.is_empty() { Ok(()) } else { Err(Error::Server(error)) }
}

/// The pairs of an answer; `None` if it would have been too large, so that the client has to ask for fewer. Such
/// answers can contain an error in their first pair only.
pub(crate) fn pairs_of(mut pairs: Vec<KvPair>) -> Result<Option<Vec<KvPair>>> {
    match pairs.first_mut().and_then(|pair| pair.error.take()) {
        None => Ok(Some(pairs)),
        Some(error) if too_large(&error) => Ok(None),
        Some(error) => Err(error_of(*error)),
    }
}

/// Whether a server reports that its answer would have been too large: the client has to ask for fewer keys at a time.
pub(crate) fn too_large(error: &KeyError) -> bool {
    error.abort.starts_with(ANSWER_TOO_LARGE)
}

/// How many keys to ask for after an answer to `asked` of them would have been too large.
pub(crate) fn fewer(asked: usize) -> Result<usize> {
    if asked > 1 { Ok(asked / 2) } else { Err(Error::Server("a single value is larger than an answer may be".into())) }
}
