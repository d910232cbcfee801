//! Directories that hold something else than a database.

use crate::version::manifest::parse_manifest_name;
use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::fs::list_if_there;
use std::path::Path;

/// What a database's directory holds, also one whose first open was interrupted. Temporary names end in `.tmp`.
const NAMES: [&str; 7] = ["CURRENT", "EXTENT", "LOCK", "UNFINISHED", "tables", "vlog", "wal"];
/// Holds no user's files: the root of a volume has it.
const LOST_AND_FOUND: &str = "lost+found";

/// Refuses a directory that holds no database and something else: an open would make a new database among foreign
/// files, and its name was most likely mistyped. A directory that is missing, or empty but for what `beside` names,
/// is none.
///
/// Errors: [`Error::InvalidArgument`] with the name of what is there; [`Error::Io`] if the directory cannot be read.
pub fn refuse_foreign(env: &Env, dir: &Path, beside: &[&str]) -> Result<()> {
    let names = list_if_there(&*env.fs, dir).map_err(|error| Error::io(dir, &error))?;
    if names.iter().any(|name| name == "CURRENT") {
        return Ok(());
    }
    let is_known = |name: &str| {
        let name = name.strip_suffix(".tmp").unwrap_or(name);
        let is_ours = NAMES.contains(&name) || parse_manifest_name(name).is_some();
        is_ours || beside.contains(&name) || name == LOST_AND_FOUND
    };
    match names.iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Error::InvalidArgument(format!(
            "{} holds no database but other files ({name}): name an empty or a new directory",
            dir.display()
        ))),
    }
}

#[cfg(test)]
#[path = "foreign_test.rs"]
mod tests;
