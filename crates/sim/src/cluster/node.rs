//! A node of a simulated cluster: a machine that runs the real driver with the real engine, raftstore and placement.

use super::commands::Commands;
use super::digest::Digests;
use super::serve::{ServiceTasks, Services};
use super::watch::{REGIONS, Watch};
use crate::executor::{Executor, Group};
use crate::world::{NodeId, Reply, SimNode};
use bytes::Bytes;
use futures::future::{Either, select};
use kontiki_engine::{Db, Durability, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::clock::Clock;
use kontiki_env::codec::{get_slice, get_u8, get_u64, put_slice, put_u64};
use kontiki_env::fs::{Fs, OpenMode, SimFs};
use kontiki_env::rng::Rng;
use kontiki_placement::Now;
use kontiki_raftlog::{FileOptions, LogChoice, OpenError as LogOpenError};
use kontiki_raftstore::planted::Planted;
use kontiki_raftstore::snapshot::SnapshotId;
use kontiki_raftstore::{FaultKind, Region, RegionId, SlowLog, SnapshotTables, Space, StoreId, ViewId};
use kontiki_server::config::{NodeConfig, RaftOptions};
use kontiki_server::driver::{Arrival, Driver, NodeHandle, OpenError, Outbound, RegionContext, StopReason};
use kontiki_server::families;
use kontiki_server::stopped::{LostStores, RefusedPlan, plan_recovery};
use kontiki_txn::memcomparable_encode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A snapshot whose receipt is not confirmed after this long has failed.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(2);

/// The latest time at which a caller that hangs up does so.
const HANG_UP_US_MAX: u64 = 100_000;
/// Longer than any caller waits.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// A snapshot that no follower asks for is released after this number of ticks, which is 2 s.
const SNAPSHOT_IDLE_TICKS: u64 = 40;
/// How long a round of replication may take for proposals to gather; one of them at each start.
const GATHER_ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(5), Duration::MAX];
/// Ticks for which a replica leads before it prefers another node.
const SETTLED_TICKS: u64 = 20;

/// The margin of new timestamps after an unsafe recovery: the default of the command.
const CLOCK_MARGIN_MS: u64 = 60_000;

/// With this [`Sizes::snapshot_log_factor`] no world's log reaches its bound while a snapshot is in flight.
pub const UNREACHED_LOG_FACTOR: usize = 1 << 16;

/// A cluster has at most about this many regions.
const SPLIT_REGIONS_MAX: usize = 12;
/// Numbers of the keys at which regions are split: periods and accounts of the workloads are below it.
const BOUNDARIES_MAX: u64 = 12;

const TAG_MESSAGE: u8 = 0;
const TAG_SNAPSHOT: u8 = 1;
const TAG_RECEIPT: u8 = 2;

/// The sizes in a simulated node: small, so that rare events of production happen often.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The engine's memtable, bytes.
    pub memtable_bytes: u64,
    /// A segment of the engine's log, bytes; its budget is 16 of them.
    pub log_segment_bytes: u64,
    /// Bytes of raft log above which slow followers need a snapshot.
    pub raft_log_bytes: usize,
    /// The minimum number of entries that a truncation removes.
    pub truncate_entries_min: u64,
    /// Bytes of entries in one round of apply, and in one append message.
    pub round_bytes: usize,
    /// Append messages in flight to a follower.
    pub inflight_appends: usize,
    /// The log that is retained for a snapshot in flight is at most this many times `raft_log_bytes`.
    pub snapshot_log_factor: usize,
    /// A raft tick.
    pub tick: Duration,
    /// Ticks of an election timeout.
    pub election_ticks: u32,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: u32,
    /// How far ahead placement makes a bound of timestamps durable, milliseconds.
    pub timestamp_window_ms: u64,
    /// Ids that placement reserves by one write.
    pub ids_per_write: u64,
    /// Largest proposal, bytes.
    pub entry_bytes_max: usize,
    /// Bytes of entries of a region that are not applied.
    pub unapplied_bytes_max: usize,
    /// Bytes of a node's logs in memory.
    pub memory_bytes_max: usize,
    /// The share of it above which applied entries are evicted.
    pub memory_evict_percent: usize,
    /// Bytes of entries that are read back at the same time.
    pub reading_bytes_max: usize,
    /// Bytes of a node's logs above which none is retained for followers.
    pub stored_bytes_max: usize,
    /// Bytes of entries in flight to a follower.
    pub inflight_bytes_max: usize,
    /// Bytes of entries in flight to the engine.
    pub applying_bytes_max: usize,
    /// Percentage of requests whose caller hangs up.
    pub hang_ups_percent: u64,
    /// Ticks without work after which a region hibernates; 0: never.
    pub hibernate_ticks: u64,
    /// A larger region is split, bytes; 0: none is.
    pub region_bytes_max: u64,
    /// A region of which more requests are served in a second is split; 0: none is.
    pub region_requests_max: u64,
    /// How long these are averaged.
    pub load_window: Duration,
    /// The node to which leaders move if they can; 0: none.
    pub preferred: NodeId,
    /// Between two comparisons of a region's replicas; zero: none.
    pub check_interval: Duration,
    /// Between two advances of safe timestamps.
    pub safe_ts_interval: Duration,
    /// Nodes that have replicas at the beginning; 0: all.
    pub replicas: usize,
    /// Which snapshots are taken in as tables.
    pub snapshot_tables: SnapshotTables,
    /// When a log is slow.
    pub slow_log: SlowLog,
    /// Where raft logs are kept.
    pub raft_logs: RaftLogs,
    /// Bounds of raft logs in files.
    pub log_files: FileOptions,
}

