//! Damage on disk: a check finds every byte of it, a repair says what is lost, a backup does not copy it.

use super::values::{large_values, text, value_files};
use super::*;
use crate::Error;
use crate::copy::BackupStore;
use crate::inspect::{check, repair, summarize};
use crate::vlog::parse_value_file_name;
use kontiki_env::fs::{CrashMode, Fs, OpenMode};
use std::path::PathBuf;

/// Rows of which every other value is large, all of them live, flushed and closed.
fn sample(seed: u64) -> SimMachine {
    open_with(large_values);
    let machine = SimMachine::from_seed(seed);
    let db = open(&machine);
    for i in 0..24 {
        let value = text(if i % 2 == 0 { 200 + i } else { 10 }, i);
        db.write(put(&format!("a key of some length {i:03}"), &value), Durability::Buffered).expect("written");
    }
    db.flush().expect("written");
    db.close().expect("closes");
    restarted(&machine, seed + 1)
}

/// The value files that the manifest names: others are not removed yet.
fn named_value_files(machine: &SimMachine) -> Vec<PathBuf> {
    let summary = summarize(&machine.env(), Path::new(DIR)).expect("readable");
    let numbers: Vec<u64> = summary.value_files.iter().map(|file| file.number).collect();
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_named =
        |path: &PathBuf| name(path).and_then(|name| parse_value_file_name(&name)).is_some_and(|n| numbers.contains(&n));
    let files: Vec<PathBuf> = value_files(machine).into_iter().filter(is_named).collect();
    assert!(!files.is_empty());
    files
}

fn fork(machine: &SimMachine) -> SimMachine {
    SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(machine, 2) }
}

fn length(machine: &SimMachine, file: &Path) -> u64 {
    machine.fs.open(file, OpenMode::Read).and_then(|file| file.len()).expect("there")
}

#[test]
fn a_check_finds_a_flip_of_every_byte_of_a_value_file() {
    let machine = sample(1);
    assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, []);
    for file in named_value_files(&machine) {
        for offset in 0..length(&machine, &file) {
            let machine = fork(&machine);
            machine.fs.flip_bit(&file, offset, (offset % 8) as u8).expect("within the file");
            let report = check(&machine.env(), Path::new(DIR)).expect("readable");
            assert!(!report.is_sound(), "a flip at {offset} of {} goes unnoticed", file.display());
            assert!(report.problems.iter().all(|problem| problem.file == file), "{:?}", report.problems);
        }
    }
}

/// The same for a file of relocated values.
#[test]
fn a_check_finds_a_flip_of_every_byte_of_a_relocated_value_file() {
    open_with(large_values);
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    for round in 0..2 {
        for i in 0..24 {
            if round == 0 || i % 2 == 0 {
                db.write(put(&format!("{i:03}"), &text(200, i)), Durability::Buffered).expect("written");
            }
        }
        db.flush().expect("written");
    }
    db.compact().expect("written");
    assert!(db.collect_value_garbage().expect("written").moved_bytes > 0);
    db.close().expect("closes");
    let machine = restarted(&machine, 4);
    drop(open(&machine).close()); // Removes what is obsolete.
    let machine = restarted(&machine, 5);
    for file in named_value_files(&machine) {
        for offset in 0..length(&machine, &file) {
            let machine = fork(&machine);
            machine.fs.flip_bit(&file, offset, (offset % 8) as u8).expect("within the file");
            let report = check(&machine.env(), Path::new(DIR)).expect("readable");
            assert!(!report.is_sound(), "a flip at {offset} of {} goes unnoticed", file.display());
        }
    }
}

