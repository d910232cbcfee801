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
        space: Space::Data,
    };
    let regions = vec![RegionStatus {
        region: Arc::new(region),
        leader,
        leading_term: leader.map(|_| 6),
        applied_index: Some(9),
    }];
    NodeStatus { cluster_id: 7, store_id: StoreId(1), regions, disk_full: false, stopped: None }
}

#[test]
fn a_node_is_ready_when_its_regions_have_leaders() {
    let leader = Peer { id: PeerId(2001), store: StoreId(1) };
    assert_eq!(not_ready(&node(Some(leader))), None);
    assert!(not_ready(&node(None)).is_some_and(|why| why.contains("region 2")));
    let stopped = NodeStatus { stopped: Some("disk".into()), ..node(Some(leader)) };
    assert!(not_ready(&stopped).is_some_and(|why| why.contains("disk")));
    let empty = NodeStatus { regions: Vec::new(), ..node(None) };
    assert!(not_ready(&empty).is_some());
}

#[test]
fn the_description_names_regions_and_leaders() {
    let leader = Peer { id: PeerId(2001), store: StoreId(1) };
    let json = describe(&node(Some(leader)), &Stats::default(), "h:1");
    assert_eq!(json["store_id"], 1);
    assert_eq!(json["ready"], true);
    assert_eq!(json["regions"][0]["end_key"], "6dff");
    assert_eq!(json["regions"][0]["leader_store"], 1);
    assert_eq!(json["regions"][0]["leading_term"], 6);
    assert_eq!(json["regions"][0]["applied_index"], 9);
    assert_eq!(json["engine"]["log"]["used_bytes"], 0);
    assert_eq!(json["engine"]["health"]["stopped"], 0);
}
