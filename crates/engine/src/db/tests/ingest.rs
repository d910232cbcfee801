//! Tables that were built outside.

use super::*;
use crate::inspect::check;
use crate::{Error, IngestOptions, IngestWriter, Isolation, TransactionOptions};
use kontiki_env::Env;
use kontiki_env::fs::{CrashMode, Fs, Op, read_all};
use kontiki_env::tasks::Threads;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const OUTSIDE: &str = "/outside";

/// Builds a table; an entry without a value is a deletion.
fn build(machine: &SimMachine, name: &str, family: Family, entries: &[(&str, Option<&str>)]) -> PathBuf {
    machine.fs.create_dir_all(Path::new(OUTSIDE)).expect("written");
    let path = Path::new(OUTSIDE).join(name);
    let mut writer = IngestWriter::create_in(&machine.env(), &path, family, small_options().table).expect("written");
    for (key, value) in entries {
        match value {
            Some(value) => writer.put(key.as_bytes(), value.as_bytes()),
            None => writer.delete(key.as_bytes()),
        }
        .expect("ascending");
    }
    writer.finish().expect("written").path
}

fn rows(from: usize, to: usize, value: &str) -> Vec<(String, String)> {
    (from..to).map(|i| (format!("key{i:03}"), format!("{value} {i}"))).collect()
}

fn build_rows(machine: &SimMachine, name: &str, family: Family, rows: &[(String, String)]) -> PathBuf {
    let entries: Vec<_> = rows.iter().map(|(key, value)| (key.as_str(), Some(value.as_str()))).collect();
    build(machine, name, family, &entries)
}

fn ingest(db: &Db, files: &[PathBuf]) -> crate::Result<crate::IngestReport> {
    db.ingest(files, IngestOptions::default())
}

fn write_rows(db: &Db, family: Family, rows: &[(String, String)]) {
    for (key, value) in rows {
        let mut batch = WriteBatch::new();
        batch.put(family, key.as_bytes(), value.as_bytes());
        db.write(batch, Durability::Buffered).expect("written");
    }
}

/// Every table's file is one of the version, once jobs are idle and no reader is open.
fn expect_no_leaks(machine: &SimMachine, db: &Db, what: &str) {
    machine.tasks.run_until_idle(10_000);
    let version = db.core().shared().context.versions.current();
    let live: BTreeSet<String> =
        version.tables().map(|(_, _, table)| format!("{:06}.sst", table.meta().number)).collect();
    let there: BTreeSet<String> =
        machine.fs.list(&Path::new(DIR).join("tables")).expect("listed").into_iter().collect();
    assert_eq!(there, live, "{what}");
}

#[test]
fn what_is_ingested_is_newer_than_what_was_there_and_older_than_what_follows() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 50, "old"));
    db.flush().expect("written");
    write_rows(&db, OTHER, &rows(40, 60, "in memory"));
    let before = db.snapshot();
    let was = dump(&before, OTHER);
    let mut entries = before.entries(OTHER, Range::all(), Direction::Backward).expect("there");

    let mut wanted: Vec<_> = rows(20, 45, "ingested").into_iter().map(|(key, value)| (key, Some(value))).collect();
    wanted[3].1 = None;
    let of = |wanted: &[(String, Option<String>)]| -> Vec<(String, Option<String>)> { wanted.to_vec() };
    let borrowed: Vec<_> = wanted.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    let file = build(&machine, "a.sst", OTHER, &borrowed);
    let report = ingest(&db, std::slice::from_ref(&file)).expect("written");
    assert_eq!((report.tables, report.entries, report.in_level0, report.linked), (1, 25, 1, 0), "{report:?}");
    assert_eq!(db.stats().visible_sequence, report.sequence);

    let mut model: BTreeMap<String, String> = rows(0, 50, "old").into_iter().collect();
    model.extend(rows(40, 60, "in memory"));
    for (key, value) in of(&wanted) {
        match value {
            Some(value) => drop(model.insert(key, value)),
            None => drop(model.remove(&key)),
        }
    }
    let expected = |model: &BTreeMap<String, String>| model.clone().into_iter().collect::<Vec<_>>();
    assert_eq!(dump(&db.snapshot(), OTHER), expected(&model));
    assert_eq!(db.get_in(OTHER, b"key023").expect("readable"), None, "deleted");
    assert_eq!(db.get_in(OTHER, b"key042").expect("readable").as_deref(), Some(&b"ingested 42"[..]));
    let keys = [&b"key019"[..], b"key020", b"key023", b"key059"];
    let found = db.multi_get(OTHER, &keys).expect("readable");
    let found: Vec<_> = found.iter().map(|value| value.as_deref().map(|value| value.len())).collect();
    assert_eq!(found, [Some("old 19".len()), Some("ingested 20".len()), None, Some("in memory 59".len())]);
    assert_eq!(dump(&before, OTHER), was, "an older snapshot does not change");
    assert_eq!(entries.next().transpose().expect("readable").map(|(key, _)| key), Some(Bytes::from_static(b"key059")));

    write_rows(&db, OTHER, &rows(30, 33, "newer"));
    model.extend(rows(30, 33, "newer"));
    assert_eq!(dump(&db.snapshot(), OTHER), expected(&model));
    db.flush().expect("written");
    assert_eq!(dump(&db.snapshot(), OTHER), expected(&model));
    db.compact().expect("written");
    assert_eq!(dump(&db.snapshot(), OTHER), expected(&model));
    assert_eq!(dump(&before, OTHER), was);
    drop((entries, before));
    expect_no_leaks(&machine, &db, "at the end");
    machine.fs.crash(CrashMode::LoseUnsynced);
    drop(db);
    assert_eq!(dump(&open(&restarted(&machine, 2)).snapshot(), OTHER), expected(&model));
    assert!(machine.fs.exists(&file), "a copy was taken");
    assert_eq!(check(&restarted(&machine, 3).env(), Path::new(DIR)).expect("readable").problems, []);
}

