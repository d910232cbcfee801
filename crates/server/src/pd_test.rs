//! The placement service over a node with prepared placement answers.

use super::*;
use crate::kv::fake::{CLUSTER, FakeNode, LEFT, peer_of};
use kontiki_placement::{
    Epoch, IdsGranted, Region, RegionList, Response, SafePoint, Store, StoreList, TimestampsGranted,
};
use std::sync::Arc;

/// A store that does not answer.
const DEAD: u64 = 9;

fn answering(outcomes: impl IntoIterator<Item = Outcome>) -> (FakeNode, Pd<FakeNode>) {
    let node = FakeNode::new();
    node.state.lock().placement.extend(outcomes.into_iter().map(|outcome| Ok(Response::from(outcome))));
    let pd = Pd::new(node.clone(), node.retry_budget(), Arc::new(|store| store != StoreId(DEAD)));
    (node, pd)
}

fn store(id: u64) -> StoreInfo {
    let address = format!("host:{id}");
    let store = Store { id, address, status_address: format!("status:{id}"), version: "0.1.0".into() };
    StoreInfo { store, stats: None, silent_ms: Some(21_000) }
}

fn peer(store_id: u64) -> placement::Peer {
    placement::Peer { id: LEFT * 1000 + store_id, store_id, role: 0 }
}

fn region(leader: Option<placement::Peer>) -> RegionInfo {
    let region = Region {
        id: LEFT,
        end_key: "m".into(),
        epoch: Epoch { conf_ver: 1, version: 5 },
        peers: vec![peer(1), peer(2), peer(3)],
        ..Default::default()
    };
    RegionInfo { region, leader, ..Default::default() }
}

fn header() -> Option<pdpb::ResponseHeader> {
    Some(pdpb::ResponseHeader { cluster_id: CLUSTER, error: None })
}

#[tokio::test]
async fn members_have_urls_and_the_leader_is_one_of_them() {
    let info = ClusterInfo {
        cluster_id: CLUSTER,
        leader_store_id: 2,
        members: vec![store(1), store(2)],
        ..Default::default()
    };
    let (_, pd) = answering([Outcome::Cluster(info)]);
    let answer = pd.get_members(Default::default()).await.unwrap();
    assert_eq!(answer.header, header());
    assert_eq!(answer.leader.as_ref(), Some(&answer.members[1]));
    assert_eq!(answer.members[1].client_urls, ["http://host:2"]);
    assert!(answer.members.iter().all(|member| !member.name.is_empty()));
}

#[tokio::test]
async fn a_foreign_cluster_is_refused_and_no_cluster_is_not() {
    let (_, pd) = answering([]);
    let foreign = Some(pdpb::RequestHeader { cluster_id: 5, sender_id: 0 });
    let error = pd.get_members(pdpb::GetMembersRequest { header: foreign }).await.unwrap_err();
    assert_eq!(error, PdError::WrongCluster { own: CLUSTER, asked: 5 });
    assert!(error.to_string().contains("mismatch cluster id"));
    // Placement does not lead here: the text makes clients look for another leader.
    let error = pd.get_members(Default::default()).await.unwrap_err();
    assert!(matches!(error, PdError::Unavailable(1, _)) && error.to_string().contains("is not leader"));
}

#[tokio::test]
async fn a_timestamp_is_the_last_of_its_batch_and_echoes_the_count() {
    let granted = TimestampsGranted { physical_ms: 1000, logical: 64, count: 64 };
    let (node, pd) = answering([Outcome::Timestamps(granted)]);
    let answer = pd.tso(pdpb::TsoRequest { count: 64, ..Default::default() }).await.unwrap();
    assert_eq!((answer.header, answer.count), (header(), 64));
    assert_eq!(answer.timestamp.map(|ts| (ts.physical, ts.logical, ts.suffix_bits)), Some((1000, 64, 0)));
    let asked = node.state.lock().placement_requests.remove(0);
    assert_eq!(asked.command, Some(Command::Timestamps(Timestamps { count: 64 })));
}

