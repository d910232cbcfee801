//! Installs snapshot files into the engine (docs/internals/snapshots.md).
//!
//! Tables are built in a separate folder, which is emptied at the start, and before and after each install. Their files
//! are linked into the engine's directory by the ingest. At most one install builds tables at a time
//! (`snapshots.rs`), so the folder has one user.

use super::lane::derived;
use crate::families::FAMILIES;
use kontiki_engine::{
    Db, Error as EngineError, Family, FamilySpec, IngestOptions, IngestWriter, Result as EngineResult, TableOptions,
    WriteBatch,
};
use kontiki_env::Env;
use kontiki_env::fs::{File, Fs, OpenMode, list_if_there};
use kontiki_raftstore::SnapshotTables;
use kontiki_raftstore::snapshot::{InstallError, InstallTarget, SnapshotError, SnapshotId, install};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The folder of tables that are being built, below the data directory.
const TABLES_DIRECTORY: &str = "snapshot-tables";
/// Bytes per read of a file: a few reads per disk seek, small compared with a memtable.
const READ_BYTES: usize = 256 << 10;

/// What an install did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the tables that were ingested; 0 if everything was written key by key.
    pub table_bytes: u64,
}

/// Installs snapshot files into an engine. Clones share its end.
#[derive(Clone)]
pub struct Installer {
    env: Env,
    db: Db,
    tables_dir: PathBuf,
    options: TableOptions,
    sizes: SnapshotTables,
    stopping: Arc<AtomicBool>,
}

impl Installer {
    /// For the database of `data_dir`, which was opened with these options of tables.
    pub fn new(env: &Env, data_dir: &Path, db: &Db, options: TableOptions, sizes: SnapshotTables) -> Installer {
        let (env, db, tables_dir) = (env.clone(), db.clone(), data_dir.join(TABLES_DIRECTORY));
        Installer { env, db, tables_dir, options, sizes, stopping: Arc::default() }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// From now on installs end with [`EngineError::Closed`], as soon as they see it.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Removes the tables that an earlier process, or a failed removal, has left.
    pub fn remove_tables(&self) -> io::Result<()> {
        for name in list_if_there(&*self.env.fs, &self.tables_dir)? {
            self.env.fs.remove(&self.tables_dir.join(name))?;
        }
        Ok(())
    }

    /// Whether tables are built of this file. A file that cannot be opened is none of these: its install reports it.
    pub fn is_for_tables(&self, path: &Path) -> bool {
        let bytes = self.env.fs.open(path, OpenMode::Read).and_then(|file| file.len());
        bytes.is_ok_and(|bytes| bytes >= self.sizes.file_bytes_min)
    }

    /// Replaces the region's state by that of the file, which must hold the snapshot `id`. With `as_tables`, what is
    /// large enough is taken in as tables, and no other install may do the same meanwhile; if the disk has no space for
    /// the tables, everything is written key by key, for which the engine waits until there is space.
    ///
    /// The data is visible when this returns, and durable after a flush.
    pub fn install(&self, path: &Path, id: SnapshotId, as_tables: bool) -> Result<Installed, InstallError> {
        let failed = |error: SnapshotError| error.of_install(&path.display().to_string());
        if as_tables {
            match self.install_from(path, id, Some(self.sizes.family_bytes_min)) {
                Err(SnapshotError::Engine(error)) if error.is_retryable() => {
                    tracing::warn!(%error, path = %path.display(), "a snapshot is installed without tables");
                }
                result => return result.map_err(failed),
            }
        }
        self.install_from(path, id, None).map_err(failed)
    }

    fn install_from(&self, path: &Path, id: SnapshotId, tables_from: Option<u64>) -> Result<Installed, SnapshotError> {
        if tables_from.is_some() {
            self.env.fs.create_dir_all(&self.tables_dir).map_err(|error| EngineError::io(&self.tables_dir, &error))?;
            self.remove_tables().map_err(|error| EngineError::io(&self.tables_dir, &error))?;
        }
        let mut file_bytes = 0;
        let mut open = || {
            let reader = FileReader::open(&*self.env.fs, path)?;
            file_bytes = reader.file.len()?;
            Ok(Box::new(reader) as Box<dyn Read>)
        };
        let mut target =
            Target { installer: self, families: self.db.families(), writer: None, files: vec![], bytes: 0 };
        let view = self.db.snapshot();
        install(&FAMILIES, &view, id, tables_from, &mut open, &mut target)?;
        Ok(Installed { file_bytes, table_bytes: target.bytes })
    }
}

/// The engine, with the tables that are being built for it.
struct Target<'a> {
    installer: &'a Installer,
    families: Vec<FamilySpec>,
    writer: Option<(Family, IngestWriter)>,
    files: Vec<PathBuf>,
    /// Of tables that were ingested.
    bytes: u64,
}

