//! A directory's first manifest, made from a version of another directory.

use super::manifest::{ManifestWriter, write_current};
use super::{Version, VersionEdit};
use crate::table::FileNumber;
use crate::{Error, Result};
use kontiki_env::Env;
use std::path::Path;

/// The edit that makes a copy of `version`, in a directory whose next file is `next_file` (above every
/// number that the version names, of files and of value segments). The copy holds immutable files only: value segments
/// that have been sealed by the time of `later`, a version of the same database, and none that nothing refers to.
/// `None` while a segment that tables refer to is still open: seal it, and call again.
pub(crate) fn copy_edit(version: &Version, later: &Version, next_file: FileNumber) -> Option<VersionEdit> {
    let mut edit = VersionEdit { next_file: Some(next_file), oldest_segment: Some(0), ..version.as_edit() };
    let (values, sealed_later) = (version.values(), later.values().files());
    for (number, state) in values.files() {
        if state.sealed_bytes().is_some() {
            continue;
        }
        let sealed = sealed_later.get(number).and_then(|state| state.sealed());
        if values.referred().bytes_of(*number) == 0 {
            edit.values.forget_file(*number);
        } else {
            let sealed = sealed?;
            edit.values.seal_file(*number, sealed.bytes, sealed.record_bytes);
        }
    }
    assert!(edit.value_files().count() == edit.values.added_count(), "every value file of a copy is sealed");
    Some(edit)
}

/// Whether a segment that `version` has open, and its tables refer to, is removed by the time of `later`: it was sealed
/// and relocated between two calls, so [`copy_edit`] will never have its size. Begin again with a newer version.
pub(crate) fn lost_a_segment(version: &Version, later: &Version) -> bool {
    let (values, files) = (version.values(), later.values().files());
    let lost = |(number, state): (&u64, &super::ValueFileState)| {
        state.sealed_bytes().is_none() && values.referred().bytes_of(*number) > 0 && !files.contains_key(number)
    };
    values.files().iter().any(lost)
}

/// Makes `dir`, which holds the files that `whole` names, a database. `CURRENT` is written last: without it there is
/// none.
pub(crate) fn write_fresh(env: &Env, dir: &Path, whole: &VersionEdit) -> Result<()> {
    assert!(whole.is_whole() && whole.next_file.is_some(), "a manifest starts with a whole version");
    env.fs.create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    ManifestWriter::create(env, dir, 1, whole)?;
    env.fs.sync_dir(dir).map_err(|error| Error::io(dir, &error))?;
    write_current(env, dir, 1)
}
