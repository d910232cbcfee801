//! The store: all regions with a replica here, as one state machine.
//!
//! `handle` only records the event; `poll` does the work of all regions with events, so that there is one commit for
//! the log and one batch for the state, for any number of regions and proposals.

mod absorb;
mod create;
mod destroy;
mod found_log;
mod lag;
mod log_memory;
mod peers;
mod recover;
mod safe_ts;
mod status;
mod wake;

pub use create::{is_replica_of, next_replica_id, replica_id};
pub use found_log::Logs;
pub use lag::{StoreLag, WORST_MAX as LAGS_NAMED_MAX};
pub use recover::{LogEnd, log_end};
pub use status::RegionStatus;

use crate::config::Config;
use crate::consensus::wire::StoreMessage;
use crate::effect::{Answer, Apply, ApplyId, Effects, Observation, Persist, PersistId, SnapshotTask};
use crate::error::{Fault, RecoverError, RegionError};
use crate::event::Event;
use crate::families::Families;
use crate::leadership::Leadership;
use crate::memory::{Bounds, Memory, MemoryStatus};
use crate::meta;
use crate::outbox::{AppliedRegion, Outbox, ReadGate};
use crate::peer::Peer;
use crate::readers::Readers;
use crate::recovery::Recovery;
use crate::region::{Absorber, Region, RegionId, StoreId, StoreIdentity, Ticket};
use crate::snapshot::{FileId, FileNumbers, SnapshotFile};
use bytes::Bytes;
use kontiki_engine::{Commit, Durability};
use kontiki_env::rng::Rng;
use peers::Peers;
use prost::Message;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A persist that is not durable yet.
struct Persisting {
    id: PersistId,
    begun_at: Duration,
    regions: BTreeSet<RegionId>,
}

/// An apply batch that is not visible yet.
struct Applying {
    id: ApplyId,
    regions: Vec<AppliedRegion>,
    answers: Vec<(Ticket, Answer)>,
}

/// The replicated store of one node. See the crate's documentation.
///
/// Dropping it answers no ticket: the caller that drops it (a stopping node) has to answer open tickets with
/// [`Answer::Dropped`].
pub struct Store {
    config: Arc<Config>,
    families: &'static Families,
    rng: Rng,
    identity: Option<StoreIdentity>,
    /// What the directory says of lost stores.
    recovery: Arc<Recovery>,
    peers: Peers,
    creation: create::Creation,
    destruction: destroy::Destruction,
    absorption: absorb::Absorption,
    readers: Arc<Readers>,
    file_numbers: FileNumbers,
    out: Outbox,
    hibernation: wake::Hibernation,
    /// Regions whose replicas need ticks. The others cost nothing when they have no work.
    ticking: BTreeSet<RegionId>,
    /// Regions with pending work.
    dirty: BTreeSet<RegionId>,
    persisting: VecDeque<Persisting>,
    applying: VecDeque<Applying>,
    entry_reads: log_memory::EntryReads,
    safe_ts: safe_ts::SafeTimestamps,
    ticks: u64,
    /// The last interval of the clock in which a tick was counted.
    ticked: Option<u128>,
    fault: Option<Fault>,
}

fn damaged(region: RegionId, what: impl std::fmt::Display) -> RecoverError {
    RecoverError::Damaged(format!("region {region}: {what}"))
}