#[test]
fn a_table_goes_as_deep_as_nothing_is_in_its_way() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    let levels = |db: &Db| {
        let stats = db.stats();
        stats.family(OTHER).expect("there").levels.iter().map(|level| level.tables).collect::<Vec<_>>()
    };
    let file = |from, to| build_rows(&machine, &format!("{from}.sst"), OTHER, &rows(from, to, "ingested"));
    let report = ingest(&db, &[file(100, 200), file(300, 400)]).expect("written");
    assert_eq!((report.tables, report.in_level0), (2, 0));
    assert_eq!(levels(&db), [0, 0, 0, 0, 0, 0, 2], "the last level");
    let report = ingest(&db, &[file(150, 160)]).expect("written");
    assert_eq!((report.in_level0, levels(&db)[0]), (1, 1), "over the last level it waits in level 0");
    let report = ingest(&db, &[file(200, 300)]).expect("written");
    assert_eq!((report.in_level0, levels(&db)[6]), (0, 3), "between them");
    let expected: Vec<_> = rows(100, 400, "ingested");
    assert_eq!(dump(&db.snapshot(), OTHER), expected);
    db.compact().expect("written");
    assert_eq!(dump(&db.snapshot(), OTHER), expected);
    assert_eq!(ingest(&db, &[]).expect("nothing to do").tables, 0);
}

#[test]
fn a_range_delete_in_memory_hides_nothing_that_is_ingested_after_it() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 30, "old"));
    db.flush().expect("written");
    let mut batch = WriteBatch::new();
    batch.delete_range(OTHER, b"key005"..b"key025");
    db.write(batch, Durability::Sync).expect("written");
    ingest(&db, &[build_rows(&machine, "a.sst", OTHER, &rows(10, 12, "ingested"))]).expect("written");
    let expected = [rows(0, 5, "old"), rows(10, 12, "ingested"), rows(25, 30, "old")].concat();
    assert_eq!(dump(&db.snapshot(), OTHER), expected);
    let mut batch = WriteBatch::new();
    batch.delete_range(OTHER, b"key011"..b"key027");
    db.write(batch, Durability::Sync).expect("written");
    let expected = [rows(0, 5, "old"), rows(10, 11, "ingested"), rows(27, 30, "old")].concat();
    for _ in 0..2 {
        assert_eq!(dump(&db.snapshot(), OTHER), expected);
        db.compact().expect("written");
    }
    drop(db);
    assert_eq!(dump(&open(&restarted(&machine, 4)).snapshot(), OTHER), expected);
}

