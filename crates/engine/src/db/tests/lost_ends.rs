//! Files that lost their end, or are missing: the loss of acknowledged data is reported, and nothing that
//! may hold it is removed.

use super::*;
use crate::inspect::{check, repair};
use crate::version::manifest::{manifest_path, parse_manifest, read_current};
use crate::{Error, Result};
use kontiki_env::fs::{CrashMode, Fs, OpenMode, read_all};
use std::path::PathBuf;

const SAVED: &str = "/saved";

/// Rows that went through several flushes and compactions, each written once; then a clean close, or a killed process.
fn sample(seed: u64, closed: bool) -> (SimMachine, Vec<(String, String)>) {
    let machine = SimMachine::from_seed(seed);
    let db = open(&machine);
    let mut expected = Vec::new();
    for i in 0..600 {
        let (key, value) = (format!("key {:04}", i * 7 % 600), format!("value {i}"));
        db.write(put(&key, &value), Durability::Sync).expect("written");
        expected.push((key, value));
        match i {
            200 | 400 => db.compact().expect("written"),
            100 | 300 | 500 => db.flush().expect("written"),
            _ => {}
        }
    }
    expected.sort();
    end(&machine, db, closed);
    (restarted(&machine, seed + 1), expected)
}

fn end(machine: &SimMachine, db: Db, closed: bool) {
    if closed {
        db.close().expect("closes");
    } else {
        machine.fs.crash(CrashMode::Kill);
        drop(db);
    }
}

fn fork(machine: &SimMachine) -> SimMachine {
    SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(machine, 2) }
}

fn cut(machine: &SimMachine, file: &Path, bytes: u64) {
    let file = machine.fs.open(file, OpenMode::ReadWrite).expect("there");
    file.set_len(bytes).and_then(|()| file.sync()).expect("cuts");
}

/// Names and bytes of everything in the directory but the lock.
fn everything(machine: &SimMachine) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for dir in [DIR.into(), format!("{DIR}/tables"), format!("{DIR}/vlog"), format!("{DIR}/wal")] {
        for name in machine.fs.list(Path::new(&dir)).unwrap_or_default() {
            let path = Path::new(&dir).join(&name);
            if name != "LOCK"
                && let Ok(bytes) = read_all(&machine.fs, &path)
            {
                all.push((path, bytes));
            }
        }
    }
    all
}

fn corruption(outcome: Result<Db>) -> (PathBuf, String) {
    match outcome {
        Err(Error::Corruption { file, what, .. }) => (file, what),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("opened without a word"),
    }
}

/// Opens, for writing and for reading, and the check refuse the directory for this file, say what to do, and leave
/// everything as it was.
fn assert_refused(machine: &SimMachine, file: &Path, situation: &str) {
    let before = everything(machine);
    for outcome in [try_open(machine), Db::open_read_only_in(&machine.env(), Path::new(DIR), small_options())] {
        let (named, what) = corruption(outcome);
        assert_eq!(named, file, "{situation}: {what}");
        assert!(what.contains("repair") || what.contains("remove it"), "{situation}: {what}");
    }
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert!(report.problems.iter().any(|problem| problem.file == file), "{situation}: {:?}", report.problems);
    let after = everything(machine);
    let paths = |all: &[(PathBuf, Vec<u8>)]| all.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&after), paths(&before), "{situation}: a refused open removes and makes nothing");
    assert!(after == before, "{situation}: a refused open changes nothing");
}

fn the_manifest(machine: &SimMachine) -> (PathBuf, Vec<u64>, u64) {
    let contents = read_current(&machine.env(), Path::new(DIR)).expect("whole").expect("there");
    let path = manifest_path(Path::new(DIR), contents.number);
    (path, contents.edits.iter().map(|(offset, _)| *offset).collect(), contents.end)
}

