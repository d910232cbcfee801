//! Open for reading only.

use super::values::{large_values, text};
use super::*;
use crate::copy::BackupStore;
use crate::inspect::{check, lock_to_read, summarize};
use crate::{Error, StreamId};
use kontiki_env::Env;
use kontiki_env::fs::{CrashMode, File, FileLock, Fs, Op, OpenMode, SimFs, read_all};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

fn open_read_only(machine: &SimMachine, dir: &str) -> crate::Result<Db> {
    Db::open_read_only_in(&machine.env(), Path::new(dir), OPTIONS.get()())
}

/// Every file below a directory, with its bytes.
fn files(machine: &SimMachine, dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    for name in machine.fs.list(dir).expect("listed") {
        let path = dir.join(name);
        match read_all(&machine.fs, &path) {
            Ok(bytes) => drop(all.insert(path, Some(bytes))),
            Err(_) => {
                all.extend(files(machine, &path));
                all.insert(path, None);
            }
        }
    }
    all
}

fn fill(db: &Db, from: usize, to: usize) {
    for i in from..to {
        let mut batch = put(&format!("{:03}", i % 120), &text(if i % 9 == 0 { 400 } else { 20 }, i));
        batch.delete(OTHER, format!("{:03}", (i * 7) % 50).as_bytes());
        batch.put(OTHER, format!("{:03}", i % 50).as_bytes(), b"other");
        db.write(batch, if i % 5 == 0 { Durability::Sync } else { Durability::Buffered }).expect("written");
    }
}

fn contents(db: &Db) -> Vec<Vec<(String, String)>> {
    [Family::DEFAULT, OTHER].map(|family| dump(&db.snapshot(), family)).to_vec()
}

fn is_refused<T>(result: crate::Result<T>) -> bool {
    matches!(result, Err(Error::ReadOnly))
}

/// Uses it in every way, and finds the directory as it was.
fn use_and_compare(machine: &SimMachine, dir: &str, expected: &[Vec<(String, String)>]) {
    machine.tasks.run_until_idle(10_000);
    let before = files(machine, Path::new(dir));
    let ops = machine.fs.ops();
    let db = open_read_only(machine, dir).expect("opens");
    assert_eq!(contents(&db), expected);
    let (key, value) = &expected[0][0];
    assert_eq!(db.get(key.as_bytes()).expect("readable").as_deref(), Some(value.as_bytes()));
    assert!(is_refused(db.put(b"k", b"v")));
    assert!(is_refused(db.write(put("k", &text(400, 1)), Durability::Derived)));
    assert!(is_refused(db.flush()));
    assert!(is_refused(db.compact()));
    assert!(is_refused(db.collect_value_garbage()));
    assert!(is_refused(db.create_family(FamilySpec::new(Family(30), "thirty"))));
    assert!(is_refused(db.drop_family(OTHER)));
    assert!(db.checkpoint(Path::new("/other copy")).is_err());
    assert!(is_refused(db.ingest(&["/copy/CURRENT"], crate::IngestOptions::default())));
    let mut transaction = db.transaction();
    transaction.put(b"k", b"v").expect("in memory");
    assert!(is_refused(transaction.commit()));
    assert!(db.stats().health.stopped.is_none());
    machine.tasks.run_until_idle(1000);
    let snapshot = db.snapshot();
    assert_eq!(dump(&snapshot, Family::DEFAULT), expected[0]);
    db.close().expect("closes");
    assert!(matches!(snapshot.get_in(Family::DEFAULT, key.as_bytes()), Err(Error::Closed)));
    assert_eq!(machine.fs.ops(), ops, "not one operation that changes anything");
    assert_eq!(files(machine, Path::new(dir)), before);
}

#[test]
fn a_checkpoint_is_read_beside_its_writer() {
    open_with(large_values);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    fill(&db, 0, 300);
    let expected = contents(&db);
    db.checkpoint(Path::new("/copy")).expect("written");
    fill(&db, 300, 500);
    use_and_compare(&machine, "/copy", &expected);
    // Several at once.
    let (one, two) = (open_read_only(&machine, "/copy").expect("opens"), open_read_only(&machine, "/copy"));
    assert_eq!(contents(&one), contents(&two.expect("opens")));
    assert_ne!(contents(&db), expected);
}

#[test]
fn what_a_crash_has_left_is_read_as_an_open_would_read_it() {
    for (seed, mode) in
        [(2, CrashMode::Kill), (3, CrashMode::KeepUnsynced), (4, CrashMode::LoseUnsynced), (5, CrashMode::Pages)]
    {
        for options in [small_options as fn() -> Options, large_values] {
            open_with(options);
            let machine = SimMachine::from_seed(seed);
            let db = open(&machine);
            let state = crate::StreamOp::State { stream: StreamId(3), state: Bytes::from_static(b"term 1") };
            db.commit(streams(vec![append(3, 1, &["a", "b"]), state], Durability::Sync)).expect("append");
            fill(&db, 0, 333);
            machine.fs.crash(mode);
            drop(db);
            // What an open makes of it, on a separate machine.
            let twin = SimMachine { fs: machine.fs.fork(Rng::new(seed)), ..restarted(&machine, seed) };
            let opened = open(&twin);
            let (expected, stream) = (contents(&opened), opened.stream(StreamId(3)).expect("readable"));
            let machine = restarted(&machine, seed + 1);
            use_and_compare(&machine, DIR, &expected);
            let db = open_read_only(&machine, DIR).expect("opens");
            assert_eq!(db.stream(StreamId(3)).expect("readable"), stream);
            drop(db);
            assert_eq!(contents(&open(&machine)), expected, "and it opens to be written all the same");
        }
    }
}

