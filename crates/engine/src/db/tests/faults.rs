//! Disks that fail, fill up and rot.

use super::model::Run;
use super::*;
use crate::{Error, StreamId};
use kontiki_env::fs::{CrashMode, Fs, Op, read_all};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lets `healthy` operations of the kind through and fails the next.
fn fail_one(machine: &SimMachine, op: Op, healthy: u64) {
    let seen = AtomicU64::new(0);
    machine.fs.fail_next(op, 1, move |_| seen.fetch_add(1, Ordering::Relaxed) == healthy);
}

/// Runs the script with one operation failing; false if the script has fewer of them.
pub(super) fn survive_one_failure(op: Op, healthy: u64) -> bool {
    let context = format!("{op:?} {healthy}");
    let machine = new_machine(healthy);
    machine.fs.start_trace();
    fail_one(&machine, op, healthy);
    let mut run = Run::new(2);
    if let Ok(db) = try_open(&machine)
        && let Err(error) = run.go(&machine, &db, 100)
    {
        assert!(matches!(error, Error::Io { .. } | Error::Stopped(_)), "{context}: {error}");
        if op != Op::Sync {
            run.check_live(&db).unwrap_or_else(|what| panic!("{context}: reads go on: {what}"));
        } else {
            // Streams, and large values, are read from the very file that the failed sync left unknown, so only rows
            // are requested.
            if !large_values_in_use() {
                run.check_live_rows(&db).unwrap_or_else(|what| panic!("{context}: reads go on: {what}"));
            }
            let refused = db.put(b"k", b"v").expect_err("after a failed sync nothing is written");
            assert!(matches!(refused, Error::Stopped(_)), "{context}: {refused}");
            assert!(db.stats().health.stopped.is_some());
        }
        machine.fs.power_off();
    }
    if !machine.fs.trace().iter().any(|entry| entry.faulted) {
        return false;
    }
    let mode = if healthy.is_multiple_of(2) { CrashMode::Kill } else { CrashMode::Random };
    machine.fs.crash(mode);
    // Recovery, life after it, and a power loss: what a failed sync has dropped behind our back must not come up then.
    let machine = restarted(&machine, healthy);
    let db = try_open(&machine).unwrap_or_else(|error| panic!("{context}: recovery: {error}"));
    run.check_recovered(&db, false).unwrap_or_else(|what| panic!("{context}: {what}"));
    run.go(&machine, &db, 20).unwrap_or_else(|error| panic!("{context}: going on: {error}"));
    machine.fs.power_off();
    drop(db);
    machine.fs.crash(CrashMode::LoseUnsynced);
    let db = open(&restarted(&machine, healthy + 1));
    run.check_recovered(&db, false).unwrap_or_else(|what| panic!("{context}: later: {what}"));
    true
}

#[test]
fn a_failed_sync_stops_writes_and_loses_nothing_acknowledged() {
    let syncs = (0..).take_while(|healthy| survive_one_failure(Op::Sync, *healthy)).count();
    assert!(syncs > 50, "the script has become too short: {syncs}");
}

#[test]
fn any_other_failed_operation_loses_nothing_acknowledged() {
    for op in [Op::Write, Op::SyncDir, Op::Rename, Op::Create, Op::Allocate, Op::SetLen, Op::Remove] {
        let count = (0..).take_while(|healthy| survive_one_failure(op, *healthy)).count();
        assert!(count > 0, "{op:?} never happens");
    }
}

