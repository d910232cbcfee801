//! Pessimistic transactions against a mock cluster: locks, newest values, waits, heartbeats, releases.
#![allow(clippy::unwrap_used)] // helpers of tests

mod mock;

use bytes::Bytes;
use kontiki_client::{Client, Error, LockWait, TransactionOptions};
use kontiki_proto::kvrpcpb::{Deadlock, KeyError, Op, WaitForEntry};
use mock::{Fault, Mock, encode};
use std::time::Duration;
use tokio::time::Instant;

/// A cluster of three regions, with boundaries at g and p.
async fn cluster_with(options: TransactionOptions) -> (Mock, Client) {
    let mock = Mock::start().await;
    mock.state.lock().split(encode("g"));
    mock.state.lock().split(encode("p"));
    let client = mock.client_with(Duration::from_secs(60), options).await;
    (mock, client)
}

async fn cluster() -> (Mock, Client) {
    cluster_with(TransactionOptions::default()).await
}

async fn write(client: &Client, key: &'static str, value: &'static str) -> u64 {
    let mut transaction = client.begin().await.unwrap();
    transaction.put(key, value);
    transaction.commit().await.unwrap().unwrap()
}

async fn value(client: &Client, key: &'static str) -> Option<Bytes> {
    client.snapshot(client.timestamp().await.unwrap()).get(key).await.unwrap()
}

fn locked(mock: &Mock) -> Vec<String> {
    mock.state.lock().locks.keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
}

