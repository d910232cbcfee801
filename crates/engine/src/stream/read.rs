//! Reading streams back from the log.

use super::index::{EntryPosition, StreamIndex};
use crate::lock::Mutex;
use crate::log::{RecordPosition, RewriteOp, Segments};
use crate::{Error, Result, StreamContents, StreamId};
use bytes::Bytes;
use kontiki_env::fs::File;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

/// Reads entries record by record: consecutive entries often share one, and each record is checked as a whole.
struct EntryReader<'a> {
    segments: &'a Segments,
    files: BTreeMap<u64, Arc<dyn File>>,
    record: Option<(RecordPosition, Bytes)>,
}

impl EntryReader<'_> {
    fn read(&mut self, position: EntryPosition) -> Result<Bytes> {
        let payload = match &self.record {
            Some((record, payload)) if *record == position.record => payload.clone(),
            _ => {
                let file = self.files.get(&position.record.segment).expect("held since the positions were copied");
                let payload = self.segments.read(&**file, position.record)?;
                self.record = Some((position.record, payload.clone()));
                payload
            }
        };
        let entry = position.span.of(&payload).ok_or_else(|| Error::Bug("an entry beyond its log record".into()))?;
        Ok(payload.slice_ref(entry))
    }
}

/// Reads a whole stream; an unknown one is empty. Runs concurrently with writers, truncation and retention: positions
/// and files are taken together under the index's lock, and a file that is held stays readable.
pub(crate) fn read_stream(index: &Mutex<StreamIndex>, segments: &Segments, id: StreamId) -> Result<StreamContents> {
    let (stream, files) = {
        let index = index.lock();
        let Some(stream) = index.get(id).cloned() else { return Ok(StreamContents::default()) };
        let files = hold_files(segments, stream.entries.values())?;
        (stream, files)
    };
    let mut reader = EntryReader { segments, files, record: None };
    let entries = stream.entries.values().map(|position| reader.read(*position)).collect::<Result<Vec<Bytes>>>()?;
    Ok(StreamContents { truncated_through: stream.truncated_through, state: stream.state, entries })
}

/// Reads the entries of a range that exist, in copies, so that none keeps its whole record in memory; nothing if the
/// first one does not exist. Runs concurrently as [`read_stream`] does.
pub(crate) fn read_entries(
    index: &Mutex<StreamIndex>,
    segments: &Segments,
    id: StreamId,
    range: Range<u64>,
) -> Result<Vec<Bytes>> {
    let (positions, files) = {
        let index = index.lock();
        let Some(stream) = index.get(id).filter(|stream| stream.entries.contains_key(&range.start)) else {
            return Ok(Vec::new());
        };
        let positions: Vec<EntryPosition> = stream.entries.range(range).map(|(_, position)| *position).collect();
        let files = hold_files(segments, positions.iter())?;
        (positions, files)
    };
    let mut reader = EntryReader { segments, files, record: None };
    let copy = |position| reader.read(position).map(|entry| Bytes::copy_from_slice(&entry));
    positions.into_iter().map(copy).collect()
}

fn hold_files<'a>(
    segments: &Segments,
    positions: impl Iterator<Item = &'a EntryPosition>,
) -> Result<BTreeMap<u64, Arc<dyn File>>> {
    let mut files = BTreeMap::new();
    for number in positions.map(|position| position.record.segment) {
        if let Entry::Vacant(vacant) = files.entry(number) {
            let missing = || Error::Bug(format!("log segment {number} went while a stream needed it"));
            vacant.insert(segments.file(number).ok_or_else(missing)?);
        }
    }
    Ok(files)
}

/// What streams need of `segment`, up to about `bytes_max` (at least one item), to be written at the tail. Called by
/// the leader of the write path, so nothing changes before the rewrite is in the log. Empty when nothing is needed.
pub(crate) fn collect_rewrite(
    index: &Mutex<StreamIndex>,
    segments: &Segments,
    segment: u64,
    bytes_max: u64,
) -> Result<Vec<RewriteOp>> {
    let Some(file) = segments.file(segment) else { return Ok(Vec::new()) };
    let Needed { small, mut entries } = needed_of(&index.lock(), segment);
    let mut ops = Vec::new();
    let mut bytes = 0;
    // The marks first: replay then drops nothing that follows, and keeps nothing that they cover.
    for (op, op_bytes) in small {
        if bytes >= bytes_max && !ops.is_empty() {
            return Ok(ops);
        }
        ops.push(op);
        bytes += op_bytes;
    }
    // In the order of the log, not stream by stream: a record often has entries of many streams, and is read once so.
    entries.sort_unstable_by_key(|(position, _, _)| (position.record.offset, position.span.start));
    let mut reader = EntryReader { segments, files: BTreeMap::from([(segment, file)]), record: None };
    for (position, id, index) in entries {
        if bytes >= bytes_max && !ops.is_empty() {
            break;
        }
        // A copy, so that a small entry does not keep its whole record in memory.
        let entry = Bytes::copy_from_slice(&reader.read(position)?);
        bytes += entry.len() as u64;
        push_entry(&mut ops, id, index, entry);
    }
    Ok(ops)
}

/// What streams need of a segment.
#[derive(Default)]
struct Needed {
    /// Marks and states, with what they count for.
    small: Vec<(RewriteOp, u64)>,
    /// Where the live entries are, with stream and index.
    entries: Vec<(EntryPosition, StreamId, u64)>,
}

fn needed_of(index: &StreamIndex, segment: u64) -> Needed {
    let Needed { mut small, mut entries } = Needed::default();
    for (id, stream, items) in index.users(segment) {
        let mut entry_count = items;
        if stream.mark_segment == Some(segment) {
            small.push((RewriteOp::Truncate { stream: id, through_index: stream.truncated_through }, 16));
            entry_count -= 1;
        }
        if stream.state_segment == Some(segment) {
            let state = stream.state.clone();
            let bytes = state.len() as u64;
            small.push((RewriteOp::State { stream: id, state }, bytes));
            entry_count -= 1;
        }
        // The oldest segment's entries come first, so counting them ends the walk long before the stream's end.
        let within = stream.entries.iter().filter(|(_, position)| position.record.segment == segment);
        entries.extend(within.take(entry_count).map(|(index, position)| (*position, id, *index)));
    }
    Needed { small, entries }
}

/// Adds to the last run of entries, or starts a new one.
fn push_entry(ops: &mut Vec<RewriteOp>, id: StreamId, index: u64, entry: Bytes) {
    if let Some(RewriteOp::Place { stream, first_index, entries }) = ops.last_mut()
        && *stream == id
        && *first_index + entries.len() as u64 == index
    {
        entries.push(entry);
        return;
    }
    ops.push(RewriteOp::Place { stream: id, first_index: index, entries: vec![entry] });
}

#[cfg(test)]
#[path = "read_test.rs"]
pub(super) mod tests;
