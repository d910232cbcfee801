//! A rolling restart is invisible to clients: three real nodes are restarted in turn by SIGTERM, each once the one
//! before is ready again, under load of our client and of an unmodified one, raw and transactional. No call returns an
//! error, no acknowledged write is lost, and all replicas hold the same data.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::client::{Client, RawClient};
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Cluster, connect_raw, connect_transactions, eventually};
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions};

const NODES: usize = 3;
/// Workers of each kind.
const WORKERS: usize = 4;
/// Transactions of a newcomer: it lasts about a second, which is the age at which the unmodified client is vulnerable.
const NEWCOMERS_TRANSACTIONS: u64 = 40;
/// Operations of each worker before a node is stopped, while it is down, and after it is back.
const OPERATIONS: u64 = 20;

/// What the workers and the test share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// What the test does at the moment, to explain an error.
    phase: Mutex<String>,
    errors: Mutex<Vec<String>>,
}

impl Shared {
    fn enter(&self, phase: String) {
        println!("{phase}");
        *self.phase.lock().expect("not poisoned") = phase;
    }

    fn report(&self, worker: &str, started: Instant, error: &dyn Debug) {
        let phase = self.phase.lock().expect("not poisoned").clone();
        let line = format!("{phase}: {worker}: after {:?}: {error:?}", started.elapsed());
        println!("{line}");
        self.errors.lock().expect("not poisoned").push(line);
    }
}

/// A client that is loaded: one operation writes the number `count` and reads it back.
trait Load: Clone + Send + Sync + 'static {
    const NAME: &'static str;

    fn operate(&self, worker: usize, count: u64) -> impl Future<Output = Result<(), String>> + Send;

    /// The number of the last operation that was acknowledged; `None` if there is none.
    fn last(&self, worker: usize) -> impl Future<Output = Result<Option<u64>, String>> + Send;
}

fn text(error: impl Debug) -> String {
    format!("{error:?}")
}

fn same<V: AsRef<[u8]>>(found: Option<V>, expected: u64) -> Result<(), String> {
    match number(found) {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("{found:?} is read after {expected} was written")),
    }
}

fn number<V: AsRef<[u8]>>(value: Option<V>) -> Option<u64> {
    value.map(|value| std::str::from_utf8(value.as_ref()).expect("text").parse().expect("a number"))
}

#[derive(Clone)]
struct OwnRaw(RawClient);

impl Load for OwnRaw {
    const NAME: &'static str = "own raw";

    async fn operate(&self, worker: usize, count: u64) -> Result<(), String> {
        let key = format!("own/{worker}");
        self.0.put(key.clone(), count.to_string()).await.map_err(text)?;
        same(self.0.get(key).await.map_err(text)?, count)
    }

    async fn last(&self, worker: usize) -> Result<Option<u64>, String> {
        self.0.get(format!("own/{worker}")).await.map(number).map_err(text)
    }
}

#[derive(Clone)]
struct OwnTransactions(Client);

impl Load for OwnTransactions {
    const NAME: &'static str = "own transactions";

    async fn operate(&self, worker: usize, count: u64) -> Result<(), String> {
        let mut transaction = self.0.begin().await.map_err(text)?;
        let key = format!("own/{worker}");
        let before = number(transaction.get(key.clone()).await.map_err(text)?);
        if before != count.checked_sub(1) {
            return Err(format!("{before:?} is read after {count} transactions"));
        }
        for key in [key, format!("also own/{worker}")] {
            transaction.put(key, count.to_string());
        }
        transaction.commit().await.map(drop).map_err(text)
    }

    async fn last(&self, worker: usize) -> Result<Option<u64>, String> {
        let transaction = self.0.begin().await.map_err(text)?;
        let one = number(transaction.get(format!("own/{worker}")).await.map_err(text)?);
        let other = number(transaction.get(format!("also own/{worker}")).await.map_err(text)?);
        assert_eq!(one, other, "a transaction is whole");
        Ok(one)
    }
}

#[derive(Clone)]
struct ForeignRaw(Arc<tikv_client::RawClient>);

