//! Regions whose replica was in a lost directory get a new one: their leaders remove the old replica and add one in the
//! directory that replaced the lost one ([`super::membership`], 5).
//!
//! There is no record of ordered changes: each check compares the present state of a region with the intended one, so a
//! change of leadership or a crash at any moment only delays the next change. Every region belongs on the stores that
//! have the first regions: splits keep it there, unless its replicas were moved by request.

use super::first_regions::placement_stores;
use super::{Driver, Pending};
use kontiki_placement::Now;
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Event, MemberChange, Peer, PeerRole, Region, StoreId, is_replica_of, next_replica_id};
use std::sync::Arc;

/// Ticks between checks.
pub(super) const LOOK_TICKS: u64 = 10;

impl Driver {
    /// Orders the recovery of each region that this node leads and that is not recovered yet.
    pub(super) fn recover_regions(&mut self, now: Now) {
        let recovery = self.store.recovery().clone();
        if recovery.number == 0 {
            return;
        }
        for region in self.led_regions().into_iter().filter(|region| recovery.is_due(region)) {
            self.order(&region, Action::Recover(recovery.clone()), now);
        }
    }

    fn led_regions(&self) -> Vec<Arc<Region>> {
        self.store.status().into_iter().filter(|status| status.leads).map(|status| status.region).collect()
    }

    /// Proposes a command whose answer does not matter: the next check sees whether it was done.
    fn order(&mut self, region: &Region, action: Action, now: Now) {
        let command = Command { epoch: region.epoch, action };
        let (region, ticket) = (region.id, self.pending.add(Pending::Abandoned));
        self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
    }

    /// Orders the next change of each region that this node leads and that needs one.
    pub(super) fn replace_lost_replicas(&mut self, now: Now) {
        if !self.formation.membership.knows_replacements() {
            return;
        }
        let recovery = self.store.recovery().clone();
        let homes: Vec<StoreId> = placement_stores(&self.config).collect();
        let stores: Vec<StoreId> = self.config.members.keys().map(|store| StoreId(*store)).collect();
        // Before a region is recovered, every replica on a lost store counts as lost.
        for region in self.led_regions().into_iter().filter(|region| !recovery.is_due(region)) {
            let replacement = |store| self.formation.membership.replacement_of(store);
            if let Some(change) = next_change(&region, &homes, &stores, replacement) {
                self.order(&region, Action::ChangeMembers(change), now);
            }
        }
    }
}

/// The next change of a region of which a replica is not in the directory that replaced a lost one on its store, or
/// that lacks a voter on such a store. `replacement`: such a directory of a store. `homes`: where regions begin.
fn next_change(
    region: &Region,
    homes: &[StoreId],
    stores: &[StoreId],
    replacement: impl Fn(StoreId) -> Option<u64>,
) -> Option<MemberChange> {
    let others = stores.iter().filter(|store| !homes.contains(store));
    homes.iter().chain(others).find_map(|store| {
        let directory = replacement(*store)?;
        match region.peer_on(*store) {
            Some(peer) if is_replica_of(peer.id, directory, region.id) => {
                let is_needed = region.role(peer.id) == PeerRole::Learner && region.voter_count() < homes.len();
                is_needed.then_some(MemberChange::Promote(peer.id))
            }
            Some(lost) => Some(MemberChange::Remove(lost.id)),
            // It has moved to another store.
            None if region.voter_count() >= homes.len() => None,
            None => {
                let new = Peer { id: next_replica_id(directory, region), store: *store };
                // A second voter is half of every quorum: not before it has data.
                Some(if region.voter_count() == 1 { MemberChange::AddLearner(new) } else { MemberChange::Add(new) })
            }
        }
    })
}

#[cfg(test)]
#[path = "replacement_test.rs"]
mod tests;
