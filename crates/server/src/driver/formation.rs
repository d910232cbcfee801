//! Performs what [`super::membership`] decides: hellos to other members, their records in family `meta`, and the first
//! state of a cluster.
//!
//! | key in `meta` | value |
//! |---|---|
//! | `10` | this directory's `Incarnation`: version (1 byte, 1), protobuf |
//! | `11`, store id (8 bytes BE) | the recorded `Incarnation` of another member: likewise |
//! | `13` | see [`super::recovery_record`] |
//! | `12` | the last of this directory's incarnations with which it took part: likewise |
//! | `14`, `15` | where raft logs are kept: see [`crate::families::LOG_PLACE`] |

use super::error::{OpenError, StopReason};
use super::first_regions::{first_regions, placement_stores};
use super::heartbeat::placement_region;
use super::membership::{GENERATION_INTERVAL, Hello, HelloOutcome, Incarnation, Join, Membership, MembershipState};
use super::message::{Body, encode};
use super::recovery_record::RecoveryRecord;
use super::{Driver, Outbound, PLACEMENT_REGION};
use crate::config::NodeConfig;
use crate::families;
use bytes::Bytes;
use kontiki_engine::{
    Commit, Direction, Durability, Error as EngineError, Range, Result as EngineResult, StreamHead, StreamId,
    StreamVisitor, View, WriteBatch,
};
use kontiki_env::rng::Rng;
use kontiki_placement::Now;
use kontiki_raftlog::RaftLog;
use kontiki_raftstore::{Logs, RecoverError, Store, StoreId, StoreIdentity, meta};
use kontiki_state::StateEngine;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TAG_OWN: u8 = 0x10;
const TAG_OTHER: u8 = 0x11;
const TAG_CONFIRMED: u8 = 0x12;
/// Version of both values' format.
const FORMAT: u8 = 1;
/// How often a node that does not take part reports this in its log.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60);
/// How long after a start the first report is logged: most starts are complete by then.
const REMINDER_FIRST: Duration = Duration::from_secs(5);

/// The state that the driver keeps beside the decisions.
pub(super) struct Formation {
    pub membership: Membership,
    /// Draws the random marks of generations.
    rng: Rng,
    generation_at: Duration,
    /// The generation that is being written, and whether it is durable.
    renewing: Option<(Incarnation, Arc<AtomicBool>)>,
    reminder_at: Duration,
    /// Whether every replica that belongs here is there, when there were so many; `None` if that may have changed.
    has_data: Option<(usize, bool)>,
}

pub(super) fn other_key(store: StoreId) -> [u8; 9] {
    let mut key = [TAG_OTHER; 9];
    key[1..].copy_from_slice(&store.0.to_be_bytes());
    key
}

pub(super) fn put_incarnation(batch: &mut WriteBatch, key: &[u8], incarnation: &Incarnation) {
    let mut value = vec![FORMAT];
    value.extend(incarnation.encode_to_vec());
    batch.put(families::META, key, &value);
}

pub(super) fn decode_incarnation(value: &[u8]) -> Result<Incarnation, RecoverError> {
    let damaged = |what: &str| RecoverError::Damaged(format!("the record of a member's directory {what}"));
    match value.split_first() {
        Some((&FORMAT, rest)) => {
            let incarnation = Incarnation::decode(rest).map_err(|_| damaged("cannot be decoded"))?;
            if incarnation.id == 0 { Err(damaged("names no directory")) } else { Ok(incarnation) }
        }
        Some((version, _)) => Err(damaged(&format!("is of format {version}; this version knows {FORMAT}"))),
        None => Err(damaged("is empty")),
    }
}

pub(super) fn known_members(view: &dyn View) -> Result<BTreeMap<StoreId, Incarnation>, RecoverError> {
    let range = Range::region(&[TAG_OTHER], &[TAG_OTHER + 1]);
    let mut entries = view.entries(families::META, range, Direction::Forward)?;
    let mut known = BTreeMap::new();
    while let Some((key, value)) = entries.next().transpose()? {
        let store = key.get(1..).and_then(|id| <[u8; 8]>::try_from(id).ok()).map(u64::from_be_bytes);
        let store = store.ok_or_else(|| RecoverError::Damaged("a member record with a malformed key".into()))?;
        known.insert(StoreId(store), decode_incarnation(&value)?);
    }
    Ok(known)
}