#[test]
fn transactions_and_conditions_see_an_ingested_key_as_written() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 10, "old"));
    let is_conflict = |result: crate::Result<u64>| matches!(result, Err(Error::Conflict { .. }));
    let begin = |isolation| {
        let options = TransactionOptions { isolation, ..TransactionOptions::default() };
        db.transaction_with(options).expect("options are in range")
    };
    let mut writes = begin(Isolation::Snapshot);
    writes.put_in(OTHER, b"key005", b"mine").expect("in memory");
    let mut elsewhere = begin(Isolation::Snapshot);
    elsewhere.put_in(OTHER, b"key001", b"mine").expect("in memory");
    let mut reads = begin(Isolation::Serializable);
    assert!(reads.get_in(OTHER, b"key006").expect("readable").is_some());
    reads.put_in(OTHER, b"key002", b"mine").expect("in memory");
    let mut absent = begin(Isolation::Serializable);
    assert!(absent.get_in(OTHER, b"key0055").expect("readable").is_none());
    absent.put_in(OTHER, b"key003", b"mine").expect("in memory");
    let since = db.snapshot().sequence();

    let entries = [("key005", Some("i")), ("key0055", Some("i")), ("key006", None)];
    ingest(&db, &[build(&machine, "a.sst", OTHER, &entries)]).expect("written");
    assert!(is_conflict(writes.commit()));
    assert!(is_conflict(reads.commit()), "a deletion is a write");
    assert!(is_conflict(absent.commit()), "no phantoms");
    elsewhere.commit().expect("that key was not written");
    let range = Range { start: Some(Bytes::from_static(b"key0051")), end: Some(Bytes::from_static(b"key0059")) };
    let unchanged = vec![crate::Unchanged::Range { family: OTHER, range, since }];
    assert!(is_conflict(db.commit(Commit { unchanged, ..Commit::new(put("k", "v"), Durability::Sync) })));
}

#[test]
fn files_that_cannot_be_are_refused_and_leave_nothing() {
    let machine = SimMachine::from_seed(6);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 10, "old"));
    db.flush().expect("written");
    let refused = |files: &[PathBuf], expected: &str| {
        let error = ingest(&db, files).expect_err("refused");
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(expected)), "{error}");
        expect_no_leaks(&machine, &db, expected);
    };
    let own = machine.fs.list(&Path::new(DIR).join("tables")).expect("listed").remove(0);
    refused(&[Path::new(DIR).join("tables").join(own)], "table of a database");
    let one = build_rows(&machine, "one.sst", OTHER, &rows(0, 10, "one"));
    let two = build_rows(&machine, "two.sst", OTHER, &rows(9, 20, "two"));
    refused(&[one.clone(), two.clone()], "overlap");
    refused(&[build_rows(&machine, "unknown.sst", Family(77), &rows(0, 1, "x"))], "family 77");
    assert!(matches!(ingest(&db, &[one.clone(), "/outside/none".into()]), Err(Error::Io { .. })));
    machine.fs.create_dir_all(Path::new("/text")).expect("written");
    let text = Path::new("/text/file");
    let file = machine.fs.open(text, kontiki_env::fs::OpenMode::CreateNew).expect("written");
    file.write_at(b"this is no table, however long it is: not at all", 0).expect("written");
    let error = ingest(&db, &[one.clone(), text.to_path_buf()]).expect_err("no table");
    assert!(matches!(&error, Error::Corruption { file, .. } if file == text), "{error}");
    expect_no_leaks(&machine, &db, "no table");
    // The same file in two families does not overlap.
    let default = build_rows(&machine, "default.sst", Family::DEFAULT, &rows(0, 10, "default"));
    ingest(&db, &[one, default]).expect("written");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), rows(0, 10, "default"));
    assert_eq!(dump(&db.snapshot(), OTHER), rows(0, 10, "one"));
    ingest(&db, &[two]).expect("one after the other");
    assert_eq!(dump(&db.snapshot(), OTHER), [rows(0, 9, "one"), rows(9, 20, "two")].concat());
}

#[test]
fn every_flipped_bit_is_refused_with_the_file_that_was_given() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    let path = build_rows(&machine, "a.sst", OTHER, &rows(0, 40, "value"));
    let bytes = read_all(&machine.fs, &path).expect("readable").len() as u64;
    let mut rng = Rng::new(8);
    for offset in 0..bytes {
        let bit = rng.below(8) as u8;
        machine.fs.flip_bit(&path, offset, bit).expect("within the file");
        let error = ingest(&db, std::slice::from_ref(&path)).expect_err("damaged");
        let named =
            matches!(&error, Error::Corruption { file, .. } | Error::UnsupportedFormat { file, .. } if *file == path);
        assert!(named, "a flip at {offset}: {error}");
        machine.fs.flip_bit(&path, offset, bit).expect("within the file");
    }
    expect_no_leaks(&machine, &db, "damaged files");
    ingest(&db, &[path]).expect("sound again");
    assert_eq!(dump(&db.snapshot(), OTHER), rows(0, 40, "value"));
}

