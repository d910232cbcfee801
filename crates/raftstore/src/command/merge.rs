//! A merge: the source stops, and its neighbour takes the range.
//!
//! Preparing changes both parts of the source's epoch: no request that was routed before, and no membership change that
//! was proposed before, is accepted afterwards. A merge that is rolled back changes the version again, so a late
//! preparation or commit does not fit either. The replicas of both regions are on the same stores: each replica of the
//! target finds the source's data on its own store.

use super::Merging;
use super::decide::{Change, Refusal};
use crate::region::{Epoch, Region, StoreId};
use std::collections::BTreeSet;

pub(super) fn prepare(source: &Region, target: Region, replicated_index: u64) -> Result<Change, Refusal> {
    check(source, &target)?;
    let Epoch { conf_version, version } = source.epoch;
    let region = Region { epoch: Epoch { conf_version: conf_version + 1, version: version + 1 }, ..source.clone() };
    Ok(Change::MergePrepared { region, merging: Merging { target, replicated_index } })
}

pub(super) fn commit(target: &Region, source: &Region) -> Result<Change, Refusal> {
    check(source, target)?;
    let version = target.epoch.version.max(source.epoch.version).checked_add(1);
    let version = version.ok_or(Refusal::Impossible("a version has no successor"))?;
    let mut region = Region { epoch: Epoch { version, ..target.epoch }, ..target.clone() };
    if follows(source, target) {
        region.end_key = source.end_key.clone();
    } else {
        region.start_key = source.start_key.clone();
    }
    Ok(Change::MergeCommitted { region })
}

pub(super) fn roll_back(source: &Region) -> Change {
    let epoch = Epoch { version: source.epoch.version + 1, ..source.epoch };
    Change::MergeRolledBack { region: Region { epoch, ..source.clone() } }
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
    if source.is_joint() || target.is_joint() {
        return Err(Refusal::Impossible("regions are not merged in a joint configuration"));
    }
    if stores(source) != stores(target) {
        return Err(Refusal::Impossible("the replicas of regions that are merged are on the same stores"));
    }
    Ok(())
}
