//! Recovery from logs that are read in one pass.

use super::super::*;
use super::*;
use crate::command::{Action, Command, encode};
use crate::consensus::log::entry_bytes;
use crate::consensus::{Entry, entry_to_wire};
use crate::model::MapView;
use crate::model::families::{DEFAULT, FAMILIES, META};
use crate::region::{Epoch, Peer as Replica, Space};
use crate::snapshot::SnapshotId;
use kontiki_engine::{StreamHead, StreamVisitor, WriteBatch};
use kontiki_env::rng::Rng;
use std::cell::Cell;
use std::ops::Range;

const STORE: StoreId = StoreId(1);
const EPOCH: Epoch = Epoch { conf_version: 1, version: 1 };

fn region(id: u64) -> Region {
    Region {
        id: RegionId(id),
        start_key: Bytes::from(vec![id as u8]),
        end_key: Bytes::from(vec![id as u8 + 1]),
        epoch: EPOCH,
        peers: (1..=3).map(|store| Replica { id: PeerId(id * 1000 + store), store: StoreId(store) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn entry(index: u64, action: Action) -> Entry {
    let (_, context, data) = encode(&FAMILIES, Command { epoch: EPOCH, action });
    Entry { index, term: 3, context, data, ..Entry::default() }
}

fn write(index: u64) -> Entry {
    let mut batch = WriteBatch::new();
    batch.put(DEFAULT, [1], vec![b'v'; 100 + index as usize]);
    entry(index, Action::Write(batch))
}

/// A directory with some regions, whose logs come as a disk may have them.
#[derive(Default)]
struct Disk {
    meta: MapView,
    heads: BTreeMap<StreamId, StreamHead>,
    /// In the order in which they come.
    entries: Vec<(StreamId, u64, Bytes)>,
    entries_read: Cell<usize>,
}

impl Disk {
    /// A replica with these entries behind `truncated`, applied through an index.
    fn add(&mut self, region: &Region, state: GroupState, applied: Option<u64>, entries: &[Entry]) {
        let id = StreamId(region.id.0);
        let mut batch = WriteBatch::new();
        if let Some(index) = applied {
            meta::put_region(META, &mut batch, region);
            meta::put_applied(META, &mut batch, region.id, Position { index, term: 3 });
        }
        self.meta.write(&batch);
        let (truncated_through, state) = (state.truncated_index, meta::encode_group_state(&state));
        let last_index = truncated_through + entries.len() as u64;
        self.heads.insert(id, StreamHead { truncated_through, state, last_index });
        self.entries.extend(entries.iter().map(|entry| (id, entry.index, entry_to_wire(entry).encode_to_vec().into())));
    }

    /// Puts the entries of all logs into a random order.
    fn shuffle(&mut self, rng: &mut Rng) {
        for i in (1..self.entries.len()).rev() {
            self.entries.swap(i, rng.below(i as u64 + 1) as usize);
        }
    }

    fn recover(&self) -> Result<Store, RecoverError> {
        let mut store = Store::new(Config::default(), &FAMILIES, Rng::new(1));
        store.recover_from(&self.meta, self)?;
        Ok(store)
    }
}

impl Logs for Disk {
    fn heads(&self) -> Vec<(StreamId, StreamHead)> {
        self.heads.iter().map(|(id, head)| (*id, head.clone())).collect()
    }

    fn scan(&self, visit: &mut StreamVisitor<'_>) -> kontiki_engine::Result<()> {
        for (id, index, bytes) in &self.entries {
            if visit(*id, *index, bytes).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, id: StreamId, range: Range<u64>) -> kontiki_engine::Result<Vec<Bytes>> {
        self.entries_read.set(self.entries_read.get() + 1);
        let mut found: Vec<_> = self.entries.iter().filter(|(of, at, _)| *of == id && range.contains(at)).collect();
        found.sort_by_key(|(_, index, _)| *index);
        found.dedup_by_key(|(_, index, _)| *index);
        Ok(found.into_iter().map(|(_, _, bytes)| bytes.clone()).collect())
    }
}

fn disk() -> Disk {
    let identity = StoreIdentity { cluster: 9, store: STORE };
    let mut disk = Disk::default();
    disk.meta.write(&Store::bootstrap(&FAMILIES, &identity, &[]).batch);
    disk
}

fn state(truncated: u64, commit: u64) -> GroupState {
    GroupState { term: 3, commit, truncated_index: truncated, truncated_term: 3, ..GroupState::default() }
}

/// Bytes of a log in memory beyond what every entry counts there.
fn payload_bytes(store: &Store, id: u64) -> usize {
    let group = store.peers[&RegionId(id)].group();
    group.memory_bytes() - 64 * (group.last_index() - group.truncated().index) as usize
}

fn payload_of(entries: impl Iterator<Item = Entry>) -> usize {
    entries.map(|entry| entry_bytes(&entry) - 64).sum()
}

#[test]
fn of_logs_that_are_interleaved_in_any_order_only_what_is_not_applied_is_kept() {
    let mut disk = disk();
    let mut rng = Rng::new(7);
    // Regions whose logs begin at different indices and are applied to different extents: nothing, some, all.
    let shape = |id: u64| (1 + id % 5, 1 + id % 5 + 3 * (id % 4), 1 + id % 5 + 9);
    for id in 1..=40 {
        let (truncated, applied, last) = shape(id);
        let entries: Vec<Entry> = (truncated + 1..=last).map(write).collect();
        disk.add(&region(id), state(truncated, last), Some(applied), &entries);
    }
    // Some of them were rewritten while they were read.
    let again: Vec<_> = disk.entries.iter().step_by(7).cloned().collect();
    disk.entries.extend(again);
    disk.shuffle(&mut rng);
    let store = disk.recover().expect("whole");
    for id in 1..=40 {
        let (truncated, applied, last) = shape(id);
        let group = store.peers[&RegionId(id)].group();
        assert_eq!((group.truncated().index, group.last_index(), group.term_at(last)), (truncated, last, Some(3)));
        assert_eq!(payload_bytes(&store, id), payload_of((applied + 1..=last).map(write)), "region {id}");
        let all = (truncated + 1..=last).map(|index| entry_bytes(&write(index))).sum::<usize>();
        assert_eq!(group.log_bytes(), all, "the sizes of evicted entries are known");
    }
    assert_eq!(disk.entries_read.get(), 0, "one pass was enough");
}

#[test]
fn the_log_that_a_merge_may_have_to_send_is_kept_although_it_is_applied() {
    let prepare = |replicated_index| entry(12, Action::PrepareMerge { target: region(2), replicated_index });
    for (replicated, kept_above) in [(6, 6), (2, 4), (11, 10)] {
        let mut disk = disk();
        let entries: Vec<Entry> = (5..=11).map(write).chain([prepare(replicated)]).collect();
        disk.add(&region(1), state(4, 12), Some(10), &entries);
        disk.add(&region(2), state(1, 1), Some(1), &[]);
        disk.shuffle(&mut Rng::new(1));
        let store = disk.recover().expect("whole");
        let expected = payload_of(entries.into_iter().filter(|entry| entry.index > kept_above));
        assert_eq!(payload_bytes(&store, 1), expected, "replicated {replicated}");
        assert_eq!(disk.entries_read.get(), usize::from(kept_above < 10), "read only if it is needed");
    }
}

#[test]
fn a_log_that_begins_with_a_snapshot_is_kept_behind_it() {
    // The snapshot's data is not installed: tables have the state at 7, and the log begins at 20.
    let id = SnapshotId { region: RegionId(1), index: 20, term: 3 };
    let file = SnapshotFile { id, number: 4, region: region(1), bytes: 9, checksum: 8 };
    let mut disk = disk();
    let begins = GroupState { snapshot: Some(file.to_state()), ..state(20, 22) };
    let entries: Vec<Entry> = (21..=25).map(write).collect();
    disk.add(&region(1), begins.clone(), Some(7), &entries);
    // The same for a replica whose descriptor is only in the file.
    let other = SnapshotFile { id: SnapshotId { region: RegionId(2), ..id }, region: region(2), ..file.clone() };
    let begins = GroupState { snapshot: Some(other.to_state()), ..begins };
    disk.add(&region(2), begins, None, &entries);
    disk.shuffle(&mut Rng::new(2));
    let store = disk.recover().expect("whole");
    assert_eq!(store.needed_files(), [file.name(), other.name()]);
    for id in [1, 2] {
        assert_eq!(payload_bytes(&store, id), payload_of(entries.iter().cloned()));
    }
}

#[test]
fn what_a_merge_has_left_of_a_log_ends_without_its_entries() {
    let mut disk = disk();
    let absorber = Region { epoch: Epoch { version: 5, ..EPOCH }, ..region(1) };
    disk.add(&absorber, state(1, 1), Some(1), &[]);
    let by = AbsorberRecord { region: 1, version: 5 };
    let source = GroupState { absorbed_by: Some(by), peer: 2001, ..state(4, 9) };
    disk.add(&region(2), source, None, &(5..=9).map(write).collect::<Vec<_>>());
    disk.shuffle(&mut Rng::new(3));
    let mut store = disk.recover().expect("whole");
    assert_eq!(store.peers.keys().collect::<Vec<_>>(), [&RegionId(1)]);
    let streams = store.poll(Duration::ZERO).persist.expect("its end is recorded").commit.streams;
    assert!(streams.contains(&kontiki_engine::StreamOp::Remove { stream: StreamId(2) }), "{streams:?}");
}

#[test]
fn an_entry_that_does_not_come_is_named() {
    let mut disk = disk();
    for id in 1..=3 {
        disk.add(&region(id), state(4, 9), Some(8), &(5..=9).map(write).collect::<Vec<_>>());
    }
    assert!(disk.recover().is_ok());
    // Of what is applied as well as of what is not.
    for index in [6, 9] {
        let mut damaged = Disk { entries: disk.entries.clone(), heads: disk.heads.clone(), ..disk };
        damaged.entries.retain(|(id, at, _)| (*id, *at) != (StreamId(2), index));
        let error = damaged.recover().err().expect("refused").to_string();
        assert!(error.contains(&format!("region 2: entry {index} is missing")), "{error}");
        disk = damaged;
        disk.entries.push((StreamId(2), index, entry_to_wire(&write(index)).encode_to_vec().into()));
    }
    disk.entries[3].2 = Bytes::from_static(b"\xff");
    let error = disk.recover().err().expect("refused").to_string();
    assert!(error.contains("region 1: entry 8: it cannot be decoded"), "{error}");
}
