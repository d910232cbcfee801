//! The index of all streams, and what they need of each segment.

use super::STREAM_STATE_BYTES_MAX;
use crate::log::{PayloadSpan, RecordPosition, StreamRecord};
use crate::{Error, Result, StreamHead, StreamId, StreamOp};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The position of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryPosition {
    pub(crate) record: RecordPosition,
    pub(crate) span: PayloadSpan,
}

/// An entry of a record, and where in its payload it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveEntry {
    pub(crate) stream: StreamId,
    pub(crate) index: u64,
    pub(crate) span: PayloadSpan,
}

/// One stream. See the invariants of the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) truncated_through: u64,
    /// The segment with the latest truncation mark; none while nothing was truncated.
    pub(crate) mark_segment: Option<u64>,
    pub(crate) state: Bytes,
    /// The segment with the latest state; none while there is no state.
    pub(crate) state_segment: Option<u64>,
    pub(crate) entries: BTreeMap<u64, EntryPosition>,
}

/// The state that the next append of a stream must match. Separate, so that a group's commits can be checked one after
/// the other before any of them is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamBounds {
    truncated_through: u64,
    /// The truncation mark if there are no entries.
    last_index: u64,
}

/// What streams need of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Live entries, states, marks.
    pub(crate) items: u64,
    /// Their bytes, roughly: entries and states as they are, a mark as [`MARK_BYTES`].
    pub(crate) bytes: u64,
}

/// The assumed size of a mark; about its size in a rewrite.
const MARK_BYTES: u64 = 16;

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct StreamIndex {
    streams: BTreeMap<StreamId, Stream>,
    usage: UsageBySegment,
}

/// What streams need of each segment that they need anything of.
type UsageBySegment = BTreeMap<u64, SegmentUsage>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SegmentUsage {
    total: Usage,
    /// Items by stream: a rewrite, which delays commits, finds them without a walk through all streams.
    items: BTreeMap<StreamId, usize>,
}

impl StreamIndex {
    /// The streams that exist, in order.
    pub(crate) fn ids(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// What is known of each stream without its entries, in order.
    pub(crate) fn heads(&self) -> Vec<(StreamId, StreamHead)> {
        let head = |id, stream: &Stream| StreamHead {
            truncated_through: stream.truncated_through,
            state: stream.state.clone(),
            last_index: self.last_index(id),
        };
        self.streams.iter().map(|(id, stream)| (*id, head(*id, stream))).collect()
    }

    /// Which of the entries of the record at `position` count: they are not truncated, and written nowhere else since.
    pub(crate) fn live_entries(&self, position: RecordPosition, records: &[StreamRecord]) -> Vec<LiveEntry> {
        let mut live = Vec::new();
        for record in records {
            let (StreamRecord::Append { stream: id, first_index, entries }
            | StreamRecord::Place { stream: id, first_index, entries }) = record
            else {
                continue;
            };
            let Some(stream) = self.streams.get(id) else { continue };
            let is_live = |index: &u64, span: PayloadSpan| {
                stream.entries.get(index) == Some(&EntryPosition { record: position, span })
            };
            let entries = (*first_index..).zip(entries).filter(|(index, span)| is_live(index, **span));
            live.extend(entries.map(|(index, span)| LiveEntry { stream: *id, index, span: *span }));
        }
        live
    }

    /// Number of streams.
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// A stream.
    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// The index of a stream's last entry; of its truncation mark if there are none, and 0 of an unknown stream.
    pub(crate) fn last_index(&self, id: StreamId) -> u64 {
        self.bounds(id).last_index
    }

    /// What streams need of a segment.
    pub(crate) fn usage(&self, segment: u64) -> Usage {
        self.usage.get(&segment).map(|usage| usage.total).unwrap_or_default()
    }

    /// The oldest segment that a stream needs.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.usage.keys().next().copied()
    }

    /// The streams that need something of a segment, and how many items.
    pub(crate) fn users(&self, segment: u64) -> impl Iterator<Item = (StreamId, &Stream, usize)> {
        let items = self.usage.get(&segment).into_iter().flat_map(|usage| &usage.items);
        items.map(|(id, items)| (*id, self.streams.get(id).expect("a stream whose items are counted exists"), *items))
    }

