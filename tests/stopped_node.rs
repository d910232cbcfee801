//! One directory in several uses: embedded with user families, served, stopped, read and copied by commands, and its
//! copy served again.

#![allow(clippy::disallowed_methods)] // a test over real processes touches the machine

mod support;

use kontiki_engine::{Db, Durability, Family, FamilySpec, Options, WriteBatch};
use std::path::Path;
use support::{Cluster, connect_raw, connect_transactions, eventually, kontiki};
use tikv_client::{CheckLevel, TransactionOptions};

const OWN: Family = Family(1);

fn options() -> Options {
    Options { families: vec![FamilySpec::new(OWN, "mine")], ..Options::default() }
}

fn write_embedded(dir: &Path) {
    let db = Db::open(dir, options()).expect("opens");
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"embedded", b"1");
    batch.put(OWN, b"own", b"2");
    db.write(batch, Durability::Sync).expect("writes");
    db.close().expect("closes");
}

fn read_own(dir: &Path) {
    let db = Db::open(dir, options()).expect("opens with its user's families");
    assert_eq!(db.snapshot().get_in(OWN, b"own").expect("reads").as_deref(), Some(&b"2"[..]));
    db.close().expect("closes");
}

/// Runs a command; returns its output.
fn succeeds(arguments: &[&str]) -> String {
    let output = kontiki().args(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_embedded_served_read_when_stopped_copied_and_served_again() {
    let mut cluster = Cluster::prepared(1, |node| write_embedded(&node.data_dir));
    let client = connect_raw(&cluster.endpoints()).await;
    assert_eq!(client.get("embedded".to_owned()).await.expect("get"), Some(b"1".to_vec()));
    client.put("served".to_owned(), "3".to_owned()).await.expect("put");
    let transactions = connect_transactions(&cluster.endpoints()).await;
    let optimistic = || TransactionOptions::new_optimistic().drop_check(CheckLevel::None);
    let mut transaction = transactions.begin_with_options(optimistic()).await.expect("begins");
    transaction.put("transactional".to_owned(), "4".to_owned()).await.expect("buffered");
    transaction.commit().await.expect("commits");
    let endpoint = cluster.nodes[0].addr.clone();
    let read_keys = |place: &[&str]| {
        let transactional = |command: &[&str]| succeeds(&[command, place, &["--transactional"]].concat());
        assert_eq!(transactional(&["get", "transactional"]), "4\n");
        assert_eq!(transactional(&["scan", "--json"]), "{\"key\":\"transactional\",\"value\":\"4\"}\n");
        assert_eq!(transactional(&["scan", "--json", "--reverse", "--prefix", "trans"]).lines().count(), 1);
        assert_eq!(transactional(&["scan", "--json", "u"]), "");
        assert_eq!(succeeds(&[&["scan", "--json"], place].concat()).lines().count(), 2, "raw keys are others");
    };
    read_keys(&["--endpoint", &endpoint]);
    cluster.stop();

    let served = cluster.nodes[0].data_dir.to_str().expect("text").to_owned();
    read_own(Path::new(&served));
    assert_eq!(succeeds(&["get", "served", "--data-dir", &served]), "3\n");
    assert!(succeeds(&["scan", "--json", "--data-dir", &served]).contains("\"embedded\""));
    assert_eq!(succeeds(&["get", "own", "--family", "mine", "--data-dir", &served]), "2\n");
    read_keys(&["--data-dir", &served]);
    for command in ["check", "stats", "manifest", "tables", "wal", "vlog", "compact"] {
        succeeds(&[command, "--data-dir", &served]);
    }
    let (backups, restored) = (cluster.dir.path().join("backups"), cluster.dir.path().join("restored"));
    let (backups, restored) = (backups.to_str().expect("text"), restored.to_str().expect("text"));
    let copied = cluster.dir.path().join("copied");
    let copied = copied.to_str().expect("text");
    succeeds(&["checkpoint", copied, "--data-dir", &served]);
    succeeds(&["backup", "create", "--data-dir", &served, "--backups", backups]);
    succeeds(&["backup", "verify", "--backups", backups]);
    succeeds(&["restore", restored, "--backups", backups]);
    let data = support::dump_data(Path::new(&served));
    for copy in [copied, restored] {
        assert!(support::dump_data(Path::new(copy)) == data, "{copy} holds something else than {served}");
        succeeds(&["put", "copy", "5", "--data-dir", copy]); // It belongs to no store.
    }

    // The node continues, and its copy becomes a separate store.
    cluster.nodes[0].start();
    cluster.wait_ready();
    let client = connect_raw(&cluster.endpoints()).await;
    assert_eq!(client.get("served".to_owned()).await.expect("get"), Some(b"3".to_vec()));
    let other = Cluster::prepared(1, |node| std::fs::rename(copied, &node.data_dir).expect("moved"));
    let client = connect_raw(&other.endpoints()).await;
    assert_eq!(client.get("copy".to_owned()).await.expect("get"), Some(b"5".to_vec()));
    let transactions = connect_transactions(&other.endpoints()).await;
    let read = async || {
        let mut reader = transactions.begin_with_options(optimistic()).await?;
        let value = reader.get("transactional".to_owned()).await;
        let _ = reader.rollback().await;
        value
    };
    assert_eq!(eventually("a read", read).await, Some(b"4".to_vec()));
}

/// The only manifest, table or log file of a kind that there is, or the first.
fn first_file(dir: &Path, folder: &str, suffix: &str) -> std::path::PathBuf {
    let names = std::fs::read_dir(dir.join(folder)).expect("listed").map(|entry| entry.expect("listed").path());
    let mut files: Vec<_> = names.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    files.sort();
    files.into_iter().next().expect("there is one")
}

/// Of a killed node's directory: acknowledged writes are in its raft log alone, and copies have no raft logs.
fn assert_copies_need_a_good_end(served: &Path, scratch: &Path) {
    let at = |name: &str| scratch.join(name).to_str().expect("text").to_owned();
    let served = served.to_str().expect("text");
    for (command, tables_only) in [
        (vec!["checkpoint".to_owned(), at("checkpoint")], false),
        (vec!["backup".to_owned(), "create".to_owned(), "--backups".to_owned(), at("backups")], false),
        (vec!["checkpoint".to_owned(), at("checkpoint")], true),
    ] {
        let more: &[&str] = if tables_only { &["--tables-only"] } else { &[] };
        let output = kontiki().args(&command).args(["--data-dir", served]).args(more).output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if tables_only { 0 } else { 2 }), "{command:?}: {output:?}");
        assert!(said.contains("entries") && (tables_only || said.contains("kontiki serve --data-dir")), "{said}");
        assert_eq!(Path::new(&command[command.len() - 1]).exists(), tables_only, "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repaired_directory_is_served_again_if_nothing_was_lost() {
    let mut cluster = Cluster::start(1);
    let client = connect_raw(&cluster.endpoints()).await;
    client.put("flushed".to_owned(), "1".to_owned()).await.expect("put");
    cluster.stop(); // What was applied is in tables.
    cluster.nodes[0].start();
    cluster.wait_ready();
    let client = connect_raw(&cluster.endpoints()).await;
    client.put("logged".to_owned(), "2".to_owned()).await.expect("put");
    cluster.nodes[0].kill(); // Only the raft log has it.

    let served = cluster.nodes[0].data_dir.clone();
    assert_copies_need_a_good_end(&served, cluster.dir.path());
    let (whole, saved) = (cluster.dir.path().join("whole"), cluster.dir.path().join("saved"));
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    succeeds(&["repair", "--data-dir", &text(&served), &text(&whole)]);
    std::fs::rename(&served, cluster.dir.path().join("original")).expect("moved");
    std::fs::rename(&whole, &served).expect("moved");
    cluster.nodes[0].start();
    cluster.wait_ready();
    let client = connect_raw(&cluster.endpoints()).await;
    for (key, value) in [("flushed", "1"), ("logged", "2")] {
        assert_eq!(client.get(key.to_owned()).await.expect("get"), Some(value.as_bytes().to_vec()));
    }
    cluster.stop();

    // With damage it cannot run as a node any more, and every command reports this.
    let segment = first_file(&served, "wal", ".wal");
    let mut bytes = std::fs::read(&segment).expect("readable");
    bytes[40] ^= 1;
    std::fs::write(&segment, bytes).expect("writable");
    let refused = kontiki().args(["serve", "--data-dir", &text(&served)]).output().expect("the program starts");
    let error_text = |output: &std::process::Output| {
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
    };
    assert!(!refused.status.success() && error_text(&refused).contains("--replace-lost-directory"), "{refused:?}");
    let output = kontiki().args(["repair", "--data-dir", &text(&served), &text(&saved)]).output().expect("starts");
    assert!(!output.status.success() && error_text(&output).contains("--replace-lost-directory"), "{output:?}");
    let members = "1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3";
    let refused = ["serve", "--data-dir", &text(&saved), "--store-id", "1", "--initial-cluster", members];
    let refused = kontiki().args(refused).output().expect("the program starts");
    assert!(!refused.status.success() && error_text(&refused).contains("--replace-lost-directory"), "{refused:?}");
    let other = Cluster::prepared(1, |node| std::fs::rename(&saved, &node.data_dir).expect("moved"));
    let client = connect_raw(&other.endpoints()).await;
    assert_eq!(client.get("flushed".to_owned()).await.expect("get"), Some(b"1".to_vec()));
}
