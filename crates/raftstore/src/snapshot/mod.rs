//! Snapshots with data: their names, and how their files are written, checked and installed.
//!
//! The functions here are pure over a [`View`](kontiki_engine::View) and byte streams; the driver brings files, threads
//! and sockets:
//!
//! - sender: [`write()`] from a view into the stream; nothing is stored there;
//! - receiver: store the chunks into a temporary file, [`verify`], sync, rename, then
//!   [`crate::Event::SnapshotReceived`]; after a crash, a file with a temporary name is removed.
//!
//! The format is in `frame.rs` and docs/internals/raftstore.md.

mod frame;
mod install;
mod names;
mod read;
mod write;

pub use install::{InstallError, InstallTarget, OpenFile, install};
pub use names::{FileId, FileNumbers};
pub use read::verify;
pub use write::{Content, describe, write};

use crate::consensus::wire::{RaftMessage, RegionRecord, SnapshotInfo};
use crate::region::{Region, RegionId};

/// Names a snapshot: the state of a region right after the entry at `index` of `term` was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The region.
    pub region: RegionId,
    /// Term of the last entry it holds.
    pub term: u64,
    /// Index of the last entry it holds.
    pub index: u64,
}

/// What a snapshot holds: known before its first byte is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Which.
    pub id: SnapshotId,
    /// The region's descriptor at that index.
    pub region: Region,
}

impl SnapshotHead {
    pub(crate) fn to_info(&self) -> SnapshotInfo {
        let region = Some(RegionRecord::from(&self.region));
        SnapshotInfo { index: self.id.index, term: self.id.term, region, ..SnapshotInfo::default() }
    }

    pub(crate) fn from_info(info: &SnapshotInfo) -> Result<SnapshotHead, &'static str> {
        let region = info.region.as_ref().ok_or("a snapshot without its region")?.to_region()?;
        if info.index == 0 || info.term == 0 {
            return Err("a snapshot without a position");
        }
        let id = SnapshotId { region: region.id, term: info.term, index: info.index };
        Ok(SnapshotHead { id, region })
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the snapshot of region {} at index {} of term {}", self.region, self.index, self.term)
    }
}

/// A whole snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// What it holds.
    pub id: SnapshotId,
    /// The number in its name here ([`FileId::number`]); 0 until it has a name.
    pub number: u64,
    /// The region's descriptor at that index.
    pub region: Region,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32 of all bytes before the last frame, which holds it too.
    pub checksum: u32,
}

impl SnapshotFile {
    /// Its name.
    pub fn name(&self) -> FileId {
        FileId { snapshot: self.id, number: self.number }
    }

    /// The same file under the name with this number.
    pub fn numbered(self, number: u64) -> SnapshotFile {
        SnapshotFile { number, ..self }
    }

    /// What it holds, as its sender announced it: names, sizes and checksums are each store's own.
    pub fn head(&self) -> SnapshotHead {
        SnapshotHead { id: self.id, region: self.region.clone() }
    }

    /// Whether this is the message that announces it.
    pub(crate) fn is_announced_by(&self, raft: &RaftMessage) -> bool {
        let announced = raft.snapshot.as_ref().and_then(|info| SnapshotHead::from_info(info).ok());
        raft.is_snapshot() && announced == Some(self.head())
    }

    /// For the state blob of this store's stream.
    pub(crate) fn to_state(&self) -> SnapshotInfo {
        let (bytes, checksum, file_number) = (self.bytes, self.checksum, self.number);
        SnapshotInfo { bytes, checksum, file_number, ..self.head().to_info() }
    }

    pub(crate) fn from_info(info: &SnapshotInfo) -> Result<SnapshotFile, &'static str> {
        let SnapshotHead { id, region } = SnapshotHead::from_info(info)?;
        let SnapshotInfo { bytes, checksum, file_number: number, .. } = *info;
        Ok(SnapshotFile { id, number, region, bytes, checksum })
    }
}

/// What the chunks of an arriving snapshot hold, by the message that announces it. `None` if the message is not one
/// that announces a snapshot.
pub fn announced(message: bytes::Bytes) -> Option<SnapshotHead> {
    let message = <crate::consensus::wire::StoreMessage as prost::Message>::decode(message).ok()?;
    let raft = message.raft.filter(|raft| raft.is_snapshot())?;
    SnapshotHead::from_info(raft.snapshot.as_ref()?).ok().filter(|head| head.id.region.0 == message.region)
}

/// Why a snapshot file was not written, or cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file is not what was written.
    #[error("the snapshot file is damaged at offset {offset}: {what}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// The file holds another snapshot than the one asked for.
    #[error("the file holds a wrong snapshot: {found}, expected {expected}")]
    Other {
        /// What it holds.
        found: SnapshotId,
        /// What it should hold.
        expected: SnapshotId,
    },
    /// An entry expires, and the receiver does not know that.
    #[error(
        "the region has keys that expire, and the receiver's release takes no snapshot with such keys; upgrade the \
         receiver"
    )]
    Expiry,
    /// The view does not hold the region.
    #[error("region {0} is not in the view")]
    NoRegion(RegionId),
    /// Reading or writing the file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Reading the view or writing a batch failed.
    #[error(transparent)]
    Engine(#[from] kontiki_engine::Error),
    /// The region's records in the view are damaged.
    #[error(transparent)]
    Meta(#[from] crate::error::RecoverError),
}

impl SnapshotError {
    /// What it means for an install from the file `name`.
    pub fn of_install(self, name: &str) -> InstallError {
        let text = format!("{name}: {self}");
        match self {
            SnapshotError::Damaged { .. } | SnapshotError::Other { .. } | SnapshotError::Io(_) => {
                InstallError::FileLost(text)
            }
            SnapshotError::Engine(error) if error.is_retryable() => InstallError::NoSpace(text),
            _ => InstallError::Store(text),
        }
    }

    fn damaged(offset: u64, what: &str) -> SnapshotError {
        SnapshotError::Damaged { offset, what: what.into() }
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
