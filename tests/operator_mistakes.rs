//! What an operator gets wrong with running nodes: each ends, or says what is wrong and what to do.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use support::{Cluster, Node, http_get, wait_for};

/// Waits until the node's `/readyz` says all of these.
fn wait_for_reason(node: &Node, parts: &[&str]) {
    let what = format!("store {} to say {parts:?}", node.store_id);
    wait_for(&what, || {
        let (code, why) = http_get(&node.status_addr, "/readyz")?;
        (code == 503 && parts.iter().all(|part| why.contains(part))).then_some(())
    });
}

#[track_caller]
fn assert_log(node: &Node, parts: &[&str]) {
    let log = node.log_text();
    for part in parts {
        assert!(log.contains(part), "{part:?} is missing: {log}");
    }
}

#[test]
fn a_node_whose_directory_is_removed_ends_and_names_it() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    std::fs::remove_dir_all(&node.data_dir).expect("the directory goes");
    assert_eq!(node.wait_end().code(), Some(1), "{}", node.log_text());
    let directory = node.data_dir.display().to_string();
    assert_log(node, &["was removed, moved or replaced", &directory]);
}

/// It was asked to end before it had noticed.
#[test]
fn a_node_whose_directory_was_moved_away_does_not_end_well() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    std::fs::rename(&node.data_dir, node.data_dir.with_extension("moved")).expect("the directory goes");
    assert_eq!(node.stop().code(), Some(1), "{}", node.log_text());
    assert_log(node, &["was removed, moved or replaced"]);
}

#[test]
fn a_wrong_cluster_id_is_named_with_its_options() {
    let mut cluster = Cluster::planned(3);
    cluster.nodes[0].start_with(&["--cluster-id", "7"]);
    cluster.nodes[1].start_with(&["--cluster-id", "8"]);
    let (first, second) = (&cluster.nodes[0], &cluster.nodes[1]);
    let (own, other) = (first.addr.clone(), second.addr.clone());
    wait_for_reason(first, &["not formed", &other, "this is cluster 8", "--initial-cluster", "--cluster-id"]);
    wait_for_reason(second, &["not formed", &own, "this is cluster 7"]);
    wait_for_reason(first, &["store 3 at"]);
}

/// A node that was started alone is a cluster of its own.
#[test]
fn a_node_that_was_alone_cannot_become_the_first_of_three() {
    let mut cluster = Cluster::planned(3);
    let list = std::mem::take(&mut cluster.nodes[0].initial_cluster);
    cluster.nodes[0].start_with(&["--cluster-id", "7"]);
    cluster.nodes[0].wait_ready();
    cluster.nodes[1].start_with(&["--cluster-id", "7"]);
    wait_for_reason(&cluster.nodes[1], &["started without store 2", "From one node to three"]);
    cluster.nodes[0].stop();
    cluster.nodes[0].initial_cluster = list;
    cluster.nodes[0].start_with(&["--cluster-id", "7"]);
    assert_eq!(cluster.nodes[0].wait_end().code(), Some(2));
    assert_log(&cluster.nodes[0], &["formed by stores [1]", "stores [2, 3]", "From one node to three"]);
}

/// Replicas are on the first three members; the fourth holds none and serves calls all the same.
#[test]
fn a_fourth_node_is_ready() {
    let mut cluster = Cluster::start(4);
    let status = cluster.nodes[3].status().expect("it runs");
    assert_eq!((&status["ready"], status["regions"].as_array().map(Vec::len)), (&true.into(), Some(0)), "{status}");
    cluster.stop();
}
