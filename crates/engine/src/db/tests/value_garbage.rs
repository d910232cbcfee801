//! Garbage of the value log: found, freed, and never anything else.

use super::values::{large_values, text, value_files};
use super::*;
use crate::Error;
use crate::inspect::check;
use kontiki_env::fs::{CrashMode, Fs, Op, read_all};

fn fill(db: &Db, keys: std::ops::Range<usize>, round: usize) {
    for i in keys {
        db.write(put(&format!("{i:03}"), &text(200, i + round * 1000)), Durability::Buffered).expect("put");
    }
}

fn expect_rows(view: &dyn View, rounds: impl Fn(usize) -> usize, count: usize) {
    let expected: Vec<_> = (0..count).map(|i| (format!("{i:03}"), text(200, i + rounds(i) * 1000))).collect();
    assert_eq!(dump(view, Family::DEFAULT), expected);
}

fn directory_bytes(machine: &SimMachine) -> u64 {
    value_files(machine).iter().map(|path| read_all(&machine.fs, path).expect("readable").len() as u64).sum()
}

/// Predecessor defect 8: garbage collection wrote values again under their keys, and so over newer ones.
#[test]
fn defect_8_relocation_takes_no_sequence_number_and_hides_no_newer_write() {
    open_with(large_values);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    fill(&db, 0..60, 0);
    fill(&db, 20..60, 1);
    db.compact().expect("compact");
    // Newer ones that are in memory while the older ones are relocated.
    fill(&db, 0..5, 2);
    db.write(put("gone", "x"), Durability::Buffered).expect("put");
    let mut batch = WriteBatch::new();
    batch.delete(Family::DEFAULT, b"gone");
    batch.delete(Family::DEFAULT, b"007");
    db.write(batch, Durability::Buffered).expect("deleted");
    fill(&db, 7..8, 3);
    let before = db.stats();
    let report = db.collect_value_garbage().expect("a healthy disk");
    assert!(report.moved_bytes > 0 && report.freed_bytes > 0, "{report:?}");
    assert_eq!(db.stats().visible_sequence, before.visible_sequence, "not a single number was taken");
    let rounds = |i: usize| match i {
        7 => 3,
        0..5 => 2,
        20..60 => 1,
        _ => 0,
    };
    expect_rows(&db.snapshot(), rounds, 60);
    db.compact().expect("compact");
    db.collect_value_garbage().expect("a healthy disk");
    expect_rows(&db.snapshot(), rounds, 60);
    let machine = restarted(&machine, 2);
    drop(db);
    expect_rows(&open(&machine).snapshot(), rounds, 60);
}

/// Predecessor defect 9: with default options a collection failed as "too big".
#[test]
fn defect_9_a_collection_works_with_default_options() {
    let machine = SimMachine::from_seed(2);
    let db = Db::open_in(&machine.env(), Path::new(DIR), Options::default()).expect("opens");
    for round in 0..3 {
        for i in 0..20 {
            db.write(put(&format!("{i}"), &text(5000, i + round)), Durability::Buffered).expect("put");
        }
    }
    db.compact().expect("compact");
    let report = db.collect_value_garbage().expect("a healthy disk");
    assert!(report.files == 1 && report.freed_bytes > 50_000, "{report:?}");
    for i in 0..20 {
        let value = db.get(format!("{i}").as_bytes()).expect("readable");
        assert_eq!(value.as_deref(), Some(text(5000, i + 2).as_bytes()));
    }
}

/// Predecessor defect 5: tables that were not synced before the log went.
#[test]
fn defect_5_large_values_of_commits_that_are_not_logged_survive_once_flushed() {
    open_with(large_values);
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    let mut batch = WriteBatch::new();
    (0..50).for_each(|i| batch.put(OTHER, format!("{i:02}").as_bytes(), text(150, i).as_bytes()));
    db.write(batch, Durability::Derived).expect("written");
    assert!(value_files(&machine).is_empty(), "nothing is written before the flush");
    db.flush().expect("flush");
    assert_eq!(value_files(&machine).len(), 1);
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::LoseUnsynced);
    let db = open(&restarted(&machine, 4));
    let expected: Vec<_> = (0..50).map(|i| (format!("{i:02}"), text(150, i))).collect();
    assert_eq!(dump(&db.snapshot(), OTHER), expected);
}

