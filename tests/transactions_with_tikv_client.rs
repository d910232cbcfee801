//! An unmodified client's transactions of every kind against three real nodes.

mod support;

use support::{Cluster, connect_keyspaces, connect_transactions, eventually};
use tikv_client::{CheckLevel, Transaction, TransactionClient, TransactionOptions};

fn optimistic() -> TransactionOptions {
    TransactionOptions::new_optimistic().drop_check(CheckLevel::None)
}

async fn begin(client: &TransactionClient) -> Transaction {
    client.begin_with_options(optimistic()).await.expect("begins")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_over_several_keys_is_seen_whole_or_not_at_all() {
    let cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;

    let mut writer = begin(&client).await;
    for i in 0..20u32 {
        writer.put(format!("account/{i:03}"), format!("{i}")).await.expect("buffered");
    }
    let mut before = begin(&client).await;
    writer.commit().await.expect("commits").expect("has a commit timestamp");
    assert_eq!(before.get("account/003".to_owned()).await.expect("get"), None, "a snapshot from before the commit");
    before.rollback().await.expect("rolls back");

    let mut reader = begin(&client).await;
    let all: Vec<_> = reader.scan("account/".to_owned().."account/~".to_owned(), 100).await.expect("scan").collect();
    assert_eq!(all.len(), 20);
    let backward: Vec<_> =
        reader.scan_reverse("account/".to_owned().."account/~".to_owned(), 5).await.expect("scan").collect();
    assert_eq!(Vec::from(backward[0].key().clone()), b"account/019".to_vec());
    assert_eq!(backward.len(), 5);
    let found: Vec<_> =
        reader.batch_get(["account/001".to_owned(), "missing".to_owned()]).await.expect("batch get").collect();
    assert_eq!(found.len(), 1);
    reader.rollback().await.expect("rolls back");

    let mut deleter = begin(&client).await;
    deleter.delete("account/003".to_owned()).await.expect("buffered");
    deleter.commit().await.expect("commits");
    let mut reader = begin(&client).await;
    assert_eq!(reader.get("account/003".to_owned()).await.expect("get"), None);
    reader.rollback().await.expect("rolls back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_conflicting_transactions_one_fails() {
    let cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;
    let mut first = begin(&client).await;
    let mut second = begin(&client).await;
    for (transaction, value) in [(&mut first, "first"), (&mut second, "second")] {
        transaction.put("contended".to_owned(), value.to_owned()).await.expect("buffered");
        transaction.put(format!("only-{value}"), value.to_owned()).await.expect("buffered");
    }
    first.commit().await.expect("the first to commit wins");
    let error = format!("{:?}", second.commit().await.expect_err("the second must see the conflict"));
    assert!(error.to_lowercase().contains("conflict"), "{error}");

    let mut reader = begin(&client).await;
    assert_eq!(reader.get("contended".to_owned()).await.expect("get"), Some(b"first".to_vec()));
    assert_eq!(
        reader.get("only-second".to_owned()).await.expect("get"),
        None,
        "nothing of the failed transaction is left"
    );
    reader.rollback().await.expect("rolls back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserting_a_key_that_exists_is_refused() {
    let cluster = Cluster::start(1);
    let client = connect_transactions(&cluster.endpoints()).await;
    let mut first = begin(&client).await;
    first.insert("unique".to_owned(), "1".to_owned()).await.expect("buffered");
    first.commit().await.expect("commits");
    let mut second = begin(&client).await;
    let inserted = second.insert("unique".to_owned(), "2".to_owned()).await;
    let failed = match inserted {
        Ok(()) => second.commit().await.is_err(),
        Err(_) => true,
    };
    assert!(failed, "a second insert of the same key");
}

fn kinds() -> [(&'static str, TransactionOptions); 6] {
    let pessimistic = || TransactionOptions::new_pessimistic().drop_check(CheckLevel::None);
    [
        ("optimistic", optimistic()),
        ("optimistic, async commit", optimistic().use_async_commit()),
        ("optimistic, one phase", optimistic().try_one_pc()),
        ("pessimistic", pessimistic()),
        ("pessimistic, async commit", pessimistic().use_async_commit()),
        ("pessimistic, one phase", pessimistic().try_one_pc()),
    ]
}

async fn value_of(client: &TransactionClient, key: &str) -> Option<Vec<u8>> {
    let read = async || {
        let mut reader = begin(client).await;
        let value = reader.get(key.to_owned()).await;
        reader.rollback().await.expect("rolls back");
        value
    };
    eventually("a read", read).await
}

/// Adds 1 to both counters, in one transaction.
async fn increment(
    client: &TransactionClient,
    options: TransactionOptions,
    keys: &[String],
) -> tikv_client::Result<()> {
    let mut transaction = client.begin_with_options(options.clone()).await?;
    let done = async {
        for key in keys {
            let value = match options.is_pessimistic() {
                true => transaction.get_for_update(key.clone()).await?,
                false => transaction.get(key.clone()).await?,
            };
            let count: u64 = value.map_or(0, |text| String::from_utf8(text).expect("text").parse().expect("a number"));
            transaction.put(key.clone(), (count + 1).to_string()).await?;
        }
        let committed = transaction.commit().await?.expect("it wrote");
        assert!(committed.physical > 0, "a commit timestamp");
        Ok(())
    }
    .await;
    if done.is_err() {
        let _ = transaction.rollback().await; // Its locks would expire anyway.
    }
    done
}

async fn all_kinds_commit(cluster: &Cluster, keys: &[String]) {
    let client = connect_transactions(&cluster.endpoints()).await;
    for (count, (name, options)) in kinds().into_iter().enumerate() {
        increment(&client, options, keys).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for key in keys {
            let expected = (count + 1).to_string().into_bytes();
            assert_eq!(value_of(&client, key).await, Some(expected), "{name}: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_transactions_commit_in_one_region_and_over_several() {
    let cluster = Cluster::start(3);
    let one_region = ["counter/1".to_owned(), "counter/2".to_owned()];
    all_kinds_commit(&cluster, &one_region).await;
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers");
    ours.split(["m", "t"]).await.expect("the regions are split");
    let several_regions = ["a/counter".to_owned(), "p/counter".to_owned(), "z/counter".to_owned()];
    all_kinds_commit(&cluster, &several_regions).await;
}

/// Writers of every kind compete for two keys of two regions: no increment is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_kinds_of_transactions_exclude_each_other() {
    const EACH: usize = 4;
    let cluster = Cluster::start(3);
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers");
    ours.split(["m"]).await.expect("the region is split");
    let keys = ["a/hot".to_owned(), "z/hot".to_owned()];
    let mut writers = Vec::new();
    for (name, options) in kinds() {
        let (endpoints, keys) = (cluster.endpoints(), keys.clone());
        writers.push(tokio::spawn(async move {
            let client = connect_transactions(&endpoints).await;
            for _ in 0..EACH {
                eventually(name, async || increment(&client, options.clone(), &keys).await).await;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    let client = connect_transactions(&cluster.endpoints()).await;
    for key in &keys {
        let expected = (EACH * kinds().len()).to_string().into_bytes();
        assert_eq!(value_of(&client, key).await, Some(expected), "{key}");
    }
}

/// Two pessimistic transactions that lock two keys, of regions with different leaders, in opposite orders.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_ends_one_of_the_two() {
    let cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers");
    ours.split(["m"]).await.expect("the region is split");
    let pessimistic = || TransactionOptions::new_pessimistic().drop_check(CheckLevel::None);
    let mut first = client.begin_with_options(pessimistic()).await.expect("begins");
    let mut second = client.begin_with_options(pessimistic()).await.expect("begins");
    first.put("a".to_owned(), "1".to_owned()).await.expect("locks a");
    second.put("z".to_owned(), "2".to_owned()).await.expect("locks z");
    let crossing = tokio::spawn(async move {
        let locked = first.put("z".to_owned(), "1".to_owned()).await;
        (first, locked)
    });
    let locked = second.put("a".to_owned(), "2".to_owned()).await;
    // The one that is refused gives up; the other one gets its key.
    let refused = |locked: &tikv_client::Result<()>| format!("{locked:?}").to_lowercase().contains("deadlock: some(");
    let survivor = if refused(&locked) {
        second.rollback().await.expect("rolls back");
        let (mut first, locked) = crossing.await.expect("it ends");
        locked.expect("the key is free");
        first.commit().await.expect("commits");
        "1"
    } else {
        let (mut first, other) = crossing.await.expect("it ends");
        assert!(refused(&other), "one of the two must be refused: {locked:?}, {other:?}");
        first.rollback().await.expect("rolls back");
        if locked.is_err() {
            second.put("a".to_owned(), "2".to_owned()).await.expect("the key is free");
        }
        second.commit().await.expect("commits");
        "2"
    };
    assert_eq!(value_of(&client, "a").await, Some(survivor.into()));
    assert_eq!(value_of(&client, "z").await, Some(survivor.into()));
}

async fn count(client: &TransactionClient, start: &str, end: &str) -> usize {
    let read = async || {
        let mut reader = begin(client).await;
        let found = reader.scan(start.to_owned()..end.to_owned(), 100).await.map(Iterator::count);
        reader.rollback().await.expect("rolls back");
        found
    };
    eventually("a scan", read).await
}

/// The client sends it to every store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_range_is_gone_from_all_regions_and_replicas() {
    let mut cluster = Cluster::start(3);
    let client = connect_transactions(&cluster.endpoints()).await;
    let ours = kontiki::client::Client::connect(cluster.endpoints()).await.expect("a node answers");
    ours.split(["m", "t"]).await.expect("the regions are split");
    let mut writer = begin(&client).await;
    for key in ["a", "k", "n", "p", "u", "w"] {
        writer.put(key.to_owned(), vec![7; 1_000]).await.expect("buffered");
    }
    writer.commit().await.expect("commits");
    assert_eq!(count(&client, "a", "z").await, 6);
    let destroyed = async || {
        client.unsafe_destroy_range("k".to_owned().."v".to_owned()).await?;
        // The client does not report what stores answer: it is repeated until nothing is left.
        if count(&client, "k", "v").await == 0 { Ok(()) } else { Err(tikv_client::Error::Unimplemented) }
    };
    eventually("the range to be destroyed", destroyed).await;
    assert_eq!(count(&client, "a", "z").await, 2);
    // Of the others a record and a long value each, and no more than these.
    assert_eq!(cluster.stop_with_equal_data().len(), 4);
}

/// Keys of API version 2 have the prefix of a keyspace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyspaces_are_apart_and_keys_without_one_are_refused() {
    let mut cluster = Cluster::start(3);
    let client = connect_keyspaces(&cluster.endpoints()).await;
    let mut writer = begin(&client).await;
    for keyspace in ["x\0\0\u{1}", "x\0\0\u{2}"] {
        for key in ["a", "b"] {
            writer.put(format!("{keyspace}{key}"), keyspace.to_owned()).await.expect("buffered");
        }
    }
    writer.commit().await.expect("commits");
    assert_eq!(count(&client, "x\0\0\u{1}", "x\0\0\u{2}").await, 2);
    let destroyed = async || {
        client.unsafe_destroy_range("x\0\0\u{1}".to_owned().."x\0\0\u{2}".to_owned()).await?;
        let left = count(&client, "x\0\0\u{1}", "x\0\0\u{2}").await;
        if left == 0 { Ok(()) } else { Err(tikv_client::Error::Unimplemented) }
    };
    eventually("the keyspace to be destroyed", destroyed).await;
    assert_eq!(count(&client, "x\0\0\u{2}", "x\0\0\u{3}").await, 2, "the other one");

    let mut writer = begin(&client).await;
    writer.put("r\0\0\u{1}k".to_owned(), "v".to_owned()).await.expect("buffered");
    let error = format!("{:?}", writer.commit().await.expect_err("a raw key"));
    assert!(error.contains("begins with `x`"), "{error}");
    cluster.stop_with_equal_data();
}
