//! Families that come and go.

use super::values::{large_values, text, value_files};
use super::*;
use crate::inspect::check;
use crate::{Error, FamilyOptions, Options};
use kontiki_env::Env;
use kontiki_env::fs::{CrashMode, Fs, Op};
use kontiki_env::tasks::Threads;
use std::sync::Arc;

const NEW: Family = Family(9);

/// Options that name no family, so that a directory opens whatever families it has.
fn nameless() -> Options {
    Options { families: Vec::new(), ..small_options() }
}

fn spec(family: Family, name: &str) -> FamilySpec {
    let options = FamilyOptions { value_threshold_bytes: 0, ..FamilyOptions::default() };
    FamilySpec { family, name: name.to_string(), options }
}

fn put_in(family: Family, key: &str, value: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(family, key.as_bytes(), value.as_bytes());
    batch
}

fn names(db: &Db) -> Vec<(u32, String)> {
    db.families().into_iter().map(|spec| (spec.family.0, spec.name)).collect()
}

fn is_dropped<T>(result: crate::Result<T>, family: Family) -> bool {
    matches!(result, Err(Error::FamilyDropped { family: named }) if named == family)
}

fn tables(machine: &SimMachine) -> usize {
    machine.fs.list(&Path::new(DIR).join("tables")).expect("listed").len()
}

#[test]
fn a_created_family_is_there_at_once_and_after_a_restart() {
    open_with(nameless);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    assert!(matches!(db.write(put_in(NEW, "k", "v"), Durability::Sync), Err(Error::InvalidArgument(_))));
    let mut wanted = spec(NEW, "new");
    wanted.options.value_threshold_bytes = 100;
    db.create_family(wanted.clone()).expect("written");
    db.write(put_in(NEW, "k", "v"), Durability::Sync).expect("written");
    db.write(put_in(NEW, "large", &text(300, 1)), Durability::Sync).expect("written");
    assert_eq!(value_files(&machine).len(), 1, "its own threshold counts");
    assert_eq!(db.families()[1], wanted);
    for (family, name) in [(NEW, "other name"), (Family(10), "new"), (Family(0), "x"), (Family(10), "default")] {
        assert!(matches!(db.create_family(spec(family, name)), Err(Error::InvalidArgument(_))), "{family:?} {name}");
    }
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    let machine = restarted(&machine, 2);
    let db = open(&machine);
    assert_eq!(names(&db), [(0, "default".to_string()), (9, "new".to_string())]);
    assert_eq!(db.get_in(NEW, b"k").expect("readable").as_deref(), Some(&b"v"[..]));
    assert_eq!(db.get_in(NEW, b"large").expect("readable").map(|value| value.len()), Some(300));
    assert_eq!(db.families()[1].options, FamilyOptions::default(), "options are not in the manifest");
}

#[test]
fn a_dropped_family_is_readable_only_through_older_snapshots() {
    open_with(nameless);
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    db.create_family(spec(NEW, "new")).expect("written");
    for i in 0..200 {
        let mut batch = put_in(NEW, &format!("{i:03}"), "value of some length");
        batch.put(Family::DEFAULT, format!("{i:03}").as_bytes(), b"stays");
        db.write(batch, Durability::Buffered).expect("written");
    }
    db.flush().expect("written");
    let mut batch = put_in(NEW, "in memory", "value");
    batch.delete_range(NEW, b"100"..b"110");
    db.write(batch, Durability::Sync).expect("written");
    machine.tasks.run_until_idle(10_000);
    let snapshot = db.snapshot();
    let before = dump(&snapshot, NEW);
    assert_eq!(before.len(), 191);
    let mut entries = snapshot.entries(NEW, Range::all(), Direction::Forward).expect("there");
    let mut transaction = db.transaction();
    transaction.put_in(NEW, b"pending", b"1").expect("there");

    db.drop_family(NEW).expect("written");
    assert!(is_dropped(db.get_in(NEW, b"000"), NEW));
    assert!(is_dropped(db.multi_get(NEW, &[b"000"]), NEW));
    assert!(is_dropped(db.write(put_in(NEW, "k", "v"), Durability::Sync), NEW));
    assert!(is_dropped(db.write(put_in(NEW, "k", "v"), Durability::Derived), NEW));
    assert!(is_dropped(db.scan(NEW, Range::all(), Direction::Forward, crate::ReadOptions::default()), NEW));
    assert!(is_dropped(db.drop_family(NEW), NEW));
    assert!(is_dropped(transaction.commit(), NEW));
    assert!(matches!(db.drop_family(Family::DEFAULT), Err(Error::InvalidArgument(_))));
    assert!(matches!(db.drop_family(Family(77)), Err(Error::InvalidArgument(_))));
    assert_eq!(names(&db), [(0, "default".to_string())]);

    let files = tables(&machine);
    db.flush().expect("what memory has of it is left behind");
    db.compact().expect("written");
    assert_eq!(dump(&snapshot, NEW), before, "an older snapshot does not change");
    for (key, _) in &before {
        assert_eq!(entries.next().transpose().expect("readable").expect("there").0, key.as_bytes());
    }
    drop((snapshot, entries));
    machine.tasks.run_until_idle(10_000);
    assert!(tables(&machine) < files, "its tables go with the last reader");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 200);
    assert_eq!(db.stats().health.stopped, None);
}

