//! Three real nodes with certificates: an unmodified client of the protocol, the command line, clients that are refused
//! and why, a killed node, and a renewal without a restart.
#![allow(clippy::disallowed_methods)] // tests may touch the machine

mod support;

use std::process::Output;
use support::certificates::{Authority, Files};
use support::{Cluster, DATA_REGION, WAIT_MAX, eventually, http_get, kontiki, wait_for};
use tikv_client::{RawClient, TransactionClient};

/// Three nodes with certificates of `authority`, ready.
fn cluster(authority: &Authority, more: &[&str]) -> Cluster {
    let mut cluster = Cluster::planned(3);
    for node in &mut cluster.nodes {
        let host = node.addr.split(':').next().expect("host:port");
        node.options = authority.issue(&format!("node-{}", node.store_id), host).options();
        node.options.extend(more.iter().map(|option| option.to_string()));
        node.start();
    }
    cluster.wait_ready();
    cluster
}

fn config(files: &Files) -> tikv_client::Config {
    tikv_client::Config::default().with_timeout(WAIT_MAX / 3).with_security(&files.ca, &files.cert, &files.key)
}

async fn raw_client(cluster: &Cluster, files: &Files) -> RawClient {
    let connect = async || RawClient::new_with_config(cluster.endpoints(), config(files)).await;
    eventually("a raw client with a certificate", connect).await
}

fn run(arguments: &[&str], endpoint: &str, options: &[String]) -> Output {
    kontiki().args(arguments).args(["--endpoint", endpoint]).args(options).output().expect("the program starts")
}

/// What a command that is refused says; its exit code is that of wrong usage.
fn refusal(arguments: &[&str], endpoint: &str, options: &[String]) -> String {
    let output = run(arguments, endpoint, options);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_with_certificates_serve_unmodified_clients_and_survive_a_kill() {
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "cluster");
    let mut cluster = cluster(&authority, &[]);
    let files = authority.issue("client", "client");
    let client = raw_client(&cluster, &files).await;
    client.put("greeting".to_owned(), "hello".to_owned()).await.expect("put");
    let connect = async || TransactionClient::new_with_config(cluster.endpoints(), config(&files)).await;
    let transactions = eventually("a transactional client", connect).await;
    eventually("a transaction", async || {
        let mut transaction = transactions.begin_optimistic().await?;
        transaction.put("account".to_owned(), "100".to_owned()).await?;
        transaction.commit().await
    })
    .await;

    // The command line, at any node, with options; and the same from the environment.
    let endpoint = cluster.nodes[1].addr.clone();
    let output = run(&["get", "greeting"], &endpoint, &files.options());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello", "{output:?}");
    let mut status = kontiki();
    status.args(["status", "--endpoint", &endpoint]);
    status.env("KONTIKI_CA_FILE", &files.ca).env("KONTIKI_CERT_FILE", &files.cert).env("KONTIKI_KEY_FILE", &files.key);
    let output = status.output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let compared = run(&["compare-replicas"], &endpoint, &files.options());
    assert!(compared.status.success(), "{compared:?}");

    // Kill the leader; the others elect another one and go on; the killed one comes back and catches up.
    let leader = cluster.leader_of(DATA_REGION);
    cluster.nodes[leader].kill();
    eventually("a put without the killed leader", || client.put("later".to_owned(), "value".to_owned())).await;
    cluster.nodes[leader].start();
    cluster.wait_ready();
    cluster.wait_quiet();
    let found = eventually("a get", || client.get("later".to_owned())).await;
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    drop((client, transactions));
    cluster.stop_with_equal_data();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_belong_to_the_cluster_are_refused_and_learn_why() {
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "cluster");
    let other = Authority::new(folder.path(), "other");
    let cluster = cluster(&authority, &[]);
    let endpoint = &cluster.nodes[0].addr;
    let get = &["get", "key"][..];
    let ca_only = ["--ca-file".to_owned(), authority.ca().display().to_string()];

    let text = refusal(get, endpoint, &[]);
    assert!(text.contains("requires TLS") && text.contains("--ca-file"), "{text}");
    let text = refusal(get, endpoint, &ca_only);
    assert!(text.contains(endpoint) && text.contains("requires a certificate"), "{text}");
    let text = refusal(&["status"], endpoint, &ca_only);
    assert!(text.contains("requires a certificate") && text.contains("--cert-file"), "{text}");
    let stranger = other.issue("stranger", "client");
    let text = refusal(get, endpoint, &stranger.options());
    assert!(text.contains("not signed by an authority") && text.contains("other/ca.pem"), "{text}");
    let stranger = Files { ca: authority.ca(), ..stranger };
    let text = refusal(get, endpoint, &stranger.options());
    assert!(text.contains("does not accept the certificate"), "{text}");
    let text =
        refusal(get, endpoint, &ca_only.iter().cloned().chain(["--cert-file".into(), "x".into()]).collect::<Vec<_>>());
    assert!(text.contains("without --key-file"), "{text}");
    // The unmodified client, in plain text and with a certificate of another authority.
    RawClient::new(cluster.endpoints()).await.err().expect("plain text is refused");
    let foreign = RawClient::new_with_config(cluster.endpoints(), config(&stranger)).await;
    foreign.err().expect("a certificate of another authority is refused");

    wait_for("the node to log a refusal", || {
        cluster.nodes[0].log_text().contains("a connection was refused").then_some(())
    });
    let metrics = http_get(&cluster.nodes[0].status_addr, "/metrics").expect("metrics").1;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.split_whitespace().nth(1).and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert!(value("kontiki_tls_handshakes_failed_total") >= 5.0);
    assert!(value("kontiki_tls_certificate_expires_timestamp_seconds") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "cluster");
    let cluster = cluster(&authority, &["--log-level", "info", "--client-certificates", "optional"]);
    let node = &cluster.nodes[0];
    let host = node.addr.split(':').next().expect("host:port");
    // Optional certificates: a client with the authority's file alone is served.
    let ca_only = ["--ca-file".to_owned(), authority.ca().display().to_string()];
    let put = run(&["put", "key", "value"], &node.addr, &ca_only);
    assert!(put.status.success(), "{put:?}");

    authority.issue_with("node-1", host, |params| params.not_after = rcgen::date_time_ymd(2100, 3, 1));
    wait_for("the node to use its new certificate", || {
        node.log_text().contains("the certificates were renewed").then_some(())
    });
    let get = run(&["get", "key"], &node.addr, &ca_only);
    assert!(get.status.success(), "{get:?}");
}

