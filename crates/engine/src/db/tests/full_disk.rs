//! Callers that wait for space while the disk is full: they get the error, or wait without keeping the machine busy.

use super::*;
use crate::Error;
use parking_lot::Mutex;
use std::sync::Arc;

type Answers = Arc<Mutex<Vec<crate::Result<u64>>>>;

fn submit(db: &Db, answers: &Answers, batch: WriteBatch, durability: Durability) {
    let answers = answers.clone();
    let commit = Commit { batch, streams: vec![], durability, unchanged: vec![] };
    db.submit(commit, Box::new(move |result| answers.lock().push(result)));
}

/// A value that no table makes smaller than `bytes`.
fn value(rng: &mut Rng, bytes: usize) -> String {
    (0..bytes).map(|_| char::from(b'!' + rng.below(90) as u8)).collect()
}

/// A database whose level 0 is full, with no compaction tried yet, and no space on the disk for one.
fn full_level0(machine: &SimMachine) -> Db {
    let mut options = small_options();
    options.compaction.level0_tables = 3;
    options.level0_tables_max = 4;
    options.log_segment_bytes = 64 << 10;
    options.log_bytes_max = 1 << 20;
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    machine.tasks.run_until_idle(100);
    let mut rng = Rng::new(1);
    for _ in 0..4 {
        let batch = put("key", &value(&mut rng, 3000));
        db.write(batch, Durability::Sync).expect("written");
        db.core().write.memtables.freeze_active();
        // The job itself, so that the compaction that it wakes does not run in between.
        db.core().background.flush_step(&db.core().write);
    }
    assert_eq!(db.stats().families[0].levels[0].tables, 4);
    machine.fs.set_quota(Some(machine.fs.used_bytes()));
    db
}

#[test]
fn writers_that_wait_for_a_compaction_get_its_no_space_error() {
    let machine = SimMachine::from_seed(1);
    let db = full_level0(&machine);
    // The writer finds level 0 full while the compaction is under way: it has not failed yet.
    let answers = Answers::default();
    submit(&db, &answers, put("key", "v"), Durability::Sync);
    db.core().write.commit_step();
    assert!(answers.lock().is_empty() && db.stats().stalls.waits > 0, "it waits for the compaction");
    machine.tasks.run_until_idle(1000);
    let answered = std::mem::take(&mut *answers.lock());
    assert!(matches!(answered[..], [Err(Error::NoSpace { .. })]), "{answered:?}");
    machine.fs.set_quota(None);
    assert!(db.compact().is_ok());
    db.put(b"key", b"v").expect("there is space again");
}

#[test]
fn derived_commits_wait_for_space_without_keeping_the_jobs_busy() {
    let machine = SimMachine::from_seed(2);
    let db = full_level0(&machine);
    let answers = Answers::default();
    submit(&db, &answers, put("derived", "1"), Durability::Derived);
    machine.tasks.run_until_idle(1000);
    submit(&db, &answers, put("derived", "2"), Durability::Derived);
    machine.tasks.run_until_idle(1000);
    assert!(answers.lock().is_empty(), "derived commits are never refused for lack of space");
    machine.fs.set_quota(None);
    submit(&db, &answers, put("derived", "3"), Durability::Derived);
    machine.tasks.run_until_idle(1000);
    assert!(matches!(answers.lock()[..], [Ok(_), Ok(_), Ok(_)]), "the next write tries again: {answers:?}");
    assert_eq!(db.get(b"derived").expect("get").as_deref(), Some(&b"3"[..]));
}

#[test]
fn a_full_compaction_that_fails_half_way_shows_what_it_has_done() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    let mut rng = Rng::new(2);
    for _ in 0..2 {
        let mut batch = put("key", "small");
        batch.put(OTHER, b"key", value(&mut rng, 3000).as_bytes());
        batch.put(OTHER, format!("{}", rng.below(1000)).as_bytes(), value(&mut rng, 3000).as_bytes());
        db.write(batch, Durability::Sync).expect("written");
        db.flush().expect("flush");
    }
    machine.tasks.run_until_idle(1000);
    // Enough for the default family's compaction, and not for the other's.
    machine.fs.set_quota(Some(machine.fs.used_bytes() + 2000));
    let error = db.compact().expect_err("no space for the second family");
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    let (state, _) = db.core().write.memtables.read_point();
    assert!(
        Arc::ptr_eq(&state.version, &db.core().shared().context.versions.current()),
        "readers use the newest version"
    );
}

#[test]
fn obsolete_tables_go_while_compaction_has_more_to_do() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine);
    machine.tasks.run_until_idle(100);
    let mut rng = Rng::new(3);
    for i in 0..5 {
        db.write(put(&format!("{i}"), &value(&mut rng, 3000)), Durability::Sync).expect("written");
        db.write(put("9", &value(&mut rng, 3000)), Durability::Sync).expect("written");
        db.core().write.memtables.freeze_active();
        while db.core().background.flush_step(&db.core().write) {}
    }
    assert!(db.core().background.compact_step(&db.core().write), "there was work, and there may be more");
    assert_eq!(db.core().shared().context.versions.obsolete_count(), 0, "a busy database gives space back too");
}

/// A log that is larger than a memtable, on a disk without space for the tables of it: what a process that found the
/// disk full and was killed leaves.
#[test]
fn a_log_larger_than_a_memtable_is_opened_on_a_full_disk_and_deleting_works() {
    let machine = SimMachine::from_seed(5);
    let options =
        || Options { log_segment_bytes: 16 << 10, log_bytes_max: 8 << 20, memtables_max: 4, ..small_options() };
    open_with(options);
    let generous = || Options { memtable_bytes: 1 << 20, ..options() };
    let db = Db::open_in(&machine.env(), Path::new(DIR), generous()).expect("opens");
    let mut rng = Rng::new(4);
    let rows: Vec<(String, String)> = (0..100).map(|i| (format!("{i:03}"), value(&mut rng, 1000))).collect();
    for (key, value) in &rows {
        db.write(put(key, value), Durability::Sync).expect("written");
    }
    machine.fs.crash(kontiki_env::fs::CrashMode::Kill);
    drop(db);
    let machine = restarted(&machine, 6);
    // What the process itself frees as it opens, and a little.
    machine.fs.set_quota(Some(machine.fs.used_bytes()));
    let db = open(&machine);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows);
    for (key, _) in &rows[..50] {
        db.delete(key.as_bytes()).expect("deleting works");
    }
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows[50..]);
    machine.tasks.run_until_idle(10_000);
    assert_eq!(db.stats().health.stopped, None);
    machine.fs.crash(kontiki_env::fs::CrashMode::LoseUnsynced);
    drop(db);
    let machine = restarted(&machine, 7);
    let db = open(&machine);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows[50..], "and once more");
    machine.fs.set_quota(None);
    db.flush().expect("there is space again");
    db.compact().expect("there is space again");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows[50..]);
}
