//! Errors name what to do.

use super::{fails, kontiki, succeeds};
use kontiki::{Db, Options};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

#[test]
fn what_is_no_address_of_a_node_is_not_taken_for_a_dead_one() {
    for endpoint in ["localhost", "localhost:", ":20160", "localhost:99999", "https://h:1", "h:1/path", "h:1,h"] {
        let complaint = fails(2, &["get", "k", "--endpoint", endpoint]);
        assert!(complaint.contains("HOST:PORT such as 127.0.0.1:20160"), "{endpoint}: {complaint}");
    }
    // An address of the form that has a host name without an address: no server is asked for it.
    let complaint = fails(1, &["get", "k", "--endpoint", "a..b:1"]);
    assert!(complaint.contains("cannot be resolved"), "{complaint}");
}

#[test]
fn numbers_with_units_are_refused_with_the_form_that_is_accepted() {
    for arguments in [&["serve", "--memtable-bytes-max", "64MiB"][..], &["scan", "--limit", "10k"]] {
        let complaint = fails(2, arguments);
        assert!(complaint.contains("without a unit") && complaint.contains("67108864"), "{complaint}");
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("kontiki.toml");
    std::fs::write(&file, "tick-ms = \"50ms\"\n").expect("written");
    let complaint = fails(2, &["serve", "--config", text(&file)]);
    assert!(complaint.contains("tick-ms") && complaint.contains("without quotes and unit"), "{complaint}");
}

#[test]
fn arguments_that_are_not_text_lead_to_hex() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kontiki"));
    let output = command.arg("get").arg(OsStr::from_bytes(b"\xff\xfe")).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--hex"), "{output:?}");
}

#[test]
fn a_long_key_is_cut_in_errors() {
    let scratch = tempfile::tempdir().expect("a directory");
    succeeds(scratch.path(), &["put", "a", "1"]);
    let key = "k".repeat(60_000);
    for (code, arguments) in [(1, &["get", &key][..]), (2, &["get", &key[1..], "--hex"])] {
        let complaint = fails(code, &[arguments, &["--data-dir", text(scratch.path())]].concat());
        assert!(complaint.len() < 300 && complaint.contains("bytes)"), "{complaint}");
    }
}

#[test]
fn a_path_that_cannot_be_used_is_wrong_usage_with_a_remedy() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("file");
    std::fs::write(&file, "text").expect("written");
    let beneath = file.join("db");
    let ports = ["--grpc-address", "127.0.0.1:0", "--status-address", "127.0.0.1:0"];
    for command in [&["put", "k", "v"][..], &[&["serve"], &ports[..]].concat()] {
        let complaint = fails(2, &[command, &["--data-dir", text(&beneath)]].concat());
        assert!(complaint.contains(text(&file)) && complaint.contains("path"), "{complaint}");
    }
    succeeds(&scratch.path().join("db"), &["put", "k", "v"]);
    let db = scratch.path().join("db");
    let complaint = fails(2, &["get", "k", "--data-dir", text(&db), "--to", text(&beneath)]);
    assert!(complaint.contains(text(&beneath)) && complaint.contains("path"), "{complaint}");
}

#[test]
fn an_embedded_database_needs_no_recovery() {
    let scratch = tempfile::tempdir().expect("a directory");
    succeeds(scratch.path(), &["put", "k", "v"]);
    let complaint = fails(2, &["unsafe-recovery", "--lost-stores", "2,3", "--data-dir", text(scratch.path())]);
    assert!(complaint.contains("embedded database") && complaint.contains("name the directory"), "{complaint}");
}

#[test]
fn a_host_name_is_not_listened_on() {
    let complaint = fails(2, &["serve", "--initial-cluster", "1=one:20160,2=two:20160"]);
    assert!(complaint.contains("grpc-address") && complaint.contains("0.0.0.0:20160"), "{complaint}");
}

/// A log that was not closed, and a damaged record of how far it reaches.
#[test]
fn a_check_prints_notes_and_problems() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (open, copy) = (scratch.path().join("open"), scratch.path().join("copy"));
    let db = Db::open(&open, Options::default()).expect("opens");
    db.put("k", "v").expect("written");
    // As a kill leaves it. The next segment of the log is made in the background; a copy during that is of no moment.
    let state = || {
        let names = std::fs::read_dir(open.join("wal")).expect("there").map(|entry| entry.expect("listed").file_name());
        (names.collect::<BTreeSet<_>>(), std::fs::read(open.join("EXTENT")).ok())
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let before = state();
        let copied = Command::new("cp").arg("-r").args([&open, &copy]).status().expect("it runs");
        if copied.success() && state() == before {
            break;
        }
        assert!(Instant::now() < deadline, "the directory does not rest: {before:?}");
        std::fs::remove_dir_all(&copy).expect("there");
    }
    drop(db);
    let found = succeeds(&copy, &["check"]);
    assert!(found.contains("note: ") && found.contains("did not close the database"), "{found}");
    let report: serde_json::Value = serde_json::from_str(&succeeds(&copy, &["check", "--json"])).expect("JSON");
    assert_eq!(report["notes"].as_array().map(Vec::len), Some(1), "{report:#}");

    let extent = copy.join("EXTENT");
    let mut bytes = std::fs::read(&extent).expect("there");
    bytes[20] ^= 1;
    bytes[4096] ^= 1;
    std::fs::write(&extent, bytes).expect("written");
    let output = kontiki(&["check", "--data-dir", text(&copy)]);
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(1) && found.contains("EXTENT") && found.contains("remove it"), "{output:?}");
    let complaint = fails(1, &["put", "k", "w", "--data-dir", text(&copy)]);
    assert!(complaint.contains("EXTENT") && complaint.contains("remove it"), "{complaint}");
    std::fs::remove_file(&extent).expect("there");
    assert_eq!(succeeds(&copy, &["get", "k"]), "v\n");
}