impl Store {
    /// An empty store. Panics if the configuration is not valid (see [`Config::validate`]), or the table of families.
    pub fn new(config: Config, families: &'static Families, rng: Rng) -> Store {
        families.validate().expect("the table is a constant of the caller");
        config.validate().expect("the caller has validated the configuration");
        let readers = Arc::new(Readers::new(config.planted()));
        let file_numbers = FileNumbers::new(config.planted().snapshot_names_reused);
        let hibernation = wake::Hibernation::new(rng.child("process").next_u64());
        let memory = Memory::new(Bounds {
            log_bytes_max: config.memory_bytes_max,
            evict_percent: config.memory_evict_percent,
            applying_bytes_max: config.applying_bytes_max,
            reading_bytes_max: config.reading_bytes_max,
            stored_bytes_max: config.stored_bytes_max,
        });
        let out = Outbox::new(memory, Leadership::new(config.leader_priority, config.slow_log));
        Store {
            config: Arc::new(config),
            families,
            rng,
            identity: None,
            recovery: Arc::default(),
            peers: Peers::default(),
            creation: create::Creation::default(),
            destruction: destroy::Destruction::default(),
            absorption: absorb::Absorption::default(),
            readers,
            file_numbers,
            out,
            hibernation,
            ticking: BTreeSet::new(),
            dirty: BTreeSet::new(),
            persisting: VecDeque::new(),
            applying: VecDeque::new(),
            entry_reads: log_memory::EntryReads::new(),
            safe_ts: safe_ts::SafeTimestamps::default(),
            ticks: 0,
            ticked: None,
            fault: None,
        }
    }

    /// Asks `gate` about reads of followers from now on.
    pub fn set_read_gate(&mut self, gate: ReadGate) {
        self.out.read_gate.0 = Some(gate);
    }

    /// What to write, durably and at once, when a directory becomes a store. Every store of the cluster must get the
    /// same regions, without those in which it has no peer.
    pub fn bootstrap(families: &Families, identity: &StoreIdentity, regions: &[Region]) -> Commit {
        meta::bootstrap(families.meta, identity, regions)
    }

    /// Lease checks from any thread.
    pub fn readers(&self) -> Arc<Readers> {
        self.readers.clone()
    }

    /// Which store this is, once recovered.
    pub fn identity(&self) -> Option<StoreIdentity> {
        self.identity
    }

    /// What the directory says of lost stores, once recovered. A leader is expected to propose a command for each
    /// region that it leads and for which [`Recovery::is_due`].
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Records an event. `now` is the time of a monotonic clock, the same one as in [`Readers::read`], *read after the
    /// event had arrived*: leases of other stores rely on that for messages. A time read earlier could lie before the
    /// moment at which a leader sent the heartbeat that is answered, and the promise would end too early.
    ///
    /// Ticks are counted by this clock: at most one in each interval of [`Config::tick_interval`], for any number of
    /// [`Event::Tick`]s, and missed ones are not made up for, so a stalled process does not start elections too early.
    /// Nothing else relies on ticks.
    pub fn handle(&mut self, event: Event, now: Duration) {
        // A time earlier than one already seen is replaced by that one: both have passed.
        self.out.now = self.out.now.max(now);
        if self.fault.is_some() {
            self.refuse_after_fault(event);
            return;
        }
        match event {
            Event::Tick => self.tick(),
            Event::Message(bytes) => self.message(bytes),
            Event::Propose { region, epoch, batch, ticket } => {
                self.request(region, ticket, |peer, out| peer.propose(epoch, batch, ticket, out));
            }
            Event::ReadBarrier { region, epoch, ticket } => {
                self.request(region, ticket, |peer, out| peer.read_barrier(epoch, ticket, out));
            }
            Event::ReplicaRead { region, epoch, read_at, ticket } => {
                self.request(region, ticket, |peer, out| peer.replica_read(epoch, read_at, ticket, out));
            }
            Event::ReplicaShows { region, index, ticket } => {
                self.request(region, ticket, |peer, out| peer.replica_shows(index, ticket, out));
            }
            Event::Persisted { batch } => self.persisted(batch),
            Event::Applied { through } => self.applied(through),
            Event::SnapshotReceived { message, file } => self.snapshot_received(message, file),
            Event::SnapshotPrepared { region, view, result } => {
                if !self.peers.contains_key(&region) && result.is_ok() {
                    self.out.snapshots.push(SnapshotTask::Release { view });
                }
                self.with_peer(region, |peer, out| peer.snapshot_prepared(view, result, out));
            }
            Event::SnapshotSent { region, to, view, ok } => {
                self.with_peer(region, |peer, out| peer.snapshot_sent(to, view, ok, out));
            }
            Event::SnapshotInstalled { region, file, result } => {
                self.with_peer(region, |peer, out| peer.installed(file, result, out));
            }
            Event::EntriesRead { region, id, result } => self.entries_read(region, id, result),
            Event::Checksummed { region, index, result } => {
                self.with_peer(region, |peer, out| peer.checksummed(index, result, out));
            }
            Event::Flushed { applied } => self.flushed(applied),
            Event::LogWritable { writable } => {
                self.out.leadership.set_writable(writable);
                self.ability_to_lead_changed();
            }
            Event::StopLeading => {
                self.out.leadership.stop(self.out.now);
                self.ability_to_lead_changed();
            }
            Event::Unreachable { store } => self.unreachable(store),
            Event::Campaign { region } => self.with_peer(region, |peer, out| {
                peer.wake(out.now);
                peer.campaign(out);
            }),
            Event::Command { region, command, ticket } => {
                let completed = self.completed(region, command);
                self.request(region, ticket, |peer, out| peer.propose_completed(completed, ticket, out));
            }
            Event::Timestamp { ts } => self.begin_safe_ts(ts),
            Event::SafeTs { claims } => self.claim_safe_ts(claims),
            Event::TransferLeader { region, to } => self.with_peer(region, |peer, out| {
                peer.wake(out.now);
                peer.transfer_leader(to);
            }),
        }
    }