#[test]
fn a_number_is_used_once_and_a_name_may_come_back() {
    open_with(nameless);
    let machine = SimMachine::from_seed(4);
    let db = open(&machine);
    db.create_family(spec(NEW, "new")).expect("written");
    db.write(put_in(NEW, "old", "v"), Durability::Sync).expect("written");
    db.drop_family(NEW).expect("written");
    let error = db.create_family(spec(NEW, "another")).expect_err("used up");
    assert!(error.to_string().contains("a number is used once"), "{error}");
    db.create_family(spec(Family(10), "new")).expect("the name is free");
    assert_eq!(db.get_in(Family(10), b"old").expect("there"), None);
    db.write(put_in(Family(10), "k", "v"), Durability::Sync).expect("written");
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    let machine = restarted(&machine, 5);
    let with = |spec| Options { families: vec![spec], ..nameless() };
    let error = Db::open_in(&machine.env(), Path::new(DIR), with(spec(NEW, "new"))).expect_err("used up");
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("was dropped")), "{error}");
    let db = Db::open_in(&machine.env(), Path::new(DIR), with(spec(Family(10), "new"))).expect("opens");
    assert!(is_dropped(db.get_in(NEW, b"old"), NEW), "it is remembered");
    assert_eq!(db.get_in(Family(10), b"k").expect("there").as_deref(), Some(&b"v"[..]));
    drop(db);
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert_eq!(report.problems, [], "records of a dropped family are no damage");
}

#[test]
fn the_space_in_the_value_log_comes_back() {
    fn options() -> Options {
        Options { families: Vec::new(), ..large_values() }
    }
    open_with(options);
    let machine = SimMachine::from_seed(6);
    let db = open(&machine);
    let mut new = spec(NEW, "new");
    new.options.value_threshold_bytes = 1000;
    db.create_family(new).expect("written");
    for i in 0..40 {
        db.write(put_in(NEW, &format!("{i:03}"), &text(1500, i)), Durability::Buffered).expect("written");
    }
    db.flush().expect("written");
    let referred = db.stats().values.referred_bytes;
    assert!(referred > 40 * 1500, "{referred}");
    db.drop_family(NEW).expect("written");
    assert_eq!(db.stats().values.referred_bytes, 0);
    let report = db.collect_value_garbage().expect("written");
    assert!(report.freed_bytes > 40 * 1500 && report.moved_bytes == 0, "{report:?}");
}

