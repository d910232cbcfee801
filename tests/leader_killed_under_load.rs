//! The guarantees of the whole store, with real processes and an unmodified client: while raw writers and bank
//! transfers run, the leader is killed with SIGKILL five times, and its regions are split, once while a node is down.
//! Afterwards every acknowledged write exists, the total was constant in every snapshot, and all replicas hold the same
//! data.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Cluster, DATA_REGION, connect_raw, connect_transactions, eventually};
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions};

const KILLS: usize = 5;
const WRITERS: u64 = 3;
const TELLERS: usize = 2;
const ACCOUNTS: u64 = 8;
const OPENING_BALANCE: i64 = 100;

/// Writes each key once, in order; returns the acknowledged ones. The outcome of a failed write is unknown.
async fn write_until(
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    endpoints: Vec<String>,
    writer: u64,
) -> BTreeMap<String, String> {
    let mut client = connect_raw(&endpoints).await;
    let mut written = BTreeMap::new();
    let mut count = 0u64;
    while !stop.load(Ordering::Acquire) {
        let (key, value) = (format!("w{writer}/{count:08}"), format!("value {count} of writer {writer}"));
        count += 1;
        match client.put(key.clone(), value.clone()).await {
            Ok(()) => {
                written.insert(key, value);
                acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Err(_) => client = connect_raw(&endpoints).await,
        }
    }
    written
}

fn account(i: u64) -> String {
    format!("bank/{i:03}")
}

fn options() -> TransactionOptions {
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None)
}

fn balance_of(value: Option<Vec<u8>>) -> i64 {
    String::from_utf8(value.expect("an account")).expect("text").parse().expect("a number")
}

async fn open_accounts(client: &TransactionClient) -> Result<(), tikv_client::Error> {
    let mut opening = client.begin_with_options(options()).await?;
    for i in 0..ACCOUNTS {
        opening.put(account(i), OPENING_BALANCE.to_string()).await?;
    }
    opening.commit().await.map(|_| ())
}

async fn transfer(client: &TransactionClient, from: u64, to: u64, amount: i64) -> Result<(), tikv_client::Error> {
    let mut transaction = client.begin_with_options(options()).await?;
    let moved = async {
        let (source, target) =
            (balance_of(transaction.get(account(from)).await?), balance_of(transaction.get(account(to)).await?));
        transaction.put(account(from), (source - amount).to_string()).await?;
        transaction.put(account(to), (target + amount).to_string()).await?;
        transaction.commit().await.map(|_| ())
    };
    let outcome = moved.await;
    if outcome.is_err() {
        let _ = transaction.rollback().await;
    }
    outcome
}

/// The sum over one snapshot of all accounts.
async fn total(client: &TransactionClient) -> Result<i64, tikv_client::Error> {
    let mut transaction = client.begin_with_options(options()).await?;
    let pairs =
        transaction.scan(account(0)..account(ACCOUNTS), ACCOUNTS as u32).await.map(|pairs| pairs.collect::<Vec<_>>());
    let _ = transaction.rollback().await;
    let pairs = pairs?;
    assert_eq!(pairs.len() as u64, ACCOUNTS, "every account is in every snapshot");
    Ok(pairs.into_iter().map(|pair| balance_of(Some(pair.into_value()))).sum())
}

/// The counts of one teller: without both the test would prove nothing.
#[derive(Default)]
struct Done {
    transfers: AtomicU64,
    snapshots: AtomicU64,
}

