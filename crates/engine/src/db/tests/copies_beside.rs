//! Copies that are made while others ingest, write, delete backups.

use super::*;
use crate::copy::{BackupStore, CopyProgress, files_of_version};
use crate::version::{copy_edit, write_fresh};
use crate::{IngestOptions, IngestWriter};
use kontiki_env::Env;
use kontiki_env::fs::{Fs, OpenMode, read_all};
use kontiki_env::tasks::Threads;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn threaded(machine: &SimMachine) -> Env {
    Env { tasks: Arc::new(Threads), clock: Env::real().clock, ..machine.env() }
}

/// A table with the keys of `rows`, all with the value `value`.
fn table(machine: &SimMachine, name: &str, keys: std::ops::Range<usize>, value: &str) -> PathBuf {
    machine.fs.create_dir_all(Path::new("/outside")).expect("written");
    let path = Path::new("/outside").join(name);
    let options = small_options().table;
    let mut writer = IngestWriter::create_in(&machine.env(), &path, Family::DEFAULT, options).expect("written");
    for key in keys {
        writer.put(format!("in{key:03}").as_bytes(), value.as_bytes()).expect("ascending");
    }
    writer.finish().expect("written").path
}

fn text(db: &Db, key: &str) -> Option<String> {
    db.get(key.as_bytes()).expect("readable").map(|value| String::from_utf8_lossy(&value).into_owned())
}

/// A copy of a version that has a table above its flushed number, as earlier versions of kontiki made it beside an
/// ingest.
fn old_copy(machine: &SimMachine, db: &Db, target: &Path) {
    let version = db.core().shared().context.versions.current();
    assert!(version.newest_sequence() > version.flushed_sequence(), "the ingested table is above what is flushed");
    let edit =
        copy_edit(&version, &version, db.core().shared().context.versions.new_file_number()).expect("no open segments");
    for (from, to) in files_of_version(&edit, Path::new(DIR), target) {
        machine.fs.create_dir_all(to.parent().expect("in a directory")).expect("written");
        machine.fs.link(&from, &to).expect("written");
    }
    write_fresh(&machine.env(), target, &edit).expect("written");
}

#[test]
fn a_copy_with_tables_above_its_flushed_number_does_not_give_their_numbers_out_again() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    db.write(put("a", "flushed"), Durability::Sync).expect("written");
    db.flush().expect("written");
    for i in 0..20 {
        db.write(put(&format!("a{i}"), "not flushed"), Durability::Sync).expect("written");
    }
    db.ingest(&[table(&machine, "t", 0..10, "ingested")], IngestOptions::default()).expect("written");
    let target = Path::new("/copy");
    old_copy(&machine, &db, target);
    let ingested = db.core().shared().context.versions.current().newest_sequence();
    for read_only in [true, false] {
        let copy = match read_only {
            true => Db::open_read_only_in(&machine.env(), target, small_options()).expect("opens"),
            false => Db::open_in(&machine.env(), target, small_options()).expect("opens"),
        };
        assert_eq!(copy.stats().visible_sequence, ingested, "read only: {read_only}");
        assert_eq!(text(&copy, "in003").as_deref(), Some("ingested"));
        if read_only {
            continue;
        }
        copy.write(put("in003", "newer"), Durability::Sync).expect("written");
        assert_eq!(text(&copy, "in003").as_deref(), Some("newer"));
        copy.flush().expect("written");
        assert_eq!(text(&copy, "in003").as_deref(), Some("newer"));
        copy.compact().expect("written");
        assert_eq!(text(&copy, "in003").as_deref(), Some("newer"));
        copy.close().expect("closes");
    }
    let copy = Db::open_in(&machine.env(), target, small_options()).expect("opens again");
    assert_eq!(text(&copy, "in003").as_deref(), Some("newer"));
}

/// Set when it is dropped, so that threads end when a test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a copy holds is what was there at one number: a write that was answered before an ingest is in every copy that
/// has the ingest, and no table of the copy is above its number.
#[test]
fn a_checkpoint_beside_ingests_holds_one_moment() {
    let machine = SimMachine::from_seed(2);
    let db = Db::open_in(&threaded(&machine), Path::new(DIR), small_options()).expect("opens");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                db.write(put("round", &format!("{round:06}")), Durability::Buffered).expect("written");
                let file = table(&machine, "t", 0..3, &format!("{round:06}"));
                db.ingest(&[file], IngestOptions { move_file: true }).expect("written");
            }
        });
        let _stop = StopAtEnd(&stop);
        for copies in 0..40 {
            let target = PathBuf::from(format!("/copy{copies}"));
            let report = db.checkpoint(&target).expect("written");
            let copy = Db::open_in(&machine.env(), &target, small_options()).expect("opens");
            let version = copy.core().shared().context.versions.current();
            assert!(version.newest_sequence() <= report.sequence, "copy {copies}: {report:?}");
            let (round, ingested) = (text(&copy, "round"), text(&copy, "in001"));
            assert!(round >= ingested, "copy {copies} has ingest {ingested:?} and not the write {round:?} before it");
        }
    });
    assert_eq!(db.stats().health.stopped, None);
}

