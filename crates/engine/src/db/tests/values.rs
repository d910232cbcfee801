//! Large values: the same promises as for small ones.

use super::faults::survive_one_failure;
use super::model::Run;
use super::power_loss::{at_random_operation, enumerate};
use super::*;
use crate::Error;
use crate::inspect::check;
use kontiki_env::fs::{CrashMode, Fs, Op, OpenMode, read_all};
use std::path::PathBuf;

/// About half of what the script puts is large, in segments that hold a handful of values; what is derived is all
/// large.
pub(super) fn large_values() -> Options {
    let mut options =
        Options { value_segment_bytes: 4 << 10, value_garbage_percent: 10, sync_value_bytes_max: 0, ..small_options() };
    for spec in &mut options.families {
        spec.options.value_threshold_bytes = if spec.family == OTHER { 1 } else { 60 };
    }
    options
}

/// The same, but that small `Sync` commits keep their values in the log until the flush.
fn large_values_with_the_log() -> Options {
    Options { sync_value_bytes_max: 150, ..large_values() }
}

pub(super) fn value_files(machine: &SimMachine) -> Vec<PathBuf> {
    let directory = Path::new(DIR).join("vlog");
    machine.fs.list(&directory).expect("listed").iter().map(|name| directory.join(name)).collect()
}

pub(super) fn text(length: usize, seed: usize) -> String {
    (0..length).map(|i| char::from(b'a' + ((i * 7 + seed * 13) % 26) as u8)).collect()
}

#[test]
fn large_values_are_written_to_the_value_log_and_read_back_everywhere() {
    open_with(large_values);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let rows: Vec<(String, String)> =
        (0..60).map(|i| (format!("{i:03}"), text(if i % 3 == 0 { 5 } else { 100 + i * 10 }, i))).collect();
    for (key, value) in &rows {
        db.write(put(key, value), Durability::Buffered).expect("put");
    }
    let check_all = |db: &Db, what: &str| {
        assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows, "{what}");
        for (key, value) in &rows {
            assert_eq!(db.get(key.as_bytes()).expect("readable").as_deref(), Some(value.as_bytes()), "{what}: {key}");
        }
        let mut entries = db.snapshot().entries(Family::DEFAULT, Range::all(), Direction::Backward).expect("readable");
        for (key, value) in rows.iter().rev() {
            let found = entries.next().transpose().expect("readable").expect("as many");
            assert_eq!((&found.0[..], &found.1[..]), (key.as_bytes(), value.as_bytes()), "{what}");
        }
    };
    check_all(&db, "in memory");
    assert!(db.stats().log.bytes < 8 << 10, "the log has pointers: {}", db.stats().log.bytes);
    db.flush().expect("flush");
    check_all(&db, "in tables");
    db.compact().expect("compact");
    check_all(&db, "compacted");
    db.write(put("059", &rows[59].1), Durability::Sync).expect("put");
    db.close().expect("close");
    let machine = restarted(&machine, 2);
    let db = open(&machine);
    check_all(&db, "reopened");
    machine.tasks.run_until_idle(1000);
    drop(db);
    assert!(value_files(&machine).len() > 3);
    assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, []);
}

#[test]
fn expiring_and_deleted_large_values_disappear_and_the_last_of_a_batch_stays() {
    open_with(large_values);
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    let now = machine.env().clock.wall_ms();
    let mut batch = WriteBatch::new();
    batch.put_expiring(Family::DEFAULT, b"ends", text(100, 1).as_bytes(), now + 1000);
    batch.put(Family::DEFAULT, b"twice", text(100, 2).as_bytes());
    batch.put(Family::DEFAULT, b"twice", text(100, 3).as_bytes());
    batch.put(Family::DEFAULT, b"deleted", text(100, 4).as_bytes());
    batch.delete(Family::DEFAULT, b"deleted");
    db.write(batch, Durability::Sync).expect("written");
    assert_eq!(db.get(b"ends").expect("readable").expect("not yet").len(), 100);
    assert_eq!(db.get(b"twice").expect("readable").as_deref(), Some(text(100, 3).as_bytes()));
    assert_eq!(db.get(b"deleted").expect("readable"), None);
    machine.clock.set_wall_offset_ms(2000);
    assert_eq!(db.get(b"ends").expect("readable"), None);
    db.compact().expect("compact");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 1);
}

#[test]
fn power_loss_at_every_operation_loses_no_large_value() {
    open_with(large_values);
    let (outcome, crashes) = enumerate(1, 120);
    outcome.expect("no violation");
    assert!(crashes > 1000, "the script has become too short: {crashes} crashes");
}