fn repaired(machine: &SimMachine) -> (crate::inspect::RepairReport, Vec<(String, String)>) {
    let report = repair(&machine.env(), Path::new(DIR), Path::new(SAVED)).expect("repairs");
    let db = Db::open_in(&machine.env(), Path::new(SAVED), small_options()).expect("a repaired directory opens");
    let rows = dump(&db.snapshot(), Family::DEFAULT);
    db.close().expect("closes");
    (report, rows)
}

#[test]
fn a_manifest_that_lost_its_end_is_refused_and_a_repair_keeps_every_table() {
    for closed in [true, false] {
        let (machine, expected) = sample(1, closed);
        let (path, offsets, end) = the_manifest(&machine);
        assert!(offsets.len() > 8, "several edits: {offsets:?}");
        // At each border of a record, and within each record: a crash would tear one so.
        for (i, &offset) in offsets.iter().enumerate().skip(1) {
            for bytes in [offset, offset + 3] {
                let machine = fork(&machine);
                cut(&machine, &path, bytes);
                assert_refused(&machine, &path, &format!("edit {i} is missing"));
                let (report, rows) = repaired(&machine);
                assert_eq!(rows, expected, "edit {i} is missing: {report:?}");
                assert!(!report.is_whole() && report.checked.is_sound(), "{report:?}");
            }
        }
        // The mark alone proves nothing.
        cut(&machine, &path, end - 8);
        assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, []);
        assert_eq!(dump(&open(&machine).snapshot(), Family::DEFAULT), expected);
    }
}

#[test]
fn a_damaged_last_edit_is_no_torn_tail() {
    let (machine, expected) = sample(3, true);
    let (path, offsets, end) = the_manifest(&machine);
    let last = offsets[offsets.len() - 1];
    for offset in last..end - 8 {
        let machine = fork(&machine);
        cut(&machine, &path, end - 8);
        machine.fs.flip_bit(&path, offset, (offset % 8) as u8).expect("within the file");
        let bytes = read_all(&machine.fs, &path).expect("there");
        assert!(parse_manifest(&bytes, 1, &path).expect("as a crash leaves it").torn);
        assert_refused(&machine, &path, &format!("a flip at {offset}"));
    }
    assert_eq!(dump(&open(&machine).snapshot(), Family::DEFAULT), expected);
}

#[test]
fn a_manifest_of_before_is_not_taken_for_the_one_in_use() {
    let (machine, _) = sample(4, true);
    let current = Path::new(DIR).join("CURRENT");
    machine.fs.remove(&current).and_then(|()| machine.fs.sync_dir(Path::new(DIR))).expect("removes");
    let (named, what) = corruption(try_open(&machine));
    assert_eq!(named, current, "{what}");
}

fn segments(machine: &SimMachine) -> Vec<PathBuf> {
    let wal = Path::new(DIR).join("wal");
    let names = machine.fs.list(&wal).expect("there");
    names.iter().filter(|name| name.ends_with(".wal")).map(|name| wal.join(name)).collect()
}

/// A log of several segments, of which nothing is flushed.
fn log_sample(seed: u64, closed: bool) -> (SimMachine, Vec<(String, String)>) {
    open_with(|| Options { memtable_bytes: 1 << 20, log_bytes_max: 8 << 20, ..small_options() });
    let machine = SimMachine::from_seed(seed);
    let mut expected = Vec::new();
    for run in 0..2 {
        let db = open(&machine);
        for i in 0..200 {
            let (key, value) = (format!("key {run} {i:04}"), format!("value {i} ").repeat(8));
            db.write(put(&key, &value), Durability::Sync).expect("written");
            expected.push((key, value));
        }
        end(&machine, db, closed);
    }
    (restarted(&machine, seed + 1), expected)
}

