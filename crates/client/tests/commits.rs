//! The ways of a commit against a mock cluster: one phase, async commit, two phases, and two phases at timestamps that
//! the caller has chosen.
#![allow(clippy::unwrap_used)] // helpers of tests

mod mock;

use kontiki_client::{Client, Error, Mutation, Transaction, TransactionOptions};
use kontiki_proto::kvrpcpb::{self, CommitTsExpired, KeyError, Op};
use mock::{Fault, Mock, SHORT, encode};
use std::time::Duration;

/// A cluster of three regions, with boundaries at g and p, and a client that may use every way.
async fn cluster() -> (Mock, Client) {
    let mock = Mock::start().await;
    mock.state.lock().split(encode("g"));
    mock.state.lock().split(encode("p"));
    let client = mock.client_with(Duration::from_secs(60), TransactionOptions::default()).await;
    (mock, client)
}

async fn putting(client: &Client, keys: &[&'static str]) -> Transaction {
    let mut transaction = client.begin().await.unwrap();
    keys.iter().for_each(|key| transaction.put(*key, "new"));
    transaction
}

async fn write(client: &Client, keys: &[&'static str]) -> Result<u64, Error> {
    putting(client, keys).await.commit().await.map(Option::unwrap)
}

async fn value(client: &Client, key: &'static str) -> Option<bytes::Bytes> {
    client.snapshot(client.timestamp().await.unwrap()).get(key).await.unwrap()
}

#[tokio::test]
async fn keys_of_one_region_are_committed_by_one_request() {
    let (mock, client) = cluster().await;
    let before = client.timestamp().await.unwrap();
    let commit_ts = write(&client, &["a", "b"]).await.unwrap();
    assert!(commit_ts > before);
    {
        let state = mock.state.lock();
        assert_eq!((state.count("KvPrewrite"), state.count("KvCommit")), (1, 0));
        assert!(state.locks.is_empty() && state.prewrites[0].try_one_pc && !state.prewrites[0].use_async_commit);
    }
    assert_eq!(client.snapshot(commit_ts).get("b").await.unwrap().unwrap(), "new");
    assert_eq!(client.snapshot(commit_ts - 1).get("b").await.unwrap(), None);
    assert_eq!(client.metrics().commits_one_phase, 1);
}

#[tokio::test]
async fn keys_of_several_regions_are_decided_by_their_locks() {
    let (mock, client) = cluster().await;
    let transaction = putting(&client, &["a", "h", "q"]).await;
    let later = client.timestamp().await.unwrap();
    let commit_ts = transaction.commit().await.unwrap().unwrap();
    assert_eq!(value(&client, "q").await.unwrap(), "new");
    assert_eq!(client.snapshot(commit_ts - 1).get("q").await.unwrap(), None);
    assert_eq!(client.metrics().commits_async, 1);
    let state = mock.state.lock();
    assert!(state.locks.is_empty(), "its records are written without being asked for");
    assert!(commit_ts > later, "above every timestamp that was there when the commit began");
    for prewrite in &state.prewrites {
        let secondaries: &[&str] = if prewrite.mutations[0].key == "a" { &["h", "q"] } else { &[] };
        assert!(prewrite.use_async_commit && !prewrite.try_one_pc && prewrite.secondaries == secondaries);
        assert!(prewrite.min_commit_ts > later && prewrite.max_commit_ts > prewrite.min_commit_ts);
    }
}

/// The id of the region that holds a key.
fn region(mock: &Mock, key: &str) -> u64 {
    let state = mock.state.lock();
    state.regions.iter().find(|region| region.contains(&encode(key))).unwrap().id
}

/// The regions of these keys decline the faster ways.
fn decline(mock: &Mock, keys: &[&str]) {
    let regions = keys.iter().map(|key| region(mock, key)).collect();
    mock.state.lock().declines = regions;
}

#[tokio::test]
async fn what_is_declined_continues_in_two_phases() {
    let (mock, client) = cluster().await;
    decline(&mock, &["a", "h", "q"]);
    for keys in [&["a", "b"][..], &["a", "h", "q"]] {
        let commit_ts = write(&client, keys).await.unwrap();
        assert_eq!(client.snapshot(commit_ts).get("a").await.unwrap().unwrap(), "new");
        assert_eq!(client.snapshot(commit_ts - 1).get(keys[1]).await.unwrap(), None);
    }
    let metrics = client.metrics();
    assert_eq!((metrics.commits_declined, metrics.commits_two_phases), (2, 2));
    assert!(mock.state.lock().locks.is_empty() && mock.state.lock().count("KvCommit") >= 4);
}

#[tokio::test]
async fn a_commit_that_some_regions_decline_is_at_a_timestamp_that_all_accept() {
    let (mock, client) = cluster().await;
    // The mock's clock advances by a millisecond with each timestamp.
    mock.state.lock().computed_ahead = 6 << 18;
    for declining in ["a", "q"] {
        decline(&mock, &[declining]);
        let commit_ts = write(&client, &["a", "h", "q"]).await.unwrap();
        let state = mock.state.lock();
        assert!(state.locks.is_empty(), "each lock accepts it: {:?}", state.locks);
        let newest = |key: &str| state.versions[key.as_bytes()].last().unwrap().commit_ts;
        assert_eq!(["a", "h", "q"].map(newest), [commit_ts; 3]);
    }
    assert_eq!(client.metrics().commits_two_phases, 2);
}

fn pushed_to(min_commit_ts: u64) -> KeyError {
    let expired = CommitTsExpired { key: "a".into(), min_commit_ts, ..Default::default() };
    KeyError { commit_ts_expired: Some(expired), ..Default::default() }
}

#[tokio::test]
async fn a_commit_that_was_pushed_ahead_waits_until_the_oracle_is_there() {
    let mock = Mock::start().await;
    let client = mock.client().await;
    let transaction = putting(&client, &["a"]).await;
    let least = mock.state.lock().clock + (6 << 18);
    mock.state.lock().commit_errors.push_back(pushed_to(least));
    assert!(transaction.commit().await.unwrap().unwrap() >= least);
    assert_eq!(mock.state.lock().count("KvCommit"), 2);
}

#[tokio::test]
async fn locks_of_a_primary_that_is_not_rolled_back_stay() {
    let (mock, client) = cluster().await;
    for (reachable, left) in [(true, 0), (false, 2)] {
        let slow = putting(&client, &["a", "h", "q"]).await;
        write(&client, &["q"]).await.unwrap();
        if !reachable {
            mock.state.lock().fault("KvBatchRollback", Fault::Status(tonic::Code::Unimplemented));
        }
        let error = slow.commit().await.unwrap_err();
        assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
        assert_eq!(mock.state.lock().locks.len(), left, "the primary's rollback is the first");
    }
}

#[tokio::test]
async fn many_keys_and_checks_alone_take_two_phases() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin().await.unwrap();
    for number in 0..257 {
        transaction.put(format!("a{number}"), "new");
    }
    transaction.put("q", "new");
    transaction.commit().await.unwrap();
    assert!(mock.state.lock().prewrites.iter().all(|prewrite| !prewrite.use_async_commit && !prewrite.try_one_pc));
    let mut only_a_check = client.begin().await.unwrap();
    only_a_check.insert("x", "new").unwrap();
    only_a_check.delete("x");
    only_a_check.commit().await.unwrap();
    // A region with nothing to lock has no timestamp to say, which is no decline.
    let mut with_a_check = putting(&client, &["a", "h"]).await;
    with_a_check.insert("x", "new").unwrap();
    with_a_check.delete("x");
    with_a_check.commit().await.unwrap();
    assert_eq!((client.metrics().commits_async, client.metrics().commits_declined), (1, 0));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let (mock, client) = cluster().await;
    for keys in [&["a", "b"][..], &["c", "h", "q"]] {
        mock.state.lock().fault("KvPrewrite", Fault::LoseAnswer);
        mock.state.lock().prewrites.clear();
        let commit_ts = write(&client, keys).await.unwrap();
        assert_eq!(client.snapshot(commit_ts).get(keys[1]).await.unwrap().unwrap(), "new");
    }
    assert_eq!((client.metrics().commits_one_phase, client.metrics().commits_async), (1, 1));
}

#[tokio::test]
async fn a_commit_whose_region_was_split_before_the_answer_came_is_settled() {
    let (mock, client) = cluster().await;
    mock.state.lock().fault("KvPrewrite", Fault::LoseAnswerAndSplit(encode("b")));
    let commit_ts = write(&client, &["a", "b"]).await.unwrap();
    assert_eq!(mock.state.lock().versions["a".as_bytes()][0].commit_ts, commit_ts, "as it was committed");
    assert_eq!(mock.state.lock().prewrites.len(), 1, "nothing is prewritten over records");
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_and_found_by_others() {
    let (mock, _) = cluster().await;
    for keys in [&["a", "b"][..], &["c", "h", "q"]] {
        let client = mock.client_with(SHORT, TransactionOptions::default()).await;
        // With the rest of its time it asks what came of it.
        for call in ["KvPrewrite", "KvCheckTxnStatus"] {
            (0..1000).for_each(|_| mock.state.lock().fault(call, Fault::LoseAnswer));
        }
        let error = write(&client, keys).await.unwrap_err();
        assert!(matches!(error, Error::Undetermined { .. }), "{error:?}");
        assert_eq!((mock.state.lock().count("KvBatchRollback"), client.metrics().commits_undetermined), (0, 1));
        mock.state.lock().faults.clear();
        mock.state.lock().clock += 10_000 << 18;
        assert_eq!(value(&client, keys[1]).await.unwrap(), "new", "it was committed");
    }
    assert!(mock.state.lock().count("KvCheckSecondaryLocks") > 0);
}

#[tokio::test]
async fn a_conflict_beside_a_lost_answer_is_certain_before_it_is_reported() {
    let (mock, client) = cluster().await;
    let slow = putting(&client, &["a", "h", "q"]).await;
    write(&client, &["a"]).await.unwrap();
    // Of one of the two regions without a conflict, or of the one with it.
    mock.state.lock().fault("KvPrewrite", Fault::LoseAnswer);
    let error = slow.commit().await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { key, .. } if key == "a"), "{error:?}");
    assert!(mock.state.lock().count("KvCheckTxnStatus") > 0, "it was settled");
    assert!(mock.state.lock().locks.is_empty(), "and rolled back");
    assert_eq!(value(&client, "q").await, None);
}