/// Waits until it holds: only a broken client misses the deadline.
async fn eventually(mock: &Mock, what: impl Fn(&Mock) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what(mock) {
        assert!(Instant::now() < deadline, "{:?}", mock.state.lock().locks);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_read_for_update_sees_the_newest_value_and_keeps_it() {
    let (mock, client) = cluster().await;
    write(&client, "a", "1").await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    let newest = write(&client, "a", "2").await;
    assert_eq!(transaction.get_for_update("a").await.unwrap().unwrap(), "2");
    assert_eq!(transaction.get("a").await.unwrap().unwrap(), "1", "a plain read shows the beginning");
    let stamps: Vec<u64> = mock.state.lock().lock_requests.iter().map(|request| request.for_update_ts).collect();
    assert_eq!(stamps.len(), 2, "the first one met a newer commit");
    assert_eq!(stamps[0], transaction.start_timestamp());
    assert!(stamps[1] > newest);
    assert_eq!(transaction.get_for_update("a").await.unwrap().unwrap(), "2");
    assert_eq!(mock.state.lock().lock_requests.len(), 2, "what is locked is known");
    transaction.put("a", "3").await.unwrap();
    assert_eq!(transaction.get_for_update("a").await.unwrap().unwrap(), "3");
    assert!(transaction.commit().await.unwrap().unwrap() > newest);
    assert_eq!(value(&client, "a").await.unwrap(), "3");
    assert_eq!(client.metrics().lock_conflicts, 1);
}

#[tokio::test]
async fn every_key_that_is_locked_is_committed() {
    for options in [TransactionOptions::default(), TransactionOptions::two_phases()] {
        let (mock, client) = cluster_with(options).await;
        for keys in [&["h", "q", "a"][..], &["h", "i", "k"]] {
            mock.state.lock().prewrites.clear();
            let mut transaction = client.begin_pessimistic().await.unwrap();
            transaction.put(keys[0], "1").await.unwrap();
            transaction.lock_keys([keys[1]]).await.unwrap();
            assert!(transaction.batch_get_for_update([keys[2], keys[0]]).await.unwrap().len() == 1);
            assert_eq!(locked(&mock).len(), 3);
            let commit_ts = transaction.commit().await.unwrap().unwrap();
            assert!(locked(&mock).is_empty());
            assert_eq!(client.snapshot(commit_ts).get(keys[0]).await.unwrap().unwrap(), "1");
            let state = mock.state.lock();
            for prewrite in &state.prewrites {
                assert_eq!(prewrite.primary_lock, keys[0], "the first key that was locked");
                assert!(prewrite.for_update_ts > 0 && prewrite.pessimistic_actions.iter().all(|action| *action == 1));
            }
            let ops = state.prewrites.iter().flat_map(|prewrite| &prewrite.mutations);
            assert_eq!(ops.filter(|mutation| mutation.op == Op::Lock as i32).count(), 2);
        }
    }
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_or_dropped_leaves_no_locks() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.lock_keys(["a", "h", "q"]).await.unwrap();
    transaction.rollback().await.unwrap();
    assert!(locked(&mock).is_empty());
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.put("a", "1").await.unwrap();
    transaction.put("q", "1").await.unwrap();
    drop(transaction);
    eventually(&mock, |mock| locked(mock).is_empty()).await;
    assert!(mock.state.lock().rollbacks.is_empty() && mock.state.lock().versions.is_empty());
    client.begin_pessimistic().await.unwrap().rollback().await.unwrap();
    assert_eq!(client.begin_pessimistic().await.unwrap().commit().await.unwrap(), None, "nothing was locked");
}

#[tokio::test]
async fn a_lock_that_is_not_released_in_time_is_an_error_and_the_call_locks_nothing() {
    let options = TransactionOptions { lock_wait: Duration::ZERO, ..TransactionOptions::default() };
    let (mock, client) = cluster_with(options).await;
    let mut holder = client.begin_pessimistic().await.unwrap();
    holder.put("h", "1").await.unwrap();
    let mut other = client.begin_pessimistic().await.unwrap();
    other.put("b", "1").await.unwrap();
    match other.lock_keys(["a", "h", "q"]).await.unwrap_err() {
        Error::LockWaitTimeout { key, holder: by, .. } => {
            assert_eq!((&key[..], by), (&b"h"[..], holder.start_timestamp()));
        }
        error => panic!("{error:?}"),
    }
    assert!(mock.state.lock().lock_requests.iter().all(|request| request.wait_timeout == -1));
    assert_eq!(locked(&mock), ["b", "h"], "what it had before is kept");
    holder.rollback().await.unwrap();
    other.lock_keys(["a", "h", "q"]).await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(value(&client, "b").await.unwrap(), "1");
}

#[tokio::test]
async fn a_first_call_that_fails_leaves_no_primary_behind() {
    let options = TransactionOptions { lock_wait: Duration::ZERO, ..TransactionOptions::default() };
    let (mock, client) = cluster_with(options).await;
    let mut holder = client.begin_pessimistic().await.unwrap();
    holder.put("a", "1").await.unwrap();
    let mut other = client.begin_pessimistic().await.unwrap();
    assert!(other.put("a", "2").await.is_err());
    other.put("q", "2").await.unwrap();
    assert_eq!(mock.state.lock().locks["q".as_bytes()].primary, "q");
    other.commit().await.unwrap();
    holder.commit().await.unwrap();
    assert_eq!(value(&client, "a").await.unwrap(), "1");
    assert_eq!(value(&client, "q").await.unwrap(), "2");
}

#[tokio::test]
async fn what_a_dropped_first_call_has_locked_is_released_before_another_primary_is_chosen() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    (0..1000).for_each(|_| mock.state.lock().fault("KvPessimisticLock", Fault::LoseAnswer));
    tokio::select! {
        result = transaction.put("a", "1") => panic!("{result:?}"),
        () = eventually(&mock, |mock| locked(mock) == ["a"]) => {}
    }
    mock.state.lock().faults.clear();
    mock.state.lock().fault("KVPessimisticRollback", Fault::Status(tonic::Code::Unimplemented));
    assert!(transaction.put("q", "1").await.is_err(), "the first lock names a primary that would not be kept alive");
    assert_eq!(locked(&mock), ["a"]);
    transaction.put("q", "1").await.unwrap();
    assert_eq!(locked(&mock), ["q"]);
    assert_eq!(mock.state.lock().locks["q".as_bytes()].primary, "q");
    transaction.commit().await.unwrap();
    assert!(locked(&mock).is_empty());
}

#[tokio::test]
async fn a_wait_ends_when_the_lock_is_released() {
    let (mock, client) = cluster().await;
    let mut holder = client.begin_pessimistic().await.unwrap();
    holder.put("a", "1").await.unwrap();
    let mut waiter = client.begin_pessimistic().await.unwrap();
    let waits = async {
        let found = waiter.get_for_update("a").await.unwrap();
        waiter.commit().await.unwrap();
        found
    };
    let releases = async {
        eventually(&mock, |mock| mock.state.lock().lock_requests.len() > 2).await;
        holder.commit().await.unwrap();
    };
    let (found, ()) = futures::join!(waits, releases);
    assert_eq!(found.unwrap(), "1", "what the holder has committed");
    assert!(mock.state.lock().lock_requests.iter().all(|request| request.wait_timeout > 0));
}

#[tokio::test]
async fn a_deadlock_is_reported_with_its_chain() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.put("a", "1").await.unwrap();
    let (own, other) = (transaction.start_timestamp(), transaction.start_timestamp() + 1);
    let entry = WaitForEntry { txn: other, wait_for_txn: own, key: "a".into(), ..Default::default() };
    let deadlock = Deadlock { lock_ts: other, lock_key: "q".into(), wait_chain: vec![entry], ..Default::default() };
    mock.state.lock().lock_errors.push_back(KeyError { deadlock: Some(deadlock), ..Default::default() });
    let error = transaction.put("q", "1").await.unwrap_err();
    assert!(error.is_transaction_retryable());
    let chain = vec![LockWait { waiter: other, holder: own, key: "a".into() }];
    assert_eq!(error, Error::Deadlock { key: "q".into(), holder: other, chain });
    transaction.rollback().await.unwrap();
    assert!(locked(&mock).is_empty());
    assert_eq!(client.metrics().deadlocks, 1);
}

