//! What a recovery would do on a directory, and its one write.

use super::*;
use crate::config::NodeConfig;
use crate::driver::first_regions;
use crate::families::served_families;
use kontiki_engine::{Commit, Options};
use kontiki_env::SimMachine;
use kontiki_env::clock::VirtualTime;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use kontiki_raftstore::{Store, StoreIdentity};
use std::path::Path;

const NOW_MS: u64 = 1_800_000_000_000;

fn of_seed(seed: u64) -> SimMachine {
    SimMachine::new(&Rng::new(seed), VirtualTime::default())
}

fn open(machine: &SimMachine) -> Db {
    let options = Options { families: served_families(), ..Options::default() };
    Db::open_in(&machine.env(), Path::new("/data"), options).expect("opens")
}

/// The directory of store 1 of a cluster of three, as at its beginning.
fn directory(machine: &SimMachine) -> Db {
    let mut config = NodeConfig::single("/data", "node:1");
    config.members = [1, 2, 3].map(|id| (id, format!("node:{id}"))).into();
    config.replicas = 3;
    let db = open(machine);
    let identity = StoreIdentity { cluster: config.cluster_id, store: StoreId(1) };
    let mut first: Commit = Store::bootstrap(&families::FAMILIES, &identity, &first_regions(&config));
    first.batch.append(&kontiki_placement::bootstrap(&[], &[]));
    for store in [2, 3] {
        put_incarnation(&mut first.batch, &other_key(StoreId(store)), &Incarnation::first(10 + store));
    }
    db.commit(first).expect("bootstrapped");
    db
}

/// In the engine, so not on this disk.
fn logs(db: &Db) -> StoppedLogs<'_> {
    StoppedLogs::open(&of_seed(0).env(), Path::new("/data"), db, families::LOG_PLACE).expect("readable")
}

fn of(db: &Db, lost: &[u64]) -> Result<LostStores, RefusedPlan> {
    plan(db, &logs(db), &lost.iter().copied().collect(), &BTreeMap::new(), None, NOW_MS)
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let machine = of_seed(1);
    assert!(matches!(of(&open(&machine), &[2, 3]), Err(RefusedPlan::NotServed)));
    let embedded = Db::open_in(&machine.env(), Path::new("/embedded"), Options::default()).expect("opens");
    assert!(matches!(of(&embedded, &[2, 3]), Err(RefusedPlan::NotServed)));
    assert!(RefusedPlan::NotServed.to_string().contains("name the directory of a node"));
    let db = directory(&machine);
    assert!(matches!(of(&db, &[]), Err(RefusedPlan::NoStore)));
    assert!(matches!(of(&db, &[1, 2]), Err(RefusedPlan::Own(StoreId(1)))));
    let Err(RefusedPlan::Unknown { unknown: StoreId(9), known }) = of(&db, &[2, 9]) else { panic!("9 is no member") };
    assert_eq!(known, [2, 3]);
    assert!(matches!(of(&db, &[2]), Err(RefusedPlan::NotNeeded)), "two of three are a majority");
}

#[test]
fn a_plan_changes_nothing_and_its_record_is_found_by_the_next_one() {
    let machine = of_seed(1);
    let db = directory(&machine);
    for _ in 0..2 {
        let found = of(&db, &[2, 3]).expect("it can be done");
        assert!(!found.is_recorded && found.number() == 1);
        assert_eq!(found.regions.len(), 3);
        for region in &found.regions {
            assert!(region.loses_quorum && region.stores_after == [StoreId(1)]);
            assert_eq!((region.applied, region.log.index, region.log.committed), (1, 1, 1));
        }
        assert!(found.timestamp_min_ms() == NOW_MS && found.id_min() >= kontiki_placement::FIRST_ID + ID_MARGIN);
    }
    of(&db, &[2, 3]).expect("it can be done").record(&db).expect("recorded");
    let again = of(&db, &[2, 3]).expect("there is nothing to do");
    assert!(again.is_recorded && again.number() == 1 && again.lost() == [2, 3]);
    again.record(&db).expect("nothing is done");
    let record = RecoveryRecord::load(&db.snapshot()).expect("readable");
    assert_eq!((record.number, record.lost), (1, vec![2, 3]));
    let known = known_members(&db.snapshot()).expect("readable");
    assert!(known.values().all(Incarnation::is_lost) && known.len() == 2);
}

/// Another set than the recorded one would be ignored, or leave the directories with different records.
#[test]
fn other_stores_than_the_recorded_ones_are_refused() {
    let machine = of_seed(5);
    let db = directory(&machine);
    of(&db, &[2, 3]).expect("it can be done").record(&db).expect("recorded");
    for number in [None, Some(1), Some(4)] {
        let refused = plan(&db, &logs(&db), &[3].into(), &BTreeMap::new(), number, NOW_MS);
        let Err(refused @ RefusedPlan::OtherStores { number: 1, .. }) = refused else { panic!("{refused:?}") };
        let text = refused.to_string();
        assert!(text.contains("[2, 3]") && text.contains("[2]"), "{text}");
    }
    assert_eq!(of(&db, &[2, 3]).expect("the same").recorded_before().map(|before| before.number), Some(1));
}

