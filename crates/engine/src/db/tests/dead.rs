//! Dead versions: scans skip them, and compactions drop them.

use super::*;
use crate::db::Snapshot;
use crate::types::TableOptions;
use crate::{IngestOptions, IngestWriter, ReadOptions, Scan, SequenceNumber};
use std::time::Duration;

/// Each dead version that a scan meets is remembered.
fn options() -> Options {
    Options { dead_range_versions_min: 1, ..small_options() }
}

fn key(number: u64) -> Vec<u8> {
    format!("queue/{number:08}").into_bytes()
}

fn first(db: &Db, direction: Direction) -> Option<Vec<u8>> {
    let mut scan = db.scan(Family::DEFAULT, Range::prefix(b"queue/"), direction, ReadOptions::default()).expect("scan");
    scan.advance().expect("readable").then(|| scan.key().to_vec())
}

fn write(db: &Db, change: impl FnOnce(&mut WriteBatch)) -> SequenceNumber {
    let mut batch = WriteBatch::new();
    change(&mut batch);
    db.write(batch, Durability::Buffered).expect("write")
}

/// The first entry is looked at, deleted, and another one comes at the end: what a scan passes over does not grow with
/// what was popped, in memory, over flushes, and from either end.
#[test]
fn a_queue_passes_over_a_bounded_number_of_dead_versions_however_much_was_popped() {
    for direction in [Direction::Forward, Direction::Backward] {
        let machine = new_machine(1);
        let options = Options { memtable_bytes: 64 << 10, log_bytes_max: 1 << 20, ..small_options() };
        let options = Options { log_segment_bytes: 64 << 10, dead_range_versions_min: 32, ..options };
        let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
        let number = |at: u64| if direction == Direction::Forward { at } else { 1_000_000 - at };
        (0..100).for_each(|at| _ = write(&db, |batch| batch.put(Family::DEFAULT, key(number(at)), b"job")));
        let mut passed = Vec::new();
        for at in 0..6000 {
            let found = first(&db, direction).expect("100 are there");
            assert_eq!(found, key(number(at)));
            write(&db, |batch| batch.delete(Family::DEFAULT, &found));
            write(&db, |batch| batch.put(Family::DEFAULT, key(number(at + 100)), b"job"));
            if at % 1000 == 999 {
                passed.push(db.stats().reads.dead_versions_passed);
            }
        }
        assert!(db.stats().memtables.flushes > 2, "{}", db.stats().memtables.flushes);
        let steps: Vec<u64> = passed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Half of 32, and a little for each.
        assert!(steps.iter().all(|steps| *steps < 1000 * 40), "{direction:?}: {steps:?}");
        assert!(db.stats().reads.dead_ranges <= 2, "what is learnt bit by bit becomes one");
    }
}

/// The rows of a range, with and without what is known to be dead.
fn rows(scan: &mut Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    while scan.advance().expect("readable") {
        let (key, value) = scan.entry().expect("readable");
        rows.push((key.to_vec(), value.to_vec()));
    }
    rows
}

fn check(snapshot: &Snapshot, rng: &mut Rng) {
    let family = if rng.chance(2, 3) { Family::DEFAULT } else { OTHER };
    let mut bounds = [small_key(rng), small_key(rng)];
    bounds.sort();
    let [start, end] = bounds.map(Bytes::from);
    let range = Range { start: rng.chance(1, 2).then_some(start), end: rng.chance(1, 2).then_some(end) };
    for direction in [Direction::Forward, Direction::Backward] {
        let scan = |snapshot: &Snapshot| {
            snapshot.scan(family, range.clone(), direction, ReadOptions::default()).expect("scan")
        };
        let (mut with, mut without) = (scan(snapshot), scan(&snapshot.without_dead_ranges()));
        assert_eq!(rows(&mut with), rows(&mut without), "{direction:?} {range:?} at {}", snapshot.sequence());
        for _ in 0..3 {
            let target = small_key(rng);
            [&mut with, &mut without].into_iter().for_each(|scan| scan.seek(&target).expect("seeks"));
            assert_eq!(rows(&mut with), rows(&mut without), "{direction:?} {range:?} from {target:?}");
        }
    }
}

fn pass_time(machine: &SimMachine, ms: u64) {
    let time = machine.clock.time();
    time.advance_to(time.now() + Duration::from_millis(ms));
}