fn value(seed: usize) -> String {
    format!("{seed:08}").repeat(60)
}

fn write_rows(db: &Db, from: usize, to: usize, salt: usize) {
    for i in from..to {
        db.write(put(&format!("row{i:04}"), &value(i + salt)), Durability::Buffered).expect("written");
    }
}

fn backup_store(machine: &SimMachine) -> BackupStore {
    BackupStore::open_in(&machine.env(), Path::new("/backups")).expect("opens")
}

/// What a backup restores to.
fn restored(machine: &SimMachine, store: &BackupStore, number: u64, dir: &str) -> Vec<(String, String)> {
    store.verify(number, &mut |_| ()).expect("sound");
    store.restore(number, Path::new(dir), &mut |_| ()).expect("written");
    let db = Db::open_in(&machine.env(), Path::new(dir), small_options()).expect("opens");
    dump(&db.snapshot(), Family::DEFAULT)
}

#[test]
fn a_backup_that_is_deleted_while_another_is_made_takes_nothing_from_it() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    let store = backup_store(&machine);
    write_rows(&db, 0, 60, 0);
    db.compact().expect("written");
    machine.tasks.run_until_idle(10_000);
    let first = store.create(&db, &mut |_| ()).expect("written").number;
    write_rows(&db, 60, 120, 0);
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    let mut deleted = false;
    let made = store.create(&db, &mut |progress| {
        // In the middle: some files are there, and no record names them yet.
        if progress.files_done + 1 == progress.files && !deleted {
            deleted = true;
            store.delete(first).expect("deletes");
        }
    });
    let number = made.expect("written").number;
    assert!(deleted, "the deletion was in the middle");
    assert_eq!(restored(&machine, &store, number, "/restored"), expected);
}

#[test]
fn two_backups_at_once_are_two_backups() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine);
    let store = backup_store(&machine);
    write_rows(&db, 0, 60, 0);
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    let mut inner = None;
    let create = |progress: &mut dyn FnMut(CopyProgress)| store.create(&db, progress).expect("written").number;
    let outer = create(&mut |_| {
        if inner.is_none() {
            let another = std::thread::scope(|scope| scope.spawn(|| create(&mut |_| ())).join());
            inner = Some(another.expect("it is made"));
        }
    });
    let inner = inner.expect("it was made");
    assert_ne!(inner, outer);
    assert_eq!(restored(&machine, &store, inner, "/inner"), expected);
    assert_eq!(restored(&machine, &store, outer, "/outer"), expected);
}

/// Copies every file of a directory, as `cp -a` would.
fn copy_tree(machine: &SimMachine, from: &Path, to: &Path) {
    machine.fs.create_dir_all(to).expect("written");
    for name in machine.fs.list(from).expect("listed") {
        let (from, to) = (from.join(&name), to.join(&name));
        match read_all(&machine.fs, &from) {
            Ok(bytes) => {
                let file = machine.fs.open(&to, OpenMode::CreateNew).expect("written");
                file.write_at(&bytes, 0).and_then(|()| file.sync()).expect("written");
            }
            Err(_) => copy_tree(machine, &from, &to),
        }
    }
    machine.fs.sync_dir(to).expect("synced");
}

#[test]
fn a_backup_of_a_copied_directory_never_takes_files_of_the_other() {
    let machine = SimMachine::from_seed(5);
    let store = backup_store(&machine);
    let db = open(&machine);
    write_rows(&db, 0, 100, 0);
    store.create(&db, &mut |_| ()).expect("written");
    db.close().expect("closes");
    copy_tree(&machine, Path::new(DIR), Path::new("/clone"));
    // Both go on, with values of the same lengths under the same keys: their files have the same numbers and sizes.
    let mut made = Vec::new();
    for (dir, salt) in [(DIR, 1000), ("/clone", 2000)] {
        let machine = restarted(&machine, salt as u64);
        let db = Db::open_in(&machine.env(), Path::new(dir), small_options()).expect("opens");
        write_rows(&db, 0, 100, salt);
        db.flush().expect("written");
        let number = store.create(&db, &mut |_| ()).expect("written").number;
        made.push((number, dump(&db.snapshot(), Family::DEFAULT)));
        // Once it has its own backup, the next one is incremental again.
        let again = store.create(&db, &mut |_| ()).expect("written");
        assert!(again.copied_bytes.is_some_and(|copied| copied < again.bytes / 2), "{again:?}");
        db.close().expect("closes");
    }
    for (number, expected) in made {
        assert_eq!(restored(&machine, &store, number, &format!("/restored{number}")), expected);
    }
}

