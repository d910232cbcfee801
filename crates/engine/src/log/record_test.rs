use super::*;
use crate::Family;
use proptest::prelude::*;

fn entries() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from), 0..5)
}

fn op() -> impl Strategy<Value = StreamOp> {
    let stream = (0u64..1 << 40).prop_map(StreamId);
    prop_oneof![
        (stream.clone(), 1u64..1 << 50, entries()).prop_map(|(stream, first_index, entries)| StreamOp::Append {
            stream,
            first_index,
            entries
        }),
        (stream.clone(), prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(stream, state)| StreamOp::State { stream, state: state.into() }),
        (stream.clone(), any::<u64>()).prop_map(|(stream, through_index)| StreamOp::Truncate { stream, through_index }),
        stream.prop_map(|stream| StreamOp::Remove { stream }),
    ]
}

/// The operation that a record stands for.
fn op_of(record: &StreamRecord, payload: &[u8]) -> StreamOp {
    match record {
        StreamRecord::Append { stream, first_index, entries } => StreamOp::Append {
            stream: *stream,
            first_index: *first_index,
            entries: entries.iter().map(|span| Bytes::copy_from_slice(span.of(payload).expect("inside"))).collect(),
        },
        StreamRecord::State { stream, state } => StreamOp::State { stream: *stream, state: state.clone() },
        StreamRecord::Truncate { stream, through_index } => {
            StreamOp::Truncate { stream: *stream, through_index: *through_index }
        }
        StreamRecord::Remove { stream } => StreamOp::Remove { stream: *stream },
        StreamRecord::Place { .. } => panic!("a commit places nothing"),
    }
}

proptest! {
    #[test]
    fn a_commit_survives_its_encoding(keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..4), ops in prop::collection::vec(op(), 0..6)) {
        let mut batch = WriteBatch::new();
        keys.iter().for_each(|key| batch.put(Family(1), key, key));
        let sequence = if batch.is_empty() { 0 } else { 77 };
        let mut payload = Vec::new();
        encode_commit(&mut payload, &batch, &ops);
        let made = CommitPayload::new(&batch, &ops);
        prop_assert_eq!(made.parts(&batch).concat(), payload.clone());
        prop_assert!(payload.len() as u64 <= commit_bytes_max(&batch, &ops));
        let decoded = decode_commit(sequence, &payload).expect("whole");
        prop_assert_eq!(decoded.sequence, sequence);
        prop_assert_eq!(&decoded.batch, &batch);
        prop_assert_eq!(&decode_commit_streams(&payload).expect("whole"), &decoded.streams);
        let back: Vec<StreamOp> = decoded.streams.iter().map(|record| op_of(record, &payload)).collect();
        prop_assert_eq!(back, ops);
        // A rewrite is not a commit and the other way round, where the tags differ.
        for cut in 0..payload.len() {
            let _ = decode_commit(sequence, &payload[..cut]);
        }
    }

    #[test]
    fn decoding_anything_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (decode_commit(1, &bytes), decode_commit_streams(&bytes), decode_rewrite(&bytes));
    }
}

#[test]
fn a_rewrite_survives_its_encoding_and_cannot_cut() {
    let ops = [
        RewriteOp::Truncate { stream: StreamId(1), through_index: 4 },
        RewriteOp::State { stream: StreamId(1), state: Bytes::from_static(b"s") },
        RewriteOp::Place { stream: StreamId(1), first_index: 5, entries: vec![Bytes::from_static(b"five")] },
    ];
    let mut payload = Vec::new();
    encode_rewrite(&mut payload, &ops);
    let records = decode_rewrite(&payload).expect("whole");
    assert_eq!(records.len(), 3);
    let StreamRecord::Place { first_index: 5, entries, .. } = &records[2] else { panic!("{records:?}") };
    assert_eq!(entries[0].of(&payload), Some(&b"five"[..]));
    let mut append = Vec::new();
    put_entries(&mut append, TAG_APPEND, StreamId(1), 5, &[]);
    assert_eq!(decode_rewrite(&append), Err(Truncated));
}

#[test]
fn impossible_indices_and_counts_are_refused() {
    for (first_index, count) in [(0, 1), (u64::MAX, 1), (1, u64::MAX), (1, 1 << 40)] {
        let mut payload = Vec::new();
        put_head(&mut payload, TAG_PLACE, StreamId(1));
        put_varint(&mut payload, first_index);
        put_varint(&mut payload, count);
        payload.push(0);
        assert_eq!(decode_rewrite(&payload), Err(Truncated), "{first_index} {count}");
    }
}
