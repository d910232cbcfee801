//! A majority of the nodes is lost for good, at any moment of a run: a person does what docs/guide/lose-a-majority.md
//! says, and the rest has to go on.
//!
//! What only lost nodes had may be lost, so histories are not linearizable any more, and transactions may be partly
//! gone. What has to hold:
//!
//! - the nodes that are left serve all keys again, and their replicas become equal: the regions cover all keys once,
//!   none is in a joint configuration or frozen by a merge, and every one is recovered;
//! - what a node that is left had applied stays: its states are those that everyone had at the same index;
//! - regions that kept their majority lose no acknowledged write;
//! - one leader per region and term among those that are left, no lease beside another, timestamps and ids go forward.
//!
//! A world is given up without a result if a region has no replica left, or if a node stops because what it has of a
//! merge cannot be united (docs/internals/merge.md): both are limits that the pages state.

use super::{Cluster, ClusterNode, LIVENESS};
use crate::check::{durability, timestamps};
use crate::world::{Fault, NodeId};
use bytes::Bytes;
use kontiki_env::fs::CrashMode;
use kontiki_raftstore::{Peer, PeerRole, Region, RegionId, Space, StoreId, meta};
use kontiki_server::families;
use kontiki_server::stopped::{LostStores, RefusedPlan};
use kontiki_txn::memcomparable_encode;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A node that stops with this text has a merge that cannot be united.
const NOT_UNITED: &str = "after an unsafe recovery";

/// How often the command is run. The first may not see that only learners are left, which an entry of the log says; and
/// a split in the log behind that makes regions of learners that the second could not name.
const COMMANDS_MAX: u64 = 3;

/// How often the service of a key is tried.
const SERVICE_TRIES_MAX: usize = 20;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The nodes that are left went on, and everything was checked.
    Checked,
    /// No region needed it.
    NotNeeded,
    /// A region has no replica on a node that is left.
    WholeRegionLost,
    /// A node stopped at a merge that cannot be united.
    MergeNotUnited,
}

impl Cluster {
    /// Loses all nodes but the first `left` for good, recovers, and checks the rest.
    pub(super) fn lose_majority(&mut self, left: usize) -> Recovered {
        let lost: Vec<NodeId> = self.nodes.split_off(left);
        if self.loses_whole_region(&lost) {
            return Recovered::WholeRegionLost;
        }
        self.checks.watch.forget(&lost);
        self.checks.digests.keep_what_these_have(&self.nodes);
        for id in self.nodes.clone() {
            self.world.crash(id, CrashMode::Random);
        }
        lost.iter().for_each(|id| self.world.lose(*id));
        match self.give_up(&lost, 1) {
            Ok(()) => {}
            Err(RefusedPlan::NotNeeded) => return Recovered::NotNeeded,
            Err(refused) => {
                self.violations.push(format!("the recovery is refused: {refused}"));
                return Recovered::Checked;
            }
        }
        self.heal();
        if self.world.failures().iter().any(|failure| failure.contains(NOT_UNITED)) {
            return Recovered::MergeNotUnited;
        }
        self.check_recovered(&lost);
        Recovered::Checked
    }

    /// Whether all members of a region are lost, as the newest descriptors say.
    fn loses_whole_region(&self, lost: &[NodeId]) -> bool {
        let newest = super::final_checks::newest_regions(&self.snapshots());
        let is_lost = |region: &Region| region.peers.iter().all(|peer| lost.contains(&peer.store.0));
        newest.iter().any(is_lost)
    }

    /// The command, on every directory that is left: without names first, which shows of which regions only learners
    /// are left.
    fn give_up(&mut self, lost: &[NodeId], number: u64) -> Result<(), RefusedPlan> {
        let lost: BTreeSet<u64> = lost.iter().copied().collect();
        let shown: Vec<_> =
            self.nodes.clone().into_iter().map(|id| (id, self.plan(id, &lost, &BTreeMap::new(), None))).collect();
        let plans = || shown.iter().filter_map(|(id, plan)| Some((*id, plan.as_ref().ok()?)));
        if plans().next().is_none() {
            return shown.into_iter().find_map(|(_, plan)| plan.err()).map_or(Ok(()), Err);
        }
        let learners = newest_learners(plans());
        // A directory that sees no need gets the number that the others have, as their nodes would say.
        for number in [None, Some(number)] {
            for id in self.nodes.clone() {
                match self.plan(id, &lost, &learners, number) {
                    Ok(plan) if !plan.is_recorded => self.record(id, &lost, &learners, number),
                    Ok(_) | Err(RefusedPlan::NotNeeded) => {}
                    Err(refused) => return Err(refused),
                }
            }
        }
        Ok(())
    }

    fn plan(
        &mut self,
        id: NodeId,
        lost: &BTreeSet<u64>,
        learners: &BTreeMap<u64, u64>,
        number: Option<u64>,
    ) -> Result<LostStores, RefusedPlan> {
        self.world.node_mut(id).expect("it is left").give_up_stores(lost, learners, number, false)
    }

    fn record(&mut self, id: NodeId, lost: &BTreeSet<u64>, learners: &BTreeMap<u64, u64>, number: Option<u64>) {
        let node = self.world.node_mut(id).expect("it is left");
        let done = node.give_up_stores(lost, learners, number, true);
        assert!(done.is_ok(), "it was planned a moment ago");
    }

