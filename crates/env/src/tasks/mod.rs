//! Background work: a named job that does one bounded unit at a time. In production each job has a thread that
//! parks while idle; in simulation the world decides which runnable job takes its next step.

mod sim;
mod threads;

pub use sim::SimTasks;
pub use threads::Threads;

use std::time::Duration;

/// The result of one call of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Did a unit of work; there may be more: call again.
    Worked,
    /// Nothing to do until woken.
    Idle,
    /// Nothing to do until woken, or until so much time has passed: for work that becomes due with time alone. In a
    /// stepped world only a wake counts.
    IdleFor(Duration),
}

/// A job: does one bounded unit of work a call. It should not panic: a job that does never runs again, and the
/// panic is raised once more where its handle is dropped.
pub type Job = Box<dyn FnMut() -> Progress + Send>;

/// Wakes and owns a registered job. Dropping it stops the job: after `drop` returns the job is not running and
/// never will again (unless it is dropped by the job itself).
pub trait TaskHandle: Send + Sync {
    /// Marks the job runnable. Cheap, callable from anywhere, also from inside a job.
    fn wake(&self);
}

/// Runs background jobs.
pub trait Tasks: Send + Sync {
    /// Registers a job; it starts runnable.
    fn spawn(&self, name: &str, job: Job) -> Box<dyn TaskHandle>;
    /// True when jobs are separate threads; false when the world steps them, so that a thread that would wait for
    /// a job must call [`Tasks::step`] instead of blocking.
    fn threaded(&self) -> bool;
    /// Steps one runnable job, if jobs are stepped and one is runnable. Returns whether it did.
    fn step(&self) -> bool;
}
