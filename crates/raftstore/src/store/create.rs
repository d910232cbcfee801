//! Replicas that are created here because a membership change added them.
//!
//! The leader of a region finds out from the answers to its messages that the new replica has no log, and sends a
//! snapshot. Until the snapshot has arrived there is no replica: it keeps no state, makes no promise and gives no vote;
//! only the leader's messages are answered, in the same way as by any store without a log. When the snapshot's file has
//! arrived, the beginning of the log is written durably, with the file's name in the state blob, and then the replica
//! starts as it would after a crash in the middle of an install.
//!
//! *The identity of the replica.* A store that lost its directory must not become the replica that it had, because that
//! one has voted and acknowledged. The identity of a replica that is added is therefore derived from the directory that
//! it is for ([`replica_id`]), and a store creates only replicas that are derived from its own directory. A late
//! message for a replica of the lost directory, or a snapshot that a leader still sends there, finds no replica.

use super::Store;
use crate::consensus::log::Position;
use crate::consensus::wire::{GroupState, StoreMessage};
use crate::effect::{PersistId, SnapshotTask};
use crate::meta::encode_group_state;
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
}

struct Begun {
    persist: PersistId,
    file: SnapshotFile,
    /// The log as a restart would find it.
    log: StreamContents,
}

impl Creation {
    /// The files of replicas that do not exist yet.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        self.begun.values().map(|begun| begun.file.name())
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
        let is_free = region.0 != 0 && !self.creation.begun.contains_key(&region) && envelope.from_store != store.0;
        (is_ours && is_free).then_some(region::Peer { id: PeerId(envelope.to_peer), store })
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
        let (region, stream) = (file.id.region, StreamId(file.id.region.0));
        let state = GroupState {
            term: raft.term,
            vote: 0,
            commit: file.id.index,
            truncated_index: file.id.index,
            truncated_term: file.id.term,
            snapshot: Some(file.to_state()),
            promised_ns: 0,
        };
        let (state, through_index) = (encode_group_state(&state), file.id.index);
        let log =
            StreamContents { truncated_through: through_index, state: state.clone(), ..StreamContents::default() };
        self.out.streams.push(StreamOp::Truncate { stream, through_index });
        self.out.streams.push(StreamOp::State { stream, state });
        self.out.persisting.insert(region);
        let persist = self.out.persist_id;
        self.creation.begun.insert(region, Begun { persist, file, log });
    }

    /// Whether no replica here, existing or being created, holds a part of the region's range.
    pub(super) fn is_range_free(&self, region: &Region) -> bool {
        let here = self.peers.values().map(|peer| peer.region().as_ref());
        let begun = self.creation.begun.values().map(|begun| &begun.file.region);
        !here.chain(begun).any(|other| other.space == region.space && other.overlaps(region))
    }

    /// Everything through `persist` is durable: replicas whose beginning is among it start.
    pub(super) fn create_persisted(&mut self, persist: PersistId) {
        let due: Vec<RegionId> = self
            .creation
            .begun
            .iter()
            .filter(|(_, begun)| begun.persist <= persist)
            .map(|(region, _)| *region)
            .collect();
        let Some(store) = self.identity.map(|identity| identity.store) else { return };
        for id in due {
            let Begun { file, log, .. } = self.creation.begun.remove(&id).expect("just seen");
            let recovered = self.recover_region(store, file.region, log, Position::default());
            let recovered = recovered.expect("a log that begins where its snapshot ends is whole");
            tracing::info!(region = id.0, peer = recovered.me.id.0, "a replica was created");
            self.start_peer(recovered);
        }
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
        self.dirty.insert(id);
    }
}
