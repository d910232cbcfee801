//! Background flushes of memtables that raft logs in memory wait for.

use kontiki_env::Env;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_state::StateEngine;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Flushes on request; all requests during a flush are served by one more flush.
pub(super) struct Flusher {
    asked: Arc<AtomicBool>,
    task: Option<Box<dyn TaskHandle>>,
}

impl Flusher {
    pub(super) fn start(env: &Env, state: &Arc<dyn StateEngine>) -> Flusher {
        let asked = Arc::new(AtomicBool::new(false));
        let (pending, state) = (asked.clone(), state.clone());
        let job = move || {
            if !pending.swap(false, Ordering::SeqCst) {
                return Progress::Idle;
            }
            if let Err(error) = state.flush() {
                // It is requested again as long as it is needed.
                tracing::warn!(%error, "memtables could not be flushed to release raft logs");
            }
            Progress::Worked
        };
        Flusher { asked, task: Some(env.tasks.spawn("raft-flush", Box::new(job))) }
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    /// It is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.task = None;
    }
}
