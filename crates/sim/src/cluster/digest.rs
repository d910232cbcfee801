//! Replicas with the same applied index are equal: a digest of every region's state at every applied index.
//!
//! A digest is the sum of the hashes of the region's entries, so a batch changes it by the entries that it removes and
//! adds: one lookup of the old value per operation, for any size of the state. It is computed again by a scan when a
//! replica's applied index is not the one after the last batch (a restart, a snapshot's install), so that the state
//! after a crash or an install is compared, too.

use crate::world::NodeId;
use kontiki_engine::{BatchOp, Direction, Family, Range, View, WriteBatch};
use kontiki_env::codec::{hash64, put_slice};
use kontiki_raftstore::{RecoverError, RegionId, meta};
use kontiki_server::families;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Compares the replicas of a cluster. Clones share the state.
#[derive(Clone, Default)]
pub struct Digests {
    // Behind a lock because drivers must be `Send`, although the simulator has one thread.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The node that reached the index first, and its digest.
    known: BTreeMap<(RegionId, u64), (u64, NodeId)>,
    /// The applied index and the digest of each replica.
    replicas: BTreeMap<(NodeId, RegionId), (u64, u64)>,
    difference: Option<String>,
}

impl Digests {
    /// A node is about to apply a batch.
    pub fn applying(&self, node: NodeId, view: &dyn View, batch: &WriteBatch) {
        let mut state = self.state.lock();
        if state.applying(node, view, batch).is_err() {
            // A disk that cannot be read is not a difference; the next batch begins with a scan.
            state.replicas.retain(|(of, _), _| *of != node);
        }
    }

    /// A node's process has ended: what it had applied and not flushed is applied again from the log.
    pub fn stopped(&self, node: NodeId) {
        self.state.lock().replicas.retain(|(of, _), _| *of != node);
    }

    /// Of each region, forgets the states that none of these nodes has applied: what comes next may be another one.
    pub fn keep_what_these_have(&self, nodes: &[NodeId]) {
        let State { known, replicas, .. } = &mut *self.state.lock();
        let mut through: BTreeMap<RegionId, u64> = BTreeMap::new();
        for ((_, region), (index, _)) in replicas.iter().filter(|((node, _), _)| nodes.contains(node)) {
            let last = through.entry(*region).or_default();
            *last = (*last).max(*index);
        }
        known.retain(|(region, index), _| through.get(region).is_some_and(|last| index <= last));
    }

    /// The first difference between two replicas, if there was one.
    pub fn difference(&self) -> Option<String> {
        self.state.lock().difference.clone()
    }

    /// Number of states that were compared or recorded for comparison.
    pub fn len(&self) -> usize {
        self.state.lock().known.len()
    }

    /// Whether nothing was applied.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A view that cannot be read because of its disk: other checks handle that.
struct Unreadable;

impl From<kontiki_engine::Error> for Unreadable {
    fn from(_: kontiki_engine::Error) -> Unreadable {
        Unreadable
    }
}

impl From<RecoverError> for Unreadable {
    fn from(_: RecoverError) -> Unreadable {
        Unreadable
    }
}

impl State {
    fn applying(&mut self, node: NodeId, view: &dyn View, batch: &WriteBatch) -> Result<(), Unreadable> {
        // A batch may write a key more than once, and may advance a region more than once.
        let mut written: BTreeMap<(Family, &[u8]), Option<u64>> = BTreeMap::new();
        let mut begun: BTreeSet<RegionId> = BTreeSet::new();
        let mut changed: BTreeSet<RegionId> = BTreeSet::new();
        // Operations of a region come before its applied position.
        let mut pending: Vec<BatchOp<'_>> = Vec::new();
        for op in batch.ops() {
            let Some((region, index)) = meta::applied_by(families::META, &op) else {
                changed.extend(meta::described_by(families::META, &op));
                pending.push(op);
                continue;
            };
            if changed.contains(&region) {
                // Its range may be another one now: the next batch begins with a scan.
                pending.clear();
                self.replicas.remove(&(node, region));
                continue;
            }
            if begun.insert(region) {
                self.begin(node, region, view)?;
            }
            let (before, mut digest) = self.replicas[&(node, region)];
            if index <= before {
                self.note(format!("node {node} applies {index} after {before} in region {region}"));
            }
            let safe_point = gc_safe_point(view, region)?;
            for op in pending.drain(..).filter(|op| stays(op.family(), op.key(), safe_point)) {
                let (family, key) = (op.family(), op.key());
                let old = match written.get(&(family, key)) {
                    Some(old) => *old,
                    None => view.get(family, key)?.map(|value| entry(family, key, &value)),
                };
                let new = match op {
                    BatchOp::Put { value, .. } => Some(entry(family, key, value)),
                    _ => None,
                };
                digest = digest.wrapping_sub(old.unwrap_or(0)).wrapping_add(new.unwrap_or(0));
                written.insert((family, key), new);
            }
            self.replicas.insert((node, region), (index, digest));
            self.compare(node, region, index, digest);
        }
        Ok(())
    }

