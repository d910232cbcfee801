//! The node's API for its services: usable from any thread, with any executor.

use super::arrivals::{Arrival, Arrivals};
use super::counters::Counters;
use super::error::NodeError;
use super::inbox::{Bound, Inbox, Input, Reply, StoreChange};
use super::lag_watch::LagReport;
use super::membership::MembershipState;
use super::served::{Sample, ServedTable};
use super::snapshot_space::NoSpace;
use super::snapshots::{Installs, check_received};
use crate::families;
use crate::planted::{self, Bug};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use kontiki_engine::{Db, Direction, Entries, Family, Range, View, WriteBatch};
use kontiki_env::Env;
use kontiki_placement::{Command, Outcome, Request, Response, Timestamps};
use kontiki_raftlog::{LogChoice, LogUsage, RaftLog};
use kontiki_raftstore::snapshot::{FileId, FileNumbers, SnapshotId};
use kontiki_raftstore::{
    CheckOutcome, Epoch, Peer, ReadRefusal, Readable, Readers, RecoverError, Recovery, Region, RegionError, RegionId,
    ReplicaLag, Space, StoreId, ViewId, meta,
};
use kontiki_state::{StateChoice, StateEngine, StateView};
use kontiki_txn::{ConcurrencyManager, DeadlockDetector, Leadership, TimeStamp, WaitFor};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a placement call may take when the caller sets no timeout: clients of placement give up after 2 s.
pub const PLACEMENT_TIMEOUT: Duration = Duration::from_millis(1_800);

/// The state that the driver shares with its handles.
pub(super) struct Shared {
    pub inbox: Arc<Inbox>,
    pub state: Arc<dyn StateEngine>,
    pub log: Arc<dyn RaftLog>,
    pub env: Env,
    pub readers: Arc<Readers>,
    /// The reads of this node, for transactions that compute their commit timestamp.
    pub concurrency: Arc<ConcurrencyManager>,
    pub counters: Arc<Counters>,
    /// What is served of the regions that this node leads.
    pub served: Arc<ServedTable>,
    /// The regions this node leads (own-term entry applied), with their terms. Written by the driver.
    pub leader_terms: Mutex<BTreeMap<RegionId, u64>>,
    pub disk_full: AtomicBool,
    /// The process is about to end: leadership is transferred to other nodes.
    pub stops_leading: AtomicBool,
    /// What the directory says of an unsafe recovery.
    pub recovery: Mutex<Recovery>,
    /// What a read has met, once one has met damaged data.
    pub damage: Mutex<Option<String>>,
    /// How far raft logs are behind. Written by the driver.
    pub lag: Mutex<Arc<LagReport>>,
    /// Wakes the tasks that wait for a change of a region's leader.
    pub leader_news: watch::Sender<()>,
    /// Why the driver stopped, once it has.
    pub stopped: Mutex<Option<String>>,
    /// Whether this node takes part in consensus.
    pub membership: Mutex<MembershipState>,
    /// `NodeConfig::replace_lost_directory`.
    pub replaces_lost_directory: bool,
    /// Whether every region of the cluster belongs on this store.
    pub holds_all_regions: AtomicBool,
    /// The last message that each region's replica refused, and when.
    pub refusals: Mutex<BTreeMap<RegionId, Refusal>>,
    pub cluster_id: u64,
    pub store_id: StoreId,
    pub snapshots_dir: PathBuf,
    pub file_numbers: FileNumbers,
    /// Snapshot files that are arriving and that raftstore does not know yet.
    pub arrivals: Arc<Arrivals>,
    /// Snapshot files to be installed.
    pub installs: Arc<Mutex<Installs>>,
}

impl Shared {
    /// Whether this node leads the region, and can serve.
    pub fn leads(&self, region: RegionId) -> bool {
        self.leader_terms.lock().contains_key(&region)
    }

