//! Snapshot reads: what a read at a timestamp sees, and which locks block it.

use super::MvccReader;
use crate::error::ActionFailure;
use crate::planted::{self, Bug};
use crate::yield_point::{ReadProgress, YieldPoint};
use crate::{KeyError, Lock, LockInfo, LockKind, TimeStamp, WriteKind};
use bytes::Bytes;
use kontiki_engine::View;
use std::collections::BTreeSet;

/// Which committed versions a read may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// A snapshot: locks that might commit at or below the timestamp block the read.
    #[default]
    Snapshot,
    /// Committed versions only, never blocked by locks; two reads may see different states.
    ReadCommitted,
    /// A snapshot at a timestamp at or below which nothing is committed any more: a lock in the view belongs to a
    /// transaction that commits above it, or never, so none blocks the read. The greatest read timestamp is not raised.
    Stale,
}

/// At which timestamp to read, and which locks are known already.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// Versions committed at or below it are seen. [`TimeStamp::MAX`]: the newest.
    pub ts: TimeStamp,
    /// The isolation.
    pub isolation: Isolation,
    /// Start timestamps of transactions that the reader knows to be rolled back, or to commit above `ts`.
    pub resolved_locks: BTreeSet<TimeStamp>,
    /// Start timestamps of transactions that the reader knows to be committed at or below `ts`.
    pub committed_locks: BTreeSet<TimeStamp>,
}

impl ReadOptions {
    /// A snapshot read at `ts`.
    pub fn at(ts: TimeStamp) -> ReadOptions {
        ReadOptions { ts, ..ReadOptions::default() }
    }
}

/// A value that a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The value; empty in key-only scans.
    pub value: Bytes,
    /// When it was committed; 0 if it was read through a committed lock (the reader knows when).
    pub commit_ts: TimeStamp,
}

/// A key of a batch read or scan: its value, or the lock that blocks the read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The user key.
    pub key: Bytes,
    /// What was found.
    pub outcome: Result<Version, LockInfo>,
}

impl Pair {
    /// Bytes of keys and values in it.
    pub(crate) fn answer_bytes(&self) -> usize {
        let outcome = match &self.outcome {
            Ok(version) => version.value.len(),
            Err(lock) => lock.answer_bytes(),
        };
        self.key.len() + outcome
    }
}

/// The effect of a lock on a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockCheck {
    /// Read the committed versions.
    Ignore,
    /// The lock's value is committed and visible.
    Committed,
    /// Its transaction might commit at or below the read's timestamp.
    Blocked,
}

pub(super) fn check_lock(lock: &Lock, key: &[u8], options: &ReadOptions) -> LockCheck {
    let harmless = options.isolation != Isolation::Snapshot
        || planted::is_set(Bug::ReadPastLocks)
        || lock.start_ts > options.ts
        || matches!(lock.kind, LockKind::Lock | LockKind::Pessimistic)
        || lock.min_commit_ts > options.ts
        || options.resolved_locks.contains(&lock.start_ts);
    if harmless {
        return LockCheck::Ignore;
    }
    debug_assert!(lock.start_ts <= options.ts && matches!(lock.kind, LockKind::Put | LockKind::Delete));
    if options.committed_locks.contains(&lock.start_ts) {
        return LockCheck::Committed;
    }
    // A read of the newest version is a transaction of one read: it may be ordered before a two-phase commit whose
    // primary lock it has just seen undecided. The other keys' locks may already be decided, so they do block the read.
    if options.ts.is_max() && lock.primary == key && !lock.use_async_commit {
        return LockCheck::Ignore;
    }
    LockCheck::Blocked
}

/// Whether a lock that is not replicated yet blocks a read. If the reader knows its transaction to be committed, then
/// this is a repeated prewrite, and the view has the outcome.
pub(crate) fn blocks_read(lock: &Lock, key: &[u8], options: &ReadOptions) -> bool {
    check_lock(lock, key, options) == LockCheck::Blocked
}

/// The value of a locked key whose transaction is known to be committed.
pub(super) fn locked_version(
    reader: &MvccReader<'_>,
    key: &[u8],
    lock: &Lock,
    key_only: bool,
) -> Result<Option<Version>, ActionFailure> {
    if lock.kind != LockKind::Put {
        return Ok(None);
    }
    let value = if key_only { Bytes::new() } else { reader.locked_value(key, lock)? };
    Ok(Some(Version { value, commit_ts: TimeStamp::ZERO }))
}

/// Reads one key.
pub(crate) fn get(view: &dyn View, key: &[u8], options: &ReadOptions) -> Result<Option<Version>, ActionFailure> {
    let reader = MvccReader::new(view);
    if options.isolation == Isolation::Snapshot
        && let Some(lock) = reader.lock(key)?
    {
        match check_lock(&lock, key, options) {
            LockCheck::Ignore => {}
            LockCheck::Committed => return locked_version(&reader, key, &lock, false),
            LockCheck::Blocked => return Err(KeyError::Locked(lock.info(key)).into()),
        }
    }
    match reader.newest_change(key, options.ts)? {
        Some((commit_ts, write)) if write.kind == WriteKind::Put => {
            assert!(commit_ts <= options.ts, "a snapshot does not see the future");
            Ok(Some(Version { value: reader.value(key, &write)?, commit_ts }))
        }
        _ => Ok(None),
    }
}

/// Reads several keys: pairs of the found and of the locked ones, in the requested order.
pub(crate) async fn batch_get(
    view: &dyn View,
    keys: &[Bytes],
    options: &ReadOptions,
    yields: &mut impl YieldPoint,
) -> Result<Vec<Pair>, ActionFailure> {
    let mut progress = ReadProgress::new(yields);
    let mut pairs = Vec::new();
    for key in keys {
        let outcome = match get(view, key, options) {
            Ok(None) => {
                progress.passed().await?;
                continue;
            }
            Ok(Some(version)) => Ok(version),
            Err(crate::Failure::Keys(errors)) => match <[KeyError; 1]>::try_from(errors) {
                Ok([KeyError::Locked(lock)]) => Err(lock),
                Ok([other]) => return Err(other.into()),
                Err(errors) => return Err(crate::Failure::Keys(errors)),
            },
            Err(other) => return Err(other),
        };
        let pair = Pair { key: key.clone(), outcome };
        let bytes = pair.answer_bytes();
        pairs.push(pair);
        progress.added::<Pair>(bytes).await?;
    }
    assert!(pairs.len() <= keys.len(), "at most one a key");
    Ok(pairs)
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
