//! Errors, separated by what the caller can do about them.

use crate::{Assertion, LockInfo, Malformed, TimeStamp};
use bytes::Bytes;
use std::convert::Infallible;
use std::fmt;

/// Why a write conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictReason {
    /// Another transaction committed the key after this one began.
    Optimistic,
    /// Another transaction committed the key after the for-update timestamp of a pessimistic lock: lock again with a
    /// new one.
    PessimisticRetry,
    /// This transaction was already rolled back on the key.
    SelfRolledBack,
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConflictReason::Optimistic => "another transaction committed the key later",
            ConflictReason::PessimisticRetry => "another transaction committed the key after the for-update timestamp",
            ConflictReason::SelfRolledBack => "this transaction was rolled back on the key before",
        })
    }
}

/// One transaction waits for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// The one that waits.
    pub waiter: TimeStamp,
    /// The one that holds the key.
    pub holder: TimeStamp,
    /// The key.
    pub key: Bytes,
}

/// An error of the transaction protocol. Nothing of the command was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Another transaction holds the key: resolve its lock, then try again.
    #[error("key is locked by transaction {}", .0.start_ts)]
    Locked(LockInfo),
    /// Begin again with a newer start timestamp.
    #[error("write conflict: transaction {start_ts} meets {conflict_commit_ts} ({reason})")]
    WriteConflict {
        /// The transaction that asked.
        start_ts: TimeStamp,
        /// The other transaction.
        conflict_start_ts: TimeStamp,
        /// When the other committed (its start timestamp for a rollback).
        conflict_commit_ts: TimeStamp,
        /// The key.
        key: Bytes,
        /// Primary key of the transaction that asked.
        primary: Bytes,
        /// Why.
        reason: ConflictReason,
    },
    /// An insert found the key present.
    #[error("the key exists already")]
    AlreadyExist {
        /// The key.
        key: Bytes,
    },
    /// There is no lock and no record of the transaction: it has not prewritten yet, or never will.
    #[error("transaction {start_ts} not found")]
    TxnNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The requested key.
        primary: Bytes,
    },
    /// A commit found no lock of its transaction and no commit record: it was rolled back, or never prewritten.
    #[error("TxnLockNotFound: transaction {start_ts} holds no lock to commit at {commit_ts}")]
    TxnLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The requested commit timestamp (0 in a heartbeat).
        commit_ts: TimeStamp,
        /// The key.
        key: Bytes,
    },
    /// A reader pushed the lock's minimum past this commit timestamp: commit again with a new timestamp.
    #[error("commit timestamp {attempted_commit_ts} is below the lock's minimum {min_commit_ts}")]
    CommitTsExpired {
        /// The transaction.
        start_ts: TimeStamp,
        /// The requested commit timestamp.
        attempted_commit_ts: TimeStamp,
        /// The key.
        key: Bytes,
        /// The minimum that is accepted.
        min_commit_ts: TimeStamp,
    },
    /// The client's assertion about the key is false: a bug of the client, or a lost write of the store.
    #[error("transaction {start_ts} asserts that the key {assertion}, which is false")]
    AssertionFailed {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Bytes,
        /// What was asserted.
        assertion: Assertion,
        /// Start timestamp of the version found, 0 if none.
        existing_start_ts: TimeStamp,
        /// Commit timestamp of the version found, 0 if none.
        existing_commit_ts: TimeStamp,
    },
    /// The lock on the requested key names another primary.
    #[error("the key is not the primary of transaction {}", .0.start_ts)]
    PrimaryMismatch(LockInfo),
    /// A rollback found the transaction committed.
    #[error("transaction {start_ts} is committed at {commit_ts}")]
    AlreadyCommitted {
        /// The transaction.
        start_ts: TimeStamp,
        /// When.
        commit_ts: TimeStamp,
        /// The key.
        key: Bytes,
    },
    /// A pessimistic transaction prewrites a key of which it has lost its lock: begin again.
    #[error("PessimisticLockNotFound: transaction {start_ts} does not hold its lock any more")]
    PessimisticLockNotFound {
        /// The transaction.
        start_ts: TimeStamp,
        /// The key.
        key: Bytes,
    },
    /// Waiting for the key would never end, because each of these transactions waits for the next one.
    #[error("deadlock: transaction {waits_for}, which holds the key, waits for this one")]
    Deadlock {
        /// The transaction that holds the key.
        waits_for: TimeStamp,
        /// The key whose lock was asked for.
        key: Bytes,
        /// From the holder of the key to the transaction that asked, each waiting for the next one.
        wait_chain: Vec<WaitFor>,
    },
    /// Versions that a transaction of this age needs may be gone: begin again. Clients look for the first words.
    #[error(
        "GC life time is shorter than transaction duration, transaction starts at {start_ts}, GC safe point is \
         {safe_point}"
    )]
    BelowSafePoint {
        /// The transaction's start timestamp, or that of the read.
        start_ts: TimeStamp,
        /// Nothing below it is served.
        safe_point: TimeStamp,
    },
    /// The command can never succeed; the text says why.
    #[error("{0}")]
    Abort(String),
}

