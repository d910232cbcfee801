//! What a region's descriptor says of merges.
//!
//! It is in the descriptor because everything that carries the descriptor has to carry it: the tables, a snapshot of
//! the region, the comparison of replicas. Clients and placement do not need it.

use super::{Epoch, Region, RegionId};

/// Merges of a region that its descriptor remembers, and as many of those that it took over. Older ones are forgotten:
/// they only matter to replicas that were away since.
pub const ABSORBED_MAX: usize = 64;

/// A region's part in merges. Empty for most regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merges {
    /// The region is the source of a merge, and accepts nothing until that is committed or rolled back.
    pub preparing: Option<Box<Merging>>,
    /// The regions whose ranges it took over, in order, and those that these had taken over: of each kind the last
    /// [`ABSORBED_MAX`].
    pub absorbed: Vec<Absorbed>,
}

/// The state of a region between the preparation of a merge and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merging {
    /// The neighbour that will take the range.
    pub target: RegionId,
    /// Its epoch: if it has another one, the merge is not committed any more.
    pub target_epoch: Epoch,
    /// Every replica of the source has the log through here.
    pub replicated_index: u64,
    /// The index of the preparation in the source's log: the last command that belongs to its state.
    pub prepared_index: u64,
}

/// A region that exists no more, because another one took its range over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absorbed {
    /// Which.
    pub region: RegionId,
    /// The version of the other one since then.
    pub version: u64,
    /// The other one.
    pub by: RegionId,
}

/// What took a region over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absorber {
    /// Which region.
    pub region: RegionId,
    /// Its version since then.
    pub version: u64,
}

impl Region {
    /// The merge in which the region is the source.
    pub fn merging(&self) -> Option<&Merging> {
        self.merges.preparing.as_deref()
    }

    /// Whether the region, or one whose range it took over, has taken over that of `source`. `false` is not certain:
    /// see [`Region::has_not_absorbed`].
    pub fn has_absorbed(&self, source: RegionId) -> bool {
        self.merges.absorbed.iter().any(|absorbed| absorbed.region == source)
    }

    /// Whether it is certain that no merge of `source` into `target`, which this region is or has taken over, was
    /// committed since the target had `version`. It is not, if merges since then may be forgotten.
    pub fn has_not_absorbed(&self, source: RegionId, target: RegionId, version: u64) -> bool {
        let is_own = |absorbed: &&Absorbed| (absorbed.by == self.id) == (target == self.id);
        let is_full = self.merges.absorbed.iter().filter(is_own).count() >= ABSORBED_MAX;
        // Those of one region are forgotten in their order.
        let mut of_target = self.merges.absorbed.iter().filter(|absorbed| absorbed.by == target);
        let remembers = !is_full || of_target.any(|absorbed| absorbed.version <= version);
        remembers && !self.has_absorbed(source)
    }

    /// What is remembered after this region, with `version`, took over the range of `source`.
    pub(crate) fn absorbing(&self, source: &Region, version: u64) -> Merges {
        let (mut own, mut inherited): (Vec<Absorbed>, Vec<Absorbed>) =
            self.merges.absorbed.iter().partition(|absorbed| absorbed.by == self.id);
        inherited.extend(source.merges.absorbed.iter());
        own.push(Absorbed { region: source.id, version, by: self.id });
        for list in [&mut own, &mut inherited] {
            list.drain(..list.len().saturating_sub(ABSORBED_MAX));
        }
        Merges { preparing: None, absorbed: inherited.into_iter().chain(own).collect() }
    }
}

#[cfg(test)]
#[path = "merges_test.rs"]
mod tests;
