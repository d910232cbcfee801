//! An unmodified client's raw calls against three real nodes.

mod support;

use bytes::Bytes;
use kontiki::client::Swap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Cluster, connect_raw, eventually, wait_for};
use tikv_client::{ColumnFamily, KvPair};

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

/// Splits at raw keys lie behind their first eight bytes.
async fn split(cluster: &Cluster, keys: [&'static str; 2]) {
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers");
    ours.split(keys).await.expect("the regions are split");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_live_as_long_as_they_are_to_and_expire_on_every_replica() {
    let mut cluster = Cluster::start(3);
    let client = connect_raw(&cluster.endpoints()).await;
    split(&cluster, ["h", "p"]).await;
    client.put("a".to_owned(), "for ever".to_owned()).await.expect("put");
    client.put_with_ttl("b".to_owned(), "for long".to_owned(), 1_000).await.expect("put");
    let pairs = ["c", "i", "q"].map(|key| KvPair::from((key.to_owned(), "for a moment".to_owned())));
    client.batch_put_with_ttl(pairs, [1, 2_000, 1]).await.expect("batch put over three regions");
    assert_eq!(client.get_key_ttl_secs("a".to_owned()).await.expect("a time to live"), Some(0), "none");
    for (key, most) in [("b", 1_000), ("i", 2_000)] {
        let rest = client.get_key_ttl_secs(key.to_owned()).await.expect("a time to live").expect("it is there");
        assert!(rest > most / 2 && rest <= most, "{key}: {rest}");
    }
    for key in ["c", "q"] {
        eventually(&format!("{key} to expire"), async || match client.get(key.to_owned()).await {
            Ok(None) => Ok(()),
            other => Err(other),
        })
        .await;
        assert_eq!(client.get_key_ttl_secs(key.to_owned()).await.expect("a time to live"), None);
    }
    let keys = client.scan_keys("a".to_owned().."z".to_owned(), 10).await.expect("scan");
    assert_eq!(keys, ["a", "b", "i"].map(|key| tikv_client::Key::from(key.to_owned())));
    let endless = client.put_with_ttl("d".to_owned(), "v".to_owned(), u64::MAX).await;
    let error = endless.expect_err("no clock gets there").to_string();
    assert!(error.contains("18446744073709551615"), "{error}");
    cluster.stop_with_equal_data();
}

/// Clients compete for keys of several regions: no increment is lost, and each is answered once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_exclude_each_other_and_atomic_writes() {
    const EACH: usize = 20;
    let mut cluster = Cluster::start(3);
    let client = connect_raw(&cluster.endpoints()).await.with_atomic_for_cas();
    split(&cluster, ["h", "p"]).await;
    let keys = ["a/count", "i/count", "q/count"];
    for key in keys {
        assert_eq!(
            client.compare_and_swap(key.to_owned(), b"wrong".to_vec(), b"0".to_vec()).await.expect("swap"),
            (None, false)
        );
        client.put(key.to_owned(), "0".to_owned()).await.expect("an atomic put");
        let answer = client.compare_and_swap(key.to_owned(), None::<Vec<u8>>, b"9".to_vec()).await.expect("swap");
        assert_eq!(answer, (Some(b"0".to_vec()), false));
    }
    let mut workers = Vec::new();
    for number in 0..4 {
        let endpoints = cluster.endpoints();
        workers.push(tokio::spawn(async move {
            let client = connect_raw(&endpoints).await.with_atomic_for_cas();
            for step in 0..EACH {
                let key = keys[(number + step) % keys.len()].to_owned();
                let mut seen = client.get(key.clone()).await.expect("get").expect("it is there");
                loop {
                    let count: usize = String::from_utf8(seen.clone()).expect("text").parse().expect("a number");
                    let next = (count + 1).to_string().into_bytes();
                    let (found, swapped) =
                        client.compare_and_swap(key.clone(), seen, next).await.expect("no region changes its leader");
                    if swapped {
                        break;
                    }
                    seen = found.expect("it is there");
                }
            }
        }));
    }
    for worker in workers {
        worker.await.expect("a worker");
    }
    let mut total = 0;
    for key in keys {
        let value = client.get(key.to_owned()).await.expect("get").expect("it is there");
        total += String::from_utf8(value).expect("text").parse::<usize>().expect("a number");
    }
    assert_eq!(total, 4 * EACH);
    cluster.stop_with_equal_data();
}

/// Every value is unique, so what was swapped can be found out from what is there in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_stay_atomic_when_the_leader_is_killed() {
    let mut cluster = Cluster::start(3);
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers").raw().atomic();
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (ours, stop) = (ours.clone(), stop.clone());
        tokio::spawn(async move {
            // What was acknowledged last, and the values of swaps that may still happen.
            let (mut last, mut unknown, mut swapped) = (None, Vec::new(), 0);
            while !stop.load(Ordering::Acquire) {
                let next = Bytes::from(format!("{swapped} {}", unknown.len()));
                match ours.compare_and_swap("key", last.clone(), next.clone()).await {
                    Ok(swap) if swap.swapped => {
                        assert_eq!(swap.previous, last);
                        (last, swapped) = (Some(next), swapped + 1);
                    }
                    Ok(Swap { previous, .. }) => {
                        let is_known = previous.as_ref().is_some_and(|value| unknown.contains(value));
                        assert!(
                            is_known && previous != last,
                            "{previous:?} after {last:?}, and no other client writes"
                        );
                        last = previous;
                    }
                    Err(_) => {
                        unknown.push(next.clone());
                        let found = eventually("a read", async || ours.get("key").await).await;
                        assert!(found == last || found == Some(next), "{found:?} after {last:?}");
                        last = found;
                    }
                }
            }
            (last, swapped, unknown.len())
        })
    };
    wait_until_written(&ours).await;
    for _ in 0..2 {
        let leader = cluster.leader_of(support::DATA_REGION);
        cluster.nodes[leader].kill();
        wait_for("another leader", || cluster.nodes.iter().any(|node| node.leads(support::DATA_REGION)).then_some(()));
        cluster.nodes[leader].start();
        cluster.wait_ready();
    }
    stop.store(true, Ordering::Release);
    let (last, swapped, unknown) = swapping.await.expect("the swaps end");
    let found = eventually("a read", async || ours.get("key").await).await;
    assert!(found == last || unknown > 0, "{found:?} after {last:?}");
    assert!(swapped > 0, "{unknown} unknown");
    cluster.stop_with_equal_data();
}