pub(super) fn synced(batch: WriteBatch) -> Commit {
    Commit { batch, streams: vec![], durability: Durability::Sync, unchanged: vec![] }
}

impl Formation {
    /// Opens it with the replicas that the directory has. They are recovered before the start is counted: a directory
    /// that has lost some of their state is left unchanged.
    pub(super) fn open_with(
        store: &mut Store,
        (state, log): (&dyn StateEngine, &dyn RaftLog),
        config: &NodeConfig,
        rng: Rng,
    ) -> Result<Formation, OpenError> {
        let mut is_formed = is_formed(state, config)?;
        if !is_formed && config.members.len() == 1 {
            // A single-node cluster is formed from its first start on: no other node can know it.
            log.commit(first_state(config, &BTreeMap::new()))?;
            is_formed = true;
        }
        if is_formed {
            recover(store, state, log)?;
        }
        let formation = Formation::open(state, config, is_formed, rng)?;
        if is_formed {
            formation.create_replicas(store);
        }
        Ok(formation)
    }

    /// Counts this start, durably, and begins the check. `is_formed`: the directory belongs to a cluster.
    fn open(
        state: &dyn StateEngine,
        config: &NodeConfig,
        is_formed: bool,
        mut rng: Rng,
    ) -> Result<Formation, OpenError> {
        let view = state.snapshot();
        let found = |tag: u8| -> Result<Option<Incarnation>, OpenError> {
            Ok(view.get(families::META, &[tag])?.map(|value| decode_incarnation(&value)).transpose()?)
        };
        let (before, confirmed) = (found(TAG_OWN)?, found(TAG_CONFIRMED)?);
        // Directories of versions without a record get one at their first start with this version.
        let fresh = Incarnation { id: rng.next_u64() | 1, ..Incarnation::default() };
        let previous = before.unwrap_or(fresh);
        let mut next = Incarnation { generation: previous.generation + 1, mark: rng.next_u64(), ..previous };
        if confirmed.is_some_and(|confirmed| confirmed != previous) {
            // A start after which it did not take part does not count: otherwise repeated starts of an older copy would
            // overtake its original.
            next = previous;
        }
        let mut batch = WriteBatch::new();
        put_incarnation(&mut batch, &[TAG_OWN], &next);
        if confirmed.is_none() {
            // From a version that did not record this, or new.
            put_incarnation(&mut batch, &[TAG_CONFIRMED], &previous);
        }
        let own = match state.commit(batch, Durability::Sync) {
            Ok(()) => next,
            // A full disk must not keep a node from starting: it continues with the generation that it has.
            Err(error) if error.is_retryable() && before.is_some() => previous,
            Err(error) => return Err(error.into()),
        };
        let members = config.members.keys().copied().map(StoreId).collect();
        let voters = placement_stores(config).collect();
        let store = StoreId(config.store_id);
        let recovery = RecoveryRecord::load(&view)?;
        if recovery.number > 0 {
            let RecoveryRecord { number, lost, .. } = &recovery;
            tracing::warn!("unsafe recovery {number} of this cluster: stores {lost:?} were given up");
        }
        let known = known_members(&view)?;
        let mut membership = Membership::new(store, own, is_formed, members, voters, known).after(recovery);
        if config.replace_lost_directory {
            membership = membership.may_replace_a_lost_one();
        }
        let (generation_at, reminder_at) = (Duration::MAX, Duration::MAX);
        Ok(Formation { membership, rng, generation_at, renewing: None, reminder_at, has_data: None })
    }

    /// Leaders create replicas in this directory: one that replaced a lost one gets all of them in this way, and a
    /// store that was away during a split gets those of the new regions.
    fn create_replicas(&self, store: &mut Store) {
        store.create_replicas_of(self.membership.own().id);
    }

