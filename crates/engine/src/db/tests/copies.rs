//! Checkpoints and backups.

use super::*;
use crate::Error;
use crate::copy::{BackupStore, CopyProgress};
use kontiki_env::fs::{CrashMode, Op};

const TARGET: &str = "/copy";
const BACKUPS: &str = "/backups";

type Contents = Vec<Vec<(String, String)>>;

fn contents(db: &Db) -> Contents {
    [Family::DEFAULT, OTHER].map(|family| dump(&db.snapshot(), family)).to_vec()
}

fn open_at(machine: &SimMachine, dir: &str) -> crate::Result<Db> {
    Db::open_in(&machine.env(), Path::new(dir), small_options())
}

fn fill(db: &Db, from: usize, to: usize) {
    for i in from..to {
        let mut batch = put(&format!("key{:03}", i % 150), &format!("value {i} of some length"));
        // Every tenth value is large enough for the value log.
        let large = "x".repeat(if i % 10 == 0 { 5000 } else { 1 });
        batch.put(OTHER, format!("other{i}").as_bytes(), large.as_bytes());
        batch.delete(Family::DEFAULT, format!("key{:03}", (i * 7) % 150).as_bytes());
        db.write(batch, Durability::Buffered).expect("written");
    }
}

fn backup(store: &BackupStore, db: &Db) -> crate::Result<crate::copy::BackupInfo> {
    store.create(db, &mut |_| ())
}

fn store(machine: &SimMachine) -> BackupStore {
    BackupStore::open_in(&machine.env(), Path::new(BACKUPS)).expect("opens")
}

#[test]
fn a_checkpoint_is_a_database_of_its_own() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    fill(&db, 0, 400);
    let before = contents(&db);
    db.flush().expect("written");
    machine.tasks.run_until_idle(10_000);
    let used = machine.fs.used_bytes();
    let report = db.checkpoint(Path::new(TARGET)).expect("written");
    assert!(report.linked > 1 && report.copied == 0 && report.bytes > 0);
    assert!(machine.fs.used_bytes() < used + report.bytes / 2, "links take no space");
    fill(&db, 400, 900);
    db.compact().expect("written");
    let after = contents(&db);
    assert_ne!(before, after);

    let copy = open_at(&machine, TARGET).expect("opens");
    assert_eq!(contents(&copy), before);
    assert_eq!(copy.stats().visible_sequence, report.sequence);
    fill(&copy, 0, 300);
    copy.compact().expect("written");
    assert_eq!(contents(&db), after, "neither touches the other");
    copy.close().expect("closes");
    assert_eq!(contents(&open_at(&machine, TARGET).expect("opens again"))[1].len(), before[1].len());
}

#[test]
fn a_checkpoint_survives_power_loss_as_soon_as_it_is_reported() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    fill(&db, 0, 200);
    let before = contents(&db);
    db.checkpoint(Path::new(TARGET)).expect("written");
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    let machine = restarted(&machine, 3);
    assert_eq!(contents(&open_at(&machine, TARGET).expect("opens")), before);
    assert_eq!(contents(&open(&machine)), before, "what is checkpointed is durable");
}

#[test]
fn a_checkpoint_is_refused_where_it_would_harm() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    fill(&db, 0, 10);
    db.checkpoint(Path::new(TARGET)).expect("written");
    let error = db.checkpoint(Path::new(TARGET)).expect_err("not empty").to_string();
    assert!(error.contains(TARGET) && error.contains("not empty"), "{error}");
    db.commit(streams(vec![append(1, 1, &["entry"])], Durability::Sync)).expect("written");
    let error = db.checkpoint(Path::new("/another")).expect_err("served in an earlier version's way").to_string();
    assert!(error.contains("served store") && error.contains("kontiki serve"), "{error}");
}

