//! What happens to a database when a thread that works for it panics.
//!
//! A panic is a broken invariant: the thread's work may be half done, and what it had promised to others will not
//! happen. So the database stops, as after a failed sync: every waiter gets an error, later writes are refused, reads
//! continue, and [`HealthStats::panicked`](crate::stats::HealthStats) names the task. Rejected: to restart the job,
//! since it would meet the same state; to end the process, since it belongs to the caller.
//!
//! Three places run on behalf of others: the background jobs ([`Core::guarded`]), a commit from its number to its
//! insertion into memory ([`Core::unwinding`]; others wait for it), and the answers of submitted commits, which run on
//! any thread (`completion.rs`).

use super::core::Core;
use crate::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl Core {
    /// One step of a job. Returns whether to call it again. Where jobs are stepped the panic is raised again in the
    /// thread that steps: a test must not miss it.
    pub(super) fn guarded(&self, job: &str, step: impl FnOnce(&Core) -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(|| step(self))).unwrap_or_else(|panic| {
            self.stop_after_panic(&format!("the job {job:?}"), &*panic);
            if !self.env.tasks.threaded() {
                resume_unwind(panic);
            }
            false
        })
    }

    /// Stops the database, for a panic with the payload `panic`.
    pub(super) fn stop_after_panic(&self, task: &str, panic: &(dyn Any + Send)) {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let message = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into());
        self.note_panic(task);
        self.stop(&Error::Panicked { task: task.to_string(), message });
    }

    /// Held while what `task` names is half done. If it is dropped by a panic, the database stops.
    pub(super) fn unwinding<'a>(&'a self, task: &'a str) -> Unwinding<'a> {
        Unwinding { core: self, task, before: std::thread::panicking() }
    }
}

/// See [`Core::unwinding`].
pub(super) struct Unwinding<'a> {
    core: &'a Core,
    task: &'a str,
    /// The thread was panicking already: the caller is in a destructor.
    before: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.before {
            self.core.stop_after_panic(self.task, &"see the output of the thread");
        }
    }
}
