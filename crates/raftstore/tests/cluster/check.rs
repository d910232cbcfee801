//! The invariants that must hold after each step, for every region.

use super::families;
use super::node::Node;
use super::view::Table;
use bytes::Bytes;
use kontiki_raftstore::{Answer, PeerId, Region, RegionId, RegionStatus, StoreId, Ticket, meta};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is known of one region.
#[derive(Default)]
struct Known {
    /// The store that led in each term.
    leaders: BTreeMap<u64, StoreId>,
    /// Committed entries, as they are on the disks.
    committed: BTreeMap<u64, Bytes>,
    /// The state after each applied index that was seen.
    states: BTreeMap<u64, u64>,
    /// Per store: committed index and term so far, in this incarnation.
    progress: BTreeMap<StoreId, (u64, u64)>,
    /// Per term and follower: the match index at the leader.
    matched: BTreeMap<(u64, PeerId), u64>,
    /// No read that begins now may see a lower index: this one was acknowledged, or read.
    acknowledged: u64,
    /// The stores with a replica.
    replicas: usize,
}

#[derive(Default)]
pub struct Checker {
    regions: BTreeMap<RegionId, Known>,
    reads: BTreeMap<Ticket, u64>,
    /// The version of the region in which a write of this key was last acknowledged: a read of another region's replica
    /// in an earlier version is stale.
    versions: BTreeMap<Vec<u8>, u64>,
    pub lease_reads: u64,
    /// How often a leader's match index rose.
    pub matches: u64,
    /// Replicas are added and removed.
    pub members_change: bool,
    memory_slack: usize,
}

/// A region's entries.
pub fn entries_of(table: &Table, region: &Region) -> Vec<(u32, Vec<u8>, Bytes)> {
    let own = table.0.iter().filter(|((family, key), _)| *family < families::META.0 && region.contains(key));
    own.map(|((family, key), value)| (*family, key.clone(), value.clone())).collect()
}

/// The entries of all regions.
pub fn region_state(table: &Table) -> Vec<(u32, Vec<u8>, Bytes)> {
    let own = table.0.iter().filter(|((family, _), _)| *family < families::META.0);
    own.map(|((family, key), value)| (*family, key.clone(), value.clone())).collect()
}

fn hash(entries: Vec<(u32, Vec<u8>, Bytes)>) -> u64 {
    let mut bytes = Vec::new();
    for (family, key, value) in entries {
        bytes.extend_from_slice(&family.to_le_bytes());
        kontiki_env::codec::put_slice(&mut bytes, &key);
        kontiki_env::codec::put_slice(&mut bytes, &value);
    }
    kontiki_env::codec::hash64(&bytes)
}

impl Checker {
    pub fn new(memory_slack: usize) -> Checker {
        Checker { memory_slack, ..Checker::default() }
    }

    pub fn acknowledged(&self, region: RegionId) -> u64 {
        self.regions.get(&region).map_or(0, |known| known.acknowledged)
    }

    /// A majority is lost: what was acknowledged, committed or read may be lost with it.
    pub fn forget(&mut self) {
        assert!(self.reads.is_empty(), "no read is under way");
        (self.regions, self.versions) = Default::default();
        self.members_change = true;
    }

    pub fn restarted(&mut self, store: StoreId) {
        for known in self.regions.values_mut() {
            known.progress.remove(&store);
        }
    }

    pub fn read_begins(&mut self, region: RegionId, ticket: Ticket) {
        self.reads.insert(ticket, self.acknowledged(region));
    }

    /// A lease read of a region in this version began when `acknowledged` was, and saw `index`.
    pub fn read_ended(&mut self, at: u64, region: (RegionId, u64), key: &[u8], index: u64, acknowledged: u64) {
        assert!(
            index >= acknowledged,
            "store {at} serves a stale read: index {index}, but {acknowledged} was acknowledged before"
        );
        let written = self.versions.get(key).copied().unwrap_or(0);
        let (id, version) = region;
        assert!(written <= version, "store {at} serves a read of region {id} in version {version}, after {written}");
        self.lease_reads += 1;
        let known = self.regions.entry(id).or_default();
        known.acknowledged = known.acknowledged.max(index);
    }

