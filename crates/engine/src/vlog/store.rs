//! The value files on disk: reading them, and keeping them open.

use super::cache::ValueCache;
use super::format::{
    FILE_HEADER_BYTES, RECORD_HEADER_BYTES, ValueFileKind, check_file_header, check_value, is_plausible,
    value_file_path,
};
use super::index::{Directory, TRAILER_BYTES, Trailer};
use crate::cache::FixedHash;
use crate::ownership::Ownership;
use crate::types::ValuePointer;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_env::fs::{File, Fs, OpenMode};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, UnitWeighter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Value files kept open at most. With segments of ordinary size that is 64 GiB of values; the directory of a relocated
/// file, some 24 bytes for 510 values, takes little in addition.
pub(crate) const OPEN_FILES_MAX: usize = 256;

/// The directory of value files, and those that are open.
pub(crate) struct ValueStore {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    /// Set once, when a database is opened; an inspection has none.
    values: OnceLock<ValueCache>,
    ownership: Ownership,
    /// Removed files that wait for their last reader.
    pending_deletes: AtomicU64,
    open: Cache<u64, Arc<ValueReader>, UnitWeighter, FixedHash, DefaultLifecycle<u64, Arc<ValueReader>>>,
}

impl ValueStore {
    /// The store in `directory`.
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf) -> ValueStore {
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(OPEN_FILES_MAX)
            .weight_capacity(OPEN_FILES_MAX as u64)
            .build()
            .expect("every option is given and in range");
        let open = Cache::with_options(options, UnitWeighter, FixedHash, DefaultLifecycle::default());
        ValueStore {
            fs,
            directory,
            values: OnceLock::new(),
            ownership: Ownership::default(),
            pending_deletes: AtomicU64::new(0),
            open,
        }
    }

    /// The file system it is on.
    pub(crate) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// The directory of the files.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a file.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        value_file_path(&self.directory, number)
    }

    /// Sets the ownership after which files can be opened no more.
    pub(crate) fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Keeps values that were read in this cache from now on.
    pub(crate) fn cache_values(&self, cache: ValueCache) {
        assert!(self.values.set(cache).is_ok(), "the cache is given once");
    }

    /// The cache of values, if there is one.
    pub(crate) fn values(&self) -> Option<&ValueCache> {
        self.values.get()
    }

    /// The open file. Two threads that miss at once may both open it; one of the readers stays.
    pub(crate) fn reader(&self, number: u64) -> Result<Arc<ValueReader>> {
        if let Some(reader) = self.open.get(&number) {
            return Ok(reader);
        }
        let opened = ValueReader::open(&*self.fs, self.path(number), number);
        self.ownership.check()?;
        let reader = Arc::new(opened?);
        self.open.insert(number, reader.clone());
        Ok(reader)
    }

    /// Keeps at most so many files open from now on.
    pub(crate) fn limit_open_files(&self, files_max: usize) {
        self.open.set_capacity(files_max as u64);
    }

    /// Closes the files, except those that are being read at the moment; returns how many there were, with these.
    pub(crate) fn close_all(&self) -> usize {
        let count = self.open.len();
        self.open.clear();
        count
    }

    /// A file is in no current version any more.
    pub(crate) fn note_removed(&self) {
        self.pending_deletes.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes a removed file that has lost its last reader.
    pub(crate) fn forget(&self, number: u64) {
        self.open.remove(&number);
        self.pending_deletes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Number of files that are removed and wait for their last reader.
    pub(crate) fn pending_deletes(&self) -> u64 {
        self.pending_deletes.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for ValueStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueStore").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// An open value file.
pub(crate) struct ValueReader {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Of a relocated file.
    directory: Option<Directory>,
}

/// What kind of file a value file is, by its checked header.
pub(crate) fn value_file_kind(fs: &dyn Fs, path: &Path, number: u64) -> Result<ValueFileKind> {
    let reader = ValueReader::open(fs, path.to_path_buf(), number)?;
    Ok(if reader.directory.is_some() { ValueFileKind::Relocated } else { ValueFileKind::Segment })
}

impl ValueReader {
    /// Opens a file and checks its header and, of a relocated one, the directory of its index.
    pub(crate) fn open(fs: &dyn Fs, path: PathBuf, number: u64) -> Result<ValueReader> {
        let file = fs.open(&path, OpenMode::Read).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Corruption {
                file: path.clone(),
                offset: 0,
                what: "the manifest names this value file, but it is missing".to_string(),
            },
            _ => Error::io(&path, &error),
        })?;
        let mut reader = ValueReader { number, path, file, directory: None };
        let header = reader.read_at(0, FILE_HEADER_BYTES as usize)?;
        if check_file_header(&reader.path, number, &header)? == ValueFileKind::Relocated {
            reader.directory = Some(reader.read_directory()?);
        }
        Ok(reader)
    }

    fn read_directory(&self) -> Result<Directory> {
        let file_bytes = self.file_bytes()?;
        let at = file_bytes.saturating_sub(TRAILER_BYTES);
        let bytes = self.read_at(at, TRAILER_BYTES as usize)?;
        let trailer = Trailer::decode(self.number, file_bytes, &bytes)
            .ok_or_else(|| self.corrupt(at, "bad trailer of a relocated value file"))?;
        let at = trailer.directory_offset;
        let length = usize::try_from(trailer.directory_bytes()).map_err(|_| self.corrupt(at, "an absurd directory"))?;
        let bytes = self.read_at(at, length)?;
        Directory::decode(&trailer, &bytes)
            .ok_or_else(|| self.corrupt(at, "bad directory of a relocated value file's index"))
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its index, if it is a relocated file.
    pub(crate) fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    /// Its length.
    pub(crate) fn file_bytes(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io(&self.path, &error))
    }

    /// Reads `length` bytes at `offset`; fewer at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let count = self.file.read_at(&mut bytes, offset).map_err(|error| Error::io(&self.path, &error))?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// An error about this file.
    pub(crate) fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::Corruption { file: self.path.clone(), offset, what: what.to_string() }
    }

    /// Where the pointer's record is in this file; `None` if a relocation has left it behind as garbage. `moved`:
    /// whether the version says that the pointer's segment was relocated into this file.
    pub(crate) fn find(&self, pointer: ValuePointer, moved: bool) -> Result<Option<u64>> {
        if !is_plausible(pointer) {
            return Err(self.corrupt(pointer.offset, "a value pointer leads to where no value can be"));
        }
        match (&self.directory, moved) {
            (None, false) => Ok(Some(pointer.offset)),
            (Some(directory), true) => {
                let Some(page) = directory.page_of(pointer.segment, pointer.offset) else { return Ok(None) };
                let bytes = self.read_at(page.offset, page.bytes())?;
                let entries = page
                    .decode(self.number, &bytes)
                    .ok_or_else(|| self.corrupt(page.offset, "a damaged index page of a relocated value file"))?;
                Ok(entries.find(pointer.offset))
            }
            _ => Err(self.corrupt(20, "the value file is of another kind than the manifest says")),
        }
    }

    /// As [`ValueReader::find`], of a pointer that a reader may follow: its value is there.
    pub(crate) fn locate(&self, pointer: ValuePointer, moved: bool) -> Result<u64> {
        self.find(pointer, moved)?.ok_or_else(|| {
            let what = format!("no value of segment {}, offset {}, is in it", pointer.segment, pointer.offset);
            self.corrupt(self.directory.as_ref().map_or(0, |directory| directory.data_end), &what)
        })
    }

    /// Reads the value of a record and checks it.
    pub(crate) fn read_value_at(&self, offset: u64, pointer: ValuePointer) -> Result<Bytes> {
        let length = RECORD_HEADER_BYTES as usize + pointer.length as usize;
        let bytes = self.read_at(offset, length)?;
        check_value(self.number, offset, pointer.length, &bytes)
            .ok_or_else(|| self.corrupt(offset, "a damaged or missing value"))?;
        Ok(Bytes::from(bytes).slice(RECORD_HEADER_BYTES as usize..))
    }

    /// Reads the value that a pointer leads to and checks it.
    pub(crate) fn read_value(&self, pointer: ValuePointer, moved: bool) -> Result<Bytes> {
        let offset = self.locate(pointer, moved)?;
        self.read_value_at(offset, pointer)
    }
}

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
