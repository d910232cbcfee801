//! What is freed in a database without writes.

use super::*;
use kontiki_env::fs::{CrashMode, OpenMode};
use std::time::Duration;

const LOOK_MS: u64 = 1000;

fn options() -> Options {
    let mut options =
        Options { memtable_bytes: 256 << 10, log_segment_bytes: 2 << 20, log_bytes_max: 8 << 20, ..small_options() };
    options.compaction.idle_look_ms = LOOK_MS;
    options.compaction.table_bytes = 64 << 10;
    options
}

fn opened(machine: &SimMachine, options: Options) -> Db {
    Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens")
}

/// Lets time pass without writes: the idle job checks at its interval.
fn idle(machine: &SimMachine, db: &Db, looks: u64) {
    let time = machine.clock.time();
    for _ in 0..looks {
        time.advance_to(time.now() + Duration::from_millis(LOOK_MS));
        db.core().shared().jobs.wake_compact();
        machine.tasks.run_until_idle(10_000);
    }
}

fn fill(db: &Db, put: impl Fn(&mut WriteBatch, &[u8])) {
    for at in 0..500u32 {
        let mut batch = WriteBatch::new();
        put(&mut batch, format!("{at:04}").as_bytes());
        db.write(batch, Durability::Sync).expect("write");
    }
}

fn entries(db: &Db) -> u64 {
    db.stats().families.iter().flat_map(|family| &family.levels).map(|level| level.entries).sum()
}

/// Values that have expired, in level 0 and in memory; what was deleted; what is old: nothing of it waits for a write.
#[test]
fn what_is_dead_goes_from_memory_and_level_0_though_nobody_writes() {
    let dead_at = |machine: &SimMachine| machine.env().clock.wall_ms() + 2 * LOOK_MS;
    for flushed in [false, true] {
        let machine = new_machine(1);
        let db = opened(&machine, options());
        let end_ms = dead_at(&machine);
        fill(&db, |batch, key| batch.put_expiring(Family::DEFAULT, key, [7; 100], end_ms));
        if flushed {
            db.flush().expect("flush");
            assert_eq!(entries(&db), 500);
        }
        idle(&machine, &db, 6);
        assert_eq!((entries(&db), db.stats().memtables.flushes), (0, 1), "expired, flushed: {flushed}");

        let machine = new_machine(2);
        let db = opened(&machine, options());
        fill(&db, |batch, key| batch.put(Family::DEFAULT, key, [7; 100]));
        db.flush().expect("flush");
        fill(&db, |batch, key| batch.delete(Family::DEFAULT, key));
        if flushed {
            db.flush().expect("flush");
        }
        idle(&machine, &db, 6);
        assert_eq!((entries(&db), db.stats().memtables.flushes), (0, 2), "deleted, flushed: {flushed}");
    }
}

#[test]
fn what_is_old_is_looked_at_again_in_level_0_too() {
    let machine = new_machine(3);
    let mut options = options();
    options.compaction.periodic_compaction_seconds = 3;
    let db = opened(&machine, options);
    fill(&db, |batch, key| batch.put(Family::DEFAULT, key, [7; 100]));
    db.flush().expect("flush");
    idle(&machine, &db, 2);
    assert_eq!(db.stats().families[0].levels[0].entries, 500);
    idle(&machine, &db, 3);
    assert_eq!(db.stats().families[0].levels[0].entries, 0, "it is old");
    assert_eq!(entries(&db), 500);
}

/// A little that is dead in memory is not worth a table, and what lives stays there.
#[test]
fn memory_is_left_alone_while_little_of_it_is_dead() {
    let machine = new_machine(4);
    let db = opened(&machine, options());
    let mut batch = WriteBatch::new();
    batch.delete(Family::DEFAULT, b"one");
    db.write(batch, Durability::Sync).expect("write");
    idle(&machine, &db, 4);
    fill(&db, |batch, key| batch.put(OTHER, key, b"lives"));
    assert_eq!(db.stats().memtables.flushes, 0);
    let machine = new_machine(5);
    let living = opened(&machine, options());
    fill(&living, |batch, key| batch.put(OTHER, key, [7; 100]));
    idle(&machine, &living, 4);
    assert_eq!(living.stats().memtables.flushes, 0);
}

fn log_bytes(machine: &SimMachine) -> u64 {
    let directory = Path::new(DIR).join("wal");
    let fs = machine.env().fs;
    let names = fs.list(&directory).expect("a healthy disk");
    names
        .iter()
        .map(|name| fs.open(&directory.join(name), OpenMode::Read).expect("there").len().expect("a length"))
        .sum()
}

/// After a purge the log's files go, too: those that wait to be used again, the one made ahead, and the large one in
/// use.
#[test]
fn the_log_of_an_idle_database_of_nothing_is_small() {
    let machine = new_machine(6);
    let mut options = options();
    options.log_segment_bytes = 8 << 20;
    options.log_bytes_max = 32 << 20;
    let db = opened(&machine, options);
    for round in 0..30u8 {
        let mut batch = WriteBatch::new();
        for key in 0..16u8 {
            batch.put(Family::DEFAULT, [key, round], [round; 100_000]);
        }
        db.write(batch, Durability::Sync).expect("write");
        machine.tasks.run_until_idle(10_000);
    }
    let mut purge = WriteBatch::new();
    purge.delete_range(Family::DEFAULT, ..[255]);
    db.write(purge, Durability::Sync).expect("write");
    db.flush().expect("flush");
    machine.tasks.run_until_idle(10_000);
    let before = log_bytes(&machine);
    assert!(before >= 16 << 20, "{before}");
    idle(&machine, &db, 4);
    assert!(log_bytes(&machine) <= 1 << 20, "{} of {before} bytes", log_bytes(&machine));
    // It works as before, and over a restart.
    let sequence = db.write(put("a", "1"), Durability::Sync).expect("write");
    drop(db);
    let machine = restarted(&machine, 7);
    let db = opened(&machine, small_options());
    assert_eq!(db.get(b"a").expect("readable").as_deref(), Some(&b"1"[..]));
    assert!(db.write(put("b", "2"), Durability::Sync).expect("write") > sequence);
}

/// Power loss at every operation of what an idle database does loses nothing.
#[test]
fn power_loss_while_the_log_is_given_back_loses_nothing() {
    for at in 1.. {
        let machine = new_machine(at);
        let mut options = options();
        options.log_segment_bytes = 2 << 20;
        let db = opened(&machine, options.clone());
        let mut batch = WriteBatch::new();
        (0..12u8).for_each(|key| batch.put(Family::DEFAULT, [key], [key; 100_000]));
        db.write(batch, Durability::Sync).expect("write");
        db.flush().expect("flush");
        machine.tasks.run_until_idle(10_000);
        machine.fs.power_off_after(at);
        idle(&machine, &db, 3);
        let after = db.write(put("after", "x"), Durability::Sync);
        let crashed = machine.fs.is_off();
        drop(db);
        machine.fs.crash(CrashMode::LoseUnsynced);
        let machine = restarted(&machine, at);
        let db = opened(&machine, options);
        (0..12u8).for_each(|key| assert!(db.get([key]).expect("readable").is_some(), "operation {at}"));
        if after.is_ok() {
            assert!(db.get(b"after").expect("readable").is_some(), "operation {at}");
        }
        if !crashed {
            assert!(at > 5, "{at} operations");
            break;
        }
    }
}