#[test]
fn a_backup_of_a_directory_whose_manifest_went_back_takes_nothing_of_what_came_after() {
    let machine = SimMachine::from_seed(6);
    let store = backup_store(&machine);
    let db = open(&machine);
    write_rows(&db, 0, 50, 0);
    db.close().expect("closes");
    copy_tree(&machine, Path::new(DIR), Path::new("/older"));
    let at = |seed| restarted(&machine, seed);
    let db = open(&at(1));
    write_rows(&db, 0, 100, 1000);
    db.flush().expect("written");
    store.create(&db, &mut |_| ()).expect("written");
    db.close().expect("closes");
    // All but the identity is as it was: an operator has restored what a backup of files held.
    copy_tree(&machine, Path::new("/older"), Path::new("/back"));
    let identity = read_all(&machine.fs, &Path::new(DIR).join("IDENTITY")).expect("a backup made it");
    let file = machine.fs.open(Path::new("/back/IDENTITY"), OpenMode::CreateNew).expect("written");
    file.write_at(&identity, 0).and_then(|()| file.sync()).expect("written");
    let machine = at(2);
    let db = Db::open_in(&machine.env(), Path::new("/back"), small_options()).expect("opens");
    write_rows(&db, 0, 100, 2000);
    db.flush().expect("written");
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    let number = store.create(&db, &mut |_| ()).expect("written").number;
    assert_eq!(restored(&machine, &store, number, "/restored"), expected);
}

#[test]
fn one_damaged_record_leaves_the_other_backups_usable() {
    let machine = SimMachine::from_seed(7);
    let store = backup_store(&machine);
    let db = open(&machine);
    for round in 0..3 {
        write_rows(&db, 0, 50, round);
        store.create(&db, &mut |_| ()).expect("written");
    }
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    let records = Path::new("/backups/backups");
    let names = machine.fs.list(records).expect("listed");
    machine.fs.flip_bit(&records.join(&names[1]), 40, 2).expect("there");
    let listed = store.list().expect("the others can be listed");
    assert_eq!(listed.iter().map(|info| info.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(listed.iter().map(|info| info.damage.is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert!(listed[2].copied_bytes.is_some_and(|copied| copied > 0), "what it copied is recorded: {listed:?}");
    assert!(store.verify(2, &mut |_| ()).is_err());
    // What the damaged one shares with others is not known, so all of it stays.
    store.delete(1).expect("deletes");
    assert_eq!(restored(&machine, &store, 3, "/three"), expected);
    let made = store.create(&db, &mut |_| ()).expect("written").number;
    assert_eq!(restored(&machine, &store, made, "/four"), expected);
    let before = machine.fs.used_bytes();
    store.delete(2).expect("a damaged one can be deleted");
    assert!(machine.fs.used_bytes() < before, "what only the deleted ones needed was deleted");
    assert_eq!(restored(&machine, &store, 3, "/again"), expected);
    assert!(store.list().expect("readable").iter().all(|info| info.bytes > 0));
}

#[test]
fn a_restore_that_failed_is_not_taken_for_a_new_database() {
    let machine = SimMachine::from_seed(8);
    let store = backup_store(&machine);
    let db = open(&machine);
    write_rows(&db, 0, 50, 0);
    store.create(&db, &mut |_| ()).expect("written");
    let files = Path::new("/backups/files");
    let name = machine.fs.list(files).expect("listed").remove(0);
    machine.fs.rename(&files.join(&name), &files.join("elsewhere")).expect("there");
    let target = Path::new("/restored");
    assert!(store.restore(1, target, &mut |_| ()).is_err());
    let open = |dir: &Path| Db::open_in(&machine.env(), dir, small_options());
    let error = open(target).expect_err("it is no database").to_string();
    assert!(error.contains("/restored") && error.contains("remove"), "{error}");
    assert!(crate::inspect::check(&machine.env(), target).is_err(), "nor is it a sound one");
    let error = store.restore(1, target, &mut |_| ()).expect_err("not empty").to_string();
    assert!(error.contains("remove"), "{error}");
    machine.fs.rename(&files.join("elsewhere"), &files.join(&name)).expect("there");
    store.restore(1, Path::new("/second"), &mut |_| ()).expect("whole");
    open(Path::new("/second")).expect("opens").close().expect("closes");
}
