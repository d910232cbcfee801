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
//! **By a split** of another region (`peer/split.rs`): first the beginning of the log is written durably, then the
//! split is applied, whose batch has the descriptor and the applied position, and then the replica starts. The apply is
//! not logged: until it is flushed, the split is applied again after a crash. Recovery therefore keeps a log that a
//! split has begun until the split asks for it again.
//!
//! Messages may come before the split is applied here. A leader's are not answered while another replica holds the
//! range. A candidate's last request for a vote is kept and delivered when the replica starts: on the store of the
//! parent's leader it campaigns at once, usually before the others have applied the split, and without that vote it
//! would wait for another election timeout.

use super::Store;
use super::found_log::FoundLog;
use crate::command::SPLIT_CHILDREN_MAX;
use crate::consensus::log::Position;
use crate::consensus::wire::{GroupState, StoreMessage};
use crate::effect::{ApplyId, PersistId, SnapshotTask};
use crate::error::{Fault, FaultKind};
use crate::meta::{self, Tombstone, encode_group_state};
use crate::outbox::SplitBegun;
use crate::peer::{Peer, Recovered};
use crate::readers::Publication;
use crate::region::{self, PeerId, Region, RegionId, StoreId};
use crate::snapshot::{FileId, SnapshotFile};
use kontiki_engine::{StreamHead, StreamId, StreamOp};
use kontiki_env::codec::hash64;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum number of vote requests that are kept for replicas which do not exist yet: of several splits at once.
const EARLY_VOTES_MAX: usize = 4 * SPLIT_CHILDREN_MAX;

/// The bits of a replica's identity that tell the replicas apart which a directory had of the same region.
const NUMBER_BITS: u64 = 0xffff;

/// The identity of the first replica of `region` that lives in the directory `directory` (a number drawn at random when
/// the directory was created): equal on every store, and different for each directory. It is a hash over both, of which
/// 48 bits tell directories apart, so a collision with another one of the region practically never happens.
pub fn replica_id(directory: u64, region: RegionId) -> PeerId {
    let bytes = [directory.to_le_bytes(), region.0.to_le_bytes()].concat();
    PeerId(hash64(&bytes).max(NUMBER_BITS + 1))
}

/// The identity of a replica that is added to `region` in the directory `directory`, which may have had one before that
/// was removed: the last 16 bits differ by those of the region's conf_version after the addition.
pub fn next_replica_id(directory: u64, region: &Region) -> PeerId {
    PeerId(replica_id(directory, region.id).0 ^ (region.epoch.conf_version + 1) & NUMBER_BITS)
}

/// Whether this is the identity of a replica of `region` in the directory `directory`.
pub fn is_replica_of(id: PeerId, directory: u64, region: RegionId) -> bool {
    (id.0 ^ replica_id(directory, region).0) & !NUMBER_BITS == 0
}

#[derive(Default)]
pub(super) struct Creation {
    /// Replicas of this directory are created.
    directory: Option<u64>,
    /// Replicas whose first state is being written.
    begun: BTreeMap<RegionId, Begun>,
    /// Logs that a split has begun, without their descriptors: the split is applied again.
    pub waiting: BTreeMap<RegionId, Waiting>,
    /// Of replicas that were destroyed here.
    pub tombstones: BTreeMap<RegionId, Tombstone>,
    /// The last request for the vote of each replica that does not exist, and when it came.
    early_votes: BTreeMap<RegionId, (Duration, StoreMessage)>,
}

/// A log that recovery found without its descriptor.
pub(super) struct Waiting {
    /// The region whose split has begun it.
    pub made_by: RegionId,
    /// Of a snapshot that it has accepted since.
    pub file: Option<FileId>,
    pub log: FoundLog,
}

/// A replica that starts when its first state is written.
struct Begun {
    stage: Stage,
    region: Region,
    origin: Origin,
    /// Of a snapshot that its log names.
    file: Option<FileId>,
    /// The log as a restart would find it.
    log: FoundLog,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A message, whose file has the data.
    Snapshot,
    /// A split of this region.
    Split(RegionId),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Logging(PersistId),
    /// The log is durable; the split is not handed out yet.
    Logged,
    /// The split is being applied.
    Applying(ApplyId),
}

