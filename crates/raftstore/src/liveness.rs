//! Which other stores run: one message for each pair of stores, for any number of regions.
//!
//! A store that hibernates in some region as a follower does not hear from that region's leader. Instead, every store
//! sends a sign of life to every store with which it shares a region, once in each heartbeat interval. It carries a
//! number that was drawn when the process started, because a process that was started again has forgotten that it
//! hibernates, and that it leads.
//!
//! A store of which nothing at all is heard for some heartbeat intervals, or to which the connection is broken, is
//! *silent*: clients are not sent there. That is sooner than an election may begin, and it is only a guess.

use crate::region::StoreId;
use std::collections::{BTreeMap, BTreeSet};
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
    /// 0: it has not said it yet.
    process: u64,
    /// [`Liveness::fallen_silent`] has returned it, and it was not heard since.
    is_reported: bool,
    /// When and at which tick any message arrived.
    message_at: (Duration, u64),
    /// The connection broke, and nothing has arrived since.
    is_unreachable: bool,
}

impl Liveness {
    /// A sign of life arrived. Returns whether another process of that store had been heard before.
    pub fn heard(&mut self, store: StoreId, process: u64, now: Duration, tick: u64) -> bool {
        let heard =
            Heard { at: now, tick, process, is_reported: false, message_at: (now, tick), is_unreachable: false };
        let before = self.stores.insert(store, heard);
        before.is_some_and(|before| before.process != 0 && before.process != process)
    }

    /// A message arrived, of any region.
    pub fn message_of(&mut self, store: StoreId, now: Duration, tick: u64) {
        // Without a sign of life there is none to miss: it counts as reported.
        let (process, is_reported, message_at, is_unreachable) = (0, true, (now, tick), false);
        let first = Heard { at: now, tick, process, is_reported, message_at, is_unreachable };
        let heard = self.stores.entry(store).or_insert(first);
        (heard.message_at, heard.is_unreachable) = (message_at, is_unreachable);
    }

    /// The connection to a store broke.
    pub fn unreachable(&mut self, store: StoreId) {
        if let Some(heard) = self.stores.get_mut(&store) {
            heard.is_unreachable = true;
        }
    }

    /// The stores of which nothing has arrived for `timeout` and for so many ticks of this store, and those that were
    /// unreachable since. A store of which nothing was ever heard is not among them.
    pub fn silent(&self, now: Duration, timeout: Duration, tick: u64, ticks: u64) -> BTreeSet<StoreId> {
        let is_silent = |heard: &Heard| {
            let (at, at_tick) = heard.message_at;
            heard.is_unreachable || now.saturating_sub(at) >= timeout && tick.saturating_sub(at_tick) >= ticks
        };
        self.stores.iter().filter(|(_, heard)| is_silent(heard)).map(|(store, _)| *store).collect()
    }

    /// Whether a sign of life arrived within `timeout`.
    pub fn is_alive(&self, store: StoreId, now: Duration, timeout: Duration) -> bool {
        let is_recent = |heard: &Heard| heard.process != 0 && now.saturating_sub(heard.at) < timeout;
        self.stores.get(&store).is_some_and(is_recent)
    }

    /// The stores that have been silent for `timeout` and for so many ticks of this store: after a stall of this
    /// process, what has arrived meanwhile may not have been handled yet. Each is returned once, until it is heard
    /// again.
    pub fn fallen_silent(&mut self, now: Duration, timeout: Duration, tick: u64, ticks: u64) -> Vec<StoreId> {
        let is_new = |heard: &Heard| {
            !heard.is_reported && now.saturating_sub(heard.at) >= timeout && tick.saturating_sub(heard.tick) >= ticks
        };
        let silent = self.stores.iter_mut().filter(|(_, heard)| is_new(heard));
        silent
            .map(|(store, heard)| {
                heard.is_reported = true;
                *store
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "liveness_test.rs"]
mod tests;
