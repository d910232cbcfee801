//! Snapshot files that are arriving: each owns its names until raftstore knows the file, and removes the file if
//! raftstore never gets it.

use kontiki_env::fs::Fs;
use kontiki_raftstore::snapshot::FileId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that are arriving. The removal of unneeded files skips these.
#[derive(Default)]
pub(super) struct Arrivals {
    files: Mutex<BTreeSet<FileId>>,
}

impl Arrivals {
    pub(super) fn contains(&self, file: &FileId) -> bool {
        self.files.lock().contains(file)
    }
}

/// A snapshot file that arrives. If it is dropped before raftstore knows the file, it removes the file.
pub struct Arrival {
    file: FileId,
    directory: PathBuf,
    fs: Arc<dyn Fs>,
    arrivals: Arc<Arrivals>,
    is_known: bool,
}

impl Arrival {
    pub(super) fn begin(directory: &Path, fs: Arc<dyn Fs>, file: FileId, arrivals: &Arc<Arrivals>) -> Arrival {
        arrivals.files.lock().insert(file);
        Arrival { file, directory: directory.to_owned(), fs, arrivals: arrivals.clone(), is_known: false }
    }

    /// The path of the file when it is complete and synced. The folder may not exist yet.
    pub fn path(&self) -> PathBuf {
        self.directory.join(self.file.file_name())
    }

    /// The path of the file until then.
    pub fn temporary_path(&self) -> PathBuf {
        self.directory.join(self.file.temporary_name())
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
        }
        self.arrivals.files.lock().remove(&self.file);
    }
}