/// What a crash tears of values that were never acknowledged is no damage.
#[test]
fn torn_values_of_a_crash_are_no_problem() {
    open_with(large_values);
    for seed in 0..40 {
        let machine = SimMachine::from_seed(seed);
        let db = open(&machine);
        for i in 0..30 {
            let durability = if i % 7 == 0 { Durability::Sync } else { Durability::Buffered };
            db.write(put(&format!("{i:03}"), &text(300, i)), durability).expect("written");
        }
        machine.fs.crash(if seed % 2 == 0 { CrashMode::Random } else { CrashMode::Pages });
        drop(db);
        let machine = restarted(&machine, seed);
        assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, [], "seed {seed}");
        let db = open(&machine);
        db.flush().expect("written");
        let store = BackupStore::open_in(&machine.env(), Path::new("/backups")).expect("opens");
        store.create(&db, &mut |_| ()).expect("whole");
        db.close().expect("closes");
        assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, [], "seed {seed}, reopened");
    }
}

#[test]
fn a_value_in_the_log_alone_is_checked() {
    open_with(large_values);
    let machine = SimMachine::from_seed(6);
    let db = open(&machine);
    // The second one proves that the first was durable: what a crash may have torn is no damage.
    for (key, seed) in [("key", 1), ("later", 2)] {
        db.write(put(key, &text(300, seed)), Durability::Sync).expect("written");
    }
    assert_eq!(value_files(&machine).len(), 1, "the value is not in the log itself");
    machine.fs.crash(CrashMode::Kill);
    drop(db);
    let machine = restarted(&machine, 7);
    // In the value, in whichever file it is: the manifest need not name it yet.
    for file in value_files(&machine) {
        machine.fs.flip_bit(&file, 32 + 24 + 100, 1).expect("within the file");
    }
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert!(!report.problems.is_empty());
}

fn repaired(machine: &SimMachine) -> (crate::inspect::RepairReport, Vec<(String, String)>) {
    let report = repair(&machine.env(), Path::new(DIR), Path::new("/saved")).expect("repairs");
    let db = Db::open_in(&machine.env(), Path::new("/saved"), large_values()).expect("a repaired directory opens");
    let rows = dump(&db.snapshot(), Family::DEFAULT);
    db.close().expect("closes");
    (report, rows)
}

#[test]
fn a_repair_drops_a_pair_whose_value_is_damaged_and_names_its_key() {
    let machine = sample(8);
    let expected = dump(&open(&machine).snapshot(), Family::DEFAULT);
    let machine = sample(8);
    let file = named_value_files(&machine).remove(0);
    let bytes = length(&machine, &file);
    for offset in (0..bytes).step_by(5) {
        let machine = fork(&machine);
        machine.fs.flip_bit(&file, offset, 1).expect("within the file");
        let (report, rows) = repaired(&machine);
        assert!(!report.is_whole() && report.checked.is_sound(), "a flip at {offset}: {:?}", report.problems);
        assert!(rows.iter().all(|row| expected.contains(row)), "a flip at {offset}");
        assert_eq!(report.versions_dropped as usize, expected.len() - rows.len());
        for (key, _) in expected.iter().filter(|row| !rows.contains(row)) {
            let named = |what: &str| what.contains(&format!("key {key} of family default")) && what.contains("is gone");
            assert!(report.problems.iter().any(|problem| problem.file == file && named(&problem.what)), "{report:?}");
        }
        assert!(
            report.versions_dropped <= 1 || offset < 32,
            "a flip at {offset} costs one pair, or the file: {report:?}"
        );
    }
    let (whole, rows) = repaired(&machine);
    assert!(whole.is_whole() && rows == expected, "{:?}", whole.problems);
}

