//! Replicas are compared by command: a node whose data differ stops, is refused at its next start, and is replaced like
//! one with a lost disk.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::{Db, Options};
use std::process::Output;
use support::{Cluster, connect_raw, eventually, kontiki, wait_for};

fn compare(cluster: &Cluster, arguments: &[&str]) -> Output {
    let endpoints = cluster.endpoints().join(",");
    let mut command = kontiki();
    command.args(["compare-replicas", "--endpoint", &endpoints]).args(arguments);
    command.output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every region has equal replicas. The first time after a start a leader may not have heard of all of them yet.
fn assert_equal(cluster: &Cluster) {
    let output = wait_for("all replicas to be compared and equal", || {
        Some(compare(cluster, &[])).filter(|output| output.status.success())
    });
    let found = text(&output.stdout);
    assert_eq!(found.lines().count(), 2, "two regions with data: {found}");
    assert!(found.lines().all(|line| line.ends_with("all replicas are equal")), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_other_data_than_the_others_is_found_and_replaced() {
    let mut cluster = Cluster::start(3);
    let client = connect_raw(&cluster.endpoints()).await;
    for i in 0..20 {
        eventually("a put", async || client.put(format!("key{i:02}"), "value".to_owned()).await).await;
    }
    drop(client);
    tokio::task::block_in_place(|| {
        assert_equal(&cluster);
        let output = compare(&cluster, &["--region", "999"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("no region 999"), "{}", text(&output.stderr));

        // A write of one replica alone, as a fault of the program or the machine would make it.
        cluster.wait_quiet();
        cluster.stop();
        let other = &cluster.nodes[2].data_dir;
        let db = Db::open(other, Options::default()).expect("no process has it open");
        db.delete("key07").expect("deleted");
        db.close().expect("closed");
        // The others lead, so that the answer does not come from a node that stops.
        for node in [0, 1] {
            cluster.nodes[node].start();
        }
        for node in [0, 1] {
            cluster.nodes[node].wait_ready();
        }
        cluster.nodes[2].start();
        cluster.nodes[2].wait_ready();
        let found = wait_for("the difference to be found", || {
            let output = compare(&cluster, &[]);
            Some(text(&output.stdout)).filter(|found| found.contains("differ") && !output.status.success())
        });
        assert!(found.contains("the replica of store 3 differs from those of stores 1, 2"), "{found}");
        assert!(!cluster.nodes[2].wait_end().success(), "it stops by itself");
        let log = cluster.nodes[2].log_text();
        assert!(log.contains("differ from those of a quorum of replicas"), "{log}");

        cluster.nodes[2].start();
        assert_eq!(cluster.nodes[2].wait_end().code(), Some(2), "its directory is refused");
        let log = cluster.nodes[2].log_text();
        assert!(log.contains("cannot be served") && log.contains("--replace-lost-directory"), "{log}");

        let moved = cluster.nodes[2].data_dir.with_extension("moved");
        std::fs::rename(&cluster.nodes[2].data_dir, moved).expect("it can be moved away");
        cluster.nodes[2].start_with(&["--replace-lost-directory"]);
        cluster.nodes[2].wait_ready();
        assert_equal(&cluster);
        cluster.stop();
    });
}
