//! The mark of a directory whose data differ from those of the other replicas: a node does not start with it again.
//!
//! A file beside the data, because the data themselves are in doubt. It is removed by hand, or with the directory.

use super::error::OpenError;
use kontiki_env::fs::{Fs, read_all, replace_file};
use kontiki_raftstore::Fault;
use std::path::Path;

/// The name of the mark, a file in the data directory.
pub const FILE: &str = "INCONSISTENT";

/// Marks the directory. The node stops anyway: if it cannot be marked, the next start serves until the next check.
pub(super) fn mark(fs: &dyn Fs, directory: &Path, fault: &Fault) {
    if let Err(error) = replace_file(fs, directory, FILE, format!("{fault}\n").as_bytes()) {
        tracing::error!("{} could not be written: {error}", directory.join(FILE).display());
    }
}

/// Refuses a directory that is marked.
pub(super) fn refuse_marked(fs: &dyn Fs, directory: &Path) -> Result<(), OpenError> {
    let path = directory.join(FILE);
    if !fs.exists(&path) {
        return Ok(());
    }
    let text = read_all(fs, &path).unwrap_or_default();
    let what = String::from_utf8_lossy(&text).trim().to_owned();
    Err(OpenError::Inconsistent { directory: directory.to_owned(), what, mark: FILE })
}
