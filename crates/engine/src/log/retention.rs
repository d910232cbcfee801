//! Which segment of the log may be deleted: the one function that decides it.
//!
//! A segment may be deleted when no unflushed memtable has a logged batch in it, and no stream has a live entry (above
//! its truncation mark), its latest state or its latest truncation mark in it. Segments are deleted oldest first, so
//! marks and removals never vanish before the records that they apply to, and the newest always stays, because it
//! carries the numbering and may be in use by a commit that has not reached the indices yet.
//!
//! When that leaves the log over its budget, the owner of the oldest segment must act: a memtable is flushed,
//! the live items of streams are rewritten at the tail. Rewriting pays only while at least half of the log is garbage
//! (each byte freed then costs at most one byte written). If streams keep more than half of the budget
//! alive, the log is allowed to grow to twice what they keep, and the memtable is flushed, at most once for each
//! new segment, since owners of streams can often truncate them after a flush (raftstore does).
//!
//! Of the deletable segments, the newest ones stay for subscribers of the change feed, within a separate budget:
//! a subscriber may be behind, or disconnected. They count for nothing else.

/// One segment, as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentUse {
    pub(crate) number: u64,
    /// Bytes in use.
    pub(crate) bytes: u64,
    /// Live entries, states and truncation marks of streams.
    pub(crate) stream_items: u64,
    /// Bytes of those.
    pub(crate) stream_bytes: u64,
    /// The cost of retaining it for subscribers: its bytes, and those of the value segments whose collection its
    /// batches prevent.
    pub(crate) feed_bytes: u64,
}

/// All that the decision depends on.
///
/// The list of segments must be taken before the pins: a pin appears while its segment is the newest, so a list that is
/// older than the pins never offers a segment whose pins were not yet there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetentionInput {
    /// Oldest first, without gaps.
    pub(crate) segments: Vec<SegmentUse>,
    /// The oldest segment with a logged batch of an unflushed memtable.
    pub(crate) memtable_pin: Option<u64>,
    /// Whether a memtable has anything to flush.
    pub(crate) memtable_filled: bool,
    /// The newest segment when a flush was last requested for streams; 0 before the first time.
    pub(crate) flushed_for_streams_at: u64,
    /// Bytes of the log above which space must be freed.
    pub(crate) budget_bytes: u64,
    /// Bytes that may stay for subscribers of the change feed.
    pub(crate) feed_budget_bytes: u64,
}

/// The action besides the deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Nothing.
    Rest,
    /// Flush the memtables: the oldest holds the log.
    Flush,
    /// Flush the memtables, so that streams may be truncated.
    FlushForStreams,
    /// Rewrite at the tail what streams have in this segment, the oldest.
    Rewrite(u64),
}

/// The decision: which segments to delete now, in this order, and what to start so that more become deletable.
pub(crate) fn plan_retention(input: &RetentionInput) -> (Vec<u64>, Retention) {
    assert!(input.segments.windows(2).all(|w| w[0].number + 1 == w[1].number), "segments are ordered without gaps");
    let Some((newest, older)) = input.segments.split_last() else { return (Vec::new(), Retention::Rest) };
    let pinned =
        |segment: &&SegmentUse| segment.stream_items > 0 || input.memtable_pin.is_some_and(|pin| pin <= segment.number);
    let kept = older.iter().position(|segment| pinned(&segment)).unwrap_or(older.len());
    let mut feed_left = input.feed_budget_bytes;
    let fits = |segment: &&SegmentUse| match feed_left.checked_sub(segment.feed_bytes) {
        Some(left) => {
            feed_left = left;
            true
        }
        None => false,
    };
    let for_feed = older[..kept].iter().rev().take_while(fits).count();
    let delete: Vec<u64> = older[..kept - for_feed].iter().map(|segment| segment.number).collect();

    let remaining = &input.segments[kept..];
    let bytes: u64 = remaining.iter().map(|segment| segment.bytes).sum();
    let live: u64 = remaining.iter().map(|segment| segment.stream_bytes).sum();
    let oldest = remaining[0];
    let next = if bytes <= input.budget_bytes || oldest.number == newest.number {
        Retention::Rest
    } else if input.memtable_pin.is_some_and(|pin| pin <= oldest.number) {
        Retention::Flush
    } else if live.saturating_mul(2) <= bytes {
        Retention::Rewrite(oldest.number)
    } else if input.memtable_filled && input.flushed_for_streams_at < newest.number {
        Retention::FlushForStreams
    } else {
        Retention::Rest
    };
    (delete, next)
}

#[cfg(test)]
#[path = "retention_test.rs"]
mod tests;