#[test]
fn a_moved_file_is_linked_and_its_old_name_goes() {
    let machine = SimMachine::from_seed(9);
    let db = open(&machine);
    let path = build_rows(&machine, "a.sst", OTHER, &rows(0, 100, "value"));
    // A copy would have to create a file.
    machine.fs.fail_next(Op::Create, 1, |path| path.extension().is_some_and(|extension| extension == "sst"));
    let report = db.ingest(std::slice::from_ref(&path), IngestOptions { move_file: true }).expect("written");
    machine.fs.clear_faults();
    assert_eq!(report.linked, 1);
    assert!(!machine.fs.exists(&path));
    assert_eq!(dump(&db.snapshot(), OTHER).len(), 100);
    // Where there are no links it is copied.
    let path = build_rows(&machine, "b.sst", OTHER, &rows(100, 200, "value"));
    machine.fs.fail_next(Op::Link, 1, |_| true);
    let report = db.ingest(std::slice::from_ref(&path), IngestOptions { move_file: true }).expect("written");
    assert_eq!((report.linked, machine.fs.exists(&path)), (0, false));
    // A refused one stays where it is.
    let path = build_rows(&machine, "c.sst", Family(77), &rows(0, 1, "value"));
    db.ingest(std::slice::from_ref(&path), IngestOptions { move_file: true }).expect_err("an unknown family");
    assert!(machine.fs.exists(&path));
    expect_no_leaks(&machine, &db, "moved");
}

#[test]
fn its_number_is_unique_after_a_restart_and_in_a_copy() {
    let machine = SimMachine::from_seed(10);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 10, "old"));
    let report = ingest(&db, &[build_rows(&machine, "a.sst", OTHER, &rows(0, 10, "ingested"))]).expect("written");
    db.checkpoint(Path::new("/copy")).expect("written");
    for (i, dir) in [DIR, "/copy"].into_iter().enumerate() {
        let twin = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(&machine, 20 + i as u64) };
        twin.fs.crash(CrashMode::LoseUnsynced);
        let db = Db::open_in(&twin.env(), Path::new(dir), small_options()).expect("opens");
        assert_eq!(dump(&db.snapshot(), OTHER), rows(0, 10, "ingested"));
        let mut batch = WriteBatch::new();
        batch.put(OTHER, b"key003", b"newer");
        assert!(db.write(batch, Durability::Sync).expect("written") > report.sequence);
        for _ in 0..2 {
            assert_eq!(db.get_in(OTHER, b"key003").expect("readable").as_deref(), Some(&b"newer"[..]));
            db.compact().expect("written");
        }
        // Open for reading only it is all the same.
        drop(db);
        let db = Db::open_read_only_in(&twin.env(), Path::new(dir), small_options()).expect("opens");
        assert_eq!(db.get_in(OTHER, b"key003").expect("readable").as_deref(), Some(&b"newer"[..]));
    }
}

/// Writes around two ingests of two files each; notes what was acknowledged.
fn script(machine: &SimMachine, acknowledged: &mut Vec<&'static str>) -> crate::Result<()> {
    let files: Vec<PathBuf> = ["a.sst", "b.sst", "c.sst", "d.sst"].map(|name| Path::new(OUTSIDE).join(name)).to_vec();
    let db = try_open(machine)?;
    let write = |name: &str| {
        let mut batch = WriteBatch::new();
        batch.put(OTHER, b"key007", name.as_bytes());
        batch.put(Family::DEFAULT, b"key007", name.as_bytes());
        db.write(batch, Durability::Sync).map(drop)
    };
    write("before")?;
    acknowledged.push("before");
    db.ingest(&files[..2], IngestOptions::default())?;
    acknowledged.push("first 7");
    write("between")?;
    acknowledged.push("between");
    db.ingest(&files[2..], IngestOptions { move_file: true })?;
    acknowledged.push("second 7");
    write("after")?;
    acknowledged.push("after");
    machine.tasks.run_until_idle(1000);
    Ok(())
}