impl Load for ForeignRaw {
    const NAME: &'static str = "foreign raw";

    async fn operate(&self, worker: usize, count: u64) -> Result<(), String> {
        let key = format!("foreign/{worker}");
        self.0.put(key.clone(), count.to_string()).await.map_err(text)?;
        same(self.0.get(key).await.map_err(text)?, count)
    }

    async fn last(&self, worker: usize) -> Result<Option<u64>, String> {
        self.0.get(format!("foreign/{worker}")).await.map(number).map_err(text)
    }
}

#[derive(Clone)]
struct ForeignTransactions(Arc<TransactionClient>);

impl ForeignTransactions {
    async fn begin(&self) -> Result<tikv_client::Transaction, String> {
        let options = TransactionOptions::new_optimistic().drop_check(CheckLevel::None);
        self.0.begin_with_options(options).await.map_err(text)
    }
}

impl Load for ForeignTransactions {
    const NAME: &'static str = "foreign transactions";

    async fn operate(&self, worker: usize, count: u64) -> Result<(), String> {
        let mut transaction = self.begin().await?;
        let key = format!("foreign/{worker}");
        let before = number(transaction.get(key.clone()).await.map_err(text)?);
        if before != count.checked_sub(1) {
            return Err(format!("{before:?} is read after {count} transactions"));
        }
        for key in [key, format!("also foreign/{worker}")] {
            transaction.put(key, count.to_string()).await.map_err(text)?;
        }
        transaction.commit().await.map(drop).map_err(text)
    }

    async fn last(&self, worker: usize) -> Result<Option<u64>, String> {
        let mut transaction = self.begin().await?;
        let one = number(transaction.get(format!("foreign/{worker}")).await.map_err(text)?);
        let other = number(transaction.get(format!("also foreign/{worker}")).await.map_err(text)?);
        let _ = transaction.rollback().await;
        assert_eq!(one, other, "a transaction is whole");
        Ok(one)
    }
}

/// A client that has just connected, again and again: the end of a node's connections must not hit it.
#[derive(Clone)]
struct Newcomers(Vec<String>);

impl Newcomers {
    const FIRST_KEY: usize = 1_000;

    async fn client(&self) -> ForeignTransactions {
        ForeignTransactions(Arc::new(connect_transactions(&self.0).await))
    }
}

impl Load for Newcomers {
    const NAME: &'static str = "newcomers";

    async fn operate(&self, worker: usize, count: u64) -> Result<(), String> {
        let client = self.client().await;
        for transaction in 0..NEWCOMERS_TRANSACTIONS {
            let key = worker + Newcomers::FIRST_KEY;
            client.operate(key, count * NEWCOMERS_TRANSACTIONS + transaction).await?;
        }
        Ok(())
    }

    async fn last(&self, worker: usize) -> Result<Option<u64>, String> {
        let last = self.client().await.last(worker + Newcomers::FIRST_KEY).await?;
        Ok(last.map(|last| last / NEWCOMERS_TRANSACTIONS))
    }
}

/// Works until it is stopped or gets an error; returns how many operations were acknowledged.
async fn work<L: Load>(load: L, worker: usize, shared: Arc<Shared>, done: Arc<AtomicU64>) {
    while !shared.stop.load(Ordering::Acquire) {
        let (count, started) = (done.load(Ordering::Acquire), Instant::now());
        match load.operate(worker, count).await {
            Ok(()) => drop(done.fetch_add(1, Ordering::AcqRel)),
            Err(error) => return shared.report(&format!("{} {worker}", L::NAME), started, &error),
        }
    }
}