/// Where the nodes of a world keep their raft logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaftLogs {
    /// In the engine's log.
    #[default]
    Shared,
    /// In files of their own.
    PerGroup,
    /// Drawn at each start of a node.
    Moving,
}

impl RaftLogs {
    fn choice(self, rng: &mut Rng) -> Option<LogChoice> {
        match self {
            RaftLogs::Shared => None,
            RaftLogs::PerGroup => Some(LogChoice::PerGroup),
            RaftLogs::Moving if rng.chance(1, 2) => Some(LogChoice::PerGroup),
            RaftLogs::Moving => Some(LogChoice::Shared),
        }
    }
}

impl Sizes {
    /// Draws sizes.
    pub fn draw(rng: &mut Rng) -> Sizes {
        let (raft, usual) = (RaftOptions::default(), kontiki_raftstore::Config::default());
        let placement = kontiki_placement::Config::new(1, 1);
        Sizes {
            memtable_bytes: (8 << 10) << rng.below(6),
            log_segment_bytes: (8 << 10) << rng.below(4),
            raft_log_bytes: (4 << 10) << rng.below(7),
            truncate_entries_min: 1 << rng.below(9),
            round_bytes: 64 << rng.below(12),
            inflight_appends: 1 << rng.below(9),
            snapshot_log_factor: 4,
            tick: raft.tick_interval,
            election_ticks: raft.election_ticks,
            heartbeat_ticks: raft.heartbeat_ticks,
            timestamp_window_ms: placement.timestamp_window_ms,
            ids_per_write: placement.ids_per_write,
            entry_bytes_max: usual.proposal_bytes_max,
            unapplied_bytes_max: usual.unapplied_bytes_max,
            memory_bytes_max: usual.memory_bytes_max,
            memory_evict_percent: usual.memory_evict_percent,
            reading_bytes_max: usual.reading_bytes_max,
            stored_bytes_max: usual.stored_bytes_max,
            inflight_bytes_max: usual.inflight_bytes_max,
            applying_bytes_max: usual.applying_bytes_max,
            hang_ups_percent: if rng.chance(1, 3) { rng.below(20) } else { 0 },
            hibernate_ticks: 0,
            region_bytes_max: 0,
            region_requests_max: 0,
            load_window: raft.region_load_window,
            preferred: 0,
            check_interval: Duration::ZERO,
            safe_ts_interval: raft.safe_ts_interval,
            replicas: 0,
            snapshot_tables: SnapshotTables::default(),
            slow_log: usual.slow_log,
            raft_logs: RaftLogs::default(),
            log_files: FileOptions::default(),
        }
    }

    /// Keeps raft logs in files in a sixth of the worlds, and moves them between starts in another sixth.
    pub fn with_raft_logs(self, rng: &mut Rng) -> Sizes {
        let raft_logs = match rng.below(6) {
            0 => RaftLogs::PerGroup,
            1 => RaftLogs::Moving,
            _ => RaftLogs::Shared,
        };
        let (open_files_max, rewrite_bytes_min) = (1 + rng.below(4) as usize, 256 << rng.below(6));
        Sizes { raft_logs, log_files: FileOptions { open_files_max, rewrite_bytes_min }, ..self }
    }

    /// Lets regions hibernate in half of all worlds: soon, because clients leave little time without work.
    pub fn with_hibernation(self, rng: &mut Rng) -> Sizes {
        let hibernate_ticks = if rng.chance(1, 2) { 1 + rng.below(12) } else { 0 };
        Sizes { hibernate_ticks, ..self }
    }