fn small_key(rng: &mut Rng) -> Vec<u8> {
    // Many gaps between those that are written, and one that is empty.
    let number = rng.below(60);
    if number == 0 { Vec::new() } else { format!("{:03}", number * 3).into_bytes() }
}

fn change(db: &Db, now_ms: u64, rng: &mut Rng) -> SequenceNumber {
    write(db, |batch| {
        for _ in 0..rng.range(1..5) {
            let family = if rng.chance(2, 3) { Family::DEFAULT } else { OTHER };
            let key = small_key(rng);
            match rng.below(12) {
                0 => {
                    let mut bounds = [key, small_key(rng)];
                    bounds.sort();
                    batch.delete_range(family, &bounds[0]..&bounds[1]);
                }
                1 | 2 => batch.put_expiring(family, &key, b"for a while", now_ms + rng.below(3000)),
                3 | 4 => batch.put(family, &key, vec![b'v'; rng.below(40) as usize]),
                _ => batch.delete(family, &key),
            }
        }
    })
}

fn ingest(machine: &SimMachine, db: &Db, number: u64, rng: &mut Rng) {
    let path = Path::new("/ingest").join(format!("{number}"));
    machine.env().fs.create_dir_all(Path::new("/ingest")).expect("a healthy disk");
    let mut writer =
        IngestWriter::create_in(&machine.env(), &path, Family::DEFAULT, TableOptions::default()).expect("writes");
    let mut keys: Vec<_> = (0..rng.range(1..4)).map(|_| small_key(rng)).collect();
    keys.sort();
    keys.dedup();
    keys.iter().for_each(|key| writer.put(key, b"from outside").expect("writes"));
    writer.finish().expect("writes");
    db.ingest(&[path], IngestOptions::default()).expect("ingests");
}

/// Random histories, in which scans skip what was learnt to be dead at other numbers and times: at the newest state, at
/// old snapshots, in transactions, with deleted ranges, values that end, ingests, flushes and compactions. Every scan
/// gives what it gives without that.
#[test]
fn scans_give_the_same_with_and_without_what_is_known_to_be_dead() {
    let (mut skipped, mut cut, mut refused) = (0, 0, 0);
    for seed in 0..24 {
        let mut rng = Rng::new(seed);
        let machine = new_machine(seed);
        let db = Db::open_in(&machine.env(), Path::new(DIR), options()).expect("opens");
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for step in 0..300 {
            let now_ms = machine.env().clock.wall_ms();
            match rng.below(40) {
                0 => db.flush().expect("flush"),
                1 => db.compact().expect("compact"),
                2 => pass_time(&machine, rng.below(1500)),
                3 => snapshots.push(db.snapshot()),
                4 if !snapshots.is_empty() => _ = snapshots.swap_remove(rng.below(snapshots.len() as u64) as usize),
                5 if rng.chance(1, 4) => ingest(&machine, &db, step, &mut rng),
                6..=8 if !snapshots.is_empty() => {
                    check(&snapshots[rng.below(snapshots.len() as u64) as usize], &mut rng);
                }
                9 => {
                    let mut transaction = db.transaction();
                    let key = small_key(&mut rng);
                    transaction.put(&key, b"mine").expect("put");
                    let entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward);
                    let mut entries = entries.expect("entries");
                    let mut seen = false;
                    while let Some((found, _)) = entries.next().transpose().expect("readable") {
                        seen |= found == key;
                    }
                    assert!(seen, "a transaction sees what it has put, also where everything else is dead");
                    drop(entries);
                    if rng.chance(1, 2) {
                        transaction.commit().expect("no other writer");
                    }
                }
                10..=22 => check(&db.snapshot(), &mut rng),
                _ => _ = change(&db, now_ms, &mut rng),
            }
            if rng.chance(1, 6) {
                machine.tasks.run_until_idle(1000);
            }
        }
        let reads = db.stats().reads;
        (skipped, cut, refused) =
            (skipped + reads.dead_ranges_skipped, cut + reads.dead_ranges_cut, refused + reads.dead_ranges_refused);
    }
    assert!(skipped > 1000 && cut > 500 && refused > 100, "{skipped} skipped, {cut} cut, {refused} refused");
}

