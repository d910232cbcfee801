//! What can go wrong, separated by what the caller can do about it.

use kontiki_env::fs::is_out_of_descriptors;
use kontiki_env::{ErrorKind, KeyText};
use std::path::{Path, PathBuf};

/// Result with the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An engine error. Clone, because one failed group commit answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's mistake: the argument, the value given and the accepted range are named. Nothing was written.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The directory is open elsewhere; the holder is named.
    #[error("the directory {directory} is in use: {holder}; stop that process or use another directory")]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// What the lock file says of its holder.
        holder: String,
    },
    /// Bytes on disk are not what was written. Never retried, never skipped.
    #[error("corruption in {file} at offset {offset}: {what}{}", corruption_remedy(.what))]
    Corruption {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// A file of a newer or unknown format.
    #[error("{file}: {what}")]
    UnsupportedFormat {
        /// The file.
        file: PathBuf,
        /// The version found, the newest known, and the remedy.
        what: String,
    },
    /// A condition of the commit does not hold; nothing was written. Read again and try again.
    #[error("a conflicting write to key {} of {family:?}: read again and try again", KeyText(.key))]
    Conflict {
        /// The family of the key.
        family: crate::Family,
        /// A key that was written, or the first one of a range that was deleted. If only this is known, that a deletion
        /// may have been forgotten since: the condition's key, or the start of its range.
        key: bytes::Bytes,
    },
    /// A transaction has waited for a lock for its maximum time; it can continue without the lock.
    #[error(
        "waited {waited_ms} ms for the lock of key {} of {family:?}, which another transaction holds: try again, or \
         raise lock_wait_ms of its options",
        KeyText(.key)
    )]
    LockTimeout {
        /// The family of the key.
        family: crate::Family,
        /// The key.
        key: bytes::Bytes,
        /// The limit, `TransactionOptions::lock_wait_ms`, or 0 where a wait could not end.
        waited_ms: u64,
    },
    /// To wait for a lock would have been for ever: its holder waits, perhaps through others, for this transaction.
    /// Roll back, so that they make progress, and try again.
    #[error("deadlock of transactions over the keys {}: roll back and try again", cycle(.keys))]
    Deadlock {
        /// The keys of the cycle: the one asked for, then the one that its holder waits for, and so on.
        keys: Vec<(crate::Family, bytes::Bytes)>,
    },
    /// A transaction has reached a bound of its options. What was asked for last did not happen.
    #[error("a transaction has reached {option} = {limit}; commit in smaller parts or raise it")]
    TransactionTooLarge {
        /// The field of `TransactionOptions`.
        option: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The log does not hold the writes behind this number any more, so a change feed cannot give them. Read a
    /// snapshot, and subscribe from its sequence number.
    #[error(
        "the changes after sequence number {after} are gone; the oldest that can be read is {oldest_sequence}: read a \
         snapshot and subscribe from its number, and raise feed_retention_bytes if that happens often"
    )]
    ChangesGone {
        /// The last number that the subscriber has.
        after: crate::SequenceNumber,
        /// Every logged batch from this number on can be read.
        oldest_sequence: crate::SequenceNumber,
    },
    /// A key is written more often than `HotKeyOptions::write_limit_per_second` allows; nothing was written.
    #[error(
        "key {} of {family:?} is written more than {limit_per_second} times a second: try again in {retry_after_ms} ms, \
         or spread the writes over several keys",
        KeyText(.key)
    )]
    Throttled {
        /// The family of the key.
        family: crate::Family,
        /// The key.
        key: bytes::Bytes,
        /// The limit.
        limit_per_second: u64,
        /// When it can be written again, if no other write comes first.
        retry_after_ms: u64,
    },
    /// No space left. Nothing of this write is visible or durable; it can be tried again once there is space, without
    /// opening the database again.
    #[error("no space left for {what}: free some space and try again")]
    NoSpace {
        /// What was being written.
        what: String,
    },
    /// The process or the machine has no descriptor left to open a file with. Nothing of this call has happened; it may
    /// be tried again once some are closed.
    #[error(
        "no descriptor left to open {what}: close files or connections of this process, or raise its limit (`ulimit -n`); \
         then try again"
    )]
    NoDescriptors {
        /// What was to be opened.
        what: String,
    },
    /// A copy has waited for writes in progress for its maximum time. Nothing was copied; try again when writes make
    /// progress.
    #[error("waited {waited_ms} ms for {what}: try again when writers are not held up")]
    Busy {
        /// What was waited for.
        what: String,
        /// For how long.
        waited_ms: u64,
    },
    /// The operating system refused; after a failed sync the database takes no more writes until it is reopened.
    #[error("I/O error on {file}: {message}{}", io_remedy(*.kind))]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's kind of error.
        kind: std::io::ErrorKind,
        /// The system's text.
        message: String,
    },
    /// The directory was removed, moved or replaced while the database was open. Writes have stopped.
    #[error(
        "the directory {directory} was removed, moved or replaced while it was open: what is written is not kept there \
         any more; move it back, or restore it, and open it again"
    )]
    DirectoryLost {
        /// The directory.
        directory: PathBuf,
    },
    /// An earlier fatal error (a failed sync, corruption met in the background) stopped writes; reads continue.
    #[error("the database takes no writes since: {0}; reopen it after mending the cause")]
    Stopped(String),
    /// A thread that worked for the database has panicked: a broken invariant of ours, please report it. Writes have
    /// stopped, because what that thread was at may be half done in memory; what is on disk is whole.
    #[error("{task} panicked: {message}; reopen the database, and please report this")]
    Panicked {
        /// What the thread was doing: the name of a background job, or of a step of a caller.
        task: String,
        /// What the panic said.
        message: String,
    },
    /// The family was dropped. Nothing was written.
    #[error("{family:?} was dropped; create a family with a number that was never used")]
    FamilyDropped {
        /// The family.
        family: crate::Family,
    },
    /// The database was opened to be read only.
    #[error("the database is open for reading only; open it with Db::open to write")]
    ReadOnly,
    /// The database is closed.
    #[error("the database is closed")]
    Closed,
    /// A broken invariant of ours: please report it.
    #[error("bug: {0}")]
    Bug(String),
}