    /// Evicts entries as soon as they are applied, in half of all worlds, reads few of them at a time, and has few
    /// bytes in flight.
    pub fn with_eviction(self, rng: &mut Rng) -> Sizes {
        if rng.chance(1, 2) {
            return self;
        }
        Sizes {
            memory_evict_percent: 0,
            reading_bytes_max: 1 << rng.below(16),
            inflight_bytes_max: self.round_bytes << rng.below(6),
            ..self
        }
    }

    /// Lets leaders move to one of the nodes in a third of all worlds.
    pub fn with_priorities(self, rng: &mut Rng, nodes: u64) -> Sizes {
        let preferred = if rng.chance(1, 3) { 1 + rng.below(nodes) } else { 0 };
        Sizes { preferred, ..self }
    }

    /// Compares replicas in half of all worlds.
    pub fn with_checks(self, rng: &mut Rng) -> Sizes {
        let check_interval = if rng.chance(1, 2) { Duration::from_secs(1 + rng.below(5)) } else { Duration::ZERO };
        Sizes { check_interval, ..self }
    }

    /// Takes most snapshots in as tables, in two thirds of the worlds.
    pub fn with_tables(self, rng: &mut Rng) -> Sizes {
        let (file_bytes_min, family_bytes_min) = (64 << rng.below(8), rng.below(4) << rng.below(10));
        let drawn = SnapshotTables { file_bytes_min, family_bytes_min, table_bytes: 128 << rng.below(8) };
        Sizes { snapshot_tables: if rng.chance(2, 3) { drawn } else { self.snapshot_tables }, ..self }
    }

    /// Advances safe timestamps often, so that reads find them close behind.
    pub fn with_stale_reads(self, rng: &mut Rng) -> Sizes {
        Sizes { safe_ts_interval: Duration::from_millis(10 << rng.below(6)), ..self }
    }

    /// Takes a log for slow after a few writes that take some milliseconds. Only where regions hibernate do stores say
    /// how long their writes take.
    pub fn with_slow_logs(self, rng: &mut Rng) -> Sizes {
        let slow_log = SlowLog {
            window: Duration::from_millis(20 << rng.below(4)),
            write_min: Duration::from_millis(1 << rng.below(5)),
            factor: 2 + rng.below(4) as u32,
            slow_windows: 1 + rng.below(4) as u32,
            fast_windows: 1 + rng.below(8) as u32,
        };
        Sizes { slow_log, ..self }
    }

    /// Begins with replicas on three nodes in half of the worlds.
    pub fn with_moves(self, rng: &mut Rng) -> Sizes {
        Sizes { replicas: if rng.chance(1, 2) { 3 } else { 0 }, ..self }
    }

    /// Splits regions by their size in half of the worlds, and by their load in half of them.
    pub fn with_splits(self, rng: &mut Rng) -> Sizes {
        let region_bytes_max = if rng.chance(1, 2) { (4 << 10) << rng.below(6) } else { 0 };
        let region_requests_max = if rng.chance(1, 2) { 5 << rng.below(5) } else { 0 };
        let load_window = Duration::from_millis(50 << rng.below(3));
        Sizes { region_bytes_max, region_requests_max, load_window, ..self }
    }

    /// The unapplied bytes that a follower accepts of a region: its bound, and appends that repeat or replace the end
    /// of its log. `None` if the worlds cannot reach the bound.
    fn unapplied_bytes_bound(&self) -> Option<usize> {
        let bound = self.unapplied_bytes_max + 2 * (self.round_bytes + self.entry_bytes_max);
        Some(bound).filter(|_| self.unapplied_bytes_max < 1 << 20)
    }
}

/// A node.
pub struct ClusterNode {
    id: NodeId,
    machine: SimMachine,
    config: NodeConfig,
    sizes: Sizes,
    rng: Rng,
    /// The regions whose leaderships are transferred, and make this node a target of faults.
    focus: &'static [RegionId],
    watch: Watch,
    digests: Digests,
    commands: Commands,
    planted: Planted,
    /// The times of the clocks when the present step began.
    seen: Now,
    /// How long an apply takes, if this replica is slow, and when the next may start.
    slow: Option<(Duration, Duration)>,
    process: Option<Process>,
    /// Snapshots that earlier processes installed.
    snapshots_installed: u64,
    /// Of these, those that were taken in as tables.
    snapshots_as_tables: u64,
    /// Comparisons of replicas that earlier processes ended.
    checks_ended: u64,
    /// Entries that earlier processes read back.
    entries_read: u64,
    splits_by_load: u64,
    starts: u64,
    /// Where its raft logs were at the last start, and how often they have moved.
    raft_log: LogChoice,
    log_moves: u64,
    /// A test has taken a key from it.
    is_damaged: bool,
}

