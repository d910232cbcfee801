//! The files of a version.

use crate::table::{TABLES_DIR, table_path};
use crate::version::VersionEdit;
use crate::vlog::{VALUES_DIR, value_file_path};
use std::path::{Path, PathBuf};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileKind {
    Table,
    /// A sealed file of the value log.
    Values,
}

impl FileKind {
    /// Its number in a backup's record.
    pub(super) fn to_byte(self) -> u8 {
        match self {
            FileKind::Table => 1,
            FileKind::Values => 2,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Option<FileKind> {
        [FileKind::Table, FileKind::Values].into_iter().find(|kind| kind.to_byte() == byte)
    }

    /// The directory of such files in a database's directory.
    pub(super) fn directory(self, database: &Path) -> PathBuf {
        match self {
            FileKind::Table => database.join(TABLES_DIR),
            FileKind::Values => database.join(VALUES_DIR),
        }
    }

    /// The path of such a file in a database's directory.
    pub(super) fn path(self, database: &Path, number: u64) -> PathBuf {
        match self {
            FileKind::Table => table_path(&self.directory(database), number),
            FileKind::Values => value_file_path(&self.directory(database), number),
        }
    }

    /// The extension of its name.
    pub(super) fn extension(self) -> &'static str {
        match self {
            FileKind::Table => "sst",
            FileKind::Values => "vlog",
        }
    }
}

/// A file of a version. It is immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LiveFile {
    pub(super) kind: FileKind,
    pub(super) number: u64,
    pub(super) bytes: u64,
}

/// Every file that a whole version needs, each once.
pub(super) fn files_of(version: &VersionEdit) -> Vec<LiveFile> {
    let file = |kind| move |(number, bytes)| LiveFile { kind, number, bytes };
    let tables = version.tables().map(file(FileKind::Table));
    let mut files: Vec<LiveFile> = tables.chain(version.value_files().map(file(FileKind::Values))).collect();
    files.sort_unstable();
    debug_assert!(files.windows(2).all(|pair| pair[0].number != pair[1].number), "numbers are used once");
    files
}

/// The paths of the files of a whole version in one directory, and in another that copies it.
#[cfg(test)]
pub(crate) fn files_of_version(version: &VersionEdit, from: &Path, to: &Path) -> Vec<(PathBuf, PathBuf)> {
    files_of(version).iter().map(|file| (file.kind.path(from, file.number), file.kind.path(to, file.number))).collect()
}
