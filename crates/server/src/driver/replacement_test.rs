use super::*;
use kontiki_raftstore::{Epoch, PeerId, PeerRole, RegionId, Space};

const STORES: [StoreId; 4] = [StoreId(1), StoreId(2), StoreId(3), StoreId(4)];

fn region(peers: &[(u64, u64)]) -> Region {
    Region {
        id: RegionId(2),
        start_key: Default::default(),
        end_key: Default::default(),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: peers.iter().map(|(id, store)| Peer { id: PeerId(*id), store: StoreId(*store) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

#[test]
fn a_lost_replica_is_removed_and_then_another_is_added() {
    let homes = [1, 2, 3].map(StoreId);
    let mut now = region(&[(2001, 1), (2002, 2), (2003, 3)]);
    assert_eq!(next_change(&now, &homes, &STORES, |_| None), None, "nothing was lost");
    let replaced = |store| (store == StoreId(2)).then_some(77);
    let new = Peer {
        id: next_replica_id(77, &now.changed(&MemberChange::Remove(PeerId(2002))).expect("there")),
        store: StoreId(2),
    };
    for expected in [MemberChange::Remove(PeerId(2002)), MemberChange::Add(new)] {
        assert_eq!(next_change(&now, &homes, &STORES, replaced), Some(expected.clone()));
        now = now.changed(&expected).expect("it can be made");
    }
    assert_eq!(next_change(&now, &homes, &STORES, replaced), None, "all is done");
    // Lost again: the same changes.
    let again = |store| (store == StoreId(2)).then_some(78);
    assert_eq!(next_change(&now, &homes, &STORES, again), Some(MemberChange::Remove(new.id)));
}

#[test]
fn a_store_that_the_region_never_lived_on_gets_no_replica() {
    let now = region(&[(2001, 1), (2002, 2), (2003, 3)]);
    assert_eq!(next_change(&now, &[1, 2, 3].map(StoreId), &STORES, |store| (store == StoreId(4)).then_some(77)), None);
    let moved = region(&[(2001, 1), (2003, 3), (2004, 4)]);
    let replaced = |store| (store == StoreId(2)).then_some(77);
    assert_eq!(
        next_change(&moved, &[1, 2, 3].map(StoreId), &STORES, replaced),
        None,
        "its replica has moved away before"
    );
}

#[test]
fn a_replica_that_had_moved_is_replaced_where_it_moved_to() {
    let homes = [1, 2, 3].map(StoreId);
    let mut now = region(&[(2001, 1), (2002, 2), (2004, 4)]);
    let replaced = |store| (store == StoreId(4)).then_some(77);
    let removal = MemberChange::Remove(PeerId(2004));
    assert_eq!(next_change(&now, &homes, &STORES, replaced), Some(removal.clone()));
    now = now.changed(&removal).expect("it can be made");
    let new = Peer { id: next_replica_id(77, &now), store: StoreId(4) };
    assert_eq!(next_change(&now, &homes, &STORES, replaced), Some(MemberChange::Add(new)));
}

#[test]
fn a_learner_replaces_no_voter() {
    let mut now = region(&[(2001, 1), (2002, 2), (2004, 4)]);
    now.roles.insert(PeerId(2004), PeerRole::Learner);
    let replaced = |store| (store == StoreId(3)).then_some(77);
    let change = next_change(&now, &[1, 2, 3].map(StoreId), &STORES, replaced);
    assert!(matches!(change, Some(MemberChange::Add(Peer { store: StoreId(3), .. }))), "{change:?}");
}

#[test]
fn a_second_voter_is_a_learner_first() {
    let homes = [1, 2, 3].map(StoreId);
    let mut now = region(&[(2001, 1)]);
    let replaced = |store: StoreId| (store != StoreId(1)).then_some(70 + store.0);
    let mut changes = Vec::new();
    while let Some(change) = next_change(&now, &homes, &STORES, replaced) {
        now = now.changed(&change).expect("it can be made");
        changes.push(change);
    }
    assert!(
        matches!(changes[..], [MemberChange::AddLearner(two), MemberChange::Promote(id), MemberChange::Add(three)]
            if two.id == id && (two.store, three.store) == (StoreId(2), StoreId(3))),
        "{changes:?}"
    );
}
