//! One lost disk of three loses no data: a node that comes back with an empty directory does not take part and reports
//! this, and what was acknowledged without it is served as soon as a majority that has it is up.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use support::{Cluster, http_get, kontiki, wait_for};

/// `kontiki` with these arguments against a node: whether it succeeded, and what it printed.
fn run(endpoint: &str, arguments: &[&str]) -> (bool, String) {
    let output = kontiki().args(arguments).args(["--endpoint", endpoint]).output().expect("kontiki runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads what the test put, and had acknowledged, through this node.
fn read_acknowledged(endpoint: &str, what: &str) {
    for i in 0..5 {
        let key = format!("paid{i}");
        let value = wait_for(what, || {
            let (found, value) = run(endpoint, &["get", &key]);
            found.then_some(value)
        });
        assert!(value.contains("yes"), "{key}: {value}");
    }
}

#[test]
fn a_node_with_an_emptied_directory_neither_votes_nor_counts_and_says_why() {
    let mut cluster = Cluster::start(3);
    let endpoints: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    cluster.nodes[2].stop();
    for i in 0..5 {
        let key = format!("paid{i}");
        wait_for("an acknowledged put", || run(&endpoints[0], &["put", &key, "yes"]).0.then_some(()));
    }
    cluster.nodes[0].stop();
    cluster.nodes[1].stop();
    std::fs::remove_dir_all(&cluster.nodes[1].data_dir).expect("the directory goes");

    // Node 3, which lacks the puts, and node 2, which lacks everything, are a majority in number only.
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    let status_addr = cluster.nodes[1].status_addr.clone();
    let why = wait_for("node 2 to know that its directory was emptied", || {
        http_get(&status_addr, "/readyz").filter(|(_, why)| why.contains("its data are lost")).map(|(code, _)| code)
    });
    assert_eq!(why, 503);
    let (_, metrics) = http_get(&status_addr, "/metrics").expect("it serves its metrics");
    assert!(metrics.lines().any(|line| line == "kontiki_member 0"), "{metrics}");
    assert!(cluster.nodes[1].log_text().contains("replace-a-disk.md"));
    let status = cluster.nodes[2].status().expect("node 3 runs");
    assert!(status["regions"].as_array().expect("regions").iter().all(|region| region["leader_store"].is_null()));

    cluster.nodes[0].start();
    read_acknowledged(&endpoints[0], "an acknowledged put to be read");
    wait_for("two of three to continue", || run(&endpoints[2], &["put", "later", "yes"]).0.then_some(()));
    cluster.nodes[0].wait_ready();
    cluster.nodes[2].wait_ready();

    // Its operator replaces the lost directory: it becomes a new replica, and with it one of the others may fail.
    cluster.nodes[1].stop();
    cluster.nodes[1].start_with(&["--replace-lost-directory"]);
    cluster.nodes[1].wait_ready();
    let status = cluster.nodes[1].status().expect("node 2 runs");
    let regions = status["regions"].as_array().expect("regions");
    assert!(regions.len() == 3 && regions.iter().all(|region| region["applied_index"].is_u64()), "{status}");
    cluster.nodes[0].stop();
    read_acknowledged(&endpoints[1], "an acknowledged put to be read without node 1");
    wait_for("nodes 2 and 3 to continue", || run(&endpoints[1], &["put", "last", "yes"]).0.then_some(()));
}