    /// The pending work of all regions. Performing effects leads to further events; call it after handling what has
    /// come in, until it returns nothing ([`Effects::is_empty`]).
    pub fn poll(&mut self, now: Duration) -> Effects {
        self.out.now = self.out.now.max(now);
        // What events have started, before a parent's smaller range is published.
        self.readers.show_added();
        // An event may already have caused a fault: then all regions stop.
        self.fault = self.fault.take().or_else(|| self.out.fault.clone());
        if self.fault.is_none() {
            for region in std::mem::take(&mut self.dirty) {
                self.poll_region(region);
                if self.out.fault.is_some() {
                    break;
                }
            }
            if self.out.fault.is_none() {
                self.tend_absorptions();
            }
            self.fault = self.out.fault.clone();
        }
        if self.fault.is_none() {
            self.begin_reads();
            self.evict_entries();
        }
        self.collect()
    }

    fn poll_region(&mut self, region: RegionId) {
        let Some(peer) = self.peers.get_mut(&region) else { return };
        peer.poll(&mut self.out);
        if peer.has_queue() {
            self.dirty.insert(region);
        }
        if peer.needs_ticks() {
            self.ticking.insert(region);
        } else {
            self.ticking.remove(&region);
        }
        self.absorption.note(peer);
        // Before splits: one behind a merge may make regions of the range that was taken over.
        self.take_absorbed();
        self.tend_splits();
        self.tend_removed(region);
    }

    /// The number of proposals and read barriers that are not answered yet.
    pub fn open_tickets(&self) -> usize {
        self.out.open_count()
    }

    /// Whether a snapshot file is not needed. To be called, after [`Store::recover`], immediately before a file under
    /// `snapshots/` is removed that has arrived completely and whose arrival was reported here.
    pub fn may_remove(&self, file: &FileId) -> bool {
        let needed = || self.peers.get(&file.snapshot.region).is_some_and(|peer| peer.needs_file(file));
        let begun = || {
            let others = self.creation.needed_files().chain(self.destruction.needed_files());
            let mut others = others.chain(self.absorption.needed_files());
            others.any(|needed| needed == *file)
        };
        self.config.planted().snapshot_names_reused || !(needed() || begun())
    }

