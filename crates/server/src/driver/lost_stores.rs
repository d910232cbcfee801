//! Unsafe recovery, on the directory of a node that does not run: what it would do, and the one write that orders it.
//!
//! The write changes no region. It records which stores are lost, and from the next start on the replicas on those do
//! not count; the regions' leaders then put the recovery into the logs (`replacement.rs`). So everything that a log
//! holds, splits and changes of members too, is applied as it would have been, on every store that is left alike. The
//! design is in docs/internals/unsafe-recovery.md.

use super::formation::{known_members, other_key, put_incarnation, synced};
use super::membership::Incarnation;
use super::recovery_record::RecoveryRecord;
use crate::families;
use kontiki_engine::{Db, Error as EngineError, StreamId, WriteBatch};
use kontiki_raftlog::StoppedLogs;
use kontiki_raftstore::{LogEnd, PeerRole, RecoverError, Recovery, Region, RegionId, StoreId, log_end, meta};
use std::collections::{BTreeMap, BTreeSet};

/// How far ids are moved ahead of what is known here: more than were reserved by writes that this replica lacks.
const ID_MARGIN: u64 = 1_000_000;

/// What the recovery does to a region with a replica here, as far as its tables say: its log may change its members
/// first.
#[derive(Clone, Debug)]
pub struct RegionPlan {
    /// As it is.
    pub before: Region,
    /// The stores whose replicas are members afterwards.
    pub stores_after: Vec<StoreId>,
    /// Whether it has no majority without the lost stores.
    pub loses_quorum: bool,
    /// The stores on which learners are left, if nothing else is and none of them is named: it is not recovered.
    pub only_learners: Vec<StoreId>,
    /// The tables hold its state through this index of the log.
    pub applied: u64,
    /// How its log ends.
    pub log: LogEnd,
}

