//! Values that were read lately, whole and checked.
//!
//! A value in a file costs a system call, a checksum and an allocation at each read: 1 to 5 microseconds, ten times what a
//! block in memory costs. A pointer never changes, nor does what it leads to, also when the segment is relocated; so a
//! pointer is the key, and nothing is ever invalidated. What scans pass over once does not push out what is read
//! again: the cache is S3-FIFO.

use crate::cache::{BlockCache, Budget, FixedHash};
use crate::kind::ValuePointer;
use crate::stats::CacheStats;
use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an entry costs beside the value: key, handle, slot. An estimate.
const ENTRY_OVERHEAD_BYTES: u64 = 120;
/// For the sizing of the cache's table only.
const VALUE_BYTES_EXPECTED: u64 = 4 << 10;
/// The budget is told after so many values: to ask the cache how much it holds takes every lock of it.
const INSERTS_BETWEEN_NOTES: u64 = 16;

#[derive(Clone)]
struct Weight;

impl Weighter<(u64, u64), Bytes> for Weight {
    fn weight(&self, _: &(u64, u64), value: &Bytes) -> u64 {
        ENTRY_OVERHEAD_BYTES + value.len() as u64
    }
}

type Lifecycle = DefaultLifecycle<(u64, u64), Bytes>;
type Values = Cache<(u64, u64), Bytes, Weight, FixedHash, Lifecycle>;

/// A cache of values by segment and offset, in one budget with a cache of blocks.
pub(crate) struct ValueCache {
    cache: Arc<Values>,
    budget: Arc<Budget>,
    blocks: Arc<BlockCache>,
    hits: AtomicU64,
    misses: AtomicU64,
    inserted: AtomicU64,
}

impl ValueCache {
    /// A cache within the budget of `blocks`; none is held if that is 0.
    pub(crate) fn within(budget: Arc<Budget>, blocks: Arc<BlockCache>) -> ValueCache {
        let bytes = budget.total_bytes();
        let items = usize::try_from(bytes / VALUE_BYTES_EXPECTED).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(bytes).build();
        let options = options.expect("every option is given and in range");
        let cache: Arc<Values> = Arc::new(Cache::with_options(options, Weight, FixedHash, Lifecycle::default()));
        let told = cache.clone();
        budget.attach_values(Box::new(move |bytes| told.set_capacity(bytes)));
        let [hits, misses, inserted] = [const { AtomicU64::new(0) }; 3];
        ValueCache { cache, budget, blocks, hits, misses, inserted }
    }

    /// The value that a pointer leads to, if it is here.
    pub(crate) fn get(&self, pointer: ValuePointer) -> Option<Bytes> {
        let found = self.cache.get(&(pointer.segment, pointer.offset));
        let found = found.filter(|value| value.len() == pointer.length as usize);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Counts a value that is here as used, beside the statistics: it passes from the queue of newcomers, where it would go
    /// out unused, to those that stay.
    pub(crate) fn promote(&self, pointer: ValuePointer) {
        let _ = self.cache.get(&(pointer.segment, pointer.offset));
    }

    /// Takes in a value that was checked.
    pub(crate) fn insert(&self, pointer: ValuePointer, value: &Bytes) {
        debug_assert_eq!(value.len(), pointer.length as usize, "a pointer knows the length");
        self.cache.insert((pointer.segment, pointer.offset), value.clone());
        if self.inserted.fetch_add(1, Ordering::Relaxed).is_multiple_of(INSERTS_BETWEEN_NOTES) {
            self.budget.note_values(self.cache.weight());
            self.blocks.give_way();
        }
    }

    /// What it has done since it was made, and what it holds.
    pub(crate) fn stats(&self) -> CacheStats {
        let inserted = self.inserted.load(Ordering::Relaxed);
        CacheStats {
            capacity_bytes: self.cache.capacity(),
            bytes: self.cache.weight(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            // Those that two readers have put in at the same time count too: there are few.
            evictions: inserted.saturating_sub(self.cache.len() as u64),
        }
    }
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
