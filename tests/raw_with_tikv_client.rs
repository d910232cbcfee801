//! An unmodified client's raw calls against three real nodes.

mod support;

use support::{Cluster, connect_raw};
use tikv_client::KvPair;

fn key(i: u32) -> Vec<u8> {
    format!("raw-key-{i:06}").into_bytes()
}

fn value(i: u32) -> Vec<u8> {
    format!("value of {i}").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_calls_answer_as_a_map_would() {
    let mut cluster = Cluster::start(3);
    let client = connect_raw(&cluster.endpoints()).await;

    assert_eq!(client.get(key(0)).await.expect("get"), None, "a key that was never written");
    client.put(key(0), value(0)).await.expect("put");
    assert_eq!(client.get(key(0)).await.expect("get"), Some(value(0)));
    client.put(key(0), b"again".to_vec()).await.expect("overwrite");
    assert_eq!(client.get(key(0)).await.expect("get"), Some(b"again".to_vec()));
    client.put(b"empty value".to_vec(), Vec::new()).await.expect("put of an empty value");
    assert_eq!(client.get(b"empty value".to_vec()).await.expect("get"), Some(Vec::new()));
    client.delete(key(0)).await.expect("delete");
    assert_eq!(client.get(key(0)).await.expect("get"), None);
    client.delete(key(0)).await.expect("deleting twice is no error");

    for chunk in (0..1_500).collect::<Vec<u32>>().chunks(250) {
        client.batch_put(chunk.iter().map(|&i| KvPair::new(key(i), value(i)))).await.expect("batch put");
    }
    let found = client.batch_get((990..1_010).chain([9_999]).map(key)).await.expect("batch get");
    assert_eq!(found.len(), 20, "found keys only");

    // Bounded scans over more than 1,000 keys: complete, in order, and free of foreign or repeated keys.
    let pairs = client.scan(key(100)..key(1_400), 5_000).await.expect("scan");
    let expected: Vec<KvPair> = (100..1_400).map(|i| KvPair::new(key(i), value(i))).collect();
    assert_eq!(pairs, expected);
    let limited = client.scan(key(100)..key(1_400), 1_000).await.expect("scan with a limit");
    assert_eq!(limited, expected[..1_000]);
    let keys = client.scan_keys(key(5)..=key(7), 100).await.expect("scan of keys");
    assert_eq!(keys, (5..=7).map(|i| key(i).into()).collect::<Vec<tikv_client::Key>>());
    let backward = client.scan_reverse(key(10)..key(13), 100).await.expect("reverse scan");
    assert_eq!(backward, (10..13).rev().map(|i| KvPair::new(key(i), value(i))).collect::<Vec<_>>());

    client.batch_delete((0..10).map(key)).await.expect("batch delete");
    assert_eq!(client.scan(key(0)..key(12), 100).await.expect("scan").len(), 2);
    client.delete_range(key(1_000)..key(1_500)).await.expect("delete range");
    assert_eq!(client.scan(key(990)..key(2_000), 100).await.expect("scan").len(), 10);

    assert_eq!(cluster.stop_with_equal_data().len(), 990 + 1, "10..1000 and the empty value");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_survives_a_clean_restart_of_one_node() {
    let mut cluster = Cluster::start(1);
    let client = connect_raw(&cluster.endpoints()).await;
    for i in 0..200 {
        client.put(key(i), value(i)).await.expect("put");
    }
    drop(client);
    cluster.stop();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let client = connect_raw(&cluster.endpoints()).await;
    assert_eq!(client.scan(key(0)..key(200), 1_000).await.expect("scan").len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_beyond_the_limits_are_refused_with_their_numbers() {
    let cluster = Cluster::start(1);
    let client = connect_raw(&cluster.endpoints()).await;
    let long_key = vec![b'k'; (64 << 10) + 1];
    let error = client.put(long_key, b"v".to_vec()).await.expect_err("too long a key").to_string();
    assert!(error.contains("65537") && error.contains("65536"), "{error}");
    let error = client.put(b"k".to_vec(), vec![0; 40 << 20]).await.expect_err("too large a value").to_string();
    assert!(error.contains("41943040") || error.contains("too large"), "{error}");
    assert_eq!(client.get(b"k".to_vec()).await.expect("get"), None, "nothing was written");
}
