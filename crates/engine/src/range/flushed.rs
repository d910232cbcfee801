//! The range tombstones of one family in a version.
//!
//! A reader of a version reads at or above its flushed sequence number, and every tombstone is at or below that, so
//! only the newest over each key is kept: ascending, disjoint ranges, and one that lies wholly under newer ones is
//! dropped automatically. They are in chunks that versions share: an edit copies the chunks that it touches, and a
//! pointer to each of the others.

use super::{RangeTombstone, Span, newest_of_both, push_joined, work};
use crate::SequenceNumber;
use bytes::Bytes;
use std::sync::Arc;

/// A chunk has at most so many ranges: what an edit copies for one change, against the pointers that it copies in any
/// case.
const CHUNK_MAX: usize = 128;

/// See the head of this file. Immutable.
#[derive(Clone, Debug, Default)]
pub struct RangeTombstones {
    chunks: Vec<Arc<Chunk>>,
    /// How many ranges are before each chunk.
    before: Vec<usize>,
    len: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Ascending, disjoint, not empty; of neighbours that touch, the numbers differ.
    ranges: Vec<RangeTombstone>,
    newest: SequenceNumber,
    oldest: SequenceNumber,
}

impl Chunk {
    fn new(ranges: Vec<RangeTombstone>) -> Arc<Chunk> {
        let newest = ranges.iter().map(|range| range.sequence).max().expect("a chunk is not empty");
        let oldest = ranges.iter().map(|range| range.sequence).min().expect("a chunk is not empty");
        debug_assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "ranges are disjoint");
        Arc::new(Chunk { ranges, newest, oldest })
    }

    fn first(&self) -> &RangeTombstone {
        self.ranges.first().expect("a chunk is not empty")
    }

    fn last(&self) -> &RangeTombstone {
        self.ranges.last().expect("a chunk is not empty")
    }
}

/// The position of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    chunk: usize,
    at: usize,
}

impl RangeTombstones {
    /// Of these tombstones, each of which has a start before its end.
    #[cfg(test)]
    pub fn new(all: Vec<RangeTombstone>) -> RangeTombstones {
        RangeTombstones::of_disjoint(super::Run::new(all).newest_only())
    }

    /// Of ascending, disjoint ranges.
    pub(crate) fn of_disjoint(ranges: Vec<RangeTombstone>) -> RangeTombstones {
        RangeTombstones::of_chunks(cut(ranges).collect())
    }

    fn of_chunks(chunks: Vec<Arc<Chunk>>) -> RangeTombstones {
        debug_assert!(chunks.windows(2).all(|pair| pair[0].last().end <= pair[1].first().start), "chunks are disjoint");
        let mut len = 0;
        let before = chunks.iter().map(|chunk| {
            len += chunk.ranges.len();
            len - chunk.ranges.len()
        });
        let before = before.collect();
        RangeTombstones { chunks, before, len }
    }

    /// The newest over each key: ascending, disjoint ranges.
    pub fn iter(&self) -> impl Iterator<Item = &RangeTombstone> {
        self.chunks.iter().flat_map(|chunk| &chunk.ranges)
    }

    /// Whether there are none: then nothing is hidden, and no lookup is needed.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many ranges there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The oldest.
    pub fn oldest(&self) -> Option<&RangeTombstone> {
        let chunk = self.chunks.iter().min_by_key(|chunk| chunk.oldest)?;
        chunk.ranges.iter().find(|range| range.sequence == chunk.oldest)
    }

    /// The number of the newest tombstone over the key.
    pub fn covering(&self, user_key: &[u8]) -> Option<SequenceNumber> {
        let range = self.get(self.first_ending_after(user_key))?;
        (range.start <= user_key).then_some(range.sequence)
    }