#[tokio::test]
async fn heartbeats_keep_the_primary_alive_until_the_end() {
    let options = TransactionOptions { lock_ttl: Duration::from_millis(40), ..TransactionOptions::default() };
    let (mock, client) = cluster_with(options).await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.lock_keys(["q", "a"]).await.unwrap();
    let ttl = |mock: &Mock, key: &str| mock.state.lock().locks.get(key.as_bytes()).map_or(0, |lock| lock.ttl_ms);
    let (primary, other) = (ttl(&mock, "a"), ttl(&mock, "q"));
    eventually(&mock, |mock| ttl(mock, "a") > primary + 40).await;
    assert_eq!(ttl(&mock, "q"), other, "the primary stands for all");
    assert!(client.metrics().heartbeats > 0);
    transaction.rollback().await.unwrap();
    let mut again = client.begin_pessimistic().await.unwrap();
    again.lock_keys(["b"]).await.unwrap();
    let beats = |mock: &Mock| mock.state.lock().count("KvTxnHeartBeat");
    let before = beats(&mock);
    eventually(&mock, |mock| beats(mock) > before + 1).await;
    let of_a = mock.state.lock().locks.contains_key("a".as_bytes());
    assert!(!of_a, "a transaction that has ended has no heartbeats");
}

/// Waits, without letting the time of the client pass.
#[allow(clippy::disallowed_methods)] // tokio's clock stands still
async fn at_this_moment(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not happen at this moment");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_heartbeat_that_failed_is_soon_repeated() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.put("a", "1").await.unwrap();
    // The clock stands still as long as there is work.
    let busy = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    tokio::time::pause();
    let ttl = TransactionOptions::default().lock_ttl;
    let pass = |time: Duration| tokio::time::advance(time + Duration::from_millis(2));
    let (mock, client) = (&mock, &client);
    let beats = |count| at_this_moment(move || client.metrics().heartbeats == count);
    let sent = |count| at_this_moment(move || mock.state.lock().count("KvTxnHeartBeat") == count);
    pass(ttl / 3).await;
    beats(1).await;
    mock.state.lock().fault("KvTxnHeartBeat", Fault::Status(tonic::Code::Unimplemented));
    pass(ttl / 3).await;
    sent(2).await;
    // The answers of one store arrive in order.
    for _ in 0..3 {
        client.raw().get("a").await.unwrap();
    }
    pass(ttl / 10).await;
    beats(2).await;
    assert_eq!(mock.state.lock().count("KvTxnHeartBeat"), 3);
    busy.abort();
    tokio::time::resume();
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn the_pessimistic_lock_of_a_dead_client_is_dropped() {
    let (mock, client) = cluster().await;
    let mut dead = client.begin_pessimistic().await.unwrap();
    dead.put("a", "1").await.unwrap();
    dead.put("q", "1").await.unwrap();
    mock.state.lock().clock += 60_000 << 18;
    // A writer and a locker; each meets one of the locks.
    write(&client, "q", "2").await;
    let mut other = client.begin_pessimistic().await.unwrap();
    assert_eq!(other.get_for_update("a").await.unwrap(), None);
    other.rollback().await.unwrap();
    let error = dead.commit().await.unwrap_err();
    assert!(matches!(error, Error::RolledBack(_)), "its lock was lost: {error:?}");
    assert_eq!(value(&client, "q").await.unwrap(), "2");
    assert!(locked(&mock).is_empty());
}

#[tokio::test]
async fn inserts_want_an_absent_key() {
    let (mock, client) = cluster().await;
    write(&client, "a", "1").await;
    let mut transaction = client.begin_pessimistic().await.unwrap();
    transaction.put("b", "1").await.unwrap();
    assert!(matches!(transaction.insert("a", "2").await.unwrap_err(), Error::AlreadyExists { .. }));
    assert_eq!(locked(&mock), ["b"], "it is not locked");
    assert!(matches!(transaction.insert("b", "2").await.unwrap_err(), Error::AlreadyExists { .. }));
    assert_eq!(transaction.get_for_update("a").await.unwrap().unwrap(), "1");
    assert!(matches!(transaction.insert("a", "2").await.unwrap_err(), Error::AlreadyExists { .. }));
    transaction.insert("q", "2").await.unwrap();
    transaction.insert("r", "2").await.unwrap();
    transaction.delete("r").await.unwrap();
    transaction.delete("a").await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((value(&client, "a").await, value(&client, "r").await), (None, None));
    assert_eq!(value(&client, "q").await.unwrap(), "2");
    assert!(locked(&mock).is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_lock_is_asked_for_again() {
    let (mock, client) = cluster().await;
    mock.state.lock().fault("KvPessimisticLock", Fault::LoseAnswer);
    let mut transaction = client.begin_pessimistic().await.unwrap();
    assert_eq!(transaction.get_for_update("a").await.unwrap(), None);
    mock.state.lock().fault("KvPessimisticLock", Fault::LoseAnswerAndSplit(encode("c")));
    transaction.lock_keys(["b", "d"]).await.unwrap();
    transaction.put("b", "1").await.unwrap();
    transaction.commit().await.unwrap();
    assert!(locked(&mock).is_empty());
    assert_eq!(value(&client, "b").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_are_not_lost() {
    let (mock, client) = cluster().await;
    let increment = |client: Client| async move {
        for _ in 0..5 {
            let one_more = client.transact_pessimistic(200, |transaction| {
                Box::pin(async move {
                    let value = transaction.get_for_update("count").await?.unwrap_or_default();
                    let count: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap_or(0);
                    transaction.put("count", (count + 1).to_string()).await?;
                    transaction.put("q", "another region").await
                })
            });
            one_more.await.unwrap();
        }
    };
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(increment(client.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&client, "count").await.unwrap(), "20");
    eventually(&mock, |mock| locked(mock).is_empty()).await;
}
