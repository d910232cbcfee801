use super::*;
use crate::region::{PeerId, StoreId};

fn follower(region: u64, bytes: u64, needs_snapshot: bool) -> FollowerLag {
    let (region, peer, store) = (RegionId(region), PeerId(region), StoreId(2));
    FollowerLag { region, peer, store, entries: bytes / 10, bytes, needs_snapshot }
}

#[test]
fn the_worst_are_named_and_all_are_counted() {
    let mut all = StoreLag::default();
    for bytes in [30, 0, 900, 10, 70, 50, 20, 800] {
        all.add_follower(follower(bytes, bytes, false), 500);
    }
    all.add_follower(follower(5, 0, true), 500);
    assert_eq!((all.follower_bytes, all.follower_bytes_max), (1880, 900));
    assert_eq!((all.follower_entries, all.follower_entries_max), (188, 90));
    let regions = |lags: &[FollowerLag]| lags.iter().map(|lag| lag.region.0).collect::<Vec<_>>();
    assert_eq!(regions(&all.worst), [5, 900, 800, 70, 50], "one that needs a snapshot comes first");
    assert_eq!(regions(&all.beyond), [900, 800, 5]);
}

#[test]
fn a_follower_that_has_everything_is_not_named() {
    let mut all = StoreLag::default();
    all.add_follower(follower(1, 0, false), 0);
    assert_eq!(all, StoreLag::default());
}

#[test]
fn the_largest_logs_are_named_in_order() {
    let mut all = StoreLag::default();
    for (region, log_bytes) in [(1, 5), (2, 9), (3, 5), (4, 0), (5, 7), (6, 8), (7, 1)] {
        let lag = ReplicaLag { region: RegionId(region), log_bytes, log_entries: 2, ..ReplicaLag::default() };
        all.add_replica(&lag);
    }
    assert_eq!(all.largest, [(RegionId(2), 9), (RegionId(6), 8), (RegionId(5), 7), (RegionId(1), 5), (RegionId(3), 5)]);
    assert_eq!((all.log_entries, all.log_bytes_max), (14, 9));
}