/// Why a command has no answer; `E` is the error of the [`crate::Replicated`] underneath.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure<E: fmt::Debug + fmt::Display> {
    /// The protocol's errors, never empty. More than one only when a prewrite met several locks.
    #[error("{}", Many(.0))]
    Keys(Vec<KeyError>),
    /// The layer below refused, or does not know the outcome (then the write may still happen).
    #[error("{0}")]
    Replicated(E),
    /// The oracle gave no timestamp, which the first async commit or one-phase commit of a leader needs. Nothing was
    /// written.
    #[error("no timestamp of the oracle: {0}")]
    NoTimestamp(E),
    /// Reading failed, or a key or value is beyond the engine's limits.
    #[error("{0}")]
    Storage(StorageError),
    /// A stored record is not what was written.
    #[error("corruption at key {}: {what}", .key.escape_ascii())]
    Corrupt {
        /// The physical key.
        key: Bytes,
        /// What was found.
        what: &'static str,
    },
}

/// An engine error, comparable by its text.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct StorageError(#[from] pub kontiki_engine::Error);

impl PartialEq for StorageError {
    fn eq(&self, other: &StorageError) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for StorageError {}

struct Many<'a>(&'a [KeyError]);

impl fmt::Display for Many<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [one] => write!(f, "{one}"),
            many => write!(f, "{} keys are locked", many.len()),
        }
    }
}

/// A failure of a pure action, which has no layer below that can fail.
pub(crate) type ActionFailure = Failure<Infallible>;

impl ActionFailure {
    /// The same failure among those of a scheduler.
    pub(crate) fn lift<E: fmt::Debug + fmt::Display>(self) -> Failure<E> {
        match self {
            Failure::Keys(errors) => {
                assert!(!errors.is_empty(), "a failure names its errors");
                Failure::Keys(errors)
            }
            Failure::Storage(error) => Failure::Storage(error),
            Failure::Corrupt { key, what } => Failure::Corrupt { key, what },
            Failure::Replicated(never) | Failure::NoTimestamp(never) => match never {},
        }
    }

    /// A record at `key` that does not decode.
    pub(crate) fn corrupt(key: &[u8], what: Malformed) -> ActionFailure {
        Failure::Corrupt { key: Bytes::copy_from_slice(key), what: what.0 }
    }
}

impl<E: fmt::Debug + fmt::Display> From<KeyError> for Failure<E> {
    fn from(error: KeyError) -> Failure<E> {
        Failure::Keys(vec![error])
    }
}

impl<E: fmt::Debug + fmt::Display> From<kontiki_engine::Error> for Failure<E> {
    fn from(error: kontiki_engine::Error) -> Failure<E> {
        Failure::Storage(StorageError(error))
    }
}
