//! Directories that are being made: a checkpoint, a restored backup, what a repair has saved.
//!
//! The file `UNFINISHED` is the first in such a directory and is removed when `CURRENT` exists. With it, and without
//! `CURRENT`, the directory is no database, and an open does not take it for a new one, however early the copy ended.

use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::fs::{list_if_there, replace_file};
use std::path::Path;

const UNFINISHED: &str = "UNFINISHED";
const TEXT: &[u8] = b"A copy into this directory has begun. If it does not go on, remove the directory.\n";

/// Begins a directory that does not exist or is empty.
pub(crate) fn begin(env: &Env, dir: &Path) -> Result<()> {
    refuse_unless_empty(env, dir)?;
    let io = |error: std::io::Error| Error::io(dir, &error);
    env.fs.create_dir_all(dir).map_err(io)?;
    replace_file(&*env.fs, dir, UNFINISHED, TEXT).map(drop).map_err(io)
}

/// The directory has its `CURRENT`.
pub(crate) fn end(env: &Env, dir: &Path) -> Result<()> {
    let path = dir.join(UNFINISHED);
    if env.fs.exists(&path) {
        env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
        env.fs.sync_dir(dir).map_err(|error| Error::io(dir, &error))?;
    }
    Ok(())
}

/// Refuses a directory whose copy did not end.
pub(crate) fn refuse_unfinished(env: &Env, dir: &Path) -> Result<()> {
    let path = dir.join(UNFINISHED);
    if !env.fs.exists(&path) || env.fs.exists(&dir.join("CURRENT")) {
        return Ok(());
    }
    let what = format!(
        "a checkpoint, restore or repair into {} did not end: remove the directory and make the copy again",
        dir.display()
    );
    Err(Error::Corruption { file: path, offset: 0, what })
}

fn refuse_unless_empty(env: &Env, dir: &Path) -> Result<()> {
    let names = list_if_there(&*env.fs, dir).map_err(|error| Error::io(dir, &error))?;
    let shown = dir.display();
    if names.iter().any(|name| name == UNFINISHED) && !names.iter().any(|name| name == "CURRENT") {
        let what = format!("{shown} holds what a copy that did not end has left: remove it, or name a new directory");
        return Err(Error::InvalidArgument(what));
    }
    match names.first() {
        None => Ok(()),
        Some(name) => {
            Err(Error::InvalidArgument(format!("{shown} is not empty (it holds {name}); name a new directory")))
        }
    }
}
