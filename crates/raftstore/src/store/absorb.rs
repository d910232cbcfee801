//! The store's side of a merge: a region takes over the range of its neighbour. docs/internals/merge.md has the design.
//!
//! Both have a replica here. The keys stay where they are: the target's descriptor gets the range, and the source's
//! descriptor goes, in one batch. What is left is the source's log. It is needed until tables hold that batch, because
//! a crash before that brings both replicas back, and the target's log commits the merge again.
//!
//! | stage of the source | in memory | on disk |
//! |---|---|---|
//! | lags | a replica, which gets the entries that it lacks from the commit | its log and descriptor |
//! | stops: it has applied the preparation | a replica that says nothing | its state blob names the target |
//! | is handed over | none | the target's apply removes the descriptor |
//! | its descriptor is not in tables any more | none | the log, whose end is being written, and then a tombstone |
//!
//! Recovery that finds the log without its descriptor knows by the state blob that the third stage is over.

use super::Store;
use crate::command::{Action, Command};
use crate::consensus::Entry;
use crate::consensus::wire::{AbsorberRecord, StoreMessage};
use crate::effect::{ApplyId, Observation, PersistId, SnapshotTask};
use crate::error::{Fault, FaultKind, RegionError};
use crate::meta::{self, Tombstone};
use crate::outbox::{AbsorptionBegun, AbsorptionHanded};
use crate::peer::Peer;
use crate::region::{Absorber, Epoch, Region, RegionId, StoreId};
use crate::snapshot::FileId;
use kontiki_engine::{StreamId, StreamOp};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Absorption {
    /// Regions that are, or were, the source of a merge that has not ended.
    merging: BTreeSet<RegionId>,
    /// Commits that wait for their source, by the target.
    waiting: BTreeMap<RegionId, Waiting>,
    /// What is left of sources.
    ending: BTreeMap<RegionId, Ending>,
}

struct Waiting {
    source: RegionId,
    version: u64,
    prepared_index: u64,
    entries: Vec<Entry>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begun,
    /// It has got the entries that it may lack.
    CatchesUp,
    /// It is stopped; that is durable with this persist.
    Stopping(PersistId),
    /// The target may hand its commit out.
    Ready,
    /// Only a snapshot of the target helps.
    Lost,
}

struct Ending {
    target: RegionId,
    /// The target's apply.
    index: u64,
    tombstone: Tombstone,
    files: Vec<FileId>,
    stage: EndingStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EndingStage {
    Applying(ApplyId),
    Applied,
    Visible,
    Removing(PersistId),
}

impl Absorption {
    pub fn is_ending(&self, region: RegionId) -> bool {
        self.ending.contains_key(&region)
    }

    /// The files of replicas whose logs are not removed yet.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        self.ending.values().flat_map(|ending| ending.files.iter().copied())
    }

    /// A replica is the source of a merge, or is not.
    pub fn note(&mut self, peer: &Peer) {
        if peer.is_merging() {
            self.merging.insert(peer.region().id);
        } else {
            self.merging.remove(&peer.region().id);
        }
    }
}

impl Store {
    /// After the poll of all regions: commits of merges that wait for their source, and those that were handed out.
    pub(super) fn tend_absorptions(&mut self) {
        for begun in std::mem::take(&mut self.out.absorptions) {
            let AbsorptionBegun { target, version, source, prepared_index, entries } = begun;
            let stage = Stage::Begun;
            self.absorption.waiting.insert(target, Waiting { source, version, prepared_index, entries, stage });
        }
        self.hide_absorbed();
        let targets: Vec<RegionId> = self.absorption.waiting.keys().copied().collect();
        for target in targets {
            while self.out.fault.is_none() && self.tend_absorption(target) {}
        }
    }