    fn check_recovered(&mut self, lost: &[NodeId]) {
        let mut number = 1;
        let mut deadline = self.world.now() + LIVENESS;
        while let Some(region) = self.not_recovered(number) {
            if self.world.now() >= deadline {
                let may_name = number < COMMANDS_MAX && is_only_learners(&region, lost);
                let refused = || Err("it has a voter, or was named".to_owned());
                let named = if may_name { self.name_learners(lost, number + 1) } else { refused() };
                if let Err(why) = named {
                    let what = format!("not recovered from the loss of {lost:?} by command {number}, {why}");
                    self.violations.push(format!("{what}: {region:?}"));
                    return;
                }
                number += 1;
                deadline = self.world.now() + LIVENESS;
            }
            let next = self.world.now() + Duration::from_millis(50);
            self.world.run_until(next);
        }
        self.compare_replicas();
        self.check_durability(lost);
        self.violations.extend(self.checks.watch.violations());
        self.violations.extend(self.checks.digests.difference());
        self.violations.extend(self.checks.commands.overlap());
        self.violations.extend(self.world.failures().iter().cloned());
        // The recovery relies on clocks that are about right.
        if !self.world.faults().contains_key(&Fault::WallJump) {
            let granted = timestamps::check(&self.records.grants.lock());
            self.violations.extend(granted.err().map(|violation| format!("timestamps: {violation}")));
        }
        let ids = timestamps::check(&self.records.ids.borrow());
        self.violations.extend(ids.err().map(|violation| format!("ids: {violation}")));
    }

    /// A log had an entry, which the tables did not show to the command, after which only learners are left: the nodes
    /// are stopped, which writes their tables, and the command is run again, with this number.
    fn name_learners(&mut self, lost: &[NodeId], number: u64) -> Result<(), String> {
        for id in self.nodes.clone() {
            let handle = self.world.node(id).and_then(ClusterNode::handle).ok_or("a node is down")?;
            handle.state().flush().map_err(|error| error.to_string())?;
            self.world.crash(id, CrashMode::Kill);
        }
        self.give_up(lost, number).map_err(|refused| refused.to_string())?;
        self.nodes.clone().into_iter().for_each(|id| self.world.start_after(id, Duration::ZERO));
        Ok(())
    }

    /// A region that is not what the recovery of this number makes of it.
    fn not_recovered(&self, number: u64) -> Option<Region> {
        let snapshots = self.snapshots();
        let regions = snapshots.iter().flat_map(|view| meta::regions(families::META, view).unwrap_or_default());
        let is_done = |region: &Region| {
            region.epoch.conf_version >> 32 >= number && !region.is_joint() && region.merging().is_none()
        };
        let mut regions = regions.into_iter();
        regions.find(|region| !is_done(region))
    }

    /// A region that kept its majority has kept its lost replicas, too.
    fn check_durability(&mut self, lost: &[NodeId]) {
        let newest = super::final_checks::newest_regions(&self.snapshots());
        let kept =
            |region: &&Region| region.space == Space::Data && region.peers.iter().any(|p| lost.contains(&p.store.0));
        let kept: Vec<Region> = newest.iter().filter(kept).cloned().collect();
        let is_kept = |key: &Bytes| {
            let stored = memcomparable_encode(key);
            kept.iter().any(|region| region.contains(&stored))
        };
        let history = self.records.history.lock().of_keys(is_kept);
        let keys: BTreeSet<Bytes> = history.records().iter().map(|record| record.key.clone()).collect();
        let mut state = BTreeMap::new();
        for key in keys {
            let (client, wanted) = (self.client().raw(), key.clone());
            match self.wait(async move { client.get(wanted).await }) {
                Ok(value) => state.extend(value.map(|value| (key, value))),
                Err(error) => return self.violations.push(format!("a key cannot be read: {error}")),
            }
        }
        let broken = durability::check(&history, &state);
        self.violations.extend(broken.iter().map(|violation| violation.to_string()));
        self.check_service();
    }

    /// Everything that is left is served: a put and a get in each region.
    fn check_service(&mut self) {
        for key in ["a", "g000001", "k0003", "zzz"] {
            let mut served = Ok(None);
            // Some callers hang up.
            for _ in 0..SERVICE_TRIES_MAX {
                let client = self.client().raw();
                served = self.wait(async move {
                    client.put(key, "recovered").await?;
                    client.get(key).await
                });
                if served.is_ok() {
                    break;
                }
            }
            if served.as_ref().ok().and_then(Option::as_deref) != Some(b"recovered") {
                self.violations.push(format!("{key} is not served: {served:?}"));
            }
        }
    }
}

/// Whether nothing but learners is left of a region.
fn is_only_learners(region: &Region, lost: &[NodeId]) -> bool {
    let is_left = |peer: &&Peer| !lost.contains(&peer.store.0);
    region.peers.iter().filter(is_left).all(|peer| region.role(peer.id) == PeerRole::Learner)
}

/// Of each region of which only learners are left, the store whose log of it is the newest.
fn newest_learners<'a>(plans: impl Iterator<Item = (NodeId, &'a LostStores)>) -> BTreeMap<u64, u64> {
    let mut newest: BTreeMap<RegionId, ((u64, u64), StoreId)> = BTreeMap::new();
    let mut with_voters: BTreeSet<RegionId> = BTreeSet::new();
    for (id, plan) in plans {
        for region in &plan.regions {
            if region.only_learners.is_empty() {
                with_voters.insert(region.before.id);
                continue;
            }
            let end = ((region.log.term, region.log.index), StoreId(id));
            let known = newest.entry(region.before.id).or_insert(end);
            *known = end.max(*known);
        }
    }
    let only = newest.into_iter().filter(|(region, _)| !with_voters.contains(region));
    only.map(|(region, (_, store))| (region.0, store.0)).collect()
}