/// The script reaches every mechanism of the value log.
#[test]
fn the_script_relocates_and_drops() {
    open_with(large_values);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let mut run = Run::new(1);
    run.go(&machine, &db, 120).expect("no faults");
    let short = db.stats().values;
    assert!(short.collections > 0 && short.freed_bytes > 0, "{short:?}");
    run.go(&machine, &db, 1000).expect("no faults");
    let long = db.stats().values;
    assert!(long.relocated_bytes > 0 && long.relocated_segments > 0, "{long:?}");
    run.check_live(&db).expect("the model agrees");
    drop(db);
    assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, []);
}

#[test]
fn power_loss_at_random_operations_of_long_runs_with_large_values() {
    open_with(large_values);
    for seed in 300..330 {
        at_random_operation(seed).unwrap_or_else(|what| panic!("{what}"));
    }
}

#[test]
fn failed_operations_lose_no_large_value() {
    open_with(large_values);
    for op in [Op::Sync, Op::Write, Op::SyncDir, Op::Create, Op::Allocate, Op::SetLen, Op::Remove] {
        let count = (0..).take_while(|healthy| survive_one_failure(op, *healthy)).count();
        assert!(count > 0, "{op:?} never happens");
    }
}

/// Predecessor defect 3: a failed write of a value rewound the file over what others had written meanwhile.
#[test]
fn defect_3_a_failed_value_write_leaves_the_values_of_others_alone() {
    open_with(large_values);
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    db.write(put("before", &text(100, 1)), Durability::Sync).expect("put");
    machine.fs.fail_next(Op::Write, 1, |path| path.extension().is_some_and(|extension| extension == "vlog"));
    let error = db.write(put("failed", &text(100, 2)), Durability::Sync).expect_err("the disk fails");
    assert!(matches!(&error, Error::Io { file, .. } if file.extension().is_some_and(|e| e == "vlog")), "{error}");
    assert!(matches!(db.write(put("later", "v"), Durability::Sync), Err(Error::Stopped(_))));
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), [("before".to_string(), text(100, 1))]);
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::Kill);
    let db = open(&restarted(&machine, 6));
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), [("before".to_string(), text(100, 1))]);
    db.write(put("after", &text(100, 3)), Durability::Sync).expect("put");
}

/// Predecessor defect 10: recovery deleted value segments above the last recorded head, though the log referred to
/// them.
#[test]
fn defect_10_recovery_keeps_every_segment_that_the_log_refers_to() {
    open_with(large_values);
    for mode in [CrashMode::Kill, CrashMode::LoseUnsynced, CrashMode::Random] {
        let machine = SimMachine::from_seed(7);
        let db = open(&machine);
        let rows: Vec<(String, String)> = (0..40).map(|i| (format!("{i:02}"), text(300, i))).collect();
        for (key, value) in &rows {
            db.write(put(key, value), Durability::Sync).expect("put");
        }
        let before = value_files(&machine);
        assert!(before.len() > 3 && db.stats().memtables.flushes == 0, "several segments, all of them only in the log");
        machine.fs.power_off();
        drop(db);
        machine.fs.crash(mode);
        let machine = restarted(&machine, 8);
        let db = open(&machine);
        machine.tasks.run_until_idle(1000);
        assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows, "{mode:?}");
        let after = value_files(&machine);
        assert!(before.iter().all(|file| after.contains(file)), "{mode:?}: {before:?}, {after:?}");
    }
}

#[test]
fn a_full_disk_refuses_large_values_and_writing_resumes_when_there_is_space() {
    open_with(large_values);
    let mut refusals = 0;
    for quota in (8 << 10..120 << 10).step_by(3 << 10) {
        let machine = SimMachine::from_seed(quota);
        let mut run = Run::new(quota);
        machine.fs.set_quota(Some(quota));
        let Ok(db) = try_open(&machine) else { continue };
        for _ in 0..4 {
            if let Err(error) = run.go(&machine, &db, 50) {
                assert!(matches!(error, Error::NoSpace { .. }), "{quota}: {error}");
                refusals += 1;
            }
            run.check_live(&db).unwrap_or_else(|what| panic!("{quota}: reads go on: {what}"));
        }
        machine.fs.set_quota(None);
        db.put(b"space", text(100, 1).as_bytes()).expect("the next write succeeds");
        db.delete(b"space").expect("and so on");
        machine.tasks.run_until_idle(10_000);
        run.go(&machine, &db, 50).unwrap_or_else(|error| panic!("{quota}: after there was space: {error}"));
        run.check_live(&db).unwrap_or_else(|what| panic!("{quota}: {what}"));
        machine.fs.power_off();
        drop(db);
        machine.fs.crash(CrashMode::LoseUnsynced);
        let recovered = open(&restarted(&machine, quota));
        run.check_recovered(&recovered, false).unwrap_or_else(|what| panic!("{quota}: recovered: {what}"));
    }
    assert!(refusals > 10, "the disk was hardly ever full: {refusals}");
}