    /// Does what is next for a commit that waits. Returns whether there may be more.
    fn tend_absorption(&mut self, target: RegionId) -> bool {
        let waits = self.peers.get(&target).is_some_and(Peer::has_merge_waiting);
        let Some(waiting) = self.absorption.waiting.get_mut(&target).filter(|_| waits) else {
            // A snapshot took the place of its log, or it was removed.
            self.give_source_up(target);
            return false;
        };
        let source = waiting.source;
        let Some(peer) = self.peers.get_mut(&source) else {
            let is_gone = self.creation.tombstones.contains_key(&source);
            self.miss_source(target, is_gone);
            return false;
        };
        match waiting.stage {
            Stage::Stopping(persist) => {
                let is_durable = self.persisting.front().is_none_or(|oldest| oldest.id > persist);
                if !is_durable || persist == self.out.persist_id || !peer.is_still() {
                    return false;
                }
                waiting.stage = Stage::Ready;
                self.with_peer(target, |peer, _| peer.source_is_ready());
                self.poll_region(target);
                return false;
            }
            _ if peer.is_removed() => return false,
            _ if peer.has_lost_snapshot() => self.miss_source(target, true),
            _ if peer.has_prepared(target, waiting.prepared_index) => {
                // It keeps its place among the readers until its range is the target's: it only refuses.
                peer.be_absorbed(Absorber { region: target, version: waiting.version }, &mut self.out);
                self.ticking.remove(&source);
                waiting.stage = Stage::Stopping(self.out.persist_id);
            }
            _ if peer.applied().index >= waiting.prepared_index => {
                let what = format!(
                    "region {target} takes it over as of its entry {}, which is another one here: it went on without that \
                     after an unsafe recovery",
                    waiting.prepared_index
                );
                self.out.fail(Fault { region: source, what, kind: FaultKind::Unable });
                return false;
            }
            // While its data are installed it takes nothing.
            Stage::Begun
                if peer.catch_up(&waiting.entries, waiting.prepared_index, &mut self.out)
                    || self.config.planted().merge_tail_once =>
            {
                waiting.stage = Stage::CatchesUp;
                self.poll_region(source);
            }
            Stage::Begun | Stage::CatchesUp | Stage::Ready | Stage::Lost => return false,
        }
        self.absorption.waiting.get(&target).is_some_and(|waiting| waiting.stage != Stage::Lost)
    }

    /// A commit does not wait any more. If its source was stopped for it, that one is of no use.
    fn give_source_up(&mut self, target: RegionId) {
        let Some(waiting) = self.absorption.waiting.remove(&target) else { return };
        let is_stopped = |peer: &&Peer| peer.absorbed_by().is_some_and(|by| by.region == target);
        if let Some(by) = self.peers.get(&waiting.source).filter(is_stopped).and_then(Peer::absorbed_by) {
            self.with_peer(waiting.source, |peer, out| peer.be_left_over(by, out));
            self.tend_removed(waiting.source);
        }
    }

    /// There is no replica of the source, or it has no data: the split that makes it is not applied here yet, or it is
    /// gone.
    fn miss_source(&mut self, target: RegionId, is_gone: bool) {
        if is_gone
            && let Some(waiting) = self.absorption.waiting.get_mut(&target)
            && waiting.stage != Stage::Lost
        {
            waiting.stage = Stage::Lost;
            let source = waiting.source.0;
            tracing::warn!(region = target.0, source, "the source of a merge is gone; a snapshot is needed");
            self.with_peer(target, |peer, _| peer.source_is_lost());
        }
    }