#[test]
fn a_log_segment_that_is_missing_is_named_wherever_it_was() {
    for closed in [true, false] {
        let (machine, expected) = log_sample(5, closed);
        let all = segments(&machine);
        assert!(all.len() > 4, "{all:?}");
        for missing in &all {
            let machine = fork(&machine);
            machine
                .fs
                .remove(missing)
                .and_then(|()| machine.fs.sync_dir(&Path::new(DIR).join("wal")))
                .expect("removes");
            assert_refused(&machine, missing, &format!("{} is missing", missing.display()));
            let (report, _) = repaired(&machine);
            let named = report.problems.iter().any(|problem| problem.file == *missing);
            assert!(named && !report.is_whole(), "a repair names it too: {:?}", report.problems);
        }
        // And all of them.
        let emptied = fork(&machine);
        for path in &all {
            emptied.fs.remove(path).expect("there");
        }
        assert_refused(&emptied, &all[0], "an empty log");
        assert_eq!(dump(&open(&machine).snapshot(), Family::DEFAULT), expected);
    }
}

#[test]
fn segments_that_are_not_needed_may_be_gone() {
    // Made ahead and never used, deleted by retention, left by a process that was killed at any place: nothing is
    // missing.
    for seed in 10..40 {
        let machine = SimMachine::from_seed(seed);
        let mut written = 0;
        for run in 0..4 {
            let machine = restarted(&machine, seed * 10 + run);
            let db = open(&machine);
            for i in 0..(seed % 7) * 40 {
                db.write(put(&format!("{i:03}"), &"v".repeat(40)), Durability::Sync).expect("written");
                written += 1;
            }
            if seed % 3 == 0 {
                db.flush().expect("written");
            }
            match (seed + run) % 3 {
                0 => db.close().expect("closes"),
                1 => drop(db),
                _ => machine.fs.crash(CrashMode::Random),
            }
            assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, [], "seed {seed}, {written}");
        }
    }
}

/// Of a directory without `EXTENT` less is known: but no commit to a family comes before the edit that makes it.
#[test]
fn a_log_that_writes_to_a_family_which_the_manifest_lost_is_refused_for_writing_too() {
    let (machine, _) = log_sample(6, true);
    let (path, offsets, _) = the_manifest(&machine);
    machine.fs.remove(&Path::new(DIR).join("EXTENT")).expect("there");
    cut(&machine, &path, offsets[1]);
    for _ in 0..2 {
        let (named, what) = corruption(try_open(&machine));
        assert!(named.starts_with("/db/wal") && what.contains("which the manifest does not know"), "{what}");
    }
}

/// Without a record of how far they reach, manifest and log are what they seem to be, and the next open records it.
#[test]
fn a_directory_without_a_record_opens_and_gets_one() {
    let (machine, expected) = sample(7, true);
    let extent = Path::new(DIR).join("EXTENT");
    machine.fs.remove(&extent).expect("there");
    assert_eq!(check(&machine.env(), Path::new(DIR)).expect("readable").problems, []);
    let db = open(&machine);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), expected);
    db.close().expect("closes");
    assert!(machine.fs.exists(&extent));
    // A slot that is damaged leaves the other one, or nothing.
    for offset in [20, 4096 + 20] {
        machine.fs.flip_bit(&extent, offset, 1).expect("within the file");
        let machine = restarted(&machine, 8);
        assert_eq!(dump(&open(&machine).snapshot(), Family::DEFAULT), expected);
    }
}

/// No crash damages both records of `EXTENT`. Then nothing is known of the ends of manifest and log, and the text says
/// what to do.
#[test]
fn an_extent_without_a_whole_record_is_refused_and_can_be_removed() {
    let (machine, expected) = sample(70, true);
    let extent = Path::new(DIR).join("EXTENT");
    let damaged = fork(&machine);
    for offset in [20, 4096 + 20] {
        damaged.fs.flip_bit(&extent, offset, 1).expect("within the file");
    }
    assert_refused(&damaged, &extent, "both records");
    let (report, rows) = repaired(&damaged);
    assert!(rows == expected && report.manifest_read && !report.is_whole(), "{report:?}");
    damaged.fs.remove(&extent).expect("there");
    assert_eq!(dump(&open(&damaged).snapshot(), Family::DEFAULT), expected);
    // One is what a crash may leave; none at all, too.
    for cut_to in [8192, 4096, 0] {
        let machine = fork(&machine);
        cut(&machine, &extent, cut_to);
        machine.fs.open(&extent, OpenMode::ReadWrite).and_then(|file| file.write_at(b"torn", 0)).expect("writes");
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        assert_eq!(report.problems, [], "{cut_to}");
        assert!(report.notes.iter().any(|note| note.file == extent), "{cut_to}: {:?}", report.notes);
        assert_eq!(dump(&open(&machine).snapshot(), Family::DEFAULT), expected);
    }
}

