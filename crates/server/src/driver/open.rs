//! Opening a node: the engine with the served families, identity, bootstrap at the first start, recovery later.

use super::calls::Calls;
use super::checks::Checks;
use super::checksums::Checksums;
use super::convert::convert;
use super::counters::Counters;
use super::deadlocks::Deadlocks;
use super::error::OpenError;
use super::first_regions::placement_stores;
use super::flusher::Flusher;
use super::formation::Formation;
use super::gc::Gc;
use super::gc_collector::GcCollector;
use super::gc_filter::GcFilter;
use super::handle::Shared;
use super::heartbeat::Heartbeats;
use super::inbox::Inbox;
use super::inconsistent;
use super::install::Installer;
use super::lag_watch::LagWatch;
use super::lane::Lane;
use super::load_windows::LoadLimits;
use super::log_disk::LogDisk;
use super::oldest_locks::OldestLocks;
use super::region_loads::RegionLoads;
use super::region_sizes::RegionSizes;
use super::size_survey::SizeLimits;
use super::snapshots::Snapshots;
use super::surveys::Surveys;
use super::{Driver, PendingTable};
use crate::config::NodeConfig;
use crate::families::{FAMILIES, LOG_PLACE, served_families};
use crate::planted::{self, Bug};
use kontiki_engine::{Durability, FilterHandle, Options, Range, inspect};
use kontiki_env::Env;
use kontiki_env::rng::Rng;
use kontiki_placement::{Config as PlacementConfig, Now, Placement};
use kontiki_raftlog::RaftLog;
use kontiki_raftstore::{Config, ReadGate, Store, StoreId};
use kontiki_state::{BuiltIn, StateEngine};
use kontiki_txn::{ConcurrencyManager, TimeStamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Whether every region belongs on this store, until one of its replicas is moved: it has the first ones, and splits
/// keep their regions where they are.
fn holds_all_regions(config: &NodeConfig, store: &Store) -> bool {
    placement_stores(config).any(|home| home.0 == config.store_id) && !store.has_lost_members()
}

/// The engine's log budget is at least this many segments, so that the oldest can be deleted while others fill.
const LOG_SEGMENTS: u64 = 16;
/// What may be in a directory before it is a database: the folder of snapshots, and the file for the node's output,
/// which `kontiki cluster` creates.
const BESIDE: [&str; 2] = [super::snapshots::DIRECTORY, "log"];
/// Raft logs may keep twice the engine's log budget, so that a follower that was away needs no snapshot; the engine's
/// log may then be twice as large as what they keep ([`replay_bytes_max`]).
const STORED_SHARE: u64 = 2;
/// The largest log segment: large enough to make its allocation rare, small enough to release space soon.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// How long the safe timestamp of a region is advanced after its last read at a timestamp.
const SAFE_TS_WANTED: Duration = Duration::from_secs(60);

fn raftstore_config(config: &NodeConfig) -> Config {
    let ticks_of = |time: Duration| time.as_nanos().div_ceil(config.raft.tick_interval.as_nanos().max(1)) as u64;
    let safe_ts_ticks = ticks_of(config.raft.safe_ts_interval);
    let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let defaults = Config::default();
    Config {
        tick_interval: config.raft.tick_interval,
        election_ticks: config.raft.election_ticks as usize,
        heartbeat_ticks: config.raft.heartbeat_ticks as usize,
        proposal_bytes_max: bytes(config.raft.entry_bytes_max),
        unapplied_bytes_max: defaults.unapplied_bytes_max.max(bytes(config.raft.entry_bytes_max)),
        log_bytes_max: bytes(config.raft.log_bytes_max),
        leader_priority: config.raft.leader_priority,
        safe_ts_ticks,
        safe_ts_wanted_ticks: ticks_of(SAFE_TS_WANTED).max(safe_ts_ticks),
        snapshot_log_bytes_max: defaults.snapshot_log_bytes_max.max(bytes(config.raft.log_bytes_max)),
        stored_bytes_max: defaults.stored_bytes_max.min(bytes(STORED_SHARE * config.engine.log_bytes_max)),
        ..defaults
    }
}

/// How long a leader waits for checksums.
fn checksum_time(config: &Config) -> Duration {
    ticks(config, config.checksum_ticks_max)
}

fn ticks(config: &Config, count: u64) -> Duration {
    config.tick_interval.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}

fn size_limits(config: &NodeConfig) -> SizeLimits {
    SizeLimits { bytes_max: config.raft.region_bytes_max, keys_max: config.raft.region_keys_max }
}

fn load_limits(config: &NodeConfig) -> LoadLimits {
    LoadLimits {
        requests_max: config.raft.region_requests_per_second_max,
        bytes_max: config.raft.region_served_bytes_per_second_max,
        window: config.raft.region_load_window,
    }
}

fn engine_options(config: &NodeConfig) -> Options {
    Options {
        families: served_families(),
        memtable_bytes: config.engine.memtable_bytes_max,
        cache_bytes: config.engine.cache_bytes_max,
        log_segment_bytes: (config.engine.log_bytes_max / LOG_SEGMENTS).min(SEGMENT_BYTES_MAX),
        log_bytes_max: config.engine.log_bytes_max,
        ..Options::default()
    }
}

/// The bound of what the engine's log takes on disk, which is what a restart reads of it: all regions together.
///
/// Beyond its budget the engine flushes the memtable that holds the oldest segment, or rewrites the entries there at
/// the log's end, while that frees more than it writes: until the log is twice what streams keep. What they keep is
/// bounded by raftstore: beyond `stored_bytes_max` it truncates every log to what tables contain, whichever replica
/// lags, and requests a flush; what no table contains yet is also in memtables, so their bytes bound it. To that come
/// the segment that is being written and the one in which the log exceeds its budget.
fn replay_bytes_max(raft: &Config, engine: &Options) -> u64 {
    let memtables = engine.memtable_bytes * engine.memtables_max as u64;
    let kept = raft.stored_bytes_max as u64 + memtables;
    engine.log_bytes_max.max(2 * kept) + 2 * engine.log_segment_bytes
}

/// What is kept free for flushes beside snapshots, in memtables: the one that is being flushed, and the next.
const RESERVED_MEMTABLES: u64 = 2;

/// An open engine, and with which settings.
struct Opened {
    raft: Config,
    placement: PlacementConfig,
    state: Arc<dyn StateEngine>,
    log: Arc<dyn RaftLog>,
    gc_filter: Arc<GcFilter>,
    installer: Installer,
    replay_bytes_max: u64,
    /// Disk space that no snapshot gets.
    reserve_bytes: u64,
}

/// Checks the configuration and opens the engine, and what installs snapshots into it.
fn open_engine(
    env: &Env,
    config: &mut NodeConfig,
    tune: impl FnOnce(&mut Config, &mut Options, &mut PlacementConfig),
) -> Result<Opened, OpenError> {
    // Made absolute once: the process may change its working directory.
    let found = env.fs.absolute(&config.data_dir);
    config.data_dir = found.map_err(|error| kontiki_engine::Error::io(&config.data_dir, &error))?;
    let (mut raft, mut options) = (raftstore_config(config), engine_options(config));
    let mut placement = PlacementConfig::new(config.cluster_id, config.store_id);
    tune(&mut raft, &mut options, &mut placement);
    raft.validate()?;
    let replay_bytes_max = replay_bytes_max(&raft, &options);
    // What works as it should does not reach it.
    options.log_holder_warn_bytes = options.log_holder_warn_bytes.max(replay_bytes_max).min(1 << 40);
    inspect::refuse_foreign(env, &config.data_dir, &BESIDE)?;
    inconsistent::refuse_marked(&*env.fs, &config.data_dir)?;
    let gc_filter: Arc<GcFilter> = Arc::default();
    options.compaction_filter = Some(FilterHandle(gc_filter.clone()));
    let reserve_bytes = options.memtable_bytes.saturating_mul(RESERVED_MEMTABLES);
    let state: Arc<dyn StateEngine> = Arc::new(BuiltIn::open(env, &config.data_dir, options)?);
    if let Some(db) = state.built_in() {
        convert(db)?;
    }
    let files = config.raft.log_files;
    let log = kontiki_raftlog::open(env, &config.data_dir, &state, LOG_PLACE, config.raft.log_choice, files)?;
    let installer = Installer::new(env, &config.data_dir, &state, raft.snapshot_tables);
    Ok(Opened { raft, placement, state, log, gc_filter, installer, replay_bytes_max, reserve_bytes })
}

/// What this node, as a leader, does about a transactional read of a follower: it takes it into account as if it served
/// the read itself, and lets it wait for the locks that it may have to see.
fn read_gate(concurrency: Arc<ConcurrencyManager>) -> ReadGate {
    Arc::new(move |region, read_at| {
        if planted::is_set(Bug::ForgetReplicaReads) {
            return true;
        }
        let (ts, range) = (TimeStamp(read_at), Range::region(&region.start_key, &region.end_key));
        concurrency.observe(ts);
        concurrency.memory_locks().permit_read(&range, ts)
    })
}

/// The state that the driver shares with its handles.
fn share(
    env: &Env,
    config: &NodeConfig,
    (state, log): (Arc<dyn StateEngine>, Arc<dyn RaftLog>),
    (inbox, counters, concurrency): (Arc<Inbox>, Arc<Counters>, Arc<ConcurrencyManager>),
    (store, formation, snapshots, region_loads): (&Store, &Formation, &Snapshots, &RegionLoads),
) -> Shared {
    Shared {
        served: region_loads.table(),
        inbox,
        concurrency,
        state,
        log,
        env: env.clone(),
        readers: store.readers(),
        counters,
        leader_terms: Default::default(),
        disk_full: Default::default(),
        stops_leading: Default::default(),
        damage: Default::default(),
        lag: Default::default(),
        leader_news: Default::default(),
        stopped: Default::default(),
        recovery: Default::default(),
        membership: Mutex::new(formation.membership.state().clone()),
        refusals: Mutex::default(),
        holds_all_regions: holds_all_regions(config, store).into(),
        replaces_lost_directory: config.replace_lost_directory,
        cluster_id: config.cluster_id,
        store_id: StoreId(config.store_id),
        snapshots_dir: snapshots.directory().to_owned(),
        file_numbers: store.file_numbers(),
        arrivals: snapshots.arrivals(),
        installs: snapshots.installs(),
    }
}

impl Driver {
    /// Opens the node's directory, creating it if it is missing. `seed` determines election timeouts; it must differ
    /// between the nodes of a cluster and between starts. Blocks on I/O.
    pub fn open(env: &Env, config: NodeConfig, seed: u64) -> Result<Driver, OpenError> {
        Driver::open_tuned(env, config, seed, |_, _, _| {})
    }

    /// Like [`Driver::open`], with settings that the configuration does not offer: simulations make everything small,
    /// so that rare events of production happen often.
    pub fn open_tuned(
        env: &Env,
        mut config: NodeConfig,
        seed: u64,
        tune: impl FnOnce(&mut Config, &mut Options, &mut PlacementConfig),
    ) -> Result<Driver, OpenError> {
        let Opened { raft, placement, state, log, gc_filter, installer, replay_bytes_max, reserve_bytes } =
            open_engine(env, &mut config, tune)?;
        let (tick, check_time, mut rng) = (raft.tick_interval, checksum_time(&raft), Rng::new(seed));
        let lag_watch = LagWatch::new(ticks(&raft, raft.lag_warn_ticks));
        let mut store = Store::new(raft, &FAMILIES, rng.child("raftstore"));
        let concurrency: Arc<ConcurrencyManager> = Arc::default();
        store.set_read_gate(read_gate(concurrency.clone()));
        let formation = Formation::open_with(&mut store, (&*state, &*log), &config, rng.child("formation"))?;
        let (counters, monotonic): (Arc<Counters>, Duration) = (Arc::default(), env.clock.monotonic());
        let inbox = Arc::new(Inbox::new(counters.clone()));
        let shared = (&inbox, &counters, store.file_numbers());
        let snapshots = Snapshots::open(env, &config.data_dir, shared, installer, reserve_bytes)?;
        let surveys = Surveys::start(env, &config.data_dir, (&state, &log), &inbox);
        let flusher = Flusher::start(env, &state);
        let region_loads = RegionLoads::new(load_limits(&config), rng.child("loads"), monotonic);
        let parts = (&store, &formation, &snapshots, &region_loads);
        let shared = Arc::new(share(env, &config, (state.clone(), log.clone()), (inbox, counters, concurrency), parts));
        gc_filter.start(shared.readers.clone(), state.clone());
        let driver = Driver {
            available_bytes: env.fs.free_bytes(&config.data_dir).unwrap_or(0),
            region_sizes: RegionSizes::new(size_limits(&config), monotonic),
            region_loads,
            checks: Checks::new(config.raft.consistency_check_interval, monotonic),
            checksums: Checksums::start(env, &state, &shared.inbox, check_time),
            oldest_locks: OldestLocks::start(env, &shared.inbox, &shared.counters),
            gc: Gc::new(monotonic),
            gc_collector: GcCollector::start(env, &state, &shared.readers, &shared.counters),
            gc_filter,
            asks_timestamp: false,
            lag_watch,
            replay_bytes_max,
            placement: Placement::new(placement),
            env: env.clone(),
            config,
            state,
            log,
            store,
            shared,
            persists: Lane::new(Durability::Sync),
            applies: Lane::new(Durability::Derived),
            log_disk: LogDisk::default(),
            pending: PendingTable::default(),
            calls: Calls::new(rng.next_u64()),
            deadlocks: Deadlocks::new(rng.child("deadlocks").next_u64()),
            splits: Default::default(),
            heartbeats: Heartbeats::new(monotonic),
            snapshots,
            formation,
            flusher,
            surveys,
            outbound: Vec::new(),
            observers: Default::default(),
            applies_held: false,
            waiting_for_hand_over: Vec::new(),
            tick_interval: tick,
            next_tick: monotonic,
            ticks: 0,
            stopped: None,
            last_orders: Vec::new(),
        };
        driver.resume(Now { monotonic, wall_ms: env.clock.wall_ms() })
    }

    /// The first effects after a start: they contain the installs that have to be repeated, and every other snapshot
    /// file is not needed any more.
    fn resume(mut self, now: Now) -> Result<Driver, OpenError> {
        self.begin_above();
        self.formation.started(now.monotonic);
        let path = self.snapshots.directory().to_owned();
        let needed = self.store.needed_files();
        self.snapshots.clean(&needed).map_err(|error| OpenError::Snapshots { path, error })?;
        let effects = self.store.poll(now.monotonic);
        self.perform(effects, now);
        Ok(self)
    }
}
