//! The invariants that must hold after each step.

use super::families;
use super::node::Node;
use super::view::Table;
use super::{REGION, STEP};
use bytes::Bytes;
use kontiki_raftstore::{Answer, StoreId, Ticket, meta};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct Checker {
    /// The store that led in each term.
    leaders: BTreeMap<u64, StoreId>,
    /// Committed entries, as they are on the disks.
    committed: BTreeMap<u64, Bytes>,
    /// The state after each applied index that was seen.
    states: BTreeMap<u64, u64>,
    /// Per store: committed index and term so far, in this incarnation.
    progress: BTreeMap<StoreId, (u64, u64)>,
    /// No read that begins now may see a lower index: this one was acknowledged, or read.
    acknowledged: u64,
    reads: BTreeMap<Ticket, u64>,
    pub lease_reads: u64,
    /// Replicas are added and removed.
    pub members_change: bool,
    memory_slack: usize,
}

/// The region's entries.
pub fn region_state(table: &Table) -> Vec<(u32, Vec<u8>, Bytes)> {
    let own = table.0.iter().filter(|((family, _), _)| *family < families::META.0);
    own.map(|((family, key), value)| (*family, key.clone(), value.clone())).collect()
}

fn hash(table: &Table) -> u64 {
    let mut bytes = Vec::new();
    for (family, key, value) in region_state(table) {
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

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn restarted(&mut self, store: StoreId) {
        self.progress.remove(&store);
    }

    pub fn read_begins(&mut self, ticket: Ticket) {
        self.reads.insert(ticket, self.acknowledged);
    }

    pub fn read_ended(&mut self, at: u64, index: u64, acknowledged: u64) {
        assert!(
            index >= acknowledged,
            "store {at} serves a stale read: index {index}, but {acknowledged} was acknowledged before"
        );
        self.lease_reads += 1;
        self.acknowledged = self.acknowledged.max(index);
    }

    pub fn answered(&mut self, ticket: Ticket, answer: &Answer) {
        let began_at = self.reads.remove(&ticket);
        if let Answer::Ok { index } = answer {
            if let Some(acknowledged) = began_at {
                assert!(
                    *index >= acknowledged,
                    "a read barrier at {index}, but {acknowledged} was acknowledged before it"
                );
            }
            self.acknowledged = self.acknowledged.max(*index);
        }
    }

    pub fn check(&mut self, now: Duration, nodes: &BTreeMap<StoreId, Node>) {
        let mut leases = Vec::new();
        for node in nodes.values().filter(|node| node.is_up()) {
            if node.readers.holds_lease(REGION, node.local(now)) {
                leases.push(node.id);
            }
            self.check_node(now, node);
        }
        assert!(leases.len() <= 1, "{leases:?} hold leases at the same time");
        self.check_acknowledged(nodes);
    }

    fn check_node(&mut self, now: Duration, node: &Node) {
        let store = node.store.as_ref().expect("up");
        let Some(status) = store.status().into_iter().find(|status| status.region.id == REGION) else {
            return; // Its replica has not been created yet.
        };
        if status.leads {
            let leader = *self.leaders.entry(status.term).or_insert(node.id);
            assert_eq!(leader, node.id, "one leader in term {}", status.term);
        }
        assert!(status.applied_index <= status.committed_index && status.committed_index <= status.last_index);
        // Beyond the budget: what each region may accept although it is full, and what this poll hands to the engine.
        let slack = self.memory_slack;
        let memory = store.memory();
        assert!(memory.log_bytes <= memory.log_bytes_max + slack, "logs take {memory:?} on store {}", node.id);
        let (committed, term) = self.progress.get(&node.id).copied().unwrap_or_default();
        assert!(status.committed_index >= committed && status.term >= term, "neither commit nor term go back");
        self.progress.insert(node.id, (status.committed_index, status.term));

        let stream = &node.disk.streams[&kontiki_engine::StreamId(REGION.0)];
        let flushed = meta::applied_index(families::META, &node.disk.tables, REGION).expect("readable").unwrap_or(0);
        let covered = node.disk.files.keys().map(|file| file.snapshot.index).max().unwrap_or(0);
        let covered = covered.max(node.lost_through);
        assert!(stream.truncated_through <= flushed.max(covered), "the log holds what tables and files do not");
        self.check_committed(
            stream.truncated_through,
            &stream.entries,
            status.committed_index,
            node.persists.is_empty(),
        );

        let visible = meta::applied_index(families::META, &node.visible, REGION).expect("readable").unwrap_or(0);
        let installing = node.jobs.iter().any(|(_, job)| matches!(job, super::node::Job::Install { .. }));
        if now >= node.paused_until && !installing && node.inbox.is_empty() {
            assert_eq!(visible, status.applied_index, "the store and its data agree on what is applied");
            let state = hash(&node.visible);
            if visible == 0 {
                return; // Its first snapshot is not installed yet.
            }
            let before = *self.states.entry(visible).or_insert(state);
            assert_eq!(before, state, "the state at index {visible} differs between replicas or over time");
        }
        let _ = STEP;
    }

    fn check_committed(&mut self, truncated: u64, entries: &[Bytes], committed: u64, quiet: bool) {
        // With persists in flight the disk may still hold what is being overwritten.
        if !quiet {
            return;
        }
        for (entry, index) in entries.iter().zip(truncated + 1..).take_while(|(_, index)| *index <= committed) {
            let known = self.committed.entry(index).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "the committed entry {index} is equal on all replicas and never changes");
        }
    }

    /// An acknowledged index is durable on a majority: in its log, its tables or its snapshot file.
    fn check_acknowledged(&self, nodes: &BTreeMap<StoreId, Node>) {
        let holds = |node: &&Node| {
            let stream = node.disk.streams.get(&kontiki_engine::StreamId(REGION.0));
            stream.is_some_and(|stream| stream.truncated_through + stream.entries.len() as u64 >= self.acknowledged)
        };
        if self.members_change {
            return; // Which majority counts depends on the moment.
        }
        let count = nodes.values().filter(holds).count();
        assert!(count > nodes.len() / 2, "index {} is acknowledged but durable on {count} only", self.acknowledged);
    }
}