#[test]
fn a_full_disk_and_a_failed_sync_leave_the_old_state_or_stop_writes() {
    open_with(nameless);
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    db.create_family(spec(NEW, "new")).expect("written");
    db.write(put_in(NEW, "k", "v"), Durability::Sync).expect("written");
    let manifest = |path: &Path| path.to_string_lossy().contains("MANIFEST");
    machine.fs.fail_next(Op::Write, 1, manifest);
    db.drop_family(NEW).expect_err("the append fails");
    assert_eq!(db.get_in(NEW, b"k").expect("still there").as_deref(), Some(&b"v"[..]));
    db.write(put_in(NEW, "k", "v2"), Durability::Sync).expect("and writable");
    machine.fs.fail_next(Op::Write, 1, manifest);
    db.create_family(spec(Family(20), "twenty")).expect_err("the append fails");
    db.create_family(spec(Family(20), "twenty")).expect("there is space again");
    machine.fs.fail_next(Op::Sync, 1, manifest);
    db.drop_family(NEW).expect_err("the sync fails");
    assert!(matches!(db.write(put("k", "v"), Durability::Sync), Err(Error::Stopped(_))), "nothing is known any more");
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    let db = open(&restarted(&machine, 8));
    let found = db.get_in(NEW, b"k");
    assert!(is_dropped(found.clone(), NEW) || found.expect("there").as_deref() == Some(&b"v2"[..]));
}

/// Creates, writes, drops, and notes what was acknowledged.
fn script(machine: &SimMachine) -> crate::Result<()> {
    let db = try_open(machine)?;
    for round in 0..3 {
        let family = Family(20 + round);
        db.create_family(spec(family, "comes and goes"))?;
        ACKNOWLEDGED.with_borrow_mut(|log| log.push((family, true)));
        for i in 0..30 {
            let mut batch = put_in(family, &format!("{i:02}"), "value of some length, for a memtable to fill up");
            batch.put(Family::DEFAULT, format!("{round}-{i:02}").as_bytes(), b"v");
            db.write(batch, Durability::Sync)?;
        }
        if round == 1 {
            db.flush()?;
        }
        machine.tasks.run_until_idle(1000);
        db.drop_family(family)?;
        ACKNOWLEDGED.with_borrow_mut(|log| log.push((family, false)));
        machine.tasks.run_until_idle(1000);
    }
    Ok(())
}

thread_local! {
    static ACKNOWLEDGED: std::cell::RefCell<Vec<(Family, bool)>> = const { std::cell::RefCell::new(Vec::new()) };
}

#[test]
fn power_loss_at_every_operation_keeps_what_was_acknowledged() {
    open_with(nameless);
    for ops in 0.. {
        ACKNOWLEDGED.with_borrow_mut(Vec::clear);
        let machine = SimMachine::from_seed(9);
        machine.fs.power_off_after(ops);
        let finished = script(&machine).is_ok();
        let acknowledged = ACKNOWLEDGED.with_borrow(Clone::clone);
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Pages] {
            let after = SimMachine { fs: machine.fs.fork(Rng::new(ops)), ..restarted(&machine, ops) };
            after.fs.crash(mode);
            let db = try_open(&after).unwrap_or_else(|error| panic!("power off at {ops}, {mode:?}: {error}"));
            for (i, (family, created)) in acknowledged.iter().enumerate() {
                let last = i + 1 == acknowledged.len();
                let found = db.get_in(*family, b"00");
                match (created, last) {
                    (false, _) => assert!(is_dropped(found, *family), "power off at {ops}, {mode:?}"),
                    // The drop may have been under way.
                    (true, true) => assert!(found.is_ok() || is_dropped(found, *family), "power off at {ops}"),
                    (true, false) => {}
                }
            }
            db.write(put("more", "1"), Durability::Sync).expect("it continues");
            db.compact().expect("written");
            drop(db);
            let report = check(&after.env(), Path::new(DIR)).expect("readable");
            assert_eq!(report.problems, [], "power off at {ops}, {mode:?}");
        }
        if finished {
            assert!(ops > 100, "the script has become too short: {ops}");
            return;
        }
    }
}

#[test]
fn only_writers_of_a_dropped_family_get_the_error() {
    open_with(nameless);
    let machine = SimMachine::from_seed(10);
    let env = Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new(DIR), nameless()).expect("opens");
    for round in 0..20 {
        let family = Family(100 + round);
        db.create_family(spec(family, "short-lived")).expect("written");
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let db = &db;
                scope.spawn(move || {
                    let durability = [Durability::Sync, Durability::Buffered, Durability::Derived][thread];
                    for i in 0.. {
                        let key = format!("{thread}-{i:04}");
                        let mut batch = put_in(family, &key, "value of some length");
                        batch.put(Family::DEFAULT, key.as_bytes(), b"v");
                        match db.write(batch, durability) {
                            Ok(_) => {}
                            refused => return assert!(is_dropped(refused, family)),
                        }
                    }
                });
            }
            scope.spawn(|| {
                while db.snapshot().get_in(family, b"0-0010").ok().flatten().is_none() {
                    std::thread::yield_now();
                }
                db.drop_family(family).expect("written");
            });
        });
        let sequence = db.stats().visible_sequence;
        assert!(is_dropped(db.write(put_in(family, "k", "v"), Durability::Sync), family));
        assert_eq!(db.stats().visible_sequence, sequence, "no number was taken");
    }
    db.compact().expect("written");
    assert_eq!(db.stats().health.stopped, None);
}