    /// See [`NodeStatus::missing`].
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.holds_all_regions.load(Ordering::Relaxed) {
            return missing;
        }
        let regions = self.readers.regions();
        let (system, data): (Vec<_>, Vec<_>) =
            regions.iter().map(|(region, _)| region).partition(|region| region.space == Space::System);
        if system.is_empty() {
            missing.push("the placement group".to_owned());
        }
        let mut data: Vec<&Region> = data.into_iter().map(|region| &**region).collect();
        data.sort_by(|a, b| a.start_key.cmp(&b.start_key));
        let mut covered_to = Some(Bytes::new()); // `None`: all keys.
        for region in data {
            match covered_to {
                Some(key) if key < region.start_key => missing.push(keys_between(&key, &region.start_key)),
                _ => {}
            }
            covered_to = Some(region.end_key.clone()).filter(|key| !key.is_empty());
        }
        missing.extend(covered_to.map(|key| keys_between(&key, b"")));
        missing
    }

    fn stopped_error(&self) -> NodeError {
        let why = self.stopped.lock().clone();
        NodeError::Stopped(why.unwrap_or_else(|| "it is shutting down".into()))
    }
}

/// A range of keys, in words.
fn keys_between(start: &[u8], end: &[u8]) -> String {
    match (start.is_empty(), end.is_empty()) {
        (true, true) => "all keys".to_owned(),
        (true, false) => format!("the keys below \"{}\"", end.escape_ascii()),
        (false, true) => format!("the keys from \"{}\" on", start.escape_ascii()),
        (false, false) => format!("the keys from \"{}\" to \"{}\"", start.escape_ascii(), end.escape_ascii()),
    }
}

/// The region to which a request was routed.
///
/// A context also carries the term of this node's leadership once a view was taken with it, and a proposal with the
/// same context (or a clone of it) is refused in any other term. For a request that reads and then makes a dependent
/// write, no other leader can therefore have written in between. Make one context for each request.
#[derive(Clone, Debug)]
pub struct RegionContext {
    /// The region.
    pub region: RegionId,
    /// The epoch by which the caller routed the request.
    pub epoch: Epoch,
    /// The term of the first view; 0 before it.
    term: Arc<AtomicU64>,
    /// The GC safe point of the region in the last view.
    gc_safe_point: Arc<AtomicU64>,
    /// It may be served by a replica that does not lead. Only for requests that write nothing.
    at_any_replica: bool,
    /// It reads what was committed at or below this timestamp, and no more.
    stale_at: Option<u64>,
    /// Since when, by the node's monotonic clock, the caller does not wait any more.
    deadline: Option<Duration>,
}

impl RegionContext {
    /// A request to `region`, routed by `epoch`.
    pub fn new(region: RegionId, epoch: Epoch) -> RegionContext {
        RegionContext {
            region,
            epoch,
            term: Arc::default(),
            gc_safe_point: Arc::default(),
            at_any_replica: false,
            stale_at: None,
            deadline: None,
        }
    }

    /// The same, of a request that only reads, for a replica that may not lead.
    pub fn at_any_replica(self) -> RegionContext {
        RegionContext { at_any_replica: true, ..self }
    }

    /// The same, of a request that only reads what was committed at or below `ts`: a replica serves it without asking
    /// its leader, if it is known to have all that ever is; otherwise it is refused.
    pub fn stale_at(self, ts: u64) -> RegionContext {
        RegionContext { stale_at: Some(ts), ..self }
    }

    /// The same, of a request whose caller does not wait longer than until `deadline`, by the node's monotonic clock:
    /// nothing is proposed for it from then on.
    pub fn until(self, deadline: Duration) -> RegionContext {
        RegionContext { deadline: Some(deadline), ..self }
    }

    /// Refuses a request that is too late at `now`.
    pub fn check_deadline(&self, now: Duration) -> Result<(), NodeError> {
        match self.deadline {
            Some(deadline) if now >= deadline => Err(NodeError::Late),
            _ => Ok(()),
        }
    }

    /// The timestamp at which it reads, if that is all that it reads.
    pub fn stale_ts(&self) -> Option<u64> {
        self.stale_at
    }

    /// The term to which a view bound this request.
    fn bound_term(&self) -> Option<u64> {
        Some(self.term.load(Ordering::SeqCst)).filter(|term| *term != 0)
    }

    /// To what a view bound this request.
    fn bound(&self) -> Option<Bound> {
        let gc_safe_point = self.gc_safe_point.load(Ordering::SeqCst);
        self.bound_term().map(|term| Bound { term, gc_safe_point })
    }

