//! Deadlocks: transactions that wait for each other in a circle.
//!
//! The graph has an edge for each request that waits: from its transaction to the one that holds the key. A wait that
//! would close a circle is refused. Edges that are not removed (a message was lost, a node has ended) expire.

use crate::{TimeStamp, WaitFor};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long an edge counts: longer than any request waits.
pub const EDGE_AGE_MAX: Duration = Duration::from_secs(3);
/// Edges of a graph; beyond it new waits are not recorded, and end by their time limit.
pub const EDGES_MAX: usize = 64 << 10;

/// Who waits for whom.
#[derive(Debug, Default)]
pub struct WaitGraph {
    /// By the transaction that waits.
    edges: BTreeMap<TimeStamp, Vec<Edge>>,
    count: usize,
}

#[derive(Debug)]
struct Edge {
    wait: WaitFor,
    since: Duration,
}

impl WaitGraph {
    /// Adds a wait. If it would close a circle it is not added: returns the rest of the circle, from the holder of the
    /// key to the transaction that wants to wait.
    pub fn add(&mut self, wait: WaitFor, now: Duration) -> Option<Vec<WaitFor>> {
        if wait.holder == wait.waiter {
            return None; // A repeated request: no transaction waits for itself.
        }
        if let Some(chain) = self.path(wait.holder, wait.waiter, now) {
            return Some(chain);
        }
        if self.count >= EDGES_MAX {
            self.expire(now);
        }
        if self.count < EDGES_MAX {
            self.remove(&wait);
            self.count += 1;
            self.edges.entry(wait.waiter).or_default().push(Edge { wait, since: now });
        }
        None
    }

    /// Removes a wait.
    pub fn remove(&mut self, wait: &WaitFor) {
        let Some(edges) = self.edges.get_mut(&wait.waiter) else { return };
        let before = edges.len();
        edges.retain(|edge| edge.wait != *wait);
        self.count -= before - edges.len();
        if edges.is_empty() {
            self.edges.remove(&wait.waiter);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.edges.clear();
        self.count = 0;
    }

    fn expire(&mut self, now: Duration) {
        for edges in self.edges.values_mut() {
            edges.retain(|edge| now < edge.since + EDGE_AGE_MAX);
        }
        self.edges.retain(|_, edges| !edges.is_empty());
        self.count = self.edges.values().map(Vec::len).sum();
    }

    /// The waits that lead from one transaction to another.
    fn path(&self, from: TimeStamp, to: TimeStamp, now: Duration) -> Option<Vec<WaitFor>> {
        if from == to {
            return Some(Vec::new());
        }
        // By transaction: the wait by which it was reached.
        let mut reached: BTreeMap<TimeStamp, &WaitFor> = BTreeMap::new();
        let (mut seen, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(waiter) = next.pop() {
            let edges = self.edges.get(&waiter).into_iter().flatten();
            for Edge { wait, .. } in edges.filter(|edge| now < edge.since + EDGE_AGE_MAX) {
                if !seen.insert(wait.holder) {
                    continue;
                }
                reached.insert(wait.holder, wait);
                if wait.holder == to {
                    let mut chain = Vec::new();
                    let mut at = to;
                    while let Some(wait) = reached.get(&at) {
                        chain.push((*wait).clone());
                        at = wait.waiter;
                    }
                    chain.reverse();
                    return Some(chain);
                }
                next.push(wait.holder);
            }
        }
        None
    }
}

/// Where the waits of all stores are compared.
pub trait DeadlockDetector: Send + Sync {
    /// A wait begins. Resolves with the rest of the circle if it closes one (see [`WaitGraph::add`]); otherwise with
    /// `None`, or never.
    fn detect(&self, wait: WaitFor) -> BoxFuture<'static, Option<Vec<WaitFor>>>;
    /// It has ended.
    fn forget(&self, wait: WaitFor);
}

/// Compares the waits of one store.
#[derive(Clone)]
pub struct LocalDetector {
    graph: Arc<Mutex<WaitGraph>>,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl LocalDetector {
    /// No transaction waits. `clock` is monotonic.
    pub fn new(clock: Arc<dyn Fn() -> Duration + Send + Sync>) -> LocalDetector {
        LocalDetector { graph: Arc::default(), clock }
    }
}

impl DeadlockDetector for LocalDetector {
    fn detect(&self, wait: WaitFor) -> BoxFuture<'static, Option<Vec<WaitFor>>> {
        let found = self.graph.lock().add(wait, (self.clock)());
        Box::pin(std::future::ready(found))
    }

    fn forget(&self, wait: WaitFor) {
        self.graph.lock().remove(&wait);
    }
}

#[cfg(test)]
#[path = "deadlock_test.rs"]
mod tests;