#[test]
fn snapshots_and_iterators_keep_what_they_saw() {
    open_with(large_values);
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    fill(&db, 0..40, 0);
    db.flush().expect("flush");
    let snapshot = db.snapshot();
    let mut entries = db.snapshot().entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("readable");
    entries.next().transpose().expect("readable").expect("the first");
    for round in 1..6 {
        fill(&db, 0..40, round);
        db.compact().expect("compact");
        db.collect_value_garbage().expect("a healthy disk");
        machine.tasks.run_until_idle(1000);
    }
    assert!(db.stats().values.pending_deletes > 0, "{:?}", db.stats().values);
    expect_rows(&snapshot, |_| 0, 40);
    for i in 1..40 {
        let (key, value) = entries.next().transpose().expect("readable").expect("as many");
        assert_eq!((&key[..], &value[..]), (format!("{i:03}").as_bytes(), text(200, i).as_bytes()));
    }
    expect_rows(&db.snapshot(), |_| 5, 40);
    let held = directory_bytes(&machine);
    drop((snapshot, entries));
    db.write(put("last", "x"), Durability::Buffered).expect("put");
    db.compact().expect("compact");
    machine.tasks.run_until_idle(1000);
    assert_eq!(db.stats().values.pending_deletes, 0);
    assert!(directory_bytes(&machine) + 40 * 200 < held, "what they held is free");
}

#[test]
fn values_that_are_relocated_again_and_again_are_found() {
    open_with(large_values);
    let machine = SimMachine::from_seed(6);
    let db = open(&machine);
    fill(&db, 0..100, 0);
    // Each round overwrites other keys, so that each file has some garbage each time.
    for round in 1..6 {
        for i in (0..100).filter(|i| i % 5 == round - 1 && i % 2 == 0) {
            fill(&db, i..i + 1, round);
        }
        db.compact().expect("compact");
        assert!(db.collect_value_garbage().expect("a healthy disk").moved_bytes > 0);
    }
    let rounds = |i: usize| if i.is_multiple_of(2) { i % 5 + 1 } else { 0 };
    expect_rows(&db.snapshot(), rounds, 100);
    drop(db);
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert_eq!(report.problems, []);
    expect_rows(&open(&restarted(&machine, 7)).snapshot(), rounds, 100);
}

/// Endless overwrite: the value log stays within 1.5 times what is live, and a constant of eight segments.
#[test]
fn space_stays_within_its_bound_under_endless_overwrite() {
    let options = || Options { value_garbage_percent: 25, ..large_values() };
    open_with(options);
    let machine = SimMachine::from_seed(8);
    let db = open(&machine);
    let mut rng = Rng::new(8);
    let live = 300 * 232;
    fill(&db, 0..300, 0);
    let mut most = 0;
    for round in 1..3000 {
        let i = rng.below(300) as usize;
        fill(&db, i..i + 1, round);
        machine.tasks.run_until_idle(1000);
        most = most.max(directory_bytes(&machine));
    }
    let stats = db.stats().values;
    assert!(stats.relocated_bytes > 0, "{stats:?}");
    assert!(most <= live * 3 / 2 + 8 * (4 << 10), "{most} bytes at most for {live} live ones: {stats:?}");
}