/// The resources that a process holds at a moment.
pub struct Remains {
    /// Transactional commands that hold latches or wait for them.
    pub commands: usize,
    /// Requests without an answer.
    pub requests: usize,
    /// Its replicas.
    pub replicas: Vec<kontiki_raftstore::RegionStatus>,
}

/// The observers of a running cluster.
#[derive(Clone, Default)]
pub struct Checks {
    /// Leaders and leases.
    pub watch: Watch,
    /// Equality of replicas.
    pub digests: Digests,
    /// Transactional commands.
    pub commands: Commands,
}

struct Process {
    driver: Driver,
    handle: NodeHandle,
    services: Services,
    tasks: ServiceTasks,
    executor: Executor,
    /// Messages to send with the next step.
    outbox: Vec<(NodeId, Bytes)>,
    sending: Vec<Sending>,
}

struct Sending {
    to: NodeId,
    snapshot: SnapshotId,
    view: ViewId,
    deadline: Duration,
}

impl ClusterNode {
    /// A node whose process does not run yet.
    pub fn new(id: NodeId, machine: SimMachine, config: NodeConfig, sizes: Sizes, rng: Rng, checks: Checks) -> Self {
        let Checks { watch, digests, commands } = checks;
        let (planted, process, snapshots_installed) = (Planted::default(), None, 0);
        let (seen, slow) = (Now { monotonic: Duration::ZERO, wall_ms: 0 }, None);
        let raft = RaftOptions {
            region_bytes_max: sizes.region_bytes_max,
            region_keys_max: 0,
            region_requests_per_second_max: sizes.region_requests_max,
            region_served_bytes_per_second_max: 0,
            region_load_window: sizes.load_window,
            consistency_check_interval: sizes.check_interval,
            safe_ts_interval: sizes.safe_ts_interval,
            log_files: sizes.log_files,
            ..config.raft
        };
        let config = NodeConfig { raft, ..config };
        ClusterNode {
            id,
            machine,
            config,
            sizes,
            rng,
            focus: &REGIONS,
            watch,
            digests,
            commands,
            planted,
            seen,
            slow,
            process,
            snapshots_installed,
            snapshots_as_tables: 0,
            checks_ended: 0,
            entries_read: 0,
            splits_by_load: 0,
            starts: 0,
            raft_log: LogChoice::default(),
            log_moves: 0,
            is_damaged: false,
        }
    }

    /// The faults prefer the leaders of these regions.
    pub fn with_focus(self, focus: &'static [RegionId]) -> ClusterNode {
        ClusterNode { focus, ..self }
    }

    /// Regions that splits made are in the focus if the one that had all keys is.
    fn is_in_focus(&self, region: RegionId) -> bool {
        let first = if REGIONS.contains(&region) { region } else { REGIONS[1] };
        self.focus.contains(&first)
    }

    /// Gives the replicated store bugs, from the next start on.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Another disk is put into the machine, whose process does not run.
    pub fn replace_disk(&mut self, disk: SimFs) {
        assert!(self.process.is_none(), "a disk is replaced while the machine is off");
        self.machine.fs = disk;
    }

    /// The operator states that a lost directory of this node will not come back; takes effect at its next start.
    pub fn replace_lost_directory(&mut self) {
        self.config.replace_lost_directory = true;
    }

    /// Runs the command that states that stores are lost, on the directory of this node, whose process does not run:
    /// without `does` it only says what would be done.
    pub fn give_up_stores(
        &mut self,
        lost: &BTreeSet<u64>,
        learners: &BTreeMap<u64, u64>,
        number: Option<u64>,
        does: bool,
    ) -> Result<LostStores, RefusedPlan> {
        assert!(self.process.is_none(), "the command needs the directory for itself");
        self.machine = self.machine.restarted(Rng::new(self.rng.next_u64()));
        self.machine.fs.clear_faults();
        self.machine.fs.set_quota(None);
        let db = Db::open_in(&self.machine.env(), &self.config.data_dir, kontiki_engine::Options::default())?;
        let min_ms = self.machine.env().clock.wall_ms() + CLOCK_MARGIN_MS;
        let logs = kontiki_server::stopped::logs(&self.machine.env(), &self.config.data_dir, &db)?;
        let plan = plan_recovery(&db, &logs, lost, learners, number, min_ms)?;
        drop(logs);
        if does {
            plan.record(&db)?;
        }
        db.close()?;
        Ok(plan)
    }

    /// Its sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Snapshots that were installed, by all processes so far.
    pub fn snapshots_installed(&self) -> u64 {
        self.snapshots_installed + self.handle().map_or(0, |handle| handle.counters().snapshots_installed.get())
    }

    /// Of these, those that were taken in as tables.
    pub fn snapshots_as_tables(&self) -> u64 {
        let now = self.handle().map_or(0, |handle| handle.counters().snapshots_installed_as_tables.get());
        self.snapshots_as_tables + now
    }

