//! The directory is removed, or another one takes its place, while the database is open.

use super::*;
use crate::Error;
use kontiki_env::fs::Fs;

fn lose(machine: &SimMachine) {
    machine.fs.remove(&Path::new(DIR).join("LOCK")).expect("there");
}

fn is_lost<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::DirectoryLost { directory }) if directory == Path::new(DIR))
}

#[test]
fn a_lost_directory_stops_writes_and_a_close_says_so() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    db.write(put("a", "1"), Durability::Sync).expect("written");
    db.check_directory().expect("there");
    lose(&machine);
    assert!(is_lost(db.check_directory()));
    match db.write(put("b", "2"), Durability::Sync) {
        Err(Error::Stopped(why)) => assert!(why.contains(DIR) && why.contains("removed"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(db.get("a").expect("reads continue").as_deref(), Some(&b"1"[..]));
    assert!(is_lost(db.close()));
}

#[test]
fn a_close_notices_a_lost_directory_by_itself() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    db.write(put("a", "1"), Durability::Sync).expect("written");
    lose(&machine);
    assert!(is_lost(db.close()));
}

#[test]
fn a_job_notices_a_lost_directory() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    db.write(put("a", "1"), Durability::Sync).expect("written");
    lose(&machine);
    // A flush wakes compaction, which checks first.
    let stopped = (0..10).any(|_| db.write(put("a", "2"), Durability::Sync).and_then(|_| db.flush()).is_err());
    assert!(stopped, "a database without its directory goes on");
    assert!(is_lost(db.check_directory()));
}

/// A real directory that is moved away: its files can still be written to through what is open.
#[test]
#[allow(clippy::disallowed_methods)] // the operator's part
fn a_directory_that_was_moved_is_noticed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (path, elsewhere) = (scratch.path().join("db"), scratch.path().join("elsewhere"));
    let db = Db::open(&path, small_options()).expect("opens");
    db.put("a", "1").expect("written");
    std::fs::rename(&path, &elsewhere).expect("moves");
    assert!(matches!(db.check_directory(), Err(Error::DirectoryLost { .. })));
    std::fs::create_dir(&path).expect("another one");
    assert!(matches!(db.check_directory(), Err(Error::DirectoryLost { .. })));
    drop(db);
    let db = Db::open(&elsewhere, small_options()).expect("opens");
    assert_eq!(db.get("a").expect("reads").as_deref(), Some(&b"1"[..]));
}
