//! How much memory and how many tables of level 0 there may be before commits wait.

use super::memtables::{Memtables, State};
use std::sync::atomic::Ordering;

/// Bounds on memory; see `Options`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimits {
    pub(crate) memtable_bytes: u64,
    pub(crate) memtables_max: usize,
    pub(crate) level0_tables_max: usize,
    /// From this share of each bound on writers are slowed.
    pub(crate) soft_percent: u64,
}

/// Why there is no capacity for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FullReason {
    /// Commits are held back for an ingest.
    Ingest,
    /// A family has too many tables in level 0.
    Level0,
    /// Memtables wait for their flush.
    Memtables,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Capacity {
    None,
    InActive,
    AfterFreeze,
}

impl MemoryLimits {
    pub(super) fn is_pressed(&self, state: &State) -> bool {
        let memory_max = self.memtable_bytes.saturating_mul(self.memtables_max as u64);
        let beyond = |amount: u64, max: u64| u128::from(amount) * 100 > u128::from(max) * u128::from(self.soft_percent);
        beyond(state.memtable_bytes(), memory_max) || beyond(state.level0_tables as u64, self.level0_tables_max as u64)
    }
}

impl Memtables {
    /// Whether [`Memtables::begin`] would succeed.
    pub(crate) fn has_capacity(&self) -> bool {
        self.capacity(&self.state.lock()) != Capacity::None
    }

    /// Why [`Memtables::begin`] would not succeed.
    pub(crate) fn full_reason(&self) -> Option<FullReason> {
        let state = self.state.lock();
        match self.capacity(&state) {
            Capacity::None if state.held => Some(FullReason::Ingest),
            Capacity::None if state.level0_tables >= self.limits.level0_tables_max => Some(FullReason::Level0),
            Capacity::None => Some(FullReason::Memtables),
            Capacity::InActive | Capacity::AfterFreeze => None,
        }
    }

    /// Whether memtables or level 0 are so full that writers are slowed.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Bytes of memtables, and the tables of level 0 that a read may have to read.
    pub(crate) fn memory_and_level0(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.memtable_bytes(), state.level0_tables as u64)
    }

    pub(super) fn note_pressure(&self, state: &State) {
        let pressed = self.limits.is_pressed(state);
        // Written rarely, so that readers do not take the cache line from each other.
        if pressed != self.is_pressed() {
            self.pressed.store(pressed, Ordering::Relaxed);
        }
    }

    /// Whether the active memtable has reached its limit.
    pub(crate) fn active_is_full(&self) -> bool {
        self.is_full(&self.state.lock())
    }

    pub(super) fn is_full(&self, state: &State) -> bool {
        state.active.memtable.approximate_bytes() as u64 >= self.limits.memtable_bytes
    }

    pub(super) fn capacity(&self, state: &State) -> Capacity {
        if state.held {
            return Capacity::None;
        }
        if state.level0_tables >= self.limits.level0_tables_max {
            return Capacity::None;
        }
        if !self.is_full(state) {
            return Capacity::InActive;
        }
        // The frozen ones, the full active one, and the new one.
        if state.frozen.len() + 2 <= self.limits.memtables_max { Capacity::AfterFreeze } else { Capacity::None }
    }
}
