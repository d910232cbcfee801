//! Jobs as threads: each job has one, which parks on a condition variable while it has nothing to do.

use super::{Job, Progress, TaskHandle, Tasks};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread for each job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

#[derive(Default)]
struct Signal {
    flags: Mutex<Flags>,
    changed: Condvar,
}

#[derive(Default)]
struct Flags {
    /// A step was requested since the last one began.
    runnable: bool,
    stop: bool,
}

impl Signal {
    /// Parks until woken, no longer than `at_most`; false when the job must stop.
    fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut flags = self.flags.lock();
        while !flags.runnable && !flags.stop {
            match at_most {
                None => self.changed.wait(&mut flags),
                Some(at_most) if self.changed.wait_for(&mut flags, at_most).timed_out() => break,
                Some(_) => {}
            }
        }
        // Cleared before the step, so that a wake during the step causes another one: no wake is lost.
        flags.runnable = false;
        !flags.stop
    }
}

fn run(signal: &Signal, mut job: Job) {
    let mut at_most = None;
    while signal.wait(at_most) {
        at_most = match job() {
            Progress::Worked => {
                signal.flags.lock().runnable = true;
                None
            }
            Progress::Idle => None,
            Progress::IdleFor(wait) => Some(wait),
        };
    }
}

struct Handle {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl TaskHandle for Handle {
    fn wake(&self) {
        let mut flags = self.signal.flags.lock();
        if !flags.runnable {
            flags.runnable = true;
            self.signal.changed.notify_one();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.signal.flags.lock().stop = true;
        self.signal.changed.notify_one();
        let thread = self.thread.take().expect("taken here only");
        if thread.thread().id() == std::thread::current().id() {
            return; // A thread cannot join itself: it ends when the current step returns.
        }
        if let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Tasks for Threads {
    fn spawn(&self, name: &str, job: Job) -> Box<dyn TaskHandle> {
        let signal = Arc::new(Signal::default());
        signal.flags.lock().runnable = true;
        let of_thread = Arc::clone(&signal);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&of_thread, job))
            .expect("the system has a thread for each background job; without them the process is of no use");
        Box::new(Handle { signal, thread: Some(thread) })
    }

    fn threaded(&self) -> bool {
        true
    }

    fn step(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "threads_test.rs"]
mod tests;