/// The workers of one kind.
struct Workers<L> {
    load: L,
    done: Vec<Arc<AtomicU64>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl<L: Load> Workers<L> {
    fn start(load: L, shared: &Arc<Shared>, counters: &mut Vec<Arc<AtomicU64>>) -> Workers<L> {
        let done: Vec<Arc<AtomicU64>> = (0..WORKERS).map(|_| Arc::default()).collect();
        counters.extend(done.iter().cloned());
        let start = |(worker, done): (usize, &Arc<AtomicU64>)| {
            tokio::spawn(work(load.clone(), worker, shared.clone(), done.clone()))
        };
        let tasks = done.iter().enumerate().map(start).collect();
        Workers { load, done, tasks }
    }

    /// After the end: the last acknowledged operation is there, or the one after it, if that one got an error.
    async fn check(self) {
        for (worker, (done, task)) in self.done.into_iter().zip(self.tasks).enumerate() {
            task.await.expect("no worker panics");
            let done = done.load(Ordering::Acquire);
            let found = eventually("the last value", async || self.load.last(worker).await).await;
            let count = found.map_or(0, |last| last + 1);
            assert!(count == done || count == done + 1, "{} {worker}: {done} acknowledged, {count} found", L::NAME);
        }
    }
}

/// Waits until every worker has done some more; false if one has got an error.
async fn wait_for_progress(counters: &[Arc<AtomicU64>], shared: &Shared) -> bool {
    let goals: Vec<u64> = counters.iter().map(|done| done.load(Ordering::Acquire) + OPERATIONS).collect();
    let deadline = Instant::now() + support::WAIT_MAX;
    let reached = || counters.iter().zip(&goals).all(|(done, goal)| done.load(Ordering::Acquire) >= *goal);
    while !reached() {
        if !shared.errors.lock().expect("not poisoned").is_empty() {
            return false;
        }
        let phase = shared.phase.lock().expect("not poisoned").clone();
        assert!(Instant::now() < deadline, "{phase}: not all workers progress: {counters:?} of {goals:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}

/// Restarts every node once; stops early if a worker has got an error.
async fn restart_all(cluster: &mut Cluster, counters: &[Arc<AtomicU64>], shared: &Shared) {
    for at in 0..NODES {
        let store = at + 1;
        shared.enter(format!("before the stop of store {store}"));
        if !wait_for_progress(counters, shared).await {
            return;
        }
        shared.enter(format!("while store {store} stops"));
        let status = tokio::task::block_in_place(|| cluster.nodes[at].stop());
        assert!(status.success(), "store {store} ended with {status}: {}", cluster.nodes[at].log_text());
        shared.enter(format!("without store {store}"));
        if !wait_for_progress(counters, shared).await {
            return;
        }
        shared.enter(format!("while store {store} starts"));
        cluster.nodes[at].start();
        tokio::task::block_in_place(|| cluster.nodes[at].wait_ready());
    }
    shared.enter("after the last start".to_owned());
    wait_for_progress(counters, shared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_gives_no_client_an_error() {
    let mut cluster = Cluster::start(NODES);
    let endpoints = cluster.endpoints();
    let client = eventually("our client", async || Client::connect(&endpoints).await).await;
    let shared = Arc::new(Shared::default());
    let mut counters = Vec::new();
    let own_raw = Workers::start(OwnRaw(client.raw()), &shared, &mut counters);
    let own_transactions = Workers::start(OwnTransactions(client), &shared, &mut counters);
    let raw = ForeignRaw(Arc::new(connect_raw(&endpoints).await));
    let foreign_raw = Workers::start(raw, &shared, &mut counters);
    let transactions = ForeignTransactions(Arc::new(connect_transactions(&endpoints).await));
    let foreign_transactions = Workers::start(transactions, &shared, &mut counters);
    // They are few operations, and so not among those whose progress is awaited.
    let newcomers = Workers::start(Newcomers(endpoints.clone()), &shared, &mut Vec::new());

    restart_all(&mut cluster, &counters, &shared).await;
    shared.stop.store(true, Ordering::Release);
    own_raw.check().await;
    own_transactions.check().await;
    foreign_raw.check().await;
    foreign_transactions.check().await;
    newcomers.check().await;
    let errors = shared.errors.lock().expect("not poisoned").clone();
    assert!(errors.is_empty(), "{errors:#?}");

    tokio::task::block_in_place(|| cluster.stop_with_equal_data());
}
