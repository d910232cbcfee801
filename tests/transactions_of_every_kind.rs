//! This project's client against real nodes: transactions of every kind over one and several regions, while the leader
//! is killed with SIGKILL and a region is split. The total of a bank is constant in every snapshot.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use kontiki::client::{Client, Error, Options, TransactionOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{Cluster, DATA_REGION, eventually};

const ACCOUNTS: u64 = 6;
const OPENING_BALANCE: i64 = 100;

fn account(number: u64) -> String {
    format!("account/{number:03}")
}

fn balance(value: Option<&[u8]>) -> i64 {
    std::str::from_utf8(value.expect("an account")).expect("text").parse().expect("a number")
}

/// In turn: one phase, async commit and two phases, as far as the keys permit.
fn options(turn: u64) -> TransactionOptions {
    TransactionOptions {
        one_phase_commit: turn.is_multiple_of(3),
        async_commit: !(turn + 1).is_multiple_of(3),
        lock_wait: Duration::from_secs(3),
        ..TransactionOptions::default()
    }
}

async fn connect(cluster: &Cluster) -> Client {
    let options = Options { request_timeout: Duration::from_secs(2), ..Options::default() };
    eventually("a client", async || Client::connect_with(&cluster.endpoints(), options.clone()).await).await
}

async fn optimistic_transfer(client: &Client, turn: u64) -> Result<(), Error> {
    let (from, to) = (account(turn % ACCOUNTS), account((turn * 5 + 1) % ACCOUNTS));
    let mut transaction = client.begin_with(options(turn)).await?;
    let amounts = [transaction.get(from.clone()).await?, transaction.get(to.clone()).await?];
    if from != to {
        transaction.put(from, (balance(amounts[0].as_deref()) - 1).to_string());
        transaction.put(to, (balance(amounts[1].as_deref()) + 1).to_string());
    }
    transaction.commit().await.map(drop)
}

async fn pessimistic_transfer(client: &Client, turn: u64) -> Result<(), Error> {
    let (from, to) = (account(turn % ACCOUNTS), account((turn * 5 + 1) % ACCOUNTS));
    let mut transaction = client.begin_pessimistic_with(options(turn)).await?;
    let moved = async {
        let amount = balance(transaction.get_for_update(from.clone()).await?.as_deref());
        transaction.put(from.clone(), (amount - 1).to_string()).await?;
        let amount = balance(transaction.get_for_update(to.clone()).await?.as_deref());
        transaction.put(to, (amount + 1).to_string()).await
    };
    match moved.await {
        Ok(()) => transaction.commit().await.map(drop),
        Err(error) => {
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

async fn total(client: &Client) -> Result<i64, Error> {
    let snapshot = client.snapshot(client.timestamp().await?);
    let pairs = snapshot.scan(account(0), account(ACCOUNTS), 100).await?;
    assert_eq!(pairs.len() as u64, ACCOUNTS);
    Ok(pairs.iter().map(|pair| balance(Some(&pair.value))).sum())
}

async fn work(client: Client, is_pessimistic: bool, mut turn: u64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    while !stop.load(Ordering::Acquire) {
        turn += 1;
        let outcome = match is_pessimistic {
            true => pessimistic_transfer(&client, turn).await,
            false => optimistic_transfer(&client, turn).await,
        };
        // Conflicts, deadlocks, unknown outcomes and dead nodes are part of it.
        if outcome.is_ok() {
            done.fetch_add(1, Ordering::AcqRel);
        }
    }
}

async fn more(done: &AtomicU64, count: u64) {
    let reached = done.load(Ordering::Acquire) + count;
    eventually("transfers", async || match done.load(Ordering::Acquire) {
        now if now >= reached => Ok(()),
        now => Err(now),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_total_is_constant_through_splits_and_a_killed_leader() {
    let mut cluster = Cluster::start(3);
    let client = connect(&cluster).await;
    eventually("the opening", async || {
        let mut opening = client.begin().await?;
        (0..ACCOUNTS).for_each(|number| opening.put(account(number), OPENING_BALANCE.to_string()));
        opening.commit().await
    })
    .await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tellers = Vec::new();
    for teller in 0..4 {
        let client = connect(&cluster).await;
        tellers.push(tokio::spawn(work(client, teller % 2 == 0, teller * 100, stop.clone(), done.clone())));
    }
    let right = OPENING_BALANCE * ACCOUNTS as i64;
    more(&done, 30).await;
    eventually("a split", async || client.split([account(2), account(4)]).await).await;
    more(&done, 30).await;
    assert_eq!(eventually("a snapshot", async || total(&client).await).await, right);
    let leader = cluster.leader_of(DATA_REGION);
    cluster.nodes[leader].kill();
    more(&done, 30).await;
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_ready();
    more(&done, 30).await;
    stop.store(true, Ordering::Release);
    for teller in tellers {
        teller.await.expect("a teller ends");
    }
    // Locks that are left are resolved by this read.
    assert_eq!(eventually("the last snapshot", async || total(&client).await).await, right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_what_the_server_serves() {
    let cluster = Cluster::start(1);
    let client = connect(&cluster).await;
    let write = async |keys: &'static [&'static str]| {
        eventually("a commit", async || {
            let mut transaction = client.begin().await?;
            keys.iter().for_each(|key| transaction.put(*key, "v"));
            transaction.commit().await
        })
        .await
    };
    write(&["a", "b"]).await;
    assert_eq!(client.metrics().commits_one_phase, 1);
    eventually("a split", async || client.split(["m"]).await).await;
    let commit_ts = write(&["a", "z"]).await.expect("written");
    assert_eq!(client.metrics().commits_async, 1);
    assert_eq!(client.snapshot(commit_ts).batch_get(["a", "z"]).await.expect("read").len(), 2);

    // Two transactions that wait for each other: one of them is refused with the circle.
    let mut first = client.begin_pessimistic().await.expect("begins");
    let mut second = client.begin_pessimistic().await.expect("begins");
    first.put("a", "1").await.expect("locked");
    second.put("z", "2").await.expect("locked");
    let (starts, result) = ([first.start_timestamp(), second.start_timestamp()], {
        let (one, other) = tokio::join!(
            async {
                let result = first.put("z", "1").await;
                if result.is_err() {
                    first.rollback().await.map(|()| result)
                } else {
                    first.commit().await.map(|_| result)
                }
            },
            async {
                let result = second.put("a", "2").await;
                if result.is_err() {
                    second.rollback().await.map(|()| result)
                } else {
                    second.commit().await.map(|_| result)
                }
            }
        );
        [one.expect("ended"), other.expect("ended")]
    });
    let refused: Vec<&Error> = result.iter().filter_map(|result| result.as_ref().err()).collect();
    match &refused[..] {
        [Error::Deadlock { holder, chain, .. }] => {
            assert!(starts.contains(holder));
            assert!(chain.iter().all(|wait| starts.contains(&wait.waiter) && starts.contains(&wait.holder)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.metrics().deadlocks, 1);
    let all =
        client.snapshot(client.timestamp().await.expect("a timestamp")).batch_get(["a", "z"]).await.expect("read");
    assert_eq!(all[0].value, all[1].value, "one of them has written both");
}