    /// Binds the request to the `term` of a view of `region`; refused if it is bound to another.
    fn bind(&self, term: u64, region: &Region) -> Result<(), RegionError> {
        self.gc_safe_point.store(region.gc_safe_point, Ordering::SeqCst);
        debug_assert!(term != 0, "0 is no leader's term");
        match self.term.compare_exchange(0, term, Ordering::SeqCst, Ordering::SeqCst) {
            Err(bound) if bound != term => Err(RegionError::StaleCommand),
            _ => Ok(()),
        }
    }
}

/// A consistent state that contains everything acknowledged before it was requested.
pub struct RegionView {
    /// The region as it was then: keys are checked against it.
    pub region: Arc<Region>,
    snapshot: StateView,
}

impl View for RegionView {
    fn get(&self, family: Family, key: &[u8]) -> kontiki_engine::Result<Option<Bytes>> {
        self.snapshot.get(family, key)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> kontiki_engine::Result<Box<dyn Entries>> {
        self.snapshot.entries(family, range, direction)
    }
}

/// One region, as known to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionStatus {
    /// Its descriptor.
    pub region: Arc<Region>,
    /// Its leader, as far as this node knows.
    pub leader: Option<Peer>,
    /// The term in which this node leads it and can serve, if any.
    pub leading_term: Option<u64>,
    /// The last log index that its data here contain; `None` before the first, or if it cannot be read.
    pub applied_index: Option<u64>,
    /// Its last refusal of a message, if it is recent: the replica cannot follow its peers.
    pub refusal: Option<Refusal>,
}

/// The snapshots of a node, at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotsStatus {
    /// Views retained for sending.
    pub views: u64,
    /// Views that wait until others are released.
    pub views_waiting: u64,
    /// Files that are arriving, or being checked.
    pub arriving: u64,
    /// Files that wait for their install.
    pub waiting: u64,
    /// Files that are being installed.
    pub installing: u64,
    /// Disk space that is promised to snapshots and not taken yet.
    pub promised_bytes: u64,
}

/// A message that no correct peer sends: a log, here or there, is damaged or has lost its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The sender.
    pub from: StoreId,
    /// What was wrong with it.
    pub why: &'static str,
    /// When, on the monotonic clock.
    pub at: Duration,
    /// How many there were since the start.
    pub count: u64,
}

/// How long a refusal counts as current: several heartbeats in any configuration.
const REFUSAL_RECENT: Duration = Duration::from_secs(10);

/// How long the failure of a connection counts as current: the transport tries again each second, and an attempt may
/// take two.
const PEER_FAILURE_RECENT: Duration = Duration::from_secs(5);

/// A node's state, for operators and health checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The cluster.
    pub cluster_id: u64,
    /// The store.
    pub store_id: StoreId,
    /// Its regions, by id; the placement group is among them.
    pub regions: Vec<RegionStatus>,
    /// Whether it takes part in consensus; if not, why.
    pub membership: MembershipState,
    /// Its operator stated that the store's earlier directory is lost.
    pub replaces_lost_directory: bool,
    /// What belongs on this store and has no replica here yet: the placement group, ranges of keys.
    pub missing: Vec<String>,
    /// No region has to be on this store: it is none of the members that have replicas from the beginning, or its
    /// replicas were moved.
    pub is_spare: bool,
    /// The stores to which no connection can be made at the moment, or which refuse it, and why.
    pub peer_failures: BTreeMap<StoreId, String>,
    /// What happens to snapshots here.
    pub snapshots: SnapshotsStatus,
    /// Where its raft logs are kept.
    pub raft_log: LogChoice,
    /// Which engine keeps the data.
    pub state_engine: StateChoice,
    /// The disk is full: writes are refused.
    pub disk_full: bool,
    /// Writes of the raft log take much longer than on other nodes, which lead instead, where they can.
    pub log_is_slow: bool,
    /// The process is about to end: leadership is transferred to other nodes.
    pub stops_leading: bool,
    /// What the directory says of an unsafe recovery: by default, that there was none.
    pub recovery: Recovery,
    /// Reads have met damaged data, the last one this: other nodes lead instead, where they can.
    pub damage: Option<String>,
    /// Why the node stopped, if it has.
    pub stopped: Option<String>,
}

/// The node's API. Every future resolves: with an answer, or with [`NodeError::Stopped`] or [`NodeError::Undetermined`]
/// when the node stops.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) shared: Arc<Shared>,
}

