//! A cache of slots, bounded in bytes: blocks of tables and values of the value log are in two instances of it, which
//! share one budget.
//!
//! A read does not search it. A table's reader holds slots for its blocks (`residents`); the cache decides what stays.
//! Its decisions depend on nothing random, so that a simulated run evicts, and therefore reads, the same from the same
//! seed.

mod budget;
mod hash;
mod residents;
mod slot_cache;
mod sync;

pub(crate) use budget::{Budget, Part};
pub(crate) use hash::FixedHash;
pub use residents::{HeldContent, Resident, Residents, Use};
#[cfg(test)]
pub(crate) use slot_cache::weight;
pub use slot_cache::{CacheStats, SlotCache, SlotContent, Slots};

#[cfg(test)]
#[path = "model_test.rs"]
mod model_tests;
#[cfg(test)]
#[path = "slot_cache_test.rs"]
mod slot_cache_tests;
