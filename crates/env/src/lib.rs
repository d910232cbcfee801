//! The only access to the machine: files, clocks, randomness and background tasks, each with a real and a
//! simulated implementation behind one small interface, plus the byte codecs that all crates share.
//!
//! Invariant: no other crate of the core (engine, txn, raftstore, placement) touches `std::fs`, a clock, a
//! random source or a thread. `clippy.toml` bans them outside this crate.
#![deny(missing_docs)]
#![deny(unsafe_code)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // this crate is the only user

pub mod clock;
pub mod codec;
mod error_kind;
pub mod fs;
mod key_text;
pub mod machine;
pub mod memcomparable;
pub mod memory;
mod planted;
pub mod rng;
pub mod tasks;
pub mod testing;

pub use error_kind::ErrorKind;
pub use key_text::KeyText;

use std::sync::Arc;

/// Everything that a component may use of the machine, passed down at construction. Cheap to clone.
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

/// A simulated machine with access to its parts: the disk to crash, the clock to set, the tasks to step.
#[derive(Clone)]
pub struct SimMachine {
    /// Its disk.
    pub fs: fs::SimFs,
    /// Its clock.
    pub clock: clock::SimClock,
    /// Its background work. A restarted process gets fresh ones: [`SimMachine::restarted`].
    pub tasks: tasks::SimTasks,
}

impl SimMachine {
    /// A machine with an empty disk, in a world whose true time is `time`.
    pub fn new(rng: &rng::Rng, time: clock::VirtualTime) -> SimMachine {
        SimMachine {
            fs: fs::SimFs::new(rng.child("disk")),
            clock: clock::SimClock::new(time),
            tasks: tasks::SimTasks::new(rng.child("tasks")),
        }
    }

    /// The same machine with a monotonic clock that begins at `origin`; for one that has no process yet.
    pub fn with_clock_origin(self, origin: std::time::Duration) -> SimMachine {
        SimMachine { clock: clock::SimClock::with_origin(self.clock.time().clone(), origin), ..self }
    }

    /// A machine in a separate world, from a seed alone.
    pub fn from_seed(seed: u64) -> SimMachine {
        SimMachine::new(&rng::Rng::new(seed), clock::VirtualTime::default())
    }

    /// The same disk and clock with no jobs: for the process that starts after a crash.
    pub fn restarted(&self, rng: rng::Rng) -> SimMachine {
        SimMachine { tasks: tasks::SimTasks::new(rng), ..self.clone() }
    }

    /// The interface that components see.
    pub fn env(&self) -> Env {
        Env { fs: Arc::new(self.fs.clone()), clock: Arc::new(self.clock.clone()), tasks: Arc::new(self.tasks.clone()) }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("threaded", &self.tasks.threaded()).finish_non_exhaustive()
    }
}
