//! Writes stop, for good: after an error that leaves the log or the manifest in an unknown state, and when a thread
//! that works for the database panics. Every waiter gets an error, later writes are refused, reads continue.
//!
//! A panic is a broken invariant: the thread's work may be half done, and what it had promised to others will not
//! happen. [`HealthStats::panicked`](crate::stats::HealthStats) names the task. Rejected: to restart the job, since it
//! would meet the same state; to end the process, since it belongs to the caller.
//!
//! Three places run on behalf of others: the background jobs ([`WritePath::guarded`]), a commit from its number to its
//! insertion into memory ([`WritePath::unwinding`]; others wait for it), and the answers of submitted commits, which
//! run on any thread (`completion.rs`).

use super::WritePath;
use super::completion::Completion;
use crate::Error;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

impl WritePath {
    /// Refuses writes from now on, for `error`. The first reason stays.
    pub(crate) fn stop(&self, error: &Error) {
        if self.shared.health.set_stopped(error) {
            tracing::error!(directory = %self.shared.directory.display(), %error, "writes stop");
        }
        let left = self.memtables.visibility.stop();
        left.into_iter().for_each(|answer| self.refuse(answer));
        // Writers that wait for memory or for a job must be woken.
        self.shared.progress.notify_end();
        self.shared.subscribers.notify();
        self.shared.jobs.wake_commit();
    }

    /// Answers with the reason why nothing is written any more.
    pub(crate) fn refuse(&self, answer: Completion) {
        let error = if self.shared.health.check_open().is_ok() { self.cut_off() } else { Error::Closed };
        self.memtables.completions.push([Completion { done: answer.done, result: Err(error) }]);
    }

    /// For a commit that was in progress when writes stopped. Its record may be in the log, and be replayed by a
    /// restart: so this is not [`Error::Stopped`], which states that nothing was written.
    pub(crate) fn cut_off(&self) -> Error {
        let why = self.shared.health.why_stopped().unwrap_or_else(|| "a sync of the log failed".into());
        let message =
            format!("writes stopped before this commit was durable, and it may survive a restart or not: {why}");
        Error::Io { file: self.shared.directory.clone(), kind: std::io::ErrorKind::Other, message }
    }

    /// One step of a job. Returns whether to call it again. Where jobs are stepped the panic is raised again in the
    /// thread that steps: a test must not miss it.
    pub(crate) fn guarded(&self, job: &str, step: impl FnOnce() -> bool) -> bool {
        catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| {
            self.stop_after_panic(&format!("the job {job:?}"), &*panic);
            if !self.shared.env.tasks.threaded() {
                resume_unwind(panic);
            }
            false
        })
    }

    /// Stops the database, for a panic with the payload `panic`.
    pub(crate) fn stop_after_panic(&self, task: &str, panic: &(dyn Any + Send)) {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let message = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into());
        self.shared.health.note_panic(task);
        self.stop(&Error::Panicked { task: task.to_string(), message });
    }

    /// Held while what `task` names is half done. If it is dropped by a panic, the database stops.
    pub(crate) fn unwinding<'a>(&'a self, task: &'a str) -> Unwinding<'a> {
        Unwinding { write: self, task, before: std::thread::panicking() }
    }
}

/// See [`WritePath::unwinding`].
pub(crate) struct Unwinding<'a> {
    write: &'a WritePath,
    task: &'a str,
    /// The thread was panicking already: the caller is in a destructor.
    before: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.before {
            self.write.stop_after_panic(self.task, &"see the output of the thread");
        }
    }
}
