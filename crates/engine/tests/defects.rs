//! Defects of the predecessor (docs/internals/testing.md has them all), by the numbers of its list: those that concern
//! the whole database, through its public API.

use kontiki_engine::Compression;
use kontiki_engine::{
    Commit, Db, Direction, Durability, Error, Family, FamilySpec, Options, Range, ReadOptions, StreamId, StreamOp,
    WriteBatch,
};
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs};
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DIR: &str = "/db";
const OTHER: Family = Family(1);

fn options() -> Options {
    let mut options = Options {
        families: vec![FamilySpec::new(OTHER, "other")],
        memtable_bytes: 4 << 10,
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        ..Options::default()
    };
    options.compaction.table_bytes = 1 << 10;
    options.compaction.level1_bytes = 4 << 10;
    options.compaction.level0_tables = 2;
    options.table.compression = Compression::None;
    options
}

fn open(machine: &SimMachine) -> Db {
    Db::open_in(&machine.env(), Path::new(DIR), options()).expect("a healthy disk")
}

/// What a process that starts after `mode` finds.
fn reopened(machine: &SimMachine, db: Db, mode: CrashMode) -> (SimMachine, Db) {
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(mode);
    let machine = machine.restarted(Rng::new(1));
    let db = open(&machine);
    (machine, db)
}

fn entries(db: &Db, family: Family, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut scan = db.scan(family, Range::all(), direction, ReadOptions::default()).expect("a known family");
    let mut found = Vec::new();
    while let Some((key, value)) = scan.next().transpose().expect("a healthy disk") {
        found.push((key.to_vec(), value.to_vec()));
    }
    found
}

/// A concatenation of tables moved backward in an ascending scan, and compaction used it: keys of all tables but the
/// first were lost.
#[test]
fn defect_1_scans_and_compactions_pass_through_all_tables_of_a_level_in_order() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let mut expected = BTreeMap::new();
    let mut rng = Rng::new(1);
    for round in 0..3u32 {
        for _ in 0..400 {
            let key = format!("{:05}", rng.below(1000)).into_bytes();
            let value = [&round.to_be_bytes()[..], &[7; 60]].concat();
            let mut batch = WriteBatch::new();
            batch.put(OTHER, &key, &value);
            db.write(batch, Durability::Buffered).expect("a healthy disk");
            expected.insert(key, value);
        }
        db.compact().expect("a healthy disk");
        let stats = db.stats();
        let tables = stats.families.iter().map(|family| family.levels.iter().skip(1).map(|level| level.tables).max());
        assert!(tables.flatten().max() > Some(10), "many tables in one level");
        let mut rows: Vec<_> = expected.clone().into_iter().collect();
        assert_eq!(entries(&db, OTHER, Direction::Forward), rows, "round {round}");
        rows.reverse();
        assert_eq!(entries(&db, OTHER, Direction::Backward), rows, "round {round}");
    }
}

/// The log was buffered in the process, and a batch was a record for each entry: kill -9 lost acknowledged writes and
/// tore batches.
#[test]
fn defect_4_a_killed_process_loses_no_acknowledged_batch_and_tears_none() {
    // Killed between any two operations of the disk, and in the middle of each that changes it.
    for ops in 0..400 {
        let machine = SimMachine::from_seed(ops);
        let mut db = open(&machine);
        machine.fs.power_off_after(ops);
        let mut acknowledged = 0u64;
        for number in 1.. {
            let mut batch = WriteBatch::new();
            for part in 0..5 {
                let family = if part < 2 { Family::DEFAULT } else { OTHER };
                batch.put(family, format!("part {part}").as_bytes(), format!("{number} {}", "x".repeat(90)).as_bytes());
            }
            match db.write(batch, Durability::Buffered) {
                Ok(_) => acknowledged = number,
                Err(_) => break,
            }
            machine.tasks.run_until_idle(1000);
        }
        assert!(machine.fs.is_off());
        (_, db) = reopened(&machine, db, CrashMode::Kill);
        let number_of = |part: usize| {
            let family = if part < 2 { Family::DEFAULT } else { OTHER };
            let value = db.get_in(family, format!("part {part}").as_bytes()).expect("a healthy disk");
            value.map_or(0, |value| {
                let text = String::from_utf8_lossy(&value).into_owned();
                text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number was written")
            })
        };
        let numbers: Vec<u64> = (0..5).map(number_of).collect();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "operation {ops}: a torn batch: {numbers:?}");
        assert!(numbers[0] >= acknowledged, "operation {ops}: {} of {acknowledged} are there", numbers[0]);
    }
}

fn log_files(machine: &SimMachine) -> Vec<String> {
    machine.fs.list(&Path::new(DIR).join("wal")).expect("it exists")
}

