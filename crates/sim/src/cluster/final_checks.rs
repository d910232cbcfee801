//! The final checks of a run.

use super::{Cluster, LIVENESS, Report};
use crate::check::records::{self, Commits};
use crate::check::snapshot_isolation::{End, Transaction};
use crate::check::{durability, linearizability, outcomes, replicas, serializability, snapshot_isolation, timestamps};
use crate::history::{Answer, Operation, Outcome};
use crate::workload::{Behaviour, amount, connect, options};
use crate::world::NodeId;
use bytes::Bytes;
use kontiki_engine::Range;
use kontiki_raftstore::{Region, RegionId, Space, StoreId, meta};
use kontiki_server::families;
use kontiki_state::StateView;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Steps that the search of one key's history may take.
const SEARCH_STEPS_MAX: u64 = 2_000_000;
/// The client number of the reader of the final state.
pub(super) const FINAL_CLIENT: u64 = 1_000;

impl Cluster {
    /// Looks at everything that was promised.
    pub fn run_final_checks(&mut self) {
        self.read_final_state();
        self.read_bank();
        self.resolve_locks();
        self.compare_replicas();
        self.audit_bank();
        self.violations.extend(self.checks.watch.violations());
        self.violations.extend(self.checks.digests.difference());
        self.violations.extend(self.checks.commands.overlap());
        self.violations.extend(self.records.violations.borrow().iter().take(3).cloned());
        self.find_leaks();
        let history = self.records.history.lock().clone();
        let report = linearizability::check(&history, SEARCH_STEPS_MAX);
        self.violations.extend(report.violations.iter().map(|(_, violation)| format!("not linearizable: {violation}")));
        self.keys_checked = report.keys_checked;
        self.keys_not_checked = report.keys_not_checked.len();
        let records = &self.records;
        let checks = [
            ("timestamps", timestamps::check(&records.grants.lock())),
            ("ids", timestamps::check(&records.ids.borrow())),
            ("safe points", timestamps::check_rising(&records.safe_points.borrow())),
        ];
        let broken = checks.into_iter().filter_map(|(what, checked)| Some((what, checked.err()?)));
        self.violations.extend(broken.map(|(what, violation)| format!("{what}: {violation}")));
        self.violations.extend(self.world.failures().iter().cloned());
    }

    /// Takes a last snapshot of the bank.
    fn read_bank(&mut self) {
        let Some(settings) = self.bank.clone() else { return };
        let teller = self.teller(FINAL_CLIENT + 1, settings.clone(), Behaviour::default());
        let done: Rc<Cell<bool>> = Rc::default();
        let reported = done.clone();
        // Locks of clients that died may have some time to live.
        self.world.spawn_client(async move {
            let mut teller = teller.await;
            while !teller.snapshot().await {}
            reported.set(true);
        });
        let deadline = self.world.now() + LIVENESS;
        if !self.world.run_until_done(deadline, |_| done.get()) {
            self.violations.push("the bank cannot be read though everything is healed".into());
        }
    }

    /// Checks what all transactions saw, and what became of them.
    fn audit_bank(&mut self) {
        let Some(settings) = self.bank.clone() else { return };
        let mut commits = Commits::new();
        for snapshot in self.snapshots() {
            if let Err(error) = records::collect_commits(&snapshot, &mut commits) {
                self.violations.push(format!("a replica cannot be read: {error}"));
                return;
            }
        }
        let mut transactions = self.records.transactions.borrow_mut();
        let checks = [
            outcomes::settle(&mut transactions, &commits),
            snapshot_isolation::check(&transactions),
            serializability::check(&transactions).map(drop),
        ];
        let broken = checks.into_iter().filter_map(Result::err);
        self.violations.extend(broken.map(|violation| format!("transactions: {violation}")));
        if self.records.bank_is_open.get() {
            // Before it was open there is nothing to add up, and a snapshot may be older than the opening.
            let opened = |transaction: &&Transaction| transaction.reads.iter().all(|(_, value)| value.is_some());
            let full: Vec<Transaction> = transactions.iter().filter(opened).cloned().collect();
            let accounts = settings.accounts as usize;
            if let Err(violation) = snapshot_isolation::check_totals(&full, accounts, settings.total(), amount) {
                self.violations.push(format!("the bank: {violation}"));
            }
        }
    }

