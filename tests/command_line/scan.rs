//! Scans of a directory, values from files, and families by name or number.

use super::{fails, kontiki, succeeds};
use kontiki::{Db, Durability, Family, FamilySpec, Options, WriteBatch};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// More than fits into the pipe, the program's buffers and the first entries of a table.
const MANY: u32 = 20_000;

fn fill(folder: &Path, families: Vec<FamilySpec>, write: impl FnOnce(&mut WriteBatch)) {
    let db = Db::open(folder, Options { families, ..Options::default() }).expect("opens");
    let mut batch = WriteBatch::new();
    write(&mut batch);
    db.write(batch, Durability::Buffered).expect("writes");
    db.close().expect("closes");
    // A process that another test is just starting has this one's descriptors, and the lock with them, until it begins.
    let deadline = Instant::now() + Duration::from_secs(60);
    while kontiki_engine::inspect::lock_to_read(&kontiki_env::Env::real(), folder).is_err() {
        assert!(Instant::now() < deadline, "the directory stays locked");
        std::thread::yield_now();
    }
}

fn key(number: u32) -> String {
    format!("key {number:06}")
}

#[test]
fn a_scan_without_a_limit_prints_every_entry_in_order() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), Vec::new(), |batch| {
        (0..MANY).for_each(|number| batch.put(Family::DEFAULT, key(number).as_bytes(), b"value"));
    });
    let table = succeeds(scratch.path(), &["scan", "--all"]);
    assert_eq!(table.lines().count(), MANY as usize + 1);
    assert!(table.lines().skip(1).zip(0..).all(|(line, number)| line == format!("{}  value", key(number))));
    let json = succeeds(scratch.path(), &["scan", "--all", "--json", "--reverse"]);
    let line = |number: u32| format!("{{\"key\":\"{}\",\"value\":\"value\"}}", key(number));
    assert!(json.lines().zip((0..MANY).rev()).all(|(found, number)| found == line(number)));
    assert_eq!(json.lines().count(), MANY as usize);
    assert_eq!(succeeds(scratch.path(), &["scan", "--json", "--limit", "2000000"]).lines().count(), MANY as usize);
    assert_eq!(succeeds(scratch.path(), &["scan", "--json"]).lines().count(), 100, "the default limit");
}

#[test]
fn a_reader_that_has_enough_ends_a_scan_quietly() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), Vec::new(), |batch| {
        (0..MANY).for_each(|number| batch.put(Family::DEFAULT, key(number).as_bytes(), b"a value of some length"));
    });
    for format in [&["--json"][..], &[]] {
        let mut scan = Command::new(env!("CARGO_BIN_EXE_kontiki"))
            .args(["scan", "--all", "--data-dir"])
            .arg(scratch.path())
            .args(format)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(scan.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        let ended = scan.wait_with_output().expect("ends");
        assert!(ended.status.success() && ended.stderr.is_empty(), "{format:?} after {line:?}: {ended:?}");
    }
}

#[test]
fn any_family_is_read_by_name_or_number() {
    let scratch = tempfile::tempdir().expect("a directory");
    let families = vec![FamilySpec::new(Family(7), "crew"), FamilySpec::new(Family(9), "7 days")];
    fill(scratch.path(), families, |batch| {
        batch.put(Family(7), b"1", b"Thor");
        batch.put(Family(9), b"1", b"Monday");
    });
    for (family, value) in [("crew", "Thor"), ("7", "Thor"), ("7 days", "Monday"), ("9", "Monday")] {
        assert_eq!(succeeds(scratch.path(), &["get", "1", "--family", family]), format!("{value}\n"));
        let line = format!("{{\"key\":\"1\",\"value\":\"{value}\"}}\n");
        assert_eq!(succeeds(scratch.path(), &["scan", "--json", "--family", family]), line);
    }
    assert_eq!(succeeds(scratch.path(), &["scan", "--json"]), "", "the default family has no keys");
    let folder = scratch.path().to_str().expect("text");
    let complaint = fails(2, &["scan", "--family", "absent", "--data-dir", folder]);
    assert!(complaint.contains("\"absent\"") && complaint.contains("\"crew\" (7)"), "{complaint}");
    let complaint = fails(2, &["get", "1", "--transactional", "--data-dir", folder]);
    assert!(complaint.contains("never served"), "{complaint}");
    assert!(fails(2, &["scan", "--family", "crew"]).contains("--data-dir"), "a node has no families to name");
    for command in [&["scan"][..], &["get", "1"]] {
        let at_a_node = [command, &["--family", "crew", "--endpoint", "127.0.0.1:1"]].concat();
        assert!(fails(2, &at_a_node).contains("--data-dir"), "nor is it ignored");
    }
}

#[test]
fn a_value_comes_from_a_file_or_from_standard_input_and_goes_to_a_file() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("db");
    let text = |name: &str| scratch.path().join(name).to_str().expect("text").to_owned();
    let bytes: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    std::fs::write(text("photo"), &bytes).expect("written");
    succeeds(&folder, &["put", "photo", "--from", &text("photo")]);
    succeeds(&folder, &["get", "photo", "--to", &text("copy")]);
    assert!(std::fs::read(text("copy")).expect("readable") == bytes, "byte for byte");
    let folder = folder.to_str().expect("text");
    let output = kontiki(&["get", "photo", "--to", "-", "--data-dir", folder]);
    assert!(output.status.success() && output.stdout == bytes, "byte for byte");

    let mut put = Command::new(env!("CARGO_BIN_EXE_kontiki"))
        .args(["put", "typed", "--from", "-", "--data-dir", folder])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program starts");
    put.stdin.take().expect("piped").write_all(b"two\nlines").expect("writable");
    assert!(put.wait().expect("ends").success());
    let output = kontiki(&["get", "typed", "--to", "-", "--data-dir", folder]);
    assert_eq!(output.stdout, b"two\nlines");

    let absent = text("absent");
    assert!(fails(2, &["put", "k", "--from", &absent, "--data-dir", folder]).contains(&absent));
    assert!(fails(2, &["put", "k", "v", "--from", &absent, "--data-dir", folder]).contains("cannot be used with"));
    assert!(fails(2, &["put", "k", "--data-dir", folder]).contains("--from"));
}