    /// Commits of merges that this poll has handed out: the sources' replicas end.
    pub(super) fn take_absorbed(&mut self) {
        for AbsorptionHanded { source, target, index } in std::mem::take(&mut self.out.absorbed) {
            self.absorption.waiting.remove(&target);
            let Some(mut peer) = self.peers.remove(&source) else { continue };
            if peer.absorbed_by().is_some() {
                peer.release_memory(&mut self.out);
            } else {
                assert!(self.config.planted().merge_without_tail, "the source is complete and stopped");
                peer.be_removed(&mut self.out);
            }
            self.ticking.remove(&source);
            self.absorption.merging.remove(&source);
            // What it took over itself ends when its own descriptor leaves the tables, at the latest.
            for other in self.absorption.ending.values_mut().filter(|other| other.target == source) {
                (other.target, other.index) = (target, index);
            }
            let absorbed = peer.absorbed_by().or(Some(Absorber { region: target, version: 0 }));
            let tombstone = Tombstone { peer: peer.id(), conf_version: peer.conf_version(), absorbed };
            let files = peer.needed_files().collect();
            let stage = EndingStage::Applying(self.out.apply_id);
            self.absorption.ending.insert(source, Ending { target, index, tombstone, files, stage });
        }
    }

    /// Everything through `apply` is visible.
    pub(super) fn absorb_applied(&mut self, apply: ApplyId) {
        for ending in self.absorption.ending.values_mut() {
            if matches!(ending.stage, EndingStage::Applying(id) if id <= apply) {
                ending.stage = EndingStage::Applied;
            }
        }
    }

    /// The targets have published their ranges: the sources are not among the readers any more.
    fn hide_absorbed(&mut self) {
        let mut is_any = false;
        for (source, ending) in &mut self.absorption.ending {
            if ending.stage == EndingStage::Applied {
                ending.stage = EndingStage::Visible;
                is_any = true;
                self.readers.remove(*source);
                self.out.observations.push(Observation::RegionMerged { region: *source, into: ending.target });
            }
        }
        if is_any {
            self.absorb_flushed();
        }
    }

    /// Tables hold more than before: the logs of sources whose end they hold go.
    pub(super) fn absorb_flushed(&mut self) {
        let peers = &self.peers;
        let is_flushed = |ending: &Ending| peers.get(&ending.target).is_none_or(|peer| peer.flushed() >= ending.index);
        for (source, ending) in &mut self.absorption.ending {
            if ending.stage == EndingStage::Visible && is_flushed(ending) {
                ending.stage = EndingStage::Removing(self.out.persist_id);
                self.out.streams.push(StreamOp::Remove { stream: StreamId(source.0) });
                meta::put_tombstone(self.families.meta, &mut self.out.persist_batch, *source, ending.tombstone);
                self.creation.tombstones.insert(*source, ending.tombstone);
            }
        }
    }

    /// Everything through `persist` is durable.
    pub(super) fn absorb_persisted(&mut self, persist: PersistId) {
        let out = &mut self.out;
        self.absorption.ending.retain(|source, ending| {
            let is_removed = matches!(ending.stage, EndingStage::Removing(id) if id <= persist);
            if is_removed {
                tracing::info!(region = source.0, "the log of a region that was merged is removed");
                out.snapshots.extend(ending.files.iter().map(|file| SnapshotTask::Remove { file: *file }));
            }
            !is_removed
        });
    }

    /// Recovery found a log without its descriptor, whose region another one has taken over.
    pub(super) fn end_log(&mut self, region: RegionId, tombstone: Tombstone, files: Vec<FileId>) {
        self.out.streams.push(StreamOp::Remove { stream: StreamId(region.0) });
        meta::put_tombstone(self.families.meta, &mut self.out.persist_batch, region, tombstone);
        self.creation.tombstones.insert(region, tombstone);
        let target = tombstone.absorbed.map_or(RegionId(0), |absorbed| absorbed.region);
        let stage = EndingStage::Removing(self.out.persist_id);
        self.absorption.ending.insert(region, Ending { target, index: 0, tombstone, files, stage });
    }

    /// One tick: sources whose merge does not end by itself.
    pub(super) fn tick_merges(&mut self) {
        let merging: Vec<RegionId> = self.absorption.merging.iter().copied().collect();
        merging.into_iter().for_each(|source| self.tend_merge(source));
    }