    /// Starts the timers.
    pub(super) fn started(&mut self, now: Duration) {
        self.generation_at = now + GENERATION_INTERVAL;
        self.reminder_at = now + REMINDER_FIRST;
    }
}

/// The contents of a directory that joins the cluster that `members` form: identity, regions, the beginnings of their
/// logs, placement's first state, and the other members.
fn first_state(config: &NodeConfig, members: &BTreeMap<StoreId, u64>) -> Commit {
    let identity = StoreIdentity { cluster: config.cluster_id, store: StoreId(config.store_id) };
    let regions = first_regions(config);
    let ours: Vec<_> = regions.iter().filter(|region| region.peer_on(identity.store).is_some()).cloned().collect();
    let mut commit = Store::bootstrap(&families::FAMILIES, &identity, &ours);
    if ours.iter().any(|region| region.id == PLACEMENT_REGION) {
        let store = |(id, address): (&u64, &String)| kontiki_placement::Store {
            id: *id,
            address: address.clone(),
            ..Default::default()
        };
        let stores: Vec<_> = config.members.iter().map(store).collect();
        let regions: Vec<_> = regions.iter().map(placement_region).collect();
        commit.batch.append(&kontiki_placement::bootstrap(&stores, &regions));
    }
    put_members(&mut commit.batch, identity.store, members);
    commit
}

fn put_members(batch: &mut WriteBatch, own: StoreId, members: &BTreeMap<StoreId, u64>) {
    for (store, id) in members.iter().filter(|(store, _)| **store != own) {
        put_incarnation(batch, &other_key(*store), &Incarnation::first(*id));
    }
}

/// The contents of a directory that joins a cluster as the replacement of a lost one: no replicas.
fn joined_state(config: &NodeConfig, join: &Join) -> Commit {
    let identity = StoreIdentity { cluster: config.cluster_id, store: StoreId(config.store_id) };
    let mut commit = Store::bootstrap(&families::FAMILIES, &identity, &[]);
    put_members(&mut commit.batch, identity.store, &join.members);
    for (store, lost) in &join.lost {
        put_incarnation(&mut commit.batch, &other_key(*store), lost);
    }
    if join.recovery.number > 0 {
        join.recovery.put(&mut commit.batch);
    }
    put_incarnation(&mut commit.batch, &[TAG_OWN], &join.own);
    commit
}

/// Recovers the replicas of the directory.
pub(super) fn recover(store: &mut Store, state: &dyn StateEngine, log: &dyn RaftLog) -> Result<(), OpenError> {
    store.recover_from(&state.snapshot(), &StoredLogs { log, heads: log.heads()? })?;
    Ok(())
}

/// The raft logs of the directory, wherever they are kept.
struct StoredLogs<'a> {
    log: &'a dyn RaftLog,
    heads: Vec<(StreamId, StreamHead)>,
}

impl Logs for StoredLogs<'_> {
    fn heads(&self) -> Vec<(StreamId, StreamHead)> {
        self.heads.clone()
    }

    fn scan(&self, visit: &mut StreamVisitor<'_>) -> EngineResult<()> {
        self.log.scan(visit)
    }

    fn entries(&self, id: StreamId, range: std::ops::Range<u64>) -> EngineResult<Vec<Bytes>> {
        self.log.entries(id, range)
    }
}

/// Whether the directory belongs to a cluster; an error if it is not the configured one.
fn is_formed(state: &dyn StateEngine, config: &NodeConfig) -> Result<bool, OpenError> {
    let identity = StoreIdentity { cluster: config.cluster_id, store: StoreId(config.store_id) };
    let view = state.snapshot();
    if let Some(found) = meta::identity(families::META, &view)? {
        if found == identity {
            check_members(&view, config)?;
            return Ok(true);
        }
        return Err(OpenError::Identity {
            directory: config.data_dir.clone(),
            found_cluster: found.cluster,
            found_store: found.store,
            cluster: identity.cluster,
            store: identity.store,
        });
    }
    for family in families::DATA_FAMILIES.into_iter().filter(|_| config.members.len() > 1) {
        let mut data = view.entries(family, Range::all(), Direction::Forward)?;
        if data.next().transpose()?.is_some() {
            return Err(OpenError::EmbeddedData { directory: config.data_dir.clone(), members: config.members.len() });
        }
    }
    Ok(false)
}

