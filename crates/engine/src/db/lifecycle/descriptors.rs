//! How a database behaves when its process has no descriptors left.
//!
//! Opening a file fails then (EMFILE, ENFILE), usually through no fault of the database: connections, or other parts of
//! the process or of the machine hold them. It is treated like a full disk:
//!
//! 1. The database closes tables and value files that are open only for speed, and tries again.
//! 2. If that does not help, a caller gets [`Error::NoDescriptors`](crate::Error::NoDescriptors), which may be tried
//!    again, and background work is put off and tried again after a wait. Nothing is stopped.
//! 3. To sync a directory takes a descriptor for a moment. Without it the state of the disk would be unknown, so that
//!    the database would have to stop, as after a failed sync. A few descriptors are kept in reserve for that alone.
//!
//! How many tables and value files are kept open is adapted to the limit of the process when the database is opened
//! ([`OpenLimits`]).

use crate::compaction::CompactionContext;
use crate::lock::{Condvar, Mutex, Rank};
use crate::version::TableCache;
use crate::vlog::{OPEN_VALUE_FILES_MAX, ValueStore};
use kontiki_env::Env;
use kontiki_env::fs::{File, FileLock, Fs, OpenMode, is_out_of_descriptors};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// Descriptors kept for syncs of directories: of as many of them as usually run at once (flush, compaction, log,
/// values).
const RESERVE: usize = 4;
/// Tables closed at once when a descriptor is missing: an operation that needs one usually needs a few.
const CLOSED_AT_ONCE: usize = 16;
/// Times that an operation is tried again after something was closed: others take descriptors meanwhile.
const ROUNDS_MAX: usize = 8;
/// Waits before the sync of a directory fails for lack of a descriptor, which stops the database: ten seconds in all.
const RETRIES_MAX: u64 = 500;
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// The part of the process's descriptors that is left to its other users: connections, other databases, the program
/// itself.
const REST_PART: u64 = 4;
/// Descriptors for what is neither a table that is read nor a value file that is read: log segments, the manifest, what
/// jobs read and write, the reserve.
const OTHER_FILES: u64 = 64;
/// So many tables and value files are kept open however low the limit is: with fewer, reads are too slow to be useful.
const TABLES_MIN: usize = 16;
const VALUE_FILES_MIN: usize = 4;

/// How many files are kept open to avoid opening them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenLimits {
    pub(super) tables: usize,
    pub(super) value_files: usize,
}

impl OpenLimits {
    /// For a process with so many descriptors.
    pub(super) fn fitting(descriptors: Option<u64>, open_tables_max: usize) -> OpenLimits {
        let Some(all) = descriptors else {
            return OpenLimits { tables: open_tables_max, value_files: OPEN_VALUE_FILES_MAX };
        };
        let ours = usize::try_from((all - all / REST_PART).saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
        let value_files = OPEN_VALUE_FILES_MAX.min(ours / 3).max(VALUE_FILES_MIN);
        let tables = open_tables_max.min(ours.saturating_sub(value_files)).max(TABLES_MIN);
        if tables < open_tables_max {
            tracing::info!(
                descriptors = all,
                tables,
                value_files,
                "fewer files are kept open than open_tables_max allows"
            );
        }
        OpenLimits { tables, value_files }
    }
}

/// A file system that closes files when there are no descriptors. See the head of this file.
pub(super) struct DescriptorFs {
    fs: Arc<dyn Fs>,
    /// A file that exists: it is opened only to hold a descriptor.
    held: PathBuf,
    reserve: Mutex<Vec<Arc<dyn File>>>,
    closable: OnceLock<(Weak<TableCache>, Weak<ValueStore>)>,
    refused: Arc<AtomicU64>,
    /// Never notified: a wait lasts for its whole time.
    retry_wait: Condvar,
    /// 0 in a stepped world, where nothing happens meanwhile.
    retries_max: u64,
}

impl DescriptorFs {
    /// `env` with its file system behind this one. `held` is a file that exists.
    pub(super) fn around(env: &Env, held: PathBuf) -> (Env, Arc<DescriptorFs>) {
        let fs = Arc::new(DescriptorFs {
            fs: env.fs.clone(),
            held,
            reserve: Mutex::new(Rank::DescriptorReserve, Vec::new()),
            closable: OnceLock::new(),
            refused: Arc::default(),
            retry_wait: Condvar::new(),
            retries_max: if env.tasks.threaded() { RETRIES_MAX } else { 0 },
        });
        fs.fill_reserve();
        (Env { fs: fs.clone(), ..env.clone() }, fs)
    }