#[tokio::test]
async fn an_unknown_store_is_an_error_in_the_header() {
    let refusal = Refusal::new(RefusalCode::UnknownStore, "no store 9");
    let (_, pd) = answering([Outcome::Refused(refusal), Outcome::Store(store(2))]);
    let answer = pd.get_store(pdpb::GetStoreRequest { store_id: 9, ..Default::default() }).await.unwrap();
    let error = answer.header.unwrap().error.unwrap();
    assert!(error.message.contains("invalid store ID") && error.message.contains("not found"));
    let answer = pd.get_store(pdpb::GetStoreRequest { store_id: 2, ..Default::default() }).await.unwrap();
    assert_eq!(answer.header, header());
    let found = answer.store.unwrap();
    assert_eq!((found.address.as_str(), found.state, found.node_state), ("host:2", 0, 1));
}

#[tokio::test]
async fn a_region_comes_with_its_leader_and_an_unknown_one_is_absent() {
    let refusal = Refusal::new(RefusalCode::UnknownRegion, "none");
    let mut system = region(Some(peer(1)));
    system.region.system = true;
    let (node, pd) =
        answering([Outcome::Region(region(Some(peer(2)))), Outcome::Refused(refusal), Outcome::Region(system)]);
    let answer = pd.get_region(Default::default()).await.unwrap();
    assert_eq!(answer.leader.unwrap().store_id, 2);
    assert_eq!(answer.region.unwrap().peers.len(), 3);
    assert_eq!(answer.header, header());
    for _ in 0..2 {
        let answer = pd.get_region_by_id(Default::default()).await.unwrap();
        assert_eq!(answer, pdpb::GetRegionResponse { header: header(), ..Default::default() });
    }
    assert_eq!(node.counts().0, 0);
}

/// A placement leader that has just taken over does not know the regions that splits made.
#[tokio::test]
async fn a_region_that_placement_does_not_know_yet_is_that_of_the_replica_here() {
    let unknown = || Outcome::Refused(Refusal::new(RefusalCode::UnknownRegion, "none"));
    let (_, pd) = answering([unknown(), unknown()]);
    let by_key = pdpb::GetRegionRequest { region_key: "a".into(), ..Default::default() };
    let by_id = pdpb::GetRegionByIdRequest { region_id: LEFT, ..Default::default() };
    for answer in [pd.get_region(by_key).await.unwrap(), pd.get_region_by_id(by_id).await.unwrap()] {
        assert_eq!((answer.region.map(|region| region.id), answer.leader.is_some()), (Some(LEFT), true));
    }
}

#[tokio::test]
async fn a_look_up_waits_for_an_election_to_end() {
    // Placement still names the old leader; the replica here knows that there is none.
    let (node, pd) = answering([
        Outcome::Region(region(Some(peer(3)))),
        Outcome::Region(region(None)),
        Outcome::Region(region(Some(peer(2)))),
    ]);
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
    node.state.lock().on_pause = Some(|state| {
        if state.pauses == 2 {
            state.regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 2));
        }
    });
    let answer = pd.get_region(Default::default()).await.unwrap();
    assert_eq!(answer.leader.unwrap().store_id, 2);
    assert_eq!(node.counts().0, 2);
}

/// A region without a leader would stay in a client's cache, where some of its calls find it repeatedly.
#[tokio::test]
async fn a_region_is_never_given_out_without_a_leader() {
    let (node, pd) = answering((0..100).map(|_| Outcome::Region(region(None))));
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
    let error = pd.get_region(Default::default()).await.unwrap_err();
    assert_eq!(error, PdError::NoLeader(LEFT));
    assert!(node.counts().0 > 0, "it waited for one");
}

#[tokio::test]
async fn nobody_is_sent_to_a_dead_leader_while_another_may_be_elected() {
    let dead = || Outcome::Region(region(Some(peer(DEAD))));
    let (node, pd) = answering([dead(), dead(), Outcome::Region(region(Some(peer(2))))]);
    let answer = pd.get_region(Default::default()).await.unwrap();
    assert_eq!((answer.leader.unwrap().store_id, node.counts().0), (2, 2));
    // It may be unreachable from here only.
    let (_, pd) = answering((0..100).map(|_| dead()));
    assert_eq!(pd.get_region(Default::default()).await.unwrap().leader.unwrap().store_id, DEAD);
}

