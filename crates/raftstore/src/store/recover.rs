//! Recovery from a directory.

use super::create::Waiting;
use super::found_log::{FoundLog, Logs};
use super::{Store, damaged};
use crate::consensus::Group;
use crate::consensus::log::Position;
use crate::consensus::wire::{AbsorberRecord, GroupState};
use crate::error::RecoverError;
use crate::meta::{self, Tombstone};
use crate::peer::Recovered;
use crate::peer::noted::{Noted, noted_in};
use crate::peer::receive::Incoming;
use crate::region::{Absorber, PeerId, Region, RegionId, Space, StoreId};
use crate::snapshot::SnapshotFile;
use bytes::Bytes;
use kontiki_engine::{StreamContents, StreamId, View};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

/// Where the entries begin that a replica has to be given again.
struct Beginning {
    incoming: Option<Incoming>,
    applied: Position,
    /// What is at or below this index need not be handed out again.
    start: u64,
}

impl Store {
    /// Loads the replicas of the directory: descriptors and applied positions from `meta`, logs from the streams.
    /// Entries that were committed after the applied position are applied again by later polls.
    ///
    /// Called once, before any event. Snapshots that were being installed are installed again from their files (the
    /// tasks come with the first poll); other snapshot files may be removed.
    pub fn recover(&mut self, meta: &dyn View, streams: Vec<(StreamId, StreamContents)>) -> Result<(), RecoverError> {
        self.recover_from(meta, &streams.into_iter().collect::<BTreeMap<StreamId, StreamContents>>())
    }

    /// The same, with logs that are read in one pass: only entries that are not applied come into memory.
    pub fn recover_from(&mut self, meta: &dyn View, logs: &dyn Logs) -> Result<(), RecoverError> {
        assert!(self.identity.is_none(), "a store recovers once");
        let family = self.families.meta;
        let identity = meta::identity(family, meta)?.ok_or(RecoverError::NotBootstrapped)?;
        self.creation.tombstones = meta::tombstones(family, meta)?;
        self.recovery = Arc::new(meta::recovery(family, meta)?);
        let regions = meta::regions(family, meta)?;
        let known: BTreeSet<RegionId> = regions.iter().map(|region| region.id).collect();
        let heads = logs.heads().into_iter().map(|(id, head)| (RegionId(id.0), head));
        let mut found: BTreeMap<_, _> = heads.map(|(id, head)| (id, FoundLog::new(id, head))).collect();
        let logged: BTreeSet<RegionId> = found.keys().copied().collect();
        let mut alone = BTreeMap::new();
        for id in logged.difference(&known) {
            alone.insert(*id, log_state(*id, found[id].state())?);
        }
        let applied = self.skip_applied(identity.store, meta, &regions, &mut found)?;
        scan(logs, &mut found)?;
        for (id, state) in &alone {
            let log = found.remove(id).expect("it is one of those that were found");
            if let Some(by) = state.absorbed_by.filter(|_| is_over(*id, &regions, &alone)) {
                self.recover_absorbed(*id, state, by)?;
                continue;
            }
            let is_here = |region| known.contains(&region) || logged.contains(&region);
            self.recover_log(identity.store, *id, state, log, is_here)?;
        }
        for region in regions {
            let mut log = found.remove(&region.id).expect("a region whose log is missing was refused");
            let Some(applied) = applied.get(&region.id) else {
                self.recover_removed(region, log.state())?;
                continue;
            };
            let held = held_in(&noted_in(log.kept(), applied.index));
            if let Some(range) = held.and_then(|held| log.lacks(held)) {
                log.keep(range.clone(), &logs.entries(StreamId(region.id.0), range)?)?;
            }
            self.recover_replica(identity.store, region, log, *applied)?;
        }
        self.check_ranges()?;
        self.readers.show_added();
        self.identity = Some(identity);
        Ok(())
    }

    /// What need not be kept of the logs of these regions, most of it applied. Returns the applied positions of those
    /// with a replica here.
    fn skip_applied(
        &self,
        store: StoreId,
        meta: &dyn View,
        regions: &[Region],
        found: &mut BTreeMap<RegionId, FoundLog>,
    ) -> Result<BTreeMap<RegionId, Position>, RecoverError> {
        let mut positions = BTreeMap::new();
        for region in regions {
            let id = region.id;
            let log = found.get_mut(&id).ok_or_else(|| damaged(id, "its log is missing"))?;
            if region.peer_on(store).is_none() {
                log.keep_above(u64::MAX);
                continue;
            }
            let applied = meta::applied_position(self.families.meta, meta, id)?;
            let applied = applied.ok_or_else(|| damaged(id, "no applied position"))?;
            let Beginning { incoming, start, .. } =
                self.beginning(id, &meta::decode_group_state(log.state())?, applied)?;
            let members = incoming.as_ref().map_or(region, |incoming| &incoming.file.region);
            let held = members.merging().map(|merging| merging.replicated_index);
            log.keep_above(start.min(held.unwrap_or(u64::MAX)));
            positions.insert(id, applied);
        }
        Ok(positions)
    }

