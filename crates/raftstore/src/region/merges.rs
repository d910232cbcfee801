//! What a region's descriptor says of merges.
//!
//! It is in the descriptor because everything that carries the descriptor has to carry it: the tables, a snapshot of
//! the region, the comparison of replicas. Clients and placement do not need it.

use super::{Epoch, Region, RegionId};

/// Merges that a descriptor remembers. Older ones are forgotten: they only matter to replicas that were away since.
pub const ABSORBED_MAX: usize = 16;

/// A region's part in merges. Empty for most regions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merges {
    /// The region is the source of a merge, and accepts nothing until that is committed or rolled back.
    pub preparing: Option<Box<Merging>>,
    /// The regions whose ranges it took over, and those that these had taken over: the last [`ABSORBED_MAX`], by
    /// ascending version.
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

    /// Whether it is certain that no merge of `source` was committed since the target, which this region is or has
    /// taken over, had `version`. It is not, if merges since then may be forgotten.
    pub fn has_not_absorbed(&self, source: RegionId, version: u64) -> bool {
        let absorbed = &self.merges.absorbed;
        let remembers = absorbed.len() < ABSORBED_MAX || absorbed[0].version <= version;
        remembers && !self.has_absorbed(source)
    }

    /// What is remembered after this region, with `version`, took over the range of `source`.
    pub(crate) fn absorbing(&self, source: &Region, version: u64) -> Merges {
        let mut absorbed = self.merges.absorbed.clone();
        absorbed.extend(source.merges.absorbed.iter().copied());
        absorbed.push(Absorbed { region: source.id, version });
        absorbed.sort_by_key(|absorbed| absorbed.version);
        absorbed.drain(..absorbed.len().saturating_sub(ABSORBED_MAX));
        Merges { preparing: None, absorbed }
    }
}

#[cfg(test)]
#[path = "merges_test.rs"]
mod tests;