    /// Reads every key through the cluster; what is acknowledged must be there.
    fn read_final_state(&mut self) {
        let keys: BTreeSet<Bytes> =
            self.records.history.lock().records().iter().map(|record| record.key.clone()).collect();
        let state: Rc<RefCell<BTreeMap<Bytes, Bytes>>> = Rc::default();
        let unread: Rc<RefCell<BTreeSet<Bytes>>> = Rc::new(RefCell::new(keys.clone()));
        let (found, left) = (state.clone(), unread.clone());
        let (connection, history) = (self.connection(FINAL_CLIENT), self.records.history.clone());
        let (nodes, executor) = (self.nodes.clone(), connection.executor().clone());
        self.world.spawn_client(async move {
            let client = connect(connection, nodes, options(LIVENESS, false)).await.raw();
            for key in keys {
                let id = history.lock().invoke(FINAL_CLIENT, key.clone(), Operation::Get, executor.now());
                let Ok(value) = client.get(key.clone()).await else { break };
                let outcome = Outcome::Ok(Answer::Value(value.clone()));
                history.lock().complete(id, outcome, executor.now());
                found.borrow_mut().extend(value.map(|value| (key.clone(), value)));
                left.borrow_mut().remove(&key);
            }
        });
        let (deadline, left) = (self.world.now() + LIVENESS, unread.clone());
        if !self.world.run_until_done(deadline, |_| left.borrow().is_empty()) {
            let count = unread.borrow().len();
            self.violations.push(format!("{count} keys cannot be read though everything is healed"));
            return;
        }
        let lost = durability::check(&self.records.history.lock(), &state.borrow());
        self.violations.extend(lost.iter().map(|violation| violation.to_string()));
    }

    pub(super) fn snapshots(&self) -> Vec<StateView> {
        let handles = self.world.nodes().filter_map(|(_, node)| node.handle());
        handles.map(|handle| handle.state().snapshot()).collect()
    }

    /// Waits until the replicas of every region have applied the same, and compares them byte by byte.
    pub(super) fn compare_replicas(&mut self) {
        let deadline = self.world.now() + LIVENESS;
        while let Some(why) = self.lagging() {
            if self.world.now() >= deadline {
                let replicas = self.replicas_as_text();
                self.violations.push(format!("replicas do not catch up: {why}\n{replicas}"));
                return;
            }
            let next = self.world.now() + Duration::from_millis(20);
            self.world.run_until(next);
            if self.world.now() < next {
                self.violations.push("the world stands still: no node runs".into());
                return;
            }
        }
        let snapshots = self.snapshots();
        let regions = newest_regions(&snapshots);
        for region in &regions {
            let members: Vec<&StateView> = members_of(region, &snapshots).collect();
            for other in members.iter().skip(1) {
                self.compare_region(region, members[0], other);
            }
        }
        self.find_leftovers(&regions, &snapshots);
        self.check_tiles(regions);
    }

    /// No node has keys outside of its replicas.
    fn find_leftovers(&mut self, regions: &[Region], snapshots: &[StateView]) {
        for (snapshot, node) in snapshots.iter().zip(1..) {
            let count = |range: &Range| match replicas::compare(snapshot, snapshot, &families::DATA_FAMILIES, range) {
                Ok(Ok(count)) => count,
                unreadable => panic!("node {node} compared with itself: {unreadable:?}"),
            };
            let own = regions.iter().filter(|region| region.peer_on(StoreId(node)).is_some());
            let own = own.filter(|region| region.space == Space::Data);
            let expected: u64 = own.map(|region| count(&Range::region(&region.start_key, &region.end_key))).sum();
            let found = count(&Range::all());
            if found != expected {
                self.violations.push(format!("node {node} has {found} keys, but {expected} in its regions"));
            }
        }
    }

    fn compare_region(&mut self, region: &Region, one: &StateView, other: &StateView) {
        let (data, placement) = (families::DATA_FAMILIES.to_vec(), vec![families::PLACEMENT]);
        let own_families = if region.space == Space::System { placement } else { data };
        let mut compared = vec![(own_families, Range::region(&region.start_key, &region.end_key))];
        compared.extend(meta::replicated_ranges(region.id).map(|range| (vec![families::META], range)));
        for (families, range) in compared {
            match replicas::compare(one, other, &families, &range) {
                Ok(Ok(_)) => {}
                Ok(Err(difference)) => self.violations.push(format!("replicas differ: {difference}")),
                Err(error) => self.violations.push(format!("a replica cannot be read: {error}")),
            }
        }
    }

    /// What is not equal yet: replicas of a region, or one that is not a member's.
    fn lagging(&self) -> Option<String> {
        let snapshots = self.snapshots();
        if snapshots.len() != self.nodes.len() {
            return Some("a node is down".into());
        }
        newest_regions(&snapshots).into_iter().find_map(|region| {
            let is_joint = region.is_joint();
            let applied: Vec<(u64, Option<u64>)> = self
                .nodes
                .iter()
                .copied()
                .zip(snapshots.iter().map(|snapshot| applied_index(snapshot, region.id)))
                .collect();
            let of_members = applied.iter().filter(|(node, _)| region.peer_on(StoreId(*node)).is_some());
            let indices: BTreeSet<Option<u64>> = of_members.map(|(_, index)| *index).collect();
            let is_left =
                |(node, index): &(u64, Option<u64>)| region.peer_on(StoreId(*node)).is_none() && index.is_some();
            let is_equal = indices.len() == 1 && !indices.contains(&None) && !applied.iter().any(is_left);
            (is_joint || !is_equal).then(|| format!("{applied:?} applied of {region:?}"))
        })
    }