impl Creation {
    /// The files of replicas that do not exist yet.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        let begun = self.begun.values().filter_map(|begun| begun.file);
        begun.chain(self.waiting.values().filter_map(|waiting| waiting.file))
    }

    /// Whether the replica of a region here is about to start.
    pub fn begins(&self, region: RegionId) -> bool {
        self.begun.contains_key(&region) || self.waiting.contains_key(&region)
    }

    /// Whether logs have begun for regions that a split of this one makes, and they have not started.
    pub fn is_splitting(&self, parent: RegionId) -> bool {
        let begun = self.begun.values().any(|begun| begun.origin == Origin::Split(parent));
        begun || self.waiting.values().any(|waiting| waiting.made_by == parent)
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
        let is_ours = envelope.to_store == store.0 && is_replica_of(PeerId(envelope.to_peer), directory, region);
        let begins = self.creation.begun.contains_key(&region) || self.creation.waiting.contains_key(&region);
        let is_free = region.0 != 0 && !begins && !self.absorption.is_ending(region) && envelope.from_store != store.0;
        let me = region::Peer { id: PeerId(envelope.to_peer), store };
        let tombstone = self.creation.tombstones.get(&region);
        let is_new = tombstone.is_none_or(|tombstone| tombstone.admits(me.id, envelope.conf_version));
        (is_ours && is_free && is_new).then_some(me)
    }

    pub(super) fn message_of_no_replica(&mut self, envelope: StoreMessage) {
        if self.answer_of_absorbed(&envelope) {
            return;
        }
        let Some(raft) = &envelope.raft else { return self.answer_to_hibernate(&envelope) };
        if raft.is_vote_request() {
            return self.keep_early_vote(envelope);
        }
        let descriptor = envelope.descriptor.as_ref().and_then(|descriptor| descriptor.to_region().ok());
        if descriptor.is_some_and(|region| !self.is_range_free(&region)) {
            // The range is still that of the region which is about to be split here: no snapshot is needed.
            return;
        }
        let answer = raft.answer_of_an_empty_log();
        if answer.is_some() && self.replica_to_create(&envelope).is_some() {
            let (conf_version, version) = (envelope.conf_version, envelope.version);
            let answer = StoreMessage { conf_version, version, raft: answer, ..self.answer_to(&envelope) };
            self.out.send.push((StoreId(envelope.from_store), answer.encode_to_vec().into()));
        }
    }

    /// An empty answer to a message for a replica that does not exist here.
    pub(super) fn answer_to(&self, envelope: &StoreMessage) -> StoreMessage {
        StoreMessage {
            region: envelope.region,
            from_store: envelope.to_store,
            to_store: envelope.from_store,
            from_peer: envelope.to_peer,
            to_peer: envelope.from_peer,
            conf_version: envelope.conf_version,
            ..self.out.leadership.message()
        }
    }

    /// A replica that hibernates takes this store for its leader's, and there is no replica here.
    fn answer_to_hibernate(&mut self, envelope: &StoreMessage) {
        let is_ours = self.identity.is_some_and(|identity| identity.store.0 == envelope.to_store);
        let begins = self.creation.begun.contains_key(&RegionId(envelope.region));
        if is_ours && !begins && envelope.hibernate.is_some_and(|hibernate| hibernate.agreed) {
            let answer = StoreMessage { not_a_member: true, ..self.answer_to(envelope) };
            self.out.send.push((StoreId(envelope.from_store), answer.encode_to_vec().into()));
        }
    }

    fn keep_early_vote(&mut self, envelope: StoreMessage) {
        let (region, now) = (RegionId(envelope.region), self.out.now);
        let is_ours = self.identity.is_some_and(|identity| identity.store.0 == envelope.to_store);
        if !is_ours || self.creation.tombstones.contains_key(&region) {
            return;
        }
        let (votes, lifetime) = (&mut self.creation.early_votes, self.config.promise_duration());
        if votes.len() >= EARLY_VOTES_MAX {
            votes.retain(|_, (at, _)| now.saturating_sub(*at) < lifetime);
        }
        if votes.len() < EARLY_VOTES_MAX || votes.contains_key(&region) {
            votes.insert(region, (now, envelope));
        }
    }

    /// Delivers a request for a vote that came before the replica.
    fn deliver_early_vote(&mut self, region: RegionId) {
        let Some((at, envelope)) = self.creation.early_votes.remove(&region) else { return };
        let is_late = self.out.now.saturating_sub(at) >= self.config.promise_duration();
        let Some(peer) = self.peers.get_mut(&region).filter(|_| !is_late) else { return };
        if let Some(from) = peer.sender(&envelope) {
            peer.message(from, envelope, &mut self.out);
        }
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
        self.begin_log(file.region.clone(), Origin::Snapshot, Some(file.name()), &state);
    }

    /// What splits of this poll asked for, and what they put into its apply.
    pub(super) fn tend_splits(&mut self) {
        for SplitBegun { parent, children } in std::mem::take(&mut self.out.splits) {
            for child in children {
                self.begin_child(parent, child);
            }
            self.report_logged(parent);
        }
        for region in std::mem::take(&mut self.out.made) {
            let begun = self.creation.begun.get_mut(&region).expect("its log has begun");
            assert!(begun.stage == Stage::Logged, "the log is durable before the descriptor is applied");
            begun.stage = Stage::Applying(self.out.apply_id);
        }
    }

    /// Begins the log of a region that a split of `parent` makes, or takes over the one that it has begun before.
    fn begin_child(&mut self, parent: RegionId, region: Region) {
        let id = region.id;
        let exists = self.peers.contains_key(&id) || self.creation.begun.contains_key(&id);
        let overlapped = self.overlapping(&region, &[parent]);
        if exists || self.creation.tombstones.contains_key(&id) || overlapped.is_some() {
            let why = match overlapped {
                _ if exists => "exists here".to_owned(),
                Some(other) => format!("has keys that region {other} holds here"),
                None => "existed here".to_owned(),
            };
            let what = format!("its split makes region {id}, which {why}");
            self.out.fail(Fault { region: parent, what, kind: FaultKind::Unable });
            return;
        }
        let Some(me) = self.identity.and_then(|identity| region.peer_on(identity.store)) else { return };
        let origin = Origin::Split(parent);
        match self.creation.waiting.remove(&id) {
            Some(Waiting { log, file, .. }) => {
                self.creation.begun.insert(id, Begun { stage: Stage::Logged, region, origin, file, log });
            }
            None => {
                let state = GroupState { peer: me.id.0, made_by: parent.0, ..meta::initial_state() };
                self.begin_log(region, origin, None, &state);
            }
        }
    }

    /// Notifies the parent if the logs of all regions that its split makes are durable.
    fn report_logged(&mut self, parent: RegionId) {
        // Regions of an earlier split may be in flight to the engine.
        let is_logging =
            |begun: &Begun| begun.origin == Origin::Split(parent) && matches!(begun.stage, Stage::Logging(_));
        if !self.creation.begun.values().any(is_logging) {
            self.with_peer(parent, |peer, _| peer.split_logged());
        }
    }

    fn begin_log(&mut self, region: Region, origin: Origin, file: Option<FileId>, state: &GroupState) {
        let (stream, through_index) = (StreamId(region.id.0), state.truncated_index);
        let state = encode_group_state(state);
        let head = StreamHead { truncated_through: through_index, state: state.clone(), last_index: through_index };
        self.out.streams.push(StreamOp::Truncate { stream, through_index });
        self.out.streams.push(StreamOp::State { stream, state });
        let stage = Stage::Logging(self.out.persist_id);
        let log = FoundLog::new(region.id, head);
        self.creation.begun.insert(region.id, Begun { stage, region, origin, file, log });
    }

    /// Whether no replica here, existing or being created, holds a part of the region's range, nor does after a crash.
    /// If only the latter is the case, a flush is requested, which ends it.
    fn is_range_free(&mut self, region: &Region) -> bool {
        if self.overlapping(region, &[]).is_some() {
            return false;
        }
        let mut in_tables = self.peers.values().flat_map(Peer::ranges_in_tables);
        let is_in_use = in_tables.any(|other| other.overlaps(region));
        self.out.flush |= is_in_use;
        !is_in_use
    }

    /// A replica here, existing, being created or being destroyed, that holds a part of the region's range; of other
    /// regions than `except`.
    pub(super) fn overlapping(&self, region: &Region, except: &[RegionId]) -> Option<RegionId> {
        let here = self.peers.values().flat_map(Peer::ranges);
        let begun = self.creation.begun.values().map(|begun| &begun.region);
        let mut others = here.chain(begun).chain(self.destruction.regions());
        others.find(|other| !except.contains(&other.id) && other.overlaps(region)).map(|other| other.id)
    }

    /// Everything through `persist` is durable: replicas whose log has begun with it start, or wait for their split.
    pub(super) fn create_persisted(&mut self, persist: PersistId) {
        for id in self.begun_at(|stage| matches!(stage, Stage::Logging(id) if id <= persist)) {
            let begun = self.creation.begun.remove(&id).expect("just seen");
            match begun.origin {
                Origin::Snapshot => self.start_created(begun, Position::default()),
                Origin::Split(parent) => {
                    self.creation.begun.insert(id, Begun { stage: Stage::Logged, ..begun });
                    self.report_logged(parent);
                }
            }
        }
    }

    /// Everything through `apply` is visible: regions that a split in it makes start. The one on the store of the
    /// parent's leader campaigns at once, so that their range is without a leader for one round trip only.
    pub(super) fn create_applied(&mut self, apply: ApplyId) {
        for id in self.begun_at(|stage| matches!(stage, Stage::Applying(id) if id <= apply)) {
            let begun = self.creation.begun.remove(&id).expect("just seen");
            let parent_leads = |parent| self.peers.get(&parent).is_some_and(Peer::leads);
            let campaigns = matches!(begun.origin, Origin::Split(parent) if parent_leads(parent));
            self.start_created(begun, meta::INITIAL);
            if campaigns {
                self.with_peer(id, |peer, out| peer.campaign(out));
            }
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
            region: recovered.region.clone(),
            term: recovered.group.term(),
            leader: None,
            readable: false,
            leads: false,
        };
        let slot = self.readers.add(publication);
        let mut peer = Peer::new(self.config.clone(), self.families, recovered, slot);
        peer.campaign_if_alone();
        let id = peer.region().id;
        assert!(self.peers.insert(id, peer), "a region has one replica here");
        self.absorption.note(&self.peers[&id]);
        self.ticking.insert(id);
        self.dirty.insert(id);
        self.deliver_early_vote(id);
    }
}
