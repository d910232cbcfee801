use super::*;
use crate::log::format::{encode_record, encode_segment_header};
use kontiki_env::SimMachine;
use kontiki_env::fs::{Fs, SimFs};
use std::path::Path;
use std::sync::Arc;

const CAPACITY: u64 = 1024;

/// A segment with records of the given kind, claim and payload.
fn segment(number: u64, records: &[(RecordKind, u64, &[u8])]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = encode_segment_header(number, CAPACITY);
    let mut offsets = Vec::new();
    for (kind, claim, payload) in records {
        let offset = bytes.len() as u64;
        offsets.push(offset);
        encode_record(&mut bytes, number, offset, *kind, *claim, 0, payload);
    }
    bytes.resize(CAPACITY as usize, 0);
    (bytes, offsets)
}

fn disk(files: &[(u64, &[u8])]) -> (SimFs, Segments) {
    let fs = SimMachine::from_seed(1).fs;
    let directory = Path::new("/wal");
    fs.create_dir_all(directory).expect("created");
    let segments = Segments::new(Arc::new(fs.clone()), directory.to_path_buf());
    for (number, bytes) in files {
        let file = fs.open(&segments.path(*number), OpenMode::CreateNew).expect("created");
        file.write_at(bytes, 0).expect("written");
    }
    (fs, segments)
}

fn payloads(segments: &Segments) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    recover(segments, &(), &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    })?;
    Ok(found)
}

fn corruption(files: &[(u64, &[u8])]) -> (String, u64) {
    let (_, segments) = disk(files);
    match payloads(&segments).expect_err("damage") {
        Error::Corruption { file, offset, .. } => (file.to_string_lossy().into_owned(), offset),
        error => panic!("{error}"),
    }
}

#[test]
fn a_bad_record_that_was_never_synced_is_the_torn_tail() {
    let (mut bytes, at) = segment(
        1,
        &[(RecordKind::Commit, 32, b"one"), (RecordKind::Commit, 32, b"two"), (RecordKind::Commit, 32, b"three")],
    );
    bytes[at[1] as usize + 26] ^= 1;
    let (fs, segments) = disk(&[(1, &bytes)]);
    assert_eq!(payloads(&segments).expect("a crash"), [b"one"]);
    let after = read_all(&fs, &segments.path(1)).expect("readable");
    let end = find_end(1, &after);
    assert!(end.sealed && end.offset == at[1] && end.claimed == at[1], "the cut is final: {end:?}");
}

#[test]
fn a_bad_record_that_a_later_one_claims_is_corruption() {
    let (_, at) = segment(1, &[(RecordKind::Commit, 32, b"one"), (RecordKind::Commit, 32, b"two")]);
    let (mut bytes, _) = segment(1, &[(RecordKind::Commit, 32, b"one"), (RecordKind::Commit, at[1], b"two")]);
    bytes[at[0] as usize + 26] ^= 1;
    assert_eq!(corruption(&[(1, &bytes)]), ("/wal/000001.wal".to_string(), at[0]));
}

#[test]
fn an_older_segment_must_be_sealed() {
    let (first, at) = segment(1, &[(RecordKind::Commit, 32, b"one")]);
    let (second, _) = segment(2, &[(RecordKind::Commit, 32, b"two")]);
    assert_eq!(corruption(&[(1, &first), (2, &second)]), ("/wal/000001.wal".to_string(), at[0] + 28));
    let (sealed, _) = segment(1, &[(RecordKind::Commit, 32, b"one"), (RecordKind::Seal, 32, b"")]);
    let (_, segments) = disk(&[(1, &sealed), (2, &second)]);
    assert_eq!(payloads(&segments).expect("in order"), [b"one", b"two"]);
    assert_eq!(segments.list().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_file_cut_short_is_corruption() {
    let (bytes, at) = segment(1, &[(RecordKind::Commit, 32, b"one")]);
    assert_eq!(corruption(&[(1, &bytes[..200])]).1, at[0] + 28);
    assert_eq!(corruption(&[(1, &bytes[..10])]).1, 0);
    assert_eq!(corruption(&[(1, b"")]).1, 0);
}

#[test]
fn what_is_behind_a_seal_does_not_count() {
    let (bytes, at) = segment(
        1,
        &[(RecordKind::Commit, 32, b"one"), (RecordKind::Seal, 32, b""), (RecordKind::Commit, 32, b"ghost")],
    );
    let (_, segments) = disk(&[(1, &bytes)]);
    assert_eq!(payloads(&segments).expect("sealed"), [b"one"]);
    assert_eq!(find_end(1, &bytes).offset, at[1]);
}

#[test]
fn unfinished_segments_are_removed_and_strangers_left() {
    let (bytes, _) = segment(1, &[(RecordKind::Commit, 32, b"one")]);
    let (fs, segments) = disk(&[(1, &bytes)]);
    for name in ["000002.wal.tmp", "notes.tmp", "2.wal"] {
        fs.open(&segments.directory().join(name), OpenMode::CreateNew).expect("created");
    }
    assert_eq!(payloads(&segments).expect("recovers"), [b"one"]);
    assert_eq!(fs.list(segments.directory()).expect("listed"), ["000001.wal", "2.wal", "notes.tmp"]);
}

#[test]
fn a_missing_segment_is_named() {
    let (sealed, _) = segment(1, &[(RecordKind::Seal, 32, b"")]);
    let (third, _) = segment(3, &[(RecordKind::Seal, 32, b"")]);
    assert_eq!(corruption(&[(1, &sealed), (3, &third)]), ("/wal/000002.wal".to_string(), 0));
}

#[test]
fn the_names_that_recovery_finds_are_durable_afterwards() {
    let (first, _) = segment(1, &[(RecordKind::Commit, 32, b"a"), (RecordKind::Seal, 50, b"")]);
    let (second, _) = segment(2, &[(RecordKind::Commit, 32, b"b")]);
    let (fs, segments) = disk(&[(1, &first), (2, &second)]);
    fs.sync_dir(Path::new("/")).expect("synced");
    fs.sync_dir(segments.directory()).expect("synced");
    fs.remove(&segments.path(1)).expect("removed");
    // The process ends before it has synced the deletion, and is started again.
    assert_eq!(payloads(&segments).expect("recovers"), [b"b"]);
    fs.crash(kontiki_env::fs::CrashMode::LoseUnsynced);
    assert!(!fs.exists(&segments.path(1)), "the deletion has not come undone");
}
