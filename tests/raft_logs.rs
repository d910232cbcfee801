//! A real node whose raft logs are in files, and move.

#![allow(clippy::disallowed_methods)] // a test over real processes touches the machine

mod support;

use support::{Cluster, connect_raw, kontiki};

const PER_GROUP: [&str; 2] = ["--raft-log", "per-group"];

fn raft_log(cluster: &Cluster) -> String {
    cluster.nodes[0].status().expect("it runs")["raft_log"].as_str().expect("a text").to_owned()
}

async fn put(cluster: &Cluster, key: &str) {
    let client = connect_raw(&cluster.endpoints()).await;
    client.put(key.to_owned(), "value".to_owned()).await.expect("put");
}

async fn assert_stored(cluster: &Cluster, keys: &[&str]) {
    let client = connect_raw(&cluster.endpoints()).await;
    for key in keys {
        assert_eq!(client.get((*key).to_owned()).await.expect("get"), Some(b"value".to_vec()), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raft_logs_move_to_files_and_back_between_kills() {
    let mut cluster = Cluster::start(1);
    assert_eq!(raft_log(&cluster), "shared");
    put(&cluster, "shared").await;
    cluster.nodes[0].kill();
    let files = cluster.nodes[0].data_dir.join("raft-groups");

    cluster.nodes[0].start_with(&PER_GROUP);
    cluster.wait_ready();
    assert_eq!(raft_log(&cluster), "per-group");
    put(&cluster, "in a file").await;
    assert_stored(&cluster, &["shared", "in a file"]).await;
    assert_eq!(std::fs::read_dir(&files).expect("listed").count(), 3, "a file for each region");
    cluster.nodes[0].kill();

    let folder = cluster.nodes[0].data_dir.to_str().expect("text").to_owned();
    let check = kontiki().args(["check", "--json", "--data-dir", &folder]).output().expect("it starts");
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && text.contains("\"raft_log_files\": 3"), "{text}");
    let copied = cluster.dir.path().join("copied");
    let copy = kontiki().args(["checkpoint", "--data-dir", &folder]).arg(&copied).output().expect("it starts");
    let text = String::from_utf8_lossy(&copy.stderr);
    assert!(copy.status.code() == Some(2) && text.contains("entries"), "its last writes are in these files: {text}");

    // Without the option it stays as it is.
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert_eq!(raft_log(&cluster), "per-group");
    put(&cluster, "again").await;
    cluster.nodes[0].kill();
    cluster.nodes[0].start_with(&["--raft-log", "shared"]);
    cluster.wait_ready();
    assert_eq!(raft_log(&cluster), "shared");
    assert_stored(&cluster, &["shared", "in a file", "again"]).await;
    assert_eq!(std::fs::read_dir(&files).expect("listed").count(), 0, "none is left");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_of_a_raft_log_is_named_and_the_node_does_not_start() {
    let mut cluster = Cluster::planned(1);
    cluster.nodes[0].start_with(&PER_GROUP);
    cluster.wait_ready();
    put(&cluster, "key").await;
    cluster.stop();
    let files = cluster.nodes[0].data_dir.join("raft-groups");
    let mut paths: Vec<_> =
        std::fs::read_dir(files).expect("listed").map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    let mut bytes = std::fs::read(&paths[1]).expect("readable");
    bytes[60] ^= 1;
    std::fs::write(&paths[1], bytes).expect("writable");

    let folder = cluster.nodes[0].data_dir.to_str().expect("text").to_owned();
    let check = kontiki().args(["check", "--data-dir", &folder]).output().expect("it starts");
    let (text, name) = (String::from_utf8_lossy(&check.stdout), paths[1].display().to_string());
    assert!(check.status.code() == Some(1) && text.contains(&name), "{text}");
    cluster.nodes[0].start();
    assert!(!cluster.nodes[0].wait_end().success());
    let log = cluster.nodes[0].log_text();
    assert!(log.contains(&name) && log.contains("replace-lost-directory"), "{log}");
}
