//! A node without threads: the driver owns the replicated store, placement and the engine, and performs their effects.
//!
//! The pure layers below decide what has to be done; the driver does it. All input of a node comes through one queue,
//! so the same code runs on one thread with a real transport, and is stepped in one thread with a whole simulated
//! cluster. docs/internals/driver.md has the reasons.
//!
//! # Running it
//! ```text
//! let mut driver = Driver::open(&env, config, seed)?;
//! let handle = driver.handle();                       // for services and the transport, any thread
//! let thread = std::thread::current();                // the driver's own thread
//! driver.set_waker(Box::new(move || thread.unpark()));
//! while !asked_to_stop {
//!     for outbound in driver.step(now()) { transport.send(outbound) }
//!     if let Some(reason) = driver.stopped() { report it; exit with a code that is not 0 }
//!     park_timeout(driver.next_deadline(monotonic()) - monotonic());
//! }
//! driver.close()                                      // answers the waiting callers, closes the engine
//! ```
//! `transport.send` never blocks: it drops what does not fit into its queues. What it receives is passed to
//! [`NodeHandle::deliver`] and [`NodeHandle::snapshot_received`]; after an [`Outbound::Snapshot`] it calls
//! [`NodeHandle::snapshot_sent`], always.
//!
//! # Invariants
//! 1. Persists take effect in order, and so do applies (`lane`); their completions are reported to raftstore in order.
//! 2. raftstore is notified of a persist, and so releases the messages that depend on it, only when it is durable.
//! 3. Every request is answered exactly once: a request is in the inbox, in `pending` or in the table of calls, and
//!    removing it from there answers it.
//! 4. Placement is asked only under a lease (or after a barrier) that was checked after the call arrived.
//! 5. After a fatal error nothing more is persisted, applied, answered as done, or sent; but if it is one of the
//!    engine, orders to others to take the leadership over (`Driver::stop`).

mod arrivals;
mod calls;
mod change_members;
mod checks;
mod checksums;
mod convert;
mod counters;
mod deadlocks;
mod effects;
mod entry_reads;
mod error;
mod first_regions;
mod flusher;
mod formation;
mod gc;
mod gc_collector;
mod gc_filter;
mod hand_over;
mod handle;
mod heartbeat;
mod inbox;
mod inconsistent;
mod install;
mod lag;
mod lag_watch;
mod lane;
mod led_locks;
mod load_boundary;
mod load_windows;
mod log_disk;
mod lost_stores;
mod membership;
mod merge;
mod message;
mod oldest_locks;
mod open;
mod recovery_record;
mod region_loads;
mod region_sizes;
mod replacement;
mod safe_ts;
mod served;
mod size_survey;
mod snapshot_space;
mod snapshots;
mod split;
mod surveys;

pub use arrivals::Arrival;
pub use counters::{Counter, Counters, Gauge};
pub use error::{NodeError, OpenError, StopReason};
pub use first_regions::first_regions;
pub use handle::{
    NodeHandle, NodeStatus, PLACEMENT_TIMEOUT, Refusal, RegionContext, RegionStatus, RegionView, SnapshotsStatus,
};
pub(crate) use heartbeat::placement_region;
pub use inbox::StoreChange;
pub use inconsistent::FILE as INCONSISTENT_MARK;
pub use install::{Installed, Installer};
pub use lag_watch::{LagReport, Lagging};
pub use load_windows::LoadLimits;
pub use lost_stores::{LostStores, RefusedPlan, RegionPlan, plan as plan_recovery};
pub use membership::MembershipState;
pub use served::Sample;
pub use size_survey::SizeLimits;
pub use snapshot_space::NoSpace;
pub use snapshots::SnapshotSource;