    /// A key's write was acknowledged in this version of its region.
    pub fn written(&mut self, key: &[u8], version: u64) {
        let known = self.versions.entry(key.to_vec()).or_default();
        *known = version.max(*known);
    }

    pub fn answered(&mut self, region: RegionId, ticket: Ticket, answer: &Answer) {
        let began_at = self.reads.remove(&ticket);
        if let Answer::Ok { index } = answer {
            if let Some(acknowledged) = began_at {
                assert!(
                    *index >= acknowledged,
                    "a read barrier at {index}, but {acknowledged} was acknowledged before it"
                );
            }
            let known = self.regions.entry(region).or_default();
            known.acknowledged = known.acknowledged.max(*index);
        }
    }

    pub fn check(&mut self, now: Duration, nodes: &BTreeMap<StoreId, Node>) {
        let mut leases: BTreeMap<RegionId, Vec<StoreId>> = BTreeMap::new();
        for node in nodes.values().filter(|node| node.is_up()) {
            let store = node.store.as_ref().expect("up");
            // Beyond the budget: what each region may accept although it is full, and what this poll hands to the
            // engine.
            let (memory, slack) = (store.memory(), self.memory_slack);
            assert!(memory.log_bytes <= memory.log_bytes_max + slack, "logs take {memory:?} on store {}", node.id);
            for status in store.status() {
                if node.readers.holds_lease(status.region.id, node.local(now)) {
                    leases.entry(status.region.id).or_default().push(node.id);
                }
                self.check_replica(now, node, &status);
                if status.leads {
                    self.check_matches(nodes, node, &status);
                }
            }
            check_ranges(node, &store.status());
        }
        let twice = leases.iter().find(|(_, stores)| stores.len() > 1);
        assert!(twice.is_none(), "{twice:?} hold leases at the same time");
        self.check_acknowledged(nodes);
    }

    fn check_replica(&mut self, now: Duration, node: &Node, status: &RegionStatus) {
        let region = status.region.id;
        let known = self.regions.entry(region).or_default();
        known.replicas = status.region.peers.len();
        if status.leads {
            let leader = *known.leaders.entry(status.term).or_insert(node.id);
            assert_eq!(leader, node.id, "one leader in term {} of region {region}", status.term);
        }
        assert!(status.applied_index <= status.committed_index && status.committed_index <= status.last_index);
        let (committed, term) = known.progress.get(&node.id).copied().unwrap_or_default();
        assert!(status.committed_index >= committed && status.term >= term, "neither commit nor term go back");
        known.progress.insert(node.id, (status.committed_index, status.term));

        let stream = &node.disk.streams[&kontiki_engine::StreamId(region.0)];
        let flushed = meta::applied_index(families::META, &node.disk.tables, region).expect("readable").unwrap_or(0);
        let files = node.disk.files.keys().filter(|file| file.snapshot.region == region);
        let covered = files.map(|file| file.snapshot.index).max().unwrap_or(0).max(node.lost_through);
        // A split's region begins with position 1, which its parent's log holds.
        let covered = covered.max(1);
        assert!(stream.truncated_through <= flushed.max(covered), "the log holds what tables and files do not");
        let durable = durable_through(node, region).max(node.lost_through);
        assert!(
            status.applied_index <= durable,
            "{} of {region} is applied but not durable here",
            status.applied_index
        );
        if node.persists.is_empty() {
            // With persists in flight the disk may still hold what is being overwritten.
            known.check_committed(stream.truncated_through, &stream.entries, status.committed_index);
        }

        let visible = meta::applied_index(families::META, &node.visible, region).expect("readable").unwrap_or(0);
        let installing = node.jobs.iter().any(|(_, job)| matches!(job, super::node::Job::Install { .. }));
        if now >= node.paused_until && !installing && node.inbox.is_empty() {
            assert_eq!(visible, status.applied_index, "the store and its data agree on what is applied");
            let Some(descriptor) = meta::region(families::META, &node.visible, region).expect("readable") else {
                return; // Its first snapshot is not installed yet.
            };
            assert_eq!(descriptor, *status.region, "the store and its data agree on the region");
            if visible < stream.truncated_through {
                return; // It waits for an install, and may hold a part of it: a state that is not used.
            }
            let state = hash(entries_of(&node.visible, &descriptor));
            let before = *known.states.entry(visible).or_insert(state);
            assert_eq!(before, state, "the state of {region} at {visible} differs between replicas or over time");
        }
    }

