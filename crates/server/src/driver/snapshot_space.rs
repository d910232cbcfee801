//! Space on the disk that is promised to snapshots.
//!
//! A snapshot needs space twice: for its file, and for the tables that are built of it (or, for a small one, that
//! memtables are flushed to) while the file is still there. A disk that fills up in between delays every region of the
//! node, not only the one that the snapshot is of. So a snapshot is accepted only if there is space for both, beside
//! what was promised to others and what memtables need to be flushed. A refusal costs nothing but a try: the sender
//! waits before the next one, longer each time.
//!
//! A promise ends with the install, or with the file if there is none. *Rejected:* files of that size as place holders,
//! instead of numbers: the install would have to give them back in pieces while it writes, and a crash leaves them.

use kontiki_env::fs::Fs;
use kontiki_raftstore::snapshot::FileId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The disk has no space for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no space for {needed_bytes} bytes of a snapshot's file and tables: {free_bytes} bytes are free, of which \
     {promised_bytes} are promised to other snapshots and {reserve_bytes} are kept for memtables; free space on the volume \
     of the data directory"
)]
pub struct NoSpace {
    needed_bytes: u64,
    free_bytes: u64,
    promised_bytes: u64,
    reserve_bytes: u64,
}

/// The promises of one node.
pub(super) struct SnapshotSpace {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    reserve_bytes: u64,
    /// Bytes that each file, or its install, will still take.
    promised: Mutex<BTreeMap<FileId, u64>>,
    /// Held while it is decided about one promise. The disk is asked meanwhile, so `promised` cannot serve for it: the
    /// driver's thread uses that.
    deciding: Mutex<()>,
}

impl SnapshotSpace {
    /// On the volume of `directory`, of which `reserve_bytes` are never promised.
    pub fn new(fs: Arc<dyn Fs>, directory: &Path, reserve_bytes: u64) -> SnapshotSpace {
        let directory = directory.to_owned();
        SnapshotSpace { fs, directory, reserve_bytes, promised: Mutex::default(), deciding: Mutex::default() }
    }

    /// Promises this file `needed_bytes` more than it takes now, in the place of what it was promised before. Without
    /// the space it keeps that.
    pub fn promise(&self, file: FileId, needed_bytes: u64) -> Result<(), NoSpace> {
        let _deciding = self.deciding.lock();
        // In this order: what others take of their promises in between counts twice, and not never.
        let others = self.promised.lock().iter().filter(|(other, _)| **other != file).map(|(_, bytes)| bytes).sum();
        // If the disk does not say, the writes will.
        let free_bytes = self.fs.free_bytes(&self.directory).unwrap_or(u64::MAX);
        if needed_bytes.saturating_add(others).saturating_add(self.reserve_bytes) > free_bytes {
            let reserve_bytes = self.reserve_bytes;
            return Err(NoSpace { needed_bytes, free_bytes, promised_bytes: others, reserve_bytes });
        }
        self.promised.lock().insert(file, needed_bytes);
        Ok(())
    }

    /// What is left of a promise, or, after a start, what an install that has to be repeated will take.
    pub fn set(&self, file: FileId, bytes: u64) {
        self.promised.lock().insert(file, bytes);
    }

    /// Nothing more is written for this file.
    pub fn release(&self, file: FileId) {
        self.promised.lock().remove(&file);
    }

    /// What is promised.
    pub fn promised_bytes(&self) -> u64 {
        self.promised.lock().values().sum()
    }
}

#[cfg(test)]
#[path = "snapshot_space_test.rs"]
mod tests;
