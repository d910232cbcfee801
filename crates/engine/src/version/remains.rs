//! Directories without `CURRENT`: empty ones, ones whose first open was interrupted, and databases that have lost it.

use super::manifest::{manifest_path, parse_manifest, parse_manifest_name};
use crate::extent::REMEDY;
use crate::log::WAL_DIR;
use crate::table::{TABLES_DIR, parse_table_name};
use crate::vlog::{VALUES_DIR, parse_value_file_name};
use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::fs::{list_if_there, read_all};
use std::path::Path;

/// Why a directory without `CURRENT` cannot be read: it has lost it, or there is no database.
pub(crate) fn no_database(env: &Env, dir: &Path) -> Error {
    let shown = dir.display();
    let nothing = || Error::InvalidArgument(format!("{shown} holds no database: there is no CURRENT"));
    lost_current(env, dir).map_or_else(|error| error, |lost| lost.unwrap_or_else(nothing))
}

/// The signs that a directory without `CURRENT` was a database: a first open that was interrupted leaves no tables, no
/// values, no log (the manifest is made before it), and at most a manifest with one edit. A new database there would
/// replay a part of the data as if it were all, or remove what is left.
pub(super) fn lost_current(env: &Env, dir: &Path) -> Result<Option<Error>> {
    let names = |folder: &str| list(env, &dir.join(folder));
    let found = if names(TABLES_DIR)?.iter().any(|name| parse_table_name(name).is_some()) {
        "there are tables"
    } else if names(VALUES_DIR)?.iter().any(|name| parse_value_file_name(name).is_some()) {
        "there are files of values"
    } else if names(WAL_DIR)?.iter().any(|name| name.ends_with(".wal")) {
        "there is a log"
    } else if has_edits(env, dir)? {
        "there is a manifest with edits"
    } else {
        return Ok(None);
    };
    let what = format!("it is missing, but {found}: this is a database that has lost its manifest; {REMEDY}");
    Ok(Some(Error::Corruption { file: dir.join("CURRENT"), offset: 0, what }))
}

fn has_edits(env: &Env, dir: &Path) -> Result<bool> {
    for number in list(env, dir)?.iter().filter_map(|name| parse_manifest_name(name)) {
        let path = manifest_path(dir, number);
        let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
        // One that cannot be read is torn, as a first one may be.
        if number > 1 || parse_manifest(&bytes, number, &path).is_ok_and(|contents| contents.edits.len() > 1) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn list(env: &Env, dir: &Path) -> Result<Vec<String>> {
    list_if_there(&*env.fs, dir).map_err(|error| Error::io(dir, &error))
}
