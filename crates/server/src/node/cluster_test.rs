//! Three or four nodes in one process, over loopback sockets.

use super::*;
use crate::config::ServeOptions;
use crate::driver::{NodeError, NodeHandle, RegionContext, StoreChange};
use kontiki_env::testing::loopback_address;
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::metapb;
use kontiki_proto::pdpb;
use kontiki_proto::pdpb::pd_client::PdClient;
use kontiki_proto::tikvpb::tikv_client::TikvClient;
use kontiki_raftstore::{PeerRole, Region, Space, StoreId};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Addresses that stay free while a node is down.
pub(super) fn free_addresses(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("{}:20160", loopback_address())).collect()
}

pub(super) fn start(store: u64, addresses: &[String], directory: &Path) -> Server {
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

/// A read at a node's own replica of the first region, whether it leads or not.
async fn replica_get(server: &Server, address: &str, key: &str) -> RawGetResponse {
    let here = server.node().regions().into_iter();
    let region =
        here.into_iter().find(|region| region.space == Space::Data && region.contains(key.as_bytes())).unwrap();
    let peer = region.peer_on(server.node().status().store_id).unwrap();
    let epoch = metapb::RegionEpoch { conf_ver: region.epoch.conf_version, version: region.epoch.version };
    let context = Context {
        region_id: region.id.0,
        region_epoch: Some(epoch),
        peer: Some(metapb::Peer { id: peer.id.0, store_id: peer.store.0, ..Default::default() }),
        replica_read: true,
        ..Default::default()
    };
    let mut kv = TikvClient::connect(format!("http://{address}")).await.unwrap();
    let get = RawGetRequest { context: Some(context), key: key.to_owned().into(), ..Default::default() };
    kv.raw_get(get).await.unwrap().into_inner()
}

/// Waits until the node has applied a put: checks each replica, not only the leader.
async fn holds(server: &Server, key: &str, value: &str) {
    let deadline = Instant::now() + DEADLINE;
    while server.node().db().expect("built in").get(key.as_bytes()).unwrap().is_none_or(|found| found != value) {
        assert!(Instant::now() < deadline, "a replica lacks {key}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn three_nodes_replicate_survive_the_loss_of_a_leader_and_catch_up() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3);
    let mut servers: Vec<_> = (1..=3).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        // Through any node: placement calls are routed to the leader.
        for (address, key) in addresses.iter().zip(["a", "b", "c"]) {
            put(address, key, "1").await;
        }
        for (server, address) in servers.iter().zip(&addresses) {
            holds(server, "c", "1").await;
            let answer = replica_get(server, address, "c").await;
            assert_eq!((answer.region_error, answer.value), (None, "1".into()), "each replica serves reads");
        }
        let at_replicas: u64 = servers.iter().map(|server| server.node().counters().reads_replica.get()).sum();
        assert!(at_replicas > 0, "two of three do not lead");
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

/// The region that has a key, where it is led, if a leader is known.
fn led_region<'a>(servers: &'a [Server], key: &[u8]) -> Option<(&'a Server, Region)> {
    servers.iter().find_map(|server| {
        let region =
            server.node().regions().into_iter().find(|region| region.space == Space::Data && region.contains(key))?;
        server.node().leading_term(region.id).map(|_| (server, Region::clone(&region)))
    })
}

/// Changes the members of the region with a key until that has happened.
async fn change(servers: &[Server], key: &[u8], change: &StoreChange, is_done: impl Fn(&Region) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut last = None;
    loop {
        if let Some((leader, region)) = led_region(servers, key) {
            if is_done(&region) {
                return;
            }
            last = Some(leader.node().change_members(region.id, change.clone()).await);
        }
        assert!(Instant::now() < deadline, "{change:?}: {last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_replica_moves_to_a_node_that_had_none() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(4);
    let mut servers: Vec<_> = (1..=4).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (from, to) = runtime.block_on(async {
        put(&addresses[3], "a", "1").await;
        assert_eq!(
            servers[3].node().db().expect("built in").get(b"a").unwrap(),
            None,
            "the fourth node has no replica yet"
        );
        let leader = led_region(&servers, b"a").map_or(1, |(leader, _)| leader.node().status().store_id.0);
        let (from, to) = (StoreId(leader % 3 + 1), StoreId(4));
        let role = |region: &Region, store| region.peer_on(store).map(|peer| region.role(peer.id));
        change(&servers, b"a", &StoreChange::AddLearner(to), |region| region.peer_on(to).is_some()).await;
        holds(&servers[3], "a", "1").await;
        let roles = StoreChange::Roles { promote: vec![to], demote: vec![from] };
        change(&servers, b"a", &roles, |region| role(region, to) == Some(PeerRole::Voter)).await;
        change(&servers, b"a", &StoreChange::Remove(from), |region| region.peer_on(from).is_none()).await;
        let left = &servers[from.0 as usize - 1];
        let deadline = Instant::now() + DEADLINE;
        while left.node().db().expect("built in").get(b"a").unwrap().is_some() {
            assert!(Instant::now() < deadline, "the removed replica keeps its data");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(left.node().status().missing, Vec::<String>::new(), "nothing of what it held belongs on it");
        (from, to)
    });
    // Of the two voters that are left of the first three, one stops: the new one is needed for a quorum.
    let other = (1..=3).find(|store| {
        let leads = led_region(&servers, b"a").is_some_and(|(leader, _)| leader.node().status().store_id.0 == *store);
        StoreId(*store) != from && !leads
    });
    servers.remove(other.unwrap() as usize - 1).run_until(std::future::ready(())).unwrap();
    runtime.block_on(async {
        put(&addresses[to.0 as usize - 1], "b", "2").await;
        holds(servers.last().unwrap(), "b", "2").await;
    });
    for server in servers {
        server.run_until(std::future::ready(())).unwrap();
    }
}

/// Repeats a call at the leader of the region with a key until it succeeds.
async fn at_leader<F: Future<Output = Result<T, NodeError>>, T>(
    servers: &[Server],
    key: &[u8],
    call: impl Fn(NodeHandle, Region) -> F,
) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut last = None;
    loop {
        if let Some((leader, region)) = led_region(servers, key) {
            match call(leader.node().clone(), region).await {
                Ok(done) => return done,
                Err(error) => last = Some(error),
            }
        }
        assert!(Instant::now() < deadline, "{last:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_region_is_merged_into_its_neighbour() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3);
    let mut servers: Vec<_> = (1..=3).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        put(&addresses[0], "a", "1").await;
        put(&addresses[0], "x", "1").await;
        let regions = at_leader(&servers, b"a", |node, region| async move {
            node.split(&RegionContext::new(region.id, region.epoch), vec!["m".into()]).await
        });
        let regions = regions.await;
        let (target, source) = (regions[0].id, regions[1].id);
        let merged = at_leader(&servers, b"x", |node, _| async move { node.merge(source, target).await }).await;
        assert!(merged.id == target && merged.contains(b"x") && merged.contains(b"a"), "{merged:?}");
        for (address, key) in addresses.iter().zip(["a", "x", "y"]) {
            put(address, key, "2").await;
        }
        for server in &servers {
            holds(server, "x", "2").await;
            holds(server, "y", "2").await;
            let deadline = Instant::now() + DEADLINE;
            while server.node().counters().merges.get() == 0 {
                assert!(Instant::now() < deadline, "it is applied on each node");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(server.node().status().missing, Vec::<String>::new());
        }
    });
    servers.pop().unwrap().run_until(std::future::ready(())).unwrap();
    let back = start(3, &addresses, directory.path());
    runtime.block_on(async {
        put(&addresses[2], "z", "3").await;
        holds(&back, "x", "2").await;
        holds(&back, "z", "3").await;
    });
    for server in servers.into_iter().chain([back]) {
        server.run_until(std::future::ready(())).unwrap();
    }
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_catches_up_when_the_links_are_back() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3);
    let servers: Vec<_> = (1..=3).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        put(&addresses[0], "a", "1").await;
        let leader = led_region(&servers, b"a").unwrap().0.node().status().store_id;
        let cut = &servers[leader.0 as usize - 1];
        let others: Vec<StoreId> = (1..=3).map(StoreId).filter(|store| *store != leader).collect();
        others.iter().for_each(|store| cut.links().block(*store));
        // Only a leader among the others can acknowledge it: the one that is cut off has no quorum.
        put(&addresses[others[0].0 as usize - 1], "b", "2").await;
        assert_eq!(cut.node().db().expect("built in").get(b"b").unwrap(), None, "nothing passes");
        others.iter().for_each(|store| cut.links().unblock(*store));
        holds(cut, "b", "2").await;
    });
    for server in servers {
        server.run_until(std::future::ready(())).unwrap();
    }
}
