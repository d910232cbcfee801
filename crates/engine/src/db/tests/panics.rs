//! Threads that panic while they work for the database: it stops, every waiter gets an error, and it names what
//! panicked.

#![allow(clippy::disallowed_methods, reason = "callers on separate threads")]

use super::threads::{DEADLINE, open_threaded, threaded};
use super::*;
use crate::planted::{self, Bug};
use crate::{Error, IngestOptions, IngestWriter, Precondition};
use kontiki_env::fs::Op;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// From now on each such operation on a file whose path contains `part` panics.
fn panic_at(machine: &SimMachine, op: Op, part: &'static str) {
    machine.fs.fail_next(op, u64::MAX, move |path| {
        assert!(!path.to_string_lossy().contains(part), "a planted panic at {}", path.display());
        false
    });
}

fn is_expected(error: &Error) -> bool {
    matches!(error, Error::Stopped(_) | Error::Panicked { .. } | Error::Io { .. } | Error::Bug(_))
}

/// A close ends; it may have to say that what was under way is lost.
fn close_ends(db: &Db) {
    if let Err(error) = db.clone().close() {
        assert!(is_expected(&error), "{error}");
    }
}

/// Does it on a separate thread, until it fails; the error comes through the channel.
fn until_it_fails(
    sender: &Sender<(&'static str, Error)>,
    name: &'static str,
    mut work: impl FnMut(u64) -> crate::Result<()> + Send + 'static,
) {
    let sender = sender.clone();
    std::thread::spawn(move || {
        let error = (0..).find_map(|turn| work(turn).err()).expect("it fails some day");
        let _ = sender.send((name, error));
    });
}

/// Has all kinds of callers wait while the job panics, and expects an error for each, in time.
fn expect_an_error_for_every_waiter(machine: &SimMachine, job: &str) {
    let db = Db::open_in(&threaded(machine), Path::new(DIR), small_options()).expect("opens");
    let (sender, answers) = channel();
    let of = |db: &Db| db.clone();
    let (writer, flusher, compactor, syncer) = (of(&db), of(&db), of(&db), of(&db));
    // More than memory takes without a flush.
    until_it_fails(&sender, "write", move |turn| {
        writer.write(put(&format!("{turn:06}"), &"x".repeat(500)), Durability::Buffered).map(drop)
    });
    until_it_fails(&sender, "sync", move |turn| syncer.put(turn.to_be_bytes(), b"value"));
    until_it_fails(&sender, "flush", move |_| flusher.flush());
    until_it_fails(&sender, "compact", move |_| compactor.compact());
    let submitter = of(&db);
    until_it_fails(&sender, "submit", move |turn| {
        let (sender, answer) = channel();
        let commit = Commit::new(put(&format!("submitted {turn}"), "value"), Durability::Sync);
        submitter.submit(commit, Box::new(move |result| sender.send(result).expect("received")));
        answer.recv().expect("answered").map(drop)
    });
    let mut changes = db.changes(0).expect("from the beginning");
    until_it_fails(&sender, "subscriber", move |_| changes.wait(Duration::from_secs(3600)).map(drop));
    for _ in 0..6 {
        let (name, error) = answers.recv_timeout(DEADLINE).expect("every waiter gets an answer");
        // A subscriber that has fallen behind subscribes no more.
        assert!(is_expected(&error) || name == "subscriber", "{name}: {error}");
    }
    machine.fs.clear_faults();
    let health = db.stats().health;
    assert_eq!(health.panicked.as_deref(), Some(format!("the job {job:?}").as_str()));
    assert!(health.stopped.is_some_and(|why| why.contains("a planted panic")));
    let text = db.stats().to_prometheus();
    assert!(text.contains(&format!("kontiki_health_panicked{{reason=\"the job \\\"{job}\\\"\"}} 1")), "{text}");
    assert!(matches!(db.put(b"k", b"v"), Err(Error::Stopped(why)) if why.contains(job)));
    db.snapshot().get_in(Family::DEFAULT, b"000000").expect("reads go on");
    close_ends(&db);
}

#[test]
fn a_flush_that_panics_stops_the_database() {
    let machine = SimMachine::from_seed(1);
    open(&machine).put(b"before", b"1").expect("healthy");
    panic_at(&machine, Op::Create, ".sst");
    expect_an_error_for_every_waiter(&machine, "flush");
    // What is on disk is whole.
    let db = open(&restarted(&machine, 2));
    assert!(db.get(b"before").expect("readable").is_some());
}

#[test]
fn a_compaction_that_panics_stops_the_database() {
    let machine = SimMachine::from_seed(3);
    drop(open(&machine));
    panic_at(&machine, Op::Read, ".sst");
    expect_an_error_for_every_waiter(&machine, "compact");
}

/// Others wait, under the lock that orders commits, for what has its number to be in memory.
#[test]
fn a_writer_that_panics_between_its_number_and_memory_stops_the_database() {
    let machine = SimMachine::from_seed(4);
    let db = open_threaded(&machine);
    db.put(b"before", b"1").expect("healthy");
    let of_writer = db.clone();
    let writer = std::thread::spawn(move || {
        planted::set(Some(Bug::PanicAtInsertion));
        of_writer.write(put("panics", "value"), Durability::Buffered)
    });
    assert!(writer.join().is_err());
    let (sender, answers) = channel();
    let (of_condition, of_flush) = (db.clone(), db.clone());
    let absent = Precondition::Absent { family: Family::DEFAULT, key: "never".into() };
    until_it_fails(&sender, "condition", move |_| {
        of_condition.write_if(put("k", "v"), std::slice::from_ref(&absent), Durability::Buffered).map(drop)
    });
    until_it_fails(&sender, "flush", move |_| of_flush.flush());
    for _ in 0..2 {
        let (name, error) = answers.recv_timeout(DEADLINE).expect("every waiter gets an answer");
        assert!(is_expected(&error), "{name}: {error}");
    }
    assert_eq!(db.stats().health.panicked.as_deref(), Some("a commit on its way into memory"));
    assert_eq!(db.get(b"panics").expect("reads go on"), None, "what is half there is never visible");
    assert_eq!(db.get(b"before").expect("reads go on").as_deref(), Some(&b"1"[..]));
    close_ends(&db);
}

#[test]
fn a_writer_that_panics_in_the_log_stops_the_database() {
    let machine = SimMachine::from_seed(5);
    let db = open_threaded(&machine);
    db.put(b"before", b"1").expect("healthy");
    // The segment that is written to; the next one is made ahead, by a job.
    panic_at(&machine, Op::Sync, "000001.wal");
    let of_writer = db.clone();
    let writer = std::thread::spawn(move || of_writer.put(b"panics", b"value"));
    let outcome = writer.join();
    machine.fs.clear_faults();
    assert!(outcome.is_err());
    assert!(matches!(db.put(b"k", b"v"), Err(Error::Stopped(_))));
    assert_eq!(db.stats().health.panicked.as_deref(), Some("a sync of the log"));
    close_ends(&db);
}

#[test]
fn an_ingest_that_panics_behind_its_number_stops_the_database() {
    let machine = SimMachine::from_seed(6);
    let db = open_threaded(&machine);
    let path = Path::new("/outside.sst");
    let mut writer =
        IngestWriter::create_in(&machine.env(), path, Family::DEFAULT, small_options().table).expect("written");
    writer.put(b"ingested", b"value").expect("ascending");
    writer.finish().expect("written");
    panic_at(&machine, Op::Write, "MANIFEST");
    let of_ingest = db.clone();
    let ingest = std::thread::spawn(move || of_ingest.ingest(&[path], IngestOptions::default()));
    assert!(ingest.join().is_err());
    machine.fs.clear_faults();
    assert!(matches!(db.put(b"k", b"v"), Err(Error::Stopped(_))), "not a wait for the ingest's number");
    close_ends(&db);
    // The edit may be there or not, but not in part.
    drop(open(&restarted(&machine, 7)));
}

/// It runs on the thread of another writer, which must not panic.
#[test]
fn an_answer_that_panics_stops_the_database_and_no_other_thread() {
    let machine = SimMachine::from_seed(8);
    let db = open_threaded(&machine);
    let (sender, answers) = channel();
    db.submit(Commit::new(put("k", "v"), Durability::Sync), Box::new(|_| panic!("a planted panic")));
    let of_next = db.clone();
    until_it_fails(&sender, "writer", move |turn| of_next.put(turn.to_be_bytes(), b"value"));
    let (_, error) = answers.recv_timeout(DEADLINE).expect("an answer");
    assert!(is_expected(&error), "{error}");
    let health = db.stats().health;
    assert_eq!(health.panicked.as_deref(), Some("the answer to a submitted commit"));
    close_ends(&db);
}
