//! The commands that need no node: data in a directory, wrong usage, exit codes.

#![allow(clippy::disallowed_methods)] // tests may touch the machine

mod compact;
mod copies;
mod remedies;
mod scan;

use kontiki::{Db, Family, FamilySpec, Options, WriteBatch};
use std::path::Path;
use std::process::{Command, Output};

fn kontiki(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kontiki")).args(arguments).output().expect("the program starts")
}

/// Runs it in a directory; returns what it printed.
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let folder = folder.to_str().expect("a path of text");
    let output = kontiki(&[arguments, &["--data-dir", folder]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs it; returns its error text.
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = kontiki(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: a failure prints nothing for programs to take for data");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn a_directory_is_written_read_scanned_and_deleted_from() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("db");
    for (key, value) in [("crew/1", "Thor"), ("crew/2", "Knut"), ("raft", "balsa")] {
        assert_eq!(succeeds(&folder, &["put", key, value]), "");
    }
    assert_eq!(succeeds(&folder, &["get", "raft"]), "balsa\n");
    assert_eq!(succeeds(&folder, &["get", "raft", "--json"]), "{\"key\":\"raft\",\"value\":\"balsa\"}\n");
    let crew = "{\"key\":\"crew/1\",\"value\":\"Thor\"}\n{\"key\":\"crew/2\",\"value\":\"Knut\"}\n";
    assert_eq!(succeeds(&folder, &["scan", "--prefix", "crew/", "--json"]), crew);
    assert_eq!(succeeds(&folder, &["scan", "crew/", "crew/3", "--json"]), crew);
    let last = "{\"key\":\"raft\",\"value\":\"balsa\"}\n";
    assert_eq!(succeeds(&folder, &["scan", "--reverse", "--limit", "1", "--json"]), last);
    let table = succeeds(&folder, &["scan"]);
    assert!(table.lines().next().is_some_and(|header| header.starts_with("KEY")), "{table}");
    assert_eq!(table.lines().count(), 4, "{table}");
    assert_eq!(succeeds(&folder, &["delete", "raft"]), "");
    assert_eq!(succeeds(&folder, &["delete", "raft"]), "", "removing a missing key is not an error");
    let folder = folder.to_str().expect("a path of text");
    assert!(fails(1, &["get", "raft", "--data-dir", folder]).contains("there is no key \"raft\""));
}

#[test]
fn binary_keys_and_values_go_in_and_out_as_hex() {
    let scratch = tempfile::tempdir().expect("a directory");
    succeeds(scratch.path(), &["put", "00ff", "fe", "--hex"]);
    assert_eq!(succeeds(scratch.path(), &["get", "00ff", "--hex"]), "fe\n");
    assert_eq!(
        succeeds(scratch.path(), &["scan", "--json"]),
        "{\"key\":{\"hex\":\"00ff\"},\"value\":{\"hex\":\"fe\"}}\n"
    );
    assert_eq!(succeeds(scratch.path(), &["scan", "--json", "--hex"]), "{\"key\":\"00ff\",\"value\":\"fe\"}\n");
}

#[test]
fn reading_creates_no_directory() {
    let scratch = tempfile::tempdir().expect("a directory");
    let folder = scratch.path().join("absent");
    for command in [&["get", "k"][..], &["delete", "k"], &["scan"], &["check"], &["stats"], &["repair", "x"]] {
        let complaint = fails(2, &[command, &["--data-dir", folder.to_str().expect("text")]].concat());
        assert!(complaint.contains("there is no directory"), "{complaint}");
    }
    assert!(!folder.exists());
}

/// A mistyped directory does not become a database.
#[test]
fn a_directory_of_something_else_stays_what_it_is() {
    let scratch = tempfile::tempdir().expect("a directory");
    std::fs::write(scratch.path().join("letter.txt"), "Dear Thor").expect("written");
    let folder = scratch.path().to_str().expect("text");
    let target = scratch.path().join("copy");
    let target = target.to_str().expect("text");
    for command in [
        &["get", "k"][..],
        &["delete", "k"],
        &["scan"],
        &["compact"],
        &["checkpoint", target],
        &["check"],
        &["wal"],
        &["repair", target],
        &["put", "k", "v"],
        &["serve", "--grpc-address", "127.0.0.1:0", "--status-address", "127.0.0.1:0"],
    ] {
        let complaint = fails(2, &[command, &["--data-dir", folder]].concat());
        assert!(complaint.contains("holds no database") && complaint.contains(folder), "{complaint}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).expect("a directory").count(), 1, "nothing was added");
}

#[test]
fn a_directory_in_use_names_its_holder() {
    let scratch = tempfile::tempdir().expect("a directory");
    let _held = Db::open(scratch.path(), Options::default()).expect("opens");
    let complaint = fails(1, &["get", "k", "--data-dir", scratch.path().to_str().expect("text")]);
    assert!(complaint.contains("is in use"), "{complaint}");
    assert!(complaint.contains(&std::process::id().to_string()), "the holder is this process: {complaint}");
}

#[test]
fn the_directory_of_a_served_store_is_not_written_to() {
    let scratch = tempfile::tempdir().expect("a directory");
    let meta = Family::NODE_STATE[0];
    let families = vec![FamilySpec::new(meta, "kontiki.meta")];
    let db = Db::open(scratch.path(), Options { families, ..Options::default() }).expect("opens");
    let mut identity = WriteBatch::new();
    identity.put(meta, [1], b"\x01identity");
    db.write(identity, kontiki::Durability::Sync).expect("writes");
    db.close().expect("closes");
    for command in [&["put", "k", "v"][..], &["delete", "k"]] {
        let complaint = fails(2, &[command, &["--data-dir", scratch.path().to_str().expect("text")]].concat());
        assert!(complaint.contains("belongs to a served store") && complaint.contains("kontiki serve"), "{complaint}");
    }
}

#[test]
fn a_check_passes_a_sound_directory_and_names_the_damage_of_another() {
    let scratch = tempfile::tempdir().expect("a directory");
    let db = Db::open(scratch.path(), Options::default()).expect("opens");
    for number in 0..1_000u32 {
        db.put(format!("key {number:04}").as_bytes(), [7; 100]).expect("writes");
    }
    db.flush().expect("flushes");
    db.close().expect("closes");
    let report: serde_json::Value =
        serde_json::from_str(&succeeds(scratch.path(), &["check", "--json"])).expect("JSON");
    assert_eq!((report["sound"].as_bool(), report["versions"].as_u64()), (Some(true), Some(1_000)), "{report:#}");
    assert!(succeeds(scratch.path(), &["check"]).contains("tables"));

    let tables = std::fs::read_dir(scratch.path().join("tables")).expect("a directory");
    let table = tables.map(|entry| entry.expect("readable").path()).next().expect("a table");
    let mut bytes = std::fs::read(&table).expect("readable");
    bytes[2_000] ^= 1;
    std::fs::write(&table, bytes).expect("writable");
    let output = kontiki(&["check", "--data-dir", scratch.path().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = String::from_utf8_lossy(&output.stdout);
    assert!(found.contains("at offset") && found.contains(table.to_str().expect("text")), "{found}");
}

#[test]
fn mistakes_exit_with_2_and_name_what_is_accepted() {
    for (arguments, named) in [
        (&["serve", "--store-id", "0"][..], "store-id"),
        (&["serve", "--no-such-flag"], "--no-such-flag"),
        (&["serve", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (&["serve", "--log-level", "no=such=level"], "log-level"),
        (&["cluster", "--dir", "d", "--nodes", "10"], "1..=9"),
        (&["cluster", "--dir", "d", "--port", "20179"], "status-port = 20180"),
        (&["put", "abc", "00", "--hex"], "even number"),
        (&["get", ""], "at least one byte"),
        (&["scan", "--limit", "0"], "0 is not in 1.."),
        (&["get", "k", "--endpoint", "x:1", "--data-dir", "d"], "cannot be used with"),
        (&[], "Usage"),
    ] {
        let complaint = fails(2, arguments);
        assert!(complaint.contains(named), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_port_in_use_is_said_plainly() {
    let scratch = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let folder = scratch.path().join("db");
    let complaint = fails(1, &["serve", "--grpc-address", &address, "--data-dir", folder.to_str().expect("text")]);
    assert!(complaint.contains(&address) && complaint.contains("in use"), "{complaint}");
    assert!(!folder.exists(), "the directory is not touched");
}

#[test]
fn without_a_node_the_remedy_is_named() {
    // A port that was free a moment ago; no process listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    for command in [&["get", "k"][..], &["status"]] {
        let complaint = fails(1, &[command, &["--endpoint", &free.to_string()]].concat());
        assert!(complaint.contains("no node answers") && complaint.contains("kontiki serve"), "{complaint}");
    }
}

#[test]
fn help_is_no_failure() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["cluster", "--help"], &["--version"]] {
        let output = kontiki(arguments);
        assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    }
}

fn json(directory: &Path, arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&succeeds(directory, arguments)).expect("JSON")
}

#[test]
fn a_directory_can_be_looked_into_copied_and_brought_back() {
    let scratch = tempfile::tempdir().expect("a directory");
    let data = scratch.path().join("data");
    let path = |name: &str| scratch.path().join(name).to_str().expect("text").to_string();
    let db = Db::open(&data, Options::default()).expect("opens");
    for number in 0..100u32 {
        db.put(format!("key {number:03}").as_bytes(), b"value").expect("writes");
    }
    db.flush().expect("flushes");
    db.put(b"later", b"in the log").expect("writes");
    db.close().expect("closes");

    let stats = json(&data, &["stats", "--json"]);
    assert_eq!(stats["levels"][0]["versions"], 100, "{stats:#}");
    assert_eq!((&stats["tables"], &stats["versions"]), (&1.into(), &100.into()), "{stats:#}");
    assert!(stats["log_bytes"].as_u64() > Some(0) && stats["table_bytes"].as_u64() > Some(0), "{stats:#}");
    let shown = succeeds(&data, &["stats"]);
    assert!(shown.contains("default") && shown.contains("log segments"), "{shown}");
    assert_eq!(json(&data, &["manifest", "--json"])["families"][0]["tables"], 1);
    let tables = json(&data, &["tables", "--json"]);
    assert_eq!(tables[0]["smallest_key"], "key 000", "{tables:#}");
    let number = tables[0]["number"].to_string();
    assert_eq!(json(&data, &["tables", "--json", "--table", &number])["versions"], 100);
    let wal = json(&data, &["wal", "--json"]);
    let commits: u64 = wal.as_array().expect("a list").iter().filter_map(|segment| segment["commits"].as_u64()).sum();
    assert!(commits >= 1, "{wal:#}");
    assert!(json(&data, &["vlog", "--json"]).as_array().is_some());

    succeeds(&data, &["checkpoint", &path("checkpoint")]);
    assert_eq!(succeeds(Path::new(&path("checkpoint")), &["get", "later"]), "in the log\n");
    let made = json(&data, &["backup", "create", "--backups", &path("backups"), "--json"]);
    assert_eq!(made["backup"], 1);
    succeeds(&data, &["put", "later", "changed"]);
    succeeds(&data, &["backup", "create", "--backups", &path("backups")]);
    succeeds(&data, &["compact"]);
    let plain = |arguments: &[&str]| {
        let output = kontiki(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(plain(&["backup", "list", "--backups", &path("backups")]).contains("SEQUENCE"));
    plain(&["backup", "verify", "--backups", &path("backups")]);
    plain(&["restore", "--backups", &path("backups"), "--backup", "1", &path("first")]);
    plain(&["restore", "--backups", &path("backups"), &path("last")]);
    assert_eq!(succeeds(Path::new(&path("first")), &["get", "later"]), "in the log\n");
    assert_eq!(succeeds(Path::new(&path("last")), &["get", "later"]), "changed\n");
    plain(&["backup", "delete", "--backups", &path("backups"), "--backup", "1"]);
    let refused = kontiki(&["restore", "--backups", &path("backups"), "--backup", "1", &path("none")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no backup 1"), "{refused:?}");
}
