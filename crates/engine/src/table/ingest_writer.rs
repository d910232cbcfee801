//! Tables that are built outside of a database, to be taken in by `Db::ingest`.
//!
//! Such a table is like any other, but that all its versions are stored at [`INGESTED_SEQUENCE`], and that its values
//! are all in it: a pointer means something only beside the value log that it leads to.

use super::writer::temporary_path;
use super::{INGESTED_SEQUENCE, TableWriter, sync_tables_dir};
use crate::types::{EXPIRY_BYTES, KeyRef, Kind, TABLE_BYTES_MAX, TableOptions};
use crate::{Error, Family, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use bytes::Bytes;
use kontiki_env::Env;
use std::path::{Path, PathBuf};

/// Builds one table of one family outside of a database: keys ascending, each once.
///
/// ```no_run
/// # fn main() -> kontiki_engine::Result<()> {
/// use kontiki_engine::{Db, Family, IngestOptions, IngestWriter, Options};
///
/// let mut writer = IngestWriter::create("rafts.sst", Family::DEFAULT, Options::default().table)?;
/// writer.put(b"kon-tiki", b"balsa")?;
/// writer.put(b"ra", b"papyrus")?;
/// writer.finish()?;
/// let db = Db::open("data", Options::default())?;
/// db.ingest(&["rafts.sst"], IngestOptions { move_file: true })?;
/// # Ok(())
/// # }
/// ```
pub struct IngestWriter {
    env: Env,
    path: PathBuf,
    /// `None` once it was finished, or abandoned after an error.
    writer: Option<TableWriter>,
    smallest_key: Option<Bytes>,
    scratch: Vec<u8>,
}

/// A table that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its family.
    pub family: Family,
    /// Its bytes.
    pub bytes: u64,
    /// Keys in it, deleted ones included.
    pub entries: u64,
    /// Its first key.
    pub smallest_key: Bytes,
    /// Its last key.
    pub largest_key: Bytes,
}

impl IngestWriter {
    /// Begins a table that will be at `path` once it is finished; until then its bytes are in a file of that name with
    /// `.tmp` behind it. Give it the `table` options of the database that it is for.
    ///
    /// Errors: [`Error::InvalidArgument`] if there is something at `path`, [`Error::Io`], [`Error::NoSpace`].
    pub fn create(path: impl AsRef<Path>, family: Family, options: TableOptions) -> Result<IngestWriter> {
        IngestWriter::create_in(&Env::real(), path.as_ref(), family, options)
    }

    /// As [`IngestWriter::create`], on a machine given by `env`.
    pub fn create_in(env: &Env, path: &Path, family: Family, options: TableOptions) -> Result<IngestWriter> {
        let path = &env.fs.absolute(path).map_err(|error| Error::io(path, &error))?;
        if env.fs.exists(path) {
            return Err(Error::InvalidArgument(format!("{} is there already; name a new file", path.display())));
        }
        let left = temporary_path(path);
        if env.fs.exists(&left) {
            // Of a writer that was cut off.
            env.fs.remove(&left).map_err(|error| Error::io(&left, &error))?;
        }
        let writer = TableWriter::create_at(env, path.to_path_buf(), 0, family, options)?;
        let (env, path) = (env.clone(), path.to_path_buf());
        Ok(IngestWriter { env, path, writer: Some(writer), smallest_key: None, scratch: Vec::new() })
    }

    /// Adds a key with its value.
    ///
    /// Errors: [`Error::InvalidArgument`] for a key that is not greater than the one before, for keys and values beyond
    /// [`KEY_BYTES_MAX`] and [`VALUE_BYTES_MAX`], and when the table is full ([`IngestWriter::is_full`]): nothing was
    /// added. After [`Error::Io`] or [`Error::NoSpace`] nothing more can be added.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.add(key.as_ref(), Kind::Put, value.as_ref(), 0)
    }

    /// Adds a key that is gone again at `expires_at_ms`, milliseconds of the wall clock since 1970. Errors: as
    /// [`IngestWriter::put`].
    pub fn put_expiring(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, expires_at_ms: u64) -> Result<()> {
        let mut stored = std::mem::take(&mut self.scratch);
        stored.clear();
        stored.extend_from_slice(&expires_at_ms.to_le_bytes());
        stored.extend_from_slice(value.as_ref());
        let added = self.add(key.as_ref(), Kind::PutExpiring, &stored, EXPIRY_BYTES);
        self.scratch = stored;
        added
    }

    /// Adds the deletion of a key that the database may hold. Errors: as [`IngestWriter::put`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.add(key.as_ref(), Kind::Delete, &[], 0)
    }

    fn add(&mut self, key: &[u8], kind: Kind, stored: &[u8], before_value: usize) -> Result<()> {
        let refuse = |what: String| Err(Error::InvalidArgument(what));
        let Some(writer) = &mut self.writer else {
            return refuse("the table was abandoned after an error; begin a new one".to_string());
        };
        if self.smallest_key.is_some() && key <= writer.last_user_key() {
            let last = Bytes::copy_from_slice(writer.last_user_key());
            return refuse(format!("key {:?} comes after {last:?}; keys must ascend", Bytes::copy_from_slice(key)));
        }
        if key.len() > KEY_BYTES_MAX {
            return refuse(format!("a key has {} bytes; at most {KEY_BYTES_MAX} are accepted", key.len()));
        }
        let value_bytes = stored.len() - before_value;
        if value_bytes > VALUE_BYTES_MAX {
            return refuse(format!("a value has {value_bytes} bytes; at most {VALUE_BYTES_MAX} are accepted"));
        }
        if writer.estimated_bytes() >= TABLE_BYTES_MAX {
            return refuse(format!("the table has {TABLE_BYTES_MAX} bytes; finish it and begin another"));
        }
        let added = writer.add(KeyRef::new(key, INGESTED_SEQUENCE), kind, stored);
        if added.is_err() {
            self.give_up();
        }
        self.smallest_key.get_or_insert_with(|| Bytes::copy_from_slice(key));
        added
    }

    /// Bytes of the file if it ended now, roughly.
    pub fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, TableWriter::estimated_bytes)
    }

    /// Whether nothing more may be added: a table ends after 128 MiB.
    pub fn is_full(&self) -> bool {
        self.bytes() >= TABLE_BYTES_MAX
    }

    /// Ends the table; it survives power loss when this returns.
    ///
    /// Errors: [`Error::InvalidArgument`] if nothing was added; [`Error::Io`], [`Error::NoSpace`]. The file is gone
    /// then.
    pub fn finish(mut self) -> Result<IngestFile> {
        let Some(smallest_key) = self.smallest_key.take() else {
            return Err(Error::InvalidArgument("a table without keys cannot be ingested".to_string()));
        };
        let Some(writer) = self.writer.take() else {
            return Err(Error::InvalidArgument("the table was abandoned after an error; begin a new one".to_string()));
        };
        let table = writer.finish()?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_tables_dir(&self.env, parent.unwrap_or(Path::new(".")))?;
        let meta = table.meta();
        assert_eq!(meta.smallest_key, smallest_key, "the first key is the smallest");
        Ok(IngestFile {
            path: self.path.clone(),
            family: table.family(),
            bytes: meta.file_bytes,
            entries: meta.entries,
            smallest_key,
            largest_key: meta.largest_key.clone(),
        })
    }

    fn give_up(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abandon();
        }
    }
}

/// What was not finished goes.
impl Drop for IngestWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl std::fmt::Debug for IngestWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IngestWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "ingest_writer_test.rs"]
mod tests;
