//! Whether a database is open, and whether it may be written to.

use crate::lock::{Rank, RwLock};
use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// See the head of this file. It only gets worse.
pub(crate) struct Health {
    /// All writes are refused.
    pub(crate) read_only: bool,
    state: RwLock<State>,
    /// As the state has it: reads check this, which writes nothing that they share.
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    closed: bool,
    stopped: Option<String>,
    /// What panicked first.
    panicked: Option<String>,
}

impl Health {
    /// Of a database that is open.
    pub(crate) fn new(read_only: bool) -> Health {
        let state = RwLock::new(Rank::Health, State::default());
        Health { read_only, state, closed: AtomicBool::new(false) }
    }

    /// Whether reads may continue.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Whether writes may continue.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let state = self.state.read();
        if state.closed {
            return Err(Error::Closed);
        }
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        state.stopped.as_ref().map_or(Ok(()), |why| Err(Error::Stopped(why.clone())))
    }

    /// Writes are refused from now on, for `error`. The first reason stays; returns whether this is it.
    pub(crate) fn set_stopped(&self, error: &Error) -> bool {
        let mut state = self.state.write();
        let first = state.stopped.is_none();
        state.stopped.get_or_insert_with(|| error.to_string());
        first
    }

    /// Why writes have stopped, if they have.
    pub(crate) fn why_stopped(&self) -> Option<String> {
        self.state.read().stopped.clone()
    }

    /// A thread that did `task` has panicked. The first one stays.
    pub(crate) fn note_panic(&self, task: &str) {
        self.state.write().panicked.get_or_insert_with(|| task.to_string());
    }

    /// What panicked, if anything did.
    pub(crate) fn what_panicked(&self) -> Option<String> {
        self.state.read().panicked.clone()
    }

    /// Everything is refused from now on; returns whether it was not before.
    pub(crate) fn set_closed(&self) -> bool {
        let before = std::mem::replace(&mut self.state.write().closed, true);
        self.closed.store(true, Ordering::Release);
        !before
    }
}