    fn beginning(&self, id: RegionId, state: &GroupState, applied: Position) -> Result<Beginning, RecoverError> {
        let incoming = pending_snapshot(id, state, applied)?;
        if self.config.planted().apply_twice_after_restart && incoming.is_none() {
            let applied = Position { index: state.truncated_index, term: state.truncated_term };
            return Ok(Beginning { incoming, applied, start: applied.index });
        }
        let start = incoming.as_ref().map_or(applied.index, |incoming| incoming.file.id.index);
        Ok(Beginning { incoming, applied, start })
    }

    /// A log without its descriptor yet. Its replica was created by a message, and the snapshot, which contains the
    /// descriptor, has not reached the tables; or by a split of a region that will apply it again.
    fn recover_log(
        &mut self,
        store: StoreId,
        id: RegionId,
        state: &GroupState,
        log: FoundLog,
        is_here: impl Fn(RegionId) -> bool,
    ) -> Result<(), RecoverError> {
        let file = state.snapshot.as_ref().map(SnapshotFile::from_info).transpose();
        let file = file.map_err(|what| damaged(id, what))?;
        if state.made_by != 0 {
            let made_by = RegionId(state.made_by);
            if !is_here(made_by) {
                return Err(damaged(id, format_args!("made by region {made_by}, which has no replica here")));
            }
            self.file_numbers.skip_through(file.as_ref().map_or(0, |file| file.number));
            let file = file.map(|file| file.name());
            self.creation.waiting.insert(id, Waiting { made_by, file, log });
            return Ok(());
        }
        let file = file.ok_or_else(|| orphan(id))?;
        self.recover_replica(store, file.region, log, Position::default())
    }

    /// The rest of a replica whose range another region has taken over: its log.
    fn recover_absorbed(&mut self, id: RegionId, state: &GroupState, by: AbsorberRecord) -> Result<(), RecoverError> {
        let file = state.snapshot.as_ref().map(SnapshotFile::from_info).transpose();
        let file = file.map_err(|what| damaged(id, what))?;
        let absorbed = Some(Absorber { region: RegionId(by.region), version: by.version });
        let tombstone = Tombstone { peer: PeerId(state.peer), conf_version: u64::MAX, absorbed };
        self.end_log(id, tombstone, file.iter().map(SnapshotFile::name).collect());
        Ok(())
    }

    /// A descriptor without a peer here: the replica was removed, and its end is not written yet.
    fn recover_removed(&mut self, region: Region, state: &Bytes) -> Result<(), RecoverError> {
        let state = meta::decode_group_state(state)?;
        if state.peer == 0 {
            return Err(damaged(region.id, "it has no peer on this store"));
        }
        let conf_version = region.epoch.conf_version;
        let tombstone = Tombstone { peer: PeerId(state.peer), conf_version, absorbed: None };
        let files = state.snapshot.as_ref().map(SnapshotFile::from_info).transpose();
        let files = files.map_err(|what| damaged(region.id, what))?.map(|file| file.name());
        self.destroy(region, tombstone, files.into_iter().collect());
        Ok(())
    }

    fn recover_replica(
        &mut self,
        store: StoreId,
        region: Region,
        log: FoundLog,
        applied: Position,
    ) -> Result<(), RecoverError> {
        let recovered = Recovered { made_by: 0, ..self.recover_region(store, region, log, applied)? };
        let id = recovered.region.id;
        self.start_peer(recovered);
        self.begin_in_hibernation(id);
        Ok(())
    }

    /// No two replicas hold the same key. One pass over all ranges in order: a range overlaps one of another region
    /// before it if and only if it begins before the greatest end of those.
    fn check_ranges(&self) -> Result<(), RecoverError> {
        let mut ranges: Vec<(RegionId, &Region)> = Vec::new();
        for (id, peer) in &self.peers {
            ranges.extend(peer.ranges().map(|range| (*id, range)));
        }
        ranges.extend(self.destruction.regions().map(|range| (range.id, range)));
        ranges.sort_by(|(_, one), (_, other)| one.start_key.cmp(&other.start_key));
        for space in [Space::System, Space::Data] {
            // The range with the greatest end, and the one with the greatest end of other regions than that.
            let mut greatest: [Option<(RegionId, &Region)>; 2] = [None, None];
            for (id, range) in ranges.iter().filter(|(_, range)| range.space == space) {
                let mut others = greatest.iter().flatten().filter(|(other, _)| other != id);
                if others.any(|(_, other)| other.overlaps(range)) {
                    return Err(damaged(*id, "its range overlaps another region's"));
                }
                let [first, second] = &mut greatest;
                let exceeds = |other: &Option<(RegionId, &Region)>| other.is_none_or(|(_, o)| ends_before(o, range));
                if exceeds(first) {
                    if first.is_some_and(|(first, _)| first != *id) {
                        *second = *first;
                    }
                    *first = Some((*id, range));
                } else if first.is_some_and(|(first, _)| first != *id) && exceeds(second) {
                    *second = Some((*id, range));
                }
            }
        }
        Ok(())
    }

