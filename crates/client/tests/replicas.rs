//! Reads that need not go to the leader, against a mock cluster: which store gets them, and what a refusal causes.
#![allow(clippy::unwrap_used)] // helpers of tests

mod mock;

use kontiki_client::{Client, Options, ReadFrom};
use kontiki_proto::errorpb;
use mock::{Fault, Mock, encode};
use std::time::Duration;

async fn written(mock: &Mock) -> Client {
    let client = mock.client().await;
    let mut transaction = client.begin().await.unwrap();
    transaction.put("a", "1");
    transaction.put("h", "2");
    transaction.commit().await.unwrap();
    client.raw().put("r", "3").await.unwrap();
    mock.state.lock().calls.clear();
    client
}

#[tokio::test]
async fn replicas_serve_reads_in_turn() {
    let mock = Mock::start().await;
    let client = written(&mock).await;
    let raw = client.raw().read_from(ReadFrom::Replica);
    for _ in 0..3 {
        assert_eq!(raw.get("r").await.unwrap().unwrap(), "3");
    }
    assert_eq!(mock.state.lock().take_calls("RawGet"), [1, 2, 3]);
    let snapshot = client.snapshot(client.timestamp().await.unwrap()).read_from(ReadFrom::Replica);
    for _ in 0..3 {
        assert_eq!(snapshot.get("a").await.unwrap().unwrap(), "1");
    }
    assert_eq!(mock.state.lock().take_calls("KvGet"), [1, 2, 3]);
    assert_eq!(snapshot.batch_get(["a", "h"]).await.unwrap().len(), 2);
    assert_eq!(snapshot.scan("", "", 9).await.unwrap().len(), 2);
    assert_eq!(raw.scan("", "", 9).await.unwrap().len(), 1);
    assert_eq!(raw.batch_get(["r"]).await.unwrap().len(), 1);
    let calls = mock.state.lock().take_calls("RawScan");
    assert_eq!(calls.len(), 1);
    // Others go to the leader, and writes always.
    client.raw().get("r").await.unwrap();
    raw.put("r", "4").await.unwrap();
    assert_eq!(mock.state.lock().take_calls("RawGet"), [1]);
    assert_eq!(mock.state.lock().take_calls("RawPut"), [1]);
}

#[tokio::test]
async fn a_stale_snapshot_is_read_at_replicas_that_have_it_and_otherwise_at_the_leader() {
    let mock = Mock::start().await;
    let client = written(&mock).await;
    let snapshot = client.stale_snapshot(Duration::ZERO).await.unwrap();
    mock.state.lock().safe_ts.extend([(2, u64::MAX), (3, 5)]);
    for _ in 0..3 {
        assert_eq!(snapshot.get("a").await.unwrap().unwrap(), "1");
    }
    // Store 1 leads, and is not ready for it either; store 3 is behind.
    assert_eq!(mock.state.lock().take_calls("KvGet"), [1, 1, 2, 3, 1]);
    let before = client.stale_snapshot(Duration::from_secs(500)).await.unwrap();
    assert!(before.timestamp() < snapshot.timestamp() - (499_000 << 18));
    for _ in 0..3 {
        assert_eq!(before.get("a").await.unwrap(), None, "nothing was committed then");
        assert!(before.scan("", "", 9).await.unwrap().is_empty());
        assert!(before.batch_get(["a"]).await.unwrap().is_empty());
    }
    let at = client.stale_snapshot_at(snapshot.timestamp());
    assert_eq!(at.get("h").await.unwrap().unwrap(), "2");
}

#[tokio::test]
async fn stores_with_the_same_labels_are_preferred() {
    let mock = Mock::start().await;
    mock.state.lock().zones.extend([(1, "a".to_string()), (2, "b".to_string()), (3, "b".to_string())]);
    written(&mock).await;
    let options = Options { labels: vec![("zone".into(), "b".into())], ..Options::default() };
    let client = Client::connect_with(&mock.endpoints, options).await.unwrap();
    let raw = client.raw().read_from(ReadFrom::Replica);
    for _ in 0..4 {
        assert_eq!(raw.get("r").await.unwrap().unwrap(), "3");
    }
    assert_eq!(mock.state.lock().take_calls("RawGet"), [2, 3, 2, 3]);
}

#[tokio::test]
async fn what_a_replica_refuses_the_leader_serves_and_stays_the_leader() {
    let mock = Mock::start().await;
    let client = written(&mock).await;
    let raw = client.raw().read_from(ReadFrom::Replica);
    raw.get("r").await.unwrap();
    mock.state.lock().take_calls("RawGet");
    let not_leader = errorpb::NotLeader { region_id: 2, leader: None };
    let refusal = errorpb::Error { not_leader: Some(not_leader), ..Default::default() };
    let missing = errorpb::Error { region_not_found: Some(Default::default()), ..Default::default() };
    for error in [refusal, missing] {
        mock.state.lock().fault("RawGet", Fault::Region(error));
        assert_eq!(raw.get("r").await.unwrap().unwrap(), "3");
    }
    assert_eq!(mock.state.lock().take_calls("RawGet"), [2, 1, 3, 1]);
    mock.state.lock().fault("RawGet", Fault::Status(tonic::Code::Unavailable));
    // Store 1, which leads, refuses it as a replica; then it is not chosen for a while.
    assert_eq!(raw.get("r").await.unwrap().unwrap(), "3");
    assert_eq!(mock.state.lock().take_calls("RawGet"), [1, 1]);
    for _ in 0..2 {
        raw.get("r").await.unwrap();
    }
    assert!(mock.state.lock().take_calls("RawGet").iter().all(|store| *store != 1));
    assert_eq!(mock.state.lock().count("GetRegion"), 0, "the regions are known as before");
}

#[tokio::test]
async fn a_region_that_was_split_is_found_through_its_replicas() {
    let mock = Mock::start().await;
    let client = written(&mock).await;
    mock.state.lock().split(encode("g"));
    let snapshot = client.snapshot(client.timestamp().await.unwrap()).read_from(ReadFrom::Replica);
    assert_eq!(snapshot.batch_get(["a", "h"]).await.unwrap().len(), 2);
    assert_eq!(mock.state.lock().count("GetRegion"), 0, "the replica named the new regions");
}
