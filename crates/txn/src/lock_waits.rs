//! Transactions that wait for keys which others have locked: a queue for each key, first come, first served.
//!
//! 1. A request enters a key's queue while it holds the key's latch and has just seen the lock. A command that removes
//!    a lock holds that latch, too, so no release is missed.
//! 2. A release gives the *turn* of the key to the first in its queue, which tries again. While it does, a request that
//!    arrives does not overtake it: it queues up.
//! 3. The turn ends with that try. If the key was not locked by it (a conflict, another key is locked, its client gave
//!    up), the next in the queue gets the turn.
//! 4. Who holds the key is known to everyone in its queue, for deadlock detection.
//!
//! Locks that are removed without this node (it did not lead the region then) wake no waiter: each waits for a bounded
//! time, and then looks once more.

use crate::TimeStamp;
use crate::keys::lock_key;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Requests that may wait at a time. Those beyond it do not wait: their clients get the lock's holder at once.
pub(crate) const LOCK_WAITERS_MAX: usize = 16 << 10;

/// All queues of a node. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockWaits {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// By physical key.
    queues: BTreeMap<Vec<u8>, Queue>,
    waiting: BTreeMap<u64, Waiting>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<u64>,
    turn: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    holder: Option<TimeStamp>,
    holder_changed: bool,
    waker: Option<Waker>,
}

/// What a waiting request learns.
#[derive(Debug)]
pub(crate) enum News {
    /// It is its turn to try again.
    Turn(Turn),
    /// Another transaction holds the key; `None`: it is not known yet which one will.
    Holder(Option<TimeStamp>),
}

impl LockWaits {
    /// Enters the queue of a key: at its front with the key's turn, else at its end. `None`: too many wait.
    pub(crate) fn enter(&self, key: &Bytes, holder: Option<TimeStamp>, turn: Option<Turn>) -> Option<LockWait> {
        let key = lock_key(key);
        let turn = turn.filter(|turn| turn.key == key);
        let mut state = self.state.lock();
        if state.waiting.len() >= LOCK_WAITERS_MAX {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        let queue = state.queues.entry(key.clone()).or_default();
        match &turn {
            Some(_) => queue.waiting.push_front(id),
            None => queue.waiting.push_back(id),
        }
        let is_free = turn.is_none() && holder.is_none() && queue.turn.is_none();
        state.waiting.insert(id, Waiting { holder, holder_changed: false, waker: None });
        // The turn for which it was to wait has ended meanwhile, and nothing else would wake it.
        let first = if is_free { state.next_turn(&key) } else { None };
        drop(state); // Before the turn, which takes it.
        first.into_iter().for_each(Waker::wake);
        if let Some(mut turn) = turn {
            turn.locked(); // The key is locked: the next in the queue is woken when it is released.
        }
        Some(LockWait { waits: self.clone(), key, id, took_turn: false })
    }

    /// The first of these keys at which it is the turn of another request.
    pub(crate) fn turn_of_another(&self, keys: &[Bytes], own: Option<&Turn>) -> Option<Bytes> {
        let state = self.state.lock();
        if state.queues.is_empty() {
            return None;
        }
        let own = own.map(|turn| turn.id);
        let is_taken = |key: &&Bytes| {
            let queue = state.queues.get(&lock_key(key));
            queue.is_some_and(|queue| queue.turn.is_some() && queue.turn != own)
        };
        keys.iter().find(is_taken).cloned()
    }

    /// Those of the keys for which requests wait.
    pub(crate) fn awaited(&self, keys: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let state = self.state.lock();
        if state.queues.is_empty() { Vec::new() } else { keys.filter(|key| state.queues.contains_key(key)).collect() }
    }

    /// The lock of the key was removed.
    pub(crate) fn released(&self, key: &[u8]) {
        let wakers = self.state.lock().released(key);
        wakers.into_iter().for_each(Waker::wake); // Outside the mutex: a waker may poll at once.
    }

    /// A transaction has locked the key.
    pub(crate) fn locked(&self, key: &[u8], holder: TimeStamp) {
        let wakers = self.state.lock().changed(key, Some(holder));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Number of requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl State {
    fn released(&mut self, key: &[u8]) -> Vec<Waker> {
        let mut wakers = self.changed(key, None);
        wakers.extend(self.next_turn(key));
        wakers
    }

    fn next_turn(&mut self, key: &[u8]) -> Option<Waker> {
        let queue = self.queues.get_mut(key)?;
        if queue.turn.is_some() {
            return None;
        }
        let Some(first) = queue.waiting.pop_front() else {
            self.queues.remove(key);
            return None;
        };
        queue.turn = Some(first);
        self.waiting.get_mut(&first).and_then(|waiting| waiting.waker.take())
    }

    fn changed(&mut self, key: &[u8], holder: Option<TimeStamp>) -> Vec<Waker> {
        let Some(queue) = self.queues.get(key) else { return Vec::new() };
        let mut wakers = Vec::new();
        for id in &queue.waiting {
            let waiting = self.waiting.get_mut(id).expect("what is queued waits");
            if waiting.holder != holder {
                waiting.holder = holder;
                waiting.holder_changed = true;
                wakers.extend(waiting.waker.take());
            }
        }
        wakers
    }
}

/// A request in a queue. As a future it resolves with the next news. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct LockWait {
    waits: LockWaits,
    key: Vec<u8>,
    id: u64,
    took_turn: bool,
}

impl Future for LockWait {
    type Output = News;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<News> {
        let waits = self.waits.clone();
        let mut state = waits.state.lock();
        let has_turn = state.queues.get(&self.key).is_some_and(|queue| queue.turn == Some(self.id));
        let waiting = state.waiting.get_mut(&self.id).expect("alive until it is dropped");
        if has_turn {
            self.took_turn = true;
            let (waits, key, id) = (self.waits.clone(), self.key.clone(), self.id);
            return Poll::Ready(News::Turn(Turn { waits, key, id, locked: false }));
        }
        if std::mem::take(&mut waiting.holder_changed) {
            return Poll::Ready(News::Holder(waiting.holder));
        }
        waiting.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        let mut state = self.waits.state.lock();
        state.waiting.remove(&self.id);
        let Some(queue) = state.queues.get_mut(&self.key) else { return };
        queue.waiting.retain(|id| *id != self.id);
        if !self.took_turn && queue.turn == Some(self.id) {
            queue.turn = None; // It gave up before it learned of its turn.
        } else if !queue.waiting.is_empty() || queue.turn.is_some() {
            return;
        }
        let waker = state.next_turn(&self.key);
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

/// The turn of a key; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    waits: LockWaits,
    key: Vec<u8>,
    id: u64,
    locked: bool,
}

impl Turn {
    /// Whether it is the turn of this key.
    pub(crate) fn is_of(&self, key: &Bytes) -> bool {
        self.key == lock_key(key)
    }

    /// The key is locked now: the next in the queue does not try before it is released.
    pub(crate) fn locked(&mut self) {
        self.locked = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.waits.state.lock();
        let Some(queue) = state.queues.get_mut(&self.key) else { return };
        if queue.turn != Some(self.id) {
            return;
        }
        queue.turn = None;
        let waker = if self.locked && !queue.waiting.is_empty() { None } else { state.next_turn(&self.key) };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
#[path = "lock_waits_test.rs"]
mod tests;
