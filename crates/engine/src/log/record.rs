//! The payloads of records.
//!
//! Commit payload: batch (varint length, bytes; length 0 when there is none), then stream operations to the end; the
//! batch's sequence number is in the record's header. Rewrite payload: stream operations only. A seal has none.
//!
//! Stream operation: tag (1 byte), stream (varint), then by tag:
//!
//! | tag | operation | fields |
//! |---|---|---|
//! | 1 | append | first index (varint), count (varint), that many entries (each varint length, bytes) |
//! | 2 | state | state (varint length, bytes) |
//! | 3 | truncate | through index (varint) |
//! | 4 | remove | - |
//! | 5 | place (rewrites only) | as append; puts entries without cutting what follows them |
//!
//! Decoding yields [`StreamRecord`]s, which name an entry by its [`PayloadSpan`] in the payload: the stream index keeps
//! positions, not bytes. The write path decodes what it has just encoded, so writing and replaying share one path
//! into the index.

use crate::{StreamId, StreamOp, WriteBatch};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_varint, put_slice, put_varint};

const TAG_APPEND: u8 = 1;
const TAG_STATE: u8 = 2;
const TAG_TRUNCATE: u8 = 3;
const TAG_REMOVE: u8 = 4;
const TAG_PLACE: u8 = 5;

/// Where bytes lie in a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PayloadSpan {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

impl PayloadSpan {
    /// The bytes, if `payload` is long enough.
    pub(crate) fn of(self, payload: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        payload.get(start..start.checked_add(self.length as usize)?)
    }
}

/// One stream operation as stored in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamRecord {
    /// Entries from `first_index` on; everything at or above it that was there before is cut.
    Append { stream: StreamId, first_index: u64, entries: Vec<PayloadSpan> },
    /// The stream's state.
    State { stream: StreamId, state: Bytes },
    /// The truncation mark.
    Truncate { stream: StreamId, through_index: u64 },
    /// The stream is removed.
    Remove { stream: StreamId },
    /// Entries from `first_index` on, put back where they were; nothing is cut.
    Place { stream: StreamId, first_index: u64, entries: Vec<PayloadSpan> },
}

/// The content of a commit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitRecord {
    /// 0 if the batch is empty.
    pub(crate) sequence: u64,
    pub(crate) batch: WriteBatch,
    pub(crate) streams: Vec<StreamRecord>,
}

/// What a rewrite puts at the tail for one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RewriteOp {
    /// Consecutive entries.
    Place { stream: StreamId, first_index: u64, entries: Vec<Bytes> },
    /// The latest state.
    State { stream: StreamId, state: Bytes },
    /// The latest truncation mark.
    Truncate { stream: StreamId, through_index: u64 },
}

/// A commit's payload before it is written to the log, in two parts, so that the bytes of a batch are not copied before
/// they are copied there.
#[derive(Clone, Debug)]
pub(crate) enum CommitPayload {
    /// The length of a batch that comes second: up to 10 bytes.
    Batch { head: [u8; 10], head_bytes: u8 },
    /// All of it.
    Whole(Vec<u8>),
}

impl CommitPayload {
    /// For this commit.
    pub(crate) fn new(batch: &WriteBatch, streams: &[StreamOp]) -> CommitPayload {
        if streams.is_empty() {
            let mut varint = Vec::with_capacity(10);
            put_varint(&mut varint, batch.as_bytes().len() as u64);
            let mut head = [0; 10];
            head[..varint.len()].copy_from_slice(&varint);
            return CommitPayload::Batch { head, head_bytes: varint.len() as u8 };
        }
        let mut whole = Vec::with_capacity(batch.as_bytes().len() + 64);
        encode_commit(&mut whole, batch, streams);
        CommitPayload::Whole(whole)
    }

    /// The bytes, one part after the other. `batch` is the one it was made for.
    pub(crate) fn parts<'a>(&'a self, batch: &'a WriteBatch) -> [&'a [u8]; 2] {
        match self {
            CommitPayload::Batch { head, head_bytes } => [&head[..usize::from(*head_bytes)], batch.as_bytes()],
            CommitPayload::Whole(whole) => [whole, &[]],
        }
    }
}

/// Appends a commit's payload.
pub(crate) fn encode_commit(out: &mut Vec<u8>, batch: &WriteBatch, streams: &[StreamOp]) {
    put_slice(out, batch.as_bytes());
    for op in streams {
        match op {
            StreamOp::Append { stream, first_index, entries } => {
                put_entries(out, TAG_APPEND, *stream, *first_index, entries);
            }
            StreamOp::State { stream, state } => put_state(out, *stream, state),
            StreamOp::Truncate { stream, through_index } => put_truncate(out, *stream, *through_index),
            StreamOp::Remove { stream } => put_head(out, TAG_REMOVE, *stream),
        }
    }
}

/// Appends a rewrite's payload.
pub(crate) fn encode_rewrite(out: &mut Vec<u8>, ops: &[RewriteOp]) {
    for op in ops {
        match op {
            RewriteOp::Place { stream, first_index, entries } => {
                put_entries(out, TAG_PLACE, *stream, *first_index, entries);
            }
            RewriteOp::State { stream, state } => put_state(out, *stream, state),
            RewriteOp::Truncate { stream, through_index } => put_truncate(out, *stream, *through_index),
        }
    }
}