fn script_files(machine: &SimMachine) {
    for (name, family, value) in [
        ("a.sst", OTHER, "first"),
        ("b.sst", Family::DEFAULT, "first"),
        ("c.sst", OTHER, "second"),
        ("d.sst", Family::DEFAULT, "second"),
    ] {
        build_rows(machine, name, family, &rows(5, 10, value));
    }
}

/// Both families show the same step of the script, at or after the last acknowledged one.
fn check_script(db: &Db, acknowledged: &[&str], what: &str) {
    let steps = ["", "before", "first 7", "between", "second 7", "after"];
    let [one, other] = [Family::DEFAULT, OTHER].map(|family| dump(&db.snapshot(), family));
    assert_eq!(one, other, "{what}: both files of an ingest or none");
    let found = one.iter().find(|(key, _)| key == "key007").map_or("", |(_, value)| value.as_str());
    let step = |name: &str| steps.iter().position(|step| *step == name).unwrap_or_else(|| panic!("{what}: {name}"));
    let least = acknowledged.last().map_or(0, |name| step(name));
    assert!((least..=least + 1).contains(&step(found)), "{what}: {found:?} after {acknowledged:?}");
    let of_ingest = one.iter().filter(|(key, _)| key != "key007").map(|(_, value)| value.split(' ').next());
    let names: BTreeSet<_> = of_ingest.collect();
    let expected: &[Option<&str>] = match step(found) {
        0 | 1 => &[],
        2 | 3 => &[Some("first")],
        _ => &[Some("second")],
    };
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected, "{what}");
}

#[test]
fn power_loss_at_every_operation_leaves_all_or_nothing() {
    for ops in 0.. {
        let machine = SimMachine::from_seed(11);
        script_files(&machine);
        let mut acknowledged = Vec::new();
        machine.fs.power_off_after(ops);
        let finished = script(&machine, &mut acknowledged).is_ok();
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages] {
            let what = format!("power off at {ops}, {mode:?}");
            let after = SimMachine { fs: machine.fs.fork(Rng::new(ops)), ..restarted(&machine, ops) };
            after.fs.crash(mode);
            let db = try_open(&after).unwrap_or_else(|error| panic!("{what}: {error}"));
            check_script(&db, &acknowledged, &what);
            expect_no_leaks(&after, &db, &what);
            write_rows(&db, OTHER, &rows(7, 8, "more"));
            assert_eq!(db.get_in(OTHER, b"key007").expect("readable").as_deref(), Some(&b"more 7"[..]), "{what}");
            db.compact().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(db.get_in(OTHER, b"key007").expect("readable").as_deref(), Some(&b"more 7"[..]), "{what}");
            drop(db);
            assert_eq!(check(&after.env(), Path::new(DIR)).expect("readable").problems, [], "{what}");
        }
        if finished {
            assert!(ops > 60, "the script has become too short: {ops}");
            return;
        }
    }
}

#[test]
fn any_operation_that_fails_leaves_all_or_nothing() {
    for op in [Op::Read, Op::Write, Op::Sync, Op::Create, Op::Rename, Op::Link, Op::SyncDir, Op::Remove] {
        for nth in 0..60u64 {
            let machine = SimMachine::from_seed(12);
            script_files(&machine);
            let mut acknowledged = Vec::new();
            // The n-th such operation on the database's files, once it is open.
            let db = open(&machine);
            drop(db);
            let counter = std::sync::atomic::AtomicU64::new(0);
            machine.fs.fail_next(op, 1, move |_| counter.fetch_add(1, Ordering::Relaxed) == nth);
            let machine = restarted(&machine, nth);
            let outcome = script(&machine, &mut acknowledged);
            machine.fs.clear_faults();
            let what = format!("{op:?} {nth}: {outcome:?}");
            machine.fs.crash(CrashMode::LoseUnsynced);
            let machine = restarted(&machine, nth + 100);
            let db = try_open(&machine).unwrap_or_else(|error| panic!("{what}: {error}"));
            check_script(&db, &acknowledged, &what);
            expect_no_leaks(&machine, &db, &what);
        }
    }
}

