use super::*;
use crate::log::format::{encode_record, encode_segment_header};
use crate::log::record::{RewriteOp, encode_commit, encode_rewrite};
use crate::{Family, StreamId, StreamOp, WriteBatch};
use bytes::Bytes;

fn sample() -> Vec<u8> {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"key", b"value");
    batch.delete(Family(3), b"gone");
    let id = StreamId(300);
    let entries = vec![Bytes::from_static(b"entry"), Bytes::new()];
    let ops = [
        StreamOp::Append { stream: id, first_index: 7, entries: entries.clone() },
        StreamOp::State { stream: id, state: Bytes::from_static(b"state") },
        StreamOp::Truncate { stream: id, through_index: 6 },
        StreamOp::Remove { stream: StreamId(1) },
    ];
    let rewrite = [
        RewriteOp::Truncate { stream: id, through_index: 6 },
        RewriteOp::State { stream: id, state: Bytes::from_static(b"state") },
        RewriteOp::Place { stream: id, first_index: 7, entries },
    ];
    let (mut first, mut second) = (Vec::new(), Vec::new());
    encode_commit(&mut first, &batch, &ops);
    encode_rewrite(&mut second, &rewrite);
    let mut bytes = encode_segment_header(5, 4096);
    for (kind, claim, sequence, payload) in [
        (RecordKind::Commit, 32, 1000, first),
        (RecordKind::Rewrite, 0, 0, second),
        (RecordKind::Seal, 40, 0, Vec::new()),
    ] {
        let offset = bytes.len() as u64;
        encode_record(&mut bytes, 5, offset, kind, claim, sequence, &payload);
    }
    bytes
}

/// Bytes written by the first version. They must be read for ever, and as long as the format is 1, be written so.
const FORMAT_1: &str = concat!(
    "4b544b57414c4f4701000000050000000000000000100000000000009cbdc260b24b5bea3615e61e2f0000000120000000e8",
    "03000000000000130100036b65790576616c7565000304676f6e6501ac02070205656e7472790002ac0205737461746503ac",
    "0206040119d504aeaca6909a190000000200000000000000000000000003ac020602ac0205737461746505ac02070205656e",
    "747279004d78fc6a000000000000000003280000000000000000000000",
);

#[test]
fn format_version_1_stays_readable_and_is_what_is_written() {
    let written: String = sample().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, FORMAT_1);
    let digits = FORMAT_1.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect();
    let summary = summarize_segment(Path::new("wal/000005.wal"), 5, &bytes).expect("readable");
    let end = bytes.len() as u64 - super::super::format::SEAL_BYTES;
    let (first_sequence, last_sequence) = (1000, 1000);
    let expected = SegmentSummary {
        commits: 1,
        batch_ops: 2,
        first_sequence,
        last_sequence,
        rewrites: 1,
        ingests: 0,
        stream_ops: 7,
        end,
        sealed: true,
    };
    assert_eq!(summary, expected);
}

#[test]
fn every_cut_and_flip_gives_an_answer() {
    let bytes = sample();
    let path = Path::new("x");
    for at in 0..bytes.len() {
        let cut = summarize_segment(path, 5, &bytes[..at]);
        assert!(cut.is_err() || cut.is_ok_and(|summary| !summary.sealed), "cut at {at}");
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let flipped = summarize_segment(path, 5, &flipped);
        assert!(flipped.is_err() || flipped.is_ok_and(|summary| !summary.sealed), "flipped at {at}");
    }
}