impl NodeHandle {
    /// Replicates a batch in a region. `Ok` (the applied index): it is durable on a majority and visible here.
    /// [`NodeError::Undetermined`]: the outcome is unknown, and this node will not report it. Other errors: it had no
    /// effect.
    pub async fn propose(&self, context: &RegionContext, batch: WriteBatch) -> Result<u64, NodeError> {
        batch.validate()?;
        let shared = &self.shared;
        context.check_deadline(shared.env.clock.monotonic())?;
        // If another store leads, the caller gets an error that says so.
        if shared.disk_full.load(Ordering::Relaxed) && shared.leads(context.region) {
            shared.counters.disk_full.increment();
            return Err(NodeError::DiskFull);
        }
        let (reply, answer) = Reply::new(shared.inbox.admit(batch.as_bytes().len())?);
        let (region, epoch, bound) = (context.region, context.epoch, context.bound());
        shared.inbox.push(Input::Propose { region, epoch, bound, batch, reply });
        // The driver has ended: the proposal may have been sent before.
        answer.await.unwrap_or(Err(NodeError::Undetermined))
    }

    /// A view that contains every write acknowledged before this call, by any leader.
    pub async fn view(&self, context: &RegionContext) -> Result<RegionView, NodeError> {
        self.view_for(context, 0).await
    }

    /// The same for a transactional read at this timestamp; 0: for another one.
    async fn view_for(&self, context: &RegionContext, read_at: u64) -> Result<RegionView, NodeError> {
        let shared = &self.shared;
        if let Some(ts) = context.stale_ts() {
            return self.stale_view(context, ts);
        }
        if context.at_any_replica && !shared.leads(context.region) {
            return self.replica_view(context, read_at).await;
        }
        let clock = || shared.env.clock.monotonic();
        match shared.readers.read(context.region, context.epoch, clock, || shared.state.snapshot()) {
            Ok(Readable { view, region, term }) => {
                context.bind(term, &region)?;
                shared.counters.reads_lease.increment();
                return Ok(RegionView { region, snapshot: view });
            }
            Err(ReadRefusal::Region(error)) => return Err(error.into()),
            Err(ReadRefusal::NoLease) => {}
        }
        let early = planted::is_set(Bug::ViewBeforeBarrier).then(|| shared.state.snapshot());
        self.barrier(context).await?;
        shared.counters.reads_barrier.increment();
        let missing = RegionError::RegionNotFound { region: context.region };
        // The term is read before the snapshot is taken: then the snapshot contains everything that earlier leaders
        // wrote.
        let term = shared.leader_terms.lock().get(&context.region).copied();
        let term = term.or_else(|| shared.readers.term_before_apply(context.region));
        let snapshot = early.unwrap_or_else(|| shared.state.snapshot());
        let (region, leader) = shared.readers.region(context.region).ok_or(missing)?;
        let Some(term) = term else {
            return Err(RegionError::NotLeader { region: region.id, leader }.into());
        };
        context.bind(term, &region)?;
        // The range must still be the requested one: another leader may have accepted writes since the barrier.
        RegionError::check_epoch(&region, context.epoch)?;
        Ok(RegionView { region, snapshot })
    }

    /// The same at a replica that does not lead: it asks the leader what the view has to hold, and whether it may show
    /// all that it holds (docs/internals/replica-reads.md).
    async fn replica_view(&self, context: &RegionContext, read_at: u64) -> Result<RegionView, NodeError> {
        let (shared, region) = (&self.shared, context.region);
        let leader_has = self.ask(|reply| Input::ReplicaRead { region, epoch: context.epoch, read_at, reply }).await?;
        let missing = RegionError::RegionNotFound { region };
        let (snapshot, here) = shared.readers.view_of_replica(region, || shared.state.snapshot()).ok_or(missing)?;
        RegionError::check_epoch(&here, context.epoch)?;
        let shown = meta::applied_index(families::META, &snapshot, region).map_err(|error| match error {
            RecoverError::Engine(error) => NodeError::Engine(error),
            _ => NodeError::Busy("the replica's applied position cannot be read"),
        })?;
        let shown = shown.unwrap_or(0);
        if shown > leader_has && !planted::is_set(Bug::ShowBeforeLeader) {
            self.ask(|reply| Input::ReplicaShows { region, index: shown, reply }).await?;
        }
        shared.counters.reads_replica.increment();
        Ok(RegionView { region: here, snapshot })
    }

