//! Transactions against a mock cluster: visibility, conflicts, locks of others, lost answers.
#![allow(clippy::unwrap_used)] // helpers of tests

mod mock;

use bytes::Bytes;
use kontiki_client::{Client, Error, KeyPair};
use kontiki_proto::kvrpcpb::Op;
use mock::{Fault, Mock, MockLock, SHORT, encode};

/// A cluster of three regions, with boundaries at g and p.
async fn cluster() -> (Mock, Client) {
    let mock = Mock::start().await;
    mock.state.lock().split(encode("g"));
    mock.state.lock().split(encode("p"));
    let client = mock.client().await;
    (mock, client)
}

async fn write(client: &Client, pairs: &[(&'static str, &'static str)]) -> u64 {
    let mut transaction = client.begin().await.unwrap();
    for (key, value) in pairs {
        transaction.put(*key, *value);
    }
    transaction.commit().await.unwrap().unwrap()
}

fn texts(pairs: &[KeyPair]) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Leaves a lock as a writer that crashed does.
async fn crashed_writer(mock: &Mock, client: &Client, keys: &[&'static str], change: impl Fn(&mut MockLock)) -> u64 {
    let start_ts = client.timestamp().await.unwrap();
    for key in keys {
        let mut lock = MockLock {
            start_ts,
            primary: Bytes::from_static(keys[0].as_bytes()),
            ttl_ms: 3_000,
            op: Op::Put as i32,
            value: "unfinished".into(),
            min_commit_ts: 0,
            txn_size: keys.len() as u64,
            async_commit: None,
            for_update_ts: 0,
        };
        change(&mut lock);
        mock.state.lock().locks.insert(Bytes::from_static(key.as_bytes()), lock);
    }
    start_ts
}

fn expire(mock: &Mock) {
    mock.state.lock().clock += 4_000 << 18;
}

#[tokio::test]
async fn a_commit_is_visible_from_its_timestamp_on() {
    let (mock, client) = cluster().await;
    let before = client.timestamp().await.unwrap();
    let commit_ts = write(&client, &[("a", "1"), ("h", "2"), ("q", "3")]).await;
    assert!(commit_ts > before && mock.state.lock().locks.is_empty());
    let snapshot = client.snapshot(commit_ts);
    assert_eq!(snapshot.get("h").await.unwrap().unwrap(), "2");
    let found = snapshot.batch_get(["q", "a", "absent"]).await.unwrap();
    assert_eq!(texts(&found), owned(&[("a", "1"), ("q", "3")]));
    let all = owned(&[("a", "1"), ("h", "2"), ("q", "3")]);
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), all);
    assert_eq!(texts(&snapshot.scan("b", "q", 10).await.unwrap()), all[1..2]);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(texts(&snapshot.scan_reverse("", "", 10).await.unwrap()), reversed);
    assert_eq!(texts(&snapshot.scan_reverse("b", "", 1).await.unwrap()), reversed[..1]);
    let old = client.snapshot(before);
    assert_eq!(old.get("h").await.unwrap(), None);
    assert!(old.scan("", "", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_commit_timestamp_is_taken_after_every_prewrite() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin().await.unwrap();
    for key in ["a", "h", "q"] {
        transaction.put(key, "1");
    }
    mock.state.lock().calls.clear();
    transaction.commit().await.unwrap();
    let calls: Vec<&str> = mock.state.lock().calls.iter().map(|(name, _)| *name).collect();
    let at = |name: &str| calls.iter().position(|call| *call == name).unwrap();
    let last_prewrite = calls.iter().rposition(|call| *call == "KvPrewrite").unwrap();
    assert!(last_prewrite < at("Tso") && at("Tso") < at("KvCommit"), "{calls:?}");
    assert_eq!(calls.iter().filter(|call| **call == "KvPrewrite").count(), 3, "one per region");
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes() {
    let (_mock, client) = cluster().await;
    write(&client, &[("a", "old"), ("b", "old"), ("h", "old"), ("q", "old")]).await;
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "new");
    transaction.delete("b");
    transaction.insert("c", "new").unwrap();
    assert_eq!(transaction.get("a").await.unwrap().unwrap(), "new");
    assert_eq!(transaction.get("b").await.unwrap(), None);
    assert_eq!(transaction.get("h").await.unwrap().unwrap(), "old");
    let found = transaction.batch_get(["a", "b", "c", "q"]).await.unwrap();
    assert_eq!(texts(&found), owned(&[("a", "new"), ("c", "new"), ("q", "old")]));
    let all = owned(&[("a", "new"), ("c", "new"), ("h", "old"), ("q", "old")]);
    assert_eq!(texts(&transaction.scan("", "", 10).await.unwrap()), all);
    assert_eq!(texts(&transaction.scan("", "", 2).await.unwrap()), all[..2]);
    assert_eq!(texts(&transaction.scan("b", "h", 2).await.unwrap()), all[1..2]);
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(texts(&transaction.scan_reverse("", "", 3).await.unwrap()), reversed[..3]);
    transaction.commit().await.unwrap();
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), all);
}

