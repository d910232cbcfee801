//! What can go wrong, separated by what to do about it.

use bytes::Bytes;
use kontiki_env::{ErrorKind, KeyText};
use std::time::Duration;

/// An error of the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's mistake: nothing was sent, or the server refused it for good.
    #[error("invalid argument: {0}")]
    Invalid(String),
    /// The operation did not finish in time and did not take effect (a transaction: it is or will be rolled back).
    /// Trying again is safe.
    #[error("not done within {} ms; the last obstacle: {last}", .after.as_millis())]
    Timeout {
        /// How long it was tried.
        after: Duration,
        /// Why the last try failed.
        last: String,
    },
    /// The operation may or may not have taken effect: a request was sent and its answer did not come. Read to find
    /// out; repeating a raw put or delete is safe if no other client writes the key.
    #[error("the outcome is unknown after {} ms: {last}", .after.as_millis())]
    Undetermined {
        /// How long it was tried.
        after: Duration,
        /// Why the last try failed.
        last: String,
    },
    /// Another transaction wrote a key of this one: begin again ([`crate::Client::transact`] does).
    #[error("write conflict on key {} with the transaction committed at {conflict_commit_ts}; begin again", KeyText(.key))]
    Conflict {
        /// The key.
        key: Bytes,
        /// When the other one committed; 0 if it has locked the key and not committed yet.
        conflict_commit_ts: u64,
    },
    /// An insert found its key present.
    #[error("key {} exists already", KeyText(.key))]
    AlreadyExists {
        /// The key.
        key: Bytes,
    },
    /// Two or more pessimistic transactions wait for each other, and this one was chosen to end that: roll it back, and
    /// begin again. The locks that it had before are still held.
    #[error("deadlock: key {} is locked by transaction {holder}, which waits for this one; begin again", KeyText(.key))]
    Deadlock {
        /// The key that could not be locked.
        key: Bytes,
        /// Start timestamp of the transaction that holds it.
        holder: u64,
        /// The circle, as far as the server reports it: each waits for the next one.
        chain: Vec<LockWait>,
    },
    /// Another transaction held a key for as long as this one waits for locks
    /// ([`crate::TransactionOptions::lock_wait`]). Locks that this one had before are still held: try the call again,
    /// or roll back.
    #[error("key {} is still locked by transaction {holder} after {} ms", KeyText(.key), .waited.as_millis())]
    LockWaitTimeout {
        /// The key.
        key: Bytes,
        /// Start timestamp of the transaction that holds it.
        holder: u64,
        /// How long this one waited.
        waited: Duration,
    },
    /// A commit timestamp that the caller chose is too low: a reader has pushed the transaction above it. The
    /// transaction is rolled back.
    #[error("the commit timestamp is too low for key {}: at least {min_commit_ts}", KeyText(.key))]
    CommitTsTooLow {
        /// The key.
        key: Bytes,
        /// The lowest that the server accepts.
        min_commit_ts: u64,
    },
    /// The transaction was rolled back, for instance because it outlived its locks: begin again.
    #[error("the transaction was rolled back: {0}; begin again")]
    RolledBack(String),
    /// The server reports an error that trying again does not mend.
    #[error("the server reports: {0}")]
    Server(String),
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Invalid(_) => ErrorKind::InvalidArgument,
            Error::Timeout { .. } | Error::LockWaitTimeout { .. } => ErrorKind::Retry,
            Error::Undetermined { .. } => ErrorKind::Io,
            Error::Conflict { .. }
            | Error::AlreadyExists { .. }
            | Error::Deadlock { .. }
            | Error::CommitTsTooLow { .. }
            | Error::RolledBack(_) => ErrorKind::Conflict,
            Error::Server(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same transaction, begun again, may succeed.
    pub fn is_transaction_retryable(&self) -> bool {
        matches!(
            self,
            Error::Conflict { .. } | Error::RolledBack(_) | Error::Deadlock { .. } | Error::LockWaitTimeout { .. }
        )
    }
}

/// A transaction that waits for a lock of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWait {
    /// Start timestamp of the one that waits.
    pub waiter: u64,
    /// Start timestamp of the one that holds the key.
    pub holder: u64,
    /// The key; empty if the server does not say.
    pub key: Bytes,
}