    /// Ends the merge of a source, if its replica or that of the target leads: the target commits it while it has the
    /// epoch that the preparation names; otherwise the source rolls it back.
    pub(super) fn tend_merge(&mut self, source: RegionId) {
        if !self.absorption.merging.contains(&source) {
            return;
        }
        let Some(peer) = self.peers.get(&source).filter(|peer| !peer.is_removed()) else {
            self.absorption.merging.remove(&source);
            return;
        };
        let Some(merging) = peer.region().merging().copied() else { return };
        if peer.hibernates() {
            self.with_peer(source, |peer, out| peer.wake(out.now));
        }
        if self.is_left_over(source, merging.target) {
            return self.end_left_over(source, merging.target);
        }
        if self.has_failed(source, merging.target, merging.target_epoch) {
            return self.with_peer(source, |peer, out| peer.merge_failed(merging.prepared_index, out));
        }
        let leads = |peer: &&Peer| peer.leads() && peer.members().epoch == merging.target_epoch;
        if self.peers.get(&merging.target).filter(leads).is_none() {
            return;
        }
        let Some(peer) = self.peers.get(&source) else { return };
        match (peer.commit_command(), peer.leader()) {
            (Some(command), _) => self.with_peer(merging.target, |peer, out| {
                peer.wake(out.now);
                peer.propose_end(command, out);
            }),
            // The source's leader has retained the entries for it.
            (None, Some(leader)) if !peer.leads() => {
                self.with_peer(merging.target, |peer, _| peer.transfer_leader(leader.store))
            }
            (None, _) => {}
        }
    }

    /// The descriptor of `target` here, or of a region that has taken its range over.
    fn heir_of(&self, target: RegionId) -> Option<&Arc<Region>> {
        match self.peers.get(&target) {
            Some(peer) => Some(peer.members()),
            None => self.peers.values().map(Peer::members).find(|region| region.has_absorbed(target)),
        }
    }

    /// Whether it is certain that the merge is not committed, and never will be.
    fn has_failed(&self, source: RegionId, target: RegionId, epoch: Epoch) -> bool {
        let is_over = |region: &&Arc<Region>| region.id != target || is_newer(region.epoch, epoch);
        self.heir_of(target)
            .filter(is_over)
            .is_some_and(|region| region.has_not_absorbed(source, target, epoch.version))
    }

    /// Whether this replica of a source has missed that the merge was committed: the target's replica here got past it
    /// by a snapshot.
    fn is_left_over(&self, source: RegionId, target: RegionId) -> bool {
        !self.creation.is_splitting(source)
            && self.heir_of(target).is_some_and(|region| region.has_absorbed(source))
            && !self.absorption.waiting.values().any(|waiting| waiting.source == source)
    }

    fn end_left_over(&mut self, source: RegionId, target: RegionId) {
        let version = self.heir_of(target).map_or(0, |region| region.epoch.version);
        let by = Absorber { region: target, version };
        tracing::info!(region = source.0, into = target.0, "a replica of a region that was merged is left over");
        self.with_peer(source, |peer, out| peer.be_left_over(by, out));
    }

    /// Another store says that `region` exists no more.
    pub(super) fn learn_absorbed(&mut self, region: RegionId, by: AbsorberRecord) {
        let Some(peer) = self.peers.get(&region).filter(|peer| !peer.is_removed()) else { return };
        let target = RegionId(by.region);
        // The target's replica here needs this one until it is past the merge.
        let is_past = self.peers.get(&target).is_none_or(|target| target.region().epoch.version >= by.version);
        let is_needed = self.absorption.waiting.values().any(|waiting| waiting.source == region);
        if is_past && !is_needed && !self.creation.is_splitting(region) && !self.creation.begins(target) {
            let by = Absorber { region: target, version: by.version };
            tracing::info!(region = peer.region().id.0, into = target.0, "this region was merged while it was away");
            self.with_peer(region, |peer, out| peer.be_left_over(by, out));
        }
    }

    /// What took the range of a region over that has no replica here any more, if one did.
    fn absorber_of(&self, region: RegionId) -> Option<Absorber> {
        let ending = self.absorption.ending.get(&region).map(|ending| &ending.tombstone);
        ending.or_else(|| self.creation.tombstones.get(&region)).and_then(|tombstone| tombstone.absorbed)
    }

