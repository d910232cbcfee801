//! An unmodified client's optimistic transactions against three real nodes.

mod support;

use support::{Cluster, connect_transactions};
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