    /// The region's digest before a batch is known, or is computed by a scan and compared.
    fn begin(&mut self, node: NodeId, region: RegionId, view: &dyn View) -> Result<(), Unreadable> {
        let index = meta::applied_index(families::META, view, region)?.unwrap_or(0);
        if self.replicas.get(&(node, region)).is_none_or(|(known, _)| *known != index) {
            let digest = walk(view, region)?;
            self.replicas.insert((node, region), (index, digest));
            self.compare(node, region, index, digest);
        }
        Ok(())
    }

    fn note(&mut self, what: String) {
        self.difference.get_or_insert(what);
    }

    fn compare(&mut self, node: NodeId, region: RegionId, index: u64, digest: u64) {
        let (first, by) = *self.known.entry((region, index)).or_insert((digest, node));
        if first != digest {
            self.note(format!("nodes {by} and {node} differ in region {region} with {index} applied"));
        }
    }
}

fn gc_safe_point(view: &dyn View, region: RegionId) -> Result<u64, Unreadable> {
    Ok(meta::region(families::META, view, region)?.map_or(0, |region| region.gc_safe_point))
}

/// Whether an entry is on all replicas: versions at or below the safe point are dropped by each in its own time.
fn stays(family: Family, key: &[u8], safe_point: u64) -> bool {
    let is_version = family == families::TXN_WRITE || family == families::TXN_DEFAULT;
    let ts = key.last_chunk::<8>().map_or(u64::MAX, |suffix| !u64::from_be_bytes(*suffix));
    !is_version || ts > safe_point
}

/// The digest of a region's entries in a view, including its descriptor.
fn walk(view: &dyn View, region: RegionId) -> Result<u64, Unreadable> {
    let Some(descriptor) = meta::region(families::META, view, region)? else { return Ok(0) };
    // In its stored form, so that a batch that changes it counts in the same way.
    let key = meta::region_key(region);
    let stored = view.get(families::META, &key)?.unwrap_or_default();
    let mut digest = entry(families::META, &key, &stored);
    for &family in families::FAMILIES.of(descriptor.space) {
        let range = Range::region(&descriptor.start_key, &descriptor.end_key);
        let mut entries = view.entries(family, range, Direction::Forward)?;
        while let Some((key, value)) = entries.next().transpose()? {
            if !stays(family, &key, descriptor.gc_safe_point) {
                continue;
            }
            digest = digest.wrapping_add(entry(family, &key, &value));
        }
    }
    Ok(digest)
}

fn entry(family: Family, key: &[u8], value: &[u8]) -> u64 {
    let mut bytes = Vec::with_capacity(16 + key.len() + value.len());
    bytes.push(family.0 as u8);
    put_slice(&mut bytes, key);
    bytes.extend_from_slice(value);
    hash64(&bytes)
}

#[cfg(test)]
#[path = "digest_test.rs"]
mod tests;
