//! Received things on their way into the node: messages to its inbox, snapshot files to its folder.

use super::{Inbound, IncomingFile};
use crate::driver::NodeHandle;
use bytes::Bytes;
use kontiki_env::fs::{File, Fs, OpenMode};
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Brings what arrives to a node.
pub struct NodeInbound {
    node: NodeHandle,
    fs: Arc<dyn Fs>,
    arrivals: AtomicU64,
}

impl NodeInbound {
    /// Snapshot files are written through `fs`.
    pub fn new(node: NodeHandle, fs: Arc<dyn Fs>) -> NodeInbound {
        NodeInbound { node, fs, arrivals: AtomicU64::new(0) }
    }
}

impl Inbound for NodeInbound {
    type File = ArrivingFile;

    fn deliver(&self, from: StoreId, message: Bytes) {
        self.node.deliver(from, message);
    }

    fn begin_snapshot(&self, id: SnapshotId, length_bytes: u64) -> io::Result<ArrivingFile> {
        let path = self.node.snapshot_path(id);
        let directory = path.parent().unwrap_or(Path::new(".")).to_owned();
        self.fs.create_dir_all(&directory)?;
        // Numbered: two leaders, old and new, may send the same snapshot at a time.
        let number = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{number}.tmp"));
        if self.fs.exists(&temporary) {
            self.fs.remove(&temporary)?;
        }
        let file = self.fs.open(&temporary, OpenMode::CreateNew)?;
        let arriving = ArrivingFile {
            node: self.node.clone(),
            fs: self.fs.clone(),
            id,
            file,
            temporary,
            path,
            written: 0,
            renamed: false,
        };
        // A full disk shows here and not after an hour.
        arriving.file.allocate(length_bytes)?;
        Ok(arriving)
    }
}

/// A snapshot file under its temporary name; removed unless it was finished.
pub struct ArrivingFile {
    node: NodeHandle,
    fs: Arc<dyn Fs>,
    id: SnapshotId,
    file: Arc<dyn File>,
    temporary: PathBuf,
    path: PathBuf,
    written: u64,
    renamed: bool,
}

impl IncomingFile for ArrivingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self, message: Bytes) -> io::Result<()> {
        self.file.set_len(self.written)?;
        self.file.sync()?;
        self.fs.rename(&self.temporary, &self.path)?;
        self.renamed = true;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        self.fs.sync_dir(directory)?;
        // The region's folder may be new, too.
        self.fs.sync_dir(self.node.snapshots_dir())?;
        let received = self.node.snapshot_received(self.id, message);
        received.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

impl Drop for ArrivingFile {
    fn drop(&mut self) {
        if !self.renamed {
            // If this fails, the next start removes it.
            let _ = self.fs.remove(&self.temporary);
        }
    }
}