    /// A view at any replica with all that is ever committed at or below `ts` (docs/internals/stale-reads.md).
    fn stale_view(&self, context: &RegionContext, ts: u64) -> Result<RegionView, NodeError> {
        let (shared, take) = (&self.shared, || self.shared.state.snapshot());
        let view = shared.readers.read_at(shared.store_id, context.region, context.epoch, ts, take);
        let counter = if view.is_ok() { &shared.counters.reads_stale } else { &shared.counters.reads_stale_refused };
        counter.increment();
        let (snapshot, region) = view?;
        Ok(RegionView { region, snapshot })
    }

    async fn barrier(&self, context: &RegionContext) -> Result<u64, NodeError> {
        self.ask(|reply| Input::Barrier { region: context.region, epoch: context.epoch, reply }).await
    }

    /// Sends the driver a request that may be sent again whatever comes of it.
    async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, NodeError> {
        let (reply, answer) = Reply::new(self.shared.inbox.admit(0)?);
        self.shared.inbox.push(input(reply));
        answer.await.unwrap_or_else(|_| Err(self.shared.stopped_error()))
    }

    /// Asks placement, on any node that leads it, within [`PLACEMENT_TIMEOUT`].
    pub async fn placement(&self, request: Request) -> Result<Response, NodeError> {
        self.placement_within(request, PLACEMENT_TIMEOUT).await
    }

    /// Asks placement, on any node that leads it. [`NodeError::Timeout`] if there is no answer in time.
    pub async fn placement_within(&self, request: Request, timeout: Duration) -> Result<Response, NodeError> {
        let deadline = self.shared.env.clock.monotonic() + timeout;
        self.ask(|reply| Input::Placement { request, deadline, reply }).await
    }

    /// A message of another node, as the transport received it. Never blocks; may drop it.
    pub fn deliver(&self, from: StoreId, bytes: Bytes) {
        self.shared.inbox.push_message(from, bytes);
    }

    /// A snapshot of about `bytes` is about to arrive: returns the names under which its file is to be stored. No other
    /// file ever has these names. Dropping the result before [`NodeHandle::snapshot_received`] removes the stored data.
    /// Asks the disk whether there is space for the file and its install, which may block.
    pub fn snapshot_arrives(&self, snapshot: SnapshotId, bytes: u64) -> Result<Arrival, NoSpace> {
        let file = FileId { snapshot, number: self.shared.file_numbers.next() };
        let fs = self.shared.env.fs.clone();
        let arrival = Arrival::begin(&self.shared.snapshots_dir, fs, file, bytes, &self.shared.arrivals);
        if arrival.is_err() {
            self.shared.counters.snapshots_refused.increment();
        }
        arrival
    }

    /// What happens to snapshots here.
    pub fn snapshots(&self) -> SnapshotsStatus {
        let Shared { counters, arrivals, installs, .. } = &*self.shared;
        let (waiting, installing) = {
            let installs = installs.lock();
            (installs.waiting() as u64, installs.running() as u64)
        };
        SnapshotsStatus {
            views: counters.snapshot_views.get(),
            views_waiting: counters.snapshot_views_waiting.get(),
            arriving: arrivals.count() as u64,
            waiting,
            installing,
            promised_bytes: arrivals.space.promised_bytes(),
        }
    }

    /// The folder of snapshot files.
    pub fn snapshots_dir(&self) -> &Path {
        &self.shared.snapshots_dir
    }

    /// A snapshot file arrived: it is complete and durable at [`Arrival::path`]. Checks it, which blocks on reading.
    /// After an error the file is removed, and the caller should report the error to the sender.
    pub fn snapshot_received(&self, arrival: Arrival, message: Bytes) -> Result<(), String> {
        if *self.shared.membership.lock() != MembershipState::Member {
            return Err("this node does not take part in consensus".into());
        }
        let file = check_received(&*self.shared.env.fs, &self.shared.snapshots_dir, arrival.file(), &message)?;
        arrival.is_complete(file.bytes);
        self.shared.counters.snapshots_received.increment();
        self.shared.inbox.push(Input::SnapshotReceived { message, file, arrival });
        Ok(())
    }