impl Target<'_> {
    fn check_open(&self) -> EngineResult<()> {
        if self.installer.stopping.load(Ordering::SeqCst) { Err(EngineError::Closed) } else { Ok(()) }
    }

    fn spec(&self, family: Family) -> Option<&FamilySpec> {
        self.families.iter().find(|spec| spec.family == family)
    }

    fn begin_table(&self, family: Family) -> EngineResult<IngestWriter> {
        let name = format!("{}.sst", self.files.len() + 1);
        // Tables are written once here and merged down later, so they are compressed as those of the last level.
        let of_family = |spec: &FamilySpec| self.installer.options.for_family(&spec.options, usize::MAX);
        let options = self.spec(family).map_or_else(|| self.installer.options.clone(), of_family);
        IngestWriter::create_in(&self.installer.env, &self.installer.tables_dir.join(name), family, options)
    }

    fn end_table(&mut self) -> EngineResult<()> {
        if let Some((_, writer)) = self.writer.take() {
            self.files.push(writer.finish()?.path);
        }
        Ok(())
    }
}

impl InstallTarget for Target<'_> {
    fn commit(&mut self, batch: WriteBatch) -> EngineResult<()> {
        self.check_open()?;
        self.installer.db.commit(derived(batch)).map(|_| ())
    }

    fn is_kept_in_tables(&self, family: Family, value_bytes: usize) -> bool {
        let threshold = self.spec(family).map_or(0, |spec| spec.options.value_threshold_bytes);
        threshold == 0 || (value_bytes as u64) < threshold
    }

    fn add(&mut self, family: Family, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> EngineResult<()> {
        self.check_open()?;
        let table_bytes = self.installer.sizes.table_bytes;
        let is_ended =
            |(of, writer): &(Family, IngestWriter)| *of != family || writer.bytes() >= table_bytes || writer.is_full();
        if self.writer.as_ref().is_some_and(is_ended) {
            self.end_table()?;
        }
        if self.writer.is_none() {
            self.writer = Some((family, self.begin_table(family)?));
        }
        let (_, writer) = self.writer.as_mut().expect("set above");
        match expires_at_ms {
            None => writer.put(key, value),
            Some(expires_at_ms) => writer.put_expiring(key, value, expires_at_ms),
        }
    }

    fn ingest(&mut self) -> EngineResult<()> {
        self.end_table()?;
        if self.files.is_empty() {
            return Ok(());
        }
        self.check_open()?;
        self.installer.db.flush()?;
        self.check_open()?;
        self.bytes = self.installer.db.ingest(&self.files, IngestOptions { move_file: true })?.bytes;
        Ok(())
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        // A table that is not complete is removed by its writer.
        self.writer = None;
        for path in &self.files {
            if self.installer.env.fs.exists(path)
                && let Err(error) = self.installer.env.fs.remove(path)
            {
                // The next install with tables, or the next start, finds it.
                tracing::warn!(%error, path = %path.display(), "a table of a snapshot could not be removed");
            }
        }
    }
}

/// Reads a file front to back.
pub(super) struct FileReader {
    file: Arc<dyn File>,
    offset: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl FileReader {
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> io::Result<FileReader> {
        Ok(FileReader { file: fs.open(path, OpenMode::Read)?, offset: 0, buffer: Vec::new(), taken: 0 })
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            self.buffer.resize(READ_BYTES, 0);
            let count = self.file.read_at(&mut self.buffer, self.offset)?;
            self.buffer.truncate(count);
            self.offset += count as u64;
            self.taken = 0;
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.taken += count;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "install_test.rs"]
mod tests;
