//! Copies and damage: output and exit codes of the commands.

use super::{kontiki, succeeds};
use std::path::{Path, PathBuf};

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a directory");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn json(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_repair_that_lost_something_says_so_and_fails() {
    let scratch = tempfile::tempdir().expect("a directory");
    let path = |name: &str| scratch.path().join(name).to_str().expect("text").to_string();
    let data = scratch.path().join("data");
    for i in 0..20 {
        succeeds(&data, &["put", &format!("key {i}"), "value"]);
    }
    let repair = |target: &str| kontiki(&["repair", "--data-dir", &path("data"), &path(target), "--json"]);
    let whole = repair("whole");
    assert!(whole.status.success(), "{whole:?}");
    assert_eq!(json(&whole)["whole"], true);
    let newest = files(&data.join("wal"), "wal").into_iter().max().expect("a log");
    let bytes = std::fs::read(&newest).expect("readable");
    std::fs::write(&newest, &bytes[..bytes.len() - 10]).expect("writable");
    let lost = repair("lost");
    assert_eq!(lost.status.code(), Some(1), "{lost:?}");
    assert_eq!(json(&lost)["whole"], false);
    let complaint = String::from_utf8_lossy(&lost.stderr);
    assert!(complaint.contains("not everything could"), "{complaint}");
}

#[test]
fn listed_backups_say_what_they_copied_and_what_is_damaged() {
    let scratch = tempfile::tempdir().expect("a directory");
    let backups = scratch.path().join("backups");
    let backups_text = backups.to_str().expect("text");
    let data = scratch.path().join("data");
    for i in 0..2 {
        succeeds(&data, &["put", &format!("key {i}"), "value"]);
        succeeds(&data, &["backup", "create", "--backups", backups_text]);
    }
    let list = || kontiki(&["backup", "list", "--backups", backups_text, "--json"]);
    let listed = json(&list());
    assert_eq!(listed[0]["copied_bytes"], listed[0]["bytes"]);
    assert!(listed[1]["copied_bytes"].as_u64().is_some_and(|copied| copied > 0), "{listed}");
    let mut records: Vec<PathBuf> = std::fs::read_dir(backups.join("backups"))
        .expect("there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    records.sort();
    std::fs::write(&records[0], b"damaged").expect("writable");
    let output = list();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let listed = json(&output);
    assert!(listed[0]["damage"].is_string() && listed[1]["damage"].is_null(), "{listed}");
    let restored = scratch.path().join("restored");
    let restore = kontiki(&["restore", "--backups", backups_text, restored.to_str().expect("text")]);
    assert!(restore.status.success(), "the last sound one: {restore:?}");
    assert_eq!(succeeds(&restored, &["get", "key 1"]), "value\n");
}

/// Reading leaves no trace: not even a file that locks.
#[test]
fn what_only_reads_changes_nothing() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("data");
    succeeds(&data, &["put", "key", "value"]);
    succeeds(&data, &["checkpoint", scratch.path().join("copy").to_str().expect("text")]);
    let copy = scratch.path().join("copy");
    let names = || {
        let entries = std::fs::read_dir(&copy).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("readable").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    assert_eq!(succeeds(&copy, &["get", "key"]), "value\n");
    assert!(succeeds(&copy, &["scan"]).contains("value"));
    succeeds(&copy, &["check"]);
    succeeds(&copy, &["stats"]);
    assert_eq!(names(), before);
}
