//! Snapshot files that are arriving: each owns its names, and the space that is promised to it, until raftstore knows
//! the file, and removes the file if raftstore never gets it.

use super::snapshot_space::{NoSpace, SnapshotSpace};
use kontiki_env::fs::Fs;
use kontiki_raftstore::snapshot::FileId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// By so much at a time the promise to a file grows that is larger than announced: the announced size counts tables
/// and values, and misses what is in memory.
const GROWTH_BYTES: u64 = 16 << 20;

/// The files that are arriving. The removal of unneeded files skips these.
pub(super) struct Arrivals {
    files: Mutex<BTreeSet<FileId>>,
    pub(super) space: Arc<SnapshotSpace>,
}

impl Arrivals {
    pub(super) fn new(space: Arc<SnapshotSpace>) -> Arrivals {
        Arrivals { files: Mutex::default(), space }
    }

    pub(super) fn contains(&self, file: &FileId) -> bool {
        self.files.lock().contains(file)
    }

    /// The number of files that are arriving.
    pub(super) fn count(&self) -> usize {
        self.files.lock().len()
    }
}

/// A snapshot file that arrives. If it is dropped before raftstore knows the file, it removes the file.
pub struct Arrival {
    file: FileId,
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    arrivals: Arc<Arrivals>,
    /// The size for which there is space.
    expected_bytes: u64,
    is_known: bool,
}

impl Arrival {
    /// Of about `bytes`, for which there is space on the disk, twice.
    pub(super) fn begin(
        directory: &Path,
        fs: Arc<dyn Fs>,
        file: FileId,
        bytes: u64,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Arrival, NoSpace> {
        arrivals.space.promise(file, bytes.saturating_mul(2))?;
        arrivals.files.lock().insert(file);
        let (directory, arrivals) = (directory.to_owned(), arrivals.clone());
        Ok(Arrival { file, directory, fs, arrivals, expected_bytes: bytes, is_known: false })
    }

    /// The path of the file when it is complete and synced. The folder may not exist yet.
    pub fn path(&self) -> PathBuf {
        self.directory.join(self.file.file_name())
    }

    /// The path of the file until then.
    pub fn temporary_path(&self) -> PathBuf {
        self.directory.join(self.file.temporary_name())
    }

    /// The file's own share of the promised space is allocated to it.
    pub fn allocated(&self) {
        self.arrivals.space.set(self.file, self.expected_bytes);
    }

    /// The file has `written_bytes` and is about to get `more_bytes`: checks that there is space, if that is more than
    /// was announced.
    pub fn grows(&mut self, written_bytes: u64, more_bytes: u64) -> Result<(), NoSpace> {
        let end = written_bytes + more_bytes;
        if end > self.expected_bytes {
            let expected = end + GROWTH_BYTES;
            self.arrivals.space.promise(self.file, 2 * expected - written_bytes)?;
            self.expected_bytes = expected;
        }
        Ok(())
    }

    /// The file is complete: only its install will take space.
    pub(super) fn is_complete(&self, bytes: u64) {
        self.arrivals.space.set(self.file, bytes);
    }

    pub(super) fn file(&self) -> FileId {
        self.file
    }

    /// From now on raftstore decides about the file.
    pub(super) fn known_to_raftstore(mut self) {
        self.is_known = true;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.is_known {
            for path in [self.temporary_path(), self.path()] {
                if self.fs.exists(&path)
                    && let Err(error) = self.fs.remove(&path)
                {
                    // The next survey of all files finds it.
                    tracing::warn!(%error, path = %path.display(), "an incomplete snapshot file could not be removed");
                }
            }
            self.arrivals.space.release(self.file);
        }
        self.arrivals.files.lock().remove(&self.file);
    }
}