/// The next older version of the key is there still: it shows again, as after the loss of a block of a table.
#[test]
fn a_repair_goes_back_to_an_older_version_of_a_damaged_value() {
    open_with(large_values);
    let machine = SimMachine::from_seed(9);
    let db = open(&machine);
    let held = db.snapshot();
    for round in 0..2 {
        for i in 0..4 {
            db.write(put(&format!("key {i}"), &text(200, round * 5 + i)), Durability::Buffered).expect("written");
        }
        db.flush().expect("written");
    }
    drop(held);
    db.close().expect("closes");
    let machine = restarted(&machine, 10);
    let at = |i: usize, round: usize| (format!("key {i}"), text(200, round * 5 + i));
    let mut went_back = 0;
    for file in named_value_files(&machine) {
        for record in 0..8 {
            let machine = fork(&machine);
            if machine.fs.flip_bit(&file, 32 + record * 232 + 24 + 100, 1).is_err() {
                continue;
            }
            let (report, rows) = repaired(&machine);
            assert!(report.checked.is_sound(), "{:?}", report.problems);
            let back: Vec<usize> = (0..4).filter(|i| rows[*i] == at(*i, 0)).collect();
            assert!((0..4).all(|i| back.contains(&i) || rows[i] == at(i, 1)), "{rows:?}");
            let [key] = back[..] else { continue };
            let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
            let expected = format!(
                "key key {key} of family default is lost (a damaged value); an older version of it shows again"
            );
            assert!(problem.file == file && problem.what.contains(&expected), "{problem:?}");
            went_back += 1;
        }
    }
    assert_eq!(went_back, 4, "each newest value was damaged once");
}

#[test]
fn a_repair_without_a_value_file_names_what_was_in_it() {
    let machine = sample(20);
    let file = named_value_files(&machine).remove(0);
    machine.fs.remove(&file).expect("there");
    let (report, rows) = repaired(&machine);
    assert!(report.checked.is_sound() && !rows.is_empty(), "{:?}", report.problems);
    assert_eq!(report.versions_dropped as usize + rows.len(), 24, "{report:?}");
}

/// What leads to relocated values is in the manifest, and in the index of their file.
#[test]
fn a_repair_without_a_manifest_finds_relocated_values() {
    open_with(large_values);
    let machine = SimMachine::from_seed(21);
    let db = open(&machine);
    for round in 0..2 {
        for i in (0..24).filter(|i| round == 0 || i % 2 == 0) {
            db.write(put(&format!("{i:03}"), &text(200, i)), Durability::Buffered).expect("written");
        }
        db.flush().expect("written");
    }
    db.compact().expect("written");
    assert!(db.collect_value_garbage().expect("written").moved_bytes > 0);
    let expected = dump(&db.snapshot(), Family::DEFAULT);
    db.close().expect("closes");
    let machine = restarted(&machine, 22);
    drop(open(&machine).close()); // Removes what is obsolete.
    let machine = restarted(&machine, 23);
    machine.fs.flip_bit(&Path::new(DIR).join("CURRENT"), 3, 1).expect("there");
    let (report, rows) = repaired(&machine);
    assert_eq!(rows, expected, "{:?}", report.problems);
    assert!(report.checked.is_sound(), "{:?}", report.problems);
}

/// A closed database whose log alone has `commits` commits.
fn logged(seed: u64, commits: usize) -> (SimMachine, PathBuf) {
    open_with(|| Options { log_segment_bytes: 1 << 20, log_bytes_max: 8 << 20, ..small_options() });
    let machine = SimMachine::from_seed(seed);
    let db = open(&machine);
    for i in 0..commits {
        db.write(put(&format!("{i:03}"), "value"), Durability::Buffered).expect("written");
    }
    db.close().expect("closes");
    let wal = Path::new(DIR).join("wal");
    let segments = machine.fs.list(&wal).expect("listed");
    assert_eq!(segments.len(), 1, "{segments:?}");
    (restarted(&machine, seed + 1), wal.join(&segments[0]))
}

#[test]
fn a_repair_tells_of_a_log_that_was_cut_short() {
    let (machine, segment) = logged(10, 60);
    let bytes = length(&machine, &segment);
    for cut in [bytes / 3, bytes - 1] {
        let machine = fork(&machine);
        machine.fs.open(&segment, OpenMode::ReadWrite).and_then(|file| file.set_len(cut)).expect("shorter");
        let report = repair(&machine.env(), Path::new(DIR), Path::new("/saved")).expect("repairs");
        assert!(report.problems.iter().any(|problem| problem.file == segment), "{:?}", report.problems);
    }
}

