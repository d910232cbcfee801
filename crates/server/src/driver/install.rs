//! Installs snapshot files into the engine (docs/internals/snapshots.md).
//!
//! Tables are built in a separate folder, which is emptied at the start, and before and after each install. Their files
//! are linked into the engine's directory by the ingest. An engine may have no such tables. At most one install builds
//! tables at a time (`snapshots.rs`), so the folder has one user.

use crate::families::FAMILIES;
use kontiki_engine::{Durability, Error as EngineError, Family, Result as EngineResult, WriteBatch};
use kontiki_env::Env;
use kontiki_env::fs::{File, Fs, OpenMode, list_if_there};
use kontiki_raftstore::SnapshotTables;
use kontiki_raftstore::snapshot::{InstallError, InstallTarget, SnapshotError, SnapshotId, install};
use kontiki_state::{StateEngine, TableSet};
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
    state: Arc<dyn StateEngine>,
    tables_dir: PathBuf,
    sizes: SnapshotTables,
    stopping: Arc<AtomicBool>,
}

impl Installer {
    /// For the state of `data_dir`.
    pub fn new(env: &Env, data_dir: &Path, state: &Arc<dyn StateEngine>, sizes: SnapshotTables) -> Installer {
        let (env, state, tables_dir) = (env.clone(), state.clone(), data_dir.join(TABLES_DIRECTORY));
        Installer { env, state, tables_dir, sizes, stopping: Arc::default() }
    }

    pub(super) fn state(&self) -> &Arc<dyn StateEngine> {
        &self.state
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
            match self.install_from(path, id, true) {
                Err(SnapshotError::Engine(error)) if error.is_retryable() => {
                    tracing::warn!(%error, path = %path.display(), "a snapshot is installed without tables");
                }
                result => return result.map_err(failed),
            }
        }
        self.install_from(path, id, false).map_err(failed)
    }

    fn install_from(&self, path: &Path, id: SnapshotId, as_tables: bool) -> Result<Installed, SnapshotError> {
        let mut tables = None;
        if as_tables {
            self.env.fs.create_dir_all(&self.tables_dir).map_err(|error| EngineError::io(&self.tables_dir, &error))?;
            self.remove_tables().map_err(|error| EngineError::io(&self.tables_dir, &error))?;
            tables = self.state.build_tables(&self.tables_dir, self.sizes.table_bytes);
        }
        let tables_from = tables.as_ref().map(|_| self.sizes.family_bytes_min);
        let mut file_bytes = 0;
        let mut open = || {
            let reader = FileReader::open(&*self.env.fs, path)?;
            file_bytes = reader.file.len()?;
            Ok(Box::new(reader) as Box<dyn Read>)
        };
        let mut target = Target { installer: self, tables, bytes: 0 };
        let view = self.state.snapshot();
        install(&FAMILIES, &view, id, tables_from, &mut open, &mut target)?;
        Ok(Installed { file_bytes, table_bytes: target.bytes })
    }
}

/// The engine, with the tables that are being built for it.
struct Target<'a> {
    installer: &'a Installer,
    /// `None`: everything is committed.
    tables: Option<Box<dyn TableSet>>,
    /// Of tables that were ingested.
    bytes: u64,
}

impl Target<'_> {
    fn check_open(&self) -> EngineResult<()> {
        if self.installer.stopping.load(Ordering::SeqCst) { Err(EngineError::Closed) } else { Ok(()) }
    }
}

impl InstallTarget for Target<'_> {
    fn commit(&mut self, batch: WriteBatch) -> EngineResult<()> {
        self.check_open()?;
        self.installer.state.commit(batch, Durability::Derived)
    }

    fn is_kept_in_tables(&self, family: Family, value_bytes: usize) -> bool {
        self.tables.as_ref().is_some_and(|tables| tables.takes(family, value_bytes))
    }

    fn add(&mut self, family: Family, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> EngineResult<()> {
        self.check_open()?;
        let tables = self.tables.as_mut().expect("entries are added only if `tables_from` says that there are tables");
        tables.add(family, key, value, expires_at_ms)
    }

    fn ingest(&mut self) -> EngineResult<()> {
        self.check_open()?;
        if let Some(tables) = &mut self.tables {
            self.bytes = tables.ingest()?;
        }
        Ok(())
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
