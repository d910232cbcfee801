//! Ten thousand regions with one budget.

use super::super::*;
use crate::effect::EntriesTask;
use crate::model::MapView;
use crate::model::families::{DEFAULT, FAMILIES};
use crate::region::{Epoch, Peer as Replica, PeerId, Space};
use kontiki_engine::{StreamContents, StreamId, StreamOp, WriteBatch};
use std::collections::BTreeMap;

const REGIONS: u64 = 10_000;
const EPOCH: Epoch = Epoch { conf_version: 1, version: 1 };
const VALUE_BYTES: usize = 1 << 10;

fn region(id: u64) -> Region {
    let key = |id: u64| Bytes::copy_from_slice(&id.to_be_bytes());
    Region {
        id: RegionId(id),
        start_key: key(id),
        end_key: key(id + 1),
        epoch: EPOCH,
        peers: vec![Replica { id: PeerId(id), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

/// The streams of a disk, without the other families.
#[derive(Default)]
struct Disk(BTreeMap<StreamId, StreamContents>);

impl Disk {
    fn commit(&mut self, streams: Vec<StreamOp>) {
        for op in streams {
            let contents = self.0.entry(op.stream()).or_default();
            match op {
                StreamOp::Truncate { through_index, .. } => {
                    contents
                        .entries
                        .drain(..((through_index - contents.truncated_through) as usize).min(contents.entries.len()));
                    contents.truncated_through = through_index;
                }
                StreamOp::State { state, .. } => contents.state = state,
                StreamOp::Append { entries, .. } => contents.entries.extend(entries),
                StreamOp::Remove { .. } => contents.entries.clear(),
            }
        }
    }
}

fn drain(store: &mut Store, disk: &mut Disk, view: &mut MapView) -> Vec<EntriesTask> {
    let mut tasks = Vec::new();
    loop {
        let effects = store.poll(Duration::ZERO);
        if effects.is_empty() {
            return tasks;
        }
        if let Some(persist) = effects.persist {
            disk.commit(persist.commit.streams);
            store.handle(Event::Persisted { batch: persist.id }, Duration::ZERO);
        }
        if let Some(apply) = effects.apply {
            view.write(&apply.batch);
            store.handle(Event::Applied { through: apply.id }, Duration::ZERO);
        }
        tasks.extend(effects.entries);
    }
}

fn propose(store: &mut Store, id: u64, ticket: u64) {
    let mut batch = WriteBatch::new();
    batch.put(DEFAULT, id.to_be_bytes(), vec![b'v'; VALUE_BYTES]);
    store.handle(Event::Propose { region: RegionId(id), epoch: EPOCH, batch, ticket: Ticket(ticket) }, Duration::ZERO);
}

#[test]
fn ten_thousand_regions_stay_within_one_budget_although_nothing_is_flushed() {
    let regions: Vec<Region> = (1..=REGIONS).map(region).collect();
    let (mut disk, mut view) = (Disk::default(), MapView::default());
    let identity = StoreIdentity { cluster: 9, store: StoreId(1) };
    let first = Store::bootstrap(&FAMILIES, &identity, &regions);
    view.write(&first.batch);
    disk.commit(first.streams);
    let config = Config { memory_bytes_max: 16 << 20, unapplied_bytes_max: 8 << 20, ..Config::default() };
    let bytes_max = config.memory_bytes_max;
    let mut store = Store::new(config.clone(), &FAMILIES, Rng::new(1));
    store.recover(&view, disk.0.clone().into_iter().collect()).expect("whole");
    drain(&mut store, &mut disk, &mut view);
    let (mut ticket, mut refused) = (0, 0);
    for round in 0..4 {
        for id in 1..=REGIONS {
            ticket += 1;
            propose(&mut store, id, ticket);
            if ticket % 100 == 0 {
                assert!(
                    drain(&mut store, &mut disk, &mut view).is_empty(),
                    "nothing is read for followers that are not there"
                );
                let memory = store.memory();
                assert!(memory.log_bytes <= bytes_max, "round {round}: {memory:?}");
                refused = memory.refused;
            }
        }
    }
    let memory = store.memory();
    assert_eq!(refused, 0, "{memory:?}");
    let written = 4 * REGIONS as usize * VALUE_BYTES;
    assert!(memory.stored_bytes > written && written > 2 * bytes_max, "{memory:?}");
    // After a start nothing that is applied comes into memory.
    let mut restarted = Store::new(config, &FAMILIES, Rng::new(2));
    restarted.recover_from(&view, &disk.0).expect("whole");
    restarted.handle(Event::Tick, Duration::ZERO);
    drain(&mut restarted, &mut Disk(disk.0.clone()), &mut view);
    let memory = restarted.memory();
    assert!(memory.stored_bytes > written && memory.log_bytes < written / 8, "{memory:?}");
}