    /// The snapshot files without which this store's data is incomplete. After [`Store::recover`], before any event, no
    /// other is needed.
    pub fn needed_files(&self) -> Vec<FileId> {
        self.peers.values().flat_map(Peer::needed_files).chain(self.creation.needed_files()).collect()
    }

    /// Numbers for the names of snapshot files, greater than those of all files that this store knows of after
    /// [`Store::recover`]. The caller adds those of the files that it finds.
    pub fn file_numbers(&self) -> FileNumbers {
        self.file_numbers.clone()
    }

    fn with_peer(&mut self, region: RegionId, act: impl FnOnce(&mut Peer, &mut Outbox)) {
        if let Some(peer) = self.peers.get_mut(&region) {
            act(peer, &mut self.out);
            self.dirty.insert(region);
        }
    }

    fn refuse_after_fault(&mut self, event: Event) {
        if let Event::Propose { region, ticket, .. }
        | Event::ReadBarrier { region, ticket, .. }
        | Event::ReplicaRead { region, ticket, .. }
        | Event::ReplicaShows { region, ticket, .. }
        | Event::Command { region, ticket, .. } = event
        {
            self.out.open(ticket);
            self.out.answer(ticket, Answer::Refused(RegionError::NotLeader { region, leader: None }));
        }
    }

    fn tick(&mut self) {
        let interval = self.out.now.as_nanos() / self.config.tick_interval.as_nanos();
        // The first call only sets where counting begins.
        let before = *self.ticked.get_or_insert(interval);
        if interval <= before {
            return;
        }
        self.ticked = Some(interval);
        self.out.leadership.begin_tick(self.config.wake_regions_per_tick_max);
        for region in &self.ticking {
            if self.peers.get_mut(region).is_some_and(|peer| peer.tick(&mut self.out)) {
                self.dirty.insert(*region);
            }
        }
        self.ticks += 1;
        self.tick_merges();
        self.tick_hibernation();
        self.tick_safe_ts();
        self.judge_log();
        if self.ticks.is_multiple_of(self.config.truncate_ticks) {
            self.relieve_memory();
        }
    }

    /// The memory use of the logs.
    pub fn memory(&self) -> MemoryStatus {
        self.out.memory.status()
    }

    fn message(&mut self, bytes: Bytes) {
        let Ok(envelope) = StoreMessage::decode(bytes) else {
            tracing::warn!("a store message that cannot be decoded was ignored");
            return;
        };
        self.heard_from(&envelope);
        if envelope.alive != 0 || envelope.safe_ts.is_none() && self.is_from_lost(&envelope) {
            return;
        }
        if let Some(message) = &envelope.safe_ts {
            return self.take_safe_ts(&envelope, message);
        }
        let region = RegionId(envelope.region);
        if let Some(by) = envelope.absorbed_by {
            return self.learn_absorbed(region, by);
        }
        let Some(peer) = self.peers.get_mut(&region) else { return self.message_of_no_replica(envelope) };
        if peer.is_removed() {
            return;
        }
        if envelope.not_a_member {
            // The logs of regions that a split of this one makes need it until the split is applied. It asks again.
            if !self.creation.is_splitting(region) {
                peer.learn_not_a_member(StoreId(envelope.from_store), &envelope, &mut self.out);
                self.dirty.insert(region);
            }
            return;
        }
        let Some(from) = peer.sender(&envelope) else {
            return self.with_peer(region, |peer, out| peer.answer_stranger(envelope, out));
        };
        let (now, timeout) = (self.out.now, self.config.promise_duration());
        let is_alive = |store| self.hibernation.is_alive(store, now, timeout);
        if peer.hibernates() && peer.leader().is_some_and(|leader| !is_alive(leader.store)) {
            peer.leader_is_silent();
        }
        if envelope.merge_failed != 0 {
            return self.with_peer(region, |peer, out| peer.merge_failed(envelope.merge_failed, out));
        }
        if let Some(message) = envelope.replica_read {
            return self.with_peer(region, |peer, out| peer.take_replica_read(from, message, out));
        }
        match (&envelope.hibernate, &envelope.checksum) {
            (None, Some(checksum)) => peer.take_checksum(from, checksum, &mut self.out),
            (Some(message), _) => {
                let is_alive = is_alive(from.store);
                peer.take_hibernate(from, message, envelope.replicated, is_alive, &mut self.out);
            }
            (None, None) => peer.message(from, envelope, &mut self.out),
        }
        self.dirty.insert(region);
    }

