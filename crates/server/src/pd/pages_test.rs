use super::super::tests::answering;
use super::*;
use kontiki_placement::{ClusterInfo, Epoch, Refusal, RefusalCode, Region, RegionList, Store, StoreList, StoreStats};

fn info(id: u64, start: &'static str, end: &'static str) -> RegionInfo {
    let peer = |store_id| Peer { id: id * 1000 + store_id, store_id, role: if store_id == 3 { 1 } else { 0 } };
    let region = Region {
        id,
        start_key: start.into(),
        end_key: end.into(),
        epoch: Epoch { conf_ver: 2, version: 3 },
        peers: [1, 2, 3].map(peer).to_vec(),
        system: false,
    };
    RegionInfo {
        region,
        leader: Some(peer(1)),
        approximate_bytes: 96 << 20,
        approximate_keys: 7,
        pending_peers: vec![peer(3)],
        ..Default::default()
    }
}

fn store(id: u64, silent_ms: u64) -> StoreInfo {
    let stats = StoreStats {
        capacity_bytes: 1 << 40,
        used_bytes: 1 << 30,
        available_bytes: 3 << 29,
        region_count: 5,
        leader_count: 2,
    };
    let store = Store { id, address: format!("host:{id}"), ..Default::default() };
    StoreInfo { store, stats: Some(stats), silent_ms: Some(silent_ms) }
}

#[tokio::test]
async fn regions_are_counted_over_all_answers_of_placement() {
    let list = |regions: Vec<RegionInfo>| Outcome::Regions(RegionList { regions });
    // Ids that no replica here has, as on a node of a large cluster.
    let (node, pd) = answering([list(vec![info(50, "", "k"), info(51, "k", "")])]);
    node.state.lock().regions.clear();
    let page: Value = serde_json::from_slice(&pd.regions_page().await.unwrap()).unwrap();
    assert_eq!(page["count"], 2);
    let first = &page["regions"][0];
    assert_eq!((&first["id"], &first["start_key"], &first["end_key"]), (&json!(50), &json!(""), &json!("6B")));
    assert_eq!(first["epoch"], json!({ "conf_ver": 2, "version": 3 }));
    assert_eq!(first["leader"], json!({ "role_name": "Voter", "id": 50_001, "store_id": 1 }));
    assert_eq!(first["peers"][2], json!({ "role_name": "Learner", "id": 50_003, "store_id": 3 }));
    assert_eq!((&first["approximate_size"], &first["approximate_keys"]), (&json!(96), &json!(7)));
    assert_eq!(first["pending_peers"][0]["id"], 50_003);
    assert!(first.get("down_peers").is_none());
}

#[tokio::test]
async fn one_page_of_regions_exists_at_a_time() {
    let list = || Outcome::Regions(RegionList { regions: vec![info(50, "", "")] });
    let (node, pd) = answering([list(), list()]);
    node.state.lock().regions.clear();
    let first = pd.regions_page().await.unwrap();
    let part_that_is_being_sent = first.slice(1..2);
    drop(first);
    assert!(matches!(pd.clone().regions_page().await, Err(PageError::Busy(_))));
    assert_eq!(node.state.lock().placement_requests.len(), 1, "nothing was fetched");
    drop(part_that_is_being_sent);
    assert!(pd.regions_page().await.is_ok());
    assert!(matches!(pd.regions_page().await, Err(PageError::Pd(_))), "placement does not answer");
    assert!(matches!(pd.regions_page().await, Err(PageError::Pd(_))), "a failure frees the place");
}

#[tokio::test]
async fn no_region_beyond_the_bound_is_fetched() {
    let list = |regions| Outcome::Regions(RegionList { regions });
    let first = list(vec![info(50, "", "k"), info(51, "k", "m")]);
    let (node, pd) = answering([first, list(vec![info(52, "m", "")])]);
    node.state.lock().regions.clear();
    assert!(matches!(pd.regions_text(2).await, Err(PageError::TooLarge(_))));
    let limit = |request: kontiki_placement::Request| match request.command {
        Some(Command::ScanRegions(scan)) => scan.limit,
        other => panic!("{other:?}"),
    };
    let limits: Vec<u32> = node.state.lock().placement_requests.drain(..).map(limit).collect();
    assert_eq!(limits, [2]);
}

#[tokio::test]
async fn a_region_by_its_id_and_none() {
    let mut system = info(1, "", "");
    system.region.system = true;
    let unknown = Outcome::Refused(Refusal::new(RefusalCode::UnknownRegion, "none"));
    let (_, pd) = answering([Outcome::Region(info(50, "a", "b")), unknown, Outcome::Region(system)]);
    assert_eq!(pd.region_page(50).await.unwrap()["end_key"], "62");
    for _ in 0..2 {
        assert_eq!(pd.region_page(1).await, Err(PageError::NotFound("region 1 not found".into())));
    }
}

#[tokio::test]
async fn stores_have_sizes_with_units() {
    let unknown = Outcome::Refused(Refusal::new(RefusalCode::UnknownStore, "invalid store ID 9, not found"));
    let (_, pd) = answering([
        Outcome::Stores(StoreList { stores: vec![store(1, 10), store(2, 10)] }),
        Outcome::Store(store(2, 10)),
        unknown,
    ]);
    let page = pd.stores_page().await.unwrap();
    assert_eq!(page["count"], 2);
    let one = &page["stores"][0];
    assert_eq!((&one["store"]["address"], &one["store"]["state_name"]), (&json!("host:1"), &json!("Up")));
    assert_eq!((&one["status"]["capacity"], &one["status"]["available"]), (&json!("1TiB"), &json!("1.5GiB")));
    assert_eq!(pd.store_page(2).await.unwrap(), page["stores"][1]);
    assert!(matches!(pd.store_page(9).await, Err(PageError::NotFound(_))));
}

#[tokio::test]
async fn members_health_and_version() {
    let cluster = || {
        let members = vec![store(1, 10), store(2, SILENCE_MS_MAX + 1)];
        Outcome::Cluster(ClusterInfo { leader_store_id: 2, members, ..Default::default() })
    };
    let (_, pd) = answering([cluster(), cluster()]);
    let page = pd.members_page().await.unwrap();
    assert_ne!(page["header"]["cluster_id"], 0);
    assert_eq!((&page["leader"], &page["etcd_leader"]), (&page["members"][1], &page["members"][1]));
    assert_eq!(page["members"][0]["client_urls"], json!(["http://host:1"]));
    let health = pd.health_page().await.unwrap();
    assert_eq!((&health[0]["health"], &health[1]["health"]), (&json!(true), &json!(false)));
    assert_eq!(pd.version_page()["version"], "v8.5.0");
    assert!(matches!(pd.members_page().await, Err(PageError::Pd(PdError::Unavailable(..)))));
}

#[test]
fn sizes_have_four_digits_at_most() {
    for (bytes, text) in [
        (0, "0B"),
        (1_023, "1023B"),
        (1_024, "1KiB"),
        (1_536, "1.5KiB"),
        (2_097_152_000, "1.953GiB"),
        (123 << 20, "123MiB"),
        (u64::MAX, "16EiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
}
