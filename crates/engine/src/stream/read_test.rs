//! Rewrites of a segment that many streams share.

use super::*;
use crate::StreamOp;
use crate::log::{
    FIRST_POSITION, LogWriter, Need, NextSegments, Outgoing, RecordKind, decode_commit_streams, decode_rewrite,
    encode_commit, encode_rewrite,
};
use kontiki_env::SimMachine;
use kontiki_env::fs::Op;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

const STREAMS: u64 = 50;
const RECORDS: u64 = 20;

pub(in crate::stream) struct World {
    pub machine: SimMachine,
    pub segments: Arc<Segments>,
    pub next: Arc<NextSegments>,
    pub writer: LogWriter,
    pub index: Arc<Mutex<StreamIndex>>,
}

impl World {
    pub fn new() -> World {
        let machine = SimMachine::from_seed(1);
        let env = machine.env();
        let directory = PathBuf::from("/wal");
        env.fs.create_dir_all(&directory).expect("a healthy disk");
        let segments = Arc::new(Segments::new(env.fs.clone(), directory));
        let next = NextSegments::new(env.fs.clone(), segments.directory(), 64 << 10, 0, 1);
        let next = Arc::new(next);
        let writer = LogWriter::new(segments.clone(), next.clone(), Arc::default());
        let index = Arc::new(Mutex::new(crate::lock::Rank::Streams, StreamIndex::default()));
        World { machine, segments, next, writer, index }
    }

    /// Writes a record.
    pub fn append(&mut self, kind: RecordKind, payload: &[u8]) {
        let appended = self
            .writer
            .append(&Outgoing::new(kind, [payload, &[]]), 0, FIRST_POSITION, Need::SyncedAndRead)
            .expect("a healthy disk");
        let records = match kind {
            RecordKind::Rewrite => decode_rewrite(payload),
            _ => decode_commit_streams(payload),
        };
        self.index.lock().apply(appended.position, records.expect("just encoded"));
    }

    /// Commits these operations.
    pub fn commit(&mut self, ops: &[StreamOp]) {
        let mut payload = Vec::new();
        encode_commit(&mut payload, &crate::WriteBatch::new(), ops);
        self.append(RecordKind::Commit, &payload);
    }

    /// Writes what is needed of a segment at the log's end, in one piece.
    pub fn rewrite(&mut self, segment: u64) {
        let ops = collect_rewrite(&self.index, &self.segments, segment, u64::MAX).expect("a healthy disk");
        let mut payload = Vec::new();
        encode_rewrite(&mut payload, &ops);
        self.append(RecordKind::Rewrite, &payload);
    }

    pub fn contents(&self) -> Vec<StreamContents> {
        let read = |id| read_stream(&self.index, &self.segments, StreamId(id)).expect("a healthy disk");
        (0..STREAMS).map(read).collect()
    }
}

pub(in crate::stream) fn entry(stream: u64, index: u64) -> Bytes {
    Bytes::from(format!("entry {index} of stream {stream} {}", "x".repeat(20)))
}

#[test]
fn a_range_of_entries_is_read_alone() {
    let mut world = World::new();
    for (first, count) in [(1, 4), (5, 2), (7, 3)] {
        let entries = (first..first + count).map(|index| entry(7, index)).collect();
        world.commit(&[StreamOp::Append { stream: StreamId(7), first_index: first, entries }]);
    }
    world.commit(&[StreamOp::Truncate { stream: StreamId(7), through_index: 2 }]);
    let read = |id, range: std::ops::Range<u64>| {
        read_entries(&world.index, &world.segments, StreamId(id), range).expect("a healthy disk")
    };
    let expected = |range: std::ops::Range<u64>| range.map(|index| entry(7, index)).collect::<Vec<_>>();
    assert_eq!(read(7, 4..8), expected(4..8));
    assert_eq!(read(7, 3..4), expected(3..4));
    assert_eq!(read(7, 8..30), expected(8..10), "to its end");
    assert!(read(7, 2..5).is_empty(), "its first entry is truncated");
    assert!(read(7, 10..11).is_empty() && read(8, 1..2).is_empty(), "nothing is there");
}

#[test]
fn a_rewrite_reads_each_record_about_once_however_many_streams_share_it() {
    let mut world = World::new();
    for index in 1..=RECORDS {
        let append =
            |id| StreamOp::Append { stream: StreamId(id), first_index: index, entries: vec![entry(id, index)] };
        let mut ops: Vec<StreamOp> = (0..STREAMS).map(append).collect();
        ops.push(StreamOp::State { stream: StreamId(index), state: Bytes::from(index.to_string()) });
        ops.push(StreamOp::Truncate { stream: StreamId(index), through_index: index / 2 });
        world.commit(&ops);
    }
    let oldest = world.segments.newest().expect("there is one");
    let before = world.contents();
    let large =
        StreamOp::Append { stream: StreamId(99), first_index: 1, entries: vec![Bytes::from(vec![0; 60 << 10])] };
    world.commit(&[large]); // so that a new segment begins

    let reads = Arc::new(AtomicU64::new(0));
    let of_disk = reads.clone();
    world.machine.fs.fail_next(Op::Read, 1, move |_| {
        of_disk.fetch_add(1, Ordering::Relaxed);
        false
    });
    let mut pieces = 0;
    loop {
        let ops = collect_rewrite(&world.index, &world.segments, oldest, 4 << 10).expect("a healthy disk");
        if ops.is_empty() {
            break;
        }
        pieces += 1;
        let mut payload = Vec::new();
        encode_rewrite(&mut payload, &ops);
        world.append(RecordKind::Rewrite, &payload);
    }
    assert!(pieces > 5, "{pieces} pieces of at most 4 KiB");
    let reads = reads.load(Ordering::Relaxed);
    assert!(reads <= RECORDS + pieces, "{reads} reads of {RECORDS} records in {pieces} pieces");
    assert_eq!(world.index.lock().usage(oldest).items, 0, "nothing is left");
    assert_eq!(world.contents(), before);
}