    /// Builds a replica from its log and its applied position.
    pub(super) fn recover_region(
        &self,
        store: StoreId,
        region: Region,
        log: FoundLog,
        applied: Position,
    ) -> Result<Recovered, RecoverError> {
        let id = region.id;
        let me = region.peer_on(store).ok_or_else(|| damaged(id, "it has no peer on this store"))?;
        let state = meta::decode_group_state(log.state())?;
        if state.truncated_index != log.truncated_through() {
            let (stated, found) = (state.truncated_index, log.truncated_through());
            return Err(damaged(id, format_args!("truncated through {found}, but the state says {stated}")));
        }
        let noted = noted_in(log.kept(), applied.index);
        self.file_numbers.skip_through(state.snapshot.as_ref().map_or(0, |info| info.file_number));
        let Beginning { incoming, applied, start } = self.beginning(id, &state, applied)?;
        let members = incoming.as_ref().map_or(&region, |incoming| &incoming.file.region);
        let rng = self.rng.child(&format!("region {id}"));
        let random = rng.child("replica reads").next_u64();
        let counted = self.recovery.counted(members);
        if counted.peer(me.id).is_none() {
            return Err(damaged(id, "an unsafe recovery names this store as lost"));
        }
        let group = Group::new(&self.config, me.id, &counted, &state, log.into_entries()?, start, rng);
        let mut group = group.map_err(|what| damaged(id, what))?.with_recovery(self.recovery.clone());
        // What is applied is not needed in memory, except for what the commit of a merge may have to send.
        let held = members.merging().map(|merging| merging.replicated_index);
        let held = held.into_iter().chain(held_in(&noted)).min();
        group.evict(start.min(held.unwrap_or(u64::MAX)).max(group.truncated().index), usize::MAX);
        let promised = Duration::from_nanos(state.promised_ns);
        let made_by = state.made_by;
        let region = Arc::new(region);
        Ok(Recovered { region, me, group, applied, incoming, promised, made_by, noted, random })
    }
}

fn orphan(region: RegionId) -> RecoverError {
    damaged(region, "a log without a region")
}

/// The state of a log that has no descriptor.
fn log_state(region: RegionId, state: &Bytes) -> Result<GroupState, RecoverError> {
    if state.is_empty() {
        return Err(orphan(region));
    }
    meta::decode_group_state(state)
}

/// Reads the entries of all logs.
fn scan(logs: &dyn Logs, found: &mut BTreeMap<RegionId, FoundLog>) -> Result<(), RecoverError> {
    let mut failed = None;
    logs.scan(&mut |stream, index, entry| {
        let taken = found.get_mut(&RegionId(stream.0)).map_or(Ok(()), |log| log.take(index, entry));
        match taken {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Entries above this index are needed in memory, although they are applied.
fn held_in(noted: &[(u64, Noted)]) -> Option<u64> {
    noted.iter().filter_map(|(_, noted)| noted.replicated()).min()
}

/// Whether tables hold that the region of this log, which has no descriptor, was taken over by another one. If neither
/// region's descriptor has come into tables so far, they do not: then all of it is done again.
fn is_over(id: RegionId, regions: &[Region], logs: &BTreeMap<RegionId, GroupState>) -> bool {
    let mut id = id;
    // A region is only taken over by one that has a greater version then, so whole logs form no circle.
    for _ in 0..=logs.len() {
        let Some(state) = logs.get(&id) else { return true };
        let is_new = state.made_by != 0 || state.snapshot.is_some();
        let Some(by) = state.absorbed_by.filter(|_| is_new) else { return !is_new };
        if let Some(target) = regions.iter().find(|region| region.id.0 == by.region) {
            return target.epoch.version >= by.version;
        }
        id = RegionId(by.region);
    }
    false
}

fn ends_before(one: &Region, other: &Region) -> bool {
    !one.end_key.is_empty() && (other.end_key.is_empty() || one.end_key < other.end_key)
}

/// How a log ends, for tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The last index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Through here entries are known to be committed.
    pub committed: u64,
}

/// Reads how the log of a region ends; an error if it is damaged.
pub fn log_end(region: RegionId, contents: &StreamContents) -> Result<LogEnd, RecoverError> {
    let state = meta::decode_group_state(&contents.state)?;
    let log = FoundLog::of(region, contents)?;
    let (index, term) = log.last().unwrap_or((contents.truncated_through, state.truncated_term));
    log.into_entries()?;
    Ok(LogEnd { index, term, committed: state.commit })
}

/// The snapshot whose data must be installed (again): it is restored in the log but its position is not in `meta`.
fn pending_snapshot(id: RegionId, state: &GroupState, applied: Position) -> Result<Option<Incoming>, RecoverError> {
    let Some(info) = &state.snapshot else { return Ok(None) };
    if info.index <= applied.index {
        return Ok(None);
    }
    if info.index != state.truncated_index {
        return Err(damaged(id, "the log does not begin where its snapshot ends"));
    }
    let file = SnapshotFile::from_info(info).map_err(|what| damaged(id, what))?;
    Ok(Some(Incoming::recovered(file)))
}

#[cfg(test)]
#[path = "recover_test.rs"]
mod tests;
