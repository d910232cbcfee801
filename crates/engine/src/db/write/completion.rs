//! Answers to commits, given in order and exactly once.

use crate::lock::{Condvar, Mutex, Rank};
use crate::{Result, SequenceNumber};
use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The callback of a submitter, called with the answer.
pub(crate) type Done = Box<dyn FnOnce(Result<SequenceNumber>) + Send>;

/// Called with the payload of a panic.
type OnPanic = Box<dyn Fn(&(dyn Any + Send)) + Send + Sync>;

/// An answer that is due.
pub(crate) struct Completion {
    pub(crate) done: Done,
    pub(crate) result: Result<SequenceNumber>,
}

/// Runs completions outside of every lock, in the order they were pushed, one at a time.
///
/// A thread that pushes may run what is queued; if another thread is already running it, that thread runs the new ones
/// too. So a completion that submits again does not recurse, and order holds across threads.
pub(crate) struct Completions {
    state: Mutex<State>,
    /// Commits that were submitted and whose answers have not been run.
    unanswered: AtomicU64,
    /// Whether something may be due, for threads that check without the lock.
    due: AtomicBool,
    on_panic: OnceLock<OnPanic>,
}

impl Default for Completions {
    fn default() -> Completions {
        Completions {
            state: Mutex::new(Rank::Completions, State::default()),
            unanswered: AtomicU64::new(0),
            due: AtomicBool::new(false),
            on_panic: OnceLock::new(),
        }
    }
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
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.due.pop_front();
                state.running = next.is_some();
                next
            };
            let Some(Completion { done, result }) = next else { return };
            // Caught: the thread is not the completion's own, and other answers wait.
            let outcome = catch_unwind(AssertUnwindSafe(|| done(result)));
            let before = self.unanswered.fetch_sub(1, Ordering::SeqCst);
            assert!(before > 0, "only expected answers are given");
            if let (Err(panic), Some(callback)) = (outcome, self.on_panic.get()) {
                callback(&*panic);
            }
        }
    }

    /// Sets what is called when an answer panics. Once.
    pub(crate) fn set_on_panic(&self, callback: OnPanic) {
        assert!(self.on_panic.set(callback).is_ok(), "set once, at open");
    }
}

/// Where a blocking caller waits for its answer.
pub(crate) struct Waiter {
    answer: Mutex<Option<Result<SequenceNumber>>>,
    answered: Condvar,
}

impl Default for Waiter {
    fn default() -> Waiter {
        Waiter { answer: Mutex::new(Rank::Answer, None), answered: Condvar::new() }
    }
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
