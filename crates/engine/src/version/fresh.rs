//! A directory's first manifest, made from a version of another directory.

use super::manifest::{ManifestWriter, write_current};
use super::{Version, VersionEdit};
use crate::{Error, Result};
use kontiki_env::Env;
use std::path::Path;

/// Makes `dir`, which holds the files that `version` names, a database. `CURRENT` comes last: without it there is none.
pub(crate) fn write_fresh(env: &Env, dir: &Path, version: &Version) -> Result<()> {
    write_fresh_edit(env, dir, &version.as_edit())
}

/// As [`write_fresh`], of a version's snapshot edit.
pub(crate) fn write_fresh_edit(env: &Env, dir: &Path, whole: &VersionEdit) -> Result<()> {
    assert!(whole.is_whole(), "a manifest starts with a whole version");
    env.fs.create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    // The new directory has a log of its own, from the first segment on. File numbers go on above those in use.
    let next_file = whole.added.iter().map(|added| added.meta.number + 1).max().unwrap_or(1);
    let first = VersionEdit { next_file: Some(next_file), oldest_segment: Some(0), ..whole.clone() };
    ManifestWriter::create(env, dir, 1, &first)?;
    env.fs.sync_dir(dir).map_err(|error| Error::io(dir, &error))?;
    write_current(env, dir, 1)
}
