//! Raw scans: a requested range, clipped to the region, iterated in either direction.

use super::answer::pair;
use super::raw_space::RawSpace;
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

    /// Where it ends, or, in reverse, begins; empty is unbounded.
    pub fn upper(&self) -> &Bytes {
        &self.upper
    }

    /// Appends what it finds to `out`.
    pub async fn run(
        &self,
        space: RawSpace,
        view: &dyn View,
        region: &Region,
        progress: &mut ReadProgress<'_, impl YieldPoint>,
        out: &mut Vec<kvrpcpb::KvPair>,
    ) -> Result<(), Failure<NodeError>> {
        let range = space.range(region, &self.lower, &self.upper);
        let mut found = entries(view, space.family, range, self.direction)?;
        for _ in 0..self.limit {
            let Some((stored, value)) = found.next().transpose()? else { break };
            debug_assert!(region.contains(&stored), "the range was clipped");
            let key = space.key_of(stored)?;
            let value = if self.key_only { Bytes::new() } else { value };
            let bytes = key.len() + value.len();
            out.push(pair(key, value));
            progress.added::<kvrpcpb::KvPair>(bytes).await?;
        }
        Ok(())
    }
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
