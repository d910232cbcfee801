use super::*;
use bytes::Bytes;

const ID: StreamId = StreamId(7);

fn append(first_index: u64, count: usize) -> StreamOp {
    StreamOp::Append { stream: ID, first_index, entries: vec![Bytes::from_static(b"entry"); count] }
}

#[test]
fn operations_are_read_as_they_were_written() {
    let ops = [
        append(3, 2),
        StreamOp::State { stream: ID, state: Bytes::from_static(b"state") },
        StreamOp::Truncate { stream: ID, through_index: 9 },
        StreamOp::Remove { stream: ID },
        append(1, 0),
    ];
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| encode(&mut bytes, op));
    let items = decode(&bytes).expect("whole");
    let [Item::Append { first_index: 3, entries }, Item::State(state), Item::Truncate(9), Item::Remove, last] =
        &items[..]
    else {
        panic!("{items:?}")
    };
    assert!(entries.len() == 2 && entries.iter().all(|entry| &bytes[entry.clone()] == b"entry"));
    assert_eq!(&bytes[state.clone()], b"state");
    assert_eq!(*last, Item::Append { first_index: 1, entries: vec![] });
}

#[test]
fn cut_or_unknown_bytes_are_refused() {
    let mut bytes = Vec::new();
    encode(&mut bytes, &append(3, 2));
    (1..bytes.len()).for_each(|end| assert!(decode(&bytes[..end]).is_err(), "{end} bytes"));
    assert!(decode(&[9]).is_err());
    let mut endless = vec![TAG_APPEND];
    put_varint(&mut endless, u64::MAX);
    put_varint(&mut endless, u64::MAX);
    assert!(decode(&endless).is_err());
}

#[test]
fn appends_follow_the_mark_and_leave_no_gap() {
    let of = |_| Bounds { truncated_through: 5, last_index: 8 };
    for first in 6..=9 {
        check(&[append(first, 1), append(first + 1, 1)], of).expect("it follows");
    }
    for first in [0, 5, 10] {
        check(&[append(first, 1)], of).expect_err("a gap, or truncated");
    }
    let truncate = StreamOp::Truncate { stream: ID, through_index: 20 };
    check(&[truncate.clone(), append(21, 1)], of).expect("a jump forward");
    check(&[truncate, append(9, 1)], of).expect_err("below the mark");
    check(&[StreamOp::Remove { stream: ID }, append(1, 1)], of).expect("it begins again");
    check(&[StreamOp::Truncate { stream: ID, through_index: u64::MAX }], of).expect_err("no index would be left");
    let state = Bytes::from(vec![0; STREAM_STATE_BYTES_MAX + 1]);
    check(&[StreamOp::State { stream: ID, state }], of).expect_err("too long");
}