#[test]
fn a_check_notes_a_missing_extent_and_the_end_of_a_log_that_was_not_closed() {
    for closed in [true, false] {
        let (machine, _) = log_sample(71, closed);
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        assert_eq!((report.problems, report.notes.len()), (vec![], usize::from(!closed)), "{:?}", report.notes);
        machine.fs.remove(&Path::new(DIR).join("EXTENT")).expect("there");
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        assert_eq!((report.problems, report.notes.len()), (vec![], 1 + usize::from(!closed)), "{:?}", report.notes);
    }
}

/// The last record of a log that was not closed: that it had been synced is said by no other record.
#[test]
fn damage_to_the_last_record_of_an_open_segment_is_noted_at_its_place() {
    let (machine, _) = log_sample(72, false);
    let last = segments(&machine).pop().expect("a segment");
    let end = check(&machine.env(), Path::new(DIR)).expect("readable").notes.remove(0);
    assert!(end.file == last && !end.what.contains("not whole"), "{end:?}");
    let flipped = fork(&machine);
    flipped.fs.flip_bit(&last, end.offset - 3, 1).expect("within the file");
    let report = check(&flipped.env(), Path::new(DIR)).expect("readable");
    assert!(report.is_sound(), "a power loss may leave it: {:?}", report.problems);
    let [note] = &report.notes[..] else { panic!("{:?}", report.notes) };
    assert!(note.file == last && note.offset < end.offset && note.what.contains("not whole"), "{note:?}");
}

fn state_of_node(dir: &str, machine: &SimMachine) -> Db {
    let mut options = small_options();
    for (index, family) in Family::NODE_STATE.into_iter().enumerate() {
        options.families.push(keeping_values(family, ["kontiki.meta", "kontiki.placement"][index]));
    }
    Db::open_in(&machine.env(), Path::new(dir), options).expect("opens")
}

/// A directory with streams, as a node's; what its streams and families hold.
fn node(seed: u64) -> SimMachine {
    let machine = SimMachine::from_seed(seed);
    let db = state_of_node(DIR, &machine);
    for i in 0..60u64 {
        let mut batch = put(&format!("{i:03}"), &"v".repeat(100));
        batch.put(Family::NODE_STATE[0], b"applied", i.to_le_bytes());
        db.write(batch, Durability::Derived).expect("written");
        db.commit(streams(vec![append(1, i + 1, &["entry"])], Durability::Sync)).expect("written");
        if i == 30 {
            db.flush().expect("written");
        }
    }
    db.flush().expect("written");
    machine.fs.crash(CrashMode::Kill);
    drop(db);
    restarted(&machine, seed + 1)
}

