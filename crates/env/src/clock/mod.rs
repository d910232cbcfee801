//! Clocks.

mod real;
mod sim;

pub use real::RealClock;
pub use sim::{SimClock, VirtualTime};

use std::time::Duration;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary origin; never goes back (CLOCK_MONOTONIC).
    fn monotonic(&self) -> Duration;
    /// Milliseconds since the Unix epoch; may jump.
    fn wall_ms(&self) -> u64;
}
