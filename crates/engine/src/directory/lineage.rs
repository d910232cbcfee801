//! Which backups a directory comes from: the file `IDENTITY` in a database's directory.
//!
//! A file number identifies a content only within one history. A directory that was copied, or put back to an earlier
//! state, continues with numbers that the other history has used for other files. So each backup has a unique identity,
//! and the directory lists the backups of its past: a line for each, newest first. The next backup takes over files of
//! these backups only. The files of such a backup were files of this very history, and no later file has their numbers.
//!
//! A line has the identity, 16 hexadecimal digits, and the number that was above all files of the backup. A manifest
//! whose next file is below that number went back behind the backup; then the line is removed. Lines of earlier
//! versions, which had an identity for a directory, have no number; they are ignored.

use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::codec::hash64;
use kontiki_env::fs::{read_all, replace_file};
use parking_lot::Mutex;
use std::path::Path;

/// See the head of this file.
const IDENTITY: &str = "IDENTITY";
/// Backups that a directory remembers. Older ones are not searched for files that the newer ones do not have: only
/// a caller that alternates between more stores than this copies a file again.
const LINES_MAX: usize = 256;

/// Serializes changes of the file, of any directory: they are rare and short.
static CHANGES: Mutex<()> = Mutex::new(());

/// A backup of a directory's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ancestor {
    pub(crate) identity: u64,
    /// Above all numbers of its files.
    pub(crate) next_file: u64,
}

/// The backups of the directory's past, newest first. A file that cannot be read as one is no past.
pub(crate) fn ancestors(env: &Env, dir: &Path) -> Result<Vec<Ancestor>> {
    let path = dir.join(IDENTITY);
    if !env.fs.exists(&path) {
        return Ok(Vec::new());
    }
    let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Ancestor> {
    let (identity, next_file) = line.split_once(' ')?;
    Some(Ancestor { identity: u64::from_str_radix(identity, 16).ok()?, next_file: next_file.parse().ok()? })
}

/// Adds a backup that was made of the directory.
pub(crate) fn add(env: &Env, dir: &Path, backup: Ancestor) -> Result<()> {
    let _one = CHANGES.lock();
    let mut all = ancestors(env, dir)?;
    all.insert(0, backup);
    all.truncate(LINES_MAX);
    write(env, dir, &all)
}

/// Removes the backups that were made when the manifest was further than it is. At open.
pub(crate) fn forget_later_backups(env: &Env, dir: &Path, next_file: u64) -> Result<()> {
    let _one = CHANGES.lock();
    let mut all = ancestors(env, dir)?;
    let before = all.len();
    all.retain(|ancestor| ancestor.next_file <= next_file);
    if all.len() == before {
        return Ok(());
    }
    tracing::warn!(directory = %dir.display(), "the directory is older than its last backup: the next one copies more");
    write(env, dir, &all)
}

fn write(env: &Env, dir: &Path, all: &[Ancestor]) -> Result<()> {
    let line = |ancestor: &Ancestor| format!("{:016x} {}\n", ancestor.identity, ancestor.next_file);
    let text: String = all.iter().map(line).collect();
    replace_file(&*env.fs, dir, IDENTITY, text.as_bytes())
        .map(drop)
        .map_err(|error| Error::io(dir.join(IDENTITY), &error))
}

/// An identity that no other backup has, as far as time, path and state distinguish backups; `taken` are those that are
/// known. It need not be secret.
pub(crate) fn new_identity(env: &Env, dir: &Path, next_file: u64, taken: impl Fn(u64) -> bool) -> u64 {
    let process = if env.tasks.threaded() { std::process::id() } else { 1 };
    let (wall, monotonic) = (env.clock.wall_ms(), env.clock.monotonic());
    let identity =
        |again: u64| hash64(format!("{wall} {monotonic:?} {process} {next_file} {} {again}", dir.display()).as_bytes());
    (0..).map(identity).find(|identity| !taken(*identity)).expect("few are taken")
}
