//! Reading the entries of all streams in one pass over the log.
//!
//! A record has the entries of all streams that one commit appended to, so reading stream by stream reads and checks it
//! once for each of them. Here each record is read once, and the index says which of its entries count.
//!
//! Nothing is held meanwhile, not even the index's lock: a rewrite may delete the segment that is read next. It moves
//! what counts there to the log's end first, which the pass reaches later. So every entry is met, and one that is
//! rewritten between the two places is met twice.
//!
//! Rejected: sorting the positions of all entries, which takes as much memory again as the index; keeping the records
//! that were read last for the next stream, which reads a log beyond that memory once for each stream again.

use super::index::{LiveEntry, StreamIndex};
use crate::lock::Mutex;
use crate::log::{
    LogReader, Peek, RawRecord, RecordKind, RecordPosition, Segments, StreamRecord, decode_commit_streams,
    decode_rewrite,
};
use crate::{Error, Result, StreamVisitor};

/// Passes every entry that counts to `visit`, in the order of the log, until it breaks.
pub(crate) fn scan_entries(
    index: &Mutex<StreamIndex>,
    segments: &Segments,
    visit: &mut StreamVisitor<'_>,
) -> Result<()> {
    let Some(oldest) = index.lock().oldest_segment() else { return Ok(()) };
    let mut reader = LogReader::of_segment(oldest);
    loop {
        let bytes = match reader.peek(segments)? {
            Peek::End => return Ok(()),
            // Deleted, after what counts of it was written again at the end.
            Peek::Gone => {
                reader = LogReader::of_segment(reader.place().0 + 1);
                continue;
            }
            Peek::Record(position, record) => {
                let records = stream_records(segments, position, record)?;
                let live = if records.is_empty() { Vec::new() } else { index.lock().live_entries(position, &records) };
                for LiveEntry { stream, index, span } in live {
                    let entry = span.of(record.payload);
                    let entry = entry.ok_or_else(|| Error::Bug("an entry beyond its log record".into()))?;
                    if visit(stream, index, entry).is_break() {
                        return Ok(());
                    }
                }
                position.bytes
            }
        };
        reader.advance(bytes);
    }
}

fn stream_records(segments: &Segments, position: RecordPosition, record: RawRecord<'_>) -> Result<Vec<StreamRecord>> {
    let records = match record.kind {
        RecordKind::Commit => decode_commit_streams(record.payload),
        RecordKind::Rewrite => decode_rewrite(record.payload),
        RecordKind::Seal | RecordKind::Ingest => Ok(Vec::new()),
    };
    let what = || "a log record that was whole when it was written cannot be decoded".to_string();
    records.map_err(|_| Error::Corruption {
        file: segments.path(position.segment),
        offset: position.offset,
        what: what(),
    })
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
