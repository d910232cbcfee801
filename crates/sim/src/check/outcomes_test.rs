use super::super::records::Commits;
use super::super::snapshot_isolation::{End, Transaction};
use super::settle;
use bytes::Bytes;

fn transaction(start_ts: u64, commit_ts: Option<u64>, end: End) -> Transaction {
    let value = Some(Bytes::from_static(b"v"));
    let writes = vec![(Bytes::from_static(b"a"), value), (Bytes::from_static(b"b"), None)];
    Transaction { commit_ts, end, writes, ..Transaction::begun(1, start_ts, start_ts) }
}

fn on_record(commits: &[(&'static str, u64)]) -> Commits {
    commits.iter().map(|(key, commit_ts)| ((Bytes::from(*key), 5), *commit_ts)).collect()
}

#[test]
fn what_clients_report_is_on_record() {
    for (end, reported, commits, is_right) in [
        (End::Committed, Some(7), &[("a", 7), ("b", 7)][..], true),
        (End::Committed, Some(7), &[("a", 8), ("b", 8)], false),
        (End::Committed, Some(7), &[], false),
        (End::Committed, Some(7), &[("a", 7)], false),
        (End::Aborted, None, &[], true),
        (End::Aborted, None, &[("a", 7), ("b", 7)], false),
        (End::Unknown, None, &[("a", 7), ("b", 8)], false),
        (End::Unknown, None, &[("b", 8)], false),
    ] {
        let outcome = settle(&mut [transaction(5, reported, end)], &on_record(commits));
        assert_eq!(outcome.is_ok(), is_right, "{end:?} {reported:?} {commits:?}");
    }
}

#[test]
fn an_unknown_outcome_is_learned() {
    let mut transactions = [transaction(5, None, End::Unknown), transaction(6, Some(9), End::Unknown)];
    settle(&mut transactions, &on_record(&[("a", 7), ("b", 7)])).unwrap();
    assert_eq!((transactions[0].commit_ts, transactions[1].commit_ts), (Some(7), None));
}
