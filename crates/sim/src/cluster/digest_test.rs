use super::Digests;
use kontiki_engine::{Commit, Db, Durability, Family, Options, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, Space, Store, StoreId, StoreIdentity};
use kontiki_server::families;
use std::path::Path;

const REGION: RegionId = RegionId(2);

fn replica(store: u64) -> Db {
    let families = kontiki_server::families::served_families();
    let env = SimMachine::from_seed(store).env();
    let db = Db::open_in(&env, Path::new("/db"), Options { families, ..Options::default() }).unwrap();
    let region = Region {
        id: REGION,
        start_key: "".into(),
        end_key: "".into(),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: [1, 2].map(|store| Peer { id: PeerId(2_000 + store), store: StoreId(store) }).to_vec(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    };
    db.commit(Store::bootstrap(&families::FAMILIES, &StoreIdentity { cluster: 7, store: StoreId(store) }, &[region]))
        .unwrap();
    db
}

/// Applies puts up to `index`, as the driver does: the observer first.
fn apply(digests: &Digests, node: u64, db: &Db, puts: &[(&str, &str)], index: u64) {
    let mut batch = WriteBatch::new();
    for (key, value) in puts {
        batch.put(Family::DEFAULT, key.as_bytes(), value.as_bytes());
    }
    // The position's bytes as documented in `raftstore::meta`.
    let key = [&[3][..], &REGION.0.to_be_bytes()].concat();
    let value = [&[1][..], &index.to_le_bytes(), &1u64.to_le_bytes()].concat();
    batch.put(families::META, &key, &value);
    digests.applying(node, &db.snapshot(), &batch);
    db.commit(Commit { batch, streams: vec![], durability: Durability::Derived, unchanged: vec![] }).unwrap();
}

#[test]
fn equal_replicas_agree_however_entries_are_batched() {
    let (digests, one, two) = (Digests::default(), replica(1), replica(2));
    apply(&digests, 1, &one, &[("a", "1")], 2);
    apply(&digests, 1, &one, &[("b", "1"), ("a", "2")], 4);
    apply(&digests, 2, &two, &[("a", "1"), ("b", "1"), ("a", "2")], 4);
    assert_eq!(digests.difference(), None);
    // After a restart the state is scanned, and compared with the recorded one.
    digests.stopped(1);
    apply(&digests, 1, &one, &[("c", "1")], 5);
    apply(&digests, 2, &two, &[("c", "1")], 5);
    assert_eq!(digests.difference(), None);
}

#[test]
fn a_lost_or_a_foreign_entry_is_a_difference_where_it_happens() {
    let (digests, one, two) = (Digests::default(), replica(1), replica(2));
    apply(&digests, 1, &one, &[("a", "1")], 2);
    apply(&digests, 2, &two, &[("a", "other")], 2);
    let difference = digests.difference().expect("they differ");
    assert!(difference.contains("with 2 applied"), "{difference}");

    // One that was lost without the observer is found when the state is scanned.
    let (digests, one, two) = (Digests::default(), replica(1), replica(2));
    apply(&digests, 1, &one, &[("a", "1")], 2);
    apply(&digests, 2, &two, &[("a", "1")], 2);
    two.delete(b"a").unwrap();
    digests.stopped(2);
    apply(&digests, 2, &two, &[("b", "1")], 3);
    assert!(digests.difference().is_some());
}

#[test]
fn an_entry_that_is_applied_again_is_noticed() {
    let (digests, one) = (Digests::default(), replica(1));
    apply(&digests, 1, &one, &[("a", "1")], 2);
    apply(&digests, 1, &one, &[("a", "1")], 2);
    assert!(digests.difference().expect("noticed").contains("applies 2 after 2"));
}