/// What a recovery does on a directory.
#[derive(Clone, Debug)]
pub struct LostStores {
    /// The directory's store.
    pub store: StoreId,
    /// Its cluster.
    pub cluster: u64,
    /// By ascending id.
    pub regions: Vec<RegionPlan>,
    /// The directory says so already: there is nothing to do.
    pub is_recorded: bool,
    before: Recovery,
    record: RecoveryRecord,
    incarnations: BTreeMap<StoreId, Incarnation>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedPlan {
    /// No store was named.
    #[error("no lost store is named")]
    NoStore,
    /// The directory has no identity.
    #[error(
        "it is an embedded database, or a directory that has not joined a cluster yet, so it depends on no other store \
         and needs no recovery; name the directory of a node that is left"
    )]
    NotServed,
    /// The directory's own store is named as lost.
    #[error("it is that of store {0} itself; run this on the directories that are left, and name the others")]
    Own(StoreId),
    /// A store that is not known here.
    #[error("store {unknown} is no member; the other members that this directory knows are {known:?}")]
    Unknown {
        /// That store.
        unknown: StoreId,
        /// The others that are known.
        known: Vec<u64>,
    },
    /// The directory records lost stores that were not named.
    #[error(
        "unsafe recovery {number}, which it records, gave up stores {recorded:?}, of which no directory has taken the \
         place of {missing:?}: they stay lost. Name them too; a store that was named by mistake comes back with an empty \
         directory and --replace-lost-directory (docs/guide/lose-a-majority.md)"
    )]
    OtherStores {
        /// The number of the recovery that it records.
        number: u64,
        /// The stores of that.
        recorded: Vec<u64>,
        /// Those that were not named and are still lost.
        missing: Vec<u64>,
    },
    /// A learner was named that is none, or is not needed.
    #[error(
        "region {} cannot go on from a learner on store {}: {why}; name only regions of which nothing but learners is \
         left, and for each the store whose log of it ends last", region.0, store.0
    )]
    Learner {
        /// The region.
        region: RegionId,
        /// The store that was named.
        store: StoreId,
        /// Why not.
        why: &'static str,
    },
    /// Nothing is lost that the others cannot replace.
    #[error(
        "every region here has a majority without these stores, so none needs a recovery; replace the lost directories \
         one after the other: docs/guide/replace-a-disk.md"
    )]
    NotNeeded,
    /// The directory cannot be read, or contradicts itself.
    #[error(transparent)]
    Damaged(#[from] RecoverError),
    /// The state of placement cannot be read.
    #[error(transparent)]
    Placement(#[from] kontiki_placement::Error),
    /// The directory cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Decides what a recovery without the stores `lost` does on a directory, whose raft logs are `logs`, and changes
/// nothing. No timestamp was handed out before that is above `timestamp_min_ms`, as far as the caller knows. The
/// recovery has the next number, or `number`, if that is higher: another directory has it already. Regions in
/// `learners` go on from their learner on the store with it.
pub fn plan(
    db: &Db,
    logs: &StoppedLogs<'_>,
    lost: &BTreeSet<u64>,
    learners: &BTreeMap<u64, u64>,
    number: Option<u64>,
    timestamp_min_ms: u64,
) -> Result<LostStores, RefusedPlan> {
    let lost: BTreeSet<StoreId> = lost.iter().copied().map(StoreId).collect();
    let learners: BTreeMap<_, _> =
        learners.iter().map(|(region, store)| (RegionId(*region), StoreId(*store))).collect();
    let view = db.snapshot();
    // An embedded database has no such family.
    if !db.families().iter().any(|spec| spec.family == families::META) {
        return Err(RefusedPlan::NotServed);
    }
    let identity = meta::identity(families::META, &view)?.ok_or(RefusedPlan::NotServed)?;
    let regions = meta::regions(families::META, &view)?;
    let known = known_members(&view)?;
    check_stores(identity.store, &lost, &known, &regions)?;

    let before = RecoveryRecord::load(&view)?;
    let named_before = before.recovery().learners;
    let given_up = known.iter().filter(|(_, known)| known.is_lost()).map(|(store, _)| *store);
    let given_up: BTreeSet<StoreId> = given_up.collect();
    let is_behind = number.is_some_and(|number| number > before.number);
    // To repeat a recovery, or to give it another number, is to name its stores. A further one adds stores to them.
    let missing: Vec<u64> = given_up.difference(&lost).map(|store| store.0).collect();
    if !missing.is_empty() && (number.is_some() || lost.is_subset(&given_up)) {
        return Err(RefusedPlan::OtherStores { number: before.number, recorded: before.lost, missing });
    }
    let names_more = learners.iter().any(|(region, store)| named_before.get(region) != Some(store));
    let is_recorded = before.number > 0 && lost.is_subset(&given_up) && !is_behind && !names_more;
    let recovery = if is_recorded {
        before.recovery()
    } else {
        let lost = &lost | &given_up;
        check_learners(&lost, &learners, &regions)?;
        Recovery { number: number.unwrap_or(0).max(before.number + 1), lost, learners }
    };
    let names_learners = !recovery.learners.is_empty();
    let regions: Vec<RegionPlan> = regions
        .into_iter()
        .map(|region| plan_region((db, logs), &recovery, region))
        .collect::<Result<_, RefusedPlan>>()?;
    if !is_recorded
        && !is_behind
        && !names_learners
        && !regions.is_empty()
        && !regions.iter().any(|region| region.loses_quorum)
    {
        return Err(RefusedPlan::NotNeeded);
    }

    let bounds = kontiki_placement::bounds(&view)?;
    let greatest = regions.iter().map(|region| region.before.id.0).max().unwrap_or(0);
    let record = RecoveryRecord {
        timestamp_min_ms: timestamp_min_ms.max(bounds.timestamp_ms).max(before.timestamp_min_ms),
        id_min: bounds.id.max(greatest).saturating_add(ID_MARGIN).max(before.id_min),
        ..RecoveryRecord::of(&recovery)
    };
    let new = recovery.lost.iter().filter(|store| !given_up.contains(store));
    let incarnations = new.map(|store| (*store, Incarnation::lost(known.get(store).copied()))).collect();
    let (store, cluster, before) = (identity.store, identity.cluster, before.recovery());
    Ok(LostStores { store, cluster, regions, is_recorded, before, record, incarnations })
}

fn check_stores(
    own: StoreId,
    lost: &BTreeSet<StoreId>,
    known: &BTreeMap<StoreId, Incarnation>,
    regions: &[Region],
) -> Result<(), RefusedPlan> {
    if lost.is_empty() {
        return Err(RefusedPlan::NoStore);
    }
    if lost.contains(&own) {
        return Err(RefusedPlan::Own(own));
    }
    let members = regions.iter().flat_map(|region| region.peers.iter().map(|peer| peer.store));
    let others: BTreeSet<StoreId> = members.chain(known.keys().copied()).filter(|store| *store != own).collect();
    match lost.difference(&others).next() {
        Some(unknown) => {
            Err(RefusedPlan::Unknown { unknown: *unknown, known: others.iter().map(|store| store.0).collect() })
        }
        None => Ok(()),
    }
}

/// What the tables here show of regions that are to go on from a learner. A directory without a replica of one cannot
/// say anything of it.
fn check_learners(
    lost: &BTreeSet<StoreId>,
    learners: &BTreeMap<RegionId, StoreId>,
    regions: &[Region],
) -> Result<(), RefusedPlan> {
    for (region, store) in learners {
        let refused = |why| Err(RefusedPlan::Learner { region: *region, store: *store, why });
        if lost.contains(store) {
            return refused("the store is lost");
        }
        let Some(found) = regions.iter().find(|found| found.id == *region) else { continue };
        if found.peer_on(*store).is_none() {
            return refused("it has no replica there");
        }
        let votes = |id| found.role(id) != PeerRole::Learner;
        if found.peers.iter().any(|peer| votes(peer.id) && !lost.contains(&peer.store)) {
            return refused("a voter of it is left, and goes on without that");
        }
    }
    Ok(())
}

fn plan_region(
    (db, logs): (&Db, &StoppedLogs<'_>),
    recovery: &Recovery,
    before: Region,
) -> Result<RegionPlan, RefusedPlan> {
    let is_due = recovery.is_due(&before);
    let after = recovery.recovered(&before).unwrap_or_else(|_| before.clone());
    Ok(RegionPlan {
        stores_after: after.peers.iter().map(|peer| peer.store).collect(),
        loses_quorum: is_due && recovery.loses_quorum(&before),
        only_learners: recovery.only_learners(&before).iter().filter(|_| is_due).map(|peer| peer.store).collect(),
        applied: meta::applied_index(families::META, &db.snapshot(), before.id)?.unwrap_or(0),
        log: log_end(before.id, &logs.read(StreamId(before.id.0))?)?,
        before,
    })
}

impl LostStores {
    /// The number of the recovery: 1 for the first of a cluster.
    pub fn number(&self) -> u64 {
        self.record.number
    }

    /// The last recovery that the directory records, if there was one.
    pub fn recorded_before(&self) -> Option<&Recovery> {
        Some(&self.before).filter(|before| before.number > 0)
    }

    /// All stores that are lost then: earlier ones too, if no other directory has taken their place.
    pub fn lost(&self) -> &[u64] {
        &self.record.lost
    }

    /// The regions that go on from a learner, and its store.
    pub fn learners(&self) -> impl Iterator<Item = (u64, u64)> {
        self.record.learner_regions.iter().copied().zip(self.record.learner_stores.iter().copied())
    }

    /// What timestamps begin at, in milliseconds.
    pub fn timestamp_min_ms(&self) -> u64 {
        self.record.timestamp_min_ms
    }

    /// What ids begin at.
    pub fn id_min(&self) -> u64 {
        self.record.id_min
    }

    /// Records it in the directory, in one synced write: after a crash it is done or not begun.
    pub fn record(&self, db: &Db) -> Result<(), EngineError> {
        if self.is_recorded {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        self.record.put(&mut batch);
        for (store, lost) in &self.incarnations {
            put_incarnation(&mut batch, &other_key(*store), lost);
        }
        db.commit(synced(batch)).map(|_| ())
    }
}

#[cfg(test)]
#[path = "lost_stores_test.rs"]
mod tests;
