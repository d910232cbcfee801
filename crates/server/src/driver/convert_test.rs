//! Directories of earlier versions, and of users with their own families.

use super::super::{Driver, NodeHandle, RegionContext, first_regions};
use super::*;
use crate::config::NodeConfig;
use crate::families;
use futures::FutureExt;
use kontiki_engine::{BatchOp, Commit, FamilySpec, Options, View};
use kontiki_env::SimMachine;
use kontiki_env::clock::Clock;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Tasks;
use kontiki_placement::Now;
use kontiki_raftstore::{RegionId, Store, StoreId, StoreIdentity};
use std::path::Path;
use std::time::Duration;

fn config() -> NodeConfig {
    NodeConfig::single("/data", "node:1")
}

fn db(machine: &SimMachine, families: &[(u32, &str)]) -> Db {
    let families = families.iter().map(|(number, name)| FamilySpec::new(Family(*number), *name)).collect();
    Db::open_in(&machine.env(), Path::new("/data"), Options { families, ..Options::default() }).unwrap()
}

/// The data families that there were.
fn earlier_data() -> impl Iterator<Item = Family> {
    families::DATA_FAMILIES.into_iter().filter(|family| !families::LATER.contains(family))
}

/// A directory as it was written before: bootstrapped, with a raw key and an entry of each transactional family.
fn write_earlier(machine: &SimMachine) {
    let numbered: Vec<_> = EARLIER.iter().zip(EARLIER_NAMES).map(|((family, _), name)| (family.0, name)).collect();
    let db = db(machine, &numbered);
    let config = config();
    let identity = StoreIdentity { cluster: config.cluster_id, store: StoreId(config.store_id) };
    let mut today = Store::bootstrap(&families::FAMILIES, &identity, &first_regions(&config));
    let stores = [kontiki_placement::Store { id: 1, address: "node:1".into(), ..Default::default() }];
    today.batch.append(&kontiki_placement::bootstrap(&stores, &[]));
    for family in earlier_data() {
        today.batch.put(family, b"key", format!("{family:?}").as_bytes());
    }
    let mut batch = WriteBatch::new();
    for op in today.batch.ops() {
        let BatchOp::Put { family, key, value } = op else { panic!("a bootstrap only puts") };
        let earlier = EARLIER.iter().find(|(_, now)| *now == family).map_or(family, |(earlier, _)| *earlier);
        batch.put(earlier, key, value);
    }
    db.commit(Commit { batch, ..today }).unwrap();
    db.close().unwrap();
}

/// Lets the node elect itself and returns its handle.
fn lead(machine: &SimMachine, driver: &mut Driver) -> (NodeHandle, RegionContext) {
    let handle = driver.handle();
    let (region, _) = handle.region(RegionId(2)).unwrap();
    let context = RegionContext::new(region.id, region.epoch);
    for _ in 0..1_000 {
        let time = machine.clock.time().clone();
        time.advance_to(time.now() + Duration::from_millis(10));
        driver.step(Now { monotonic: machine.clock.monotonic(), wall_ms: machine.clock.wall_ms() });
        while machine.tasks.step() {}
        if handle.view(&context).now_or_never().is_some_and(|view| view.is_ok()) {
            return (handle, context);
        }
    }
    panic!("it does not lead");
}

fn check_converted(machine: &SimMachine) {
    let mut driver = Driver::open(&machine.env(), config(), 7).unwrap();
    let (handle, context) = lead(machine, &mut driver);
    let view = handle.view(&context).now_or_never().unwrap().unwrap();
    for family in earlier_data() {
        assert_eq!(view.get(family, b"key").unwrap().unwrap(), format!("{family:?}"));
    }
    let names: Vec<String> = handle.db().expect("built in").families().into_iter().map(|spec| spec.name).collect();
    assert_eq!(names.len(), 6 + families::LATER.len(), "{names:?}");
    assert!(names[1..].iter().all(|name| name.starts_with(Family::RESERVED_PREFIX)), "{names:?}");
    assert!(handle.state().snapshot().get(META, MOVED_KEY).unwrap().is_none(), "it is over");
    driver.close().unwrap();
}

#[test]
fn a_directory_of_before_is_converted_and_opens_again() {
    let machine = SimMachine::from_seed(1);
    write_earlier(&machine);
    check_converted(&machine);
    check_converted(&machine);
}

#[test]
fn a_conversion_that_is_cut_off_anywhere_is_done_by_the_next_open() {
    let machine = SimMachine::from_seed(2);
    write_earlier(&machine);
    for ops in 1.. {
        let fork = SimMachine { fs: machine.fs.fork(Rng::new(ops)), ..machine.restarted(Rng::new(ops)) };
        fork.fs.power_off_after(ops);
        let opened = Driver::open(&fork.env(), config(), 7);
        let whole = opened.is_ok() && !fork.fs.is_off();
        drop(opened);
        fork.fs.power_off();
        fork.fs.crash(CrashMode::LoseUnsynced);
        check_converted(&fork.restarted(Rng::new(ops + 1)));
        if whole {
            assert!(ops > 10, "a conversion has some operations");
            return;
        }
    }
}

/// The user's families have any numbers and names but the reserved ones, those that the store had before among them.
#[test]
fn a_directory_with_families_of_its_user_is_served_and_still_its_users() {
    let own: &[(u32, &str)] = &[(1, "txn_default"), (2, "mine"), (4, "meta"), (900, "more")];
    let machine = SimMachine::from_seed(3);
    let embedded = db(&machine, own);
    embedded.put(b"raw", b"of the user").unwrap();
    for (number, name) in own {
        let mut batch = WriteBatch::new();
        batch.put(Family(*number), b"key", name.as_bytes());
        batch.put(Family(*number), IDENTITY_KEY, b"no identity");
        embedded.write(batch, Durability::Sync).unwrap();
    }
    embedded.close().unwrap();

    for _ in 0..2 {
        let mut driver = Driver::open(&machine.env(), config(), 7).unwrap();
        let (handle, context) = lead(&machine, &mut driver);
        let view = handle.view(&context).now_or_never().unwrap().unwrap();
        assert_eq!(view.get(Family::DEFAULT, b"raw").unwrap().unwrap(), "of the user");
        driver.close().unwrap();

        let embedded = db(&machine, own);
        for (number, name) in own {
            assert_eq!(embedded.snapshot().get_in(Family(*number), b"key").unwrap().unwrap(), *name);
        }
        assert_eq!(embedded.get(b"raw").unwrap().unwrap(), "of the user");
        embedded.close().unwrap();
    }
}