use crate::config::NodeConfig;
use bytes::Bytes;
use calls::{Calls, Origin};
use checks::Checks;
use checksums::Checksums;
use flusher::Flusher;
use formation::Formation;
use gc::Gc;
use gc_collector::GcCollector;
use gc_filter::GcFilter;
use handle::Shared;
use heartbeat::Heartbeats;
use inbox::{Input, LaneKind, Reply};
use kontiki_engine::WriteBatch;
use kontiki_env::Env;
use kontiki_placement::{Now, Placement, WriteId};
use kontiki_raftlog::RaftLog;
use kontiki_raftstore::snapshot::SnapshotId;
use kontiki_raftstore::{
    ApplyId, CheckOutcome, Event, FaultKind, PersistId, Region, RegionError, RegionId, Store, StoreId, Ticket, ViewId,
};
use kontiki_state::StateEngine;
use lag_watch::LagWatch;
use lane::Lane;
use log_disk::LogDisk;
use message::Body;
use oldest_locks::OldestLocks;
use region_loads::RegionLoads;
use region_sizes::RegionSizes;
use snapshots::Snapshots;
use split::Asked;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use surveys::{Found, Surveys};

/// The region of the placement group.
pub const PLACEMENT_REGION: RegionId = RegionId(1);

/// How often one step drains the inbox again before its messages are sent: completions of quick commits arrive within
/// the step, and answering them in it saves one step.
const ROUNDS_MAX: usize = 8;
/// Ticks between checks of what tables contain, which permits truncation of the log.
const FLUSHED_TICKS: u64 = 10;
/// Ticks between checks that the data directory is still there, and that the engine takes writes: a node without work
/// meets neither by itself, and would go on reporting that it is ready.
const DIRECTORY_TICKS: u64 = 40;
/// Ticks between surveys of the snapshot files, for those whose removal failed or was never ordered.
const SNAPSHOT_SWEEP_TICKS: u64 = 1200;

/// Output of the node to other nodes.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// A message; may be lost.
    Message {
        /// To which store.
        to: StoreId,
        /// The argument of [`NodeHandle::deliver`] there.
        bytes: Bytes,
    },
    /// A snapshot: the receiver asks [`NodeHandle::snapshot_arrives`] for a name, stores the bytes (temporary name,
    /// sync, rename, sync of the folders) and then calls [`NodeHandle::snapshot_received`]. The outcome goes to
    /// [`NodeHandle::snapshot_sent`] here, always, also if the receiver no longer takes anything.
    Snapshot {
        /// To which store.
        to: StoreId,
        /// What it holds.
        snapshot: SnapshotId,
        /// For [`NodeHandle::snapshot_sent`].
        view: ViewId,
        /// For [`NodeHandle::snapshot_received`].
        message: Bytes,
        /// The bytes.
        source: SnapshotSource,
    },
}

/// Called with each batch of committed entries before the engine gets it; see [`Driver::observe_applies`].
pub type ApplyObserver = Box<dyn FnMut(&dyn StateEngine, &WriteBatch) + Send>;

/// Called with each proposal that depends on an earlier read, and when it is decided; see
/// [`Driver::observe_bound_proposals`].
pub type ProposalObserver = Box<dyn FnMut(Ticket, Option<&WriteBatch>) + Send>;

/// The observers; see [`Driver::observe_applies`] and [`Driver::observe_bound_proposals`].
#[derive(Default)]
struct Observers {
    applies: Option<ApplyObserver>,
    proposals: Option<ProposalObserver>,
}

/// The caller that waits for a ticket of raftstore.
enum Pending {
    /// `is_bound`: it depends on an earlier read, and its caller holds latches until it is decided.
    Proposal {
        reply: Reply<u64>,
        is_bound: bool,
    },
    /// Answered before it was decided.
    Abandoned,
    Barrier(Reply<u64>),
    PlacementWrite(WriteId),
    CallBarrier(u64),
    Split(split::Proposed),
    ChangeMembers {
        region: RegionId,
        reply: Reply<Region>,
    },
    Merge(merge::Wanted),
    /// The command that raises a region's GC safe point.
    GcSafePoint {
        region: RegionId,
        safe_point: u64,
    },
    /// The command that begins a check.
    Check {
        region: RegionId,
        /// `None`: it was scheduled.
        reply: Option<Reply<CheckOutcome>>,
    },
}

