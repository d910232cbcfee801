//! Cuts links between this node and others, for tests of real nodes: nothing is sent to a blocked store, and what comes
//! from it is dropped, as by a network that loses every message in both directions. Connections stay open, as they do
//! in such a network.
//!
//! There is no command for it: a running cluster cannot be partitioned from outside.

use kontiki_raftstore::StoreId;
use parking_lot::RwLock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The blocked stores of a node; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Whether any store is blocked: the usual case costs one load for a message.
    any: AtomicBool,
    blocked: RwLock<BTreeSet<StoreId>>,
}

impl Links {
    /// From now on nothing passes between this node and `store`.
    pub fn block(&self, store: StoreId) {
        let mut blocked = self.shared.blocked.write();
        blocked.insert(store);
        self.shared.any.store(true, Ordering::Release);
    }

    /// From now on everything passes again.
    pub fn unblock(&self, store: StoreId) {
        let mut blocked = self.shared.blocked.write();
        blocked.remove(&store);
        self.shared.any.store(!blocked.is_empty(), Ordering::Release);
    }

    /// Whether the link to `store` is cut.
    pub fn is_blocked(&self, store: StoreId) -> bool {
        self.shared.any.load(Ordering::Acquire) && self.shared.blocked.read().contains(&store)
    }
}