fn put(key: &'static str, value: &'static str) -> Mutation {
    Mutation::Put { key: key.into(), value: value.into() }
}

#[tokio::test]
async fn changes_are_committed_at_chosen_timestamps() {
    let (mock, client) = cluster().await;
    let (start_ts, commit_ts) = (client.timestamp().await.unwrap(), client.timestamp().await.unwrap());
    let mutations = vec![put("q", "1"), put("a", "2"), Mutation::Lock { key: "h".into() }];
    client.mutate("q", mutations.clone(), start_ts, commit_ts).await.unwrap();
    assert_eq!(mock.state.lock().versions["a".as_bytes()][0].commit_ts, commit_ts);
    assert!(mock.state.lock().prewrites.iter().all(|prewrite| prewrite.primary_lock == "q"));
    let first_commit = mock.state.lock().calls.iter().position(|(name, _)| *name == "KvCommit");
    let last_prewrite = mock.state.lock().calls.iter().rposition(|(name, _)| *name == "KvPrewrite");
    assert!(last_prewrite < first_commit);
    client.mutate("q", mutations[..2].to_vec(), start_ts, commit_ts).await.unwrap();
    assert_eq!(mock.state.lock().versions["a".as_bytes()].len(), 1, "a repetition changes nothing");

    let later = client.timestamp().await.unwrap();
    let conflict = client.mutate("a", vec![put("a", "3")], start_ts - 1, later).await.unwrap_err();
    assert!(matches!(conflict, Error::Conflict { .. }), "{conflict:?}");
    client.mutate("a", vec![Mutation::Delete { key: "a".into() }], commit_ts + 1, later).await.unwrap();
    assert_eq!(client.snapshot(later).get("a").await.unwrap(), None);
    let exists = Mutation::Insert { key: "q".into(), value: "4".into() };
    let exists = client.mutate("q", vec![exists], later, later + 1).await.unwrap_err();
    assert!(matches!(exists, Error::AlreadyExists { .. }), "{exists:?}");
}