/// The tickets that raftstore will answer.
#[derive(Default)]
struct PendingTable {
    waiting: BTreeMap<Ticket, Pending>,
    /// Those that are answered when the merge has ended.
    merges: merge::Merges,
    last: u64,
}

impl PendingTable {
    fn add(&mut self, pending: Pending) -> Ticket {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, pending);
        ticket
    }
}

/// A node without threads. See the module's documentation.
pub struct Driver {
    env: Env,
    config: NodeConfig,
    state: Arc<dyn StateEngine>,
    /// Where raft logs are kept, which may be the engine.
    log: Arc<dyn RaftLog>,
    store: Store,
    placement: Placement,
    shared: Arc<Shared>,
    persists: Lane<PersistId>,
    applies: Lane<ApplyId>,
    log_disk: LogDisk,
    pending: PendingTable,
    calls: Calls,
    splits: split::Splits,
    deadlocks: deadlocks::Deadlocks,
    heartbeats: Heartbeats,
    snapshots: Snapshots,
    formation: Formation,
    flusher: Flusher,
    surveys: Surveys,
    region_sizes: RegionSizes,
    region_loads: RegionLoads,
    checks: Checks,
    checksums: Checksums,
    oldest_locks: OldestLocks,
    gc: Gc,
    gc_filter: Arc<GcFilter>,
    gc_collector: GcCollector,
    /// Placement was asked for the timestamp of a round.
    asks_timestamp: bool,
    lag_watch: LagWatch,
    /// What a restart reads of the log at most ([`open`]).
    replay_bytes_max: u64,
    /// Free bytes of the volume, as last read.
    available_bytes: u64,
    outbound: Vec<Outbound>,
    observers: Observers,
    applies_held: bool,
    waiting_for_hand_over: Vec<Reply<()>>,
    tick_interval: Duration,
    next_tick: Duration,
    ticks: u64,
    stopped: Option<StopReason>,
    /// Sent by the step in which the node has stopped.
    last_orders: Vec<Outbound>,
}

