//! Answers to commits, given in order and exactly once.

use crate::{Result, SequenceNumber};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a submitter gave to be called with the answer.
pub(crate) type Done = Box<dyn FnOnce(Result<SequenceNumber>) + Send>;

/// An answer that is due.
pub(crate) struct Completion {
    pub(crate) done: Done,
    pub(crate) result: Result<SequenceNumber>,
}

/// Runs completions outside of every lock, in the order they were pushed, one at a time.
///
/// Whoever pushes may run what is there; if another thread is at it already, that thread runs the new ones too. So a
/// completion that submits again does not recurse, and order holds across threads.
#[derive(Default)]
pub(crate) struct Completions {
    state: Mutex<State>,
    /// Commits that were submitted and whose answers have not been run.
    unanswered: AtomicU64,
    /// Whether something may be due, for those who look without the lock.
    due: AtomicBool,
}

#[derive(Default)]
struct State {
    due: VecDeque<Completion>,
    running: bool,
}

impl Completions {
    /// A commit was submitted that will be answered here.
    pub(crate) fn expect(&self) {
        self.unanswered.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether every commit that was submitted has been answered.
    pub(crate) fn all_answered(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) == 0
    }

    /// Adds answers at the end.
    pub(crate) fn push(&self, completions: impl IntoIterator<Item = Completion>) {
        self.state.lock().due.extend(completions);
        self.due.store(true, Ordering::SeqCst);
    }

    /// Runs what is due. To be called without holding any lock.
    pub(crate) fn run(&self) {
        if !self.due.swap(false, Ordering::SeqCst) {
            return;
        }
        {
            let mut state = self.state.lock();
            if state.running {
                return;
            }
            state.running = true;
        }
        let _stopped = StopRunning(self);
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.due.pop_front();
                state.running = next.is_some();
                next
            };
            let Some(completion) = next else { return };
            let answered = Answered(self);
            (completion.done)(completion.result);
            drop(answered);
        }
    }
}

/// Counted when the answer was given, however that went.
struct Answered<'a>(&'a Completions);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        let before = self.0.unanswered.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0 || std::thread::panicking(), "only expected answers are given");
    }
}

/// A completion that panics takes its thread with it, not everybody's later answers.
struct StopRunning<'a>(&'a Completions);

impl Drop for StopRunning<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().running = false;
            self.0.due.store(true, Ordering::SeqCst);
        }
    }
}

/// Where a blocking caller waits for its answer.
#[derive(Default)]
pub(crate) struct Waiter {
    answer: Mutex<Option<Result<SequenceNumber>>>,
    answered: Condvar,
}

impl Waiter {
    /// A waiter and the completion that answers it.
    pub(crate) fn new() -> (Arc<Waiter>, Done) {
        let waiter = Arc::new(Waiter::default());
        let of_done = waiter.clone();
        let done = Box::new(move |result| {
            let before = of_done.answer.lock().replace(result);
            assert!(before.is_none(), "a commit is answered once");
            of_done.answered.notify_one();
        });
        (waiter, done)
    }

    /// The answer, if it is there.
    pub(crate) fn try_take(&self) -> Option<Result<SequenceNumber>> {
        self.answer.lock().take()
    }

    /// Waits for the answer.
    pub(crate) fn wait(&self) -> Result<SequenceNumber> {
        let mut answer = self.answer.lock();
        loop {
            if let Some(result) = answer.take() {
                return result;
            }
            self.answered.wait(&mut answer);
        }
    }
}

#[cfg(test)]
#[path = "completion_test.rs"]
mod tests;