    /// Splits by load that this node has made.
    pub fn splits_by_load(&self) -> u64 {
        self.splits_by_load + self.handle().map_or(0, |handle| handle.counters().splits_by_load.get())
    }

    /// Entries that were read back from logs, by all processes so far.
    pub fn entries_read(&self) -> u64 {
        self.entries_read + self.handle().map_or(0, |handle| handle.counters().log_entries_read.get())
    }

    /// How often its raft logs were moved to another place.
    pub fn log_moves(&self) -> u64 {
        self.log_moves
    }

    /// Comparisons of replicas that ended, by all processes so far.
    pub fn checks_ended(&self) -> u64 {
        self.checks_ended + self.handle().map_or(0, |handle| handle.counters().consistency_checks.get())
    }

    /// Takes a key of the default family from this replica alone, as a fault of the program or the machine would.
    pub fn lose_key(&mut self, key: &[u8]) {
        self.is_damaged = true;
        let mut batch = WriteBatch::new();
        batch.delete(families::DEFAULT, key);
        self.handle().expect("it runs").state().submit(batch, Durability::Derived, Box::new(|_| ()));
    }

    /// Transactional commands and requests that have not ended, and the replicas of the running process.
    pub fn remains(&self) -> Option<Remains> {
        let process = self.process.as_ref()?;
        let (commands, requests) = (process.services.commands_latched(), process.handle.requests_waiting());
        Some(Remains { commands, requests, replicas: process.driver.replicas() })
    }

    /// The process's handle, while it runs.
    pub fn handle(&self) -> Option<&NodeHandle> {
        self.process.as_ref().map(|process| &process.handle)
    }
}

impl ClusterNode {
    /// Opens the directory. On a full disk raft logs may not be able to move, or an interrupted commit of theirs not be
    /// completed: then it opens where they are, or its operator frees space.
    fn open_driver(&mut self) -> Result<Driver, OpenError> {
        self.starts += 1;
        let mut choice = self.sizes.raft_logs.choice(&mut self.rng.child(&format!("raft log {}", self.starts)));
        let seeds = [self.rng.next_u64(), self.rng.next_u64()];
        loop {
            self.machine = self.machine.restarted(Rng::new(seeds[0]));
            match self.open_driver_with(choice, seeds[1]) {
                Err(OpenError::RaftLog(LogOpenError::Conversion { error, .. })) if error.is_retryable() => {
                    choice = None
                }
                Err(OpenError::Engine(error)) if error.is_retryable() && self.sizes.raft_logs != RaftLogs::Shared => {
                    self.machine.fs.set_quota(None);
                }
                result => return result,
            }
        }
    }

    fn open_driver_with(&self, log_choice: Option<LogChoice>, seed: u64) -> Result<Driver, OpenError> {
        let (sizes, planted, id) = (self.sizes, self.planted, self.id);
        let mut config = self.config.clone();
        config.raft.log_choice = log_choice;
        Driver::open_tuned(&self.machine.env(), config, seed, |raft, engine, placement| {
            raft.log_bytes_max = sizes.raft_log_bytes;
            raft.snapshot_log_bytes_max = sizes.snapshot_log_factor * sizes.raft_log_bytes;
            raft.tick_interval = sizes.tick;
            raft.election_ticks = sizes.election_ticks as usize;
            raft.heartbeat_ticks = sizes.heartbeat_ticks as usize;
            raft.proposal_bytes_max = sizes.entry_bytes_max;
            raft.unapplied_bytes_max = sizes.unapplied_bytes_max;
            raft.memory_bytes_max = sizes.memory_bytes_max;
            raft.memory_evict_percent = sizes.memory_evict_percent;
            raft.reading_bytes_max = sizes.reading_bytes_max;
            raft.stored_bytes_max = sizes.stored_bytes_max;
            raft.inflight_bytes_max = sizes.inflight_bytes_max.max(sizes.round_bytes);
            raft.applying_bytes_max = sizes.applying_bytes_max;
            raft.snapshot_catch_up_ticks_max = 60;
            raft.truncate_entries_min = sizes.truncate_entries_min;
            raft.planted = planted;
            (raft.apply_bytes_max, raft.append_bytes_max) = (sizes.round_bytes, sizes.round_bytes);
            raft.inflight_appends_max = sizes.inflight_appends;
            raft.gather_round_max = GATHER_ROUNDS[seed as usize % GATHER_ROUNDS.len()];
            raft.announce_commits = seed % 4 == 1;
            raft.truncate_ticks = 3;
            raft.follower_dead_ticks = 60;
            raft.snapshot_idle_ticks = SNAPSHOT_IDLE_TICKS;
            raft.snapshot_tables = sizes.snapshot_tables;
            raft.hibernate_ticks = sizes.hibernate_ticks;
            raft.wake_regions_per_tick_max = 1;
            raft.slow_log = sizes.slow_log;
            raft.leader_priority = i32::from(sizes.preferred == id);
            raft.settled_ticks = SETTLED_TICKS;
            placement.timestamp_window_ms = sizes.timestamp_window_ms;
            placement.ids_per_write = sizes.ids_per_write;
            engine.memtable_bytes = sizes.memtable_bytes;
            engine.log_segment_bytes = sizes.log_segment_bytes;
            engine.log_bytes_max = 16 * sizes.log_segment_bytes;
        })
    }
}