#[test]
fn a_directory_gets_the_number_that_another_one_has() {
    let machine = of_seed(4);
    let db = directory(&machine);
    of(&db, &[2, 3]).expect("it can be done").record(&db).expect("recorded");
    let with =
        |number| plan(&db, &logs(&db), &[2, 3].into(), &BTreeMap::new(), Some(number), NOW_MS).expect("it can be done");
    assert!(with(1).is_recorded);
    let again = with(4);
    assert!(!again.is_recorded && again.number() == 4 && again.lost() == [2, 3]);
    again.record(&db).expect("recorded");
    assert!(with(4).is_recorded && of(&db, &[2, 3]).expect("done").number() == 4);
}

#[test]
fn after_a_crash_it_is_done_or_not_begun() {
    for done in [false, true] {
        let machine = of_seed(2);
        let db = directory(&machine);
        let found = of(&db, &[2, 3]).expect("it can be done");
        if done {
            found.record(&db).expect("recorded");
        }
        machine.fs.crash(CrashMode::LoseUnsynced);
        drop(db);
        assert_eq!(of(&open(&machine), &[2, 3]).expect("still").is_recorded, done);
    }
}

#[test]
fn a_later_recovery_counts_on_and_keeps_the_stores_that_nothing_has_replaced() {
    let machine = of_seed(3);
    let db = directory(&machine);
    of(&db, &[2, 3]).expect("it can be done").record(&db).expect("recorded");
    // Another directory has taken the place of store 3's, and is lost, too.
    let mut batch = WriteBatch::new();
    let other = Incarnation { id: 77, generation: 4, mark: 5, replacement: 1 << 20 };
    put_incarnation(&mut batch, &other_key(StoreId(3)), &other);
    db.commit(synced(batch)).expect("recorded");
    let second = of(&db, &[3]).expect("it can be done");
    assert!(!second.is_recorded && second.number() == 2 && second.lost() == [2, 3]);
    second.record(&db).expect("recorded");
    let known = known_members(&db.snapshot()).expect("readable");
    assert!(known[&StoreId(3)].is_lost() && known[&StoreId(3)].replacement > other.replacement);
}

/// The replica of a region here is a learner, and both voters are lost.
#[test]
fn a_region_of_which_only_learners_are_left_needs_one_that_is_named() {
    let machine = of_seed(6);
    let db = directory(&machine);
    let mut region = meta::regions(families::META, &db.snapshot()).expect("readable").remove(2);
    region.roles.insert(region.peer_on(StoreId(1)).expect("it is here").id, PeerRole::Learner);
    let mut changed: Commit = Store::bootstrap(
        &families::FAMILIES,
        &StoreIdentity { cluster: NodeConfig::single("/data", "node:1").cluster_id, store: StoreId(1) },
        std::slice::from_ref(&region),
    );
    changed.streams.clear();
    db.commit(changed).expect("written");
    let unnamed = of(&db, &[2, 3]).expect("the others are recovered");
    let found = |plan: &LostStores, id| plan.regions.iter().find(|found| found.before.id == id).cloned().expect("here");
    let learns = found(&unnamed, region.id);
    assert!(!learns.loses_quorum && learns.only_learners == [StoreId(1)]);
    let naming = |learners: &[(u64, u64)]| {
        plan(&db, &logs(&db), &[2, 3].into(), &learners.iter().copied().collect(), None, NOW_MS)
    };
    for (learner, what) in [((region.id.0, 3), "is lost"), ((region.id.0, 9), "no replica"), ((1, 1), "a voter")] {
        let Err(refused @ RefusedPlan::Learner { .. }) = naming(&[learner]) else { panic!("{learner:?}") };
        assert!(refused.to_string().contains(what), "{refused}");
    }
    unnamed.record(&db).expect("recorded");
    // To name it later is a further recovery, also where its lost stores are recorded.
    let named = naming(&[(region.id.0, 1)]).expect("it can be done");
    assert!(!named.is_recorded && named.number() == 2 && named.lost() == [2, 3]);
    let goes_on = found(&named, region.id);
    assert!(goes_on.loses_quorum && goes_on.stores_after == [StoreId(1)] && goes_on.only_learners.is_empty());
    named.record(&db).expect("recorded");
    let again = naming(&[(region.id.0, 1)]).expect("it is done");
    assert!(again.is_recorded && again.learners().eq([(region.id.0, 1)]));
    assert!(of(&db, &[2, 3]).expect("it is done").is_recorded, "what is recorded need not be named again");
}
