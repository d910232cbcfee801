//! What a command does to its region: `(region, command) -> change or refusal`.
//!
//! Pure, and equal on all replicas: it depends on the descriptor at the command's place of the log, and on the command.
//! A refused command changes nothing.
//!
//! Epochs: a command is refused unless the version is still the one that its proposer saw. A command that depends on
//! the replicas, too, needs the same conf_version; a write or a checksum does not, because a membership change moves no
//! key. What each accepted command adds:
//!
//! | command | conf_version | version |
//! |---|---|---|
//! | write, checksum, GC safe point | 0 | 0 |
//! | membership change | 1 | 0 |
//! | unsafe recovery | to above all before it (`crate::recovery`) | 0 |
//! | split | 0 | the number of children; they begin with the same epoch |
//! | prepare a merge | 1 | 1 |
//! | roll a merge back | 0 | 1 |
//! | commit a merge | 0 | to 1 above the versions of both |

use super::{Action, Command, merge, split};
use crate::error::RegionError;
use crate::families::Families;
use crate::region::{MemberChange, Region};
use kontiki_engine::WriteBatch;

/// What a command does. The descriptors are those after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes keys; the region stays as it is.
    Write(WriteBatch),
    /// The replicas change.
    Members {
        /// By this.
        change: MemberChange,
        /// The region.
        region: Region,
    },
    /// Lost replicas do not count any more.
    Recovered {
        /// The region.
        region: Region,
    },
    /// The region becomes several.
    Split {
        /// The region.
        region: Region,
        /// Those that are new, in key order.
        children: Vec<Region>,
    },
    /// A merge begins: the region is its source.
    MergePrepared {
        /// The source. The index of the preparation is not filled in.
        region: Region,
    },
    /// A merge ends: the region is its target, and the source exists no more.
    MergeCommitted {
        /// The target.
        region: Region,
        /// The source, as it was last.
        source: Region,
        /// The last index of the source's log that belongs to its state.
        prepared_index: u64,
    },
    /// A merge was given up: the region was its source.
    MergeRolledBack {
        /// The source.
        region: Region,
    },
    /// Versions below a timestamp may be dropped.
    GcSafePoint {
        /// The region.
        region: Region,
    },
    /// A checksum of the state as of this command is to be computed.
    ComputeChecksum {
        /// Over the keys that do not expire before.
        expires_after_ms: u64,
    },
    /// The checksum as of `index` has to be this one.
    VerifyChecksum {
        /// The index.
        index: u64,
        /// The result of the majority.
        checksum: u64,
    },
}

/// Why a command does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The region is not the one any more that the proposer saw.
    Stale,
    /// A write to a key that is not the region's.
    ForeignKey,
    /// The region is the source of a merge, or is not when it should be.
    Merging,
    /// It cannot be made of this region.
    Impossible(&'static str),
}

impl Refusal {
    /// The proposer's answer: the region as it is.
    pub fn answer(self, region: &Region) -> RegionError {
        RegionError::EpochNotMatch { current: vec![region.clone()] }
    }
}

/// See the module.
pub fn decide(families: &Families, region: &Region, command: Command) -> Result<Change, Refusal> {
    let Command { epoch, action } = command;
    let needs_members = !matches!(
        action,
        Action::Write(_)
            | Action::RollbackMerge
            | Action::ComputeChecksum { .. }
            | Action::VerifyChecksum { .. }
            | Action::SetGcSafePoint(_)
    );
    if epoch.version != region.epoch.version || needs_members && epoch.conf_version != region.epoch.conf_version {
        return Err(Refusal::Stale);
    }
    if region.merging().is_some() != matches!(action, Action::RollbackMerge) {
        return Err(Refusal::Merging);
    }
    match action {
        Action::Write(batch) => match families.first_foreign_key(region, &batch) {
            Some(_) => Err(Refusal::ForeignKey),
            None => Ok(Change::Write(batch)),
        },
        Action::ChangeMembers(change) => {
            let region = region.changed(&change).map_err(Refusal::Impossible)?;
            Ok(Change::Members { change, region })
        }
        Action::Recover(recovery) => {
            let region = recovery.recovered(region).map_err(Refusal::Impossible)?;
            Ok(Change::Recovered { region })
        }
        Action::SetGcSafePoint(ts) if ts <= region.gc_safe_point => {
            Err(Refusal::Impossible("the GC safe point of a region never goes back"))
        }
        Action::SetGcSafePoint(gc_safe_point) => {
            Ok(Change::GcSafePoint { region: Region { gc_safe_point, ..region.clone() } })
        }
        Action::Split(children) => split::decide(region, &children),
        Action::PrepareMerge { target, replicated_index } => merge::prepare(region, &target, replicated_index),
        Action::CommitMerge { source, prepared_index, .. } => merge::commit(region, source, prepared_index),
        Action::RollbackMerge => Ok(merge::roll_back(region)),
        Action::ComputeChecksum { expires_after_ms } => Ok(Change::ComputeChecksum { expires_after_ms }),
        Action::VerifyChecksum { index, checksum } => Ok(Change::VerifyChecksum { index, checksum }),
    }
}

#[cfg(test)]
#[path = "decide_test.rs"]
mod tests;