    /// Whether the sender is a lost replica: its vote or its entries must not count.
    fn is_from_lost(&self, envelope: &StoreMessage) -> bool {
        self.recovery.is_lost(StoreId(envelope.from_store), envelope.conf_version)
    }

    fn snapshot_received(&mut self, message: Bytes, file: SnapshotFile) {
        let remove = SnapshotTask::Remove { file: file.name() };
        let is_of_file = |envelope: &StoreMessage| envelope.region == file.id.region.0 && !self.is_from_lost(envelope);
        let envelope = StoreMessage::decode(message).ok().filter(is_of_file);
        let Some(envelope) = envelope else { return self.out.snapshots.push(remove) };
        let Some(peer) = self.peers.get(&file.id.region) else {
            return self.snapshot_of_no_replica(&envelope, file);
        };
        // A snapshot that took the place of a split in the log, before tables hold what it made, would leave the logs
        // of its regions without it. One that holds keys of another region would replace that one's.
        let needs_log = self.creation.is_splitting(file.id.region) || peer.needs_log();
        let needs_log = needs_log && !self.config.planted().snapshot_in_place_of_split;
        let is_removed = peer.is_removed();
        self.out.flush |= needs_log;
        // The regions that it has taken over end here with it.
        let Ok(absorbed) = self.absorbed_here(&file.region) else { return self.out.snapshots.push(remove) };
        let others: Vec<RegionId> = absorbed.iter().copied().chain([file.id.region]).collect();
        let is_excluded = is_removed || needs_log || self.overlapping(&file.region, &others).is_some();
        let (id, by) = (file.name(), Absorber { region: file.id.region, version: file.region.epoch.version });
        let Some(peer) = self.peers.get_mut(&file.id.region) else { return };
        let from = if is_excluded { None } else { peer.sender(&envelope) };
        let raft = envelope.raft.filter(|raft| file.is_announced_by(raft));
        match (from, raft) {
            (Some(from), Some(raft)) => peer.snapshot_received(from, raft, file, &mut self.out),
            _ if peer.needs_file(&file.name()) => {}
            _ => self.out.snapshots.push(remove),
        }
        self.dirty.insert(RegionId(envelope.region));
        if peer.restores(&id) {
            self.end_absorbed(absorbed, by);
        }
    }

    /// Passes the request of `ticket` to a replica.
    fn request(&mut self, region: RegionId, ticket: Ticket, act: impl FnOnce(&mut Peer, &mut Outbox)) {
        self.out.open(ticket);
        match self.peers.get_mut(&region).filter(|peer| !peer.is_removed()) {
            Some(peer) => {
                if peer.hibernates() {
                    self.hibernation.wake_for_request(peer, self.out.now, &self.config);
                }
                act(peer, &mut self.out);
                self.dirty.insert(region);
            }
            None => self.out.answer(ticket, Answer::Refused(RegionError::RegionNotFound { region })),
        }
    }

    fn flushed(&mut self, applied: Vec<(RegionId, u64)>) {
        for (region, index) in applied {
            if self.peers.get(&region).is_some_and(|peer| peer.flushed() < index) {
                self.with_peer(region, |peer, out| peer.flushed_through(index, out));
            }
        }
        self.absorb_flushed();
    }

