//! Resolves the locks of clients that have stopped.
//!
//! A client that meets a lock resolves it itself, if it can: some clients do not resolve locks with async commit, and
//! keys that no client reads stay locked, and hold safe timestamps and garbage collection back. So every node looks
//! through the locks of the regions that it leads, at intervals, and finishes the transactions whose time to live ended
//! a while ago, as a client would: it asks the primary, for async commit also the other keys, and then carries out what
//! was decided. Everything that it sends may be repeated, or done by others at the same time.
//!
//! Bounds: locks read and transactions finished in a round, the time of each call; rounds of the nodes are spread. A
//! round that fails is followed by the next one.

mod outcome;
mod stores;

pub use stores::{CallError, Connections, Stores};

use crate::driver::NodeHandle;
use crate::stopping::{Stage, Stopping};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use kontiki_txn::{Lock, Replicated, TimeStamp};
use outcome::Resolution;
use std::collections::BTreeSet;
use std::time::Duration;

/// Between two rounds, on average.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long after the end of its time to live a lock is left to its client and to readers, in milliseconds: most locks
/// that have expired are resolved by a reader of the key.
const LEFT_ALONE_MS: u64 = 3_000;
/// Locks that are read in a round; the next one continues there.
const LOCKS_PER_ROUND: usize = 16 << 10;
/// Transactions that are finished in a round.
const TRANSACTIONS_PER_ROUND: usize = 256;

/// Resolves the locks of the regions that a node leads.
pub struct Resolver<S: Stores> {
    node: NodeHandle,
    stores: S,
    rng: Rng,
    /// Where the next round begins to read.
    next: Bytes,
}

impl<S: Stores> Resolver<S> {
    /// For `node`; calls go through `stores`, also those to this node.
    pub fn new(node: NodeHandle, stores: S, rng: Rng) -> Resolver<S> {
        Resolver { node, stores, rng, next: Bytes::new() }
    }

    /// Runs until the services stop.
    pub async fn run(mut self, stopping: Stopping) {
        let stop = stopping.reached(Stage::Clients);
        let mut stop = std::pin::pin!(stop);
        loop {
            let interval = INTERVAL.as_millis() as u64;
            let pause = Duration::from_millis(interval / 2 + self.rng.below(interval));
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = &mut stop => return,
                () = self.round() => {}
            }
        }
    }

    async fn round(&mut self) {
        let (locks, next) = match self.node.locks_of_led_regions(&self.next, LOCKS_PER_ROUND) {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "the locks of this node cannot be read"),
        };
        self.next = next;
        if locks.is_empty() {
            return;
        }
        // By which clients, too, decide whether locks have expired.
        let Ok(now) = self.node.timestamp().await else { return };
        let counters = self.node.counters().clone();
        let mut finished = BTreeSet::new();
        for (key, lock) in locks.iter().filter(|(_, lock)| is_abandoned(lock, now)) {
            if finished.len() >= TRANSACTIONS_PER_ROUND {
                break;
            }
            finished.insert(lock.start_ts);
            match outcome::resolve(&self.stores, key, lock, now).await {
                Ok(Resolution::Lives) => {}
                Ok(Resolution::Finished) => counters.locks_resolved.increment(),
                Err(error) => {
                    counters.locks_unresolved.increment();
                    let (start_ts, key) = (lock.start_ts.0, key.escape_ascii());
                    tracing::debug!(start_ts, %key, %error, "a lock was not resolved; the next round tries again");
                }
            }
        }
    }
}

/// Whether its client has had time to prolong, commit or roll back, and readers to resolve.
fn is_abandoned(lock: &Lock, now: TimeStamp) -> bool {
    lock.start_ts.physical_ms().saturating_add(lock.ttl_ms).saturating_add(LEFT_ALONE_MS) < now.physical_ms()
}
