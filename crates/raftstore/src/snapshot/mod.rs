//! Snapshots that carry data: what names them, and the format of their files.

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

impl SnapshotId {
    /// Its path below `snapshots/`: `REGION/TERM-INDEX.snap`.
    pub fn file_name(&self) -> String {
        format!("{}/{}-{}.snap", self.region, self.term, self.index)
    }
}

/// A whole snapshot file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name.
    pub id: SnapshotId,
    /// The region's descriptor at that index.
    pub region: Region,
    /// Length in bytes.
    pub bytes: u64,
    /// CRC-32 of all of them but the last frame.
    pub checksum: u32,
}
