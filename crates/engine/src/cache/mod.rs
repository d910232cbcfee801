//! Caches, bounded in bytes: uncompressed blocks and values of the value log in one budget, and open tables (file
//! handle, filter, top of the index).
//!
//! A read searches neither. A table of the version holds its open reader, a reader holds slots for its blocks
//! (`residents`); the caches decide what stays. Their decisions depend on nothing random, so that a simulated run
//! evicts, and therefore reads, the same from the same seed.
//!
//! For `db/`: make one [`BlockCache`] and one [`TableCache`] at open and put the latter into every `ReadState`.

pub(crate) mod budget;
mod hash;
pub(crate) mod residents;
mod slot_cache;
mod sync;
mod table_cache;

pub(crate) use budget::{Budget, Part};
pub(crate) use hash::FixedHash;
#[cfg(test)]
pub(crate) use slot_cache::weight;
pub use slot_cache::{Content, SlotCache, Slots};
pub use table_cache::{HeldReader, ReaderSlot, TableCache};

/// Uncompressed, checked blocks.
pub type BlockCache = SlotCache<residents::Residents>;

#[cfg(test)]
#[path = "model_test.rs"]
mod model_tests;
#[cfg(test)]
#[path = "slot_cache_test.rs"]
mod slot_cache_tests;