impl SimNode for ClusterNode {
    fn start(&mut self, executor: &Executor) -> Result<(), String> {
        assert!(self.process.is_none(), "a machine runs one process");
        let mut driver = self.open_driver().map_err(|error| error.to_string())?;
        let id = self.id;
        let digests = self.digests.clone();
        driver.observe_applies(Box::new(move |state, batch| digests.applying(id, &state.snapshot(), batch)));
        let commands = self.commands.clone();
        driver.observe_bound_proposals(Box::new(move |ticket, batch| commands.observe(id, ticket, batch)));
        let handle = driver.handle();
        let raft_log = handle.status().raft_log;
        self.log_moves += u64::from(std::mem::replace(&mut self.raft_log, raft_log) != raft_log);
        self.watch.started(self.id, handle.clone());
        self.watch.look(self.id);
        let (executor, tasks) = (executor.clone(), ServiceTasks::default());
        let services = Services::new(handle.clone(), &tasks);
        let (outbox, sending) = (Vec::new(), Vec::new());
        self.process = Some(Process { driver, handle, services, tasks, executor, outbox, sending });
        Ok(())
    }

    fn stop(&mut self) {
        self.watch.stopped(self.id);
        self.digests.stopped(self.id);
        self.commands.stopped(self.id);
        self.snapshots_installed = self.snapshots_installed();
        self.snapshots_as_tables = self.snapshots_as_tables();
        self.checks_ended = self.checks_ended();
        self.entries_read = self.entries_read();
        self.splits_by_load = self.splits_by_load();
        self.process = None;
    }