    /// What a leader takes a follower to have is durable there, and stays so as long as it leads.
    fn check_matches(&mut self, nodes: &BTreeMap<StoreId, Node>, node: &Node, status: &RegionStatus) {
        let region = status.region.id;
        let lag = node.store.as_ref().expect("up").replica_lag(region).expect("it has a replica");
        let known = self.regions.entry(region).or_default();
        for follower in lag.followers.iter().filter(|follower| !follower.needs_snapshot) {
            let matched = status.last_index - follower.entries;
            let before = known.matched.entry((status.term, follower.peer)).or_default();
            assert!(*before <= matched, "the match index of {} went from {before} to {matched}", follower.store);
            self.matches += u64::from(*before < matched);
            *before = matched;
            let there = &nodes[&follower.store];
            let replica = there.store.iter().flat_map(|store| store.status()).find(|there| there.region.id == region);
            // In another term its log may have been overwritten since.
            if replica.is_some_and(|replica| replica.term == status.term) {
                let durable = durable_through(there, region);
                assert!(matched <= durable, "store {} is taken to have {matched}, but has {durable}", there.id);
            }
        }
    }

    /// An acknowledged index is durable on a majority: in its log, its tables or its snapshot file.
    fn check_acknowledged(&self, nodes: &BTreeMap<StoreId, Node>) {
        if self.members_change {
            return; // Which majority counts depends on the moment.
        }
        // A region begins with position 1, which no log holds.
        let descriptors =
            nodes.values().flat_map(|node| meta::regions(families::META, &node.visible).expect("readable"));
        let absorbed = descriptors.flat_map(|region| region.merges.absorbed).map(|absorbed| absorbed.region);
        // The log of a region that was merged is not needed where the merge is applied.
        let absorbed: BTreeSet<RegionId> = absorbed.collect();
        let is_known = |(region, known): &(&RegionId, &Known)| known.acknowledged > 1 && !absorbed.contains(region);
        for (region, known) in self.regions.iter().filter(is_known) {
            let holds = |node: &&Node| {
                let stream = node.disk.streams.get(&kontiki_engine::StreamId(region.0));
                let last =
                    |stream: &kontiki_engine::StreamContents| stream.truncated_through + stream.entries.len() as u64;
                stream.is_some_and(|stream| last(stream) >= known.acknowledged)
            };
            let count = nodes.values().filter(holds).count();
            let index = known.acknowledged;
            assert!(count > known.replicas / 2, "{index} of {region} is acknowledged but durable on {count} only");
        }
    }
}

impl Known {
    fn check_committed(&mut self, truncated: u64, entries: &[Bytes], committed: u64) {
        for (entry, index) in entries.iter().zip(truncated + 1..).take_while(|(_, index)| *index <= committed) {
            let known = self.committed.entry(index).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "the committed entry {index} is equal on all replicas and never changes");
        }
    }
}

/// What a crash of this store would leave of a region: its log, a snapshot file, or tables.
fn durable_through(node: &Node, region: RegionId) -> u64 {
    let stream = node.disk.streams.get(&kontiki_engine::StreamId(region.0));
    let log = stream.map_or(0, |stream| stream.truncated_through + stream.entries.len() as u64);
    let files = node.disk.files.keys().filter(|file| file.snapshot.region == region);
    let files = files.map(|file| file.snapshot.index).max().unwrap_or(0);
    let tables = meta::applied_index(families::META, &node.disk.tables, region).expect("readable").unwrap_or(0);
    // A region begins with position 1, which no log holds.
    log.max(files).max(tables).max(1)
}

/// No two replicas of a store hold the same key.
fn check_ranges(node: &Node, status: &[RegionStatus]) {
    for (at, one) in status.iter().enumerate() {
        for other in &status[at + 1..] {
            let (one, other) = (&one.region, &other.region);
            assert!(!one.overlaps(other), "store {}: {one:?}, {other:?}", node.id);
        }
    }
    let ids: BTreeSet<RegionId> = status.iter().map(|status| status.region.id).collect();
    assert_eq!(ids.len(), status.len(), "a region has one replica");
}