#[test]
fn a_full_disk_takes_nothing_in_and_writes_go_on() {
    let machine = SimMachine::from_seed(13);
    let db = open(&machine);
    write_rows(&db, OTHER, &rows(0, 20, "old"));
    db.flush().expect("written");
    machine.tasks.run_until_idle(1000);
    let path = build_rows(&machine, "a.sst", OTHER, &rows(0, 300, "ingested"));
    machine.fs.set_quota(Some(machine.fs.used_bytes() + 1000));
    assert!(matches!(ingest(&db, std::slice::from_ref(&path)), Err(Error::NoSpace { .. })));
    assert_eq!(dump(&db.snapshot(), OTHER), rows(0, 20, "old"));
    db.put(b"k", b"v").expect("the log has its space");
    machine.fs.set_quota(None);
    expect_no_leaks(&machine, &db, "a full disk");
    ingest(&db, &[path]).expect("written");
    assert_eq!(dump(&db.snapshot(), OTHER).len(), 300);
}

/// Random writes, range deletes, ingests, flushes, compactions, crashes; after each the model and the database agree.
#[test]
fn a_random_history_agrees_with_the_model() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut machine = SimMachine::from_seed(seed);
        let mut db = open(&machine);
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let mut snapshots: Vec<(crate::Snapshot, BTreeMap<String, String>)> = Vec::new();
        for step in 0..120 {
            let at = rng.below(200) as usize;
            let to = at + 1 + rng.below(30) as usize;
            match rng.below(12) {
                0..=4 => {
                    write_rows(&db, OTHER, &rows(at, to, &format!("written {step}")));
                    model.extend(rows(at, to, &format!("written {step}")));
                }
                5 => {
                    let mut batch = WriteBatch::new();
                    let (start, end) = (format!("key{at:03}"), format!("key{to:03}"));
                    batch.delete_range(OTHER, start.as_bytes()..end.as_bytes());
                    db.write(batch, Durability::Sync).expect("written");
                    model.retain(|key, _| *key < start || *key >= end);
                }
                6..=8 => {
                    let value = format!("ingested {step}");
                    let all: Vec<_> = rows(at, to, &value).into_iter().filter(|_| rng.chance(2, 3)).collect();
                    let Some(cut) = all.len().checked_sub(1).map(|most| 1 + rng.below(most as u64 + 1) as usize) else {
                        continue;
                    };
                    let parts = [&all[..cut.min(all.len())], &all[cut.min(all.len())..]];
                    let mut files = Vec::new();
                    for (i, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
                        let entries: Vec<_> = part
                            .iter()
                            .map(|(key, value)| (key.as_str(), (value.len() % 5 != 0).then_some(value.as_str())))
                            .collect();
                        files.push(build(&machine, &format!("{step}-{i}.sst"), OTHER, &entries));
                        for (key, value) in &entries {
                            match value {
                                Some(value) => drop(model.insert(key.to_string(), value.to_string())),
                                None => drop(model.remove(*key)),
                            }
                        }
                    }
                    db.ingest(&files, IngestOptions { move_file: rng.chance(1, 2) }).expect("written");
                }
                9 => db.flush().expect("written"),
                10 if rng.chance(1, 3) => db.compact().expect("written"),
                10 => {
                    for _ in 0..rng.below(50) {
                        machine.env().tasks.step();
                    }
                }
                _ => {
                    snapshots.clear();
                    db.put(b"sync", b"all that was buffered").expect("written");
                    machine.fs.crash(CrashMode::LoseUnsynced);
                    drop(db);
                    machine = restarted(&machine, seed * 1000 + step);
                    db = open(&machine);
                }
            }
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(dump(&db.snapshot(), OTHER), expected, "seed {seed}, step {step}");
            for (snapshot, model) in &snapshots {
                let expected: Vec<_> = model.clone().into_iter().collect();
                assert_eq!(dump(snapshot, OTHER), expected, "seed {seed}, step {step}: an older snapshot");
            }
            if rng.chance(1, 6) {
                snapshots.push((db.snapshot(), model.clone()));
                snapshots.truncate(3);
            }
        }
    }
}

