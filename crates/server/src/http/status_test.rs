use super::*;
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, StoreId};
use std::sync::Arc;

fn node(leader: Option<Peer>) -> NodeStatus {
    let region = Region {
        id: RegionId(2),
        start_key: "".into(),
        end_key: vec![0x6d, 0xff].into(),
        epoch: Epoch { conf_version: 1, version: 3 },
        peers: vec![Peer { id: PeerId(2001), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    };
    let regions = vec![RegionStatus {
        region: Arc::new(region),
        leader,
        leading_term: leader.map(|_| 6),
        applied_index: Some(9),
        refusal: None,
    }];
    let membership = MembershipState::Member;
    NodeStatus {
        cluster_id: 7,
        store_id: StoreId(1),
        regions,
        membership,
        replaces_lost_directory: false,
        missing: vec![],
        is_spare: false,
        peer_failures: Default::default(),
        snapshots: SnapshotsStatus::default(),
        raft_log: Default::default(),
        state_engine: Default::default(),
        disk_full: false,
        log_is_slow: false,
        stops_leading: false,
        recovery: Recovery::default(),
        damage: None,
        stopped: None,
    }
}

#[test]
fn a_node_is_ready_when_its_regions_have_leaders() {
    let leader = Peer { id: PeerId(2001), store: StoreId(1) };
    assert_eq!(not_ready(&node(Some(leader))), None);
    assert!(not_ready(&node(None)).is_some_and(|why| why.contains("region 2")));
    let stopped = NodeStatus { stopped: Some("disk".into()), ..node(Some(leader)) };
    assert!(not_ready(&stopped).is_some_and(|why| why.contains("disk")));
    let stops = NodeStatus { stops_leading: true, ..node(Some(leader)) };
    assert!(not_ready(&stops).is_some_and(|why| why.contains("about to end")));
    let damaged = NodeStatus { damage: Some("block 7".into()), ..node(Some(leader)) };
    assert!(not_ready(&damaged).is_some_and(|why| why.contains("block 7") && why.contains("replace-a-disk")));
    let empty = NodeStatus { regions: Vec::new(), ..node(None) };
    assert!(not_ready(&empty).is_some());
    assert_eq!(not_ready(&NodeStatus { is_spare: true, ..empty }), None, "no region belongs there");
    let full = NodeStatus { disk_full: true, ..node(Some(leader)) };
    assert!(not_ready(&full).is_some_and(|why| why.contains("disk is full") && why.contains("Free some space")));
}

/// A wrong cluster id, or a typo in the list: the reason is known to the connections.
#[test]
fn a_node_that_waits_for_others_says_why_it_does_not_reach_them() {
    let refused = "h:2: meant for cluster 5, this is cluster 7";
    let peer_failures = [(StoreId(2), refused.to_owned()), (StoreId(3), "h:3: refused".to_owned())].into();
    let base = NodeStatus { peer_failures, ..node(None) };
    let why = not_ready(&base).expect("no leader");
    assert!(why.contains(refused) && why.contains("store 3 at h:3"), "{why}");
    let membership = MembershipState::Forming { waiting_for: vec![StoreId(2)] };
    let why = not_ready(&NodeStatus { membership, ..base.clone() }).expect("not formed");
    assert!(why.contains(refused) && !why.contains("h:3"), "{why}");
    let confirming = NodeStatus { membership: MembershipState::Confirming, ..base };
    assert!(not_ready(&confirming).is_some_and(|why| why.contains(refused)));
}

#[test]
fn a_node_that_takes_no_part_or_cannot_follow_is_not_ready_and_says_why() {
    let good = node(Some(Peer { id: PeerId(2001), store: StoreId(1) }));
    for (membership, word) in [
        (MembershipState::Forming { waiting_for: vec![StoreId(3)] }, "not heard from: 3"),
        (MembershipState::Confirming, "older copy"),
        (MembershipState::Replaced { reported_by: StoreId(2) }, "store 2 knows another directory"),
    ] {
        let status = NodeStatus { membership, ..good.clone() };
        let why = not_ready(&status).expect("not ready");
        assert!(why.contains(word), "{why}");
        assert_eq!(describe(&status, &StateStats::default(), "h:1")["not_ready"], why);
    }
    let membership = MembershipState::Replaced { reported_by: StoreId(2) };
    let requested = NodeStatus { membership, replaces_lost_directory: true, ..good.clone() };
    let why = not_ready(&requested).expect("not ready");
    assert!(why.contains("as requested") && !why.contains("--replace-lost-directory"), "{why}");
    let mut stuck = good;
    let at = std::time::Duration::from_secs(1);
    stuck.regions[0].refusal = Some(Refusal { from: StoreId(3), why: "its log lost some", at, count: 4 });
    assert_eq!(not_ready(&stuck).unwrap(), "region 2 refuses messages of store 3: its log lost some");
    let json = describe(&stuck, &StateStats::default(), "h:1");
    assert_eq!((json["regions"][0]["refusal"]["count"].as_u64(), json["ready"].as_bool()), (Some(4), Some(false)));
}

#[test]
fn the_description_names_regions_and_leaders() {
    let leader = Peer { id: PeerId(2001), store: StoreId(1) };
    let engine = StateStats { built_in: Some(Box::default()), ..StateStats::default() };
    let json = describe(&node(Some(leader)), &engine, "h:1");
    assert_eq!(json["state_engine"], "built-in");
    assert_eq!(json["store_id"], 1);
    assert_eq!(json["ready"], true);
    assert_eq!(json["regions"][0]["end_key"], "6dff");
    assert_eq!(json["regions"][0]["leader_store"], 1);
    assert_eq!(json["regions"][0]["leading_term"], 6);
    assert_eq!(json["regions"][0]["applied_index"], 9);
    assert_eq!(json["engine"]["log"]["used_bytes"], 0);
    assert_eq!(json["engine"]["health"]["stopped"], 0);
}
