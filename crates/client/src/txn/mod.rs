//! Optimistic transactions (Percolator): reads at a start timestamp, writes buffered until the commit.

mod commit;
mod lock;
mod scan;
mod snapshot;
mod transaction;

pub(crate) use lock::LockResolver;
pub use scan::SnapshotScan;
pub use snapshot::Snapshot;
pub use transaction::Transaction;