#[test]
fn a_full_disk_puts_relocation_off_and_loses_nothing() {
    open_with(large_values);
    for spare in (0..40 << 10).step_by(2 << 10) {
        let machine = SimMachine::from_seed(spare);
        let db = open(&machine);
        fill(&db, 0..60, 0);
        fill(&db, 20..60, 1);
        db.compact().expect("compact");
        machine.fs.set_quota(Some(machine.fs.used_bytes() + spare));
        match db.collect_value_garbage() {
            Ok(_) | Err(Error::NoSpace { .. }) => {}
            Err(other) => panic!("{spare}: {other}"),
        }
        expect_rows(&db.snapshot(), |i| usize::from(i >= 20), 60);
        machine.fs.set_quota(None);
        db.collect_value_garbage().expect("there is space");
        expect_rows(&db.snapshot(), |i| usize::from(i >= 20), 60);
        machine.fs.power_off();
        drop(db);
        machine.fs.crash(CrashMode::LoseUnsynced);
        expect_rows(&open(&restarted(&machine, 1)).snapshot(), |i| usize::from(i >= 20), 60);
    }
}

#[test]
fn a_failure_at_any_operation_of_a_relocation_loses_nothing() {
    open_with(large_values);
    let run = |fault: &dyn Fn(&SimMachine)| {
        let machine = SimMachine::from_seed(9);
        let db = open(&machine);
        fill(&db, 0..60, 0);
        fill(&db, 20..60, 1);
        db.compact().expect("compact");
        db.flush().expect("flush");
        machine.fs.start_trace();
        fault(&machine);
        let outcome = db.collect_value_garbage();
        let faulted = machine.fs.trace().iter().any(|entry| entry.faulted);
        machine.fs.power_off();
        drop(db);
        (machine, faulted, outcome.is_ok())
    };
    let check_all = |machine: &SimMachine, what: &str| {
        for (mode, seed) in [(CrashMode::Kill, 1), (CrashMode::LoseUnsynced, 2), (CrashMode::Random, 3)] {
            let machine = SimMachine { fs: machine.fs.fork(Rng::new(seed)), ..restarted(machine, seed) };
            machine.fs.crash(mode);
            let db = open(&machine);
            let expected: Vec<_> =
                (0..60).map(|i| (format!("{i:03}"), text(200, i + usize::from(i >= 20) * 1000))).collect();
            assert_eq!(dump(&db.snapshot(), Family::DEFAULT), expected, "{what}, {mode:?}");
        }
    };
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncDir] {
        for nth in 0.. {
            let seen = std::sync::atomic::AtomicU64::new(0);
            let seen = std::sync::Arc::new(seen);
            let counted = seen.clone();
            let (machine, faulted, done) = run(&move |machine: &SimMachine| {
                let seen = counted.clone();
                let nth_time = move || seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == nth;
                machine.fs.fail_next(op, 1, move |_| nth_time());
            });
            if !faulted {
                assert!(done && nth > 0, "{op:?} never happens");
                break;
            }
            check_all(&machine, &format!("{op:?} {nth}"));
        }
    }
    for ops in 0.. {
        let (machine, _, done) = run(&|machine: &SimMachine| machine.fs.power_off_after(ops));
        if done {
            assert!(ops > 5);
            break;
        }
        check_all(&machine, &format!("power off after {ops}"));
    }
}

#[test]
fn a_damaged_value_stops_its_relocation_and_nothing_else() {
    open_with(|| Options { value_garbage_percent: 90, ..large_values() });
    let machine = SimMachine::from_seed(10);
    let db = open(&machine);
    fill(&db, 0..60, 0);
    fill(&db, 20..60, 1);
    db.compact().expect("compact");
    let path = value_files(&machine)[1].clone();
    machine.fs.flip_bit(&path, 100, 1).expect("inside the first value, which is live; most others are not");
    db.collect_value_garbage().expect("the others go on");
    assert_eq!(db.stats().values.damaged_files, 1);
    let error = db.get(b"017").expect_err("damage");
    assert!(matches!(&error, Error::Corruption { file, offset: 32, .. } if *file == path), "{error}");
    for i in (0..60).filter(|i| *i != 17) {
        let value = db.get(format!("{i:03}").as_bytes()).expect("whole");
        assert_eq!(value.as_deref(), Some(text(200, i + usize::from(i >= 20) * 1000).as_bytes()));
    }
    drop(db);
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert!(machine.fs.exists(&path) && report.problems.iter().any(|problem| problem.file == path), "{report:?}");
}
