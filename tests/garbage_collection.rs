//! Garbage collection and the locks of clients that stopped, with an unmodified client and three real nodes.

mod support;

use kontiki_engine::Family;
use kontiki_server::families::{TXN_DEFAULT, TXN_WRITE};
use std::time::Duration;
use support::{Cluster, connect_transactions, dump_data, http_get, wait_for};
use tikv_client::{CheckLevel, Timestamp, TimestampExt, TransactionClient, TransactionOptions};

fn optimistic() -> TransactionOptions {
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None)
}

/// Commits; returns a timestamp at which it is seen.
async fn write(client: &TransactionClient, key: &str, value: Option<&str>) -> Timestamp {
    let mut transaction = client.begin_with_options(optimistic()).await.expect("begins");
    match value {
        Some(value) => transaction.put(key.to_owned(), value.to_owned()).await.expect("buffered"),
        None => transaction.delete(key.to_owned()).await.expect("buffered"),
    }
    transaction.commit().await.expect("commits");
    client.current_timestamp().await.expect("a timestamp")
}

async fn read_at(client: &TransactionClient, key: &str, ts: Timestamp) -> tikv_client::Result<Option<Vec<u8>>> {
    client.snapshot(ts, optimistic()).get(key.to_owned()).await
}

/// A metric of a node, summed over its labels.
fn metric(status_address: &str, name: &str) -> u64 {
    let (_, text) = http_get(status_address, "/metrics").unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with(&format!("kontiki_{name}")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

fn count(data: &[(u32, Vec<u8>, Vec<u8>)], family: Family) -> usize {
    data.iter().filter(|(of, ..)| *of == family.0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_drops_dead_versions_on_every_node_and_reads_below_are_refused() {
    let mut cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;
    let long = "x".repeat(2_000);
    let mut before = Timestamp::default();
    for round in 0..20 {
        before = write(&client, "short", Some(&format!("{round}"))).await;
        write(&client, "long", Some(&format!("{long}{round}"))).await;
        write(&client, "deleted", Some("there")).await;
    }
    let at_safe_point = write(&client, "deleted", None).await;
    assert_eq!(read_at(&client, "short", before.clone()).await.expect("get"), Some(b"19".to_vec()));
    assert!(client.gc(at_safe_point.clone()).await.expect("collects"), "the safe point is as asked for");
    let after = write(&client, "short", Some("new")).await;

    let expected = 19 + 19 + 21 + 19; // Records of the three keys, and long values.
    for node in &cluster.nodes {
        wait_for("versions to be dropped", || {
            (metric(&node.status_addr, "level_versions_filtered") >= expected).then_some(())
        });
    }
    let refused = read_at(&client, "short", before).await.expect_err("what it needs may be gone");
    assert!(format!("{refused:?}").contains("GC life time is shorter than transaction duration"), "{refused:?}");
    for (ts, short) in [(at_safe_point, "19"), (after, "new")] {
        assert_eq!(read_at(&client, "short", ts.clone()).await.expect("get"), Some(short.into()));
        assert_eq!(read_at(&client, "long", ts.clone()).await.expect("get"), Some(format!("{long}19").into_bytes()));
        assert_eq!(read_at(&client, "deleted", ts).await.expect("get"), None);
    }
    cluster.stop();
    for node in &cluster.nodes {
        let data = dump_data(&node.data_dir);
        assert_eq!(count(&data, TXN_DEFAULT), 1, "the long value of the newest version");
        assert_eq!(count(&data, TXN_WRITE), 3, "two versions of `short`, one of `long`");
    }
}

/// The client's reads do not resolve such locks: without the nodes they would stay for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_locks_of_a_client_that_stopped_during_an_async_commit_are_resolved() {
    let cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;
    let endpoint = cluster.endpoints().remove(0);
    let start = client.current_timestamp().await.expect("a timestamp").version();
    prewrite(&endpoint, start, &["a", "b"], &["a", "b"]).await;
    let other = client.current_timestamp().await.expect("a timestamp").version();
    prewrite(&endpoint, other, &["c", "d"], &["c"]).await;

    wait_for("the transactions to be finished", || {
        let resolved = cluster.nodes.iter().map(|node| metric(&node.status_addr, "locks_resolved")).sum::<u64>();
        (resolved >= 2).then_some(())
    });
    let now = client.current_timestamp().await.expect("a timestamp");
    for (key, value) in [("a", Some("v")), ("b", Some("v")), ("c", None), ("d", None)] {
        let found = tokio::time::timeout(Duration::from_secs(10), read_at(&client, key, now.clone())).await;
        let found = found.expect("in time").expect("no lock is left");
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{key}");
    }
}

/// How placement knows a key of one byte.
fn encoded(key: &str) -> Vec<u8> {
    assert_eq!(key.len(), 1);
    [key.as_bytes(), &[0; 7], &[0xf8]].concat()
}

/// Prewrites some keys of an async commit, as a client does that then stops.
async fn prewrite(endpoint: &str, start_version: u64, keys: &[&'static str], prewritten: &[&'static str]) {
    use kontiki_proto::kvrpcpb::{Context, Mutation, PrewriteRequest};
    use kontiki_proto::metapb::RegionEpoch;
    use kontiki_proto::pdpb::{GetRegionRequest, pd_client::PdClient};
    let mut pd = PdClient::connect(format!("http://{endpoint}")).await.expect("connects");
    for key in prewritten {
        let region_key = encoded(key).into();
        let reply = pd.get_region(GetRegionRequest { region_key, ..Default::default() }).await.expect("answers");
        let (region, leader) = (reply.get_ref().region.clone().expect("known"), reply.get_ref().leader);
        let store_id = leader.as_ref().expect("one leads").store_id;
        let store = pd
            .get_store(kontiki_proto::pdpb::GetStoreRequest { store_id, ..Default::default() })
            .await
            .expect("answers");
        let address = store.get_ref().store.clone().expect("known").address;
        let mut kv = kontiki_proto::tikvpb::tikv_client::TikvClient::connect(format!("http://{address}"))
            .await
            .expect("connects");
        let epoch: Option<RegionEpoch> = region.region_epoch;
        let is_primary = *key == keys[0];
        let request = PrewriteRequest {
            context: Some(Context { region_id: region.id, region_epoch: epoch, peer: leader, ..Default::default() }),
            mutations: vec![Mutation { key: key.as_bytes().into(), value: "v".into(), ..Default::default() }],
            primary_lock: keys[0].as_bytes().into(),
            start_version,
            lock_ttl: 1_000,
            use_async_commit: true,
            secondaries: keys.iter().skip(1).filter(|_| is_primary).map(|key| key.as_bytes().into()).collect(),
            ..Default::default()
        };
        let reply = kv.kv_prewrite(request).await.expect("answers").into_inner();
        assert!(reply.errors.is_empty() && reply.region_error.is_none() && reply.min_commit_ts != 0, "{reply:?}");
    }
}
