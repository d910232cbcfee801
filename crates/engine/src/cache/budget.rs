//! One budget for two caches: blocks, and values of the value log.
//!
//! How much of each is worth keeping depends on how large the values are, and that changes from database to database and
//! from hour to hour. So neither has a fixed part: each may take what the other does not use. Only when both would fill
//! it all does a fixed share hold, and whoever has borrowed gives back as the other grows.

use parking_lot::Mutex;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What values keep when blocks would take everything.
const VALUE_SHARE_PERCENT: u64 = 25;
/// The capacity of values changes in steps of such a part of the budget: each change takes every lock of their cache.
const STEPS: u64 = 64;

type SetCapacity = Box<dyn Fn(u64) + Send + Sync>;

/// A number of bytes for blocks and values together.
pub struct Budget {
    total_bytes: u64,
    value_share_bytes: u64,
    block_bytes: AtomicU64,
    value_bytes: AtomicU64,
    /// How values are told their capacity.
    values: OnceLock<SetCapacity>,
    /// What they were told last.
    value_capacity_bytes: Mutex<u64>,
}

impl Budget {
    /// A budget for both.
    pub(crate) fn shared(total_bytes: u64) -> Budget {
        Budget::new(total_bytes, total_bytes / 100 * VALUE_SHARE_PERCENT)
    }

    /// A budget for blocks alone.
    pub(crate) fn of_blocks(total_bytes: u64) -> Budget {
        Budget::new(total_bytes, 0)
    }

    fn new(total_bytes: u64, value_share_bytes: u64) -> Budget {
        Budget {
            total_bytes,
            value_share_bytes,
            block_bytes: AtomicU64::new(0),
            value_bytes: AtomicU64::new(0),
            values: OnceLock::new(),
            value_capacity_bytes: Mutex::new(0),
        }
    }

    /// All of it.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What blocks may have now: never less than their share.
    pub(crate) fn block_capacity_bytes(&self) -> u64 {
        let unused = self.total_bytes.saturating_sub(self.value_bytes.load(Relaxed));
        unused.max(self.total_bytes - self.value_share_bytes)
    }

    /// Whether blocks have more than they may.
    pub(crate) fn blocks_must_shrink(&self) -> bool {
        self.block_bytes.load(Relaxed) > self.block_capacity_bytes()
    }

    /// A block has come in. Called before anyone can take it out, so that the sum never falls below zero.
    pub(crate) fn add_block(&self, bytes: u64) {
        self.block_bytes.fetch_add(bytes, Relaxed);
    }

    /// Blocks have gone out.
    pub(crate) fn remove_blocks(&self, bytes: u64) {
        self.block_bytes.fetch_sub(bytes, Relaxed);
    }

    /// So many bytes of values are there now.
    pub(crate) fn note_values(&self, bytes: u64) {
        self.value_bytes.store(bytes, Relaxed);
        self.fit_values();
    }

    /// `set_capacity` is called with what values may have, now and whenever it has changed.
    pub(crate) fn attach_values(&self, set_capacity: SetCapacity) {
        assert!(self.values.set(set_capacity).is_ok(), "one cache of values a budget");
        self.fit_values();
    }

    /// Takes back from values what blocks have grown into.
    pub(crate) fn fit_values(&self) {
        let Some(set_capacity) = self.values.get() else { return };
        // Who comes in between has changed little; the next one sees it.
        let Some(mut told) = self.value_capacity_bytes.try_lock() else { return };
        let unused = self.total_bytes.saturating_sub(self.block_bytes.load(Relaxed));
        let step = (self.total_bytes / STEPS).max(1);
        let capacity = (unused / step * step).max(self.value_share_bytes);
        if *told != capacity {
            *told = capacity;
            set_capacity(capacity);
        }
    }
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
