//! The engine's errors, made of those of files.

use kontiki_engine::Error;
use std::io;
use std::path::Path;

/// A call that has had no effect that matters: it may be repeated after a full disk.
pub fn failed(path: &Path, error: &io::Error) -> Error {
    Error::io(path, error)
}

/// A call after which nothing more is written. It must never look as if it could be repeated, whatever the system's
/// reason is: after a failed sync the content of the file is unknown.
pub fn fatal(path: &Path, doing: &str, error: &io::Error) -> Error {
    let message = format!("{doing}: {error}");
    Error::Io { file: path.to_owned(), kind: io::ErrorKind::Other, message }
}

/// Damage.
pub fn damaged(path: &Path, offset: u64, what: impl std::fmt::Display) -> Error {
    Error::Corruption { file: path.to_owned(), offset, what: format!("raft log of a region: {what}") }
}