    /// Refuses operations that do not match the streams as they are after those that `ahead` has seen; records these
    /// in `ahead`. On an error `ahead` is as it was.
    pub(crate) fn check(&self, ops: &[StreamOp], ahead: &mut BTreeMap<StreamId, StreamBounds>) -> Result<()> {
        let mut seen: BTreeMap<StreamId, StreamBounds> = BTreeMap::new();
        for op in ops {
            let id = op.stream();
            let before = || ahead.get(&id).copied().unwrap_or_else(|| self.bounds(id));
            seen.entry(id).or_insert_with(before).advance(op)?;
        }
        ahead.extend(seen);
        Ok(())
    }

    /// Outside of replay entries are consecutive, so the first and the last are enough.
    fn bounds(&self, id: StreamId) -> StreamBounds {
        let Some(stream) = self.streams.get(&id) else { return StreamBounds::EMPTY };
        let last_index = stream.entries.last_key_value().map_or(stream.truncated_through, |(index, _)| *index);
        let count = last_index.checked_sub(stream.truncated_through);
        assert_eq!(count, Some(stream.entries.len() as u64), "entries follow the mark without a gap");
        StreamBounds { truncated_through: stream.truncated_through, last_index }
    }

    /// Applies the operations of the record at `position`, in log order.
    pub(crate) fn apply(&mut self, position: RecordPosition, records: Vec<StreamRecord>) {
        for record in records {
            match record {
                StreamRecord::Append { stream, first_index, entries } => {
                    self.cut(stream, first_index);
                    self.place(stream, first_index, position, &entries);
                }
                StreamRecord::Place { stream, first_index, entries } => {
                    self.place(stream, first_index, position, &entries);
                }
                StreamRecord::State { stream, state } => self.set_state(stream, position.segment, state),
                StreamRecord::Truncate { stream, through_index } => {
                    self.truncate(stream, position.segment, through_index);
                }
                StreamRecord::Remove { stream } => self.remove(stream),
            }
        }
    }

    /// After replay: every stream's entries follow its truncation mark without a gap.
    pub(crate) fn check_whole(&self) -> std::result::Result<(), String> {
        for (id, stream) in &self.streams {
            for ((index, _), expected) in stream.entries.iter().zip(stream.truncated_through.saturating_add(1)..) {
                if *index != expected {
                    return Err(format!("entry {expected} of stream {} is missing from the log", id.0));
                }
            }
        }
        debug_assert_eq!(self.usage, self.recount(), "usage counts the live items");
        Ok(())
    }

    fn cut(&mut self, id: StreamId, first_index: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            for (_, position) in stream.entries.split_off(&first_index) {
                release(&mut self.usage, position.record.segment, id, u64::from(position.span.length));
            }
        }
    }

    /// Adds entries, except those that are truncated already (a replayed record may be older than the present mark:
    /// a rewrite carries the mark of its time).
    fn place(&mut self, id: StreamId, first_index: u64, record: RecordPosition, entries: &[PayloadSpan]) {
        let stream = self.streams.entry(id).or_default();
        for (index, span) in (first_index..).zip(entries) {
            if index <= stream.truncated_through {
                continue;
            }
            occupy(&mut self.usage, record.segment, id, u64::from(span.length));
            if let Some(old) = stream.entries.insert(index, EntryPosition { record, span: *span }) {
                release(&mut self.usage, old.record.segment, id, u64::from(old.span.length));
            }
        }
    }

    fn set_state(&mut self, id: StreamId, segment: u64, state: Bytes) {
        let stream = self.streams.entry(id).or_default();
        occupy(&mut self.usage, segment, id, state.len() as u64);
        if let Some(old) = stream.state_segment.replace(segment) {
            release(&mut self.usage, old, id, stream.state.len() as u64);
        }
        stream.state = state;
    }

    fn truncate(&mut self, id: StreamId, segment: u64, through_index: u64) {
        let stream = self.streams.entry(id).or_default();
        if through_index < stream.truncated_through {
            return;
        }
        stream.truncated_through = through_index;
        occupy(&mut self.usage, segment, id, MARK_BYTES);
        if let Some(old) = stream.mark_segment.replace(segment) {
            release(&mut self.usage, old, id, MARK_BYTES);
        }
        while let Some(first) = stream.entries.first_entry() {
            if *first.key() > through_index {
                break;
            }
            let position = first.remove();
            release(&mut self.usage, position.record.segment, id, u64::from(position.span.length));
        }
        debug_assert!(stream.entries.keys().all(|index| *index > stream.truncated_through), "invariant 1");
    }

    fn remove(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for (segment, bytes) in stream.items() {
            release(&mut self.usage, segment, id, bytes);
        }
    }

    fn recount(&self) -> UsageBySegment {
        let mut usage = BTreeMap::new();
        for (id, stream) in &self.streams {
            stream.items().for_each(|(segment, bytes)| occupy(&mut usage, segment, *id, bytes));
        }
        usage
    }
}

