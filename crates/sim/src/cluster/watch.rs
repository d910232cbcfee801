//! Invariants that must always hold, checked after every step of a node:
//!
//! - one leader per region and term;
//! - no lease held by two nodes at one true time;
//! - no vote of a node on whose promise the holder of a lease counts: two leases, and everything else that a lease
//!   excludes, begin in this way, long before a client could see it;
//! - followers accept no more than they may hold unapplied;
//! - no file of a snapshot is removed before tables hold its data;
//! - no log is truncated, within its bound, while a snapshot is in flight.

use crate::world::NodeId;
use kontiki_raftstore::{LeaseStatus, PeerId, RegionId, RegionStatus, StoreId};
use kontiki_server::driver::NodeHandle;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

/// The first regions of a simulated cluster: placement, nearly all keys, and the tail.
pub const REGIONS: [RegionId; 3] = [RegionId(1), RegionId(2), RegionId(3)];

/// The number of recorded violations: the first ones show what happened.
const VIOLATIONS_MAX: usize = 3;

/// Observes a cluster. Clones share the state.
#[derive(Clone, Default)]
pub struct Watch {
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    /// The leader of each region and term, over the whole run.
    leaders: BTreeMap<(RegionId, u64), NodeId>,
    running: BTreeMap<NodeId, NodeHandle>,
    /// The term of each replica and its vote in that term, as of the last check.
    votes: BTreeMap<(NodeId, RegionId), (u64, Option<PeerId>)>,
    /// Terms and leases of those that lead, as of each one's last step.
    leases: BTreeMap<(NodeId, RegionId), (u64, LeaseStatus)>,
    /// Followers that have everything that their leader needs to commit: its term, and their unapplied bytes as of the
    /// last check.
    unapplied: BTreeMap<(NodeId, RegionId), (u64, usize)>,
    terms_seen: u64,
    /// Leaders that hibernate, and how often one began to.
    hibernating: BTreeSet<(NodeId, RegionId)>,
    hibernations: u64,
    violations: Vec<String>,
}

impl Watch {
    /// A node's process runs.
    pub fn started(&self, node: NodeId, handle: NodeHandle) {
        self.state.borrow_mut().running.insert(node, handle);
    }

    /// A node's process has ended.
    pub fn stopped(&self, node: NodeId) {
        let mut state = self.state.borrow_mut();
        state.running.remove(&node);
        state.leases.retain(|(of, _), _| *of != node);
        state.unapplied.retain(|(of, _), _| *of != node);
    }

    /// These nodes are lost for good: others may lead in the terms in which they led.
    pub fn forget(&self, nodes: &[NodeId]) {
        self.state.borrow_mut().leaders.retain(|_, leader| !nodes.contains(leader));
    }

    /// Leaderships seen so far, over all regions.
    pub fn terms_seen(&self) -> u64 {
        self.state.borrow().terms_seen
    }

    /// How often a leader began to hibernate.
    pub fn hibernations(&self) -> u64 {
        self.state.borrow().hibernations
    }

    /// Counts the hibernations of leaders.
    pub fn look_at_hibernation(&self, node: NodeId, replicas: &[RegionStatus]) {
        let State { hibernating, hibernations, .. } = &mut *self.state.borrow_mut();
        for replica in replicas {
            let key = (node, replica.region.id);
            if replica.leads && replica.hibernates {
                *hibernations += u64::from(hibernating.insert(key));
            } else {
                hibernating.remove(&key);
            }
        }
    }

    /// The violations.
    pub fn violations(&self) -> Vec<String> {
        self.state.borrow().violations.clone()
    }

    /// Checks the cluster after a step of `node`.
    pub fn look(&self, node: NodeId) {
        let found = self.broken(node);
        self.note(found);
    }

    /// Checks the votes and leases of the replicas of `node`.
    pub fn look_at_votes(&self, node: NodeId, replicas: &[RegionStatus]) {
        for replica in replicas {
            let found = self.state.borrow_mut().vote(node, replica);
            self.note(found);
        }
    }

    /// A snapshot's file, if there is one, that was removed although tables do not hold its data.
    pub fn look_at_snapshots(&self, node: NodeId, gone: Option<&PathBuf>) {
        self.note(gone.map(|path| format!("node {node} needs {}, which was removed", path.display())));
    }

    /// Snapshots of `node` were in flight when the log was truncated, which this world gives no reason for.
    pub fn look_at_abandoned(&self, node: NodeId, count: u64) {
        self.note(
            (count > 0).then(|| format!("node {node} truncated a log within its bound beside a snapshot's send")),
        );
    }

    /// Checks the unapplied bytes of the replicas of `node`. A follower that holds more than `bytes_max` accepts no
    /// more, except for entries that a new leader needs before it can commit.
    pub fn look_at_unapplied(&self, node: NodeId, replicas: &[RegionStatus], bytes_max: usize) {
        for replica in replicas {
            let found = self.state.borrow_mut().unapplied(node, replica, bytes_max);
            self.note(found);
        }
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
        for region in handle.regions().into_iter().map(|region| region.id) {
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

impl State {
    fn unapplied(&mut self, node: NodeId, replica: &RegionStatus, bytes_max: usize) -> Option<String> {
        let (region, term, bytes) = (replica.region.id, replica.term, replica.unapplied_bytes);
        if replica.leads || !replica.has_first_of_term {
            self.unapplied.remove(&(node, region));
            return None;
        }
        let before = self.unapplied.insert((node, region), (term, bytes));
        let (_, before) = before.filter(|(of, _)| *of == term)?;
        (bytes > bytes_max.max(before)).then(|| {
            format!(
                "node {node} accepts more when {before} bytes of region {region} are not applied: {bytes}, at most \
                 {bytes_max}"
            )
        })
    }

    /// Records a replica's vote and lease. A vote is a violation if another node holds a lease of an earlier term at
    /// this true time and counts on the voter. (A promise to a leader without a lease may have no effect: another
    /// leader was elected without the voter.)
    fn vote(&mut self, node: NodeId, replica: &RegionStatus) -> Option<String> {
        let (region, term, vote) = (replica.region.id, replica.term, replica.vote);
        match &replica.lease {
            Some(lease) => self.leases.insert((node, region), (term, lease.clone())),
            None => self.leases.remove(&(node, region)),
        };
        let before = self.votes.insert((node, region), (term, vote));
        if before == Some((term, vote)) || vote.is_none() {
            return None;
        }
        let counts = |of: &NodeId, (of_term, lease): &(u64, LeaseStatus)| {
            let now = self.running.get(of).map(NodeHandle::monotonic);
            let promised = lease.promises.iter().find(|(store, _)| *store == StoreId(node)).map(|(_, until)| *until);
            *of_term < term && now.is_some_and(|now| now < lease.until && promised.is_some_and(|until| now < until))
        };
        let mut others = self.leases.iter().filter(|((of, at), _)| *of != node && *at == region);
        let ((leader, _), (of_term, _)) = others.find(|((of, _), lease)| counts(of, lease))?;
        Some(format!(
            "node {node} votes in term {term} of region {region} while node {leader} holds the lease in \
             term {of_term} by its promise"
        ))
    }
}
