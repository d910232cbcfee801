//! Whether the files of a directory still belong to this database.
//!
//! Snapshots and scans may be kept beyond the close of their database. From the moment the directory's lock is released
//! another database may remove files there and use their numbers again, so a file that is opened by its name then may
//! belong to another database. So the end of the ownership is recorded before the lock is released, and a reader that
//! has opened a file by its name checks *after* that: if the ownership had not ended by then, the file is ours, and it
//! stays readable through its handle whatever happens to the name.
//!
//! Rejected: snapshots that hold the directory's lock, as transactions do. A forgotten snapshot would prevent a
//! database that was closed on purpose from being opened again.

use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the head of this file. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ownership(Arc<AtomicBool>);

impl Ownership {
    /// The directory's lock is about to be released.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// `Closed` once it has ended.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::SeqCst) { Err(Error::Closed) } else { Ok(()) }
    }
}
