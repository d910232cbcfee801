//! The catalogue of stores: what identifies them is persisted, what they report is not.

use crate::{Refusal, RefusalCode, Store, StoreHeartbeat, StoreInfo, StoreStats};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The maximum number of stores in a cluster. Each is a record in memory and in the state that a new leader loads.
pub const STORES_MAX: usize = 1_000;

/// Longest address or version, in bytes: a host name has at most 253.
const TEXT_BYTES_MAX: usize = 512;

#[derive(Debug)]
struct Entry {
    store: Store,
    report: Option<(StoreStats, Duration)>,
}

/// The stores of the cluster.
#[derive(Debug)]
pub(crate) struct Stores {
    by_id: BTreeMap<u64, Entry>,
    /// Stores whose record on disk may differ from the one in memory.
    unwritten: BTreeSet<u64>,
    /// Since when reports can arrive.
    since: Duration,
}

impl Stores {
    /// The state of a leader that begins at `now`.
    pub fn new(stores: Vec<Store>, now: Duration) -> Stores {
        let by_id = stores.into_iter().map(|store| (store.id, Entry { store, report: None })).collect();
        Stores { by_id, unwritten: BTreeSet::new(), since: now }
    }

    /// Handles a report. A store is known from its first report on, before its record is durable.
    pub fn heartbeat(&mut self, heartbeat: StoreHeartbeat, now: Duration) -> Result<(), Refusal> {
        let StoreHeartbeat { store, stats } = heartbeat;
        let invalid = |what: String| Err(Refusal::new(RefusalCode::Invalid, what));
        if store.id == 0 {
            return invalid("a store id is 1 or greater, not 0".into());
        }
        if store.address.is_empty() || store.address.contains("//") {
            return invalid(format!("store {}: the address is bare host:port, not {:?}", store.id, store.address));
        }
        for text in [&store.address, &store.status_address, &store.version] {
            if text.len() > TEXT_BYTES_MAX {
                return invalid(format!("store {}: a text has {} bytes, of {TEXT_BYTES_MAX}", store.id, text.len()));
            }
        }
        let known = self.by_id.get(&store.id);
        if known.is_none() && self.by_id.len() >= STORES_MAX {
            return Err(Refusal::new(RefusalCode::Busy, format!("a cluster has at most {STORES_MAX} stores")));
        }
        if known.is_none_or(|entry| entry.store != store) {
            self.unwritten.insert(store.id);
        }
        self.by_id.insert(store.id, Entry { store, report: Some((stats, now)) });
        Ok(())
    }

    /// One store.
    pub fn get(&self, id: u64, now: Duration) -> Result<StoreInfo, Refusal> {
        match self.by_id.get(&id) {
            Some(entry) => Ok(self.info(entry, now)),
            // Clients look for both halves of this text.
            None => Err(Refusal::new(RefusalCode::UnknownStore, format!("invalid store ID {id}, not found"))),
        }
    }

    /// All stores by ascending id.
    pub fn all(&self, now: Duration) -> Vec<StoreInfo> {
        self.by_id.values().map(|entry| self.info(entry, now)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a record has to be written.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// The records to write now. They count as written until [`Stores::failed`] says otherwise.
    pub fn take_unwritten(&mut self) -> Vec<Store> {
        let ids = std::mem::take(&mut self.unwritten);
        let stores: Vec<Store> = ids.iter().filter_map(|id| self.by_id.get(id)).map(|e| e.store.clone()).collect();
        assert_eq!(stores.len(), ids.len(), "a store is never forgotten");
        stores
    }

    /// A write of these failed, or its outcome is unknown: write them again.
    pub fn failed(&mut self, ids: &[u64]) {
        self.unwritten.extend(ids);
    }

    fn info(&self, entry: &Entry, now: Duration) -> StoreInfo {
        let heard = entry.report.map_or(self.since, |(_, at)| at);
        StoreInfo {
            store: entry.store.clone(),
            stats: entry.report.map(|(stats, _)| stats),
            silent_ms: Some(now.saturating_sub(heard).as_millis() as u64),
        }
    }
}

#[cfg(test)]
#[path = "stores_test.rs"]
mod tests;
