//! Two caches, both bounded in bytes: uncompressed data blocks, and open tables (file handle, filter, index).
//!
//! The replacement policy is quick_cache's (S3-FIFO); hashing is fixed instead of randomly seeded, so that a
//! simulated run evicts, and therefore reads, the same from the same seed.
//!
//! For `db/`: make one [`BlockCache`] and one [`TableCache`] at open and put the latter into every `ReadState`.

mod block_cache;
mod hash;
mod table_cache;

pub use block_cache::BlockCache;
pub(crate) use hash::FixedHash;
pub use table_cache::TableCache;
