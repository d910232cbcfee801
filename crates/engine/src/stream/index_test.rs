//! The index against a simple model: random operations, rewrites of old segments, and replay from any segment on.

use super::*;
use crate::Commit;
use crate::log::{RewriteOp, decode_commit_streams, decode_rewrite, encode_commit, encode_rewrite};
use crate::{Durability, WriteBatch};
use kontiki_env::rng::Rng;

/// The log as a list of records: kind (rewrite or not), position, payload.
#[derive(Default)]
struct FakeLog {
    records: Vec<(bool, RecordPosition, Vec<u8>)>,
    appended: u64,
}

impl FakeLog {
    fn append(&mut self, index: &mut StreamIndex, rewrite: bool, segment: u64, payload: Vec<u8>) {
        self.appended += 1;
        let position = RecordPosition { segment, offset: 32 + self.appended, bytes: 1 };
        index.apply(position, decode(rewrite, &payload));
        self.records.push((rewrite, position, payload));
    }

    /// What recovery builds from the segments that are left.
    fn replay(&self) -> StreamIndex {
        let mut index = StreamIndex::default();
        for (rewrite, position, payload) in &self.records {
            index.apply(*position, decode(*rewrite, payload));
        }
        index
    }

    fn entry(&self, position: EntryPosition) -> Bytes {
        let (_, _, payload) = self.records.iter().find(|(_, at, _)| *at == position.record).expect("not deleted");
        Bytes::copy_from_slice(position.span.of(payload).expect("inside"))
    }

    /// What the index says of a segment, put into a rewrite's payload.
    fn rewrite_of(&self, index: &StreamIndex, segment: u64) -> Vec<u8> {
        let mut ops = Vec::new();
        for (stream, found, items) in index.users(segment) {
            let before = ops.len();
            if found.mark_segment == Some(segment) {
                ops.push(RewriteOp::Truncate { stream, through_index: found.truncated_through });
            }
            if found.state_segment == Some(segment) {
                ops.push(RewriteOp::State { stream, state: found.state.clone() });
            }
            for (index, position) in found.entries.iter().filter(|(_, p)| p.record.segment == segment) {
                let entries = vec![self.entry(*position)];
                ops.push(RewriteOp::Place { stream, first_index: *index, entries });
            }
            assert_eq!(ops.len() - before, items, "each item is counted");
        }
        let mut payload = Vec::new();
        encode_rewrite(&mut payload, &ops);
        payload
    }
}

fn decode(rewrite: bool, payload: &[u8]) -> Vec<StreamRecord> {
    if rewrite { decode_rewrite(payload).expect("whole") } else { decode_commit_streams(payload).expect("whole") }
}

/// What matters of an index: contents, not positions.
type Contents = BTreeMap<StreamId, (u64, Bytes, Vec<(u64, Bytes)>)>;

fn contents(index: &StreamIndex, log: &FakeLog) -> Contents {
    let stream = |(id, stream): (&StreamId, &Stream)| {
        let entries = stream.entries.iter().map(|(index, position)| (*index, log.entry(*position))).collect();
        (*id, (stream.truncated_through, stream.state.clone(), entries))
    };
    index.streams.iter().map(stream).collect()
}

fn random_op(index: &StreamIndex, rng: &mut Rng, number: u64) -> StreamOp {
    let stream = StreamId(rng.below(3));
    let bounds = index.bounds(stream);
    let (low, high) = (bounds.truncated_through + 1, bounds.last_index + 1);
    match rng.below(8) {
        0 => StreamOp::State { stream, state: Bytes::from(number.to_string()) },
        1 => StreamOp::Truncate { stream, through_index: rng.range(low..high + 4) - 1 },
        2 if rng.chance(1, 4) => StreamOp::Remove { stream },
        3 => StreamOp::Append { stream, first_index: rng.range(low..high + 1), entries: vec![] },
        other => {
            let first_index = if other == 4 { rng.range(low..high + 1) } else { high };
            let entries = (0..rng.below(4)).map(|i| Bytes::from(format!("{number}.{i}"))).collect();
            StreamOp::Append { stream, first_index, entries }
        }
    }
}

#[test]
fn replay_of_any_retained_log_gives_the_same_streams() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let (mut index, mut log) = (StreamIndex::default(), FakeLog::default());
        let mut segment = 1;
        for number in 0..300 {
            let op = random_op(&index, &mut rng, number);
            index.check(std::slice::from_ref(&op), &mut BTreeMap::new()).expect("it fits");
            let commit =
                Commit { batch: WriteBatch::new(), streams: vec![op], durability: Durability::Sync, unchanged: vec![] };
            let mut payload = Vec::new();
            encode_commit(&mut payload, &commit.batch, &commit.streams);
            log.append(&mut index, false, segment, payload);
            segment += u64::from(rng.chance(1, 10));
            if rng.chance(1, 15) {
                // What retention does: move what the oldest segment is needed for, then delete every free one.
                let oldest = log.records[0].1.segment;
                if oldest < segment {
                    let payload = log.rewrite_of(&index, oldest);
                    log.append(&mut index, true, segment, payload);
                }
                while log.records[0].1.segment < segment && index.usage(log.records[0].1.segment).items == 0 {
                    log.records.remove(0);
                }
            }
            assert_eq!(index.usage, index.recount());
        }
        let replayed = log.replay();
        replayed.check_whole().expect("no gap");
        assert_eq!(contents(&replayed, &log), contents(&index, &log), "seed {seed}");
        assert_eq!(replayed.usage, index.usage);
    }
}

#[test]
fn commits_of_one_group_are_checked_one_after_the_other() {
    let index = StreamIndex::default();
    let mut ahead = BTreeMap::new();
    let append = |first_index, count| StreamOp::Append {
        stream: StreamId(1),
        first_index,
        entries: vec![Bytes::from_static(b"x"); count],
    };
    index.check(&[append(1, 2)], &mut ahead).expect("the first");
    index.check(&[append(3, 1), append(6, 1)], &mut ahead).expect_err("a gap in the second half");
    index.check(&[append(3, 1)], &mut ahead).expect("the refused commit left no trace");
    let truncate = StreamOp::Truncate { stream: StreamId(1), through_index: 10 };
    index.check(&[truncate, append(11, 1)], &mut ahead).expect("a jump forward");
    index.check(&[append(10, 1)], &mut ahead).expect_err("at the mark");
    index.check(&[StreamOp::Remove { stream: StreamId(1) }, append(1, 1)], &mut ahead).expect("starts again");
    let ends = StreamOp::Truncate { stream: StreamId(2), through_index: u64::MAX };
    index.check(&[ends], &mut ahead).expect_err("no index would be left");
}

#[test]
fn a_gap_after_replay_is_noticed() {
    let mut index = StreamIndex::default();
    let position = RecordPosition { segment: 1, offset: 32, bytes: 40 };
    let span = PayloadSpan { start: 0, length: 1 };
    index.apply(position, vec![StreamRecord::Append { stream: StreamId(4), first_index: 3, entries: vec![span] }]);
    let what = index.check_whole().expect_err("entries 1 and 2 are missing");
    assert!(what.contains("entry 1 of stream 4"), "{what}");
}