/// What a user can do about damage, unless `what` says it.
fn corruption_remedy(what: &str) -> &'static str {
    match what.contains("`kontiki ") {
        true => "",
        false => {
            "; `kontiki check` lists all that is damaged, and `kontiki repair` saves what is whole into a new directory"
        }
    }
}

/// What a user can do about an I/O error. Kinds that only programs meet have none.
fn io_remedy(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind as Kind;
    match kind {
        Kind::PermissionDenied => "; let this user read and write there, or run as the owner of the directory",
        Kind::ReadOnlyFilesystem => "; mount the file system for writing, or use another directory",
        Kind::NotADirectory | Kind::IsADirectory | Kind::AlreadyExists => "; use another path",
        Kind::NotFound => "; check the path, and that nothing else removes files there",
        Kind::StorageFull | Kind::QuotaExceeded => "; free some space, and open the directory again",
        Kind::Other => "",
        _ => "; the disk or its file system fails: see the system's log, and move the data to another disk",
    }
}

fn cycle(keys: &[(crate::Family, bytes::Bytes)]) -> String {
    let keys: Vec<String> = keys.iter().map(|(family, key)| format!("{} of {family:?}", KeyText(key))).collect();
    keys.join(", ")
}

impl Error {
    /// Whether it is the path that was given, or what it names, that has to change before the same can succeed: it does
    /// not exist, may not be used, or is of another kind.
    pub fn is_about_the_path(&self) -> bool {
        use std::io::ErrorKind as Kind;
        let kinds = [
            Kind::PermissionDenied,
            Kind::ReadOnlyFilesystem,
            Kind::NotADirectory,
            Kind::IsADirectory,
            Kind::AlreadyExists,
            Kind::NotFound,
        ];
        matches!(self, Error::Io { kind, .. } if kinds.contains(kind))
    }

    /// From an I/O error on `file`, sorting out a full disk and a lack of descriptors.
    pub fn io(file: impl Into<PathBuf>, error: &std::io::Error) -> Error {
        let file = file.into();
        if is_out_of_descriptors(error) {
            return Error::NoDescriptors { what: file.display().to_string() };
        }
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Error::NoSpace { what: file.display().to_string() }
            }
            kind => Error::Io { file, kind, message: error.to_string() },
        }
    }

    /// From a failed sync of `file`. It is an I/O error even if the system reports a full disk: it must never look
    /// retryable.
    pub(crate) fn failed_sync(file: &Path, error: &std::io::Error) -> Error {
        if is_out_of_descriptors(error) {
            return Error::io(file, error); // a directory could not be opened, so nothing was lost
        }
        Error::Io { file: file.to_path_buf(), kind: error.kind(), message: format!("sync failed: {error}") }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::InUse { .. }
            | Error::LockTimeout { .. }
            | Error::Throttled { .. }
            | Error::NoSpace { .. }
            | Error::NoDescriptors { .. }
            | Error::Busy { .. } => ErrorKind::Retry,
            Error::InvalidArgument(_)
            | Error::UnsupportedFormat { .. }
            | Error::TransactionTooLarge { .. }
            | Error::ReadOnly => ErrorKind::InvalidArgument,
            Error::ChangesGone { .. } | Error::FamilyDropped { .. } => ErrorKind::NotFound,
            Error::Conflict { .. } | Error::Deadlock { .. } => ErrorKind::Conflict,
            Error::Corruption { .. } => ErrorKind::Corruption,
            Error::Io { .. } | Error::DirectoryLost { .. } => ErrorKind::Io,
            Error::Stopped(_) | Error::Panicked { .. } | Error::Closed => ErrorKind::Stopped,
            Error::Bug(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same write can succeed later without reopening.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::NoSpace { .. } | Error::NoDescriptors { .. } | Error::Throttled { .. })
    }
}
