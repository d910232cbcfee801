//! Recovery from a directory.

use super::Store;
use super::create::Waiting;
use crate::consensus::log::Position;
use crate::consensus::wire::{self, AbsorberRecord, GroupState};
use crate::consensus::{Entry, Group, entry_from_wire};
use crate::error::RecoverError;
use crate::meta::{self, Tombstone};
use crate::peer::Recovered;
use crate::peer::noted::noted_in;
use crate::peer::receive::Incoming;
use crate::region::{Absorber, PeerId, Region, RegionId, Space, StoreId};
use crate::snapshot::SnapshotFile;
use bytes::Bytes;
use kontiki_engine::{StreamContents, StreamId, View};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

fn damaged(region: RegionId, what: impl std::fmt::Display) -> RecoverError {
    RecoverError::Damaged(format!("region {region}: {what}"))
}

impl Store {
    /// Loads the replicas of the directory: descriptors and applied positions from `meta`, logs from the streams.
    /// Entries that were committed after the applied position are applied again by later polls.
    ///
    /// Called once, before any event. Snapshots that were being installed are installed again from their files (the
    /// tasks come with the first poll); other snapshot files may be removed.
    pub fn recover(&mut self, meta: &dyn View, streams: Vec<(StreamId, StreamContents)>) -> Result<(), RecoverError> {
        let ids: Vec<StreamId> = streams.iter().map(|(id, _)| *id).collect();
        let mut streams: BTreeMap<StreamId, StreamContents> = streams.into_iter().collect();
        self.recover_from(meta, &ids, &mut |id| Ok(streams.remove(&id).unwrap_or_default()))
    }

    /// The same, with streams that are read one after the other: of each log only the entries that are not applied stay
    /// in memory.
    pub fn recover_from(
        &mut self,
        meta: &dyn View,
        streams: &[StreamId],
        read: &mut dyn FnMut(StreamId) -> kontiki_engine::Result<StreamContents>,
    ) -> Result<(), RecoverError> {
        assert!(self.identity.is_none(), "a store recovers once");
        let family = self.families.meta;
        let identity = meta::identity(family, meta)?.ok_or(RecoverError::NotBootstrapped)?;
        self.creation.tombstones = meta::tombstones(family, meta)?;
        self.recovery = Arc::new(meta::recovery(family, meta)?);
        let regions = meta::regions(family, meta)?;
        let known: BTreeSet<RegionId> = regions.iter().map(|region| region.id).collect();
        let logged: BTreeSet<RegionId> = streams.iter().map(|stream| RegionId(stream.0)).collect();
        // Few and short: nothing of them is in tables.
        let mut alone = Vec::new();
        let mut states = BTreeMap::new();
        for id in logged.difference(&known) {
            let contents = read(StreamId(id.0))?;
            states.insert(*id, log_state(*id, &contents)?);
            alone.push((*id, contents));
        }
        for (id, contents) in alone {
            let state = &states[&id];
            if let Some(by) = state.absorbed_by.filter(|_| is_over(id, &regions, &states)) {
                self.recover_absorbed(id, state, by)?;
                continue;
            }
            let is_here = |region| known.contains(&region) || logged.contains(&region);
            self.recover_log(identity.store, id, state, contents, is_here)?;
        }
        for region in regions {
            let id = region.id;
            if !logged.contains(&id) {
                return Err(damaged(id, "its log is missing"));
            }
            let contents = read(StreamId(id.0))?;
            if region.peer_on(identity.store).is_none() {
                self.recover_removed(region, &contents)?;
                continue;
            }
            let applied =
                meta::applied_position(family, meta, id)?.ok_or_else(|| damaged(id, "no applied position"))?;
            self.recover_replica(identity.store, region, contents, applied)?;
        }
        self.check_ranges()?;
        self.readers.show_added();
        self.identity = Some(identity);
        Ok(())
    }