    /// A message for a region that another one has taken over: the sender gets to know. Returns whether it is one.
    pub(super) fn answer_of_absorbed(&mut self, envelope: &StoreMessage) -> bool {
        let Some(by) = self.absorber_of(RegionId(envelope.region)) else { return false };
        let is_ours = self.identity.is_some_and(|identity| identity.store.0 == envelope.to_store);
        if is_ours && envelope.absorbed_by.is_none() {
            let absorbed_by = Some(AbsorberRecord { region: by.region.0, version: by.version });
            let answer = StoreMessage { absorbed_by, ..self.answer_to(envelope) };
            self.out.send.push((StoreId(envelope.from_store), answer.encode_to_vec().into()));
        }
        true
    }

    /// The replicas here of regions that a region with this descriptor, from a snapshot, has taken over, or another one
    /// before it. Besides those that it lists: a region has its first key as long as it exists, so one whose first key
    /// is another region's in a newer version exists no more. `Err`: one of them cannot end now.
    pub(super) fn absorbed_here(&mut self, region: &Region) -> Result<Vec<RegionId>, RegionId> {
        let is_over = |other: &Region| {
            let is_newer = other.space == region.space && other.epoch.version < region.epoch.version;
            region.has_absorbed(other.id) || is_newer && region.contains(&other.start_key)
        };
        let others = self.peers.values().map(Peer::members).filter(|other| other.id != region.id);
        let here: Vec<RegionId> = others.filter(|other| is_over(other)).map(|other| other.id).collect();
        for id in &here {
            let peer = &self.peers[id];
            if self.creation.is_splitting(*id) || !peer.is_quiet() {
                self.out.flush |= peer.waits_for_flush();
                return Err(*id);
            }
        }
        Ok(here)
    }

    /// A snapshot of the region that has taken them over takes the place of these replicas, with this poll's persist.
    pub(super) fn end_absorbed(&mut self, sources: Vec<RegionId>, by: Absorber) {
        for source in sources {
            let Some(mut peer) = self.peers.remove(&source) else { continue };
            tracing::info!(region = source.0, into = by.region.0, "a snapshot replaces a region that was merged");
            peer.be_removed(&mut self.out);
            peer.release_memory(&mut self.out);
            self.readers.remove(source);
            self.ticking.remove(&source);
            self.absorption.merging.remove(&source);
            self.absorption.waiting.remove(&source);
            let tombstone = Tombstone { peer: peer.id(), conf_version: peer.conf_version(), absorbed: Some(by) };
            let files = peer.needed_files().collect();
            self.destroy(Region::clone(peer.region()), tombstone, files);
        }
    }

    /// The command of a caller, with what this store knows of the target of a merge.
    pub(super) fn completed(&self, region: RegionId, command: Command) -> Result<Command, RegionError> {
        match &command.action {
            Action::CommitMerge { .. } | Action::RollbackMerge => {
                Err(RegionError::Impossible { region, why: "a merge that is prepared ends by itself" })
            }
            Action::PrepareMerge { target, .. } => {
                let why = "its target has no replica here";
                let Some(known) = self.peers.get(&target.id).filter(|peer| !peer.is_removed()) else {
                    return Err(RegionError::Impossible { region, why });
                };
                let known = Region::clone(known.members());
                if known.epoch != target.epoch {
                    return Err(RegionError::EpochNotMatch { current: vec![known] });
                }
                match self.peers.get(&region) {
                    Some(source) => source.prepare_command(known, command, &self.out),
                    None => Err(RegionError::RegionNotFound { region }),
                }
            }
            _ => Ok(command),
        }
    }
}

/// Whether a descriptor with this epoch came after the other.
fn is_newer(epoch: Epoch, than: Epoch) -> bool {
    epoch != than && epoch.version >= than.version && epoch.conf_version >= than.conf_version
}