/// What would make the copy a second node with the same identity stays behind; all data comes along.
#[test]
fn a_copy_of_a_served_directory_is_its_data_without_the_node() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    let data = Family::reserved(0);
    for (family, name) in [(data, "kontiki.txn_default"), (Family(9), "mine")]
        .into_iter()
        .chain(Family::NODE_STATE.into_iter().zip(["kontiki.meta", "kontiki.placement"]))
    {
        db.create_family(FamilySpec::new(family, name)).expect("written");
        let mut batch = WriteBatch::new();
        batch.put(family, b"key", name.as_bytes());
        db.write(batch, Durability::Sync).expect("written");
    }
    db.commit(streams(vec![append(1, 1, &["entry"])], Durability::Sync)).expect("written");
    db.checkpoint(Path::new(TARGET)).expect("written");

    let copy = open_at(&machine, TARGET).expect("opens");
    let names: Vec<String> = copy.families().into_iter().map(|spec| spec.name).collect();
    let own: Vec<&String> = names.iter().filter(|name| name.starts_with(Family::RESERVED_PREFIX)).collect();
    assert_eq!(own, ["kontiki.txn_default"]);
    assert!(names.contains(&"mine".to_owned()), "{names:?}");
    assert!(copy.streams().is_empty());
    assert_eq!(copy.snapshot().get_in(data, b"key").expect("reads").as_deref(), Some(&b"kontiki.txn_default"[..]));
    copy.close().expect("closes");
    let report = crate::inspect::check(&machine.env(), Path::new(TARGET)).expect("readable");
    assert!(report.is_sound(), "{:?}", report.problems);
    assert_eq!(
        db.snapshot().get_in(Family::NODE_STATE[0], b"key").expect("reads").as_deref(),
        Some(&b"kontiki.meta"[..])
    );
}

#[test]
fn whatever_cuts_a_checkpoint_off_the_target_is_whole_or_refused() {
    let mut cut_off = 0;
    for ops in 0.. {
        let machine = SimMachine::from_seed(4);
        let db = open(&machine);
        fill(&db, 0, 60);
        db.flush().expect("written");
        let before = contents(&db);
        machine.fs.power_off_after(ops);
        let done = db.checkpoint(Path::new(TARGET)).is_ok();
        let finished = !machine.fs.is_off();
        drop(db);
        machine.fs.crash(CrashMode::Random);
        machine.fs.clear_faults();
        let machine = restarted(&machine, ops);
        assert_eq!(contents(&open(&machine)), before);
        let copy = open_at(&machine, TARGET);
        match copy {
            Ok(copy) if copy.stats().visible_sequence > 0 => assert_eq!(contents(&copy), before),
            // Cut off before the first link: an empty directory, which an open makes a new database.
            Ok(copy) => assert!(!done && contents(&copy).iter().all(Vec::is_empty)),
            Err(error) => assert!(!done && matches!(error, Error::Corruption { .. }), "{error}"),
        }
        cut_off += u64::from(!done);
        if finished {
            break;
        }
    }
    assert!(cut_off > 10, "the power went off at every operation");
}

#[test]
fn a_backup_copies_only_what_no_other_has_and_restores_exactly() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    let store = store(&machine);
    fill(&db, 0, 400);
    db.compact().expect("written");
    machine.tasks.run_until_idle(10_000); // so that no compaction is left to rewrite what the first backup has
    let first_contents = contents(&db);
    let mut reported = Vec::new();
    let first = store.create(&db, &mut |progress| reported.push(progress)).expect("written");
    let last = *reported.last().expect("it reports progress");
    let all = CopyProgress { files_done: first.files, files: first.files, bytes_done: first.bytes, bytes: first.bytes };
    assert_eq!(last, all);
    assert!(reported.is_sorted_by_key(|progress| progress.bytes_done));
    assert_eq!(first.copied_bytes, Some(first.bytes));
    fill(&db, 400, 420);
    let second_contents = contents(&db);
    let second = backup(&store, &db).expect("written");
    // How much is new depends on what compaction has rewritten meanwhile.
    assert!(second.copied_bytes.is_some_and(|copied| copied < second.bytes * 3 / 4), "{second:?} is incremental");
    assert!(second.sequence > first.sequence && second.number == first.number + 1);
    drop(store);

    let store = self::store(&machine);
    let listed = store.list().expect("readable");
    assert_eq!(
        listed.iter().map(|info| (info.number, info.files)).collect::<Vec<_>>(),
        [(first.number, first.files), (second.number, second.files)]
    );
    for (number, dir, expected) in [(1, "/one", &first_contents), (2, "/two", &second_contents)] {
        store.verify(number, &mut |_| ()).expect("sound");
        store.restore(number, Path::new(dir), &mut |_| ()).expect("written");
        assert_eq!(&contents(&open_at(&machine, dir).expect("opens")), expected);
    }
    let error = store.restore(3, Path::new("/three"), &mut |_| ()).expect_err("no such backup").to_string();
    assert!(error.contains("no backup 3") && error.contains("1, 2"), "{error}");
    assert!(matches!(store.restore(1, Path::new("/one"), &mut |_| ()), Err(Error::InvalidArgument(_))));
}