    /// The transport has sent an [`super::Outbound::Snapshot`] (the receiver has confirmed it), or failed to.
    pub fn snapshot_sent(&self, region: RegionId, to: StoreId, view: ViewId, ok: bool) {
        if ok {
            self.shared.counters.snapshots_sent.increment();
        }
        self.shared.inbox.push(Input::SnapshotSent { region, to, view, ok });
    }

    /// Splits a region at `keys`, ascending and within it, if this node leads it. Returns the regions that it leaves,
    /// in key order.
    pub async fn split(&self, context: &RegionContext, keys: Vec<Bytes>) -> Result<Vec<Region>, NodeError> {
        let (reply, answer) = Reply::new(self.shared.inbox.admit(keys.iter().map(Bytes::len).sum())?);
        self.shared.inbox.push(Input::Split { region: context.region, epoch: context.epoch, keys, reply });
        answer.await.unwrap_or(Err(NodeError::Undetermined))
    }

    /// Merges `source` into its neighbour `target`, if this node leads `source`: the target takes its range over.
    /// Returns the target after that.
    ///
    /// Errors: regions that cannot be merged, because they are no neighbours, or because their replicas are not on the
    /// same stores (change the members of one first) or do not all vote; busy, if it may succeed later: a replica does
    /// not answer or lags, or the target changed before it took the range. While the merge is under way, which takes a
    /// few rounds of messages, the source's keys are neither read nor written; if most of the target's replicas are
    /// away, that lasts until they are back.
    pub async fn merge(&self, source: RegionId, target: RegionId) -> Result<Region, NodeError> {
        let (reply, answer) = Reply::new(self.shared.inbox.admit(0)?);
        self.shared.inbox.push(Input::Merge { source, target, reply });
        answer.await.unwrap_or(Err(NodeError::Undetermined))
    }

    /// Changes the replicas of a region, if this node leads it. Returns the region after that; several roles change in
    /// a joint configuration, which the leader then ends by itself.
    ///
    /// Errors: a change that cannot be made; busy, if it may be later: a learner that has not caught up is not
    /// promoted, too few of the voters that it would leave have answered lately (of a region that hibernated: none), or
    /// this node's own replica would not vote any more (transfer the leadership first).
    pub async fn change_members(&self, region: RegionId, change: StoreChange) -> Result<Region, NodeError> {
        let (reply, answer) = Reply::new(self.shared.inbox.admit(0)?);
        self.shared.inbox.push(Input::ChangeMembers { region, change, reply });
        answer.await.unwrap_or(Err(NodeError::Undetermined))
    }

    /// Compares the replicas of a region, if this node leads it: whether they hold the same data. Takes as long as the
    /// slowest replica needs to read its data, at most some minutes.
    pub async fn compare_replicas(&self, region: RegionId) -> Result<CheckOutcome, NodeError> {
        self.ask(|reply| Input::Check { region, reply }).await
    }

    /// How far the raft logs of this node are behind, as of at most a second ago.
    pub fn lag(&self) -> Arc<LagReport> {
        self.shared.lag.lock().clone()
    }

    /// The raft log of a replica here, and, if it leads, how far its followers are behind. An error if there is none.
    pub async fn replica_lag(&self, region: RegionId) -> Result<ReplicaLag, NodeError> {
        self.ask(|reply| Input::ReplicaLag { region, reply }).await
    }

    /// Asks this node to transfer the leadership of a region, if it leads.
    pub fn transfer_leader(&self, region: RegionId, to: StoreId) {
        self.shared.inbox.push(Input::TransferLeader { region, to });
    }

    /// The process is about to end: from now on this node leads only what no other node can. Done when it has handed
    /// over everything else, or has stopped.
    pub async fn stop_leading(&self) {
        // It must not be refused because others wait.
        let (reply, handed_over) = Reply::new(self.shared.inbox.admit_always());
        self.shared.inbox.push(Input::StopLeading { reply });
        // An error means that the driver has ended: it leads nothing.
        let _ = handed_over.await;
    }

