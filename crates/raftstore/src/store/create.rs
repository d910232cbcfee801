//! Replicas that are created here: by a message, or by a command.
//!
//! **By a message**, because a membership change added them. The leader of a region finds out from the answers to its
//! messages that the new replica has no log, and sends a snapshot. Until the snapshot has arrived there is no replica:
//! it keeps no state, makes no promise and gives no vote; only the leader's messages are answered, in the same way as
//! by any store without a log. When the snapshot's file has arrived, the beginning of the log is written durably, with
//! the file's name in the state blob, and then the replica starts as it would after a crash in the middle of an
//! install.
//!
//! *The identity of the replica.* A store that lost its directory must not become the replica that it had, because that
//! one has voted and acknowledged. The identity of a replica that is added is therefore derived from the directory that
//! it is for ([`replica_id`]), and a store creates only replicas that are derived from its own directory. A late
//! message for a replica of the lost directory, or a snapshot that a leader still sends there, finds no replica; one
//! for a replica that was destroyed here finds its tombstone (`store/destroy.rs`).
//!
//! **By a command** of another region ([`Store::create_by_command`]): first the beginning of the log is written
//! durably, then the descriptor and the applied position are applied, and then the replica starts. The apply is not
//! logged: until it is flushed, the command is applied again after a crash. Recovery therefore keeps a log that a
//! command has begun until the command asks for its replica again.

use super::Store;
use crate::consensus::log::Position;
use crate::consensus::wire::{GroupState, StoreMessage};
use crate::effect::{AppliedCommand, ApplyId, ApplyPart, PersistId, SnapshotTask};
use crate::meta::{self, Tombstone, encode_group_state};
use crate::outbox::AppliedRegion;
use crate::peer::{Peer, Recovered};
use crate::readers::Publication;
use crate::region::{self, PeerId, Region, RegionId, StoreId};
use crate::snapshot::{FileId, SnapshotFile};
use kontiki_engine::{StreamContents, StreamId, StreamOp};
use kontiki_env::codec::hash64;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The identity of the replica of `region` that lives in the directory `directory` (a number drawn at random when the
/// directory was created): equal on every store, and different for each directory. It is 64 bits of a hash over both,
/// so a collision with an existing one practically never happens.
pub fn replica_id(directory: u64, region: RegionId) -> PeerId {
    let bytes = [directory.to_le_bytes(), region.0.to_le_bytes()].concat();
    PeerId(hash64(&bytes).max(1))
}

#[derive(Default)]
pub(super) struct Creation {
    /// Replicas of this directory are created.
    directory: Option<u64>,
    /// Replicas whose first state is being written.
    begun: BTreeMap<RegionId, Begun>,
    /// Logs that a command has begun, without their descriptors: the command is applied again.
    pub waiting: BTreeMap<RegionId, StreamContents>,
    /// Of replicas that were destroyed here.
    pub tombstones: BTreeMap<RegionId, Tombstone>,
}

/// A replica that starts when its first state is written.
struct Begun {
    stage: Stage,
    region: Region,
    /// That contains the data, if a message creates it.
    file: Option<FileId>,
    /// The log as a restart would find it.
    log: StreamContents,
}

#[derive(Clone, Copy)]
enum Stage {
    Logging(PersistId),
    /// Only if a command creates it.
    Applying(ApplyId),
}

impl Creation {
    /// The files of replicas that do not exist yet.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        self.begun.values().filter_map(|begun| begun.file)
    }
}

impl Store {
    /// From now on, replicas of the directory are created when a leader sends a snapshot for them.
    pub fn create_replicas_of(&mut self, directory: u64) {
        self.creation.directory = Some(directory);
    }

    /// This directory's replica, if the message is for one that may be created.
    fn replica_to_create(&self, envelope: &StoreMessage) -> Option<region::Peer> {
        let (directory, store) = (self.creation.directory?, self.identity?.store);
        let region = RegionId(envelope.region);
        let is_ours = envelope.to_store == store.0 && envelope.to_peer == replica_id(directory, region).0;
        let begins = self.creation.begun.contains_key(&region) || self.creation.waiting.contains_key(&region);
        let is_free = region.0 != 0 && !begins && envelope.from_store != store.0;
        let me = region::Peer { id: PeerId(envelope.to_peer), store };
        let tombstone = self.creation.tombstones.get(&region);
        let is_new = tombstone.is_none_or(|tombstone| tombstone.admits(me.id, envelope.conf_version));
        (is_ours && is_free && is_new).then_some(me)
    }

    pub(super) fn message_of_no_replica(&mut self, envelope: &StoreMessage) {
        let answer = envelope.raft.as_ref().and_then(|raft| raft.answer_of_an_empty_log());
        let (Some(raft), Some(me)) = (answer, self.replica_to_create(envelope)) else { return };
        let answer = StoreMessage {
            region: envelope.region,
            from_store: me.store.0,
            to_store: envelope.from_store,
            from_peer: me.id.0,
            to_peer: envelope.from_peer,
            conf_version: envelope.conf_version,
            version: envelope.version,
            raft: Some(raft),
            ..StoreMessage::default()
        };
        self.out.send.push((StoreId(envelope.from_store), answer.encode_to_vec().into()));
    }