#[test]
fn backups_of_two_databases_share_a_store_and_deleting_one_spares_the_others() {
    let machine = SimMachine::from_seed(6);
    let (db, other) = (open(&machine), open_at(&machine, "/db2").expect("opens"));
    let store = store(&machine);
    fill(&db, 0, 100);
    fill(&other, 50, 300);
    let expected = contents(&other);
    backup(&store, &db).expect("written");
    backup(&store, &other).expect("written");
    let before = machine.fs.used_bytes();
    store.delete(1).expect("deletes");
    assert!(machine.fs.used_bytes() < before);
    assert!(store.delete(1).is_err(), "it was deleted");
    store.restore(2, Path::new("/restored"), &mut |_| ()).expect("written");
    assert_eq!(contents(&open_at(&machine, "/restored").expect("opens")), expected);
    assert_eq!(backup(&store, &db).expect("written").number, 3, "numbers go on");
}

#[test]
fn a_damaged_backup_is_named_and_never_restored() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    let store = store(&machine);
    fill(&db, 0, 100);
    backup(&store, &db).expect("written");
    let files = Path::new(BACKUPS).join("files");
    let name = machine.env().fs.list(&files).expect("listed")[0].clone();
    machine.fs.flip_bit(&files.join(&name), 40, 3).expect("there");
    let error = store.verify(1, &mut |_| ()).expect_err("damaged").to_string();
    assert!(error.contains(&name), "{error}");
    let target = Path::new("/restored");
    assert!(matches!(store.restore(1, target, &mut |_| ()), Err(Error::Corruption { .. })));
    assert!(open_at(&machine, "/restored").is_err(), "a restore that was cut off is refused");
}

#[test]
fn a_full_or_failing_disk_leaves_the_earlier_backups_as_they_were() {
    let machine = SimMachine::from_seed(8);
    let db = open(&machine);
    let store = store(&machine);
    fill(&db, 0, 100);
    let expected = contents(&db);
    backup(&store, &db).expect("written");
    fill(&db, 100, 300);
    db.flush().expect("written");
    machine.fs.set_quota(Some(machine.fs.used_bytes() + 100));
    assert!(matches!(backup(&store, &db), Err(Error::NoSpace { .. })));
    machine.fs.set_quota(None);
    machine.fs.fail_next(Op::Sync, 1, |path| path.starts_with(BACKUPS));
    assert!(matches!(backup(&store, &db), Err(Error::Io { .. })));
    assert_eq!(store.list().expect("readable").len(), 1);
    store.restore(1, Path::new("/one"), &mut |_| ()).expect("written");
    assert_eq!(contents(&open_at(&machine, "/one").expect("opens")), expected);
    let again = backup(&store, &db).expect("there is space again");
    assert_eq!(again.number, 2);
    store.verify(2, &mut |_| ()).expect("what the failures left was not taken for a whole file");
}

#[test]
fn whatever_cuts_a_backup_off_the_earlier_ones_stay_and_the_next_is_whole() {
    let mut cut_off = 0;
    for ops in 0.. {
        let machine = SimMachine::from_seed(9);
        let db = open(&machine);
        let store = store(&machine);
        fill(&db, 0, 40);
        backup(&store, &db).expect("written");
        fill(&db, 40, 60);
        db.flush().expect("written");
        let expected = contents(&db);
        machine.fs.power_off_after(ops);
        let done = backup(&store, &db).is_ok();
        let finished = !machine.fs.is_off();
        drop((db, store));
        machine.fs.crash(CrashMode::Random);
        machine.fs.clear_faults();
        let machine = restarted(&machine, ops);
        let store = self::store(&machine);
        let listed = store.list().expect("readable");
        assert!(listed.len() == 2 || (!done && listed.len() == 1), "after {ops} operations: {listed:?}");
        for info in &listed {
            store.verify(info.number, &mut |_| ()).expect("what is listed is whole");
        }
        let last = backup(&store, &open(&machine)).expect("written");
        store.restore(last.number, Path::new("/restored"), &mut |_| ()).expect("whole");
        assert_eq!(contents(&open_at(&machine, "/restored").expect("opens")), expected);
        cut_off += u64::from(!done);
        if finished {
            break;
        }
    }
    assert!(cut_off > 5, "the power went off at every operation");
}
