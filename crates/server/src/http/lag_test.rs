use super::*;
use kontiki_raftstore::{FollowerLag, PeerId, RegionId, StoreId, StoreLag};
use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Debug)]
struct Fixed(LagReport);

impl Collector for Fixed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode(&mut encoder, &self.0)
    }
}

fn report(lagging: u64) -> LagReport {
    let of = |region: u64| FollowerLag {
        region: RegionId(region),
        peer: PeerId(region * 10),
        store: StoreId(3),
        entries: 7,
        bytes: 1000 - region,
        needs_snapshot: region == 1,
    };
    let lagging: Vec<Lagging> =
        (1..=lagging).map(|region| Lagging { follower: of(region), since: Duration::from_secs(90) }).collect();
    let all = StoreLag { follower_bytes: 5000, largest: vec![(RegionId(9), 77)], ..StoreLag::default() };
    LagReport { all, lagging, lagging_count: 400, replay_bytes_max: 1 << 30 }
}

fn text(report: LagReport) -> String {
    let mut registry = Registry::with_prefix("kontiki");
    registry.register_collector(Box::new(Fixed(report)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoded");
    text
}

#[test]
fn the_worst_followers_have_series_and_the_others_are_in_the_sums() {
    let text = text(report(2));
    for line in [
        "kontiki_raft_follower_lag_bytes 5000",
        "kontiki_raft_followers_lagging 400",
        "kontiki_raft_lagging_follower_bytes{region=\"1\",store=\"3\"} 999",
        "kontiki_raft_lagging_follower_bytes{region=\"2\",store=\"3\"} 998",
        "kontiki_raft_replay_bytes_max 1073741824",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert_eq!(text.matches("region=").count(), 2);
}

#[test]
fn a_node_without_lag_has_no_series_of_regions() {
    assert!(!text(report(0)).contains("region="));
}

#[test]
fn the_status_names_who_lags() {
    let json = describe(&report(1));
    assert_eq!((json["followers_lagging"].as_u64(), json["lagging"][0]["seconds"].as_u64()), (Some(400), Some(90)));
    assert_eq!((json["lagging"][0]["store"].as_u64(), json["largest"][0]["region"].as_u64()), (Some(3), Some(9)));
    assert_eq!(json["lagging"][0]["needs_snapshot"], true);
}