/// Refuses a list of nodes that cannot be that of the directory's cluster: its members are fixed when it is formed.
/// With others the node would wait for a majority that does not exist, and the others would take their data for lost.
fn check_members(view: &dyn View, config: &NodeConfig) -> Result<(), OpenError> {
    let (own, directory) = (StoreId(config.store_id), || config.data_dir.clone());
    let known = known_members(view)?;
    let regions = meta::regions(families::META, view)?;
    let with_replicas: BTreeSet<StoreId> =
        regions.iter().flat_map(|region| region.peers.iter().map(|peer| peer.store)).collect();
    let formed: BTreeSet<StoreId> = with_replicas.iter().chain(known.keys()).copied().chain([own]).collect();
    let numbers = |stores: BTreeSet<StoreId>| stores.into_iter().map(|store| store.0).collect::<Vec<_>>();
    let strangers: BTreeSet<StoreId> = placement_stores(config).filter(|store| !formed.contains(store)).collect();
    if !strangers.is_empty() {
        let (formed, strangers) = (numbers(formed), numbers(strangers));
        return Err(OpenError::OtherMembers { directory: directory(), formed, strangers });
    }
    let is_lost = |store: &StoreId| known.get(store).is_some_and(Incarnation::is_lost);
    let unnamed = with_replicas.into_iter().filter(|store| !config.members.contains_key(&store.0) && !is_lost(store));
    let unnamed: BTreeSet<StoreId> = unnamed.collect();
    if !unnamed.is_empty() {
        return Err(OpenError::NoAddress { directory: directory(), stores: numbers(unnamed) });
    }
    Ok(())
}

impl Formation {
    /// A replica came, went, or has another range.
    pub(super) fn regions_changed(&mut self) {
        self.has_data = None;
    }
}

impl Driver {
    /// On ticks: sends hellos, begins a new generation, and reports why the node does not take part.
    pub(super) fn tend_membership(&mut self, now: Now) {
        self.renew_generation(now);
        if self.formation.membership.hello_due(now.monotonic) {
            let wants_answer = !self.formation.membership.is_member();
            for to in self.formation.membership.others().to_vec() {
                self.say_hello(to, wants_answer);
            }
        }
        if now.monotonic >= self.formation.reminder_at {
            self.formation.reminder_at = now.monotonic + REMINDER_INTERVAL;
            self.remind();
        }
    }

    fn say_hello(&mut self, to: StoreId, wants_answer: bool) {
        let mut hello = self.formation.membership.hello(to, wants_answer);
        // Readers do not see a replica any more as soon as it is removed, which is observed when nothing is left of it.
        let count = self.shared.readers.count();
        let known = self.formation.has_data.filter(|(of, _)| *of == count).map(|(_, has_data)| has_data);
        hello.has_data = known.unwrap_or_else(|| self.shared.missing().is_empty());
        self.formation.has_data = Some((count, hello.has_data));
        self.outbound.push(Outbound::Message { to, bytes: encode(Body::Hello(hello)) });
    }