async fn transfer_until(stop: Arc<AtomicBool>, endpoints: Vec<String>, teller: u64, done: Arc<Done>) {
    let mut client = connect_transactions(&endpoints).await;
    let mut round = teller;
    while !stop.load(Ordering::Acquire) {
        round = round.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let from = (round >> 33) % ACCOUNTS;
        let to = (from + 1 + (round >> 40) % (ACCOUNTS - 1)) % ACCOUNTS;
        match transfer(&client, from, to, (round >> 50) as i64 % 10).await {
            Ok(()) => drop(done.transfers.fetch_add(1, Ordering::AcqRel)),
            Err(_) => client = connect_transactions(&endpoints).await,
        }
        if let Ok(sum) = total(&client).await {
            assert_eq!(sum, ACCOUNTS as i64 * OPENING_BALANCE, "the total has changed");
            done.snapshots.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Splits regions at these keys, and checks that placement knows them all.
async fn split(endpoints: &[String], options: &[&str], keys: &[String], regions: usize) {
    let mut command = support::kontiki();
    command.arg("split").args(["--endpoint", &endpoints.join(",")]).args(options).args(keys);
    let output = tokio::task::block_in_place(|| command.output().expect("it runs"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let client = kontiki::client::Client::connect(endpoints).await.expect("a node answers");
    eventually("all regions", async || match client.regions().await {
        Ok(found) if found.len() == regions => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn wait_for_progress(counter: &AtomicU64, by: u64) {
    let goal = counter.load(Ordering::Acquire) + by;
    let deadline = Instant::now() + support::WAIT_MAX;
    while counter.load(Ordering::Acquire) < goal {
        assert!(Instant::now() < deadline, "no progress for {:?}", support::WAIT_MAX);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_leaders_are_killed() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    let bank = connect_transactions(&endpoints).await;
    eventually("the accounts open", async || open_accounts(&bank).await).await;

    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write_until(stop.clone(), acknowledged.clone(), endpoints.clone(), writer)))
        .collect();
    let done: Vec<Arc<Done>> = (0..TELLERS).map(|_| Arc::default()).collect();
    let teller = |(done, seed): (&Arc<Done>, u64)| transfer_until(stop.clone(), endpoints.clone(), seed, done.clone());
    let tellers: Vec<_> = done.iter().zip(1..).map(|next| tokio::spawn(teller(next))).collect();

    for round in 0..KILLS {
        wait_for_progress(&acknowledged, 50).await;
        let leader = tokio::task::block_in_place(|| cluster.leader_of(DATA_REGION));
        let killed = Instant::now();
        cluster.nodes[leader].kill();
        wait_for_progress(&acknowledged, 1).await;
        println!(
            "kill {round}: store {} led; the next write was acknowledged after {:?}",
            leader + 1,
            killed.elapsed()
        );
        wait_for_progress(&acknowledged, 20).await;
        if round == 3 {
            let accounts = [account(3), account(6)];
            split(&endpoints, &["--transactional"], &accounts, 2 + 2 + accounts.len()).await;
        }
        cluster.nodes[leader].start();
        tokio::task::block_in_place(|| cluster.nodes[leader].wait_ready());
        if round == 1 {
            // Two data regions, one of which becomes three.
            split(&endpoints, &[], &["w1".to_owned(), "w2".to_owned()], 2 + 2).await;
        }
    }
    for done in &done {
        wait_for_progress(&done.transfers, 1).await;
        wait_for_progress(&done.snapshots, 1).await;
    }
    stop.store(true, Ordering::Release);
    for teller in tellers {
        teller.await.expect("no teller panics");
    }
    // A transfer that a kill interrupted may have left locks that live for some more seconds.
    let reader = connect_transactions(&endpoints).await;
    assert_eq!(eventually("a last sum", async || total(&reader).await).await, ACCOUNTS as i64 * OPENING_BALANCE);

    let client = connect_raw(&endpoints).await;
    for (writer, task) in writers.into_iter().enumerate() {
        let written = task.await.expect("no writer panics");
        assert!(!written.is_empty());
        for chunk in written.iter().collect::<Vec<_>>().chunks(500) {
            let keys = || chunk.iter().map(|(key, _)| (*key).clone());
            let found = eventually("acknowledged keys", async || client.batch_get(keys()).await).await;
            let found: BTreeMap<Vec<u8>, Vec<u8>> =
                found.into_iter().map(|pair| (pair.key().clone().into(), pair.into_value())).collect();
            for (key, value) in chunk {
                assert_eq!(
                    found.get(key.as_bytes()).map(Vec::as_slice),
                    Some(value.as_bytes()),
                    "writer {writer} got an acknowledgement of {key}"
                );
            }
        }
    }

    tokio::task::block_in_place(|| cluster.stop_with_equal_data());
}
