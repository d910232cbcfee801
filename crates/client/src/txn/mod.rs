//! Transactions (Percolator): reads at a start timestamp, writes buffered until the commit. A pessimistic one locks the
//! keys that it writes, or reads for update, while it runs.

mod commit;
mod keeper;
mod lock;
mod locks;
mod mutate;
mod pessimistic;
mod scan;
mod snapshot;
mod transaction;

pub(crate) use lock::LockResolver;
pub use mutate::Mutation;
pub(crate) use mutate::mutate;
pub use pessimistic::PessimisticTransaction;
pub use scan::SnapshotScan;
pub use snapshot::Snapshot;
pub use transaction::Transaction;
