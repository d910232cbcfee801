//! Regions whose replica was in a lost directory get a new one: their leaders remove the old replica and add one in the
//! directory that replaced the lost one ([`super::membership`], 5).
//!
//! There is no record of ordered changes: each check compares the present state of a region with the intended one, so a
//! change of leadership or a crash at any moment only delays the next change. Every region belongs on the stores that
//! have the first regions: splits keep it there.

use super::first_regions::placement_stores;
use super::{Driver, Pending};
use kontiki_placement::Now;
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Event, MemberChange, Peer, Region, StoreId, replica_id};

/// Ticks between checks.
pub(super) const LOOK_TICKS: u64 = 10;

impl Driver {
    /// Orders the recovery of each region that this node leads and that is not recovered yet.
    pub(super) fn recover_regions(&mut self, now: Now) {
        let recovery = self.store.recovery().clone();
        if recovery.number == 0 {
            return;
        }
        let led = self.store.status().into_iter().filter(|status| status.leads).map(|status| status.region);
        for region in led.filter(|region| recovery.is_due(region)).collect::<Vec<_>>() {
            let command = Command { epoch: region.epoch, action: Action::Recover(recovery.clone()) };
            let (region, ticket) = (region.id, self.pending.add(Pending::Abandoned));
            self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
        }
    }

    /// Orders the next change of each region that this node leads and that needs one.
    pub(super) fn replace_lost_replicas(&mut self, now: Now) {
        if !self.formation.membership.knows_replacements() {
            return;
        }
        let recovery = self.store.recovery().clone();
        let led = self.store.status().into_iter().filter(|status| status.leads).map(|status| status.region);
        // Before a region is recovered, every replica on a lost store counts as lost.
        let led: Vec<_> = led.filter(|region| !recovery.is_due(region)).collect();
        let homes: Vec<StoreId> = placement_stores(&self.config).collect();
        for region in led {
            let replacement = |store| self.formation.membership.replacement_of(store);
            if let Some(change) = next_change(&region, &homes, replacement) {
                let command = Command { epoch: region.epoch, action: Action::ChangeMembers(change) };
                let (region, ticket) = (region.id, self.pending.add(Pending::Abandoned));
                self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
            }
        }
    }
}

/// The next change of a region that belongs on `homes`, if its replica on one of them is not in the directory that
/// replaced a lost one there. `replacement`: such a directory of a store.
fn next_change(
    region: &Region,
    homes: &[StoreId],
    replacement: impl Fn(StoreId) -> Option<u64>,
) -> Option<MemberChange> {
    homes.iter().find_map(|store| {
        let id = replica_id(replacement(*store)?, region.id);
        match region.peer_on(*store) {
            Some(peer) if peer.id == id => None,
            Some(lost) => Some(MemberChange::Remove(lost.id)),
            None => Some(MemberChange::Add(Peer { id, store: *store })),
        }
    })
}

#[cfg(test)]
#[path = "replacement_test.rs"]
mod tests;