#[tokio::test]
async fn a_conflict_is_an_error_and_leaves_nothing() {
    let (mock, client) = cluster().await;
    let mut slow = client.begin().await.unwrap();
    slow.put("a", "slow");
    slow.put("q", "slow");
    let commit_ts = write(&client, &[("q", "fast")]).await;
    match slow.commit().await.unwrap_err() {
        Error::Conflict { key, conflict_commit_ts } => {
            assert_eq!((&key[..], conflict_commit_ts), (&b"q"[..], commit_ts))
        }
        other => panic!("{other}"),
    }
    assert!(mock.state.lock().locks.is_empty(), "a was rolled back");
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), owned(&[("q", "fast")]));
}

#[tokio::test]
async fn inserts_want_an_absent_key() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "1")]).await;
    let mut transaction = client.begin().await.unwrap();
    transaction.insert("a", "2").unwrap();
    assert!(matches!(transaction.commit().await.unwrap_err(), Error::AlreadyExists { key } if key == "a"));
    let mut transaction = client.begin().await.unwrap();
    transaction.put("b", "1");
    assert!(matches!(transaction.insert("b", "2"), Err(Error::AlreadyExists { .. })));
    transaction.delete("a");
    transaction.insert("a", "3").unwrap();
    transaction.commit().await.unwrap();
    let mut taken_back = client.begin().await.unwrap();
    taken_back.insert("a", "4").unwrap();
    taken_back.delete("a");
    assert!(matches!(taken_back.commit().await.unwrap_err(), Error::AlreadyExists { .. }));
    let mut only_a_check = client.begin().await.unwrap();
    only_a_check.insert("x", "4").unwrap();
    only_a_check.delete("x");
    only_a_check.commit().await.unwrap();
    assert!(mock.state.lock().locks.is_empty());
    assert_eq!(client.begin().await.unwrap().commit().await.unwrap(), None, "nothing written");
}

#[tokio::test]
async fn the_lock_of_a_committed_writer_is_rolled_forward() {
    let (mock, client) = cluster().await;
    let start_ts = crashed_writer(&mock, &client, &["a", "q"], |_| {}).await;
    let commit_ts = client.timestamp().await.unwrap();
    {
        let mut state = mock.state.lock();
        let primary = state.locks["a".as_bytes()].clone();
        let commit = kontiki_proto::kvrpcpb::CommitRequest {
            start_version: start_ts,
            keys: vec![primary.primary],
            commit_version: commit_ts,
            ..Default::default()
        };
        assert!(state.commit(&commit).is_none());
    }
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("q").await.unwrap().unwrap(), "unfinished");
    assert_eq!(client.snapshot(start_ts).get("q").await.unwrap(), None);
    assert!(mock.state.lock().locks.is_empty());
}

#[tokio::test]
async fn the_lock_of_a_dead_writer_is_rolled_back_when_its_time_is_over() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "old"), ("h", "old"), ("q", "old")]).await;
    crashed_writer(&mock, &client, &["a", "h", "q"], |_| {}).await;
    expire(&mock);
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    let all = owned(&[("a", "old"), ("h", "old"), ("q", "old")]);
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), all);
    crashed_writer(&mock, &client, &["a", "h", "q"], |_| {}).await;
    expire(&mock);
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    let found = snapshot.scan_reverse("", "", 10).await.unwrap();
    assert_eq!(texts(&found), all.iter().rev().cloned().collect::<Vec<_>>());
    crashed_writer(&mock, &client, &["a", "h", "q"], |_| {}).await;
    expire(&mock);
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(texts(&snapshot.batch_get(["a", "h", "q"]).await.unwrap()), all);
    assert!(mock.state.lock().locks.is_empty());
}

