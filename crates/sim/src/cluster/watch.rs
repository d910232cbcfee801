//! What must hold at every moment, looked at after every step of a node: one leader per region and term, no lease
//! held by two nodes at one true time, and followers that take no more than they may hold unapplied.

use crate::world::NodeId;
use kontiki_raftstore::{RegionId, RegionStatus};
use kontiki_server::driver::NodeHandle;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The regions of a simulated cluster: placement, nearly all keys, and the tail.
pub const REGIONS: [RegionId; 3] = [RegionId(1), RegionId(2), RegionId(3)];

/// Broken promises that are kept: the first ones tell what happened.
const VIOLATIONS_MAX: usize = 3;

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
    terms_seen: u64,
    violations: Vec<String>,
}

impl Watch {
    /// A node's process runs.
    pub fn started(&self, node: NodeId, handle: NodeHandle) {
        self.state.borrow_mut().running.insert(node, handle);
    }

    /// A node's process is gone.
    pub fn stopped(&self, node: NodeId) {
        self.state.borrow_mut().running.remove(&node);
    }

    /// Leaderships seen so far, over all regions.
    pub fn terms_seen(&self) -> u64 {
        self.state.borrow().terms_seen
    }

    /// What was broken.
    pub fn violations(&self) -> Vec<String> {
        self.state.borrow().violations.clone()
    }

    /// Looks at the cluster after a step of `node`.
    pub fn look(&self, node: NodeId) {
        let found = self.broken(node);
        self.note(found);
    }

    /// Looks at what the replicas of `node` hold and have not applied: a follower takes no more than `bytes_max`.
    pub fn look_at_replicas(&self, node: NodeId, replicas: &[RegionStatus], bytes_max: usize) {
        let beyond = replicas.iter().find(|replica| !replica.leads && replica.unapplied_bytes > bytes_max);
        self.note(beyond.map(|replica| {
            let (region, bytes) = (replica.region.id, replica.unapplied_bytes);
            format!("node {node} holds {bytes} bytes of region {region} that are not applied, {bytes_max} at most")
        }));
    }

    fn note(&self, found: Option<String>) {
        let mut state = self.state.borrow_mut();
        if state.violations.len() < VIOLATIONS_MAX {
            state.violations.extend(found);
        }
    }

    fn broken(&self, node: NodeId) -> Option<String> {
        let mut state = self.state.borrow_mut();
        let State { leaders, running, terms_seen, .. } = &mut *state;
        let handle = running.get(&node)?;
        for region in REGIONS {
            let Some(term) = handle.leading_term(region) else { continue };
            let first = *leaders.entry((region, term)).or_insert_with(|| {
                *terms_seen += 1;
                node
            });
            if first != node {
                return Some(format!("nodes {first} and {node} both led region {region} in term {term}"));
            }
            if !handle.holds_lease(region) {
                continue;
            }
            let other = running.iter().find(|(id, other)| **id != node && other.holds_lease(region));
            if let Some((other, _)) = other {
                return Some(format!("nodes {other} and {node} hold the lease of region {region} at once"));
            }
        }
        None
    }
}