    /// A log without its descriptor yet. Its replica was created by a message, and the snapshot, which contains the
    /// descriptor, has not reached the tables; or by a split of a region that will apply it again.
    fn recover_log(
        &mut self,
        store: StoreId,
        id: RegionId,
        state: &GroupState,
        contents: StreamContents,
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
            self.creation.waiting.insert(id, Waiting { made_by, file, log: contents });
            return Ok(());
        }
        let file = file.ok_or_else(|| orphan(id))?;
        self.recover_replica(store, file.region, contents, Position::default())
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
    fn recover_removed(&mut self, region: Region, contents: &StreamContents) -> Result<(), RecoverError> {
        let state = meta::decode_group_state(&contents.state)?;
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
        contents: StreamContents,
        applied: Position,
    ) -> Result<(), RecoverError> {
        let recovered = Recovered { made_by: 0, ..self.recover_region(store, region, contents, applied)? };
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
        contents: StreamContents,
        applied: Position,
    ) -> Result<Recovered, RecoverError> {
        let id = region.id;
        let me = region.peer_on(store).ok_or_else(|| damaged(id, "it has no peer on this store"))?;
        let state = meta::decode_group_state(&contents.state)?;
        if state.truncated_index != contents.truncated_through {
            let (stated, found) = (state.truncated_index, contents.truncated_through);
            return Err(damaged(id, format_args!("truncated through {found}, but the state says {stated}")));
        }
        let entries = decode_entries(id, &contents)?;
        let noted = noted_in(&entries, applied.index);
        self.file_numbers.skip_through(state.snapshot.as_ref().map_or(0, |info| info.file_number));
        let incoming = pending_snapshot(id, &state, applied)?;
        let mut applied = applied;
        let mut start = incoming.as_ref().map_or(applied.index, |incoming| incoming.file.id.index);
        if self.config.planted().apply_twice_after_restart && incoming.is_none() {
            applied = Position { index: state.truncated_index, term: state.truncated_term };
            start = applied.index;
        }
        let members = incoming.as_ref().map_or(&region, |incoming| &incoming.file.region);
        let rng = self.rng.child(&format!("region {id}"));
        let counted = self.recovery.counted(members);
        if counted.peer(me.id).is_none() {
            return Err(damaged(id, "an unsafe recovery names this store as lost"));
        }
        let group = Group::new(&self.config, me.id, &counted, &state, entries, start, rng);
        let mut group = group.map_err(|what| damaged(id, what))?.with_recovery(self.recovery.clone());
        // What is applied is not needed in memory, except for what the commit of a merge may have to send.
        let held = members.merging().map(|merging| merging.replicated_index);
        let held = held.into_iter().chain(noted.iter().filter_map(|(_, noted)| noted.replicated())).min();
        group.evict(start.min(held.unwrap_or(u64::MAX)).max(group.truncated().index), usize::MAX);
        let promised = Duration::from_nanos(state.promised_ns);
        let made_by = state.made_by;
        Ok(Recovered { region, me, group, applied, incoming, promised, made_by, noted })
    }
}

fn orphan(region: RegionId) -> RecoverError {
    damaged(region, "a log without a region")
}

/// The state of a log that has no descriptor.
fn log_state(region: RegionId, contents: &StreamContents) -> Result<GroupState, RecoverError> {
    if contents.state.is_empty() {
        return Err(orphan(region));
    }
    meta::decode_group_state(&contents.state)
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

fn decode_entries(id: RegionId, contents: &StreamContents) -> Result<Vec<Entry>, RecoverError> {
    let mut entries = Vec::with_capacity(contents.entries.len());
    let mut term = 0;
    for (bytes, index) in contents.entries.iter().zip(contents.truncated_through + 1..) {
        // A copy: otherwise an entry that stays in memory keeps the whole record of the log in which it was.
        let entry = wire::Entry::decode(Bytes::copy_from_slice(bytes)).map_err(|_| "it cannot be decoded");
        let entry = entry.and_then(entry_from_wire).map_err(|why| damaged(id, format_args!("entry {index}: {why}")))?;
        if entry.index != index || entry.term < term {
            return Err(damaged(id, format_args!("entry {index} says it is {} of term {}", entry.index, entry.term)));
        }
        term = entry.term;
        entries.push(entry);
    }
    Ok(entries)
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
    let entries = decode_entries(region, contents)?;
    let (index, term) =
        entries.last().map_or((contents.truncated_through, state.truncated_term), |last| (last.index, last.term));
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
