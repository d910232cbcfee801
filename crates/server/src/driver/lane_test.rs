use super::*;
use kontiki_engine::{Family, StreamId};

fn append(first_index: u64, bytes: usize) -> Commit {
    let op = StreamOp::Append { stream: StreamId(2), first_index, entries: vec![Bytes::from(vec![7; bytes])] };
    Commit { batch: WriteBatch::new(), streams: vec![op], durability: Durability::Sync, unchanged: vec![] }
}

fn first_indices(commit: &Commit) -> Vec<u64> {
    let index = |op: &StreamOp| match op {
        StreamOp::Append { first_index, .. } => *first_index,
        other => panic!("unexpected {other:?}"),
    };
    commit.streams.iter().map(index).collect()
}

#[test]
fn what_waits_leaves_as_one_commit_in_order() {
    let mut lane = Lane::new(Durability::Sync);
    lane.push(1, append(1, 10));
    assert_eq!(first_indices(&lane.take().expect("free")), [1]);
    lane.push(2, append(2, 10));
    lane.push(3, append(3, 10));
    assert!(lane.take().is_none(), "one at a time");
    assert_eq!(lane.succeeded(), [1]);
    assert_eq!(first_indices(&lane.take().expect("free")), [2, 3]);
    assert_eq!(lane.succeeded(), [2, 3]);
    assert!(lane.take().is_none());
}

#[test]
fn a_refused_commit_is_tried_again_before_anything_later() {
    let mut lane = Lane::new(Durability::Sync);
    lane.push(1, append(1, 10));
    let first = lane.take().expect("free");
    lane.push(2, append(2, 10));
    assert!(lane.refused());
    assert!(lane.is_blocked() && lane.take().is_none(), "nothing overtakes it");
    assert_eq!(first_indices(&lane.retry().expect("kept")), first_indices(&first));
    assert!(lane.is_in_flight() && !lane.is_blocked());
    assert_eq!(lane.succeeded(), [1]);
    assert_eq!(first_indices(&lane.take().expect("free")), [2]);
}

#[test]
fn a_merged_commit_stays_below_its_bound() {
    let mut lane = Lane::new(Durability::Sync);
    for index in 1..=3 {
        lane.push(index, append(index, MERGE_BYTES_MAX - 1));
    }
    for index in 1..=3 {
        assert_eq!(first_indices(&lane.take().expect("free")), [index]);
        assert_eq!(lane.succeeded(), [index]);
    }
}

#[test]
fn an_apply_is_not_kept_for_another_try() {
    let mut lane = Lane::new(Durability::Derived);
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"k", b"v");
    lane.push(1, derived(batch));
    assert!(lane.take().is_some());
    assert!(!lane.refused());
}
