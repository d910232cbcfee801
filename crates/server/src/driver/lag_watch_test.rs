use super::*;
use kontiki_raftstore::PeerId;

fn follower(region: u64, store: u64, bytes: u64) -> FollowerLag {
    let (region, store, peer) = (RegionId(region), StoreId(store), PeerId(region * 10 + store));
    FollowerLag { region, peer, store, entries: 1, bytes, needs_snapshot: false }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_follower_that_lags_only_for_a_while_is_not_warned_of() {
    let mut watch = LagWatch::new(seconds(60));
    let lags = [follower(1, 2, 9)];
    for now in (0..60).chain(61..120) {
        // It catches up once in between.
        let (lagging, warning) = watch.see(if now == 61 { &[] } else { &lags }, seconds(now));
        assert_eq!((lagging.len(), warning), (usize::from(now != 61), None), "at {now} s");
    }
}

#[test]
fn the_worst_of_those_that_have_lagged_for_long_is_warned_of_and_the_others_are_counted() {
    let mut watch = LagWatch::new(seconds(60));
    let [first, second, late] = [follower(1, 2, 9), follower(2, 3, 5), follower(3, 2, 100)];
    watch.see(&[first, second], seconds(0));
    let (lagging, warning) = watch.see(&[late, first, second], seconds(60));
    let warning = warning.expect("for a minute");
    assert_eq!((warning.worst.follower, warning.worst.since, warning.count), (first, seconds(60), 2));
    assert_eq!(lagging.iter().map(|lagging| lagging.since).collect::<Vec<_>>(), [seconds(0), seconds(60), seconds(60)]);
}

#[test]
fn warnings_become_rare_while_followers_lag_and_begin_again_after_that() {
    let mut watch = LagWatch::new(seconds(60));
    let lags = [follower(1, 2, 9)];
    let mut warned = |range: std::ops::Range<u64>| -> Vec<u64> {
        range.filter(|now| watch.see(&lags, seconds(*now)).1.is_some()).collect()
    };
    assert_eq!(warned(0..1_000), [60, 120, 240, 480, 960]);
    let in_a_day = warned(1_000..86_400).len();
    assert!((23..=26).contains(&in_a_day), "{in_a_day}: one each hour");
    watch.see(&[], seconds(86_400));
    let again: Vec<u64> = (86_401..86_500).filter(|now| watch.see(&lags, seconds(*now)).1.is_some()).collect();
    assert_eq!(again, [86_461]);
}
