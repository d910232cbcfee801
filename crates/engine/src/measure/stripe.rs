//! Per-thread state, so that counting does not make threads wait for each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// 2^64 divided by the golden ratio: the multiples of it, modulo 2^64, fill the circle as evenly as multiples can.
const GOLDEN_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    static PHASE: Cell<u64> = const { Cell::new(0) };
}

/// The number of this thread; threads get numbers in turn.
pub(crate) fn stripe_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(NEXT.fetch_add(1, Relaxed));
        }
        stripe.get()
    })
}

/// Chooses one in so many operations.
///
/// Each thread advances around a circle in steps of the golden ratio and chooses the operations whose position falls
/// into a part of the circle. That is an addition and a comparison, needs no random numbers, and, unlike every n-th
/// operation, does not synchronize with a workload that repeats itself: the chosen part of every second, third, ..
/// operation is the same.
#[derive(Debug)]
pub(crate) struct Sampler {
    one_in: u64,
    until: u64,
    /// The position of a separate walk, in place of each thread's: in a stepped world what is chosen must follow from
    /// the seed alone, not from what the thread has done before.
    own_phase: Option<AtomicU64>,
}

impl Sampler {
    /// One in `one_in` operations: 1 is all of them, 0 none.
    pub(crate) fn new(one_in: u64) -> Sampler {
        Sampler { one_in, until: u64::MAX.checked_div(one_in).unwrap_or(0), own_phase: None }
    }

    /// The same, for a stepped world.
    pub(crate) fn stepped(one_in: u64) -> Sampler {
        Sampler { own_phase: Some(AtomicU64::new(0)), ..Sampler::new(one_in) }
    }

    /// Whether this operation is chosen.
    #[inline]
    pub(crate) fn hit(&self) -> bool {
        if self.one_in == 0 {
            return false;
        }
        if let Some(phase) = &self.own_phase {
            return phase.fetch_add(GOLDEN_STEP, Relaxed).wrapping_add(GOLDEN_STEP) <= self.until;
        }
        PHASE.with(|phase| {
            let next = phase.get().wrapping_add(GOLDEN_STEP);
            phase.set(next);
            next <= self.until
        })
    }

    /// For how many operations a chosen one stands.
    pub(crate) fn one_in(&self) -> u64 {
        self.one_in
    }
}

#[cfg(test)]
#[path = "stripe_test.rs"]
mod tests;
