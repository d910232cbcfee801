//! What a segment's bytes hold, for tools and fuzzers.

use super::format::{RecordKind, SEGMENT_HEADER_BYTES, check_segment_header, decode_record};
use super::ingested::decode_ingested;
use super::record::{decode_commit, decode_rewrite};
use crate::{Error, Result};
use std::path::Path;

/// What a segment's bytes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Commit records.
    pub commits: u64,
    /// Operations of their batches.
    pub batch_ops: u64,
    /// Sequence number of the first batch; 0 if there is none.
    pub first_sequence: u64,
    /// Sequence number of the last batch: the segment is needed for recovery while it is above what is flushed.
    pub last_sequence: u64,
    /// Rewrite records.
    pub rewrites: u64,
    /// Records of ingested tables.
    pub ingests: u64,
    /// Stream operations in commits and rewrites.
    pub stream_ops: u64,
    /// Where the last whole record ends.
    pub end: u64,
    /// Whether a seal follows there.
    pub sealed: bool,
}

impl SegmentSummary {
    fn note_batch(&mut self, sequence: u64) {
        if sequence > 0 {
            self.last_sequence = self.last_sequence.max(sequence);
            if self.first_sequence == 0 {
                self.first_sequence = sequence;
            }
        }
    }
}

/// Reads the bytes of segment `number`, whose file is `path`, up to the first that are no whole record.
///
/// Errors: `Corruption` for a bad header and for a whole record with a malformed payload, `UnsupportedFormat`. Never
/// panics, whatever the bytes are.
pub fn summarize_segment(path: &Path, number: u64, bytes: &[u8]) -> Result<SegmentSummary> {
    check_segment_header(path, number, bytes)?;
    let mut summary = SegmentSummary { end: SEGMENT_HEADER_BYTES, ..SegmentSummary::default() };
    while let Some(record) =
        usize::try_from(summary.end).ok().and_then(|at| decode_record(number, bytes, at, summary.end))
    {
        let malformed = |_| Error::Corruption {
            file: path.to_path_buf(),
            offset: summary.end,
            what: "a log record is whole but malformed".to_string(),
        };
        match record.kind {
            RecordKind::Commit => {
                let commit = decode_commit(record.sequence, record.payload).map_err(malformed)?;
                summary.commits += 1;
                summary.note_batch(commit.sequence);
                summary.batch_ops += commit.batch.len() as u64;
                summary.stream_ops += commit.streams.len() as u64;
            }
            RecordKind::Rewrite => {
                summary.stream_ops += decode_rewrite(record.payload).map_err(malformed)?.len() as u64;
                summary.rewrites += 1;
            }
            RecordKind::Ingest => {
                decode_ingested(record.sequence, record.payload).map_err(malformed)?;
                summary.ingests += 1;
                summary.note_batch(record.sequence);
            }
            RecordKind::Seal => {
                summary.sealed = true;
                return Ok(summary);
            }
        }
        summary.end += record.bytes();
    }
    Ok(summary)
}

#[cfg(test)]
#[path = "summary_test.rs"]
mod tests;