    fn look_at_clocks(&mut self) {
        let clock = &self.machine.clock;
        self.seen = Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() };
    }

    fn is_slow(job: &str) -> bool {
        job.starts_with("snapshot-install")
    }

    fn slow_applies(&mut self, delay: Option<Duration>) {
        self.slow = delay.map(|delay| (delay, Duration::ZERO));
        if let Some(process) = self.process.as_mut().filter(|_| delay.is_none()) {
            process.driver.hold_applies(false);
        }
    }

    fn transfer_leadership(&mut self, rng: &mut Rng) -> bool {
        let Some(handle) = self.handle() else { return false };
        let regions = handle.regions().into_iter().map(|region| region.id).filter(|region| self.is_in_focus(*region));
        let led: Vec<RegionId> = regions.filter(|region| handle.leading_term(*region).is_some()).collect();
        let others: Vec<NodeId> = (1..=self.config.members.len() as u64).filter(|id| *id != self.id).collect();
        match (rng.pick(&led), rng.pick(&others)) {
            (Some(region), Some(to)) => handle.transfer_leader(*region, StoreId(*to)),
            _ => return false,
        }
        true
    }

    fn stop_leading(&mut self) {
        if let Some(process) = &self.process {
            let handle = process.handle.clone();
            process.executor.spawn(Group(self.id), async move { handle.stop_leading().await });
        }
    }

    fn split_region(&mut self, rng: &mut Rng) -> bool {
        let Some(process) = &self.process else { return false };
        let regions = process.handle.regions();
        if regions.len() >= SPLIT_REGIONS_MAX {
            return false;
        }
        let boundary = boundary(rng);
        let holds = |region: &&Arc<Region>| {
            region.space == Space::Data && region.start_key != boundary && region.contains(&boundary)
        };
        let Some(region) = regions.iter().find(holds) else { return false };
        if process.handle.leading_term(region.id).is_none() {
            return false;
        }
        let (handle, context) = (process.handle.clone(), RegionContext::new(region.id, region.epoch));
        process.executor.spawn(Group(self.id), async move {
            // It may fail: the leader changes, placement does not answer, another split is first.
            let _ = handle.split(&context, vec![boundary]).await;
        });
        true
    }

    fn merge_region(&mut self, rng: &mut Rng) -> bool {
        let Some(process) = &self.process else { return false };
        let regions = process.handle.regions();
        let is_led = |region: &&Arc<Region>| process.handle.leading_term(region.id).is_some();
        let led: Vec<_> = regions.iter().filter(|region| region.space == Space::Data).filter(is_led).collect();
        let Some(source) = rng.pick(&led) else { return false };
        let follows = |a: &Region, b: &Region| !a.end_key.is_empty() && a.end_key == b.start_key;
        let is_neighbour =
            |other: &&Arc<Region>| other.space == Space::Data && (follows(other, source) || follows(source, other));
        let neighbours: Vec<_> = regions.iter().filter(is_neighbour).collect();
        let Some(target) = rng.pick(&neighbours) else { return false };
        let (handle, source, target) = (process.handle.clone(), source.id, target.id);
        process.executor.spawn(Group(self.id), async move {
            // It may be refused or rolled back, or the leader changes.
            let _ = handle.merge(source, target).await;
        });
        true
    }

    fn change_members(&mut self, rng: &mut Rng) -> bool {
        let Some(process) = &self.process else { return false };
        let mut led = process.handle.regions();
        led.retain(|region| region.space == Space::Data && process.handle.leading_term(region.id).is_some());
        let Some(region) = rng.pick(&led) else { return false };
        let change = super::changes::draw(region, self.id, self.config.members.len() as u64, rng);
        let Some(change) = change else { return false };
        let (handle, id) = (process.handle.clone(), region.id);
        process.executor.spawn(Group(self.id), async move {
            // It may be refused, or the leader changes.
            let _ = handle.change_members(id, change).await;
        });
        true
    }

    fn is_leading(&self) -> bool {
        let leads = |handle: &NodeHandle| {
            let mut regions = handle.regions().into_iter().map(|region| region.id);
            regions.any(|region| self.is_in_focus(region) && handle.leading_term(region).is_some())
        };
        self.handle().is_some_and(leads)
    }

    fn machine(&self) -> &SimMachine {
        &self.machine
    }

    fn deliver(&mut self, from: NodeId, bytes: Bytes) {
        let Some(process) = &mut self.process else { return };
        let mut rest = bytes.as_ref();
        match get_u8(&mut rest).expect("nodes send tagged packets") {
            TAG_MESSAGE => process.handle.deliver(StoreId(from), bytes.slice(1..)),
            TAG_SNAPSHOT => {
                let (id, message, file) = decode_snapshot(rest);
                // If the disk refuses, the snapshot did not arrive: the sender's timeout handles that.
                let Ok(arrival) = process.handle.snapshot_arrives(id, file.len() as u64) else { return };
                let stored = store_snapshot(&self.machine.fs, &arrival, &file);
                if stored.is_ok() && process.handle.snapshot_received(arrival, message).is_ok() {
                    process.outbox.push((from, encode_receipt(id)));
                }
            }
            TAG_RECEIPT => {
                let id = decode_id(&mut rest);
                let confirmed = |sending: &mut Sending| sending.to == from && sending.snapshot == id;
                for sending in process.sending.extract_if(.., confirmed) {
                    process.handle.snapshot_sent(id.region, StoreId(from), sending.view, true);
                }
            }
            tag => panic!("packets of kind {tag} are not ours"),
        }
    }

    fn request(&mut self, bytes: Bytes, reply: Reply) {
        let Some(process) = &self.process else { return };
        let serving = process.services.clone().serve(bytes);
        // Some callers hang up, and their request is dropped at any point of its execution.
        let hangs_up = self.rng.chance(self.sizes.hang_ups_percent, 100);
        let hang_up = if hangs_up { Duration::from_micros(self.rng.below(HANG_UP_US_MAX)) } else { CALL_TIME_MAX };
        let hang_up = process.executor.sleep(hang_up);
        process.executor.spawn(Group(self.id), async move {
            if let Either::Left((answer, _)) = select(Box::pin(serving), hang_up).await {
                reply.send(answer);
            }
        });
    }

    fn wants_step(&self) -> bool {
        let now = self.machine.clock.monotonic();
        self.process.as_ref().is_some_and(|process| {
            let driver = &process.driver;
            driver.stopped().is_some()
                || !process.outbox.is_empty()
                || driver.next_deadline(now) <= now
                || process.tasks.is_due(now)
        })
    }

    fn step(&mut self) -> Result<Vec<(NodeId, Bytes)>, String> {
        let Some(process) = &mut self.process else { return Ok(Vec::new()) };
        let now = self.machine.clock.monotonic();
        for future in process.tasks.take_due(now) {
            process.executor.spawn(Group(self.id), future);
        }
        let expired = |sending: &mut Sending| sending.deadline <= now;
        for Sending { to, snapshot, view, .. } in process.sending.extract_if(.., expired) {
            process.handle.snapshot_sent(snapshot.region, StoreId(to), view, false);
        }
        let mut packets = std::mem::take(&mut process.outbox);
        if let Some((delay, next)) = &mut self.slow {
            if now >= *next {
                process.driver.hold_applies(false);
                *next = now + *delay;
            }
            process.driver.hold_applies(true);
        }
        for outbound in process.driver.step(self.seen) {
            match outbound {
                Outbound::Message { to, bytes } => packets.push((to.0, [&[TAG_MESSAGE], &bytes[..]].concat().into())),
                Outbound::Snapshot { to, snapshot, view, message, source } => {
                    let deadline = now + SNAPSHOT_TIMEOUT;
                    process.sending.push(Sending { to: to.0, snapshot, view, deadline });
                    let mut bytes = Vec::new();
                    let written = source.write(&mut |part| {
                        bytes.extend_from_slice(part);
                        Ok(())
                    });
                    // If the disk cannot be read, the snapshot does not arrive: the timeout handles that.
                    if written.is_ok() {
                        packets.push((to.0, encode_snapshot(snapshot, &message, &bytes)));
                    }
                }
            }
        }
        if let Some(reason) = process.driver.stopped().filter(|_| packets.is_empty()) {
            let differs = matches!(reason, StopReason::Fault(fault) if fault.kind == FaultKind::Inconsistent);
            assert!(
                self.is_damaged || !differs,
                "node {} is blamed for data that nothing has damaged: {reason}",
                self.id
            );
            return Err(reason.to_string());
        }
        self.watch.look(self.id);
        let replicas = process.driver.replicas();
        self.watch.look_at_votes(self.id, &replicas);
        if process.driver.stopped().is_some() {
            // Its last orders, which end its leases; it ends with the next step.
            return Ok(packets);
        }
        self.watch.look_at_hibernation(self.id, &replicas);
        if let Some(bytes_max) = self.sizes.unapplied_bytes_bound() {
            self.watch.look_at_unapplied(self.id, &replicas, bytes_max);
        }
        let fs = &self.machine.fs;
        let gone = |path: &&PathBuf| !fs.exists(path) && !fs.is_off();
        self.watch.look_at_snapshots(self.id, process.driver.needed_snapshot_files().iter().find(gone));
        if self.sizes.snapshot_log_factor >= UNREACHED_LOG_FACTOR {
            self.watch.look_at_abandoned(self.id, process.handle.counters().snapshots_abandoned.get());
        }
        Ok(packets)
    }
}