/// At least as many bytes as [`encode_commit`] writes for these.
pub(crate) fn commit_bytes_max(batch: &WriteBatch, streams: &[StreamOp]) -> u64 {
    // A varint has at most 10 bytes; an operation has a tag and up to three of them in addition to its entries.
    const OP_OVERHEAD: u64 = 31;
    const ENTRY_OVERHEAD: u64 = 10;
    let ops = streams.iter().map(|op| match op {
        StreamOp::Append { entries, .. } => entries.iter().map(|e| e.len() as u64 + ENTRY_OVERHEAD).sum::<u64>(),
        StreamOp::State { state, .. } => state.len() as u64,
        StreamOp::Truncate { .. } | StreamOp::Remove { .. } => 0,
    });
    20 + batch.as_bytes().len() as u64 + ops.map(|bytes| bytes + OP_OVERHEAD).sum::<u64>()
}

/// Decodes a commit's payload, checking every part.
pub(crate) fn decode_commit(sequence: u64, payload: &[u8]) -> Result<CommitRecord, Truncated> {
    let mut input = payload;
    let batch = WriteBatch::decode_logged(get_slice(&mut input)?)?;
    if (sequence == 0) != batch.is_empty() {
        return Err(Truncated);
    }
    let streams = decode_streams(payload, input, false)?;
    Ok(CommitRecord { sequence, batch, streams })
}

/// Decodes only the batch of a commit's payload; it may be empty.
pub(crate) fn decode_commit_batch(payload: &[u8]) -> Result<WriteBatch, Truncated> {
    let mut input = payload;
    WriteBatch::decode_logged(get_slice(&mut input)?)
}

/// Decodes only the stream operations of a commit's payload.
pub(crate) fn decode_commit_streams(payload: &[u8]) -> Result<Vec<StreamRecord>, Truncated> {
    let mut input = payload;
    get_slice(&mut input)?;
    decode_streams(payload, input, false)
}

/// Decodes a rewrite's payload.
pub(crate) fn decode_rewrite(payload: &[u8]) -> Result<Vec<StreamRecord>, Truncated> {
    decode_streams(payload, payload, true)
}

fn put_head(out: &mut Vec<u8>, tag: u8, stream: StreamId) {
    out.push(tag);
    put_varint(out, stream.0);
}

fn put_entries(out: &mut Vec<u8>, tag: u8, stream: StreamId, first_index: u64, entries: &[Bytes]) {
    put_head(out, tag, stream);
    put_varint(out, first_index);
    put_varint(out, entries.len() as u64);
    for entry in entries {
        put_slice(out, entry);
    }
}

fn put_state(out: &mut Vec<u8>, stream: StreamId, state: &[u8]) {
    put_head(out, TAG_STATE, stream);
    put_slice(out, state);
}

fn put_truncate(out: &mut Vec<u8>, stream: StreamId, through_index: u64) {
    put_head(out, TAG_TRUNCATE, stream);
    put_varint(out, through_index);
}

fn decode_streams(payload: &[u8], mut input: &[u8], rewrite: bool) -> Result<Vec<StreamRecord>, Truncated> {
    let mut records = Vec::new();
    while !input.is_empty() {
        let tag = get_u8(&mut input)?;
        let stream = StreamId(get_varint(&mut input)?);
        let record = match (tag, rewrite) {
            (TAG_APPEND, false) => {
                let (first_index, entries) = get_entries(payload, &mut input)?;
                StreamRecord::Append { stream, first_index, entries }
            }
            (TAG_PLACE, true) => {
                let (first_index, entries) = get_entries(payload, &mut input)?;
                StreamRecord::Place { stream, first_index, entries }
            }
            (TAG_STATE, _) => StreamRecord::State { stream, state: Bytes::copy_from_slice(get_slice(&mut input)?) },
            (TAG_TRUNCATE, _) => StreamRecord::Truncate { stream, through_index: get_varint(&mut input)? },
            (TAG_REMOVE, false) => StreamRecord::Remove { stream },
            _ => return Err(Truncated),
        };
        records.push(record);
    }
    Ok(records)
}

/// Entries, whose indices must all exist: the last one is at most `u64::MAX`, the first at least 1.
fn get_entries(payload: &[u8], input: &mut &[u8]) -> Result<(u64, Vec<PayloadSpan>), Truncated> {
    let first_index = get_varint(input)?;
    let count = get_varint(input)?;
    if first_index == 0 || first_index.checked_add(count).is_none() || count > input.len() as u64 {
        return Err(Truncated); // an entry takes at least its length byte, so `count` cannot cause a large allocation
    }
    let mut entries = Vec::with_capacity(usize::try_from(count).map_err(|_| Truncated)?);
    for _ in 0..count {
        let entry = get_slice(input)?;
        let end = payload.len() - input.len();
        let start = u32::try_from(end - entry.len()).map_err(|_| Truncated)?;
        let length = u32::try_from(entry.len()).map_err(|_| Truncated)?;
        entries.push(PayloadSpan { start, length });
    }
    Ok((first_index, entries))
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
