//! A disk that separates durable from volatile state.

use super::view::Table;
use bytes::Bytes;
use kontiki_engine::{Commit, StreamContents, StreamId, StreamOp};
use kontiki_raftstore::RegionId;
use kontiki_raftstore::snapshot::FileId;
use std::collections::BTreeMap;
use std::ops::Range;

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub streams: BTreeMap<StreamId, StreamContents>,
    pub tables: Table,
    pub files: BTreeMap<FileId, Vec<u8>>,
}

impl Disk {
    /// A commit became durable. Stream operations are checked against the engine's contract.
    pub fn commit(&mut self, commit: &Commit) {
        self.tables.write(&commit.batch);
        for op in &commit.streams {
            self.stream_op(op);
        }
    }

    /// The entries of a range that are there, if its first one is.
    pub fn entries(&self, region: RegionId, indices: &Range<u64>) -> Vec<Bytes> {
        let Some(contents) = self.streams.get(&StreamId(region.0)) else { return Vec::new() };
        let Some(skipped) = indices.start.checked_sub(contents.truncated_through + 1) else { return Vec::new() };
        let count = (indices.end - indices.start) as usize;
        contents.entries.iter().skip(skipped as usize).take(count).cloned().collect()
    }

    fn stream_op(&mut self, op: &StreamOp) {
        match op {
            StreamOp::Append { stream, first_index, entries } => {
                let contents = self.streams.entry(*stream).or_default();
                let next = contents.truncated_through + 1 + contents.entries.len() as u64;
                assert!(*first_index > contents.truncated_through && *first_index <= next, "an append without a gap");
                contents.entries.truncate((first_index - contents.truncated_through - 1) as usize);
                contents.entries.extend(entries.iter().cloned());
            }
            StreamOp::State { stream, state } => {
                assert!(state.len() <= 64 << 10);
                self.streams.entry(*stream).or_default().state = state.clone();
            }
            StreamOp::Truncate { stream, through_index } => {
                let contents = self.streams.entry(*stream).or_default();
                assert!(*through_index >= contents.truncated_through, "truncation goes forward");
                let dropped = (*through_index - contents.truncated_through) as usize;
                contents.entries.drain(..dropped.min(contents.entries.len()));
                contents.truncated_through = *through_index;
            }
            StreamOp::Remove { stream } => {
                self.streams.remove(stream);
            }
        }
    }
}