#[tokio::test]
async fn mutations_that_cannot_be_committed_are_not_sent() {
    let (mock, client) = cluster().await;
    let twice = vec![put("a", "1"), put("a", "2")];
    for (primary, mutations, start_ts, commit_ts) in [
        ("a", vec![put("a", "1")], 5, 5),
        ("a", vec![put("a", "1")], 0, 5),
        ("a", twice, 5, 6),
        ("b", vec![put("a", "1")], 5, 6),
        ("a", vec![], 5, 6),
    ] {
        let error = client.mutate(primary, mutations, start_ts, commit_ts).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    assert!(mock.state.lock().prewrites.is_empty());
}

#[tokio::test]
async fn a_repetition_that_fails_undoes_nothing_of_what_the_first_call_has_committed() {
    let (mut mock, _) = cluster().await;
    let client = mock.client_within(SHORT).await;
    let (start_ts, commit_ts) = (client.timestamp().await.unwrap(), client.timestamp().await.unwrap());
    // The first call ended after it had committed the primary.
    {
        let mut state = mock.state.lock();
        let put = |key: &'static str| kvrpcpb::Mutation {
            op: Op::Put as i32,
            key: key.into(),
            value: "1".into(),
            ..Default::default()
        };
        let prewritten = state.prewrite(&kvrpcpb::PrewriteRequest {
            mutations: vec![put("a"), put("q")],
            primary_lock: "a".into(),
            start_version: start_ts,
            lock_ttl: 3_000,
            ..Default::default()
        });
        assert!(prewritten.errors.is_empty());
        let committed = state.commit(&kvrpcpb::CommitRequest {
            start_version: start_ts,
            keys: vec!["a".into()],
            commit_version: commit_ts,
            ..Default::default()
        });
        assert_eq!(committed, None);
    }
    let of_primary = region(&mock, "a");
    mock.state.lock().lead(of_primary, 2);
    mock.stop(2).await;
    let mutations = vec![put("a", "1"), put("q", "1")];
    let error = client.mutate("a", mutations.clone(), start_ts, commit_ts).await.unwrap_err();
    assert!(matches!(error, Error::Undetermined { .. }), "{error:?}");
    {
        let state = mock.state.lock();
        assert!(state.locks.contains_key("q".as_bytes()) && state.rollbacks.is_empty(), "it is committed");
    }
    mock.state.lock().lead(of_primary, 1);
    client.mutate("a", mutations, start_ts, commit_ts).await.unwrap();
    assert_eq!(mock.state.lock().versions["q".as_bytes()][0].commit_ts, commit_ts);
}

#[tokio::test]
async fn changes_at_a_timestamp_that_is_too_low_are_rolled_back() {
    let (mock, client) = cluster().await;
    let (start_ts, commit_ts) = (client.timestamp().await.unwrap(), client.timestamp().await.unwrap());
    mock.state.lock().commit_errors.push_back(pushed_to(commit_ts + 1));
    let error = client.mutate("a", vec![put("a", "1"), put("q", "1")], start_ts, commit_ts).await.unwrap_err();
    assert_eq!(error, Error::CommitTsTooLow { key: "a".into(), min_commit_ts: commit_ts + 1 });
    let state = mock.state.lock();
    assert!(state.locks.is_empty() && state.versions.is_empty() && state.rollbacks.len() == 2);
}