#[test]
fn readers_and_writers_beside_it_see_all_of_it_or_nothing() {
    let machine = SimMachine::from_seed(14);
    let env = Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new(DIR), small_options()).expect("opens");
    const ROUNDS: usize = 25;
    let files: Vec<[PathBuf; 2]> = (0..ROUNDS)
        .map(|round| {
            let value = format!("round {round:03}");
            [OTHER, Family::DEFAULT].map(|family| {
                let rows: Vec<_> = (0..20).map(|i| (format!("key{i:02}"), value.clone())).collect();
                build_rows(&machine, &format!("{round}-{}.sst", family.0), family, &rows)
            })
        })
        .collect();
    ingest(&db, &files[0]).expect("written");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for durability in [Durability::Sync, Durability::Buffered, Durability::Derived] {
            let (db, stop) = (&db, &stop);
            // Within the range, between its keys: memory overlaps time and again.
            scope.spawn(move || {
                for i in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let key = format!("key{:02}-{durability:?}", i % 20);
                    let mut batch = put(&key, &format!("{i:06}"));
                    batch.put(OTHER, key.as_bytes(), format!("{i:06}").as_bytes());
                    db.write(batch, durability).expect("written");
                    let found = db.get(key.as_bytes()).expect("readable").expect("its own write");
                    assert_eq!(found, format!("{i:06}"));
                }
            });
        }
        for _ in 0..2 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut last = String::new();
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot();
                    let [one, other] = [Family::DEFAULT, OTHER].map(|family| dump(&snapshot, family));
                    assert_eq!(one, other, "both families");
                    let values: BTreeSet<_> =
                        one.into_iter().filter(|(key, _)| key.len() == 5).map(|(_, value)| value).collect();
                    let [value] = &values.into_iter().collect::<Vec<_>>()[..] else { panic!("a part of an ingest") };
                    assert!(*value >= last, "{value} after {last}");
                    last.clone_from(value);
                }
            });
        }
        for (round, files) in files.iter().enumerate().skip(1) {
            let report = db.ingest(files, IngestOptions { move_file: true }).expect("written");
            assert_eq!(report.tables, 2);
            let expected = format!("round {round:03}");
            assert_eq!(db.get(b"key07").expect("readable").as_deref(), Some(expected.as_bytes()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.stats().health.stopped, None);
    db.close().expect("closes");
}

#[test]
fn a_close_in_the_middle_is_answered() {
    for round in 0..10 {
        let machine = SimMachine::from_seed(30 + round);
        let env = Env { tasks: Arc::new(Threads), ..machine.env() };
        let db = Db::open_in(&env, Path::new(DIR), small_options()).expect("opens");
        let files: Vec<PathBuf> =
            (0..10).map(|i| build_rows(&machine, &format!("{i}.sst"), OTHER, &rows(0, 100, &format!("{i}")))).collect();
        std::thread::scope(|scope| {
            let ingesting = db.clone();
            let files = &files;
            scope.spawn(move || {
                for file in files {
                    match ingest(&ingesting, std::slice::from_ref(file)) {
                        Ok(_) => write_rows_until_closed(&ingesting),
                        Err(error) => return assert!(matches!(error, Error::Closed), "{error}"),
                    }
                }
            });
            while db.get_in(OTHER, b"key050").is_ok_and(|found| found.is_none()) {
                std::thread::yield_now();
            }
            db.clone().close().expect("closes");
        });
        drop(db);
        let machine = restarted(&machine, round);
        let db = open(&machine);
        assert!(dump(&db.snapshot(), OTHER).len() >= 100);
        expect_no_leaks(&machine, &db, "closed");
    }
}

fn write_rows_until_closed(db: &Db) {
    for (key, value) in rows(0, 20, "written") {
        let mut batch = WriteBatch::new();
        batch.put(OTHER, key.as_bytes(), value.as_bytes());
        if db.write(batch, Durability::Buffered).is_err() {
            return;
        }
    }
}

#[test]
fn a_subscriber_learns_what_to_read_again() {
    let machine = SimMachine::from_seed(15);
    let mut options = small_options();
    options.feed_retention_bytes = 1 << 20;
    let db = Db::open_in(&machine.env(), Path::new(DIR), options.clone()).expect("opens");
    db.put(b"before", b"1").expect("written");
    let mut changes = db.changes(0).expect("all of it is there");
    let report = ingest(&db, &[build_rows(&machine, "a.sst", OTHER, &rows(0, 10, "ingested"))]).expect("written");
    db.put(b"after", b"1").expect("written");
    let expect = |changes: &mut crate::Changes| {
        let mut next = || changes.next().expect("readable").expect("there");
        assert_eq!(next().ingested, []);
        let change = next();
        assert_eq!(change.sequence, report.sequence);
        assert!(change.batch.is_empty());
        let [range] = &change.ingested[..] else { panic!("one table") };
        assert_eq!(
            (range.family, range.smallest_key.as_ref(), range.largest_key.as_ref()),
            (OTHER, &b"key000"[..], &b"key009"[..])
        );
        assert_eq!(next().sequence, report.sequence + 1);
    };
    expect(&mut changes);
    drop((changes, db));
    let machine = restarted(&machine, 16);
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    expect(&mut db.changes(0).expect("all of it is there"));
}

#[test]
fn it_works_on_the_real_machine() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let build = |name: &str, from: usize, to: usize, value: &str| {
        let mut writer = IngestWriter::create(path(name), Family::DEFAULT, small_options().table).expect("written");
        for (key, value) in rows(from, to, value) {
            writer.put(key.as_bytes(), value.as_bytes()).expect("ascending");
        }
        writer.finish().expect("written").path
    };
    let (moved, copied) = (build("moved.sst", 0, 500, "first"), build("copied.sst", 400, 900, "second"));
    let db = Db::open(path("db"), small_options()).expect("opens");
    write_rows(&db, Family::DEFAULT, &rows(450, 460, "old"));
    let report = db.ingest(std::slice::from_ref(&moved), IngestOptions { move_file: true }).expect("written");
    assert_eq!((report.linked, moved.exists()), (1, false));
    ingest(&db, std::slice::from_ref(&copied)).expect("written");
    assert!(copied.exists());
    let stats = db.stats().ingest;
    assert_eq!((stats.ingests, stats.tables), (2, 2));
    assert!(stats.bytes > report.bytes);
    let expected = [rows(0, 400, "first"), rows(400, 900, "second")].concat();
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), expected);
    db.checkpoint(path("copy")).expect("written");
    write_rows(&db, Family::DEFAULT, &rows(0, 10, "newer"));
    let read_only = Db::open_read_only(path("copy"), small_options()).expect("opens next to the writer");
    assert_eq!(dump(&read_only.snapshot(), Family::DEFAULT), expected);
    assert!(matches!(read_only.put(b"k", b"v"), Err(Error::ReadOnly)));
    assert!(!path("copy").join("LOCK").exists() && !path("copy").join("wal").exists(), "nothing was made");
    db.close().expect("closes");
    let db = Db::open(path("db"), small_options()).expect("opens again");
    assert_eq!(
        dump(&db.snapshot(), Family::DEFAULT),
        [rows(0, 10, "newer"), expected.into_iter().skip(10).collect()].concat()
    );
}