    /// The part of the key space around the key over which [`RangeTombstones::covering`] gives the same answer: an
    /// iterator calls it once for each part, not for each key.
    pub fn span(&self, user_key: &[u8]) -> Span<'_> {
        let place = self.first_ending_after(user_key);
        let span = match self.get(place) {
            Some(RangeTombstone { start, end, sequence }) if start <= user_key => {
                Span { start: Some(start), end: Some(end), sequence: *sequence }
            }
            following => Span {
                start: self.before(place).map(|range| &range.end),
                end: following.map(|range| &range.start),
                sequence: 0,
            },
        };
        debug_assert!(span.contains(user_key));
        span
    }

    /// Whether everything from `smallest` to `largest`, both included, is covered by tombstones above `sequence`.
    pub fn cover(&self, smallest: &[u8], largest: &[u8], sequence: SequenceNumber) -> bool {
        let mut covered_to: Option<&[u8]> = None;
        for (_, range) in self.above(smallest, Some(largest), 0) {
            let joins = match covered_to {
                None => range.start <= smallest,
                Some(end) => range.start == *end,
            };
            if !joins || range.sequence <= sequence {
                return false;
            }
            covered_to = Some(&range.end);
        }
        covered_to.is_some_and(|end| end > largest)
    }

    /// Those above `lower_bound` that cover anything from `smallest` to `largest` (no bound: to the last key), both
    /// included, each with how many come before it. Chunks without any are passed over.
    pub fn above<'a>(
        &'a self,
        smallest: &[u8],
        largest: Option<&'a [u8]>,
        lower_bound: SequenceNumber,
    ) -> impl Iterator<Item = (usize, &'a RangeTombstone)> + use<'a> {
        self.walk_from(self.first_ending_after(smallest), largest, lower_bound)
    }

    /// The same with the one that ends just before `smallest`, if there is one.
    pub(crate) fn touching<'a>(
        &'a self,
        smallest: &[u8],
        largest: Option<&'a [u8]>,
        lower_bound: SequenceNumber,
    ) -> impl Iterator<Item = (usize, &'a RangeTombstone)> + use<'a> {
        self.walk_from(self.first_that(|range| range.end >= smallest), largest, lower_bound)
    }

    fn walk_from<'a>(
        &'a self,
        from: Place,
        largest: Option<&'a [u8]>,
        lower_bound: SequenceNumber,
    ) -> impl Iterator<Item = (usize, &'a RangeTombstone)> + use<'a> {
        // Chunks that begin within the bounds, and the one in which the first key lies.
        let behind = self.chunks.partition_point(|chunk| largest.is_none_or(|largest| chunk.first().start <= largest));
        let chunks = self.chunks.iter().zip(&self.before).take(behind).skip(from.chunk).enumerate();
        let chunks = chunks.inspect(|_| work::note(1)).filter(move |(_, (chunk, _))| chunk.newest > lower_bound);
        let ranges = chunks.flat_map(move |(i, (chunk, before))| {
            let skip = if i == 0 { from.at } else { 0 };
            let behind = chunk.ranges.partition_point(|range| largest.is_none_or(|largest| range.start <= largest));
            chunk.ranges.iter().enumerate().take(behind).skip(skip).map(move |(at, range)| (before + at, range))
        });
        ranges.inspect(|_| work::note(1)).filter(move |(_, range)| range.sequence > lower_bound)
    }

    /// A key of `start..end` (no bound: all that follow) that a tombstone above `since` covers.
    pub fn covered_since(&self, start: &[u8], end: Option<&[u8]>, since: SequenceNumber) -> Option<Bytes> {
        let (_, range) = self.above(start, end, since).next()?;
        let key = if range.start < start { Bytes::copy_from_slice(start) } else { range.start.clone() };
        end.is_none_or(|end| key < end).then_some(key)
    }

    /// With these, which are ascending and disjoint, too; of two over a key the newer one stays.
    pub(crate) fn with(&self, added: &[RangeTombstone]) -> RangeTombstones {
        self.changed(added, newest_of_both)
    }

    /// Without what is at or below the number of any of these in its range; they are ascending and disjoint.
    pub(crate) fn without(&self, spent: &[RangeTombstone]) -> RangeTombstones {
        self.changed(spent, not_in)
    }

    /// Changes what `changes`, which are ascending and disjoint, touch; shares the rest.
    fn changed(
        &self,
        changes: &[RangeTombstone],
        change: impl Fn(&[RangeTombstone], &[RangeTombstone]) -> Vec<RangeTombstone>,
    ) -> RangeTombstones {
        debug_assert!(changes.windows(2).all(|pair| pair[0].end <= pair[1].start), "changes are disjoint");
        let mut result: Vec<Arc<Chunk>> = Vec::with_capacity(self.chunks.len() + 1);
        let mut chunks = self.chunks.iter().peekable();
        let mut rest = changes;
        while let Some(first) = rest.first() {
            while let Some(chunk) = chunks.next_if(|chunk| chunk.last().end < first.start) {
                push_chunk(&mut result, chunk.clone());
            }
            // Chunks and changes that touch each other, and changes in the same gap.
            let (mut old, mut count, mut reach) = (Vec::new(), 0, &first.start);
            loop {
                if let Some(chunk) = chunks.next_if(|chunk| chunk.first().start <= *reach) {
                    old.extend_from_slice(&chunk.ranges);
                    reach = reach.max(&chunk.last().end);
                    continue;
                }
                let Some(next) = rest.get(count) else { break };
                if next.start > *reach && chunks.peek().is_some_and(|chunk| chunk.first().start < next.start) {
                    break;
                }
                reach = reach.max(&next.end);
                count += 1;
            }
            let (touching, others) = rest.split_at(count);
            cut(change(&old, touching)).for_each(|chunk| push_chunk(&mut result, chunk));
            rest = others;
        }
        chunks.for_each(|chunk| push_chunk(&mut result, chunk.clone()));
        RangeTombstones::of_chunks(result)
    }

    fn get(&self, place: Place) -> Option<&RangeTombstone> {
        self.chunks.get(place.chunk)?.ranges.get(place.at)
    }

    fn before(&self, place: Place) -> Option<&RangeTombstone> {
        match place.at.checked_sub(1) {
            Some(at) => self.get(Place { at, ..place }),
            None => self.chunks.get(place.chunk.checked_sub(1)?).map(|chunk| chunk.last()),
        }
    }

    fn first_ending_after(&self, user_key: &[u8]) -> Place {
        self.first_that(|range| range.end > user_key)
    }

    /// The first that is so; all behind it are so, too.
    fn first_that(&self, is_so: impl Fn(&RangeTombstone) -> bool) -> Place {
        let is_not = |range: &RangeTombstone| {
            work::note(1);
            !is_so(range)
        };
        let chunk = self.chunks.partition_point(|chunk| is_not(chunk.last()));
        let at = self.chunks.get(chunk).map_or(0, |chunk| chunk.ranges.partition_point(is_not));
        Place { chunk, at }
    }
}

