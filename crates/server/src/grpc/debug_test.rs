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
