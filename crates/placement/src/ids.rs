//! Ids: each is handed out once in the lifetime of the cluster.
//!
//! Invariant: every id handed out is below the durable bound. A batch of ids is reserved by raising the bound with
//! one write; a new leader starts at the bound it finds, so ids reserved and not used are lost, never reused.

use crate::planted::{self, Bug};

/// The first id that is allocated. The ids below it are computed by the static bootstrap, without a call to placement.
pub const FIRST_ID: u64 = 100_000;

/// The maximum number of ids that one call may ask for. A split asks for a few.
pub const ID_COUNT_MAX: u32 = 100_000;

/// Hands out ids.
#[derive(Debug)]
pub(crate) struct Ids {
    next: u64,
    bound: u64,
}

impl Ids {
    /// The state of a new leader: any id below the bound may be in use.
    pub fn new(bound: u64) -> Ids {
        let next = bound.max(FIRST_ID);
        Ids { next, bound: next }
    }

    /// `count` consecutive ids, of which the first is returned; `None` if the bound must be raised first.
    pub fn allocate(&mut self, count: u32) -> Option<u64> {
        assert!((1..=ID_COUNT_MAX).contains(&count), "checked when the call came in");
        let first = self.next;
        let after = first + u64::from(count);
        if after > self.bound && !planted::is_set(Bug::IdsBeyondBound) {
            return None;
        }
        self.next = after;
        Some(first)
    }

    /// The bound to write so that `needed` more ids can be handed out, with `spare` ids besides.
    pub fn bound_for(&self, needed: u64, spare: u64) -> u64 {
        self.next + needed + spare
    }

    /// A bound became durable.
    pub fn raised(&mut self, bound: u64) {
        assert!(bound >= self.bound, "the bound of ids never goes down");
        self.bound = bound;
    }
}

#[cfg(test)]
#[path = "ids_test.rs"]
mod tests;
