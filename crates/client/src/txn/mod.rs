//! Optimistic transactions (Percolator): reads at a start timestamp, writes buffered until the commit.

mod commit;
mod lock;
mod scan;
mod snapshot;
mod transaction;

pub(crate) use lock::LockResolver;
pub use scan::SnapshotScan;
pub use snapshot::Snapshot;
pub use transaction::Transaction;

use crate::Error;
use kontiki_proto::kvrpcpb::{KeyError, write_conflict::Reason};

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
    if let Some(lock) = error.locked {
        return Error::RolledBack(format!("locked by transaction {}", lock.lock_version));
    }
    if !error.retryable.is_empty() {
        return Error::RolledBack(error.retryable);
    }
    Error::Server(if error.abort.is_empty() { "an error without a text".to_string() } else { error.abort })
}
