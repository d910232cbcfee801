use super::*;
use tonic::Code;

fn outcome(checksum: Option<u64>, agreeing: &[u64], differing: &[u64], missing: &[u64]) -> CheckOutcome {
    let stores = |ids: &[u64]| ids.iter().copied().map(StoreId).collect();
    CheckOutcome { checksum, agreeing: stores(agreeing), differing: stores(differing), missing: stores(missing) }
}

#[test]
fn only_replicas_that_were_all_compared_and_are_equal_are_no_error() {
    assert!(check_equal(&outcome(Some(7), &[1, 2, 3], &[], &[])).is_ok());
    let cases = [
        (outcome(Some(7), &[1, 3], &[2], &[]), Code::DataLoss, "store 2 differs from those of stores 1, 3"),
        (outcome(None, &[], &[1, 2], &[3]), Code::DataLoss, "stores 1, 2 differ, and no majority"),
        (outcome(Some(7), &[1, 2], &[], &[3]), Code::Unavailable, "store 3 gave no result"),
        (outcome(None, &[1], &[], &[2, 3]), Code::Unavailable, "store 2, 3 gave no result"),
    ];
    for (outcome, code, text) in cases {
        let status = check_equal(&outcome).expect_err("an error");
        assert_eq!(status.code(), code, "{outcome:?}");
        assert!(status.message().contains(text), "{}", status.message());
    }
}

#[test]
fn a_refusal_says_what_can_be_done() {
    let (region, leader) = (RegionId(5), None);
    let code = |error: NodeError| refused(error, &[]).code();
    assert_eq!(code(RegionError::RegionNotFound { region }.into()), Code::NotFound);
    assert_eq!(code(RegionError::NotLeader { region, leader }.into()), Code::FailedPrecondition);
    assert_eq!(code(NodeError::Busy("too many requests")), Code::Unavailable);
    let impossible = || NodeError::Region(RegionError::Impossible { region, why: "a store does not answer" });
    assert!(refused(impossible(), &[]).message().contains("a store does not answer"));
    let named = refused(impossible(), &[(StoreId(3), "h:3: connection refused".into())]);
    assert!(named.message().contains("store 3 does not answer (h:3: connection refused)"), "{named}");
}

#[test]
fn the_logs_are_described_by_their_sums_and_who_lags() {
    let follower = FollowerLag {
        region: RegionId(5),
        peer: kontiki_raftstore::PeerId(53),
        store: StoreId(3),
        entries: 9,
        bytes: 900,
        needs_snapshot: true,
    };
    let since = std::time::Duration::from_secs(70);
    let lag = crate::driver::LagReport {
        lagging: vec![Lagging { follower, since }],
        lagging_count: 4,
        replay_bytes_max: 100,
        ..Default::default()
    };
    let described = describe_logs(&RaftLogs { lag: lag.into(), bytes: 7, replay_bytes: 20 });
    let named = FollowerLog { region_id: 5, store_id: 3, entries: 9, bytes: 900, needs_snapshot: true, seconds: 70 };
    assert_eq!((described.followers_lagging, &described.lagging[..]), (4, &[named][..]));
    assert_eq!((described.bytes, described.replay_bytes, described.replay_bytes_max), (7, 20, 100));
    let replica = replica_log(&ReplicaLag { region: RegionId(5), followers: vec![follower], ..Default::default() });
    assert_eq!(replica.followers, [FollowerLog { seconds: 0, ..named }]);
}
