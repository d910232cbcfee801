//! Look-ups of regions over a node with prepared placement answers.

use super::super::tests::{DEAD, answering, header};
use super::*;
use crate::api::RetryBudget;
use crate::kv::fake::{LEFT, RIGHT, SPLIT, peer_of};
use kontiki_placement::{Epoch, Refusal, RegionList};
use kontiki_txn::memcomparable_encode;
use std::sync::Arc;

fn peer(store_id: u64) -> placement::Peer {
    placement::Peer { id: LEFT * 1000 + store_id, store_id, role: 0 }
}

fn region(leader: Option<placement::Peer>) -> RegionInfo {
    let region = placement::Region {
        id: LEFT,
        end_key: split_key(),
        epoch: Epoch { conf_ver: 1, version: 5 },
        peers: vec![peer(1), peer(2), peer(3)],
        ..Default::default()
    };
    RegionInfo { region, leader, ..Default::default() }
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

fn unknown() -> Outcome {
    Outcome::Refused(Refusal::new(RefusalCode::UnknownRegion, "none"))
}

/// The region behind the split key, as placement knows it.
fn right() -> RegionInfo {
    let RegionInfo { region: left, leader, .. } = region(Some(peer(1)));
    let region = placement::Region { id: RIGHT, start_key: split_key(), end_key: Bytes::new(), ..left };
    RegionInfo { region, leader, ..Default::default() }
}

fn split_key() -> Bytes {
    memcomparable_encode(SPLIT).into()
}

fn request(key: impl Into<Bytes>) -> pdpb::GetRegionRequest {
    pdpb::GetRegionRequest { region_key: key.into(), ..Default::default() }
}

fn id_of(answer: pdpb::GetRegionResponse) -> Option<u64> {
    assert_eq!(answer.leader.is_some(), answer.region.is_some());
    answer.region.map(|region| region.id)
}

#[tokio::test]
async fn the_region_before_one_that_placement_does_not_know_yet_is_that_of_the_replica_here() {
    let before_z = |outcomes: Vec<Outcome>| async move {
        let (node, pd) = answering(outcomes);
        (id_of(pd.get_prev_region(request("z")).await.unwrap()), node.counts().0)
    };
    // It knows the region of the key, or not even that.
    assert_eq!(before_z(vec![unknown(), Outcome::Region(right())]).await, (Some(LEFT), 0));
    assert_eq!(before_z(vec![unknown(), unknown()]).await, (Some(LEFT), 0));
}

#[tokio::test]
async fn there_is_no_region_before_the_first() {
    for known in [Outcome::Region(region(Some(peer(1)))), unknown()] {
        let (node, pd) = answering([unknown(), known]);
        assert_eq!(id_of(pd.get_prev_region(request("a")).await.unwrap()), None);
        assert_eq!(node.counts().0, 0, "that is known at once");
    }
}

/// As on a node of a large cluster.
#[tokio::test]
async fn a_region_without_a_replica_here_is_waited_for_until_its_leader_reports_it() {
    let (node, pd) = answering([unknown(), unknown(), Outcome::Region(region(Some(peer(2))))]);
    node.state.lock().regions.clear();
    assert_eq!(id_of(pd.get_region(request("a")).await.unwrap()), Some(LEFT));
    assert_eq!(node.counts().0, 2);
    let (node, pd) = answering((0..100).map(|_| unknown()));
    node.state.lock().regions.clear();
    assert_eq!(pd.get_region(request("a")).await.unwrap_err(), PdError::Unreported);
    assert!(node.counts().0 > 0, "it waited");
    assert_eq!(pd.get_prev_region(request("a")).await.unwrap_err(), PdError::Unreported);
    assert_eq!(id_of(pd.get_region_by_id(Default::default()).await.unwrap()), None, "there may be none");
}

#[tokio::test]
async fn gaps_between_scanned_regions_are_filled_from_the_replicas_here() {
    let all = |limit: i32| pdpb::ScanRegionsRequest { limit, ..Default::default() };
    let ids = |answer: pdpb::ScanRegionsResponse| {
        assert!(answer.leaders.iter().all(|leader| leader.id != 0));
        answer.region_metas.into_iter().map(|region| region.id).collect::<Vec<_>>()
    };
    let left = || region(Some(peer(1)));
    let list = |regions: Vec<RegionInfo>| Outcome::Regions(RegionList { regions });
    for known in [vec![], vec![left()], vec![right()], vec![left(), right()]] {
        let (_, pd) = answering([list(known)]);
        assert_eq!(ids(pd.scan_regions(all(-1)).await.unwrap()), [LEFT, RIGHT]);
    }
    let (_, pd) = answering([list(vec![right()])]);
    assert_eq!(ids(pd.scan_regions(all(1)).await.unwrap()), [LEFT], "the limit holds for all");
    let (_, pd) = answering([list(vec![])]);
    let first = pdpb::ScanRegionsRequest { end_key: split_key(), ..Default::default() };
    assert_eq!(ids(pd.scan_regions(first).await.unwrap()), [LEFT], "and so does the range");
}

#[tokio::test]
async fn a_scan_of_regions_never_leaves_out_keys() {
    let list = |regions: Vec<RegionInfo>| Outcome::Regions(RegionList { regions });
    let left = || region(Some(peer(1)));
    // A replica here that has not been split yet does not fill the gap: it overlaps what is known.
    let whole = |node: &crate::kv::fake::FakeNode| {
        let mut state = node.state.lock();
        let mut before = (*state.regions[&RegionId(LEFT)].0).clone();
        before.end_key = Bytes::new();
        state.regions.remove(&RegionId(RIGHT));
        state.regions.get_mut(&RegionId(LEFT)).unwrap().0 = Arc::new(before);
    };
    let (node, pd) = answering([list(vec![right()]), list(vec![right()]), list(vec![left(), right()])]);
    whole(&node);
    let answer = pd.scan_regions(Default::default()).await.unwrap();
    assert_eq!((answer.regions.len(), node.counts().0), (2, 2), "it waits for the report");
    let (node, pd) = answering((0..100).map(|_| list(vec![right()])));
    whole(&node);
    assert_eq!(pd.scan_regions(Default::default()).await.unwrap_err(), PdError::Unreported);
    let behind = pdpb::ScanRegionsRequest { start_key: split_key(), ..Default::default() };
    assert_eq!(pd.scan_regions(behind).await.unwrap().regions.len(), 1, "the gap is before it");
}

#[tokio::test]
async fn regions_of_several_ranges_come_once_and_in_order() {
    let list = |regions: Vec<RegionInfo>| Outcome::Regions(RegionList { regions });
    let left = || region(Some(peer(1)));
    let range =
        |start: &'static str, end: &'static str| pdpb::KeyRange { start_key: start.into(), end_key: end.into() };
    let ask =
        |ranges: Vec<pdpb::KeyRange>, limit| pdpb::BatchScanRegionsRequest { ranges, limit, ..Default::default() };
    let three = || vec![range("a", "b"), range("c", "d"), range("e", "")];
    let (_, pd) = answering([list(vec![left()]), list(vec![left()]), list(vec![left(), right()])]);
    let answer = pd.batch_scan_regions(ask(three(), 0)).await.unwrap();
    assert_eq!(answer.header, header());
    let ids = |regions: &[pdpb::Region]| {
        regions.iter().filter_map(|found| Some(found.region.as_ref()?.id)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&answer.regions), [LEFT, RIGHT]);
    assert!(answer.regions.iter().all(|found| found.leader.is_some()));
    let (node, pd) = answering([list(vec![left()])]);
    assert_eq!(ids(&pd.batch_scan_regions(ask(three(), 1)).await.unwrap().regions), [LEFT]);
    assert_eq!(node.state.lock().placement_requests.len(), 1, "the limit is that of all ranges");
    for wrong in
        [vec![], vec![range("b", "a")], vec![range("a", ""), range("b", "c")], vec![range("c", "d"), range("a", "b")]]
    {
        let (_, pd) = answering([]);
        let refused = pd.batch_scan_regions(ask(wrong, 0)).await;
        assert!(matches!(refused, Err(PdError::Invalid(_))), "{refused:?}");
    }
}

/// Roles cross from replication over placement to the protocol by their numbers.
#[test]
fn the_numbers_of_roles_are_those_of_the_protocol() {
    use kontiki_placement::PeerRole as Placed;
    use kontiki_proto::metapb::PeerRole as Wire;
    use kontiki_raftstore::PeerRole as Replicated;
    for (replicated, placed, wire) in [
        (Replicated::Voter, Placed::Voter, Wire::Voter),
        (Replicated::Learner, Placed::Learner, Wire::Learner),
        (Replicated::IncomingVoter, Placed::IncomingVoter, Wire::IncomingVoter),
        (Replicated::DemotingVoter, Placed::DemotingVoter, Wire::DemotingVoter),
    ] {
        assert_eq!((replicated as i32, placed as i32), (wire as i32, wire as i32), "{replicated:?}");
    }
}