#[tokio::test]
async fn all_locks_of_an_async_commit_decide_it_together() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "old"), ("h", "old"), ("q", "old")]).await;
    let async_commit = |lock: &mut MockLock| {
        lock.async_commit = Some(vec!["h".into(), "q".into()]);
        lock.min_commit_ts = lock.start_ts + 1;
    };
    crashed_writer(&mock, &client, &["a", "h", "q"], async_commit).await;
    expire(&mock);
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    let all = owned(&[("a", "unfinished"), ("h", "unfinished"), ("q", "unfinished")]);
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), all, "every key is prewritten: it is committed");

    // One key is missing, or was prewritten without async commit.
    for change in [None, Some(())] {
        write(&client, &[("a", "old"), ("h", "old"), ("q", "old")]).await;
        crashed_writer(&mock, &client, &["a", "h", "q"], async_commit).await;
        match change {
            None => drop(mock.state.lock().locks.remove("q".as_bytes())),
            Some(()) => mock.state.lock().locks.get_mut("q".as_bytes()).unwrap().async_commit = None,
        }
        expire(&mock);
        let snapshot = client.snapshot(client.timestamp().await.unwrap());
        assert_eq!(snapshot.get("h").await.unwrap().unwrap(), "old", "{change:?}");
    }
}

#[tokio::test]
async fn a_writer_meets_a_dead_writers_locks() {
    let (mock, client) = cluster().await;
    // The primary was never locked: the writer died while its first requests were in flight.
    crashed_writer(&mock, &client, &["h", "q"], |_| {}).await;
    mock.state.lock().locks.remove("h".as_bytes());
    expire(&mock);
    write(&client, &[("a", "1"), ("h", "1"), ("q", "1")]).await;
    let state = mock.state.lock();
    assert!(state.locks.is_empty() && state.versions.len() == 3);
}

#[tokio::test]
async fn a_reader_passes_a_live_writer_by_pushing_it() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "old")]).await;
    let start_ts = crashed_writer(&mock, &client, &["a"], |lock| lock.min_commit_ts = lock.start_ts + 1).await;
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("a").await.unwrap().unwrap(), "old");
    assert_eq!(mock.state.lock().locks["a".as_bytes()].start_ts, start_ts, "it lives");
    assert!(mock.state.lock().locks["a".as_bytes()].min_commit_ts > snapshot.timestamp());
}

#[tokio::test]
async fn a_pushed_writer_commits_with_a_newer_timestamp() {
    let (mock, client) = cluster().await;
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "1");
    let pushed_to = mock.state.lock().clock + (50 << 18);
    // Between prewrite and commit a reader pushes the lock: the mock's first commit is refused as a pushed lock would
    // be.
    let shared = mock.state.clone();
    let push = tokio::spawn(async move {
        loop {
            if let Some(lock) = shared.lock().locks.get_mut("a".as_bytes()) {
                lock.min_commit_ts = pushed_to;
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let commit_ts = transaction.commit().await.unwrap().unwrap();
    push.abort();
    let pushed = mock.state.lock().count("KvCommit") > 1;
    assert!(!pushed || commit_ts >= pushed_to);
    assert_eq!(client.snapshot(commit_ts).get("a").await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn a_reader_waits_for_a_writer_that_cannot_be_pushed() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "old")]).await;
    // Each try takes a timestamp, and each timestamp a millisecond: the lock expires after a few of them.
    crashed_writer(&mock, &client, &["a"], |lock| lock.ttl_ms = 8).await;
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("a").await.unwrap().unwrap(), "old");
    assert!(mock.state.lock().count("KvCheckTxnStatus") > 1);
    let impatient = mock.client_within(SHORT).await;
    crashed_writer(&mock, &client, &["a"], |_| {}).await;
    let snapshot = impatient.snapshot(client.timestamp().await.unwrap());
    match snapshot.get("a").await.unwrap_err() {
        Error::Timeout { last, .. } => assert!(last.contains("locked"), "{last}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_younger_writer_soon_gives_way_to_an_older_one() {
    let (mock, client) = cluster().await;
    crashed_writer(&mock, &client, &["q"], |_| {}).await;
    let mut younger = client.begin().await.unwrap();
    younger.put("a", "1");
    younger.put("q", "1");
    match younger.commit().await.unwrap_err() {
        Error::Conflict { key, conflict_commit_ts } => assert_eq!((&key[..], conflict_commit_ts), (&b"q"[..], 0)),
        other => panic!("{other}"),
    }
    assert_eq!(mock.state.lock().locks.len(), 1, "its own locks are removed");
    let mut older = mock.client_within(SHORT).await.begin().await.unwrap();
    older.put("h", "1");
    crashed_writer(&mock, &client, &["h"], |_| {}).await;
    assert!(matches!(older.commit().await.unwrap_err(), Error::Timeout { .. }), "it waits");
}

#[tokio::test]
async fn a_lost_commit_answer_is_asked_for_again() {
    let (mock, client) = cluster().await;
    mock.state.lock().fault("KvPrewrite", Fault::LoseAnswer);
    mock.state.lock().fault("KvCommit", Fault::LoseAnswer);
    let commit_ts = write(&client, &[("a", "1"), ("q", "2")]).await;
    assert_eq!(client.snapshot(commit_ts).get("q").await.unwrap().unwrap(), "2");
}

#[tokio::test]
async fn an_unknown_outcome_is_told_and_not_undone() {
    let (mock, _) = cluster().await;
    let client = mock.client_within(SHORT).await;
    for _ in 0..1000 {
        mock.state.lock().fault("KvCommit", Fault::LoseAnswer);
    }
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "1");
    transaction.put("q", "2");
    assert!(matches!(transaction.commit().await.unwrap_err(), Error::Undetermined { .. }));
    assert_eq!(mock.state.lock().count("KvBatchRollback"), 0);
    mock.state.lock().faults.clear();
    expire(&mock);
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("q").await.unwrap().unwrap(), "2", "it was committed, and a reader completes it");
}

