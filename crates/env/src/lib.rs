//! The only door to the machine: files, clocks, randomness and background tasks, each with a real and a
//! simulated implementation behind one small face, plus the byte codecs every floor shares.
//!
//! Invariant: no other crate of the core (engine, txn, raftstore, placement) touches `std::fs`, a clock, a
//! random source or a thread. `clippy.toml` bans them outside this crate.
#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // this crate is the door

pub mod clock;
pub mod codec;
pub mod fs;
pub mod rng;
pub mod tasks;

use std::sync::Arc;

/// Everything a component may ask of the machine, handed down at construction. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Files.
    pub fs: Arc<dyn fs::Fs>,
    /// Clocks.
    pub clock: Arc<dyn clock::Clock>,
    /// Background work: threads in production, steps in simulation.
    pub tasks: Arc<dyn tasks::Tasks>,
}

impl Env {
    /// The real machine: its file system, its clocks, a thread for each job.
    pub fn real() -> Env {
        Env { fs: Arc::new(fs::RealFs), clock: Arc::new(clock::RealClock::new()), tasks: Arc::new(tasks::Threads) }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("threaded", &self.tasks.threaded()).finish_non_exhaustive()
    }
}