/// A boundary between keys of the workloads that divides no group of raw keys, which must be in one region: between raw
/// keys of two periods, or between two accounts.
fn boundary(rng: &mut Rng) -> Bytes {
    let number = rng.below(BOUNDARIES_MAX);
    let name = match rng.below(3) {
        0 => format!("k{number:04}"),
        1 => format!("g{number:06}"),
        _ => format!("account-{number:03}"),
    };
    memcomparable_encode(name.as_bytes()).into()
}

fn put_id(out: &mut Vec<u8>, id: SnapshotId) {
    put_u64(out, id.region.0);
    put_u64(out, id.term);
    put_u64(out, id.index);
}

fn decode_id(rest: &mut &[u8]) -> SnapshotId {
    let mut number = || get_u64(rest).expect("nodes send whole packets");
    SnapshotId { region: RegionId(number()), term: number(), index: number() }
}

fn encode_receipt(id: SnapshotId) -> Bytes {
    let mut out = vec![TAG_RECEIPT];
    put_id(&mut out, id);
    out.into()
}

fn encode_snapshot(id: SnapshotId, message: &[u8], file: &[u8]) -> Bytes {
    let mut out = vec![TAG_SNAPSHOT];
    put_id(&mut out, id);
    put_slice(&mut out, message);
    put_slice(&mut out, file);
    out.into()
}

fn decode_snapshot(mut rest: &[u8]) -> (SnapshotId, Bytes, Vec<u8>) {
    let id = decode_id(&mut rest);
    let message = get_slice(&mut rest).expect("nodes send whole packets");
    let file = get_slice(&mut rest).expect("nodes send whole packets");
    (id, Bytes::copy_from_slice(message), file.to_vec())
}

/// Stores an arriving file as the real transport does: temporary name, sync, rename, sync of the folders.
fn store_snapshot(fs: &dyn Fs, arrival: &Arrival, bytes: &[u8]) -> io::Result<()> {
    let (path, temporary) = (arrival.path(), arrival.temporary_path());
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs.create_dir_all(folder)?;
    let file = fs.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    fs.rename(&temporary, &path)?;
    fs.sync_dir(folder)?;
    fs.sync_dir(folder.parent().unwrap_or(Path::new("/")))
}