    fn persisted(&mut self, batch: PersistId) {
        assert!(batch < self.out.persist_id, "only a requested persist can be durable");
        while self.persisting.front().is_some_and(|persisting| persisting.id <= batch) {
            let Persisting { id, begun_at, regions } = self.persisting.pop_front().expect("just seen");
            self.out.leadership.log_speed.written(self.out.now.saturating_sub(begun_at));
            for region in regions {
                self.with_peer(region, |peer, out| peer.persisted(id, out));
            }
            self.create_persisted(id);
            self.destroy_persisted(id);
            self.absorb_persisted(id);
        }
    }

    fn applied(&mut self, through: ApplyId) {
        assert!(through < self.out.apply_id, "only a requested apply can be visible");
        while self.applying.front().is_some_and(|applying| applying.id <= through) {
            let applying = self.applying.pop_front().expect("just seen");
            for AppliedRegion { region, position, bytes, entry_bytes } in applying.regions {
                self.out.memory.apply_ended(entry_bytes);
                self.with_peer(region, |peer, out| peer.applied_through(position, bytes, out));
                // A merge that became visible ends at once where its target leads.
                self.tend_merge(region);
            }
            for (ticket, answer) in applying.answers {
                self.out.answer(ticket, answer);
            }
            self.create_applied(applying.id);
            self.absorb_applied(applying.id);
        }
    }

    fn collect(&mut self) -> Effects {
        let out = &mut self.out;
        let changes = |seen: &Observation| {
            use Observation::{RegionChanged, RegionMerged, RegionRemoved};
            matches!(seen, RegionChanged { .. } | RegionMerged { .. } | RegionRemoved { .. })
        };
        if out.observations.iter().any(changes) {
            self.hibernation.regions_changed();
        }
        let mut effects = Effects {
            send: std::mem::take(&mut out.send),
            answers: out.take_answers(),
            checksums: std::mem::take(&mut out.checksums),
            snapshots: std::mem::take(&mut out.snapshots),
            entries: std::mem::take(&mut out.entries),
            observations: std::mem::take(&mut out.observations),
            safe_ts: std::mem::take(&mut out.safe_ts),
            wants_timestamp: std::mem::take(&mut out.wants_timestamp),
            flush: std::mem::take(&mut out.flush),
            fault: out.fault.take(),
            ..Effects::default()
        };
        if effects.fault.is_some() {
            // Nothing of this poll may be written: a batch would end in the middle of the entry that was not decoded.
            (out.streams, out.persist_batch) = Default::default();
            (out.apply, out.apply_parts, out.applied) = Default::default();
            return effects;
        }
        if !out.streams.is_empty() {
            let streams = std::mem::take(&mut out.streams);
            let batch = std::mem::take(&mut out.persist_batch);
            let commit = Commit { batch, streams, durability: Durability::Sync, unchanged: vec![] };
            effects.persist = Some(Persist { id: out.persist_id, commit });
            assert!(self.persisting.back().is_none_or(|last| last.id < out.persist_id), "persists are numbered");
            let (id, begun_at, regions) = (out.persist_id, out.now, std::mem::take(&mut out.persisting));
            self.persisting.push_back(Persisting { id, begun_at, regions });
            out.persist_id.0 += 1;
        }
        assert!(out.persist_batch.is_empty(), "what ends a replica removes its log");
        assert!(out.persisting.is_empty(), "a region that waits for a persist has added to it");
        if !out.applied.is_empty() {
            let (id, regions) = (out.apply_id, std::mem::take(&mut out.applied));
            assert!(self.applying.back().is_none_or(|applying| applying.id < id), "applies are numbered");
            let (batch, parts) = (std::mem::take(&mut out.apply), std::mem::take(&mut out.apply_parts));
            effects.apply = Some(Apply { id, batch, parts });
            self.applying.push_back(Applying { id, regions, answers: std::mem::take(&mut out.apply_answers) });
            out.apply_id.0 += 1;
        }
        assert!(out.apply.is_empty() && out.apply_answers.is_empty(), "what is applied moves an applied index");
        effects
    }
}

#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
