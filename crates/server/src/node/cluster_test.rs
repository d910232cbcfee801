//! Three nodes in one process, over loopback sockets.

use super::*;
use crate::config::ServeOptions;
use kontiki_env::testing::loopback_address;
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::pdpb;
use kontiki_proto::pdpb::pd_client::PdClient;
use kontiki_proto::tikvpb::tikv_client::TikvClient;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(60);

/// Three addresses that stay free while a node is down.
fn free_addresses() -> Vec<String> {
    (0..3).map(|_| format!("{}:20160", loopback_address())).collect()
}

fn start(store: u64, addresses: &[String], directory: &Path) -> Server {
    let list: Vec<_> = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}")).collect();
    let options = ServeOptions {
        store_id: Some(store),
        initial_cluster: Some(list.join(",")),
        data_dir: Some(directory.join(store.to_string())),
        status_address: Some("127.0.0.1:0".into()),
        log_bytes_max: Some(64 << 20),
        ..Default::default()
    };
    Server::start(options.resolve().unwrap()).unwrap()
}

/// One try to put, as a client without a cache: asks `pd` for the leader, then the leader.
async fn try_put(pd: &str, key: &str, value: &str) -> Result<(), String> {
    let text = |status: tonic::Status| status.to_string();
    let broken = |error: tonic::transport::Error| error.to_string();
    let mut pd = PdClient::connect(format!("http://{pd}")).await.map_err(broken)?;
    let request = pdpb::GetRegionRequest { region_key: key.to_owned().into(), ..Default::default() };
    let found = pd.get_region(request).await.map_err(text)?.into_inner();
    let (region, leader) = (found.region.ok_or("no region")?, found.leader.ok_or("no leader")?);
    let request = pdpb::GetStoreRequest { store_id: leader.store_id, ..Default::default() };
    let store = pd.get_store(request).await.map_err(text)?.into_inner().store.ok_or("no store")?;
    let mut kv = TikvClient::connect(format!("http://{}", store.address)).await.map_err(broken)?;
    let context =
        Context { region_id: region.id, region_epoch: region.region_epoch, peer: Some(leader), ..Default::default() };
    let put = RawPutRequest {
        context: Some(context),
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let answer = kv.raw_put(put).await.map_err(text)?.into_inner();
    if answer == RawPutResponse::default() { Ok(()) } else { Err(format!("{answer:?}")) }
}

async fn put(pd: &str, key: &str, value: &str) {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = try_put(pd, key, value).await {
        assert!(Instant::now() < deadline, "no put through {pd}: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the node has applied a put: checks each replica, not only the leader.
async fn holds(server: &Server, key: &str, value: &str) {
    let deadline = Instant::now() + DEADLINE;
    while server.node().db().get(key.as_bytes()).unwrap().is_none_or(|found| found != value) {
        assert!(Instant::now() < deadline, "a replica lacks {key}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn three_nodes_replicate_survive_the_loss_of_a_leader_and_catch_up() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses();
    let mut servers: Vec<_> = (1..=3).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        // Through any node: placement calls are routed to the leader.
        for (address, key) in addresses.iter().zip(["a", "b", "c"]) {
            put(address, key, "1").await;
        }
        for server in &servers {
            holds(server, "c", "1").await;
        }
    });
    let leads = |server: &Server| {
        server.node().status().regions.iter().any(|status| status.region.id.0 == 2 && status.leading_term.is_some())
    };
    let leader = servers.iter().position(leads).unwrap();
    let store = leader as u64 + 1;
    servers.remove(leader).run_until(std::future::ready(())).unwrap();
    let other = addresses[(leader + 1) % 3].clone();
    runtime.block_on(put(&other, "d", "2"));

    let back = start(store, &addresses, directory.path());
    runtime.block_on(async {
        holds(&back, "a", "1").await;
        holds(&back, "d", "2").await;
    });
    for server in servers.into_iter().chain([back]) {
        server.run_until(std::future::ready(())).unwrap();
    }
}
