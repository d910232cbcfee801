//! One file for each format on disk: what today's code writes, byte for byte, and that what it wrote stays readable.
//!
//! The files under tests/golden are hexadecimal (`kontiki_env::testing::check_golden`). One script makes a directory, a
//! checkpoint and a backup on the simulated disk; each of their files is compared with the one that is committed.
//! docs/formats/README.md lists all of them.
#![allow(clippy::disallowed_methods, reason = "golden files are files of the repository")]

use bytes::Bytes;
use kontiki_engine::copy::BackupStore;
use kontiki_engine::{
    Commit, Compression, Db, Direction, Durability, Family, FamilyOptions, FamilySpec, Options, Range, ReadOptions,
    StreamId, StreamOp, WriteBatch,
};
use kontiki_env::SimMachine;
use kontiki_env::codec::checksum32;
use kontiki_env::fs::{Fs, OpenMode, read_all};
use kontiki_env::testing::{check_golden, read_golden};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const OTHER: Family = Family(20);
const LARGE_BYTES: usize = 300;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options() -> Options {
    let other = FamilyOptions { value_threshold_bytes: 200, ..FamilyOptions::default() };
    let mut options = Options {
        families: vec![FamilySpec { options: other, ..FamilySpec::new(OTHER, "other") }],
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        log_segments_recycled_max: 0,
        value_segment_bytes: 4 << 10,
        ..Options::default()
    };
    options.table.compression = Compression::None;
    options
}

fn open(machine: &SimMachine, path: &str) -> Db {
    Db::open_in(&machine.env(), Path::new(path), options()).expect("a healthy disk")
}

fn large(first: u8) -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| first.wrapping_add(at as u8)).collect()
}

/// Everything that a directory can hold: two families, tables with deletes and a range delete, values in a value file,
/// streams (of which a copy has none), and a log with records that are not flushed.
fn write_everything(db: &Db, with_streams: bool) {
    let stream = StreamId(7);
    let only_if = |streams: Vec<StreamOp>| if with_streams { streams } else { Vec::new() };
    let entries = ["first", "second", "third"].map(|entry| Bytes::from_static(entry.as_bytes())).to_vec();
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"apple", b"1");
    batch.put(Family::DEFAULT, b"banana", b"2");
    batch.put(Family::DEFAULT, b"cherry", b"3");
    batch.put(OTHER, b"large", large(0));
    let streams = vec![
        StreamOp::Append { stream, first_index: 1, entries },
        StreamOp::State { stream, state: Bytes::from_static(b"state") },
    ];
    let commit = Commit { batch, streams: only_if(streams), durability: Durability::Sync, unchanged: vec![] };
    db.commit(commit).expect("a healthy disk");
    db.delete(b"banana").expect("a healthy disk");
    db.flush().expect("a healthy disk");

    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"cherry", b"three");
    batch.put_expiring(Family::DEFAULT, b"date", b"4", u64::MAX / 2);
    db.write(batch, Durability::Sync).expect("a healthy disk");
    db.delete_range(Family::DEFAULT, b"a".as_slice()..b"b".as_slice()).expect("a healthy disk");
    let streams = vec![StreamOp::Truncate { stream, through_index: 1 }];
    let commit =
        Commit { batch: WriteBatch::new(), streams: only_if(streams), durability: Durability::Sync, unchanged: vec![] };
    db.commit(commit).expect("a healthy disk");
    db.flush().expect("a healthy disk");

    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"elder", b"5");
    batch.put(OTHER, b"not flushed", large(100));
    db.write(batch, Durability::Sync).expect("a healthy disk");
}

/// What must be read from it.
fn check_everything(db: &Db) {
    let all = |family| {
        let mut scan =
            db.scan(family, Range::all(), Direction::Forward, ReadOptions::default()).expect("a known family");
        let mut found = Vec::new();
        while let Some((key, value)) = scan.next().transpose().expect("a healthy disk") {
            found.push((key.to_vec(), value.to_vec()));
        }
        found
    };
    let pair = |key: &str, value: &[u8]| (key.as_bytes().to_vec(), value.to_vec());
    assert_eq!(all(Family::DEFAULT), [pair("cherry", b"three"), pair("date", b"4"), pair("elder", b"5")]);
    assert_eq!(all(OTHER), [pair("large", &large(0)), pair("not flushed", &large(100))]);
}

fn check_stream(db: &Db) {
    let contents = db.stream(StreamId(7)).expect("a healthy disk");
    assert_eq!((contents.truncated_through, contents.state.as_ref()), (1, &b"state"[..]));
    assert_eq!(contents.entries, ["second", "third"].map(|entry| Bytes::from_static(entry.as_bytes())));
}