    pub(super) fn take_hello(&mut self, from: StoreId, hello: &Hello, now: Now) {
        let HelloOutcome { answer, record, form, join, outdated_by, is_replaced, is_lost, recovery_differs } =
            self.formation.membership.handle_hello(from, hello);
        if let Some(theirs) = recovery_differs {
            let own = self.formation.membership.recovery();
            let number = theirs.number.max(own.number + 1);
            let (directory, own) = (self.config.data_dir.clone(), own.lost.clone());
            self.stop(StopReason::LostStoresDiffer { directory, by: from, own, theirs: theirs.lost, number });
            return;
        }
        if is_lost {
            let directory = self.config.data_dir.clone();
            self.stop(StopReason::LostStore { directory, store: self.shared.store_id, by: from });
            return;
        }
        if is_replaced {
            let directory = self.config.data_dir.clone();
            self.stop(StopReason::ReplacedDirectory { directory, store: self.shared.store_id, by: from });
            return;
        }
        if let Some(later) = outdated_by {
            let (own, known) = (self.formation.membership.own().generation, later.generation);
            let directory = self.config.data_dir.clone();
            self.stop(StopReason::OutdatedDirectory { directory, store: self.shared.store_id, by: from, own, known });
            return;
        }
        if let Some(incarnation) = record {
            self.record_member(from, &incarnation);
        }
        if let Some(members) = form {
            self.form(&members, now);
        }
        if let Some(join) = join {
            self.join(&join, now);
        }
        if answer {
            self.say_hello(from, false);
        }
        self.publish_standing();
    }

    /// Publishes the membership state to other threads; logs when it changed.
    pub(super) fn publish_standing(&mut self) {
        let state = self.formation.membership.state();
        let mut published = self.shared.membership.lock();
        if *published == *state {
            return;
        }
        let news = std::mem::discriminant(&*published) != std::mem::discriminant(state);
        *published = state.clone();
        drop(published);
        if news {
            match state {
                MembershipState::Replaced { .. } => self.remind(),
                MembershipState::Member => {
                    self.record_confirmed();
                    tracing::info!(store = self.config.store_id, "takes part in the cluster");
                }
                MembershipState::Forming { .. } | MembershipState::Confirming => {}
            }
        }
    }

    fn remind(&self) {
        let store = self.config.store_id;
        match self.formation.membership.state() {
            MembershipState::Member => {}
            state @ MembershipState::Replaced { .. } => tracing::error!(store, "{}", state.explain(&self.config)),
            state => tracing::warn!(store, "{}", state.explain(&self.config)),
        }
    }

    /// Counts this start.
    fn record_confirmed(&self) {
        let store = StoreId(self.config.store_id);
        self.record_incarnation(store, &[TAG_CONFIRMED], &self.formation.membership.own());
    }

    fn record_member(&self, store: StoreId, incarnation: &Incarnation) {
        self.record_incarnation(store, &other_key(store), incarnation);
    }

    /// If it fails, a later start finds an older record, which recognises fewer copies.
    fn record_incarnation(&self, store: StoreId, key: &[u8], incarnation: &Incarnation) {
        let mut batch = WriteBatch::new();
        put_incarnation(&mut batch, key, incarnation);
        let report = move |result: EngineResult<()>| {
            if let Err(error) = result {
                tracing::warn!(store = store.0, %error, "the generation of a store's directory could not be recorded");
            }
        };
        self.state.submit(batch, Durability::Sync, Box::new(report));
    }

    fn renew_generation(&mut self, now: Now) {
        if let Some((own, _)) = self.formation.renewing.take_if(|(_, durable)| durable.load(Ordering::Acquire)) {
            self.formation.membership.renewed(own);
        }
        if now.monotonic < self.formation.generation_at || self.formation.renewing.is_some() {
            return;
        }
        self.formation.generation_at = now.monotonic + GENERATION_INTERVAL;
        let own = self.formation.membership.own();
        let own = Incarnation { generation: own.generation + 1, mark: self.formation.rng.next_u64(), ..own };
        let mut batch = WriteBatch::new();
        put_incarnation(&mut batch, &[TAG_OWN], &own);
        put_incarnation(&mut batch, &[TAG_CONFIRMED], &own);
        let durable = Arc::new(AtomicBool::new(false));
        let done = durable.clone();
        let inbox = self.shared.inbox.clone();
        self.formation.renewing = Some((own, durable));
        self.state.submit(
            batch,
            Durability::Sync,
            Box::new(move |result| match result {
                Ok(()) => done.store(true, Ordering::Release),
                Err(error) => inbox.push(super::inbox::Input::GenerationFailed { error }),
            }),
        );
    }