    pub(super) fn snapshot_of_no_replica(&mut self, envelope: &StoreMessage, file: SnapshotFile) {
        let announced = envelope.raft.as_ref().filter(|raft| file.is_announced_by(raft) && raft.term >= file.id.term);
        let me = self.replica_to_create(envelope).filter(|me| file.region.peer(me.id) == Some(*me));
        let (Some(raft), true) = (announced, me.is_some() && self.is_range_free(&file.region)) else {
            return self.out.snapshots.push(SnapshotTask::Remove { file: file.name() });
        };
        let state = GroupState {
            term: raft.term,
            commit: file.id.index,
            truncated_index: file.id.index,
            truncated_term: file.id.term,
            snapshot: Some(file.to_state()),
            peer: envelope.to_peer,
            ..GroupState::default()
        };
        self.begin_log(file.region.clone(), Some(file.name()), &state);
    }

    /// Creates the replica here of a region that a command of the region `made_by` makes; nothing, if it exists or was
    /// destroyed since: the command may be applied again. The region's range must be free, its data are there already.
    pub fn create_by_command(&mut self, region: Region, made_by: RegionId) {
        let (Some(identity), id) = (self.identity, region.id) else { return };
        let Some(me) = region.peer_on(identity.store) else { return };
        let exists = self.peers.contains_key(&id) || self.creation.begun.contains_key(&id);
        if exists || self.creation.tombstones.contains_key(&id) {
            return;
        }
        assert!(self.is_range_free(&region), "a region that a command makes has a range of its own");
        match self.creation.waiting.remove(&id) {
            Some(log) => {
                let stage = self.apply_descriptor(&region);
                self.creation.begun.insert(id, Begun { stage, region, file: None, log });
            }
            None => {
                let state = GroupState { peer: me.id.0, made_by: made_by.0, ..meta::initial_state() };
                self.begin_log(region, None, &state);
            }
        }
    }

    fn begin_log(&mut self, region: Region, file: Option<FileId>, state: &GroupState) {
        let (stream, through_index) = (StreamId(region.id.0), state.truncated_index);
        let state = encode_group_state(state);
        let log =
            StreamContents { truncated_through: through_index, state: state.clone(), ..StreamContents::default() };
        self.out.streams.push(StreamOp::Truncate { stream, through_index });
        self.out.streams.push(StreamOp::State { stream, state });
        let stage = Stage::Logging(self.out.persist_id);
        self.creation.begun.insert(region.id, Begun { stage, region, file, log });
    }

    /// Puts the descriptor of a region whose log has begun, and its applied position.
    fn apply_descriptor(&mut self, region: &Region) -> Stage {
        let (meta, out, Position { index, term }) = (self.families.meta, &mut self.out, meta::INITIAL);
        let first = out.apply.len();
        meta::put_region(meta, &mut out.apply, region);
        let commands = vec![AppliedCommand { index, operations: first..first + 1 }];
        meta::put_applied(meta, &mut out.apply, region.id, meta::INITIAL);
        let operations = first..out.apply.len();
        out.apply_parts.push(ApplyPart { region: region.id, index, term, commands, operations });
        out.applied.push(AppliedRegion { region: region.id, position: meta::INITIAL, bytes: 0, entry_bytes: 0 });
        Stage::Applying(out.apply_id)
    }

    /// Whether no replica here, existing or being created, holds a part of the region's range.
    pub(super) fn is_range_free(&self, region: &Region) -> bool {
        let here = self.peers.values().map(|peer| peer.region().as_ref());
        let begun = self.creation.begun.values().map(|begun| &begun.region);
        !here
            .chain(begun)
            .chain(self.destruction.regions())
            .any(|other| other.space == region.space && other.overlaps(region))
    }

    /// Everything through `persist` is durable: replicas whose log has begun with it start, or get their descriptor.
    pub(super) fn create_persisted(&mut self, persist: PersistId) {
        for id in self.begun_at(|stage| matches!(stage, Stage::Logging(id) if id <= persist)) {
            let begun = self.creation.begun.remove(&id).expect("just seen");
            if begun.file.is_some() {
                self.start_created(begun, Position::default());
            } else {
                let stage = self.apply_descriptor(&begun.region);
                self.creation.begun.insert(id, Begun { stage, ..begun });
            }
        }
    }

    /// Everything through `apply` is visible: replicas whose descriptor is in it start.
    pub(super) fn create_applied(&mut self, apply: ApplyId) {
        for id in self.begun_at(|stage| matches!(stage, Stage::Applying(id) if id <= apply)) {
            let begun = self.creation.begun.remove(&id).expect("just seen");
            self.start_created(begun, meta::INITIAL);
        }
    }

    fn begun_at(&self, is_due: impl Fn(Stage) -> bool) -> Vec<RegionId> {
        self.creation.begun.iter().filter(|(_, begun)| is_due(begun.stage)).map(|(region, _)| *region).collect()
    }

    fn start_created(&mut self, begun: Begun, applied: Position) {
        let Some(store) = self.identity.map(|identity| identity.store) else { return };
        let recovered = self.recover_region(store, begun.region, begun.log, applied);
        let recovered = recovered.expect("a log that begins where its data ends is whole");
        tracing::info!(region = recovered.region.id.0, peer = recovered.me.id.0, "a replica was created");
        self.start_peer(recovered);
    }

    pub(super) fn start_peer(&mut self, recovered: Recovered) {
        let publication = Publication {
            region: Arc::new(recovered.region.clone()),
            term: recovered.group.term(),
            leader: None,
            readable: false,
            leads: false,
        };
        let slot = self.readers.add(publication);
        let mut peer = Peer::new(self.config.clone(), self.families, recovered, slot);
        peer.campaign_if_alone();
        let id = peer.region().id;
        assert!(self.peers.insert(id, peer).is_none(), "a region has one replica here");
        self.ticking.insert(id);
        self.dirty.insert(id);
    }
}