impl PartialEq for RangeTombstones {
    fn eq(&self, other: &RangeTombstones) -> bool {
        self.iter().eq(other.iter())
    }
}

/// In chunks of about the same size.
fn cut(ranges: Vec<RangeTombstone>) -> impl Iterator<Item = Arc<Chunk>> {
    let count = ranges.len().div_ceil(CHUNK_MAX).max(1);
    let size = ranges.len().div_ceil(count).max(1);
    let mut ranges = ranges.into_iter();
    std::iter::from_fn(move || {
        let chunk: Vec<_> = ranges.by_ref().take(size).collect();
        (!chunk.is_empty()).then(|| Chunk::new(chunk))
    })
}

/// Adds a chunk behind the others; small neighbours are joined, so that there are never many more than are needed.
fn push_chunk(chunks: &mut Vec<Arc<Chunk>>, chunk: Arc<Chunk>) {
    match chunks.last_mut() {
        Some(last) if last.ranges.len() + chunk.ranges.len() <= CHUNK_MAX / 2 => {
            let mut together = last.ranges.clone();
            chunk.ranges.iter().for_each(|range| push_joined(&mut together, range.clone()));
            *last = Chunk::new(together);
        }
        _ => chunks.push(chunk),
    }
}

/// The parts of `ranges` that are not in one of `spent` with a number at or above theirs.
fn not_in(ranges: &[RangeTombstone], spent: &[RangeTombstone]) -> Vec<RangeTombstone> {
    let mut left = Vec::with_capacity(ranges.len());
    let mut spent = spent;
    for range in ranges {
        let passed = spent.iter().take_while(|spent| spent.end <= range.start).count();
        spent = spent.get(passed..).unwrap_or_default();
        let mut start = range.start.clone();
        for spent in spent.iter().take_while(|spent| spent.start < range.end) {
            work::note(1);
            if spent.sequence >= range.sequence {
                if start < spent.start {
                    push_joined(&mut left, RangeTombstone { start, end: spent.start.clone(), ..range.clone() });
                }
                start = spent.end.clone();
            }
        }
        if start < range.end {
            push_joined(&mut left, RangeTombstone { start, ..range.clone() });
        }
    }
    left
}

#[cfg(test)]
#[path = "flushed_test.rs"]
mod tests;
