//! Each of three nodes is stopped by SIGTERM and started again, one after the other, while unmodified clients write,
//! read and commit: none of them sees an error. A node that stops lets others lead first.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::client::{Client, Options};
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Cluster, DATA_REGION, connect_raw, connect_transactions};
use tikv_client::{CheckLevel, TransactionOptions};

/// Twice around.
const STOPS: usize = 6;

/// What a client has done, and its longest wait.
#[derive(Default)]
struct Seen {
    done: AtomicU64,
    longest_ms: AtomicU64,
}

/// Repeats an operation until `stop` is set. It must not fail.
async fn repeat<T, E: Debug, F: Future<Output = Result<T, E>>>(
    what: &'static str,
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    mut operation: impl FnMut(u64) -> F,
) {
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        let began = Instant::now();
        count += 1;
        if let Err(error) = operation(count).await {
            panic!("{what} {count} failed after {:?}: {error:?}", began.elapsed());
        }
        seen.longest_ms.fetch_max(began.elapsed().as_millis() as u64, Ordering::AcqRel);
        seen.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// Waits until every client has done something more.
async fn wait_for_progress(clients: &[(&str, Arc<Seen>)]) {
    let goals: Vec<u64> = clients.iter().map(|(_, seen)| seen.done.load(Ordering::Acquire) + 20).collect();
    let deadline = Instant::now() + support::WAIT_MAX;
    for ((what, seen), goal) in clients.iter().zip(goals) {
        while seen.done.load(Ordering::Acquire) < goal {
            assert!(Instant::now() < deadline, "no progress of {what} for {:?}", support::WAIT_MAX);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_no_error_while_all_nodes_are_restarted_one_after_the_other() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    let (raw, reader) = (connect_raw(&endpoints).await, connect_raw(&endpoints).await);
    let transactions = connect_transactions(&endpoints).await;
    // A request may take as long as this machine needs.
    let request_timeout = support::WAIT_MAX / 3;
    let options = Options { request_timeout, operation_timeout: support::WAIT_MAX, ..Options::default() };
    let own = Client::connect_with(&endpoints, options).await.expect("a node answers");
    raw.put("r/0".to_owned(), "first".to_owned()).await.expect("a put");

    let stop = Arc::new(AtomicBool::new(false));
    let names = ["a put", "a get", "a transaction", "a put of Kontiki's client"];
    let clients: Vec<(&str, Arc<Seen>)> = names.into_iter().map(|name| (name, Arc::default())).collect();
    let of = |client: usize| (clients[client].0, stop.clone(), clients[client].1.clone());
    let mut tasks = Vec::new();

    let (name, stopped, seen) = of(0);
    let put = move |i: u64| {
        let client = raw.clone();
        async move { client.put(format!("r/{i}"), format!("value {i}")).await }
    };
    tasks.push(tokio::spawn(repeat(name, stopped, seen, put)));
    let (name, stopped, seen) = of(1);
    let get = move |_| {
        let client = reader.clone();
        async move {
            let found = client.get("r/0".to_owned()).await?;
            assert_eq!(found.as_deref(), Some(b"first".as_slice()));
            Ok::<_, tikv_client::Error>(())
        }
    };
    tasks.push(tokio::spawn(repeat(name, stopped, seen, get)));
    let (name, stopped, seen) = of(2);
    let transactions = Arc::new(transactions);
    let commit = move |i: u64| {
        let client = transactions.clone();
        async move {
            let options = TransactionOptions::new_optimistic().drop_check(CheckLevel::None);
            let mut transaction = client.begin_with_options(options).await?;
            transaction.get("t/count".to_owned()).await?;
            transaction.put("t/count".to_owned(), i.to_string()).await?;
            transaction.put(format!("t/{i}"), i.to_string()).await?;
            transaction.commit().await
        }
    };
    tasks.push(tokio::spawn(repeat(name, stopped, seen, commit)));
    let (name, stopped, seen) = of(3);
    let raw = own.raw();
    let put = move |i: u64| {
        let raw = raw.clone();
        async move { raw.put(format!("k/{i}"), format!("value {i}")).await }
    };
    tasks.push(tokio::spawn(repeat(name, stopped, seen, put)));

    for round in 0..STOPS {
        wait_for_progress(&clients).await;
        let node = round % cluster.nodes.len();
        let (led, took) = tokio::task::block_in_place(|| {
            let led = cluster.leader_of(DATA_REGION) == node;
            let began = Instant::now();
            assert!(cluster.nodes[node].stop().success());
            (led, began.elapsed())
        });
        println!("store {} stopped in {took:?}{}", node + 1, if led { "; it led the data" } else { "" });
        wait_for_progress(&clients).await;
        tokio::task::block_in_place(|| {
            cluster.nodes[node].start();
            cluster.nodes[node].wait_ready();
        });
    }
    wait_for_progress(&clients).await;
    stop.store(true, Ordering::Release);
    for task in tasks {
        task.await.expect("no operation fails");
    }
    for (what, seen) in &clients {
        let (done, longest) = (seen.done.load(Ordering::Acquire), seen.longest_ms.load(Ordering::Acquire));
        println!("{what}: {done} times, the longest took {longest} ms");
    }
}
