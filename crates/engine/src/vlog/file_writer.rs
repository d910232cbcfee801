//! Writes a whole value file at once: what a relocation keeps, or the large values that a flush finds.

use super::format::{FILE_HEADER_BYTES, ValueFileKind, ValueHeader, encode_copy, encode_file_header};
use super::index::{FILE_BYTES_MAX, Moved, encode_index};
use super::store::ValueStore;
use crate::{Error, Result};
use kontiki_env::fs::{File, OpenMode};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes collected before a write call.
const BUFFER_BYTES: usize = 1 << 20;

/// A value file that is written from start to end, by one thread, and belongs to the database once the manifest names
/// it. After an error, or instead of [`FileWriter::finish`], call [`FileWriter::abandon`].
pub(crate) struct FileWriter {
    store: Arc<ValueStore>,
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Bytes of the file that are written; the buffer follows.
    written: u64,
}

/// A file that is durable under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FinishedFile {
    pub(crate) number: u64,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// Bytes of its records.
    pub(crate) record_bytes: u64,
}

impl FileWriter {
    /// Creates file `number`.
    pub(crate) fn create(store: &Arc<ValueStore>, number: u64, kind: ValueFileKind) -> Result<FileWriter> {
        let path = store.path(number);
        let file = store.fs().open(&path, OpenMode::CreateNew).map_err(|error| Error::io(&path, &error))?;
        let buffer = encode_file_header(number, kind);
        Ok(FileWriter { store: store.clone(), number, path, file, buffer, written: 0 })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Adds a value; returns the offset of its record.
    pub(crate) fn add(&mut self, header: ValueHeader, value: &[u8], key: &[u8]) -> Result<u64> {
        let offset = self.end();
        assert!(offset + header.stride() < FILE_BYTES_MAX, "files end long before that");
        encode_copy(&mut self.buffer, self.number, offset, header, value, key);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(offset)
    }

    /// Bytes so far.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes the rest, with the index of a relocated file, and makes file and name durable.
    pub(crate) fn finish(&mut self, moved: Option<&mut [Moved]>) -> Result<FinishedFile> {
        let data_end = self.end();
        if let Some(moved) = moved {
            let index = encode_index(self.number, data_end, moved);
            self.buffer.extend_from_slice(&index);
        }
        self.write_buffer()?;
        self.file.sync().map_err(|error| Error::failed_sync(&self.path, &error))?;
        let directory = self.store.directory();
        self.store.fs().sync_dir(directory).map_err(|error| Error::failed_sync(directory, &error))?;
        let record_bytes = data_end - FILE_HEADER_BYTES;
        assert!(record_bytes > 0, "an empty file is never written");
        Ok(FinishedFile { number: self.number, bytes: self.written, record_bytes })
    }

    /// Removes the file, as well as the disk allows; the next open removes the rest.
    pub(crate) fn abandon(&self) {
        if let Err(error) = self.store.fs().remove(&self.path) {
            tracing::debug!(file = %self.path.display(), %error, "an abandoned value file stays until the next open");
        }
    }

    fn write_buffer(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(|error| Error::io(&self.path, &error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