#[tokio::test]
async fn slow_answers_of_placement_use_up_the_patience_of_a_look_up() {
    let (node, pd) = answering((0..100).map(|_| Outcome::Region(region(None))));
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
    node.state.lock().placement_takes = std::time::Duration::from_millis(60);
    assert!(pd.get_region(Default::default()).await.is_err());
    assert_eq!(node.state.lock().placement_requests.len(), 2, "of 100 ms in all");
}

/// A wait that never ends shows that nothing else wakes it.
#[tokio::test]
async fn a_look_up_that_waits_asks_again_when_there_is_news_and_not_before() {
    let (node, _) = answering([Outcome::Region(region(Some(peer(1)))), Outcome::Region(region(Some(peer(2))))]);
    let pause = Arc::new(|_| -> futures::future::BoxFuture<'static, ()> { Box::pin(std::future::pending()) });
    let retry_budget = RetryBudget::new(std::time::Duration::from_secs(1), pause);
    let pd = Pd::new(node.clone(), retry_budget, Arc::new(|_| true));
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = None;
    let mut waiting = std::pin::pin!(pd.get_region(Default::default()));
    for _ in 0..100 {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
    }
    assert_eq!(node.state.lock().placement_requests.len(), 1);
    node.state.lock().regions.get_mut(&RegionId(LEFT)).unwrap().1 = Some(peer_of(LEFT, 2));
    node.state.lock().leader_news.send_replace(());
    let answer = waiting.await.unwrap();
    assert_eq!(answer.leader.unwrap().store_id, 2);
    assert_eq!(node.state.lock().placement_requests.len(), 2);
}

#[tokio::test]
async fn scanned_regions_have_the_old_shape_and_the_new() {
    let (_, pd) = answering([Outcome::Regions(RegionList { regions: vec![region(Some(peer(2)))] })]);
    let answer = pd.scan_regions(pdpb::ScanRegionsRequest { limit: -1, ..Default::default() }).await.unwrap();
    assert_eq!(answer.regions[0].region.as_ref(), answer.region_metas.first());
    assert_eq!(answer.leaders[0].store_id, 2);
}

#[tokio::test]
async fn ids_stores_and_safe_points() {
    let (_, pd) = answering([
        Outcome::Ids(IdsGranted { first: 100, count: 5 }),
        Outcome::Stores(StoreList { stores: vec![store(1), store(2)] }),
        Outcome::SafePoint(SafePoint { safe_point: 9 }),
        Outcome::SafePoint(SafePoint { safe_point: 9 }),
        Outcome::Accepted(placement::Accepted {}),
    ]);
    assert_eq!(pd.alloc_id(pdpb::AllocIdRequest { count: 5, ..Default::default() }).await.unwrap().id, 104);
    let stores = pd.get_all_stores(Default::default()).await.unwrap().stores;
    assert_eq!(stores.iter().map(|store| store.id).collect::<Vec<_>>(), [1, 2]);
    let reported = (stores[0].version.as_str(), stores[0].program_version.as_str(), stores[0].silent_ms);
    assert_eq!(reported, ("8.5.0", "0.1.0", 21_000), "clients get the protocol version, tools the program's version");
    let update = pdpb::UpdateGcSafePointRequest { safe_point: 7, ..Default::default() };
    assert_eq!(pd.update_gc_safe_point(update).await.unwrap().new_safe_point, 9);
    assert_eq!(pd.get_gc_safe_point(Default::default()).await.unwrap().safe_point, 9);
    assert!(matches!(pd.get_gc_safe_point(Default::default()).await, Err(PdError::Internal(_))));
    assert_eq!(pd.get_cluster_info(Default::default()).await.unwrap().service_modes, [1]);
}
