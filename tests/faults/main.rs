//! Real nodes, a proxy before each, and a nemesis: nodes are killed, paused, restarted, cut off (also in one direction,
//! always silently), slowed down, and their disks fill up. Every answer that clients got is recorded: single keys are
//! linearizable, the total of a bank is constant in every snapshot, and in the end all replicas are equal. After each
//! fault the cluster must make progress again.
//!
//! The suite runs it for some seconds. A long run is asked for by variables of the environment:
//!
//! - `KONTIKI_FAULTS_SECONDS`: how long faults are injected.
//! - `KONTIKI_FAULTS_NODES`: 3 (the default) or 5.
//! - `KONTIKI_FAULTS_SEED`: which faults, in which order; the schedules of real processes differ all the same.
//! - `KONTIKI_FAULTS_DISK_MIB`: each node gets a file system of this size in memory, which faults fill. Needs the
//!   right to mount one.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod disks;
mod load;
mod nemesis;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

use kontiki::client::Client;
use kontiki_env::rng::Rng;
use kontiki_sim::check::linearizability;
use load::{ACCOUNTS, SLOTS, Shared};
use nemesis::Nemesis;
use proxy::Network;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::{Cluster, eventually};
use tokio::net::TcpListener;

const REGISTER_CLIENTS: u64 = 8;
const TELLERS: u64 = 3;
/// Ports of the proxies, beside those of the nodes.
const PROXY_PORT: u16 = 20_140;
/// Bounds the search for an order of one key's operations.
const STEPS_MAX: u64 = 5_000_000;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number is expected")),
        Err(_) => default,
    }
}

/// Nodes that reach each other, and are reached, only through their proxies.
async fn start(network: &Arc<Network>, nodes: usize) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::planned(nodes);
    let mut fronts = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let (host, _) = node.addr.split_once(':').expect("host:port");
        let front = format!("{host}:{}", PROXY_PORT + index as u16);
        let listener = TcpListener::bind(&front).await.expect("the address is this test's own");
        tokio::spawn(network.clone().serve(listener, index, node.addr.clone()));
        fronts.push(front);
    }
    let members: Vec<String> = fronts.iter().enumerate().map(|(i, front)| format!("{}={front}", i + 1)).collect();
    for node in &mut cluster.nodes {
        node.initial_cluster = members.join(",");
    }
    (cluster, fronts)
}

/// Slots and accounts in several regions each.
async fn split(client: &Client) {
    let raw = [3, SLOTS / 2, SLOTS - 2].map(|slot| load::slot_prefix(slot).to_string());
    eventually("raw keys are split", async || client.raw().split(raw.clone()).await).await;
    let accounts = [ACCOUNTS / 3, ACCOUNTS * 2 / 3].map(load::account);
    eventually("accounts are split", async || client.split(accounts.clone()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_consistent_whatever_happens_to_nodes_and_network() {
    let seconds = Duration::from_secs(setting("KONTIKI_FAULTS_SECONDS", 15));
    let nodes = setting("KONTIKI_FAULTS_NODES", 3);
    let seed = setting("KONTIKI_FAULTS_SEED", 1);
    let disk_mib = setting("KONTIKI_FAULTS_DISK_MIB", 0u64);
    println!("seed {seed}, {nodes} nodes, {seconds:?}, disks of {disk_mib} MiB (0: those of this machine)");
    let rng = Rng::new(seed);
    let network = Network::new(nodes);
    let (mut cluster, fronts) = start(&network, nodes).await;
    let disks = disks::Disks::mount(&mut cluster, disk_mib);
    let nemesis = Nemesis::new(cluster, network, disks, rng.child("nemesis"));
    let client = eventually("a client", async || Client::connect(&fronts).await).await;
    eventually("the accounts open", async || load::open_accounts(&client).await).await;
    split(&client).await;

    let shared = Shared::new();
    let mut clients = Vec::new();
    for number in 0..REGISTER_CLIENTS + TELLERS {
        let client = eventually("a client", async || Client::connect(&fronts).await).await;
        let rng = rng.child(&format!("client {number}"));
        clients.push(if number < REGISTER_CLIENTS {
            tokio::spawn(load::use_registers(shared.clone(), client, number, rng))
        } else {
            tokio::spawn(load::transfer_all_day(shared.clone(), client, rng))
        });
    }
    let mut nemesis = nemesis.torment(&shared, seconds).await;
    shared.stop();
    for client in clients {
        client.await.expect("no client panics");
    }
    eventually("a last total", async || load::check_total(&client).await).await;
    let counts = [&shared.answered, &shared.transfers, &shared.snapshots].map(|count| count.load(Ordering::Acquire));
    println!("{counts:?} operations on registers, transfers, snapshots were answered; faults: {:?}", nemesis.counts);
    assert!(counts.iter().all(|count| *count > 0), "without all of them this proves nothing");

    let report = linearizability::check(&shared.take_history(), STEPS_MAX);
    println!("{} keys are checked; too long a search: {:?}", report.keys_checked, report.keys_not_checked);
    for (key, violation) in &report.violations {
        println!("{key:?}: {violation}");
    }
    assert!(report.violations.is_empty(), "{} keys are not linearizable", report.violations.len());
    assert!(report.keys_checked > report.keys_not_checked.len(), "most keys are checked");
    tokio::task::block_in_place(|| nemesis.cluster.stop_with_equal_data());
}
