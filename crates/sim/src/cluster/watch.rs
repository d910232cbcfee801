//! What must hold at every moment, looked at after every step of a node: one leader per region and term, no lease
//! held by two nodes at one true time, and a replica's state only goes forward while its process lives.

use crate::world::NodeId;
use kontiki_raftstore::{RegionId, meta};
use kontiki_server::driver::NodeHandle;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Watches a cluster. Clones watch together.
#[derive(Clone, Default)]
pub struct Watch {
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    /// Who led a region in a term, over the whole run.
    leaders: BTreeMap<(RegionId, u64), NodeId>,
    running: BTreeMap<NodeId, NodeHandle>,
    /// How far each running node has applied each region.
    applied: BTreeMap<(NodeId, RegionId), u64>,
    terms_seen: u64,
}

impl Watch {
    /// A node's process runs.
    pub fn started(&self, node: NodeId, handle: NodeHandle) {
        self.state.borrow_mut().running.insert(node, handle);
    }

    /// A node's process is gone.
    pub fn stopped(&self, node: NodeId) {
        let mut state = self.state.borrow_mut();
        state.running.remove(&node);
        // What was applied and not flushed is gone; it comes again from the log.
        state.applied.retain(|(of, _), _| *of != node);
    }

    /// Leaderships seen so far, over all regions.
    pub fn terms_seen(&self) -> u64 {
        self.state.borrow().terms_seen
    }

    /// Looks at the cluster after a step of `node`.
    pub fn look(&self, node: NodeId) -> Result<(), String> {
        let mut state = self.state.borrow_mut();
        let State { leaders, running, applied, terms_seen } = &mut *state;
        let Some(handle) = running.get(&node) else { return Ok(()) };
        let view = handle.db().snapshot();
        for status in handle.status().regions {
            let region = status.region.id;
            let index = meta::applied_index(&view, region).map_err(|error| error.to_string())?.unwrap_or(0);
            let before = applied.insert((node, region), index).unwrap_or(0);
            if index < before {
                return Err(format!("node {node} goes back from {before} to {index} in region {region}"));
            }
            if let Some(term) = status.leading_term {
                let first = *leaders.entry((region, term)).or_insert_with(|| {
                    *terms_seen += 1;
                    node
                });
                if first != node {
                    return Err(format!("nodes {first} and {node} both led region {region} in term {term}"));
                }
            }
            let mut holders = running.iter().filter(|(_, handle)| handle.holds_lease(region)).map(|(id, _)| *id);
            if let (Some(first), Some(second)) = (holders.next(), holders.next()) {
                return Err(format!("nodes {first} and {second} hold the lease of region {region} at once"));
            }
        }
        Ok(())
    }
}