    /// A read of the region met damaged data: from now on this node leads only what no other node can, so that reads
    /// are served from replicas that are whole. Returns whether there are others.
    pub fn met_damage(&self, region: RegionId, error: &kontiki_engine::Error) -> bool {
        let is_first = self.shared.damage.lock().replace(error.to_string()).is_none();
        if is_first {
            let what = "other nodes are to lead instead; see docs/guide/replace-a-disk.md";
            tracing::error!(region = region.0, "a read met damaged data: {error}; {what}");
            self.shared.inbox.push(Input::Damaged);
        }
        self.region(region).is_some_and(|(region, _)| region.peers.len() > 1)
    }

    /// The transport's connection to a store broke, or could not be made.
    pub fn store_unreachable(&self, store: StoreId, why: &str) {
        let now = self.shared.env.clock.monotonic();
        self.shared.inbox.peer_failures.lock().insert(store, (why.to_owned(), now));
        self.shared.inbox.push(Input::Unreachable { store });
    }

    /// The stores to which no connection can be made at the moment, or which refuse it, and why.
    pub fn peer_failures(&self) -> BTreeMap<StoreId, String> {
        let (failures, now) = (self.shared.inbox.peer_failures.lock().clone(), self.shared.env.clock.monotonic());
        let recent = failures.into_iter().filter(|(_, (_, at))| now < *at + PEER_FAILURE_RECENT);
        recent.map(|(store, (why, _))| (store, why)).collect()
    }

    /// The stores that the last unsafe recovery has given up, those included that another directory has replaced since.
    pub fn lost_stores(&self) -> BTreeSet<StoreId> {
        self.shared.recovery.lock().lost.clone()
    }

    /// A region's descriptor here and its leader as far as this node knows.
    pub fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        self.shared.readers.region(region)
    }

    /// The same, for a request to the region: if its leader is gone, it gets another one before regions for which none
    /// comes.
    pub fn requested_region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        self.shared.readers.note_request(region);
        self.region(region)
    }

    /// Requests to a region were served, of so many bytes of keys and values. `sample` says what one of them touched;
    /// it is called, with the index of a request, for few of them.
    pub fn served(&self, region: RegionId, requests: u64, bytes: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        self.shared.served.count(region, requests, bytes, sample);
    }

    /// The descriptors of all regions with a replica here.
    pub fn regions(&self) -> Vec<Arc<Region>> {
        self.shared.readers.regions().into_iter().map(|(region, _)| region).collect()
    }

    /// Done when the leader of a region changes, as far as this node knows; changes since this call count.
    pub fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut news = self.shared.leader_news.subscribe();
        async move {
            if news.changed().await.is_err() {
                // The node has ended: there are no changes any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether this node could serve a read of the region by lease now. To serve one, use [`NodeHandle::view`].
    pub fn holds_lease(&self, region: RegionId) -> bool {
        self.shared.readers.holds_lease(region, self.shared.env.clock.monotonic())
    }

    /// The term in which this node leads the region and has applied an entry of that term, if any.
    pub fn leading_term(&self, region: RegionId) -> Option<u64> {
        self.shared.leader_terms.lock().get(&region).copied()
    }

    /// The lowest of the timestamps up to which the replicas here can be read, of the regions with keys in this range
    /// (an empty end is unbounded) that have one.
    pub fn safe_ts(&self, start: &[u8], end: &[u8]) -> Option<u64> {
        self.shared.readers.safe_ts(start, end)
    }

    /// The number of requests without an answer.
    pub fn requests_waiting(&self) -> usize {
        self.shared.inbox.requests_waiting()
    }

    /// This store's id.
    pub fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    /// The cluster's id, never 0.
    pub fn cluster_id(&self) -> u64 {
        self.shared.cluster_id
    }

    /// The node's monotonic clock.
    pub fn monotonic(&self) -> Duration {
        self.shared.env.clock.monotonic()
    }

    /// The node's wall clock, in milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.shared.env.clock.wall_ms()
    }

    /// The node's state.
    pub fn status(&self) -> NodeStatus {
        let shared = &self.shared;
        let terms = shared.leader_terms.lock().clone();
        let view = shared.state.snapshot();
        let (refusals, now) = (shared.refusals.lock().clone(), shared.env.clock.monotonic());
        let regions = shared.readers.regions().into_iter().map(|(region, leader)| {
            let leading_term = terms.get(&region.id).copied();
            let applied_index = kontiki_raftstore::meta::applied_index(families::META, &view, region.id).ok().flatten();
            let recent = |refusal: &&Refusal| now < refusal.at + REFUSAL_RECENT;
            let refusal = refusals.get(&region.id).filter(recent).cloned();
            RegionStatus { region, leader, leading_term, applied_index, refusal }
        });
        NodeStatus {
            cluster_id: shared.cluster_id,
            store_id: shared.store_id,
            regions: regions.collect(),
            membership: shared.membership.lock().clone(),
            replaces_lost_directory: shared.replaces_lost_directory,
            missing: shared.missing(),
            is_spare: !shared.holds_all_regions.load(Ordering::Relaxed),
            peer_failures: self.peer_failures(),
            snapshots: self.snapshots(),
            raft_log: shared.log.choice(),
            state_engine: shared.state.choice(),
            disk_full: shared.disk_full.load(Ordering::Relaxed),
            log_is_slow: shared.counters.log_slow.get() != 0,
            recovery: shared.recovery.lock().clone(),
            stops_leading: shared.stops_leading.load(Ordering::Relaxed),
            damage: shared.damage.lock().clone(),
            stopped: shared.stopped.lock().clone(),
        }
    }

    /// The counters of this node.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// The reads of this node, and the locks that are on their way to the replicas.
    pub fn concurrency(&self) -> Arc<ConcurrencyManager> {
        self.shared.concurrency.clone()
    }

    /// What raft logs in files of their own take.
    pub fn log_usage(&self) -> LogUsage {
        self.shared.log.usage()
    }

    /// Detects deadlocks among the transactions of all stores.
    pub fn detector(&self) -> Arc<dyn DeadlockDetector> {
        Arc::new(Detector(self.shared.inbox.clone()))
    }

    /// What keeps the node's data, for statistics and tests. Data goes through [`NodeHandle::propose`] and
    /// [`NodeHandle::view`]: a direct write would not be replicated.
    pub fn state(&self) -> &Arc<dyn StateEngine> {
        &self.shared.state
    }

    /// The same, if it is the built-in engine.
    pub fn db(&self) -> Option<&Db> {
        self.shared.state.built_in()
    }
}

