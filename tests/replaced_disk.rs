//! One lost disk of three loses no data: a node that comes back with an empty directory does not take part and reports
//! this, and what was acknowledged without it is served as soon as a majority that has it is up. It is replaced under
//! load, too.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::client::{Client, RawClient};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Cluster, DATA_REGION, connect_raw, eventually, http_get, kontiki, wait_for};

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

/// Clients of each kind.
const WRITERS: usize = 3;
/// Writes of each client before the next thing happens.
const WRITES: u64 = 30;

/// What a client has had acknowledged, and how long it took.
#[derive(Default)]
struct Written {
    count: AtomicU64,
    /// The longest time from one acknowledgement to the next, since it was last asked for, in microseconds.
    gap_us_max: AtomicU64,
    pairs: Mutex<BTreeMap<String, String>>,
}

/// A client under load.
trait Raw: Send + Sync + 'static {
    type Error: Debug + Send;

    fn put_one(&self, key: &str, value: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;

    fn get_one(&self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Self::Error>> + Send;
}

impl Raw for RawClient {
    type Error = kontiki::client::Error;

    async fn put_one(&self, key: &str, value: &str) -> Result<(), Self::Error> {
        self.put(key.to_owned(), value.to_owned()).await
    }

    async fn get_one(&self, key: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.get(key.to_owned()).await?.map(|value| value.to_vec()))
    }
}

impl Raw for tikv_client::RawClient {
    type Error = tikv_client::Error;

    async fn put_one(&self, key: &str, value: &str) -> Result<(), Self::Error> {
        self.put(key.to_owned(), value.to_owned()).await
    }

    async fn get_one(&self, key: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        self.get(key.to_owned()).await
    }
}

/// Writes keys, each once, and reads them back, until it is stopped. An operation is repeated until it succeeds.
async fn write_until(client: impl Raw, name: String, stop: Arc<AtomicBool>, written: Arc<Written>) {
    while !stop.load(Ordering::Acquire) {
        let count = written.count.load(Ordering::Acquire);
        let (key, value, began) = (format!("{name}/{count:06}"), format!("value {count} of {name}"), Instant::now());
        eventually("a write", || client.put_one(&key, &value)).await;
        let found = eventually("a read", || client.get_one(&key)).await;
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key} is read after it was acknowledged");
        written.gap_us_max.fetch_max(began.elapsed().as_micros() as u64, Ordering::AcqRel);
        written.pairs.lock().expect("not poisoned").insert(key, value);
        written.count.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits until every client has had more writes acknowledged; prints the longest of them, which ended in this phase.
async fn wait_for_writes(clients: &[Arc<Written>], phase: &str) {
    let goals: Vec<u64> = clients.iter().map(|written| written.count.load(Ordering::Acquire) + WRITES).collect();
    let deadline = Instant::now() + support::WAIT_MAX;
    while !clients.iter().zip(&goals).all(|(written, goal)| written.count.load(Ordering::Acquire) >= *goal) {
        assert!(Instant::now() < deadline, "{phase}: no progress for {:?}", support::WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let gap_us = clients.iter().map(|written| written.gap_us_max.swap(0, Ordering::AcqRel)).max();
    println!("{phase}: a write and a read took at most {:?}", Duration::from_micros(gap_us.unwrap_or(0)));
}

/// Starts the clients: ours, and unmodified ones of TiKV.
async fn start_writers(
    endpoints: &[String],
    stop: &Arc<AtomicBool>,
) -> (Vec<Arc<Written>>, Vec<tokio::task::JoinHandle<()>>) {
    let (mut clients, mut tasks) = (Vec::new(), Vec::new());
    let own: RawClient = eventually("our client", async || Client::connect(endpoints).await).await.raw();
    for writer in 0..WRITERS {
        let written: Arc<Written> = Arc::default();
        clients.push(written.clone());
        tasks.push(tokio::spawn(write_until(own.clone(), format!("own{writer}"), stop.clone(), written)));
    }
    for writer in 0..WRITERS {
        let written: Arc<Written> = Arc::default();
        clients.push(written.clone());
        let client = connect_raw(endpoints).await;
        tasks.push(tokio::spawn(write_until(client, format!("foreign{writer}"), stop.clone(), written)));
    }
    (clients, tasks)
}

/// The leader's node is killed and loses its disk while clients write. It is replaced, and then one of the others
/// stops, so that what was replaced is needed for every write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replace_under_load() {
    let mut cluster = Cluster::start(3);
    let stop = Arc::new(AtomicBool::new(false));
    let (clients, tasks) = start_writers(&cluster.endpoints(), &stop).await;
    wait_for_writes(&clients, "before").await;

    let lost = tokio::task::block_in_place(|| cluster.leader_of(DATA_REGION));
    cluster.nodes[lost].kill();
    std::fs::remove_dir_all(&cluster.nodes[lost].data_dir).expect("the directory goes");
    wait_for_writes(&clients, "without the node").await;
    cluster.nodes[lost].start_with(&["--replace-lost-directory"]);
    tokio::task::block_in_place(|| cluster.nodes[lost].wait_ready());
    wait_for_writes(&clients, "while it was replaced").await;

    let other = tokio::task::block_in_place(|| cluster.leader_of(DATA_REGION));
    let other = if other == lost { (lost + 1) % 3 } else { other };
    cluster.nodes[other].kill();
    wait_for_writes(&clients, "with the replaced node and one other").await;
    cluster.nodes[other].start();
    tokio::task::block_in_place(|| cluster.nodes[other].wait_ready());
    wait_for_writes(&clients, "after").await;
    stop.store(true, Ordering::Release);
    for task in tasks {
        task.await.expect("no client panics");
    }

    let reader = connect_raw(&cluster.endpoints()).await;
    for written in &clients {
        let pairs = std::mem::take(&mut *written.pairs.lock().expect("not poisoned"));
        assert!(pairs.len() as u64 >= 5 * WRITES);
        for chunk in pairs.into_iter().collect::<Vec<_>>().chunks(500) {
            let keys = || chunk.iter().map(|(key, _)| key.clone());
            let found = eventually("acknowledged keys", async || reader.batch_get(keys()).await).await;
            let found: BTreeMap<Vec<u8>, Vec<u8>> =
                found.into_iter().map(|pair| (pair.key().clone().into(), pair.into_value())).collect();
            for (key, value) in chunk {
                assert_eq!(found.get(key.as_bytes()).map(Vec::as_slice), Some(value.as_bytes()), "{key} is lost");
            }
        }
    }
    tokio::task::block_in_place(|| cluster.stop_with_equal_data());
}
