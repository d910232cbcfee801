//! Gives memory back to the system when the node has become idle: what a load needed is kept by the allocator
//! otherwise, between what is still in use.

use crate::driver::NodeHandle;
use crate::stopping::{Stage, Stopping};
use kontiki_env::memory;
use std::time::Duration;

/// A node that has written nothing for so long is idle.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Does it once in each idle time, until the node stops.
pub(super) async fn return_when_idle(node: NodeHandle, stopping: Stopping) {
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep(IDLE_TIME) => {}
            () = stopping.reached(Stage::Clients) => return,
        }
        if watch.has_become_idle(node.counters().persists.get()) {
            // The pause, if there is one, is not for a thread that serves requests.
            if tokio::task::spawn_blocking(memory::return_unused).await.is_err() {
                return;
            }
        }
    }
}

/// What was written by the last two looks.
#[derive(Default)]
struct Watch {
    persists: u64,
    is_idle: bool,
}

impl Watch {
    /// Whether nothing was written since the last look, for the first time since something was.
    fn has_become_idle(&mut self, persists: u64) -> bool {
        let was_idle = std::mem::replace(&mut self.is_idle, persists == self.persists);
        self.persists = persists;
        self.is_idle && !was_idle
    }
}

#[cfg(test)]
#[path = "idle_memory_test.rs"]
mod tests;