/// Reports waits to the driver.
struct Detector(Arc<Inbox>);

impl DeadlockDetector for Detector {
    fn detect(&self, wait: WaitFor) -> BoxFuture<'static, Option<Vec<WaitFor>>> {
        let (found, circle) = oneshot::channel();
        self.0.push(Input::WaitBegins { wait, found });
        Box::pin(async move { circle.await.ok() })
    }

    fn forget(&self, wait: WaitFor) {
        self.0.push(Input::WaitEnds { wait });
    }
}

impl kontiki_txn::Replicated for NodeHandle {
    type Context = RegionContext;
    type Error = NodeError;
    type View = RegionView;

    async fn view(&self, context: &RegionContext) -> Result<RegionView, NodeError> {
        NodeHandle::view(self, context).await
    }

    async fn view_at(&self, context: &RegionContext, ts: TimeStamp) -> Result<RegionView, NodeError> {
        self.view_for(context, if ts.is_max() { 0 } else { ts.0 }).await
    }

    fn leadership(&self, context: &RegionContext) -> Option<Leadership> {
        let (region, version) = (context.region.0, context.epoch.version);
        context.bound_term().map(|term| Leadership { region, term, version })
    }

    /// The descriptor was read after the view was taken: what is missing in the view is below its safe point.
    fn gc_safe_point(&self, view: &RegionView) -> TimeStamp {
        TimeStamp(view.region.gc_safe_point)
    }

    async fn timestamp(&self) -> Result<TimeStamp, NodeError> {
        let request = Command::Timestamps(Timestamps { count: 1 });
        match self.placement(request.into()).await?.outcome {
            Some(Outcome::Timestamps(granted)) => Ok(TimeStamp::compose(granted.physical_ms, granted.logical)),
            _ => Err(NodeError::Busy("placement gave no timestamp")),
        }
    }

    async fn replicate(&self, context: &RegionContext, batch: WriteBatch) -> Result<(), NodeError> {
        self.propose(context, batch).await.map(|_| ())
    }
}
