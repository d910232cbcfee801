//! Reads that need not go to the leader: which replica serves them.

use crate::Options;
use crate::region::Region;
use kontiki_proto::metapb;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// For how long a store is not chosen after it did not answer.
const AVOIDED: Duration = Duration::from_secs(5);

/// Which replicas serve reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// The leader of each region.
    #[default]
    Leader,
    /// Any replica: those on stores with most of the client's labels ([`Options::labels`]), in turn. A read is as fresh
    /// as one at the leader, of whom the replica asks how fresh that is. If the replica cannot serve it, the leader
    /// does.
    Replica,
}

/// What is known of stores.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    turn: AtomicUsize,
    labels: Mutex<BTreeMap<u64, Vec<metapb::StoreLabel>>>,
    avoided_until: Mutex<BTreeMap<u64, Duration>>,
}

impl Replicas {
    /// The labels of a store, as the placement driver says.
    pub(crate) fn know(&self, store: u64, labels: Vec<metapb::StoreLabel>) {
        self.labels.lock().insert(store, labels);
    }

    /// The stores of the region whose labels are needed for the choice.
    pub(crate) fn unknown(&self, region: &Region, options: &Options) -> Vec<u64> {
        if options.labels.is_empty() {
            return Vec::new();
        }
        let known = self.labels.lock();
        let stores = region.meta.peers.iter().map(|peer| peer.store_id);
        stores.filter(|store| !known.contains_key(store)).collect()
    }

    /// A store did not answer.
    pub(crate) fn avoid(&self, store: u64, now: Duration) {
        self.avoided_until.lock().insert(store, now + AVOIDED);
    }

    /// The replica that is asked next, unless no store is left.
    pub(crate) fn choose(&self, region: &Region, options: &Options, now: Duration) -> Option<metapb::Peer> {
        let (avoided, labels) = (self.avoided_until.lock(), self.labels.lock());
        let is_usable = |peer: &&metapb::Peer| avoided.get(&peer.store_id).is_none_or(|until| *until <= now);
        let closeness = |peer: &metapb::Peer| {
            let of_store = labels.get(&peer.store_id).map_or(&[][..], Vec::as_slice);
            let is_shared = |(key, value): &&(String, String)| {
                of_store.iter().any(|label| label.key == *key && label.value == *value)
            };
            options.labels.iter().filter(is_shared).count()
        };
        let usable: Vec<&metapb::Peer> = region.meta.peers.iter().filter(is_usable).collect();
        let closest = usable.iter().map(|peer| closeness(peer)).max()?;
        let closest: Vec<&metapb::Peer> = usable.into_iter().filter(|peer| closeness(peer) == closest).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        closest.get(turn % closest.len()).map(|peer| **peer)
    }
}

#[cfg(test)]
#[path = "replicas_test.rs"]
mod tests;
