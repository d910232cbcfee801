//! Two of three nodes are lost for good: the third one goes on by command, and the cluster grows to three again.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use serde_json::json;
use std::path::Path;
use std::process::Output;
use support::{Cluster, connect_raw, connect_transactions, eventually, kontiki, wait_for};

fn recover(dir: &Path, lost: &str, more: &[&str]) -> Output {
    let mut command = kontiki();
    command.args(["unsafe-recovery", "--lost-stores", lost, "--data-dir"]).arg(dir).args(more);
    command.output().expect("it runs")
}

#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(why), "{text}");
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn get(endpoint: &str, key: &str) -> Option<String> {
    let output = kontiki().args(["get", key, "--endpoint", endpoint]).output().expect("it runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn put(endpoint: &str, key: &str) -> Option<()> {
    let output = kontiki().args(["put", key, "yes", "--endpoint", endpoint]).output().expect("it runs");
    output.status.success().then_some(())
}

#[track_caller]
fn read_all(endpoint: &str) {
    for i in 0..20 {
        let key = format!("paid{i}");
        assert_eq!(wait_for(&key, || get(endpoint, &key)), "yes");
    }
}

/// The timestamp of a new transaction: its physical part.
async fn timestamp(endpoints: &[String]) -> i64 {
    let client = connect_transactions(endpoints).await;
    eventually("a timestamp", async || client.current_timestamp().await).await.physical
}

/// Of node 1, which is killed last: its raft logs hold entries that its tables do not.
fn lose_two(cluster: &mut Cluster) {
    cluster.wait_quiet();
    let [first, lost @ ..] = cluster.nodes.as_mut_slice() else { unreachable!("three nodes") };
    lost.iter_mut().for_each(|node| node.kill());
    refused(&recover(&first.data_dir, "2,3", &[]), 1, "in use");
    refused(&recover(&first.data_dir, "2,3", &["--yes"]), 1, "in use");
    first.kill();
    std::fs::remove_dir_all(&lost[0].data_dir).expect("the directory goes");
    std::fs::rename(&lost[1].data_dir, lost[1].data_dir.with_extension("lost")).expect("it is moved away");
}

fn recover_the_first(cluster: &mut Cluster) {
    let dir = cluster.nodes[0].data_dir.clone();
    refused(&recover(&dir, "1,2", &["--yes"]), 2, "store 1 itself");
    refused(&recover(&dir, "2,9", &["--yes"]), 2, "store 9 is no member");
    refused(&recover(&dir, "2", &["--yes"]), 2, "replace-a-disk.md");
    refused(&recover(&dir.with_extension("absent"), "2,3", &["--yes"]), 2, "there is no directory");
    refused(&recover(&dir, "2,3", &["--yes", "--from-learners", "2=1"]), 2, "a voter of it is left");
    refused(&recover(&dir, "2,3", &["--yes", "--from-learners", "2=3"]), 2, "the store is lost");
    refused(&recover(&dir, "2,3", &["--yes", "--from-learners", "2"]), 2, "a region and a store, as 7=4");

    let planned = succeeds(&recover(&dir, "2,3", &["--json"]));
    let planned: serde_json::Value = serde_json::from_str(&planned).expect("JSON");
    assert_eq!((&planned["done"], &planned["lost_stores"]), (&json!(false), &json!([2, 3])));
    let regions = planned["regions"].as_array().expect("regions");
    assert!(regions.len() == 3 && regions.iter().all(|region| region["stores_after"] == json!([1])), "{planned}");
    assert!(succeeds(&recover(&dir, "2,3", &[])).contains("Nothing was changed"));
    assert!(succeeds(&recover(&dir, "2,3", &["--yes"])).contains("recorded as unsafe recovery 1"));
    assert!(succeeds(&recover(&dir, "2,3", &["--yes"])).contains("there is nothing to do"));
    refused(&recover(&dir, "3", &["--yes"]), 2, "they stay lost");
}

/// What `kontiki status` says of each store.
fn states(endpoint: &str) -> Option<Vec<String>> {
    let output = kontiki().args(["status", "--json", "--endpoint", endpoint]).output().expect("it runs");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let stores = status["stores"].as_array()?;
    Some(stores.iter().map(|store| store["state"].as_str().expect("text").to_owned()).collect())
}

/// The lost directory that was only moved away is started all the same.
fn a_lost_node_stops(cluster: &mut Cluster) {
    let node = &mut cluster.nodes[2];
    let lost = node.data_dir.with_extension("lost");
    let empty = std::mem::replace(&mut node.data_dir, lost);
    node.start();
    assert!(!node.wait_end().success());
    assert!(node.log_text().contains("was stated to be lost for good"), "{}", node.log_text());
    node.data_dir = empty;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_node_of_three_serves_what_it_has_and_the_cluster_grows_again() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    let client = connect_raw(&endpoints).await;
    for i in 0..20 {
        eventually("a put", async || client.put(format!("paid{i}"), "yes".to_owned()).await).await;
    }
    let before = timestamp(&endpoints).await;
    drop(client);
    tokio::task::block_in_place(|| {
        lose_two(&mut cluster);
        recover_the_first(&mut cluster);
        cluster.nodes[0].start();
        cluster.nodes[0].wait_ready();
        let known = wait_for("placement to answer", || states(&endpoints[0]));
        assert_eq!(known, ["up", "lost", "lost"], "at once");
        read_all(&endpoints[0]);
        wait_for("a put at the node that is left", || put(&endpoints[0], "alone"));
    });
    assert!(timestamp(&endpoints[..1]).await > before, "time does not go back");
    tokio::task::block_in_place(|| {
        let is_done = |status: &serde_json::Value| {
            let regions = status["regions"].as_array().expect("regions");
            regions.iter().all(|region| region["peers"].as_array().is_some_and(|peers| peers.len() == 1))
        };
        let status = wait_for("every region to be recovered", || cluster.nodes[0].status().filter(is_done));
        assert_eq!(status["unsafe_recovery"]["lost_stores"], json!([2, 3]));
        a_lost_node_stops(&mut cluster);

        for i in [1, 2] {
            cluster.nodes[i].start_with(&["--replace-lost-directory"]);
            cluster.nodes[i].wait_ready();
        }
        wait_for("three replicas of each region", || {
            let status = cluster.nodes[0].status()?;
            let regions = status["regions"].as_array()?;
            let is_whole =
                |region: &serde_json::Value| region["peers"].as_array().is_some_and(|peers| peers.len() == 3);
            regions.iter().all(is_whole).then_some(())
        });
        // One of three may fail again, and it may be the one that was left.
        cluster.nodes[0].stop();
        read_all(&endpoints[1]);
        wait_for("two of three to continue", || put(&endpoints[2], "later"));
        cluster.nodes[0].start();
        cluster.nodes[0].wait_ready();
        assert_eq!(wait_for("the last put", || get(&endpoints[0], "later")), "yes");
    });
}