    /// A generation could not be written. The next write may have the same number with another mark.
    pub(super) fn generation_failed(&mut self, error: EngineError) {
        self.formation.renewing = None;
        if !error.is_retryable() {
            self.stop(StopReason::Engine { doing: "recorded its generation", error });
        }
    }

    /// Joins the cluster that `members` form.
    fn form(&mut self, members: &BTreeMap<StoreId, u64>, now: Now) {
        if !self.begin("formed the cluster", first_state(&self.config, members)) {
            return;
        }
        self.formation.membership.formed(members);
        self.formation.create_replicas(&mut self.store);
        tracing::info!(store = self.config.store_id, "formed cluster {}", self.config.cluster_id);
        self.tend_membership(now);
    }

    /// Joins the cluster as the replacement of a lost directory.
    fn join(&mut self, join: &Join, now: Now) {
        if !self.begin("joined the cluster", joined_state(&self.config, join)) {
            return;
        }
        self.formation.membership.joined(join);
        self.formation.create_replicas(&mut self.store);
        self.begin_above();
        let (store, cluster, count) = (self.config.store_id, self.config.cluster_id, join.own.replacement);
        tracing::warn!(store, "replaces a lost directory of cluster {cluster} (number {count} of this store)");
        self.tend_membership(now);
    }

    /// What placement begins at, and what is shown, after an unsafe recovery.
    pub(super) fn begin_above(&mut self) {
        let record = self.formation.membership.recovery();
        self.placement.begin_above(record.timestamp_min_ms, record.id_min);
        *self.shared.recovery.lock() = record.recovery();
    }

    /// Writes a directory's first state and recovers from it: one synced commit, so that after a crash the directory
    /// belongs to the cluster or is empty. Blocks on I/O, once in the lifetime of a directory and before it serves
    /// requests. Returns whether it was done.
    fn begin(&mut self, doing: &'static str, first: Commit) -> bool {
        match self.log.commit(first) {
            Ok(()) => {}
            // The disk is full: the next hello tries again.
            Err(error) if error.is_retryable() => return false,
            Err(error) => {
                self.stop(StopReason::Engine { doing, error });
                return false;
            }
        }
        let recovered = recover(&mut self.store, &*self.state, &*self.log);
        if let Err(error) = &recovered {
            self.stop(StopReason::Formation(error.to_string()));
        }
        recovered.is_ok()
    }
}

impl MembershipState {
    /// Describes, for operators, why the node does not take part and what to do.
    pub fn explain(&self, config: &NodeConfig) -> String {
        let (store, cluster) = (config.store_id, config.cluster_id);
        match self {
            MembershipState::Member => format!("store {store} takes part in cluster {cluster}"),
            MembershipState::Confirming => format!(
                "store {store} waits until a majority of the cluster's members confirms that its directory is not an \
                 older copy; start the other members, or check the addresses of --initial-cluster"
            ),
            MembershipState::Forming { waiting_for } => {
                let stores: Vec<String> = waiting_for.iter().map(ToString::to_string).collect();
                format!(
                    "cluster {cluster} is formed when all of its first members are reachable; store {store} waits for \
                     store {}; start it, or check the addresses of --initial-cluster",
                    if stores.is_empty() { "1 to decide".to_owned() } else { stores.join(", ") }
                )
            }
            MembershipState::Replaced { reported_by } if config.replace_lost_directory => format!(
                "the data directory {} is empty, and replaces the one with which store {reported_by} knows store {store} \
                 of cluster {cluster}, as requested: it waits for a majority of the members that have their data",
                config.data_dir.display()
            ),
            MembershipState::Replaced { reported_by } => format!(
                "the data directory {} is empty, but store {reported_by} knows cluster {cluster} with another directory of \
                 store {store}: its data are lost here, and it neither votes nor counts. If the old directory still \
                 exists, start the node with it; if it is permanently lost, start the node with \
                 --replace-lost-directory, and it is added as a new replica after an answer of a majority of the \
                 members that have their data; see docs/guide/replace-a-disk.md",
                config.data_dir.display()
            ),
        }
    }
}
