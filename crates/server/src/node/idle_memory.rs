//! Gives memory back to the system when the node has become idle: what a load needed is kept by the allocator
//! otherwise, between what is still in use.

use crate::driver::NodeHandle;
use crate::stopping::{Stage, Stopping};
use kontiki_env::memory;
use std::time::Duration;

/// How often a node looks whether it is idle.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// A node is idle if it has not done more in that time: clients that are connected fetch timestamps, whose bound is
/// written every few seconds.
const IDLE_WORK_MAX: u64 = 50;

/// Does it once in each idle time, until the node stops.
pub(super) async fn return_when_idle(node: NodeHandle, stopping: Stopping) {
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stopping.reached(Stage::Clients) => return,
        }
        if watch.has_become_idle(work(&node)) {
            // The pause, if there is one, is not for a thread that serves requests.
            if tokio::task::spawn_blocking(memory::return_unused).await.is_err() {
                return;
            }
        }
    }
}

/// Synced writes and views since the start.
fn work(node: &NodeHandle) -> u64 {
    let counters = node.counters();
    let views = [&counters.reads_lease, &counters.reads_barrier, &counters.reads_replica, &counters.reads_stale];
    views.into_iter().map(|counter| counter.get()).sum::<u64>() + counters.persists.get()
}

/// What the last look saw.
#[derive(Default)]
struct Watch {
    work: u64,
    is_idle: bool,
}

impl Watch {
    /// Whether little was done since the last look, for the first time since more was.
    fn has_become_idle(&mut self, work: u64) -> bool {
        let was_idle = std::mem::replace(&mut self.is_idle, work - self.work <= IDLE_WORK_MAX);
        self.work = work;
        self.is_idle && !was_idle
    }
}

#[cfg(test)]
#[path = "idle_memory_test.rs"]
mod tests;