#[test]
fn a_repair_tells_of_commits_that_are_missing_from_the_middle_of_the_log() {
    let (machine, segment) = logged(12, 60);
    let bytes = length(&machine, &segment);
    machine.fs.flip_bit(&segment, bytes / 2, 3).expect("in a record");
    let report = repair(&machine.env(), Path::new(DIR), Path::new("/saved")).expect("repairs");
    let missing = |what: &str| what.contains("sequence number");
    assert!(report.problems.iter().any(|problem| missing(&problem.what)), "{:?}", report.problems);
}

#[test]
fn a_flipped_byte_in_a_closed_log_is_a_damaged_record_and_not_a_wrong_length() {
    let (machine, segment) = logged(14, 20);
    for offset in 32..length(&machine, &segment) {
        let machine = fork(&machine);
        machine.fs.flip_bit(&segment, offset, 3).expect("within the file");
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        let [problem] = &report.problems[..] else { panic!("a flip at {offset}: {:?}", report.problems) };
        assert!(problem.what.contains("damaged log record"), "a flip at {offset}: {problem:?}");
        assert!(problem.offset <= offset && offset < problem.offset + 60, "a flip at {offset}: {problem:?}");
        let error = try_open(&machine).expect_err("damaged").to_string();
        assert!(error.contains("damaged log record"), "{error}");
    }
}

#[test]
fn a_backup_does_not_copy_damage() {
    let machine = sample(16);
    let tables = Path::new(DIR).join("tables");
    let table = tables.join(machine.fs.list(&tables).expect("listed").remove(0));
    for file in [table, named_value_files(&machine).remove(0)] {
        let machine = fork(&machine);
        machine.fs.flip_bit(&file, length(&machine, &file) / 3, 2).expect("within the file");
        let db = open(&machine);
        let store = BackupStore::open_in(&machine.env(), Path::new("/backups")).expect("opens");
        match store.create(&db, &mut |_| ()) {
            Err(Error::Corruption { file: named, .. }) => assert_eq!(named, file),
            other => panic!("{}: {other:?}", file.display()),
        }
        assert_eq!(store.list().expect("readable").len(), 0);
        assert_eq!(machine.fs.list(Path::new("/backups/files")).expect("listed"), [] as [&str; 0], "nothing stays");
    }
}

/// The key of a value is damaged: in use, its file cannot be collected, and that is said; not in use, it is garbage.
#[test]
fn a_collection_says_that_a_file_is_damaged_unless_nothing_refers_to_the_damage() {
    open_with(|| Options { value_garbage_percent: 90, ..large_values() });
    for deleted in [false, true] {
        let machine = SimMachine::from_seed(18);
        let db = open(&machine);
        for i in 0..12 {
            db.write(put(&format!("{i:03}"), &text(300, i)), Durability::Buffered).expect("written");
        }
        db.flush().expect("written");
        let file = named_value_files(&machine).remove(0);
        // The key of the first value, which is 300 bytes behind the headers.
        machine.fs.flip_bit(&file, 32 + 24 + 300 + 1, 1).expect("in a key");
        for i in (0..12).filter(|i| if *i == 0 { deleted } else { i % 2 == 0 }) {
            db.delete(format!("{i:03}").as_bytes()).expect("written");
        }
        db.compact().expect("written");
        let report = db.collect_value_garbage().expect("written");
        assert_eq!((report.damaged_files, report.freed_bytes > 0), (u64::from(!deleted), deleted), "{report:?}");
        assert_eq!(db.stats().values.damaged_files, u64::from(!deleted));
        for i in (1..12).filter(|i| i % 2 == 1) {
            let value = db.get(format!("{i:03}").as_bytes()).expect("whole");
            assert_eq!(value.as_deref(), Some(text(300, i).as_bytes()));
        }
        drop(db);
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        assert_eq!(report.problems.len(), usize::from(!deleted), "{:?}", report.problems);
    }
}
