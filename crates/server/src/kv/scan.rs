//! Raw scans: a requested range, clipped to the region, iterated in either direction.

use super::answer::pair;
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_engine::{Direction, Entries, Family, Range, View};
use kontiki_proto::kvrpcpb;
use kontiki_raftstore::Region;
use kontiki_txn::{Failure, ReadProgress, YieldPoint};

/// One scan. Only its limit ends it early: clients take fewer entries as the end of the region, so an answer that
/// becomes too large is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Inclusive; empty is unbounded.
    lower: Bytes,
    /// Exclusive; empty is unbounded.
    upper: Bytes,
    limit: usize,
    key_only: bool,
    direction: Direction,
}

impl Scan {
    /// From a request: a reverse scan names its exclusive upper bound first.
    pub fn new(start: Bytes, end: Bytes, limit: u32, key_only: bool, reverse: bool) -> Scan {
        let (lower, upper, direction) =
            if reverse { (end, start, Direction::Backward) } else { (start, end, Direction::Forward) };
        Scan { lower, upper, limit: limit as usize, key_only, direction }
    }

    /// Where it begins, or, in reverse, ends; empty is unbounded.
    pub fn lower(&self) -> &Bytes {
        &self.lower
    }

    /// Appends what it finds to `out`.
    pub async fn run(
        &self,
        view: &dyn View,
        region: &Region,
        progress: &mut ReadProgress<'_, impl YieldPoint>,
        out: &mut Vec<kvrpcpb::KvPair>,
    ) -> Result<(), Failure<NodeError>> {
        let range = clip(&self.lower, &self.upper, region);
        let mut found = entries(view, Family::DEFAULT, range, self.direction)?;
        for _ in 0..self.limit {
            let Some((key, value)) = found.next().transpose()? else { break };
            debug_assert!(region.contains(&key), "the range was clipped");
            let value = if self.key_only { Bytes::new() } else { value };
            let bytes = key.len() + value.len();
            out.push(pair(key, value));
            progress.added::<kvrpcpb::KvPair>(bytes).await?;
        }
        Ok(())
    }
}

/// `[lower, upper)` within the region; an empty bound is unbounded. May be empty or inverted.
pub(super) fn clip(lower: &Bytes, upper: &Bytes, region: &Region) -> Range {
    let start = lower.max(&region.start_key).clone();
    let end = match (upper.is_empty(), region.end_key.is_empty()) {
        (true, _) => region.end_key.clone(),
        (_, true) => upper.clone(),
        _ => upper.min(&region.end_key).clone(),
    };
    let bound = |key: Bytes| (!key.is_empty()).then_some(key);
    Range { start: bound(start), end: bound(end) }
}

/// The entries of a range; none if it is inverted.
pub(super) fn entries(
    view: &dyn View,
    family: Family,
    range: Range,
    direction: Direction,
) -> Result<Box<dyn Entries>, Failure<NodeError>> {
    let upside_down = matches!((&range.start, &range.end), (Some(start), Some(end)) if start >= end);
    if upside_down {
        return Ok(Box::new(Nothing));
    }
    Ok(view.entries(family, range, direction)?)
}

struct Nothing;

impl Iterator for Nothing {
    type Item = kontiki_engine::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}

impl Entries for Nothing {
    fn seek(&mut self, _: &[u8]) -> kontiki_engine::Result<()> {
        Ok(())
    }
}
