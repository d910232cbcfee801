//! One budget for two caches: blocks, and values of the value log.
//!
//! How much memory each needs depends on the size of the values, and changes from database to database and over time.
//! So neither has a fixed part: each may use what the other does not. Only when both would fill the whole budget does a
//! fixed share apply, and the cache that has borrowed gives back as the other grows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The share that values keep when blocks would take everything.
const VALUE_SHARE_PERCENT: u64 = 25;

/// The caches of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Blocks of tables.
    Blocks,
    /// Values of the value log.
    Values,
}

impl Part {
    fn other(self) -> Part {
        match self {
            Part::Blocks => Part::Values,
            Part::Values => Part::Blocks,
        }
    }
}

/// A number of bytes for blocks and values together.
pub struct Budget {
    total_bytes: u64,
    blocks: State,
    values: State,
}

struct State {
    share_bytes: u64,
    used_bytes: AtomicU64,
    give_way: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl State {
    fn new(share_bytes: u64) -> State {
        State { share_bytes, used_bytes: AtomicU64::new(0), give_way: OnceLock::new() }
    }
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
        let blocks = State::new(total_bytes - value_share_bytes);
        Budget { total_bytes, blocks, values: State::new(value_share_bytes) }
    }

    fn state(&self, part: Part) -> &State {
        match part {
            Part::Blocks => &self.blocks,
            Part::Values => &self.values,
        }
    }

    /// The whole budget.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// What a part may use now: what the other leaves, and never less than its share.
    pub(crate) fn capacity_bytes(&self, part: Part) -> u64 {
        let left = self.total_bytes.saturating_sub(self.state(part.other()).used_bytes.load(Relaxed));
        left.max(self.state(part).share_bytes)
    }

    /// Whether a part uses more than it may.
    pub(crate) fn is_over(&self, part: Part) -> bool {
        self.state(part).used_bytes.load(Relaxed) > self.capacity_bytes(part)
    }

    /// Something was added. Called before another thread can remove it, so that the sum never falls below zero.
    pub(crate) fn add(&self, part: Part, bytes: u64) {
        self.state(part).used_bytes.fetch_add(bytes, Relaxed);
    }

    /// Something was removed.
    pub(crate) fn remove(&self, part: Part, bytes: u64) {
        self.state(part).used_bytes.fetch_sub(bytes, Relaxed);
    }

    /// How a part is asked to free memory.
    pub(crate) fn on_give_way(&self, part: Part, give_way: impl Fn() + Send + Sync + 'static) {
        let first = self.state(part).give_way.set(Box::new(give_way)).is_ok();
        assert!(first, "one cache for each part of a budget");
    }

    /// After a part has grown: the other one gives back what it has borrowed, some of it at each call.
    pub(crate) fn reclaim_for(&self, part: Part) {
        if self.is_over(part.other())
            && let Some(give_way) = self.state(part.other()).give_way.get()
        {
            give_way();
        }
    }
}

#[cfg(test)]
#[path = "budget_test.rs"]
mod tests;