/// A value that was durable and is damaged while only the log refers to it ends nothing: it is named.
#[test]
fn a_durable_value_that_is_missing_is_corruption_with_file_and_offset() {
    open_with(large_values);
    let machine = SimMachine::from_seed(9);
    let db = open(&machine);
    db.write(put("a", &text(100, 1)), Durability::Sync).expect("put");
    db.write(put("b", &text(100, 2)), Durability::Sync).expect("put");
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::Kill);
    let path = value_files(&machine)[0].clone();
    // The header of the first record: the second log record claims that the first was durable.
    machine.fs.flip_bit(&path, 32, 0).expect("inside");
    let error = try_open(&restarted(&machine, 10)).expect_err("damage");
    assert!(matches!(&error, Error::Corruption { file, offset: 32, .. } if *file == path), "{error}");
    machine.fs.flip_bit(&path, 32, 0).expect("inside");
    // The value itself: found when it is read.
    machine.fs.flip_bit(&path, 60, 0).expect("inside");
    let db = open(&restarted(&machine, 11));
    let error = db.get(b"a").expect_err("damage");
    assert!(matches!(&error, Error::Corruption { file, offset: 32, .. } if *file == path), "{error}");
    assert_eq!(db.get(b"b").expect("readable").as_deref(), Some(text(100, 2).as_bytes()));
}

/// A log record that was never claimed durable, and whose value a crash has taken, ends the log as a torn one does.
#[test]
fn an_unsynced_record_without_its_value_ends_the_log() {
    open_with(large_values);
    let machine = SimMachine::from_seed(12);
    let db = open(&machine);
    db.write(put("a", &text(100, 1)), Durability::Sync).expect("put");
    for key in ["b", "c", "d"] {
        db.write(put(key, &text(100, 2)), Durability::Buffered).expect("put");
    }
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::Kill);
    let path = value_files(&machine)[0].clone();
    let bytes = read_all(&machine.fs, &path).expect("readable");
    let second = 32 + (24 + 100 + 1usize).next_multiple_of(8);
    assert_eq!(bytes[second + 24..second + 124], *text(100, 2).as_bytes());
    let third = 2 * second - 32;
    let file = machine.fs.open(&path, OpenMode::ReadWrite).expect("opened");
    file.write_at(&[0; 30], third as u64).expect("torn");
    for round in 0..2 {
        let db = open(&restarted(&machine, 13 + round));
        let keys: Vec<String> = dump(&db.snapshot(), Family::DEFAULT).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "b"], "c misses its value, and d comes after c");
    }
}

#[test]
fn a_small_sync_commit_waits_for_one_sync_and_its_values_leave_the_tree_at_the_flush() {
    open_with(large_values_with_the_log);
    let machine = SimMachine::from_seed(31);
    let db = open(&machine);
    db.write(put("before", "x"), Durability::Sync).expect("put");
    machine.tasks.run_until_idle(100);
    machine.fs.start_trace();
    db.write(put("large", &text(100, 1)), Durability::Sync).expect("put");
    let syncs = machine.fs.trace().iter().filter(|entry| entry.op == Op::Sync).count();
    assert_eq!((syncs, value_files(&machine).len()), (1, 0), "in the log, with one sync");
    db.write(put("larger", &text(1000, 2)), Durability::Sync).expect("put");
    assert_eq!(value_files(&machine).len(), 1, "too much to write twice");
    machine.fs.crash(CrashMode::LoseUnsynced);
    let machine = restarted(&machine, 32);
    let db = open(&machine);
    let all = vec![("before", "x".to_string()), ("large", text(100, 1)), ("larger", text(1000, 2))];
    let all: Vec<_> = all.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), all);
    let files = value_files(&machine).len();
    db.flush().expect("flush");
    assert_eq!(value_files(&machine).len(), files + 1, "the flush moved it");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), all);
}

#[test]
fn power_loss_loses_no_value_that_is_still_in_the_log() {
    open_with(large_values_with_the_log);
    let (outcome, crashes) = enumerate(2, 60);
    outcome.expect("no violation");
    assert!(crashes > 500, "the script has become too short: {crashes} crashes");
}
