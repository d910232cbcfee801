//! Commands on one key are serialized: the state that a transactional command read under its latches holds until it is
//! applied. On one node, two commands that touch the lock of one key are therefore never between proposal and decision
//! at the same time, regardless of the answers to their callers.

use crate::world::NodeId;
use bytes::Bytes;
use kontiki_engine::WriteBatch;
use kontiki_raftstore::Ticket;
use kontiki_server::families;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Observes the proposals of a cluster. Clones share the state.
#[derive(Clone, Default)]
pub struct Commands {
    // Behind a lock because drivers must be `Send`, although the simulator has one thread.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The keys of proposed and undecided commands, for each node's process.
    undecided: BTreeMap<(NodeId, Ticket), BTreeSet<Bytes>>,
    overlap: Option<String>,
}

impl Commands {
    /// A command is proposed (with its batch), or the proposal of this ticket is decided.
    pub fn observe(&self, node: NodeId, ticket: Ticket, batch: Option<&WriteBatch>) {
        let mut state = self.state.lock();
        let Some(batch) = batch else {
            state.undecided.remove(&(node, ticket));
            return;
        };
        let locks = batch.ops().filter(|op| op.family() == families::TXN_LOCK);
        let keys: BTreeSet<Bytes> = locks.map(|op| Bytes::copy_from_slice(op.key())).collect();
        let others = state.undecided.range((node, Ticket(0))..=(node, Ticket(u64::MAX)));
        let shared = others.flat_map(|(_, others)| others.intersection(&keys)).next();
        if let Some(key) = shared {
            let overlap = format!("node {node} proposes a command on {key:?} before an earlier one is decided");
            state.overlap.get_or_insert(overlap);
        }
        state.undecided.insert((node, ticket), keys);
    }

    /// A node's process has ended, and its latches with it.
    pub fn stopped(&self, node: NodeId) {
        self.state.lock().undecided.retain(|(of, _), _| *of != node);
    }

    /// The first two commands that overlapped, if any did.
    pub fn overlap(&self) -> Option<String> {
        self.state.lock().overlap.clone()
    }
}

#[cfg(test)]
#[path = "commands_test.rs"]
mod tests;
