//! Passes received data to the node: messages to its inbox, snapshot files to its folder.

use super::{Inbound, IncomingFile};
use crate::driver::{Arrival, NoSpace, NodeHandle};
use bytes::Bytes;
use kontiki_env::fs::{File, Fs, OpenMode};
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Passes what arrives to a node.
pub struct NodeInbound {
    node: NodeHandle,
    fs: Arc<dyn Fs>,
}

impl NodeInbound {
    /// Snapshot files are written through `fs`.
    pub fn new(node: NodeHandle, fs: Arc<dyn Fs>) -> NodeInbound {
        NodeInbound { node, fs }
    }
}

impl Inbound for NodeInbound {
    type File = ArrivingFile;

    fn deliver(&self, from: StoreId, message: Bytes) {
        self.node.deliver(from, message);
    }

    fn begin_snapshot(&self, id: SnapshotId, estimated_bytes: u64) -> io::Result<ArrivingFile> {
        let arrival = self.node.snapshot_arrives(id, estimated_bytes).map_err(no_space)?;
        self.fs.create_dir_all(arrival.path().parent().unwrap_or(Path::new(".")))?;
        let file = self.fs.open(&arrival.temporary_path(), OpenMode::CreateNew)?;
        // A disk that is too full is noticed here and not after an hour. Unused preallocated space is released at the
        // end.
        file.allocate(estimated_bytes)?;
        arrival.allocated();
        Ok(ArrivingFile { node: self.node.clone(), fs: self.fs.clone(), file, arrival, written: 0 })
    }
}

fn no_space(error: NoSpace) -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, error)
}

/// A snapshot file under its temporary name; removed unless it was finished.
pub struct ArrivingFile {
    node: NodeHandle,
    fs: Arc<dyn Fs>,
    file: Arc<dyn File>,
    arrival: Arrival,
    written: u64,
}

impl IncomingFile for ArrivingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let grows = self.arrival.grows(self.written, bytes.len() as u64);
        grows.inspect_err(|_| self.node.counters().snapshots_refused.increment()).map_err(no_space)?;
        self.file.write_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn finish(self, message: Bytes) -> io::Result<()> {
        self.file.set_len(self.written)?;
        self.file.sync()?;
        let path = self.arrival.path();
        self.fs.rename(&self.arrival.temporary_path(), &path)?;
        self.fs.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        // The region's folder may be new, too.
        self.fs.sync_dir(self.node.snapshots_dir())?;
        let received = self.node.snapshot_received(self.arrival, message);
        received.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }
}
