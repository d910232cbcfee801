//! What the database says of writers that are stopped at a bound.

use super::*;
use crate::Error;
use crate::types::CompactionOptions;

fn submit(db: &Db, turn: u64) {
    let mut batch = WriteBatch::new();
    // Few keys, so that all tables may hold the same ones.
    batch.put(OTHER, (turn % 3).to_be_bytes(), [7; 900]);
    let commit = Commit { batch, streams: vec![], durability: Durability::Derived, unchanged: vec![] };
    db.submit(commit, Box::new(|_| ()));
}

fn stalled(db: &Db) -> Option<String> {
    db.stats().health.stalled
}

/// Submits until there is no capacity; no job takes a step meanwhile.
fn fill_memory(db: &Db) {
    (0..1000)
        .take_while(|turn| {
            submit(db, *turn);
            stalled(db).is_none()
        })
        .for_each(drop);
}

#[test]
fn a_full_memory_is_named() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    assert_eq!(stalled(&db), None);
    fill_memory(&db);
    let what = stalled(&db).expect("memory is full");
    assert!(what.contains("the flush of a memtable") && what.contains("memtables_max is 4"), "{what}");
    assert!(db.stats().to_prometheus().contains("kontiki_health_stalled{reason=\"the flush of a memtable"));
    machine.tasks.run_until_idle(10_000);
    assert_eq!(stalled(&db), None);
}

#[test]
fn a_full_level_0_is_named_with_its_family() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    // Flushes, and no compaction.
    for turn in 0..10_000 {
        submit(&db, turn);
        while db.core().background.flush_step(&db.core().write) {}
        if stalled(&db).is_some() {
            break;
        }
    }
    let what = stalled(&db).expect("level 0 is full");
    assert!(what.contains("level 0 of family 7 (other)") && what.contains("level0_tables_max is 24"), "{what}");
    machine.tasks.run_until_idle(10_000);
    assert_eq!(stalled(&db), None);
}

#[test]
fn an_ingest_that_holds_commits_off_is_named() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    db.core().write.memtables.set_held(true);
    assert!(stalled(&db).expect("held").contains("an ingest"));
    db.core().write.memtables.set_held(false);
    assert_eq!(stalled(&db), None);
}

#[test]
fn a_family_whose_level_0_would_stop_writers_for_ever_is_not_created() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine);
    let mut spec = FamilySpec::new(Family(9), "late");
    spec.options.compaction = Some(CompactionOptions { level0_tables: 100, ..CompactionOptions::default() });
    let error = db.create_family(spec.clone()).expect_err("writers would wait for ever");
    assert!(
        matches!(&error, Error::InvalidArgument(what) if what.contains("level0_tables_max, which is 24")),
        "{error}"
    );
    assert_eq!(db.families().len(), 2, "nothing has changed");
    let mut options = small_options();
    options.families.push(spec);
    db.close().expect("closed");
    let refused = Db::open_in(&machine.env(), Path::new(DIR), options);
    assert!(matches!(refused.map(drop), Err(Error::InvalidArgument(_))));
}