#[test]
fn a_nodes_directory_is_a_node_after_a_repair_only_if_nothing_is_lost() {
    let machine = node(30);
    let repair = |machine: &SimMachine| repair(&machine.env(), Path::new(DIR), Path::new(SAVED)).expect("repairs");
    // Damage in what nothing needs: only how far things reach was recorded there.
    machine.fs.flip_bit(&Path::new(DIR).join("EXTENT"), 20, 1).expect("there");
    let sound = fork(&machine);
    let report = repair(&sound);
    assert!(report.is_whole() && report.log_segments > 0, "{report:?}");
    let db = state_of_node(SAVED, &sound);
    assert_eq!(db.stream(crate::StreamId(1)).expect("there").entries.len(), 60);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 60);
    assert!(db.snapshot().get_in(Family::NODE_STATE[0], b"applied").expect("reads").is_some());

    let tables = Path::new(DIR).join("tables");
    let table = tables.join(machine.fs.list(&tables).expect("listed").remove(0));
    for damaged in [table, segments(&machine)[0].clone()] {
        let machine = fork(&machine);
        machine.fs.flip_bit(&damaged, 100, 1).expect("there");
        let report = repair(&machine);
        assert!(!report.is_whole() && report.log_segments == 0 && report.checked.is_sound(), "{report:?}");
        let reported = report.problems.iter().any(|problem| problem.what.contains("--replace-lost-directory"));
        assert!(reported, "{:?}", report.problems);
        let families = crate::inspect::summarize(&machine.env(), Path::new(SAVED)).expect("whole").families;
        assert!(families.iter().all(|summary| !Family::NODE_STATE.contains(&Family(summary.family))), "{families:?}");
        let db = Db::open_in(&machine.env(), Path::new(SAVED), small_options()).expect("opens");
        assert_eq!(db.streams(), []);
    }
}

/// The store's own families have fixed names, which a repair without a manifest gives them again.
#[test]
fn reserved_families_keep_their_names_without_a_manifest() {
    let data = Family::reserved(0);
    let spec = || FamilySpec::new(data, "kontiki.txn_default");
    let options = || Options { families: vec![spec(), FamilySpec::new(Family(9), "mine")], ..small_options() };
    let machine = SimMachine::from_seed(33);
    let db = Db::open_in(&machine.env(), Path::new(DIR), options()).expect("opens");
    let mut batch = WriteBatch::new();
    batch.put(data, b"key", b"value");
    batch.put(Family(9), b"key", b"value");
    db.write(batch, Durability::Sync).expect("written");
    db.close().expect("closes");
    machine.fs.flip_bit(&Path::new(DIR).join("CURRENT"), 3, 1).expect("there");
    let report = repair(&machine.env(), Path::new(DIR), Path::new(SAVED)).expect("repairs");
    let reported: Vec<&str> = report.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert!(reported.iter().any(|what| what.contains("family 9") && what.contains("family-9")), "{reported:?}");
    let saved = Options { families: vec![spec()], ..small_options() };
    let db = Db::open_in(&machine.env(), Path::new(SAVED), saved).expect("the name is as before");
    assert_eq!(db.snapshot().get_in(data, b"key").expect("reads").as_deref(), Some(&b"value"[..]));
}

/// `CURRENT` is missing, and all but one kind of file: it is a database that was lost, for every open and check, and
/// nothing of it is removed.
#[test]
fn what_is_left_of_a_database_without_current_is_not_made_a_new_one() {
    let machine = SimMachine::from_seed(60);
    open_with(values::large_values);
    let db = open(&machine);
    for i in 0..40 {
        db.write(put(&format!("{i:03}"), &values::text(400, i)), Durability::Sync).expect("written");
    }
    db.flush().expect("written");
    end(&machine, db, false);
    let machine = restarted(&machine, 61);
    let all = everything(&machine);
    for kept in ["tables", "vlog", "wal", "MANIFEST-000001"] {
        let machine = fork(&machine);
        for (path, _) in &all {
            let stays = path.starts_with(Path::new(DIR).join(kept));
            if !stays {
                machine.fs.remove(path).expect("there");
            }
        }
        let left = everything(&machine);
        assert!(!left.is_empty(), "{kept}: there was such a file");
        let current = Path::new(DIR).join("CURRENT");
        assert_eq!(corruption(try_open(&machine)).0, current, "{kept}");
        let read_only = Db::open_read_only_in(&machine.env(), Path::new(DIR), small_options());
        assert_eq!(corruption(read_only).0, current, "{kept}");
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        assert!(report.problems.iter().any(|problem| problem.file == current), "{kept}");
        assert!(everything(&machine) == left, "{kept}: nothing was removed");
    }
}