#[tokio::test]
async fn an_error_of_a_second_try_says_nothing_about_the_first() {
    let (mock, client) = cluster().await;
    mock.state.lock().fault("KvCommit", Fault::LoseAnswer);
    mock.state.lock().fails_if_done = Some("the disk failed".to_string());
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "1");
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(&error, Error::Undetermined { last, .. } if last.contains("the disk failed")), "{error:?}");
    assert_eq!(mock.state.lock().count("KvBatchRollback"), 0);
    mock.state.lock().fails_if_done = None;
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("a").await.unwrap().unwrap(), "1", "it was committed");
}

#[tokio::test]
async fn failing_secondaries_are_no_failure() {
    let (mock, _) = cluster().await;
    let client = mock.client_within(SHORT).await;
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "1");
    transaction.put("q", "2");
    // The primary's commit comes first and succeeds after one refusal; the other region always refuses.
    let busy = kontiki_proto::errorpb::Error { message: "planned".to_string(), ..Default::default() };
    let shared = mock.state.clone();
    let saboteur = tokio::spawn(async move {
        loop {
            let committed = shared.lock().versions.contains_key("a".as_bytes());
            if committed {
                for _ in 0..1000 {
                    shared.lock().fault("KvCommit", Fault::Region(busy.clone()));
                }
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let commit_ts = transaction.commit().await.unwrap().unwrap();
    saboteur.abort();
    mock.state.lock().faults.clear();
    let snapshot = client.snapshot(commit_ts);
    let all = owned(&[("a", "1"), ("q", "2")]);
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), all);
}

#[tokio::test]
async fn a_transaction_that_lost_its_locks_says_so() {
    let (mock, client) = cluster().await;
    let start_ts = {
        let mut transaction = client.begin().await.unwrap();
        transaction.put("a", "1");
        let start_ts = transaction.start_timestamp();
        mock.state.lock().rollbacks.insert(("a".into(), start_ts));
        let error = transaction.commit().await.unwrap_err();
        assert!(matches!(&error, Error::RolledBack(_)) && error.is_transaction_retryable(), "{error}");
        start_ts
    };
    assert!(!mock.state.lock().locks.values().any(|lock| lock.start_ts == start_ts));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_are_not_lost() {
    let (_mock, client) = cluster().await;
    let increment = |client: Client| async move {
        for _ in 0..5 {
            client
                .transact(200, |transaction| {
                    Box::pin(async move {
                        let value = transaction.get("count").await?.unwrap_or_default();
                        let count: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap_or(0);
                        transaction.put("count", (count + 1).to_string());
                        transaction.put("q", "another region");
                        Ok(())
                    })
                })
                .await
                .unwrap();
        }
    };
    let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(increment(client.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = client.snapshot(client.timestamp().await.unwrap());
    assert_eq!(snapshot.get("count").await.unwrap().unwrap(), "20");
}

#[tokio::test]
async fn tries_are_bounded_and_other_errors_stop_at_once() {
    let (_mock, client) = cluster().await;
    let mut tries = 0;
    let rival = client.clone();
    let result = client
        .transact(3, |transaction| {
            tries += 1;
            let rival = rival.clone();
            Box::pin(async move {
                transaction.put("a", "mine");
                write(&rival, &[("a", "theirs")]).await;
                Ok(())
            })
        })
        .await;
    assert!(matches!(result, Err(Error::Conflict { .. })));
    assert_eq!(tries, 3);
    let mut tries = 0;
    let result: Result<(), Error> = client
        .transact(3, |_| {
            tries += 1;
            Box::pin(async { Err(Error::Invalid("mine".to_string())) })
        })
        .await;
    assert!(matches!(result, Err(Error::Invalid(_))));
    assert_eq!(tries, 1);
}

#[tokio::test]
async fn answers_that_would_be_too_large_are_asked_for_in_parts() {
    let (mock, client) = cluster().await;
    let all: Vec<(&str, &str)> = ["a", "b", "c", "d", "e", "q", "r", "s", "t"].map(|key| (key, "v")).to_vec();
    let commit_ts = write(&client, &all).await;
    mock.state.lock().pairs_max = Some(2);
    let snapshot = client.snapshot(commit_ts);
    assert_eq!(texts(&snapshot.scan("", "", 10).await.unwrap()), owned(&all));
    let mut backward = texts(&snapshot.scan_reverse("", "", 10).await.unwrap());
    backward.reverse();
    assert_eq!(backward, owned(&all));
    let keys = all.iter().map(|(key, _)| *key);
    assert_eq!(texts(&snapshot.batch_get(keys).await.unwrap()), owned(&all));
}

#[tokio::test]
async fn a_scan_may_read_ahead() {
    let (mock, client) = cluster().await;
    let commit_ts = write(&client, &[("a", "1"), ("h", "2"), ("q", "3")]).await;
    for reverse in [false, true] {
        mock.state.lock().calls.clear();
        let mut scan = client.snapshot(commit_ts).scan_pages("", "", 10, reverse).prefetch();
        let mut found = texts(&scan.next_page().await.unwrap().unwrap());
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while mock.state.lock().count("KvScan") < 2 {
            assert!(tokio::time::Instant::now() < deadline, "the second page is requested without being asked for");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        while let Some(page) = scan.next_page().await.unwrap() {
            found.extend(texts(&page));
        }
        found.sort();
        assert_eq!(found, owned(&[("a", "1"), ("h", "2"), ("q", "3")]));
        assert_eq!(mock.state.lock().count("KvScan"), 3, "each region once");
        assert_eq!(scan.next_page().await.unwrap(), None);
    }
    // An error ahead is reported by the next page, and the one after goes on from there.
    let mut scan = client.snapshot(commit_ts).scan_pages("", "", 10, false).prefetch();
    mock.state.lock().fault("KvScan", Fault::Status(tonic::Code::Unimplemented));
    assert!(scan.next_page().await.is_err());
    assert_eq!(texts(&scan.next_page().await.unwrap().unwrap()), owned(&[("a", "1")]));
}

#[tokio::test]
async fn what_a_scan_has_read_before_a_lock_is_not_lost_with_the_wait_for_it() {
    let (mock, client) = cluster().await;
    write(&client, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    for (reverse, in_order) in [(false, ["a", "b", "c"]), (true, ["c", "b", "a"])] {
        crashed_writer(&mock, &client, &["b"], |_| {}).await;
        mock.state.lock().fault("KvCheckTxnStatus", Fault::Status(tonic::Code::Unimplemented));
        let mut scan = client.snapshot(client.timestamp().await.unwrap()).scan_pages("", "", 10, reverse);
        let mut found = scan.next_page().await.unwrap().unwrap();
        assert_eq!(found.len(), 1, "up to the lock");
        let error = scan.next_page().await.unwrap_err();
        assert!(matches!(error, Error::Server(_)), "{error:?}");
        mock.state.lock().locks.clear();
        while let Some(page) = scan.next_page().await.unwrap() {
            found.extend(page);
        }
        assert_eq!(found.into_iter().map(|pair| pair.key).collect::<Vec<_>>(), in_order);
    }
}

#[tokio::test]
async fn a_lock_whose_primary_has_another_primary_is_waited_for() {
    let (mock, client) = cluster().await;
    let start_ts = crashed_writer(&mock, &client, &["a", "h"], |_| {}).await;
    mock.state.lock().locks.get_mut("a".as_bytes()).unwrap().primary = "q".into();
    let waiting = mock.client_within(SHORT).await;
    match waiting.snapshot(client.timestamp().await.unwrap()).get("h").await.unwrap_err() {
        Error::Timeout { last, .. } => assert!(last.contains(&format!("locked by transaction {start_ts}")), "{last}"),
        other => panic!("{other}"),
    }
    assert_eq!(mock.state.lock().locks.len(), 2);
}
