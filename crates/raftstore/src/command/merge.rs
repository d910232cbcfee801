//! A merge: the source stops, and its neighbour takes the range. docs/internals/merge.md has the design.
//!
//! Preparing changes both parts of the source's epoch: no request that was routed before, and no membership change that
//! was proposed before, is accepted afterwards. A merge that is rolled back changes the version again, so a late
//! preparation or commit does not fit either. A merge is committed only while the target has the very epoch that the
//! preparation names; so the target's log decides between the commit and every other change of that epoch. The replicas
//! of both regions are on the same stores: each replica of the target finds the source's data on its own store.

use super::decide::{Change, Refusal};
use crate::region::{Epoch, Merges, Merging, Region, StoreId};
use std::collections::BTreeSet;

pub(super) fn prepare(source: &Region, target: &Region, replicated_index: u64) -> Result<Change, Refusal> {
    check(source, target)?;
    let Epoch { conf_version, version } = source.epoch;
    let (target, target_epoch) = (target.id, target.epoch);
    let merging = Merging { target, target_epoch, replicated_index, prepared_index: 0 };
    let merges = Merges { preparing: Some(Box::new(merging)), ..source.merges.clone() };
    let epoch = Epoch { conf_version: conf_version + 1, version: version + 1 };
    Ok(Change::MergePrepared { region: Region { epoch, merges, ..source.clone() } })
}

pub(super) fn commit(target: &Region, source: Region, prepared_index: u64) -> Result<Change, Refusal> {
    check(&source, target)?;
    let is_of_preparation = |merging: &Merging| {
        (merging.target, merging.target_epoch, merging.prepared_index) == (target.id, target.epoch, prepared_index)
    };
    if !source.merging().is_some_and(is_of_preparation) {
        return Err(Refusal::Impossible("a merge is prepared, for this target as it is, before it is committed"));
    }
    let version = target.epoch.version.max(source.epoch.version).checked_add(1);
    let version = version.ok_or(Refusal::Impossible("a version has no successor"))?;
    let merges = target.absorbing(&source, version);
    // Reads below the source's are refused for all keys from now on, which costs some of them and is always right.
    let gc_safe_point = target.gc_safe_point.max(source.gc_safe_point);
    let mut region = Region { epoch: Epoch { version, ..target.epoch }, merges, gc_safe_point, ..target.clone() };
    if follows(&source, target) {
        region.end_key = source.end_key.clone();
    } else {
        region.start_key = source.start_key.clone();
    }
    Ok(Change::MergeCommitted { region, source, prepared_index })
}

pub(super) fn roll_back(source: &Region) -> Change {
    let epoch = Epoch { version: source.epoch.version + 1, ..source.epoch };
    let merges = Merges { preparing: None, ..source.merges.clone() };
    Change::MergeRolledBack { region: Region { epoch, merges, ..source.clone() } }
}

/// Whether `right` begins where `left` ends.
fn follows(right: &Region, left: &Region) -> bool {
    !left.end_key.is_empty() && left.end_key == right.start_key
}

fn check(source: &Region, target: &Region) -> Result<(), Refusal> {
    let stores = |region: &Region| region.peers.iter().map(|peer| peer.store).collect::<BTreeSet<StoreId>>();
    if source.id == target.id || source.space != target.space {
        return Err(Refusal::Impossible("a region is merged with another one of the same space"));
    }
    if follows(source, target) == follows(target, source) {
        return Err(Refusal::Impossible("regions that are merged are neighbours"));
    }
    if !source.roles.is_empty() || !target.roles.is_empty() {
        return Err(Refusal::Impossible("all replicas of regions that are merged are voters"));
    }
    if target.merging().is_some() {
        return Err(Refusal::Impossible("the target of a merge is not the source of another"));
    }
    if stores(source) != stores(target) {
        return Err(Refusal::Impossible("the replicas of regions that are merged are on the same stores"));
    }
    Ok(())
}