#[test]
fn a_directory_without_a_database_is_refused_and_left_alone() {
    let machine = SimMachine::from_seed(6);
    let error = open_read_only(&machine, "/nothing").expect_err("there is none");
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("CURRENT")), "{error}");
    assert_eq!(machine.fs.ops(), 0);
    // An open that was cut off before it had made a log.
    let db = open(&machine);
    drop(db);
    let wal = Path::new(DIR).join("wal");
    for name in machine.fs.list(&wal).expect("listed") {
        machine.fs.remove(&wal.join(name)).expect("removed");
    }
    let ops = machine.fs.ops();
    let db = open_read_only(&restarted(&machine, 7), DIR).expect("opens");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), []);
    assert_eq!(machine.fs.ops(), ops);
}

#[test]
fn families_that_are_not_there_are_not_made() {
    let machine = SimMachine::from_seed(8);
    drop(open(&machine));
    let mut options = small_options();
    options.families.push(FamilySpec::new(Family(30), "thirty"));
    let machine = restarted(&machine, 9);
    let db = Db::open_read_only_in(&machine.env(), Path::new(DIR), options).expect("opens");
    assert!(matches!(db.get_in(Family(30), b"k"), Err(Error::InvalidArgument(_))));
    let contradiction = Options { families: vec![FamilySpec::new(OTHER, "wrong")], ..small_options() };
    let error = Db::open_read_only_in(&machine.env(), Path::new(DIR), contradiction).expect_err("contradicts");
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
}

#[test]
fn damage_and_an_unreadable_file_are_reported() {
    let machine = SimMachine::from_seed(10);
    let db = open(&machine);
    fill(&db, 0, 50);
    db.close().expect("closes");
    let machine = restarted(&machine, 11);
    machine.fs.fail_next(Op::Read, 1, |path| path.extension().is_some_and(|extension| extension == "wal"));
    assert!(matches!(open_read_only(&machine, DIR), Err(Error::Io { .. })));
    let wal = Path::new(DIR).join("wal");
    let oldest = machine.fs.list(&wal).expect("listed").remove(0);
    machine.fs.flip_bit(&wal.join(oldest), 70, 3).expect("within the file");
    let error = open_read_only(&machine, DIR).expect_err("damaged");
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
    assert!(!check(&machine.env(), Path::new(DIR)).expect("readable").is_sound());
}

/// A file system on which nothing can be changed: a read-only mount, or the directory of another user.
struct Unwritable(SimFs);

impl Fs for Unwritable {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        match mode {
            OpenMode::Read => self.0.open(path, mode),
            _ => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.0.exists(path) { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn lock(&self, _: &Path, _: &str) -> io::Result<Box<dyn FileLock>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.absolute(path)
    }
    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.0.lock_to_read(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
}

#[test]
fn whatever_only_reads_works_on_read_only_media() {
    open_with(large_values);
    let machine = SimMachine::from_seed(12);
    let db = open(&machine);
    fill(&db, 0, 200);
    let backups = Path::new("/backups");
    let store = BackupStore::open_in(&machine.env(), backups).expect("opens");
    let number = store.create(&db, &mut |_| ()).expect("written").number;
    fill(&db, 200, 300);
    let expected = contents(&db);
    machine.fs.crash(CrashMode::Kill);
    drop((db, store));
    let machine = restarted(&machine, 13);
    let env = Env { fs: Arc::new(Unwritable(machine.fs.clone())), ..machine.env() };
    let report = check(&env, Path::new(DIR)).expect("readable");
    assert_eq!((report.problems.len(), report.log_unclean), (0, true), "{report:?}");
    summarize(&env, Path::new(DIR)).expect("readable");
    let db = Db::open_read_only_in(&env, Path::new(DIR), large_values()).expect("opens");
    assert_eq!(contents(&db), expected);
    let store = BackupStore::open_in(&env, backups).expect("opens");
    assert_eq!(store.list().expect("readable").len(), 1);
    store.verify(number, &mut |_| ()).expect("sound");
    assert!(store.delete(number).is_err(), "nothing can be changed");
}

#[test]
fn a_check_and_a_writer_keep_each_other_away() {
    let machine = SimMachine::from_seed(14);
    let db = open(&machine);
    fill(&db, 0, 20);
    assert!(matches!(check(&machine.env(), Path::new(DIR)), Err(Error::InUse { .. })));
    db.close().expect("closes");
    let (one, two) = (lock_to_read(&machine.env(), Path::new(DIR)), lock_to_read(&machine.env(), Path::new(DIR)));
    assert!(one.as_ref().is_ok_and(|lock| lock.is_some()) && two.is_ok(), "several may read");
    let ops = machine.fs.ops();
    assert!(check(&machine.env(), Path::new(DIR)).expect("readable").is_sound());
    assert_eq!(machine.fs.ops(), ops, "not one operation that changes anything");
    assert!(matches!(try_open(&restarted(&machine, 15)), Err(Error::InUse { .. })));
    drop((one, two));
    open(&restarted(&machine, 16)).close().expect("closes");
}
