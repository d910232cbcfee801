//! Names of snapshot files: each is used once.
//!
//! A file is found again by the name in a log's state blob, and removed by orders that may be carried out much later
//! than they were given. If a name could be used again, an order to remove the first file would remove the second (this
//! happened with the file of an accepted snapshot, without which the node could not start). A name therefore contains a
//! number that this directory has never used before: greater than that of every file found at the start and of every
//! file named in a state blob. *Rejected:* removing only after another check of what is needed: between the check and
//! the removal a file of the same name can still arrive.

use super::SnapshotId;
use crate::region::RegionId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a snapshot file of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// What it holds.
    pub snapshot: SnapshotId,
    /// Used once in the lifetime of the directory.
    pub number: u64,
}

impl FileId {
    /// Its path below `snapshots/`: `REGION/TERM-INDEX-NUMBER.snap`.
    pub fn file_name(&self) -> String {
        format!("{}/{}", self.snapshot.region, self.base_name())
    }

    /// Its path while it is being written: `REGION/TERM-INDEX-NUMBER.tmp`.
    pub fn temporary_name(&self) -> String {
        let SnapshotId { region, term, index } = self.snapshot;
        format!("{region}/{term}-{index}-{}.tmp", self.number)
    }

    /// Its name within its region's folder.
    pub fn base_name(&self) -> String {
        let SnapshotId { term, index, .. } = self.snapshot;
        format!("{term}-{index}-{}.snap", self.number)
    }

    /// What a region's folder and a name in it of either kind say; `None` for other files.
    pub fn parse(folder: &str, name: &str) -> Option<FileId> {
        let stem = name.strip_suffix(".snap").or_else(|| name.strip_suffix(".tmp"))?;
        let mut numbers = stem.split('-').map(|part| part.parse().ok());
        let (term, index, number) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let region = RegionId(folder.parse().ok()?);
        numbers.next().is_none().then_some(FileId { snapshot: SnapshotId { region, term, index }, number })
    }
}

/// Hands out the numbers of one directory; clones share them. Any thread may ask.
#[derive(Clone, Debug, Default)]
pub struct FileNumbers {
    last: Arc<AtomicU64>,
    /// A planted bug: names contain the position only.
    are_reused: bool,
}

impl FileNumbers {
    pub(crate) fn new(are_reused: bool) -> FileNumbers {
        FileNumbers { are_reused, ..FileNumbers::default() }
    }

    /// A number that was never returned before.
    pub fn next(&self) -> u64 {
        if self.are_reused { 0 } else { self.last.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Numbers up to this one are in use.
    pub fn skip_through(&self, number: u64) {
        self.last.fetch_max(number, Ordering::Relaxed);
    }
}
