//! The files of a version, and how one is copied.

use crate::table::{TABLES_DIR, table_path};
use crate::version::VersionEdit;
use crate::vlog::{VALUES_DIR, value_file_path};
use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::codec::checksum32;
use kontiki_env::fs::{File, OpenMode};
use std::path::{Path, PathBuf};

/// Bytes copied at once: large enough that system calls do not count, small enough for any memory.
const COPY_BYTES: usize = 1 << 20;

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

/// Copies a file to a path that does not exist, durably but for its name; returns the checksum of its bytes.
pub(crate) fn copy_file(env: &Env, from: &Path, to: &Path, bytes: u64, note: &mut dyn FnMut(u64)) -> Result<u32> {
    let source = env.fs.open(from, OpenMode::Read).map_err(|error| Error::io(from, &error))?;
    let target = env.fs.open(to, OpenMode::CreateNew).map_err(|error| Error::io(to, &error))?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = read_piece(&*source, from, &mut buffer, at, bytes)?;
        checksum.add(piece);
        target.write_at(piece, at).map_err(|error| Error::io(to, &error))?;
        at += piece.len() as u64;
        note(piece.len() as u64);
    }
    target.sync().map_err(|error| Error::failed_sync(to, &error))?;
    Ok(checksum.finish())
}

/// The checksum of a file's first `bytes` bytes.
pub(super) fn checksum_file(env: &Env, path: &Path, bytes: u64, note: &mut dyn FnMut(u64)) -> Result<u32> {
    let file = env.fs.open(path, OpenMode::Read).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(path),
        _ => Error::io(path, &error),
    })?;
    let length = file.len().map_err(|error| Error::io(path, &error))?;
    if length != bytes {
        let what = format!("the file has {length} bytes where {bytes} are expected");
        return Err(Error::Corruption { file: path.to_path_buf(), offset: length.min(bytes), what });
    }
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < bytes {
        let piece = read_piece(&*file, path, &mut buffer, at, bytes)?;
        checksum.add(piece);
        at += piece.len() as u64;
        note(piece.len() as u64);
    }
    Ok(checksum.finish())
}

fn missing(path: &Path) -> Error {
    Error::Corruption { file: path.to_path_buf(), offset: 0, what: "the file is missing".to_string() }
}

fn read_piece<'a>(file: &dyn File, path: &Path, buffer: &'a mut [u8], at: u64, bytes: u64) -> Result<&'a [u8]> {
    let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
    let buffer = buffer.get_mut(..wanted).expect("at most the buffer is wanted");
    let count = file.read_at(buffer, at).map_err(|error| Error::io(path, &error))?;
    if count == 0 {
        let what = format!("the file ends where {bytes} bytes are expected");
        return Err(Error::Corruption { file: path.to_path_buf(), offset: at, what });
    }
    Ok(&buffer[..count])
}

/// The checksum of a stream of pieces, however it is cut: the CRC-32 of the CRC-32s of its mebibytes.
#[derive(Default)]
struct Checksum {
    sums: Vec<u8>,
    piece: Vec<u8>,
}

impl Checksum {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(COPY_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            if self.piece.len() == COPY_BYTES {
                self.end_piece();
            }
            bytes = rest;
        }
    }

    fn end_piece(&mut self) {
        self.sums.extend_from_slice(&checksum32(&[&self.piece]).to_le_bytes());
        self.piece.clear();
    }

    fn finish(mut self) -> u32 {
        if !self.piece.is_empty() {
            self.end_piece();
        }
        checksum32(&[&self.sums])
    }
}
