//! Two caches, both bounded in bytes: uncompressed blocks, and open tables (file handle, filter, top of the index).
//!
//! Neither is searched by a read. A table of the version holds its open reader, a reader holds slots for its blocks
//! (`residents`); the caches decide what stays. Their decisions depend on nothing random, so that a simulated run
//! evicts, and therefore reads, the same from the same seed.
//!
//! For `db/`: make one [`BlockCache`] and one [`TableCache`] at open and put the latter into every `ReadState`.

mod block_cache;
pub(crate) mod budget;
mod hash;
pub(crate) mod residents;
mod sync;
mod table_cache;

pub use block_cache::BlockCache;
pub(crate) use budget::Budget;
pub(crate) use hash::FixedHash;
pub use table_cache::{HeldReader, ReaderSlot, TableCache};

#[cfg(test)]
#[path = "block_cache_test.rs"]
mod block_cache_tests;
#[cfg(test)]
#[path = "model_test.rs"]
mod model_tests;
