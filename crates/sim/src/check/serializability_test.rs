use super::super::snapshot_isolation::{End, Transaction};
use super::check;
use bytes::Bytes;

type Pairs<'a> = &'a [(&'static str, &'static str)];

fn pairs(pairs: Pairs) -> Vec<(Bytes, Option<Bytes>)> {
    pairs.iter().map(|(key, value)| (Bytes::from(*key), (!value.is_empty()).then(|| Bytes::from(*value)))).collect()
}

fn locking(start_ts: u64, commit_ts: u64, locked_reads: Pairs, writes: Pairs) -> Transaction {
    Transaction {
        end: End::Committed,
        commit_ts: Some(commit_ts),
        is_pessimistic: true,
        locked_reads: pairs(locked_reads),
        writes: pairs(writes),
        ..Transaction::begun(1, start_ts, start_ts)
    }
}

const OPENED: Pairs = &[("a", "a0"), ("b", "b0")];

#[test]
fn one_after_the_other_is_serializable() {
    let history = [
        locking(1, 2, &[], OPENED),
        locking(3, 5, &[("a", "a0")], &[("b", "b1")]),
        locking(4, 6, &[("b", "b1")], &[("a", "a1")]),
        locking(7, 8, &[("a", "a1"), ("b", "b1")], &[]),
    ];
    assert_eq!(check(&history), Ok(4));
}

#[test]
fn write_skew_is_a_cycle() {
    let history = [
        locking(1, 2, &[], OPENED),
        locking(3, 5, &[("a", "a0"), ("b", "b0")], &[("b", "b1")]),
        locking(4, 6, &[("a", "a0"), ("b", "b0")], &[("a", "a1")]),
    ];
    let violation = check(&history).unwrap_err();
    assert_eq!(violation.evidence.len(), 2, "{violation}");
}

#[test]
fn a_reader_between_two_writers_of_different_keys_is_a_cycle() {
    let history = [
        locking(1, 2, &[], OPENED),
        locking(3, 4, &[], &[("a", "a1")]),
        locking(5, 6, &[("a", "a1")], &[("b", "b1")]),
        locking(7, 8, &[("a", "a0"), ("b", "b1")], &[]),
    ];
    assert_eq!(check(&history).unwrap_err().evidence.len(), 3);
}

#[test]
fn only_transactions_that_lock_all_they_read_are_compared() {
    let skew = [
        locking(1, 2, &[], OPENED),
        locking(3, 5, &[("a", "a0"), ("b", "b0")], &[("b", "b1")]),
        locking(4, 6, &[("a", "a0"), ("b", "b0")], &[("a", "a1")]),
    ];
    for change in [0, 1, 2] {
        let mut history = skew.clone();
        match change {
            0 => history[2].is_pessimistic = false,
            1 => history[2].end = End::Aborted,
            _ => history[2].reads = pairs(&[("a", "a0")]),
        }
        assert_eq!(check(&history), Ok(2));
    }
}