/// Tables below level 0 that hold `count` entries of the default family.
fn filled(machine: &SimMachine, count: u64, options: Options) -> Db {
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    for at in 0..count {
        write(&db, |batch| batch.put(Family::DEFAULT, key(at), [7; 100]));
        machine.tasks.run_until_idle(1000);
    }
    db.compact().expect("compact");
    db
}

/// A wide deleted range over tables costs a scan a few steps, also when nothing is learnt.
#[test]
fn a_scan_passes_over_a_deleted_range_without_walking_through_it() {
    let machine = new_machine(3);
    let db = filled(&machine, 2000, Options { dead_range_versions_min: 0, ..small_options() });
    write(&db, |batch| batch.put(Family::DEFAULT, key(1500), b"newer than the next"));
    write(&db, |batch| batch.delete_range(Family::DEFAULT, &key(10)..&key(1990)));
    write(&db, |batch| batch.put(Family::DEFAULT, key(700), b"after it"));
    for direction in [Direction::Forward, Direction::Backward] {
        let before = db.stats().reads.dead_versions_passed;
        let mut scan = db.scan(Family::DEFAULT, Range::all(), direction, ReadOptions::default()).expect("scan");
        let mut expected: Vec<_> = (0..10).chain([700]).chain(1990..2000).map(key).collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(rows(&mut scan).into_iter().map(|row| row.0).collect::<Vec<_>>(), expected);
        let passed = db.stats().reads.dead_versions_passed - before;
        assert!(passed < 100, "{direction:?}: {passed} versions passed");
    }
}

/// A long walk is learnt part by part, and what it makes the database do does not keep it from learning the rest.
#[test]
fn a_long_walk_is_learnt_as_a_whole() {
    for direction in [Direction::Forward, Direction::Backward] {
        let machine = new_machine(5);
        let mut options = Options { memtable_bytes: 4 << 20, log_bytes_max: 16 << 20, ..small_options() };
        options.log_segment_bytes = 1 << 20;
        options.compaction.dead_versions_passed = 500;
        let number = |at: u64| if direction == Direction::Forward { at } else { 100_000 - at };
        let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
        (0..=9000).for_each(|at| _ = write(&db, |batch| batch.put(Family::DEFAULT, key(number(at)), b"")));
        db.flush().expect("flush");
        (0..9000).for_each(|at| _ = write(&db, |batch| batch.delete(Family::DEFAULT, key(number(at)))));
        assert_eq!(first(&db, direction), Some(key(number(9000))));
        let passed = db.stats().reads.dead_versions_passed;
        assert!(passed >= 9000, "{passed}");
        assert_eq!(first(&db, direction), Some(key(number(9000))));
        let reads = db.stats().reads;
        assert!(reads.dead_versions_passed - passed < 32, "{direction:?}: {reads:?}");
        assert_eq!((reads.dead_ranges, db.stats().compaction.dead_requests), (1, 1));
    }
}

/// Many deletions over tables: the first scan that passes over them has the memtable flushed and the range compacted.
#[test]
fn a_scan_over_much_that_is_dead_has_it_compacted_with_what_is_in_memory() {
    let machine = new_machine(4);
    let mut options = Options { memtable_bytes: 1 << 20, log_bytes_max: 4 << 20, ..small_options() };
    options.log_segment_bytes = 1 << 20;
    options.compaction.dead_versions_passed = 500;
    let db = filled(&machine, 2000, options);
    for at in 0..1900 {
        write(&db, |batch| batch.delete(Family::DEFAULT, key(at)));
    }
    let entries = || db.stats().families[0].levels.iter().map(|level| level.entries).sum::<u64>();
    machine.tasks.run_until_idle(10_000);
    assert_eq!((entries(), db.stats().compaction.dead_requests), (2000, 0));
    assert_eq!(first(&db, Direction::Forward), Some(key(1900)));
    machine.tasks.run_until_idle(10_000);
    assert_eq!(entries(), 100, "{:?}", db.stats().compaction);
    assert!((1..=2).contains(&db.stats().compaction.dead_requests));
    // Once is enough.
    let flushes = db.stats().memtables.flushes;
    (0..50).for_each(|_| assert_eq!(first(&db, Direction::Forward), Some(key(1900))));
    machine.tasks.run_until_idle(10_000);
    assert_eq!(db.stats().memtables.flushes, flushes);
}
