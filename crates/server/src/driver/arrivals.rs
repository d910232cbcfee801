//! Snapshot files on their way to raftstore: each keeps its names until raftstore has seen it, and goes with its file if
//! it never gets there.

use kontiki_env::fs::Fs;
use kontiki_raftstore::snapshot::FileId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that arrive now. Whoever removes what is not needed leaves these alone.
#[derive(Default)]
pub(super) struct Arrivals {
    files: Mutex<BTreeSet<FileId>>,
}

impl Arrivals {
    pub(super) fn contains(&self, file: &FileId) -> bool {
        self.files.lock().contains(file)
    }
}

/// A snapshot file that arrives. Dropped before raftstore knows of the file, it removes what there is of it.
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

    /// Where the file is to lie when it is whole and synced. The folder may not exist yet.
    pub fn path(&self) -> PathBuf {
        self.directory.join(self.file.file_name())
    }

    /// Where it is to lie until then.
    pub fn temporary_path(&self) -> PathBuf {
        self.directory.join(self.file.temporary_name())
    }

    pub(super) fn file(&self) -> FileId {
        self.file
    }

    /// From here on raftstore says what becomes of the file.
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
                    // The next look at all files finds it.
                    tracing::warn!(%error, path = %path.display(), "a snapshot file that did not arrive was not removed");
                }
            }
        }
        self.arrivals.files.lock().remove(&self.file);
    }
}