/// A commit with conditions waits for all numbers before its own, with the lock that orders commits; an ingest has a
/// number and needs that lock for its sync.
#[test]
#[allow(clippy::disallowed_methods, clippy::type_complexity, reason = "callers on separate threads")]
fn ingests_and_commits_with_conditions_do_not_wait_for_each_other() {
    const TURNS: u64 = 150;
    let machine = SimMachine::from_seed(21);
    let env = Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new(DIR), small_options()).expect("opens");
    let (sender, ended) = std::sync::mpsc::channel();
    let spawn = |work: Box<dyn Fn(&Db, u64) + Send>| {
        let (db, sender) = (db.clone(), sender.clone());
        std::thread::spawn(move || {
            (0..TURNS).for_each(|turn| work(&db, turn));
            sender.send(()).expect("received");
        });
    };
    for thread in 0..3 {
        spawn(Box::new(move |db, turn| {
            let absent = crate::Precondition::Absent { family: Family::DEFAULT, key: "never".into() };
            let durability = if thread == 0 { Durability::Sync } else { Durability::Buffered };
            db.write_if(put(&format!("if {thread}"), &turn.to_string()), &[absent], durability).expect("it holds");
        }));
    }
    spawn(Box::new(|db, turn| db.transact(|tx| tx.put(b"transaction", turn.to_be_bytes())).expect("no conflict")));
    spawn(Box::new(|db, turn| db.put(b"plain", turn.to_be_bytes()).expect("healthy")));
    spawn(Box::new(move |db, turn| {
        let file = build_rows(&machine, &format!("{turn}.sst"), OTHER, &rows(0, 3, &format!("ingest {turn}")));
        ingest(db, &[file]).expect("healthy");
    }));
    for _ in 0..6 {
        ended.recv_timeout(super::threads::DEADLINE).expect("no call waits for ever");
    }
    assert_eq!(dump(&db.snapshot(), OTHER), rows(0, 3, &format!("ingest {}", TURNS - 1)));
    db.close().expect("closed");
}