impl Stream {
    /// Segment and bytes of each live item.
    fn items(&self) -> impl Iterator<Item = (u64, u64)> {
        let entries = self.entries.values().map(|p| (p.record.segment, u64::from(p.span.length)));
        let mark = self.mark_segment.map(|segment| (segment, MARK_BYTES));
        let state = self.state_segment.map(|segment| (segment, self.state.len() as u64));
        entries.chain(mark).chain(state)
    }
}

impl StreamBounds {
    const EMPTY: StreamBounds = StreamBounds { truncated_through: 0, last_index: 0 };

    fn advance(&mut self, op: &StreamOp) -> Result<()> {
        match op {
            StreamOp::Append { stream, first_index, entries } => {
                let (low, high) = (self.truncated_through.saturating_add(1), self.last_index.saturating_add(1));
                let last_index = first_index.checked_add(entries.len() as u64).and_then(|end| end.checked_sub(1));
                match last_index {
                    Some(last_index) if (low..=high).contains(first_index) => self.last_index = last_index,
                    _ => {
                        return Err(Error::InvalidArgument(format!(
                            "append of {} entries at index {first_index} of stream {}: the first index must be in \
                             {low}..={high}",
                            entries.len(),
                            stream.0
                        )));
                    }
                }
            }
            StreamOp::State { stream, state } if state.len() > STREAM_STATE_BYTES_MAX => {
                return Err(Error::InvalidArgument(format!(
                    "the state of stream {} has {} bytes; at most {STREAM_STATE_BYTES_MAX} are accepted",
                    stream.0,
                    state.len()
                )));
            }
            StreamOp::State { .. } => {}
            StreamOp::Truncate { stream, through_index: u64::MAX } => {
                let message = format!("truncation of stream {} leaves no index for an entry", stream.0);
                return Err(Error::InvalidArgument(message));
            }
            StreamOp::Truncate { through_index, .. } => {
                self.truncated_through = self.truncated_through.max(*through_index);
                self.last_index = self.last_index.max(self.truncated_through);
            }
            StreamOp::Remove { .. } => *self = StreamBounds::EMPTY,
        }
        Ok(())
    }
}

fn occupy(usage: &mut UsageBySegment, segment: u64, id: StreamId, bytes: u64) {
    let usage = usage.entry(segment).or_default();
    usage.total.items += 1;
    usage.total.bytes += bytes;
    *usage.items.entry(id).or_default() += 1;
}

fn release(usage: &mut UsageBySegment, segment: u64, id: StreamId, bytes: u64) {
    let entry = usage.get_mut(&segment).expect("an item that is live is counted");
    assert!(entry.total.items > 0 && entry.total.bytes >= bytes, "no item is released twice");
    entry.total.items -= 1;
    entry.total.bytes -= bytes;
    let items = entry.items.get_mut(&id).expect("with its stream");
    *items -= 1;
    if *items == 0 {
        entry.items.remove(&id);
    }
    if entry.total.items == 0 {
        assert!(entry.total.bytes == 0 && entry.items.is_empty(), "bytes belong to items, and items to streams");
        usage.remove(&segment);
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
