//! Which other stores run: one message for each pair of stores, for any number of regions.
//!
//! A store that hibernates in some region as a follower does not hear from that region's leader. Instead, every store
//! sends a sign of life to every store with which it shares a region, once in each heartbeat interval. It carries a
//! number that was drawn when the process started, because a process that was started again has forgotten that it
//! hibernates, and that it leads.

use crate::region::StoreId;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the other stores have said.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    stores: BTreeMap<StoreId, Heard>,
}

#[derive(Debug)]
struct Heard {
    at: Duration,
    /// Ticks of this store then.
    tick: u64,
    process: u64,
    /// Reported as silent, and not heard since.
    is_silent: bool,
}

impl Liveness {
    /// A sign of life arrived. Returns whether another process of that store had been heard before.
    pub fn heard(&mut self, store: StoreId, process: u64, now: Duration, tick: u64) -> bool {
        let before = self.stores.insert(store, Heard { at: now, tick, process, is_silent: false });
        before.is_some_and(|before| before.process != process)
    }

    /// Whether a sign of life arrived within `timeout`.
    pub fn is_alive(&self, store: StoreId, now: Duration, timeout: Duration) -> bool {
        self.stores.get(&store).is_some_and(|heard| now.saturating_sub(heard.at) < timeout)
    }

    /// The stores that have been silent for `timeout` and for so many ticks of this store: after a stall of this
    /// process, what has arrived meanwhile may not have been handled yet. Each is returned once, until it is heard
    /// again.
    pub fn fallen_silent(&mut self, now: Duration, timeout: Duration, tick: u64, ticks: u64) -> Vec<StoreId> {
        let is_new = |heard: &Heard| {
            !heard.is_silent && now.saturating_sub(heard.at) >= timeout && tick.saturating_sub(heard.tick) >= ticks
        };
        let silent = self.stores.iter_mut().filter(|(_, heard)| is_new(heard));
        silent
            .map(|(store, heard)| {
                heard.is_silent = true;
                *store
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "liveness_test.rs"]
mod tests;