#[test]
fn the_status_port_uses_tls_where_it_is_asked_to() {
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "cluster");
    let mut cluster = Cluster::planned(1);
    let node = &mut cluster.nodes[0];
    node.options = authority.issue("node", node.addr.split(':').next().expect("host:port")).options();
    node.start_with(&["--status-tls"]);
    let (code, body) = wait_for("an answer in plain text", || http_get(&node.status_addr, "/status"));
    assert!(code == 400 && body.contains("requires TLS"), "{code} {body}");
}

#[test]
fn a_node_with_files_that_cannot_be_used_does_not_start() {
    let folder = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(folder.path(), "cluster");
    let good = authority.issue("good", "127.0.0.1");
    let start = |files: &Files| {
        let host = kontiki_env::testing::loopback_address();
        let mut serve = kontiki();
        serve.args(["serve", "--grpc-address", &format!("{host}:20160"), "--status-address", &format!("{host}:20180")]);
        serve.arg("--data-dir").arg(folder.path().join("data")).args(files.options());
        let output = serve.output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!folder.path().join("data").exists(), "the directory is not touched");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let old = authority.issue_with("old", "127.0.0.1", |params| params.not_after = rcgen::date_time_ymd(2002, 2, 3));
    let text = start(&old);
    assert!(text.contains("old.pem") && text.contains("expired at 2002-02-03"), "{text}");
    let text = start(&Files { key: old.key, ..good.clone() });
    assert!(text.contains("good.pem") && text.contains("old.key") && text.contains("does not match"), "{text}");
    let text = start(&Files { ca: folder.path().join("none.pem"), ..good.clone() });
    assert!(text.contains("ca-file") && text.contains("none.pem"), "{text}");
    // The address of this test is not the one of the certificate.
    let text = start(&good);
    assert!(text.contains("good.pem") && text.contains("subject alternative name"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_certificates_learns_that_a_node_has_none() {
    let folder = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(1);
    let files = Authority::new(folder.path(), "cluster").issue("client", "client");
    let text = refusal(&["get", "key"], &cluster.nodes[0].addr, &files.options());
    assert!(text.contains("does not use TLS") && text.contains(&cluster.nodes[0].addr), "{text}");
    let log = wait_for("the log of the node", || {
        Some(cluster.nodes[0].log_text()).filter(|text| text.contains("a connection was refused"))
    });
    assert!(log.contains("this port does not"), "{log}");
}