/// A page of the mapped log that the system refuses. In addition syncs and writes fail, next to a mapping.
#[test]
fn any_failed_write_of_a_mapped_log_loses_nothing_acknowledged() {
    map_log_segments();
    for (op, least) in [(Op::MappedWrite, 100), (Op::Write, 20), (Op::Sync, 50)] {
        let count = (0..).take_while(|healthy| survive_one_failure(op, *healthy)).count();
        assert!(count > least, "the script has become too short: {op:?} {count}");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_everything_resumes_when_there_is_space() {
    let mut refusals = 0;
    for quota in (8 << 10..100 << 10).step_by(1 << 10) {
        let machine = new_machine(quota);
        let mut run = Run::new(quota);
        machine.fs.set_quota(Some(quota));
        let db = match try_open(&machine) {
            Ok(db) => db,
            Err(error) => {
                assert!(matches!(error, Error::NoSpace { .. }), "{quota}: {error}");
                continue;
            }
        };
        for _ in 0..4 {
            if let Err(error) = run.go(&machine, &db, 50) {
                assert!(matches!(error, Error::NoSpace { .. }), "{quota}: {error}");
                refusals += 1;
            }
            run.check_live(&db).unwrap_or_else(|what| panic!("{quota}: reads go on: {what}"));
        }
        machine.fs.set_quota(None);
        if db.put(b"space", b"again").is_err() {
            // It found no capacity in memory and got the error of the last flush; it has requested another.
            machine.tasks.run_until_idle(10_000);
            db.put(b"space", b"again").expect("the next write succeeds");
        }
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
    assert!(refusals > 20, "the disk was hardly ever full: {refusals}");
}

#[test]
fn derived_commits_wait_for_a_full_disk_without_spinning() {
    let machine = new_machine(90);
    let db = open(&machine);
    machine.fs.set_quota(Some(machine.fs.used_bytes()));
    let answers: Arc<Mutex<Vec<u64>>> = Arc::default();
    let submit = |i: u64| {
        let answers = answers.clone();
        let batch = put(&format!("{i:04}"), &"v".repeat(500));
        let commit = Commit { batch, streams: vec![], durability: Durability::Derived, unchanged: vec![] };
        db.submit(commit, Box::new(move |result| answers.lock().push(result.map(|_| i).expect("it only waits"))));
    };
    (0..100).for_each(submit);
    machine.tasks.run_until_idle(10_000); // It panics if flush and commit chase each other.
    let before = answers.lock().len();
    assert!(before > 10 && before < 100, "memory is full: {before}");
    let error = db.put(b"logged", b"commit").expect_err("the disk is full");
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    machine.tasks.run_until_idle(10_000);
    machine.fs.set_quota(None);
    submit(100);
    machine.tasks.run_until_idle(10_000);
    assert_eq!(*answers.lock(), (0..=100).collect::<Vec<_>>(), "all of them, in order");
    db.put(b"logged", b"commit").expect("written");
}

fn segments(machine: &SimMachine) -> Vec<PathBuf> {
    let wal = Path::new(DIR).join("wal");
    machine.fs.list(&wal).expect("it exists").into_iter().map(|name| wal.join(name)).collect()
}

/// Some commits, no flush, and the machine after the process has ended.
fn small_log(clean: bool) -> (SimMachine, Vec<(String, String)>) {
    let machine = new_machine(77);
    let db = open(&machine);
    for i in 0..12 {
        let commit = Commit {
            batch: put(&format!("key {i:02}"), &"v".repeat(i * 9)),
            streams: vec![append(1, i as u64 + 1, &["entry"])],
            durability: Durability::Sync,
            unchanged: vec![],
        };
        db.commit(commit).expect("commit");
    }
    let rows = dump(&db.snapshot(), Family::DEFAULT);
    if clean {
        db.close().expect("close");
    } else {
        machine.fs.power_off();
        drop(db);
        machine.fs.crash(CrashMode::LoseUnsynced);
    }
    (machine, rows)
}

fn check_every_flip(clean: bool, least_rows: usize) {
    let (machine, rows) = small_log(clean);
    let mut named = 0;
    for path in segments(&machine) {
        let bytes = read_all(&machine.fs, &path).expect("readable").len() as u64;
        for offset in 0..bytes {
            let damaged = SimMachine { fs: machine.fs.fork(Rng::new(offset)), ..restarted(&machine, offset) };
            damaged.fs.flip_bit(&path, offset, (offset % 8) as u8).expect("inside");
            match try_open(&damaged) {
                Ok(db) => {
                    let found = dump(&db.snapshot(), Family::DEFAULT);
                    assert_eq!(found[..], rows[..found.len()], "byte {offset}: wrong data");
                    assert!(found.len() >= least_rows, "byte {offset}: only {} rows", found.len());
                    let entries = db.stream(StreamId(1)).expect("readable").entries;
                    assert_eq!(entries.len(), found.len(), "byte {offset}: a torn commit");
                }
                Err(Error::Corruption { file, offset: at, .. }) => {
                    assert_eq!(file, path);
                    assert!(at <= offset, "byte {offset} is blamed on {at}");
                    named += 1;
                }
                Err(error) => panic!("byte {offset}: {error}"),
            }
        }
    }
    assert!(named > 100, "damage must mostly be named: {named}");
}

#[test]
fn every_flipped_byte_of_a_closed_log_is_named_or_harmless() {
    check_every_flip(true, 12);
}

/// Without a close, damage to the very last record looks like its torn write: it is cut. All others are named.
#[test]
fn every_flipped_byte_of_an_open_log_is_named_or_harmless() {
    check_every_flip(false, 11);
}

#[test]
fn a_missing_segment_and_a_lost_manifest_are_named() {
    let machine = new_machine(78);
    let db = open(&machine);
    for i in 1..200 {
        db.commit(streams(vec![append(1, i, &["an entry that fills the log"])], Durability::Sync)).expect("append");
    }
    db.close().expect("close");
    let middle = segments(&machine)[1].clone();
    let damaged = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(&machine, 1) };
    damaged.fs.remove(&middle).expect("removed");
    let error = try_open(&damaged).expect_err("a gap");
    assert!(matches!(&error, Error::Corruption { file, .. } if *file == middle), "{error}");
    let damaged = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(&machine, 1) };
    damaged.fs.remove(&Path::new(DIR).join("CURRENT")).expect("removed");
    let error = try_open(&damaged).expect_err("no manifest");
    assert!(matches!(&error, Error::Corruption { file, .. } if file.ends_with("CURRENT")), "{error}");
}

#[test]
fn rot_under_an_open_stream_is_named() {
    let machine = new_machine(79);
    let db = open(&machine);
    db.commit(streams(vec![append(1, 1, &["precious"])], Durability::Sync)).expect("append");
    let path = segments(&machine)[0].clone();
    let bytes = read_all(&machine.fs, &path).expect("readable");
    let at = bytes.windows(8).position(|window| window == b"precious").expect("it is in the log");
    machine.fs.flip_bit(&path, at as u64, 0).expect("inside");
    let error = db.stream(StreamId(1)).expect_err("damaged");
    assert!(matches!(&error, Error::Corruption { file, offset: 32, .. } if *file == path), "{error}");
}

#[test]
fn files_that_are_not_ours_stay() {
    let machine = new_machine(80);
    drop(open(&machine));
    let strangers = ["wal/notes.txt", "tables/000001.txt", "README", "wal/7.wal"];
    for name in strangers {
        let path = Path::new(DIR).join(name);
        machine.fs.open(&path, kontiki_env::fs::OpenMode::CreateNew).expect("created");
    }
    let db = open(&restarted(&machine, 81));
    db.put(b"k", b"v").expect("put");
    db.compact().expect("compact");
    drop(db);
    for name in strangers {
        assert!(machine.fs.exists(&Path::new(DIR).join(name)), "{name}");
    }
}