    /// The regions cover all keys, each once.
    fn check_tiles(&mut self, regions: Vec<Region>) {
        let mut regions: Vec<Region> = regions.into_iter().filter(|region| region.space == Space::Data).collect();
        regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        self.regions = regions.len();
        self.merges = regions.iter().map(|region| region.merges.absorbed.len()).sum();
        // A region that a split makes begins with the changes of its parent.
        self.member_changes = regions.iter().map(|region| region.epoch.conf_version - 1).max().unwrap_or(0);
        let ends = regions.iter().map(|region| &region.end_key);
        let starts = regions.iter().skip(1).map(|region| &region.start_key);
        let (first, last) = (regions.first(), regions.last());
        let is_whole =
            first.is_some_and(|first| first.start_key.is_empty()) && last.is_some_and(|last| last.end_key.is_empty());
        if !is_whole || !ends.zip(starts).all(|(end, start)| end == start) {
            self.violations.push(format!("the regions do not cover all keys once: {regions:?}"));
        }
    }

    /// How far each replica is, a line each.
    fn replicas_as_text(&self) -> String {
        let replicas = self.world.nodes().flat_map(|(id, node)| {
            let remains = node.remains();
            remains.into_iter().flat_map(|remains| remains.replicas).map(move |replica| (id, replica))
        });
        let line = |(id, replica): (NodeId, kontiki_raftstore::RegionStatus)| {
            format!(
                "node {id}, region {}, term {}{}{}: log {} to {} ({} bytes, {} not applied), {} committed, {} applied\n",
                replica.region.id,
                replica.term,
                if replica.leads { ", leads" } else { "" },
                if replica.hibernates { ", hibernates" } else { "" },
                replica.truncated_index,
                replica.last_index,
                replica.log_bytes,
                replica.unapplied_bytes,
                replica.committed_index,
                replica.applied_index,
            )
        };
        replicas.map(line).collect()
    }

    fn pessimistic_commits(&self) -> u64 {
        let transactions = self.records.transactions.borrow();
        let committed = |one: &&Transaction| one.end == End::Committed && one.is_pessimistic;
        transactions.iter().filter(committed).count() as u64
    }

    /// What came of the run.
    pub fn report(self, seed: u64) -> Report {
        let committed = |transaction: &&Transaction| transaction.end == End::Committed;
        Report {
            seed,
            scenario: Some(self.scenario),
            events: self.world.trace().events(),
            trace_hash: self.world.trace().hash(),
            answered: self.records.answered.get(),
            keys_checked: self.keys_checked,
            keys_not_checked: self.keys_not_checked,
            faults: self.world.faults().clone(),
            actions: self.world.actions(),
            transactions: self.records.transactions.borrow().iter().filter(committed).count() as u64,
            pessimistic: self.pessimistic_commits(),
            commits: self.records.commits.get(),
            stale_reads: self.records.stale.get(),
            terms: self.checks.watch.terms_seen(),
            hibernations: self.checks.watch.hibernations(),
            checks: self.world.nodes().map(|(_, node)| node.checks_ended()).sum(),
            regions: self.regions,
            merges: self.merges,
            member_changes: self.member_changes,
            states: self.checks.digests.len(),
            snapshots: self.world.nodes().map(|(_, node)| node.snapshots_installed()).sum(),
            snapshots_as_tables: self.world.nodes().map(|(_, node)| node.snapshots_as_tables()).sum(),
            log_moves: self.world.nodes().map(|(_, node)| node.log_moves()).sum(),
            splits_by_load: self.world.nodes().map(|(_, node)| node.splits_by_load()).sum(),
            entries_read: self.world.nodes().map(|(_, node)| node.entries_read()).sum(),
            virtual_time: self.world.now(),
            lines: self.world.trace().to_string(),
            recovered: None,
            violations: self.violations,
        }
    }
}

fn applied_index(snapshot: &StateView, region: RegionId) -> Option<u64> {
    meta::applied_index(families::META, snapshot, region).ok().flatten()
}

/// The newest descriptor of each region.
pub(super) fn newest_regions(snapshots: &[StateView]) -> Vec<Region> {
    let mut newest: BTreeMap<RegionId, Region> = BTreeMap::new();
    for region in snapshots.iter().flat_map(|snapshot| meta::regions(families::META, snapshot).unwrap_or_default()) {
        let version = |region: &Region| (region.epoch.version, region.epoch.conf_version);
        if newest.get(&region.id).is_none_or(|known| version(known) < version(&region)) {
            newest.insert(region.id, region);
        }
    }
    newest.into_values().collect()
}

/// The snapshots of a region's members; all nodes are up.
fn members_of<'a>(region: &'a Region, snapshots: &'a [StateView]) -> impl Iterator<Item = &'a StateView> {
    let nodes = snapshots.iter().zip(1..);
    nodes.filter(|(_, node)| region.peer_on(StoreId(*node)).is_some()).map(|(snapshot, _)| snapshot)
}