/// The files below a directory by their paths in it; no lock files.
fn files(machine: &SimMachine, directory: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for name in machine.fs.list(&Path::new(directory).join(&folder)).expect("a directory") {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            match read_all(&machine.fs, &Path::new(directory).join(&path)) {
                Ok(bytes) if name != "LOCK" => drop(found.insert(path, bytes)),
                Ok(_) => {}
                Err(_) => folders.push(path),
            }
        }
    }
    found
}

/// Writes the committed files of a directory to a new machine.
fn placed(directory: &str, names: impl IntoIterator<Item = String>) -> SimMachine {
    let machine = SimMachine::from_seed(2);
    for name in names {
        let path = Path::new("/").join(directory).join(&name);
        let parent = path.parent().expect("a file has a directory");
        machine.fs.create_dir_all(parent).expect("a healthy disk");
        let bytes = read_golden(&golden(&format!("{directory}/{name}.hex")));
        let file = machine.fs.open(&path, OpenMode::CreateNew).expect("a healthy disk");
        file.write_at(&bytes, 0).expect("a healthy disk");
        file.sync().expect("a healthy disk");
        machine.fs.sync_dir(parent).expect("a healthy disk");
    }
    machine
}

/// The paths of the committed files of a directory, without their suffix.
fn committed(directory: &str) -> Vec<String> {
    let root = golden(directory);
    let (mut found, mut folders) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of golden files") {
            let path = entry.expect("readable").path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let inside = path.strip_prefix(&root).expect("below it").to_str().expect("UTF-8").to_owned();
                    found.push(inside.trim_end_matches(".hex").to_owned());
                }
            }
        }
    }
    found.sort();
    found
}

/// Compares the files of a directory with the committed ones.
fn check_directory(machine: &SimMachine, directory: &str) {
    let written = files(machine, &format!("/{directory}"));
    for (name, bytes) in &written {
        check_golden(&golden(&format!("{directory}/{name}.hex")), bytes);
    }
    assert_eq!(committed(directory), written.into_keys().collect::<Vec<_>>(), "all files of {directory}");
}

#[test]
fn what_is_written_is_byte_for_byte_what_it_was() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine, "/database");
    write_everything(&db, true);
    // As a crash would leave it: a close may write more.
    check_directory(&machine, "database");
}

#[test]
fn copies_are_byte_for_byte_what_they_were() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine, "/source");
    write_everything(&db, false);
    let backups = BackupStore::open_in(&machine.env(), Path::new("/backup")).expect("a healthy disk");
    backups.create(&db, &mut |_| {}).expect("a healthy disk");
    db.checkpoint("/checkpoint").expect("a healthy disk");
    check_directory(&machine, "backup");
    check_directory(&machine, "checkpoint");
}

#[test]
fn what_was_written_is_read() {
    for directory in ["database", "checkpoint"] {
        let machine = placed(directory, committed(directory));
        let db = open(&machine, &format!("/{directory}"));
        check_everything(&db);
        if directory == "database" {
            check_stream(&db);
        }
        db.close().expect("a healthy disk");
    }
}

#[test]
fn a_backup_that_was_written_is_restored() {
    let machine = placed("backup", committed("backup"));
    let backups = BackupStore::open_in(&machine.env(), Path::new("/backup")).expect("a healthy disk");
    backups.verify(1, &mut |_| {}).expect("whole");
    backups.restore(1, Path::new("/restored"), &mut |_| {}).expect("whole");
    check_everything(&open(&machine, "/restored"));
}

/// Manifests of versions 1 and 2 have another number in their header, and their directories have no `EXTENT`.
#[test]
fn manifests_of_earlier_versions_are_read() {
    for version in [1_u8, 2] {
        let names = committed("database").into_iter().filter(|name| name != "EXTENT");
        let machine = placed("database", names);
        let manifest = committed("database").into_iter().find(|name| name.starts_with("MANIFEST")).expect("one");
        let mut header = read_golden(&golden(&format!("database/{manifest}.hex")))[..12].to_vec();
        header[8] = version;
        let checksum = checksum32(&[&header]);
        header.extend_from_slice(&checksum.to_le_bytes());
        let path = Path::new("/database").join(manifest);
        let file = machine.fs.open(&path, OpenMode::ReadWrite).expect("a healthy disk");
        file.write_at(&header, 0).expect("a healthy disk");
        file.sync().expect("a healthy disk");
        check_everything(&open(&machine, "/database"));
    }
}
