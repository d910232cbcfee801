//! Reading versions: records of one key, snapshot reads, scans.

mod committed;
mod cursor;
mod mvcc;
mod oldest_lock;
mod scan;
mod snapshot;

pub use committed::{CommittedReader, CommittedScan};
pub(crate) use mvcc::{MvccReader, TxnRecord};
pub use oldest_lock::OldestLock;
pub use scan::{Scan, ScanLock};
pub(crate) use scan::{locks_where, scan, scan_lock};
pub use snapshot::{Isolation, Pair, ReadOptions, Version};
pub(crate) use snapshot::{batch_get, blocks_read, get};
