//! The placement service over a node with prepared placement answers.

use super::*;
use crate::kv::fake::{CLUSTER, FakeNode};
use kontiki_placement::{
    GcBarrierChanged, GcPoints, IdsGranted, Response, SafePoint, SafePointMoved, ServiceSafePoint, Store, StoreList,
    TimestampsGranted,
};
use kontiki_raftstore::StoreId;
use std::sync::Arc;

/// A store that does not answer.
pub(super) const DEAD: u64 = 9;

pub(super) fn answering(outcomes: impl IntoIterator<Item = Outcome>) -> (FakeNode, Pd<FakeNode>) {
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

pub(super) fn header() -> Option<pdpb::ResponseHeader> {
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
async fn the_configuration_of_the_cluster_counts_the_replicas() {
    let members = vec![store(1), store(2), store(3)];
    let (_, pd) = answering([Outcome::Cluster(ClusterInfo { members, ..Default::default() })]);
    let answer = pd.get_cluster_config(Default::default()).await.unwrap();
    assert_eq!(answer.header, header());
    assert_eq!(answer.cluster, Some(metapb::Cluster { id: CLUSTER, max_peer_count: 3 }));
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
async fn safe_points_and_barriers_are_passed_on() {
    let barrier = placement::GcBarrier { name: "backup".into(), ts: 7, ttl_seconds: 60 };
    let points = GcPoints { gc_safe_point: 5, txn_safe_point: 6, barriers: vec![barrier.clone()] };
    let (node, pd) = answering([
        Outcome::GcPoints(points.clone()),
        Outcome::GcPoints(points.clone()),
        Outcome::GcPoints(points),
        Outcome::SafePointMoved(SafePointMoved { old: 1, new: 7, blocker: "backup".into() }),
        Outcome::SafePointMoved(SafePointMoved { old: 5, new: 6, blocker: String::new() }),
        Outcome::ServiceSafePoint(ServiceSafePoint { service: "x".into(), ttl_seconds: 9, min_safe_point: 6 }),
        Outcome::GcBarrier(GcBarrierChanged { barrier: Some(barrier) }),
        Outcome::GcBarrier(GcBarrierChanged { barrier: None }),
    ]);
    let state = pd.get_gc_state(Default::default()).await.unwrap().gc_state.unwrap();
    assert_eq!((state.gc_safe_point, state.txn_safe_point, state.is_keyspace_level_gc), (5, 6, false));
    assert_eq!(state.keyspace_scope.unwrap().keyspace_id, u32::MAX);
    let info = pdpb::GcBarrierInfo { barrier_id: "backup".into(), barrier_ts: 7, ttl_seconds: 60 };
    assert_eq!(state.gc_barriers, std::slice::from_ref(&info));
    let without = pdpb::GetGcStateRequest { exclude_gc_barriers: true, ..Default::default() };
    assert_eq!(pd.get_gc_state(without).await.unwrap().gc_state.unwrap().gc_barriers, []);
    assert_eq!(pd.get_all_keyspaces_gc_states(Default::default()).await.unwrap().gc_states.len(), 1);
    let advance = pdpb::AdvanceTxnSafePointRequest { target: 9, ..Default::default() };
    let moved = pd.advance_txn_safe_point(advance).await.unwrap();
    assert_eq!((moved.old_txn_safe_point, moved.new_txn_safe_point), (1, 7));
    assert_eq!(moved.blocker_description, "backup");
    let advance = pdpb::AdvanceGcSafePointRequest { target: 6, ..Default::default() };
    let moved = pd.advance_gc_safe_point(advance).await.unwrap();
    assert_eq!((moved.old_gc_safe_point, moved.new_gc_safe_point), (5, 6));
    let service =
        pdpb::UpdateServiceGcSafePointRequest { service_id: "x".into(), ttl: 9, safe_point: 6, ..Default::default() };
    let lowest = pd.update_service_gc_safe_point(service).await.unwrap();
    assert_eq!((&lowest.service_id[..], lowest.ttl, lowest.min_safe_point), (&b"x"[..], 9, 6));
    let set = pdpb::SetGcBarrierRequest { barrier_id: "backup".into(), barrier_ts: 7, ..Default::default() };
    assert_eq!(pd.set_gc_barrier(set).await.unwrap().new_barrier_info, Some(info));
    assert_eq!(pd.delete_gc_barrier(Default::default()).await.unwrap().deleted_barrier_info, None);
    let asked = node.state.lock().placement_requests.remove(3).command;
    assert_eq!(asked, Some(Command::AdvanceTxnSafePoint(placement::AdvanceSafePoint { target: 9 })));
    let wrong = pdpb::UpdateServiceGcSafePointRequest { service_id: vec![0xff].into(), ..Default::default() };
    assert!(matches!(pd.update_service_gc_safe_point(wrong).await, Err(PdError::Invalid(_))));
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