/// Numbers of log segments came from two counters, and a switch to one could truncate a segment that held live data.
#[test]
fn defect_6_no_new_log_segment_takes_the_place_of_one_that_is_needed() {
    let machine = SimMachine::from_seed(6);
    let mut db = open(&machine);
    let stream = StreamId(1);
    let (mut seen, mut gone) = (BTreeSet::new(), BTreeSet::new());
    let mut machine = machine;
    for number in 1..=300u64 {
        // A stream that is never truncated needs every segment; memtables are flushed and segments rotate at different
        // their own.
        let entry = format!("entry {number}").into_bytes().into();
        let append = StreamOp::Append { stream, first_index: number, entries: vec![entry] };
        let mut batch = WriteBatch::new();
        batch.put(OTHER, format!("{}", number % 50).as_bytes(), [number as u8; 100]);
        let commit = Commit { streams: vec![append], ..Commit::new(batch, Durability::Sync) };
        db.commit(commit).expect("a healthy disk");
        match number % 7 {
            0 => db.flush().expect("a healthy disk"),
            1..4 => drop(machine.tasks.run_until_idle(1000)),
            _ => {}
        }
        let there: BTreeSet<String> = log_files(&machine).into_iter().filter(|name| name.ends_with(".wal")).collect();
        gone.extend(seen.difference(&there).cloned());
        let again = there.intersection(&gone).next();
        assert!(again.is_none(), "a number is used again: {again:?}");
        seen.extend(there);
        if number % 60 == 0 {
            (machine, db) = reopened(&machine, db, CrashMode::LoseUnsynced);
            let contents = db.stream(stream).expect("a healthy disk");
            assert_eq!(contents.truncated_through + contents.entries.len() as u64, number);
            assert_eq!(contents.entries.len() as u64, number, "it was not truncated");
            assert!(
                contents.entries.iter().zip(1..).all(|(entry, index)| *entry == format!("entry {index}").as_bytes())
            );
            for last in number.saturating_sub(49).max(1)..=number {
                let found = db.get_in(OTHER, format!("{}", last % 50).as_bytes()).expect("a healthy disk");
                assert_eq!(found.as_deref(), Some(&[last as u8; 100][..]));
            }
        }
    }
    assert!(seen.len() > 10, "the log hardly rotated: {seen:?}");
}

/// A failed flush was not tried again, and the next that succeeded moved the log's position past the memtable that was
/// lost.
#[test]
fn defect_7_a_failed_flush_is_tried_again_before_any_later_one_counts() {
    let mut failed = 0;
    for free_bytes in (0..6000).step_by(250) {
        let machine = SimMachine::from_seed(free_bytes);
        let db = open(&machine);
        let put = |key: u64, value: u64| {
            let mut batch = WriteBatch::new();
            batch.put(OTHER, format!("{key:03}").as_bytes(), format!("{value} {}", "v".repeat(200)).as_bytes());
            db.write(batch, Durability::Sync)
        };
        let mut expected = BTreeMap::new();
        // Memtables fill up while there is no space to flush them.
        machine.fs.set_quota(Some(machine.fs.used_bytes() + free_bytes));
        for number in 0..120 {
            match put(number % 40, number) {
                Ok(_) => _ = expected.insert(number % 40, number),
                Err(error) => assert!(matches!(error, Error::NoSpace { .. }), "{error}"),
            }
        }
        if let Err(error) = db.flush() {
            assert!(matches!(error, Error::NoSpace { .. }), "{error}");
            failed += 1;
        }
        machine.fs.set_quota(None);
        db.flush().expect("there is space again");
        for number in 200..230 {
            put(number, number).expect("there is space again");
            expected.insert(number, number);
        }
        db.flush().expect("a healthy disk");
        machine.tasks.run_until_idle(10_000);
        let (_, db) = reopened(&machine, db, CrashMode::LoseUnsynced);
        let snapshot = db.snapshot();
        for (key, number) in &expected {
            let found = snapshot.get_in(OTHER, format!("{key:03}").as_bytes()).expect("a healthy disk");
            let found = found.map(|value| String::from_utf8_lossy(&value).into_owned());
            assert!(found.is_some_and(|text| text.starts_with(&format!("{number} "))), "{free_bytes}: key {key}");
        }
    }
    assert!(failed > 5, "only {failed} flushes found no space");
}

/// Compaction never dropped tombstones, values that had ended, and old versions.
#[test]
fn defect_11_a_compaction_drops_all_that_is_dead() {
    let machine = SimMachine::from_seed(11);
    let db = open(&machine);
    let key = |number: u64| format!("{number:03}").into_bytes();
    for round in 0..3 {
        for number in 0..100 {
            let mut batch = WriteBatch::new();
            match (round, number) {
                (2, 0..30) => batch.delete(OTHER, key(number)),
                (2, 30..50) => batch.put_expiring(OTHER, key(number), b"over", 1),
                (2, 50..60) if number == 50 => batch.delete_range(OTHER, &key(50)..&key(60)),
                (2, 50..60) => continue,
                _ => batch.put(OTHER, key(number), [round; 50]),
            }
            db.write(batch, Durability::Buffered).expect("a healthy disk");
        }
        db.flush().expect("a healthy disk");
    }
    db.compact().expect("a healthy disk");
    let stats = db.stats();
    let kept: u64 = stats.families.iter().flat_map(|family| &family.levels).map(|level| level.entries).sum();
    assert_eq!(kept, 40, "one version of each key that is there");
    assert_eq!(entries(&db, OTHER, Direction::Forward).len(), 40);
}
