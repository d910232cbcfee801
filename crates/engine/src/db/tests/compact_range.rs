//! Compaction of a part of a family.

use super::*;
use crate::Error;
use kontiki_env::Env;
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::tasks::Threads;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn range(start: &'static str, end: &'static str) -> Range {
    Range { start: Some(Bytes::from_static(start.as_bytes())), end: Some(Bytes::from_static(end.as_bytes())) }
}

fn fill(db: &Db, round: usize) {
    for i in 0..200 {
        let key = format!("{:03}", (i * 37) % 200);
        db.write(put(&key, &format!("value {i} of round {round}")), Durability::Buffered).expect("written");
    }
}

/// The tables of the default family that may hold the key, over all levels.
fn tables_over(db: &Db, key: &str) -> usize {
    let version = db.core().shared().context.versions.current();
    let levels = version.family(Family::DEFAULT).expect("always there");
    levels.tables().filter(|table| table.meta().spans(key.as_bytes())).count()
}

#[test]
fn a_range_is_in_one_table_each_afterwards_without_its_deleted_keys() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    (0..3).for_each(|round| fill(&db, round));
    let mut batch = WriteBatch::new();
    (50..60).for_each(|i| batch.delete(Family::DEFAULT, format!("{i:03}").as_bytes()));
    db.write(batch, Durability::Sync).expect("written");
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    let snapshot = db.snapshot();
    db.compact_range(Family::DEFAULT, range("040", "070")).expect("written");
    for i in 40..70 {
        assert!(tables_over(&db, &format!("{i:03}")) <= 1, "key {i:03}");
    }
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), expected);
    assert_eq!(dump(&snapshot, Family::DEFAULT), expected);
    // While it is held, deletions that came after it are kept for conditions that name its number.
    drop(snapshot);
    db.compact_range(Family::DEFAULT, Range::all()).expect("written");
    let levels = db.stats().families[0].levels.clone();
    assert_eq!(levels.iter().map(|level| level.entries).sum::<u64>(), 190, "no version that is not needed: {levels:?}");
    db.compact_range(OTHER, Range::all()).expect("an empty family");
    drop(db);
    machine.fs.crash(CrashMode::LoseUnsynced);
    assert_eq!(dump(&open(&restarted(&machine, 2)).snapshot(), Family::DEFAULT), expected);
}

#[test]
fn what_cannot_be_compacted_is_refused_and_a_full_disk_is_waited_out() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    fill(&db, 0);
    assert!(matches!(db.compact_range(Family(77), Range::all()), Err(Error::InvalidArgument(_))));
    db.flush().expect("written");
    machine.fs.set_quota(Some(machine.fs.used_bytes()));
    assert!(matches!(db.compact_range(Family::DEFAULT, Range::all()), Err(Error::NoSpace { .. })));
    machine.fs.set_quota(None);
    db.compact_range(Family::DEFAULT, Range::all()).expect("there is space again");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 200);
    fill(&db, 1);
    machine.fs.fail_next(Op::Sync, 1, |path| path.to_string_lossy().contains(".sst"));
    assert!(matches!(db.compact_range(Family::DEFAULT, Range::all()), Err(Error::Io { .. } | Error::Stopped(_))));
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 200, "reads go on");
    db.close().expect("closes");
}

#[test]
fn it_runs_beside_writers_other_compactions_and_a_close() {
    let machine = SimMachine::from_seed(4);
    let env = Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new(DIR), small_options()).expect("opens");
    let closed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (db, closed) = (db.clone(), &closed);
            scope.spawn(move || {
                for round in 0.. {
                    let start = Bytes::from(format!("{:03}", (round * 31) % 200));
                    let outcome = match thread {
                        0 => db.compact_range(Family::DEFAULT, Range { start: Some(start), end: None }),
                        _ => db.write(put(&format!("{:03}", round % 200), "newer"), Durability::Buffered).map(drop),
                    };
                    match outcome {
                        Ok(()) => {}
                        Err(Error::Closed) => return assert!(closed.load(Ordering::SeqCst)),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        (0..5).for_each(|round| fill(&db, round));
        closed.store(true, Ordering::SeqCst);
        db.clone().close().expect("closes");
    });
    drop(db);
    assert_eq!(dump(&open(&restarted(&machine, 5)).snapshot(), Family::DEFAULT).len(), 200);
}

/// A family with few writes next to a busy one gets a table by each flush: they become few by themselves, and one by a
/// compaction.
#[test]
fn a_family_beside_a_busy_one_has_few_tables() {
    let machine = new_machine(9);
    let mut options = small_options();
    options.compaction.table_bytes = 256 << 10;
    options.compaction.level1_bytes = 1 << 20;
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    let tables = |family: Family| {
        let stats = db.stats();
        stats.family(family).expect("it is there").levels.iter().map(|level| level.tables).sum::<u64>()
    };
    for round in 0..2000u32 {
        let mut batch = WriteBatch::new();
        // Each key above all before, so that tables overlap nothing.
        batch.put(OTHER, round.to_be_bytes(), b"small");
        (0..8u32).for_each(|at| batch.put(Family::DEFAULT, (at * 100 + round % 100).to_be_bytes(), [round as u8; 100]));
        db.write(batch, Durability::Buffered).expect("write");
        machine.tasks.run_until_idle(10_000);
    }
    db.flush().expect("flush");
    machine.tasks.run_until_idle(10_000);
    assert!(db.stats().memtables.flushes > 300, "{}", db.stats().memtables.flushes);
    let read = db.stats().compaction.read_bytes;
    assert!(tables(OTHER) < 40, "{} tables, {read} bytes read", tables(OTHER));
    db.compact().expect("compact");
    assert_eq!((tables(OTHER), dump(&db.snapshot(), OTHER).len()), (1, 2000));
    // Once more changes nothing.
    let written = db.stats().compaction.written_bytes;
    db.compact().expect("compact");
    assert_eq!((tables(OTHER), db.stats().compaction.written_bytes), (1, written));
}

/// Where blocks shrink, a table ends before its file is as large as tables may be: two that look small come out as two
/// again.
#[test]
fn a_compaction_ends_although_its_tables_stay_small() {
    let machine = new_machine(10);
    let mut options = Options { families: vec![keeping_values(Family::DEFAULT, "default")], ..Options::default() };
    options.compaction.table_bytes = 1 << 10;
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    for initial in ["a", "b", "c", "d"] {
        let mut batch = WriteBatch::new();
        for number in 0..40u32 {
            batch.put(Family::DEFAULT, format!("{initial}{number:03}").as_bytes(), format!("{number:061}").as_bytes());
        }
        db.write(batch, Durability::Sync).expect("writes");
        db.flush().expect("flushes");
    }
    db.compact().expect("compacts");
    let stats = db.stats();
    let tables =
        stats.family(Family::DEFAULT).expect("it is there").levels.iter().map(|level| level.tables).sum::<u64>();
    // Each byte is written once on its way down, and at most once more.
    assert!(tables > 4 && stats.compaction.written_bytes < 4 * stats.compaction.read_bytes, "{tables} tables");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 160);
}
