//! Key latches: commands on overlapping keys run one after the other, in the order of their arrival.
//!
//! Every key that a command holds or waits for has a queue of tickets. A command enters the queues of all its keys in
//! one step under one mutex, and runs when its ticket is at the front of each. Since all queues see the same order of
//! tickets, there is no deadlock and no starvation. Dropping the guard, or the waiting future, leaves the queues and
//! wakes the tickets that are now at the front.
//!
//! *Rejected:* hashed slots (false conflicts, and no gain: there are few commands in flight, so the map is small).

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// All latches of a scheduler. Cloning shares them.
#[derive(Clone, Default)]
pub struct Latches {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<Bytes, VecDeque<u64>>,
    tickets: BTreeMap<u64, Ticket>,
    next_ticket: u64,
}

struct Ticket {
    keys: Vec<Bytes>,
    /// The number of queues in which another ticket is in front.
    blocked: usize,
    waker: Option<Waker>,
}

impl Latches {
    /// No key latched.
    pub fn new() -> Latches {
        Latches::default()
    }

    /// Enters the queues of all keys at once (at the call, not at the first poll); resolves when every key is held.
    /// Duplicates count once.
    pub fn acquire(&self, keys: impl IntoIterator<Item = Bytes>) -> Acquire {
        let keys: Vec<Bytes> = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let mut blocked = 0;
        for key in &keys {
            let queue = state.queues.entry(key.clone()).or_default();
            debug_assert!(queue.iter().all(|other| *other < ticket), "a queue is in the order of tickets");
            blocked += usize::from(!queue.is_empty());
            queue.push_back(ticket);
        }
        assert!(blocked <= keys.len(), "at most once a key");
        let before = state.tickets.insert(ticket, Ticket { keys, blocked, waker: None });
        assert!(before.is_none(), "tickets are not used twice");
        drop(state);
        Acquire { guard: Some(LatchGuard { latches: self.clone(), ticket }) }
    }

    /// Number of commands that hold or wait.
    pub fn len(&self) -> usize {
        self.state.lock().tickets.len()
    }

    /// Whether no command holds or waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn release(&self, ticket: u64) {
        let wakers = self.state.lock().release(ticket);
        for waker in wakers {
            waker.wake(); // Outside the mutex: a waker may poll at once.
        }
    }
}

impl State {
    fn release(&mut self, ticket: u64) -> Vec<Waker> {
        let mut wakers = Vec::new();
        let Some(Ticket { keys, .. }) = self.tickets.remove(&ticket) else {
            debug_assert!(false, "a ticket is released once");
            return wakers;
        };
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else {
                debug_assert!(false, "a ticket is in the queues of its keys");
                continue;
            };
            let was_front = queue.front() == Some(&ticket);
            queue.retain(|other| *other != ticket);
            debug_assert!(was_front || !queue.is_empty(), "another ticket is in front");
            let Some(front) = queue.front().copied() else {
                self.queues.remove(&key);
                continue;
            };
            if !was_front {
                continue;
            }
            let next = self.tickets.get_mut(&front).expect("queued tickets exist");
            assert!(next.blocked > 0, "it was not at the front of this queue");
            next.blocked -= 1;
            if next.blocked == 0 {
                wakers.extend(next.waker.take());
            }
        }
        wakers
    }
}

/// Waits for latches; see [`Latches::acquire`]. Dropping it leaves the queues.
pub struct Acquire {
    /// The ticket in the queues; returned once nothing blocks it.
    guard: Option<LatchGuard>,
}

impl Future for Acquire {
    type Output = LatchGuard;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<LatchGuard> {
        let guard = self.guard.take().expect("not polled after completion");
        let ready = {
            let mut state = guard.latches.state.lock();
            let ticket = state.tickets.get_mut(&guard.ticket).expect("alive until released");
            ticket.waker = (ticket.blocked > 0).then(|| context.waker().clone());
            ticket.blocked == 0
        };
        if ready {
            return Poll::Ready(guard);
        }
        self.guard = Some(guard);
        Poll::Pending
    }
}

/// Holds latches until dropped.
pub struct LatchGuard {
    latches: Latches,
    ticket: u64,
}

impl Drop for LatchGuard {
    fn drop(&mut self) {
        self.latches.release(self.ticket);
    }
}

#[cfg(test)]
#[path = "latch_test.rs"]
mod tests;