async fn wait_until_written(client: &kontiki::client::RawClient) {
    let written = async || match client.get("key").await {
        Ok(Some(_)) => Ok(()),
        other => Err(other),
    };
    eventually("the first swap", written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_families_and_range_deletes_over_several_regions() {
    let mut cluster = Cluster::start(3);
    let default = connect_raw(&cluster.endpoints()).await;
    split(&cluster, ["h", "p"]).await;
    let family = |name: &str| default.with_cf(ColumnFamily::try_from(name).expect("a family of the client"));
    let (lock, write) = (family("lock"), family("write"));
    let keys = ["a", "c", "i", "k", "q", "s"].map(str::to_owned);
    for (client, value) in [(&default, "1"), (&lock, "2"), (&write, "3")] {
        let pairs = keys.iter().map(|key| KvPair::from((key.clone(), value.to_owned())));
        client.batch_put(pairs).await.expect("batch put");
    }
    lock.delete_range("c".to_owned().."q".to_owned()).await.expect("a range delete over three regions");
    let found = |pairs: Vec<KvPair>| pairs.into_iter().map(|pair| Vec::from(pair.0)).collect::<Vec<_>>();
    let all = || "a".to_owned().."z".to_owned();
    assert_eq!(found(lock.scan(all(), 10).await.expect("scan")), ["a", "q", "s"].map(|key| key.as_bytes().to_vec()));
    for (client, value) in [(&default, "1"), (&write, "3")] {
        let pairs = client.scan(all(), 10).await.expect("scan");
        assert_eq!(pairs.len(), keys.len());
        assert!(pairs.iter().all(|pair| pair.1 == value.as_bytes()));
    }
    let ranges = ["a".to_owned().."i".to_owned(), "k".to_owned().."z".to_owned()];
    let pairs = default.batch_scan(ranges, 2).await.expect("batch scan");
    assert!(pairs.len() >= 4, "each range has its limit: {pairs:?}");
    assert_eq!(cluster.stop_with_equal_data().len(), 6 + 3 + 6);
}