#[test]
fn a_family_that_is_opened_by_name_alone_keeps_its_number_until_it_is_dropped() {
    fn by_name() -> Options {
        let families = ["default", "crew", "cargo"].map(FamilySpec::named).to_vec();
        Options { families, ..small_options() }
    }
    open_with(by_name);
    let mut machine = SimMachine::from_seed(11);
    let mut db = open(&machine);
    let expected = |db: &Db, crew: u32, cargo: u32| {
        let numbers = ["default", "crew", "cargo", "absent"].map(|name| db.family(name).map(|family| family.0));
        assert_eq!(numbers, [Some(0), Some(crew), Some(cargo), None]);
    };
    expected(&db, 1, 2);
    assert_eq!(db.families()[1].options, FamilyOptions::default(), "its options count");
    db.write(put_in(Family(1), "k", "old"), Durability::Sync).expect("written");
    db.write(put_in(Family(2), "k", "stays"), Durability::Sync).expect("written");
    let created = db.create_family(FamilySpec::named("later")).expect("written");
    assert_eq!(created, Family(3));
    assert!(matches!(db.create_family(FamilySpec::named("later")), Err(Error::InvalidArgument(_))));
    db.drop_family(created).expect("written");
    db.drop_family(Family(1)).expect("written");
    // The log still has what was written to the dropped one.
    for seed in 0..3 {
        machine.fs.crash(CrashMode::LoseUnsynced);
        drop(db);
        machine = restarted(&machine, seed);
        db = open(&machine);
        expected(&db, 4, 2);
        assert_eq!(dump(&db.snapshot(), Family(4)), [], "nothing of the dropped family appears in the new one");
        assert_eq!(dump(&db.snapshot(), Family(2)), [("k".to_string(), "stays".to_string())]);
    }
    let refused = db.create_family(spec(Family(1), "crew again")).expect_err("a number is used once").to_string();
    assert!(refused.contains("FamilySpec::named"), "the remedy: {refused}");
}

/// A drop and a creation under the same name, with a crash at each operation on the file system: what is found
/// afterwards is the old family with its data, none, or a new one without.
#[test]
fn a_crash_at_any_operation_of_a_drop_and_a_creation_mixes_nothing() {
    open_with(nameless);
    let mut at = 0;
    loop {
        let machine = SimMachine::from_seed(12);
        let db = open(&machine);
        let old = db.create_family(FamilySpec::named("crew")).expect("written");
        db.write(put_in(old, "k", "old"), Durability::Sync).expect("written");
        db.flush().expect("written");
        db.write(put_in(old, "l", "old, in the log"), Durability::Sync).expect("written");
        machine.fs.power_off_after(at);
        let replaced = db.drop_family(old).and_then(|()| db.create_family(FamilySpec::named("crew")));
        machine.fs.crash(CrashMode::LoseUnsynced);
        drop(db);
        let machine = restarted(&machine, at);
        let db = open(&machine);
        let found = db.family("crew").map(|family| (family == old, dump(&db.snapshot(), family).len()));
        match &replaced {
            Ok(new) => assert_eq!(db.family("crew"), Some(*new), "at {at}"),
            Err(_) => assert!(matches!(found, Some((true, 2)) | None | Some((false, 0))), "at {at}: {found:?}"),
        }
        if let Some((false, count)) = found {
            assert_eq!(count, 0, "at {at}");
        }
        if replaced.is_ok() {
            break;
        }
        at += 1;
    }
    assert!(at > 2, "each operation of the two was cut off once");
}
