//! Clocks.

mod real;
mod sim;

pub use real::RealClock;
pub use sim::{SimClock, VirtualTime};

use std::time::Duration;

/// A source of time.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary origin, the time for which the machine was suspended included; never decreases
    /// (CLOCK_BOOTTIME on Linux). Leases rely on its rate being close to that of true time. It can only count a
    /// suspension that the kernel takes part in: a virtual machine that its host stops without a notification stands
    /// still with its clocks, and what it serves by lease right after it resumes may be stale.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since the Unix epoch; may jump.
    fn wall_ms(&self) -> u64;
}
