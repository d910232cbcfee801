//! The directory of a database, apart from what is in its files: paths, locks, directories that are being made, and the
//! backups of a directory's past. All that opens, copies or inspects a directory builds on this.

pub(crate) mod copy_file;
mod dry_fs;
pub(crate) mod lineage;
pub(crate) mod unfinished;

pub(crate) use dry_fs::DryFs;

use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::fs::FileLock;
use std::path::{Path, PathBuf};

/// The name of the lock file.
pub(crate) const LOCK: &str = "LOCK";

/// The path from the root. Every path that outlives a call, or is used more than once in it, comes through here: the
/// process may change its working directory at any time, and a relative path would name another directory from
/// then on.
pub(crate) fn absolute(env: &Env, path: &Path) -> Result<PathBuf> {
    env.fs.absolute(path).map_err(|error| Error::io(path, &error))
}

/// Creates a directory with its parents, and makes every new name durable.
pub(crate) fn create_directory(env: &Env, path: &Path) -> Result<()> {
    let fs = &env.fs;
    let parent_of = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        Some(parent) => Some(parent.to_path_buf()),
        None => None,
    };
    let mut to_sync = Vec::new();
    let mut missing = path.to_path_buf();
    while !fs.exists(&missing) {
        let Some(parent) = parent_of(&missing) else { break };
        to_sync.push(parent.clone());
        missing = parent;
    }
    let existed = to_sync.is_empty();
    if existed {
        // It exists, but a crash may have come between its creation and the sync of its name.
        to_sync.extend(parent_of(path));
    }
    fs.create_dir_all(path).map_err(|error| Error::io(path, &error))?;
    for parent in to_sync.iter().rev() {
        match fs.sync_dir(parent) {
            // Another process made the directory for us, and its parent cannot be opened: that process is responsible
            // for the durability of the name.
            Err(error) if existed && error.kind() == std::io::ErrorKind::PermissionDenied => {}
            result => result.map_err(|error| Error::io(parent, &error))?,
        }
    }
    Ok(())
}

pub(crate) fn lock_directory(env: &Env, path: &Path) -> Result<Box<dyn FileLock>> {
    // In a stepped world everything on disk must be the same from the same seed.
    let process = if env.tasks.threaded() { std::process::id() } else { 1 };
    let holder = format!("kontiki, process {process}");
    let lock = path.join(LOCK);
    env.fs.lock(&lock, &holder).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse { directory: path.to_path_buf(), holder: error.to_string() },
        _ => Error::io(&lock, &error),
    })
}

/// Excludes writers from a directory that is only read; nothing is changed there. `None` if it was never open for
/// writing.
pub(crate) fn lock_to_read(env: &Env, path: &Path) -> Result<Option<Box<dyn FileLock>>> {
    let lock = path.join(LOCK);
    env.fs.lock_to_read(&lock).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse { directory: path.to_path_buf(), holder: error.to_string() },
        _ => Error::io(&lock, &error),
    })
}