impl Driver {
    /// The node's API for other threads.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle { shared: self.shared.clone() }
    }

    /// Sets the function that is called when [`Driver::step`] has work; it is called from any thread.
    pub fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        self.shared.inbox.set_waker(waker);
    }

    /// Passes every batch of committed entries to `observer`, before the engine gets it and after everything earlier is
    /// visible. For checks that replicas with the same applied index are equal.
    pub fn observe_applies(&mut self, observer: ApplyObserver) {
        self.observers.applies = Some(observer);
    }

    /// Passes every proposal that depends on an earlier read to `observer` when raftstore gets it, and calls it again,
    /// without a batch, when raftstore has decided the proposal. For checks that such proposals do not overtake each
    /// other.
    pub fn observe_bound_proposals(&mut self, observer: ProposalObserver) {
        self.observers.proposals = Some(observer);
    }

    /// Withholds committed entries from the engine, or releases them: for simulations of a replica whose apply is slow.
    pub fn hold_applies(&mut self, held: bool) {
        self.applies_held = held;
        if self.stopped.is_none() {
            self.feed_lanes();
        }
    }

    /// The state of every replica here, by ascending region.
    pub fn replicas(&self) -> Vec<kontiki_raftstore::RegionStatus> {
        self.store.status()
    }

    /// The latest time at which [`Driver::step`] has work, on the monotonic clock.
    pub fn next_deadline(&self, now: Duration) -> Duration {
        if self.shared.inbox.is_empty() { self.next_tick } else { now }
    }

    /// Why the node has stopped by itself, if it has. It does nothing any more.
    pub fn stopped(&self) -> Option<&StopReason> {
        self.stopped.as_ref()
    }

    /// Does the pending work, and returns what has to be sent. It starts I/O but never blocks on it. `now` is a time of
    /// the environment's clock; what has arrived is handled with a later one.
    pub fn step(&mut self, now: Now) -> Vec<Outbound> {
        if now.monotonic >= self.next_tick {
            // One tick, no matter how long the interval was. raftstore counts the intervals of the clock in which it
            // was called, so the next one is due at the beginning of the next interval.
            self.next_tick = next_multiple(now.monotonic, self.tick_interval);
            self.tick(now);
        }
        for _ in 0..ROUNDS_MAX {
            let inputs = self.shared.inbox.drain();
            if inputs.is_empty() || self.stopped.is_some() {
                break;
            }
            // Read after everything that it is used for had arrived: an answer to a heartbeat makes a promise from this
            // time on, and the leader counts from before the heartbeat was sent (docs/internals/raftstore.md, Promise).
            let now = self.clock_now(now);
            // Other inputs before proposals: a proposal that is bound to a term must see a change of leadership that
            // arrived before it.
            let mut proposals = Vec::new();
            for input in inputs {
                match input {
                    Input::Propose { region, epoch, bound, batch, reply } => {
                        proposals.push((region, epoch, bound, batch, reply));
                    }
                    other => self.take(other, now),
                }
            }
            self.perform_all(now);
            for (region, epoch, bound, batch, reply) in proposals {
                let term = bound.map(|bound| bound.term);
                let is_outdated = bound.is_some_and(|bound| self.is_older_than_safe_point(region, bound.gc_safe_point));
                if is_outdated || term.is_some() && term != self.shared.leader_terms.lock().get(&region).copied() {
                    self.shared.counters.proposals_refused.increment();
                    reply.send(Err(RegionError::StaleCommand.into()));
                    continue;
                }
                // If another store leads, the caller gets an error that says so.
                if self.is_disk_full() && self.shared.leads(region) {
                    self.shared.counters.disk_full.increment();
                    reply.send(Err(NodeError::DiskFull));
                    continue;
                }
                self.shared.counters.proposals.increment();
                let ticket = self.pending.add(Pending::Proposal { reply, is_bound: term.is_some() });
                if let Some(observer) = self.observers.proposals.as_mut().filter(|_| term.is_some()) {
                    observer(ticket, Some(&batch));
                }
                self.store.handle(Event::Propose { region, epoch, batch, ticket }, now.monotonic);
            }
            self.perform_all(now);
        }
        if self.stopped.is_some() {
            self.outbound = std::mem::take(&mut self.last_orders); // Invariant 5.
        }
        std::mem::take(&mut self.outbound)
    }

    /// The time now, at least `earlier`, with which this step began.
    fn clock_now(&self, earlier: Now) -> Now {
        let clock = &self.env.clock;
        Now { monotonic: clock.monotonic().max(earlier.monotonic), wall_ms: clock.wall_ms() }
    }

    fn tick(&mut self, now: Now) {
        self.ticks += 1;
        self.tend_membership(now);
        if self.formation.membership.is_member() {
            self.store.handle(Event::Tick, now.monotonic);
        }
        self.placement.tick(now);
        self.perform_all(now);
        self.shared.counters.set_memory(self.store.memory());
        let (resting, waking) = self.store.resting();
        self.shared.counters.regions_resting.set(resting as u64);
        self.shared.counters.regions_waking.set(waking as u64);
        let (log_write, log_is_slow) = self.store.log_speed();
        self.shared.counters.set_log_speed(log_write, log_is_slow);
        self.tend_hand_over();
        self.retry_persist();
        self.check_log_disk(now);
        self.tend_calls(now, false);
        self.tend_deadlocks(now);
        if self.formation.membership.is_member() {
            self.send_heartbeats(now);
        }
        self.tend_region_sizes(now);
        self.tend_region_loads(now);
        self.tend_checks(now);
        self.tend_lag(now);
        self.tend_safe_ts(now);
        self.tend_gc(now);
        if self.ticks.is_multiple_of(replacement::LOOK_TICKS) {
            self.recover_regions(now);
            self.replace_lost_replicas(now);
        }
        if self.ticks.is_multiple_of(FLUSHED_TICKS) {
            self.surveys.flushed();
        }
        if self.ticks.is_multiple_of(DIRECTORY_TICKS) {
            self.surveys.directory();
        }
        if self.ticks.is_multiple_of(SNAPSHOT_SWEEP_TICKS) {
            self.snapshots.sweep();
        }
        self.perform_all(now);
    }

    fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Message { from, bytes } => self.take_message(from, bytes, now),
            Input::Propose { .. } => unreachable!("proposals are handled in `step`"),
            Input::Barrier { region, epoch, reply } => {
                let ticket = self.pending.add(Pending::Barrier(reply));
                self.store.handle(Event::ReadBarrier { region, epoch, ticket }, now.monotonic);
            }
            Input::ReplicaRead { region, epoch, read_at, reply } => {
                let ticket = self.pending.add(Pending::Barrier(reply));
                self.store.handle(Event::ReplicaRead { region, epoch, read_at, ticket }, now.monotonic);
            }
            Input::ReplicaShows { region, index, reply } => {
                let ticket = self.pending.add(Pending::Barrier(reply));
                self.store.handle(Event::ReplicaShows { region, index, ticket }, now.monotonic);
            }
            Input::WaitBegins { wait, found } => self.wait_begins(wait, found, now),
            Input::WaitEnds { wait } => self.wait_ends(wait),
            Input::Placement { request, deadline, reply } => {
                self.start_call(Origin::Local(reply), request, deadline, now);
            }
            Input::Committed { lane: LaneKind::Persist, result } => self.persist_ended(result, now),
            Input::Committed { lane: LaneKind::Apply, result } => self.apply_ended(result, now),
            Input::SnapshotPrepared { region, view, result } => {
                self.snapshot_prepared(region, view, result, now.monotonic);
            }
            Input::SnapshotInstalled { region, file, result } => {
                self.store.handle(Event::SnapshotInstalled { region, file, result }, now.monotonic);
            }
            Input::SnapshotSent { region, to, view, ok } => {
                self.store.handle(Event::SnapshotSent { region, to, view, ok }, now.monotonic);
            }
            Input::SnapshotReceived { message, file, arrival } => {
                self.store.handle(Event::SnapshotReceived { message, file }, now.monotonic);
                arrival.known_to_raftstore();
            }
            Input::GenerationFailed { error } => self.generation_failed(error),
            Input::SnapshotRemoval { file } => self.remove_snapshot(file),
            Input::SnapshotFiles { paths } => self.remove_unneeded_snapshots(paths),
            Input::Found(Found::Flushed(applied)) => {
                self.region_sizes.flushed(applied.iter().map(|(region, _)| *region));
                self.store.handle(Event::Flushed { applied }, now.monotonic);
            }
            Input::Found(Found::Space(bytes)) => self.available_bytes = bytes,
            Input::Found(Found::Unusable(error)) => {
                self.stop(StopReason::Engine { doing: "checked its data directory", error });
            }
            Input::Found(Found::Placement { term, state }) => self.lead_placement(term, state, now),
            Input::Found(Found::Size(surveyed)) => self.region_surveyed(surveyed, now),
            Input::ChangeMembers { region, change, reply } => self.start_change(region, &change, reply, now),
            Input::Merge { source, target, reply } => self.start_merge(merge::Wanted { source, target, reply }, now),
            Input::Split { region, epoch, keys, reply } => {
                self.start_split(region, epoch, keys, Asked::By(reply), now);
            }
            Input::TransferLeader { region, to } => {
                self.store.handle(Event::TransferLeader { region, to }, now.monotonic);
            }
            Input::Check { region, reply } => self.begin_check(region, Some(reply), now),
            Input::ReplicaLag { region, reply } => self.answer_replica_lag(region, reply),
            Input::EntriesRead { region, id, result } => self.entries_read(region, id, result, now),
            Input::Checksummed { region, index, result } => self.checksum_ended(region, index, result, now),
            Input::SafeTs { claims } => self.store.handle(Event::SafeTs { claims }, now.monotonic),
            Input::Damaged => self.store.handle(Event::StopLeading, now.monotonic),
            Input::StopLeading { reply } => self.stop_leading(reply, now),
            Input::Unreachable { store } => self.store.handle(Event::Unreachable { store }, now.monotonic),
        }
    }

    fn take_message(&mut self, from: StoreId, bytes: Bytes, now: Now) {
        match message::decode(bytes) {
            // A vote or an acknowledgement before that could break a promise that this directory has lost.
            Some(Body::Raft(_)) if !self.formation.membership.is_member() => {
                self.shared.counters.messages_ignored.increment();
            }
            Some(Body::Hello(hello)) => self.take_hello(from, &hello, now),
            Some(Body::Raft(message)) => {
                self.shared.counters.messages_received.increment();
                self.store.handle(Event::Message(message), now.monotonic);
            }
            Some(Body::Call(call)) => self.call_forwarded_here(from, call, now),
            Some(Body::Reply(reply)) => self.call_answered_there(reply, now),
            Some(Body::Wait(wait)) => self.wait_reported(wait, now),
            Some(Body::CircleFound(circle)) => self.circle_found(circle),
            None => self.shared.counters.messages_malformed.increment(),
        }
    }

    /// Stops permanently: nothing is answered as done any more; every waiting caller gets an error. After an error of
    /// the engine (a failed sync, mostly) the regions that were led here need not wait for an election timeout: others
    /// are ordered to campaign. That says nothing about the log, and the terms in which this node leads are durable.
    fn stop(&mut self, reason: StopReason) {
        if self.stopped.is_some() {
            return; // The first reason is the cause.
        }
        tracing::error!("the node stops: {reason}");
        if let StopReason::Fault(fault) = &reason
            && fault.kind == FaultKind::Inconsistent
        {
            inconsistent::mark(&*self.env.fs, &self.config.data_dir, fault);
        }
        if matches!(reason, StopReason::Engine { .. }) {
            self.last_orders = self.store.abdicate().into_iter().map(raft_message).collect();
        }
        *self.shared.stopped.lock() = Some(reason.to_string());
        self.stopped = Some(reason);
        self.release();
    }

    /// Answers every waiting caller.
    fn release(&mut self) {
        self.shared.inbox.close();
        self.shared.leader_terms.lock().clear();
        self.pending.waiting.clear();
        self.splits = split::Splits::default();
        self.pending.merges = merge::Merges::default();
        self.waiting_for_hand_over.clear();
        self.checks.clear();
        self.drop_calls();
        self.outbound.clear();
        self.log.stop();
        self.snapshots.stop();
        self.flusher.stop();
        self.surveys.stop();
        self.checksums.stop();
        self.oldest_locks.stop();
        self.gc_collector.stop();
        self.gc_filter.stop();
    }

    /// Stops the node cleanly: answers the waiting callers, then closes the engine.
    pub fn close(mut self) -> Result<(), kontiki_engine::Error> {
        self.release();
        self.log.close();
        self.state.close()
    }
}

/// A message of raftstore.
fn raft_message((to, bytes): (StoreId, Bytes)) -> Outbound {
    Outbound::Message { to, bytes: message::encode(Body::Raft(bytes)) }
}

/// The first multiple of `interval` after `now`.
fn next_multiple(now: Duration, interval: Duration) -> Duration {
    let past = now.as_nanos() % interval.as_nanos().max(1);
    now + interval - Duration::from_nanos(u64::try_from(past).unwrap_or(0))
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod gc_retry_test;
#[cfg(test)]
mod golden_test;
#[cfg(test)]
mod log_crash_test;
#[cfg(test)]
mod log_life_test;
#[cfg(test)]
mod merged_transactions_test;
#[cfg(test)]
mod several_nodes_test;
#[cfg(test)]
mod snapshots_test;
#[cfg(test)]
mod swaps_test;
#[cfg(test)]
#[path = "driver_test.rs"]
mod tests;
#[cfg(test)]
mod transactions_test;