    /// What may be closed when descriptors run out.
    pub(super) fn may_close_files_of(&self, context: &CompactionContext) {
        let closable = (Arc::downgrade(&context.tables), Arc::downgrade(&context.values.store));
        let first = self.closable.set(closable);
        assert!(first.is_ok(), "a database is opened once");
    }

    /// Times that the system had no descriptor for it, counted.
    pub(super) fn refused(&self) -> &Arc<AtomicU64> {
        &self.refused
    }

    fn with_retries<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut result = attempt();
        for _ in 0..ROUNDS_MAX {
            if !self.is_refusal(&result) || !self.close_some() {
                break;
            }
            result = attempt();
        }
        result
    }

    fn is_refusal<T>(&self, result: &io::Result<T>) -> bool {
        let refused = result.as_ref().err().is_some_and(is_out_of_descriptors);
        self.refused.fetch_add(u64::from(refused), Relaxed);
        refused
    }

    /// Returns whether there was anything to close.
    fn close_some(&self) -> bool {
        let Some((tables, values)) = self.closable.get() else { return false };
        let closed = tables.upgrade().map_or(0, |tables| tables.close_some(CLOSED_AT_ONCE));
        closed > 0 || values.upgrade().is_some_and(|values| values.close_all() > 0)
    }

    fn fill_reserve(&self) {
        let mut reserve = self.reserve.lock();
        while reserve.len() < RESERVE
            && let Ok(file) = self.fs.open(&self.held, OpenMode::Read)
        {
            reserve.push(file);
        }
    }

    fn take_from_reserve(&self) -> Option<Arc<dyn File>> {
        self.reserve.lock().pop()
    }
}

impl Fs for DescriptorFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.with_retries(|| self.fs.open(path, mode))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with_retries(|| self.fs.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.with_retries(|| self.fs.list(path))
    }

    fn exists(&self, path: &Path) -> bool {
        self.fs.exists(path)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.fs.absolute(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fs.remove(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut result = self.fs.sync_dir(path);
        while self.is_refusal(&result)
            && let Some(reserved) = self.take_from_reserve()
        {
            drop(reserved);
            result = self.fs.sync_dir(path);
        }
        for attempt in 0.. {
            if !result.as_ref().err().is_some_and(is_out_of_descriptors) {
                break;
            }
            // Other threads have taken the descriptors that the reserve freed.
            if attempt > 0 {
                self.retry_wait.sleep(&mut self.reserve.lock(), RETRY_DELAY);
            }
            result = self.with_retries(|| self.fs.sync_dir(path));
            if attempt == self.retries_max {
                break;
            }
        }
        self.fill_reserve();
        // Not a retryable error: the change that it was to make durable has been done already.
        let is_refusal = result.as_ref().err().is_some_and(is_out_of_descriptors);
        if is_refusal { Err(io::Error::other("no descriptor to sync the directory with")) } else { result }
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn FileLock>> {
        self.with_retries(|| self.fs.lock(path, holder))
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.with_retries(|| self.fs.lock_to_read(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.fs.free_bytes(path)
    }

    fn descriptors_max(&self) -> Option<u64> {
        self.fs.descriptors_max()
    }
}

#[cfg(test)]
#[path = "descriptors_test.rs"]
mod tests;
