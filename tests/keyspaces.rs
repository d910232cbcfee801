//! Keyspaces: made by the command line, used by an unmodified client.

mod support;

use std::process::Output;
use support::{Cluster, connect_transactions, eventually, kontiki};
use tikv_client::{Config, TransactionClient};

fn run(arguments: &[&str], endpoint: &str) -> Output {
    kontiki().args(arguments).args(["--endpoint", endpoint]).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

async fn with_keyspace(endpoints: &[String], config: Config) -> TransactionClient {
    eventually("a client of the keyspace", || TransactionClient::new_with_config(endpoints.to_vec(), config.clone()))
        .await
}

async fn put(client: &TransactionClient, value: &str) {
    let mut transaction = client.begin_optimistic().await.expect("begins");
    transaction.put("key".to_owned(), value.to_owned()).await.expect("buffered");
    transaction.commit().await.expect("commits");
}

async fn get(client: &TransactionClient) -> Option<String> {
    let mut transaction = client.begin_optimistic().await.expect("begins");
    let found = transaction.get("key".to_owned()).await.expect("get");
    transaction.rollback().await.expect("rolls back");
    found.map(|value| text(&value))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keyspace_is_created_by_the_command_line_and_used_by_a_client() {
    let cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    // The client gets the cluster to a state in which placement answers.
    connect_transactions(&endpoints).await;
    let created = run(&["keyspace", "create", "orders"], &endpoints[1]);
    assert!(created.status.success(), "{created:?}");
    assert_eq!(text(&created.stdout), "keyspace orders has the id 1\n");
    for (name, why) in [("orders", "exists already"), ("no/name", "1 to 20 letters")] {
        let refused = run(&["keyspace", "create", name], &endpoints[2]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(why), "{refused:?}");
    }
    let list = run(&["keyspace", "list", "--json"], &endpoints[2]);
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let expected = serde_json::json!([
        { "id": 0, "name": "DEFAULT", "state": "enabled" },
        { "id": 1, "name": "orders", "state": "enabled" },
    ]);
    assert_eq!(list, expected);
    let table = text(&run(&["keyspace", "list"], &endpoints[0]).stdout);
    assert!(table.contains("NAME") && table.contains("orders"), "{table}");

    let default = with_keyspace(&endpoints, Config::default().with_default_keyspace()).await;
    let orders = with_keyspace(&endpoints, Config::default().with_keyspace("orders")).await;
    put(&default, "of DEFAULT").await;
    put(&orders, "of orders").await;
    assert_eq!(get(&default).await.as_deref(), Some("of DEFAULT"));
    assert_eq!(get(&orders).await.as_deref(), Some("of orders"));

    let unknown = TransactionClient::new_with_config(endpoints, Config::default().with_keyspace("absent")).await;
    let error = unknown.err().expect("no such keyspace").to_string();
    assert!(error.contains("absent") || error.contains("does not exist"), "{error}");
}
