//! What holds the log: for each segment, what needs it, and since when it could otherwise have been deleted.
//!
//! Retention (`retention.rs`) decides without this; here its reasons are reported. Copies
//! (checkpoints, backups) are no holders: they flush first, and hold tables.

use super::segments::SegmentFacts;
use crate::{Family, SequenceNumber, StreamId};
use std::collections::BTreeMap;

/// One segment of the log, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSegmentStatus {
    /// Its number; segments are deleted in this order.
    pub segment: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Sequence numbers of its first and last batch; `None` if it has none.
    pub sequences: Option<(SequenceNumber, SequenceNumber)>,
    /// When it was full, as far as this process has seen (at the earliest the open), in milliseconds of the wall clock
    /// since 1970: since then it is there for its holders alone. `None` of the newest.
    pub held_since_ms: Option<u64>,
    /// What needs it. Never empty, except while it is about to be deleted.
    pub holders: Vec<LogHolder>,
}

/// What needs a segment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogHolder {
    /// It is the newest: records are appended to it.
    Newest,
    /// A memtable has batches of it that are in no table yet. A flush frees it.
    Memtable {
        /// Counts up; the largest is the one that is written to.
        id: u64,
        /// Whether it waits for its flush.
        frozen: bool,
        /// The families with versions in the memtable.
        families: Vec<Family>,
    },
    /// A stream (of a served store: the log of a region) has entries, its state or its truncation mark in it. The
    /// owner's truncation frees it, or a rewrite when the log is over its budget.
    Stream {
        /// The stream.
        stream: StreamId,
        /// What it has there.
        items: u64,
    },
    /// It is kept for subscribers of changes, within [`Options::feed_retention_bytes`](crate::Options).
    ChangeFeed {
        /// The subscribers that have not read it to its end.
        subscribers: Vec<u64>,
    },
    /// Nothing needs the segment itself: segments are deleted oldest first, and this older one is held.
    Older {
        /// The oldest one that is held.
        segment: u64,
    },
}

/// A memtable with logged batches that is not flushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemtablePin {
    pub(crate) id: u64,
    pub(crate) frozen: bool,
    /// The oldest segment with one of its batches.
    pub(crate) segment: u64,
    /// The largest number assigned to it.
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) families: Vec<Family>,
}

/// What all holders need. As for retention, the segments are listed before the pins are taken.
pub(crate) struct Holding<'a> {
    pub(crate) segments: &'a [SegmentFacts],
    pub(crate) memtables: &'a [MemtablePin],
    /// The streams that have something in a segment, with how many items.
    pub(crate) streams: &'a dyn Fn(u64) -> Vec<(StreamId, u64)>,
    /// Whether segments are kept for subscribers; and the subscribers, each with the segment that it reads.
    pub(crate) feed: Option<&'a [(u64, u64)]>,
}

/// The holders of each segment, oldest first.
pub(crate) fn explain(holding: &Holding<'_>) -> Vec<(SegmentFacts, Vec<LogHolder>)> {
    let newest = holding.segments.last().map_or(0, |facts| facts.number);
    let mut oldest_held = None;
    let mut explained = Vec::with_capacity(holding.segments.len());
    for facts in holding.segments {
        let mut holders = Vec::new();
        if facts.number == newest {
            holders.push(LogHolder::Newest);
        }
        for memtable in holding.memtables.iter().filter(|memtable| memtable.needs(facts)) {
            let MemtablePin { id, frozen, families, .. } = memtable.clone();
            holders.push(LogHolder::Memtable { id, frozen, families });
        }
        let streams = (holding.streams)(facts.number);
        holders.extend(streams.into_iter().map(|(stream, items)| LogHolder::Stream { stream, items }));
        match (holders.is_empty(), oldest_held) {
            (false, None) => oldest_held = Some(facts.number),
            (false, Some(_)) => {}
            (true, Some(segment)) => holders.push(LogHolder::Older { segment }),
            (true, None) => holders.extend(holding.feed.map(|readers| {
                let behind = readers.iter().filter(|(_, reads)| *reads <= facts.number);
                LogHolder::ChangeFeed { subscribers: behind.map(|(id, _)| *id).collect() }
            })),
        }
        explained.push((*facts, holders));
    }
    explained
}

impl MemtablePin {
    /// Batches are in the log in the order of their numbers, and a memtable has a range of them.
    fn needs(&self, facts: &SegmentFacts) -> bool {
        facts.number >= self.segment && facts.first_sequence > 0 && facts.first_sequence <= self.last_sequence
    }
}

/// Bytes that a holder of `segment` retains: this one and all newer ones, as segments are deleted oldest first.
pub(crate) fn pinned_bytes(segments: &[SegmentFacts], segment: Option<u64>) -> u64 {
    let Some(segment) = segment else { return 0 };
    segments.iter().filter(|facts| facts.number >= segment).map(|facts| facts.bytes).sum()
}

/// Bytes that are kept for subscribers alone: what is older than everything that the database needs.
pub(crate) fn feed_bytes(segments: &[SegmentFacts], needed: Option<u64>) -> u64 {
    let newest = segments.last().map_or(0, |facts| facts.number);
    let needed = needed.unwrap_or(newest).min(newest);
    segments.iter().filter(|facts| facts.number < needed).map(|facts| facts.bytes).sum()
}

/// Kinds of holders with warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HolderKind {
    Memtables,
    Streams,
}

/// The segments seen and the warnings given.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    /// When each segment was first seen not to be the newest.
    full_since_ms: BTreeMap<u64, u64>,
    /// Bytes at the last warning.
    warned: BTreeMap<HolderKind, u64>,
}

impl Watchdog {
    /// Records the present segments.
    pub(crate) fn see(&mut self, segments: &[SegmentFacts], now_ms: u64) {
        let oldest = segments.first().map_or(u64::MAX, |facts| facts.number);
        self.full_since_ms.retain(|number, _| *number >= oldest);
        let full = segments.split_last().map_or(&[][..], |(_, full)| full);
        for facts in full {
            self.full_since_ms.entry(facts.number).or_insert(now_ms);
        }
    }

    /// When a segment was full.
    pub(crate) fn full_since_ms(&self, segment: u64) -> Option<u64> {
        self.full_since_ms.get(&segment).copied()
    }

    /// Whether to warn of a holder that pins so many bytes: when it exceeds the bound, and again each time it has
    /// doubled. 0 is no bound.
    pub(crate) fn warns(&mut self, kind: HolderKind, bytes: u64, bound_bytes: u64) -> bool {
        if bound_bytes == 0 || bytes <= bound_bytes {
            self.warned.remove(&kind);
            return false;
        }
        let warns = self.warned.get(&kind).is_none_or(|last| bytes >= last.saturating_mul(2));
        if warns {
            self.warned.insert(kind, bytes);
        }
        warns
    }
}

#[cfg(test)]
#[path = "holders_test.rs"]
mod tests;
