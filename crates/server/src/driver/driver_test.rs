//! One node on a simulated machine: tests that need no cluster.

use super::*;
use crate::config::NodeConfig;
use crate::families;
use futures::FutureExt;
use kontiki_engine::{
    Commit, Db, Direction, Durability, Error as EngineError, Family, Options, Range, View, WriteBatch,
};
use kontiki_env::SimMachine;
use kontiki_env::clock::Clock;
use kontiki_env::fs::{CrashMode, Fs, Op, OpenMode};
use kontiki_env::tasks::Tasks;
use kontiki_placement::{Command, Outcome, Request, Timestamps};
use kontiki_raftstore::{Region, Space};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;

const DATA: RegionId = RegionId(2);

/// A machine and the driver on it, stepped by the test.
struct Rig {
    machine: SimMachine,
    driver: Option<Driver>,
}

fn config() -> NodeConfig {
    NodeConfig::single("/data", "node:1")
}

fn small(_: &mut kontiki_raftstore::Config, options: &mut Options, _: &mut kontiki_placement::Config) {
    options.memtable_bytes = 16 << 10;
    options.log_segment_bytes = 16 << 10;
    options.log_bytes_max = 256 << 10;
    options.cache_bytes = 0; // Each read of a table reads the disk.
}

impl Rig {
    fn new() -> Rig {
        let mut rig = Rig { machine: SimMachine::from_seed(1), driver: None };
        rig.start();
        rig
    }

    fn open(&self, config: NodeConfig) -> Result<Driver, OpenError> {
        Driver::open_tuned(&self.machine.env(), config, 7, small)
    }

    fn start(&mut self) {
        self.driver = Some(self.open(config()).unwrap());
    }

    fn restart(&mut self, mode: CrashMode) {
        self.machine.fs.power_off();
        self.driver = None;
        self.machine.fs.crash(mode);
        self.machine = self.machine.restarted(kontiki_env::rng::Rng::new(2));
        self.start();
    }

    fn driver(&mut self) -> &mut Driver {
        self.driver.as_mut().expect("started")
    }

    fn handle(&mut self) -> NodeHandle {
        self.driver().handle()
    }

    /// Lets the node work for a millisecond.
    fn turn(&mut self) {
        let time = self.machine.clock.time().clone();
        time.advance_to(time.now() + Duration::from_millis(1));
        let now = Now { monotonic: self.machine.clock.monotonic(), wall_ms: self.machine.clock.wall_ms() };
        self.driver().step(now);
        while self.machine.tasks.step() {}
    }

    /// Lets the node work until the future resolves, for at most a virtual minute.
    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        for _ in 0..60_000 {
            if let Some(value) = future.as_mut().now_or_never() {
                return value;
            }
            self.turn();
        }
        let health = self.handle().db().expect("built in").stats().health;
        panic!("the future does not resolve: {:?} {health:?}", self.handle().status());
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<u64, NodeError> {
        let handle = self.handle();
        let context = context(&handle);
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, value);
        self.run(async move { handle.propose(&context, batch).await })
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let handle = self.handle();
        let context = context(&handle);
        let view = self.run(async move { handle.view(&context).await }).unwrap();
        view.get(Family::DEFAULT, key).unwrap().map(|value| value.to_vec())
    }

    fn timestamp(&mut self) -> u64 {
        let handle = self.handle();
        let request: Request = Command::Timestamps(Timestamps { count: 1 }).into();
        let response = self.run(async move { handle.placement(request).await }).unwrap();
        match response.into_result().unwrap() {
            Outcome::Timestamps(granted) => granted.last(),
            other => panic!("not timestamps: {other:?}"),
        }
    }
}

fn context(handle: &NodeHandle) -> RegionContext {
    let (region, _) = handle.region(DATA).expect("bootstrapped");
    RegionContext::new(region.id, region.epoch)
}

#[test]
fn a_store_alone_is_a_member_at_once_and_after_each_restart() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        assert_eq!(rig.handle().status().membership, MembershipState::Member);
        rig.restart(CrashMode::LoseUnsynced);
    }
}

#[test]
fn what_is_acknowledged_survives_power_loss() {
    let mut rig = Rig::new();
    for i in 0..200u32 {
        rig.put(&i.to_be_bytes(), &[i as u8; 300]).unwrap();
    }
    for mode in [CrashMode::LoseUnsynced, CrashMode::Kill] {
        rig.restart(mode);
        for i in 0..200u32 {
            assert_eq!(rig.get(&i.to_be_bytes()), Some(vec![i as u8; 300]), "key {i} after {mode:?}");
        }
    }
}

#[test]
fn timestamps_go_forward_across_restarts_and_a_clock_that_jumps_back() {
    let mut rig = Rig::new();
    let mut last = 0;
    for round in 0..3 {
        for _ in 0..5 {
            let next = rig.timestamp();
            assert!(next > last);
            last = next;
        }
        rig.machine.clock.set_wall_offset_ms(-60_000 * round);
        rig.restart(CrashMode::LoseUnsynced);
    }
}

#[test]
fn the_catalogue_is_filled_by_heartbeats() {
    let mut rig = Rig::new();
    rig.timestamp();
    for _ in 0..1_000 {
        rig.turn();
    }
    let handle = rig.handle();
    let request = Request::from(Command::RegionByKey(kontiki_placement::RegionByKey { key: Bytes::from_static(b"k") }));
    let response = rig.run(async move { handle.placement(request).await }).unwrap();
    let Outcome::Region(info) = response.into_result().unwrap() else { panic!("not a region") };
    assert_eq!((info.region.id, info.leader.map(|peer| peer.store_id)), (DATA.0, Some(1)));
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let mut rig = Rig::new();
    rig.put(b"k", b"v").unwrap();
    rig.driver.take().unwrap().close().unwrap();
    let mut other_cluster = config();
    other_cluster.cluster_id += 1;
    let mut other_store = config();
    other_store.members = BTreeMap::from([(2, "node:1".into())]);
    other_store.store_id = 2;
    for wrong in [other_cluster, other_store] {
        let error = rig.open(wrong).err().expect("refused");
        assert!(matches!(error, OpenError::Identity { found_store: StoreId(1), .. }), "{error}");
        assert!(error.to_string().contains("/data"), "{error}");
    }
    rig.start();
    assert_eq!(rig.get(b"k"), Some(b"v".to_vec()));
}

#[test]
fn embedded_data_is_served_by_one_node_and_refused_to_several() {
    let mut rig = Rig { machine: SimMachine::from_seed(3), driver: None };
    let db = Db::open_in(&rig.machine.env(), Path::new("/data"), Options::default()).unwrap();
    db.put(b"embedded", b"before").unwrap();
    db.close().unwrap();
    let mut three = config();
    three.members = (1..=3).map(|id| (id, format!("node:{id}"))).collect();
    let error = rig.open(three).err().expect("refused");
    assert!(matches!(error, OpenError::EmbeddedData { members: 3, .. }), "{error}");
    rig.start();
    assert_eq!(rig.get(b"embedded"), Some(b"before".to_vec()));
}

/// Data that only transactions wrote is data too.
#[test]
fn transactional_data_of_no_member_is_refused_to_several() {
    let rig = Rig { machine: SimMachine::from_seed(4), driver: None };
    let options = Options { families: crate::families::served_families(), ..Options::default() };
    let db = Db::open_in(&rig.machine.env(), Path::new("/data"), options).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(families::TXN_WRITE, b"key", b"record");
    db.write(batch, Durability::Sync).unwrap();
    db.close().unwrap();
    let mut three = config();
    three.members = (1..=3).map(|id| (id, format!("node:{id}"))).collect();
    let error = rig.open(three).err().expect("refused");
    assert!(matches!(error, OpenError::EmbeddedData { members: 3, .. }), "{error}");
    assert!(error.to_string().contains("--replace-lost-directory"), "{error}");
}

/// Its start is not counted, and the error names the remedy.
#[test]
fn a_directory_that_lost_its_raft_logs_is_left_as_it_is() {
    let mut rig = Rig::new();
    rig.put(b"key", b"value").unwrap();
    rig.machine.fs.crash(CrashMode::Kill);
    rig.driver = None;
    let open_engine = |machine: &SimMachine| {
        let options = Options { families: crate::families::served_families(), ..Options::default() };
        Db::open_in(&machine.env(), Path::new("/data"), options).unwrap()
    };
    let meta = |db: &Db| {
        let entries = db.snapshot().entries(families::META, Range::all(), Direction::Forward).unwrap();
        entries.map(Result::unwrap).collect::<Vec<_>>()
    };
    rig.machine = rig.machine.restarted(kontiki_env::rng::Rng::new(2));
    let db = open_engine(&rig.machine);
    let remove = |stream| kontiki_engine::StreamOp::Remove { stream };
    let streams = db.streams().into_iter().map(remove).collect();
    let lost = Commit { batch: WriteBatch::new(), streams, durability: Durability::Sync, unchanged: vec![] };
    db.commit(lost).unwrap();
    let before = meta(&db);
    db.close().unwrap();
    let error = rig.open(config()).err().expect("refused");
    assert!(matches!(error, OpenError::Recover(_)), "{error}");
    assert!(error.to_string().contains("docs/guide/replace-a-disk.md"), "{error}");
    rig.machine = rig.machine.restarted(kontiki_env::rng::Rng::new(3));
    assert_eq!(meta(&open_engine(&rig.machine)), before);
}

#[test]
fn a_directory_with_somebody_elses_files_is_not_made_a_store_of() {
    let rig = Rig { machine: SimMachine::from_seed(3), driver: None };
    let (fs, dir) = (&rig.machine.fs, Path::new("/data"));
    let touch = |name: &str| drop(fs.open(&dir.join(name), OpenMode::CreateNew).unwrap());
    fs.create_dir_all(dir).unwrap();
    touch("log");
    touch("letter.txt");
    let error = rig.open(config()).err().expect("refused");
    assert!(matches!(&error, OpenError::Engine(EngineError::InvalidArgument(what)) if what.contains("letter.txt")));
    assert_eq!(fs.list(dir).unwrap(), ["letter.txt", "log"], "nothing was added");
    fs.remove(&dir.join("letter.txt")).unwrap();
    assert!(rig.open(config()).is_ok(), "its own log does not belong to another store");
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let mut rig = Rig::new();
    rig.put(b"first", b"1").unwrap();
    rig.machine.fs.set_quota(Some(0));
    let mut accepted = 0u32;
    let refusal = loop {
        match rig.put(&accepted.to_be_bytes(), &[0; 1_000]) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 10_000, "a full disk accepts no more than what was allocated");
    };
    // The write that meets the full disk is already in the log in memory: it may still take effect.
    assert!(matches!(refusal, NodeError::DiskFullUndetermined), "{refusal}");
    assert!(matches!(rig.put(b"next", b""), Err(NodeError::DiskFull)), "later ones are not begun");
    assert!(rig.handle().status().disk_full);
    assert_eq!(rig.get(b"first"), Some(b"1".to_vec()), "reads continue");
    rig.machine.fs.set_quota(None);
    for _ in 0..5_000 {
        if !rig.handle().status().disk_full {
            break;
        }
        rig.turn();
    }
    assert!(!rig.handle().status().disk_full);
    rig.put(b"after", b"2").unwrap();
    rig.restart(CrashMode::LoseUnsynced);
    assert_eq!(rig.get(b"after"), Some(b"2".to_vec()));
    for i in 0..accepted {
        assert_eq!(rig.get(&i.to_be_bytes()), Some(vec![0; 1_000]), "acknowledged write {i}");
    }
}

#[test]
fn a_node_whose_directory_is_removed_stops_without_any_work() {
    let mut rig = Rig::new();
    rig.put(b"before", b"1").unwrap();
    rig.machine.fs.remove(Path::new("/data/LOCK")).unwrap();
    for _ in 0..10_000 {
        if rig.driver().stopped().is_some() {
            break;
        }
        rig.turn();
    }
    let reason = rig.driver().stopped().expect("it notices").to_string();
    assert!(reason.contains("/data was removed"), "{reason}");
    assert_eq!(rig.handle().status().stopped.as_ref(), Some(&reason));
}

/// The first three members of a list have the replicas, so the directory of a node alone is not the first of three.
#[test]
fn a_list_with_other_members_than_the_directory_knows_is_refused() {
    let mut rig = Rig::new();
    rig.put(b"before", b"1").unwrap();
    rig.restart(CrashMode::KeepUnsynced);
    rig.driver = None;
    let mut three = config();
    three.members.extend([(2, "node:2".to_owned()), (3, "node:3".to_owned())]);
    let refused = rig.open(three).err().expect("refused");
    let OpenError::OtherMembers { formed, strangers, .. } = &refused else { panic!("{refused}") };
    assert_eq!((&formed[..], &strangers[..]), (&[1][..], &[2, 3][..]));
    assert!(rig.open(config()).is_ok(), "it is as it was");
}

#[test]
fn a_write_of_the_log_that_takes_too_long_is_noticed_once() {
    let mut rig = Rig::new();
    rig.put(b"before", b"1").unwrap();
    let counters = rig.handle().counters().clone();
    assert_eq!(counters.log_unwritable.get(), 0);
    let handle = rig.handle();
    let context = context(&handle);
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"slow", b"2");
    let mut write = Box::pin(async move { handle.propose(&context, batch).await });
    assert!(write.as_mut().now_or_never().is_none());
    // The disk stalls for four seconds; the node continues.
    let time = rig.machine.clock.time().clone();
    for _ in 0..400 {
        time.advance_to(time.now() + Duration::from_millis(10));
        let now = Now { monotonic: rig.machine.clock.monotonic(), wall_ms: rig.machine.clock.wall_ms() };
        rig.driver().step(now);
    }
    assert_eq!(counters.log_unwritable.get(), 1);
    rig.run(write).unwrap();
    rig.put(b"after", b"3").unwrap();
    assert_eq!(counters.log_unwritable.get(), 1);
}

#[test]
fn a_failed_sync_stops_the_node_and_answers_everybody() {
    let mut rig = Rig::new();
    rig.put(b"before", b"1").unwrap();
    rig.machine.fs.fail_next(Op::Sync, u64::MAX, |path| path.to_string_lossy().contains("wal"));
    let error = rig.put(b"doubtful", b"2").unwrap_err();
    assert!(matches!(error, NodeError::Undetermined), "{error}");
    assert!(matches!(rig.driver().stopped(), Some(StopReason::Engine { .. })));
    assert!(rig.handle().status().stopped.is_some());
    let error = rig.put(b"late", b"3").unwrap_err();
    assert!(matches!(error, NodeError::Stopped(_) | NodeError::Undetermined), "{error}");
    rig.machine.fs.clear_faults();
    rig.restart(CrashMode::LoseUnsynced);
    assert_eq!(rig.get(b"before"), Some(b"1".to_vec()));
}

/// Also a split that still waits for placement, while the driver itself exists.
#[test]
fn a_node_that_stops_answers_a_split_that_has_not_begun() {
    let mut rig = Rig::new();
    rig.put(b"before", b"1").unwrap();
    let handle = rig.handle();
    let context = context(&handle);
    let mut split = Box::pin(handle.split(&context, vec![Bytes::from_static(b"m")]));
    assert!(split.as_mut().now_or_never().is_none());
    let now = Now { monotonic: rig.machine.clock.monotonic(), wall_ms: 0 };
    rig.driver().step(now); // It asks placement, whose write is on its way.
    assert!(!rig.driver().splits.is_empty());
    rig.driver().stop(StopReason::Placement("a test".into()));
    assert!(matches!(split.now_or_never(), Some(Err(NodeError::Undetermined))));
}

#[test]
fn a_node_that_goes_away_answers_everybody() {
    let mut rig = Rig::new();
    rig.put(b"k", b"v").unwrap();
    let handle = rig.handle();
    let context = context(&handle);
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"a", b"b");
    let mut write = Box::pin(handle.propose(&context, batch));
    let mut call = Box::pin(handle.placement(Command::Timestamps(Timestamps { count: 1 }).into()));
    assert!(write.as_mut().now_or_never().is_none() && call.as_mut().now_or_never().is_none());
    rig.driver = None;
    assert!(matches!(write.now_or_never(), Some(Err(NodeError::Undetermined))));
    assert!(matches!(call.now_or_never(), Some(Err(NodeError::Stopped(_)))));
}

#[test]
fn keys_and_values_beyond_the_limits_are_refused_before_anything_is_written() {
    let mut rig = Rig::new();
    let error = rig.put(&vec![0; kontiki_engine::KEY_BYTES_MAX + 1], b"").unwrap_err();
    assert!(matches!(error, NodeError::Engine(kontiki_engine::Error::InvalidArgument(_))), "{error}");
    rig.put(b"k", &vec![1; 1 << 20]).unwrap();
    assert_eq!(rig.get(b"k").map(|value| value.len()), Some(1 << 20));
}

#[test]
fn a_request_bound_to_a_term_is_refused_in_another() {
    let mut rig = Rig::new();
    rig.put(b"k", b"v").unwrap();
    let handle = rig.handle();
    let context = context(&handle);
    let of_view = context.clone();
    let viewed = handle.clone();
    rig.run(async move { viewed.view(&of_view).await }).unwrap();
    // Another leadership of this node: what was read may be old.
    let term = handle.shared.leader_terms.lock().get(&DATA).copied().expect("it leads");
    handle.shared.leader_terms.lock().insert(DATA, term + 1);
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"k", b"w");
    let error = rig.run(async { handle.propose(&context, batch).await }).unwrap_err();
    assert!(matches!(error, NodeError::Region(RegionError::StaleCommand)), "{error}");
    assert_eq!(rig.get(b"k"), Some(b"v".to_vec()));
}

#[test]
fn a_first_start_that_is_cut_off_anywhere_leaves_a_directory_that_starts() {
    for ops in 0.. {
        let mut rig = Rig { machine: SimMachine::from_seed(ops), driver: None };
        rig.machine.fs.power_off_after(ops);
        let opened = rig.open(config());
        let whole = !rig.machine.fs.is_off();
        drop(opened);
        rig.machine.fs.power_off();
        rig.machine.fs.crash(CrashMode::Random);
        rig.machine = rig.machine.restarted(kontiki_env::rng::Rng::new(ops));
        rig.start();
        rig.put(b"k", b"v").unwrap();
        assert_eq!(rig.get(b"k"), Some(b"v".to_vec()), "cut off at operation {ops}");
        if whole {
            assert!(ops > 10, "a first start does more than {ops} operations");
            break;
        }
    }
}

/// Ticks, reports of what tables hold, heartbeats with the volume's free space: the disk answers a background job,
/// after any time, and the driver continues.
#[test]
fn the_driver_does_not_read_the_disk() {
    let mut rig = Rig::new();
    rig.put(b"a", b"1").unwrap();
    rig.handle().state().flush().unwrap();
    rig.turn();
    rig.machine.fs.start_trace();
    let time = rig.machine.clock.time().clone();
    for _ in 0..100 {
        time.advance_to(time.now() + Duration::from_millis(100));
        let now = Now { monotonic: rig.machine.clock.monotonic(), wall_ms: rig.machine.clock.wall_ms() };
        rig.driver().step(now); // No background job has a turn.
    }
    let reads: Vec<_> = rig.machine.fs.trace().into_iter().filter(|entry| entry.op == Op::Read).collect();
    assert!(reads.is_empty(), "{reads:?}");
    while rig.machine.tasks.step() {}
    assert!(rig.machine.fs.trace().iter().any(|entry| entry.op == Op::Read), "the job reads, when it has a turn");
}

/// The data regions by their start, and what each says of the others.
fn data_regions(handle: &NodeHandle) -> Vec<Arc<Region>> {
    let mut regions = handle.regions();
    regions.retain(|region| region.space == Space::Data);
    regions.sort_by(|a, b| a.start_key.cmp(&b.start_key));
    assert!(regions.windows(2).all(|pair| pair[0].end_key == pair[1].start_key), "{regions:?}");
    regions
}

impl Rig {
    fn split(&mut self, keys: &[&[u8]]) -> Result<Vec<Region>, NodeError> {
        let handle = self.handle();
        let context = context(&handle);
        let keys = keys.iter().map(|key| Bytes::copy_from_slice(key)).collect();
        self.run(async move { handle.split(&context, keys).await })
    }

    fn await_leader(&mut self, region: RegionId) {
        let handle = self.handle();
        for _ in 0..10_000 {
            if handle.leading_term(region).is_some() {
                return;
            }
            self.turn();
        }
        panic!("region {region} gets no leader");
    }

    /// Puts a key in the region that holds it.
    fn put_anywhere(&mut self, key: &[u8], value: &[u8]) {
        let handle = self.handle();
        let region = data_regions(&handle).into_iter().find(|region| region.contains(key)).expect("every key has one");
        let context = RegionContext::new(region.id, region.epoch);
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, value);
        self.await_leader(region.id);
        self.run(async move { handle.propose(&context, batch).await }).unwrap();
    }
}

#[test]
fn a_split_region_serves_and_survives_power_loss() {
    for mode in [CrashMode::Kill, CrashMode::Random] {
        let mut rig = Rig::new();
        for key in [b"a", b"g", b"m", b"s"] {
            rig.put(key, b"before").unwrap();
        }
        let made = rig.split(&[b"g", b"m"]).unwrap();
        assert_eq!(made.iter().map(|region| region.start_key.as_ref()).collect::<Vec<_>>(), [&b""[..], b"g", b"m"]);
        assert!(made.iter().skip(1).all(|region| region.id.0 >= kontiki_placement::FIRST_ID), "{made:?}");
        for restart in 0..3 {
            let regions = data_regions(&rig.handle());
            assert_eq!(regions.len(), 4, "three, and the tail: {regions:?}");
            assert!(rig.handle().status().missing.is_empty());
            for key in [b"a", b"g", b"m", b"s"] {
                rig.put_anywhere(key, &[restart]);
            }
            rig.restart(mode);
            rig.turn();
        }
        let handle = rig.handle();
        data_regions(&handle).iter().for_each(|region| rig.await_leader(region.id));
        let view = handle.state().snapshot();
        for key in [b"a", b"g", b"m", b"s"] {
            assert_eq!(view.get(Family::DEFAULT, key).unwrap().as_deref(), Some(&[2][..]));
        }
    }
}

#[test]
fn a_split_is_known_to_placement() {
    let mut rig = Rig::new();
    rig.put(b"a", b"1").unwrap();
    let made = rig.split(&[b"m"]).unwrap();
    let child = made[1].clone();
    let handle = rig.handle();
    let found = rig.run(async move {
        loop {
            let request = Command::RegionByKey(kontiki_placement::RegionByKey { key: Bytes::from_static(b"x") }).into();
            let response = handle.placement(request).await.unwrap();
            if let Ok(Outcome::Region(info)) = response.into_result()
                && info.region.id == child.id.0
            {
                return info;
            }
        }
    });
    assert_eq!((found.region.start_key.as_ref(), found.region.epoch.version), (&b"m"[..], child.epoch.version));
}

#[test]
fn a_split_that_cannot_be_made_is_refused() {
    let mut rig = Rig::new();
    rig.put(b"a", b"1").unwrap();
    let outside = rig.split(&[&[0xFF; 40]]).unwrap_err();
    assert!(matches!(outside, NodeError::Region(RegionError::Impossible { .. })), "{outside}");
    rig.split(&[b"m"]).unwrap();
    let handle = rig.handle();
    let outdated = RegionContext::new(DATA, kontiki_raftstore::Epoch { conf_version: 1, version: 1 });
    let refused = rig.run(async move { handle.split(&outdated, vec![Bytes::from_static(b"c")]).await }).unwrap_err();
    assert!(matches!(refused, NodeError::Region(RegionError::EpochNotMatch { .. })), "{refused}");
    assert_eq!(rig.handle().counters().splits.get(), 1);
}

/// What a hundred requests a second mean for a limit of as many.
const LOAD: u64 = 100;

fn config_with_load_limit() -> NodeConfig {
    let mut config = config();
    config.raft.region_requests_per_second_max = LOAD;
    config.raft.region_served_bytes_per_second_max = 0;
    config
}

impl Rig {
    fn with_load_limit() -> Rig {
        let mut rig = Rig { machine: SimMachine::from_seed(1), driver: None };
        rig.driver = Some(rig.open(config_with_load_limit()).unwrap());
        rig.await_leader(DATA);
        rig
    }

    /// Serves as many reads in each second of this time, of keys that `key` draws; ends early when `is_done`.
    fn serve(
        &mut self,
        seconds: u64,
        reads_per_second: u64,
        mut key: impl FnMut(u64) -> Vec<u8>,
        is_done: impl Fn(&NodeHandle) -> bool,
    ) -> bool {
        let handle = self.handle();
        for millisecond in 0..seconds * 1_000 {
            if (millisecond + 1) * reads_per_second / 1_000 > millisecond * reads_per_second / 1_000 {
                let key = key(millisecond);
                let region =
                    handle.regions().into_iter().find(|region| region.space == Space::Data && region.contains(&key));
                let region = region.expect("every key has one").id;
                handle.served(region, 1, 100, &mut |_| Sample::encoded(&key, &key));
            }
            self.turn();
            if is_done(&handle) {
                return true;
            }
        }
        false
    }
}

fn number_key(number: u64) -> Vec<u8> {
    kontiki_txn::memcomparable_encode(format!("key-{:04}", number % 1_000).as_bytes())
}

fn spread(millisecond: u64) -> Vec<u8> {
    number_key(millisecond.wrapping_mul(7_919))
}

#[test]
fn a_region_whose_load_is_too_high_is_split_where_that_divides_the_load() {
    let mut rig = Rig::with_load_limit();
    assert!(rig.serve(60, 3 * LOAD, spread, |handle| handle.counters().splits_by_load.get() > 0));
    let handle = rig.handle();
    let regions = data_regions(&handle);
    assert_eq!(regions.len(), 3, "two, and the tail: {regions:?}");
    let boundary = regions[1].start_key.to_vec();
    assert!((number_key(250)..number_key(750)).contains(&boundary), "{boundary:?}");
    rig.await_leader(regions[1].id);
    // Each part has more than the limit: they are split, too, and what is left is within the limit.
    let is_calm = |handle: &NodeHandle| {
        handle.counters().splits_by_load.get() >= 3 && handle.counters().regions_overloaded.get() == 0
    };
    assert!(rig.serve(300, 3 * LOAD, spread, is_calm));
    let splits = rig.handle().counters().splits_by_load.get();
    assert!(!rig.serve(60, 3 * LOAD, spread, |handle| handle.counters().splits_by_load.get() > splits));
}

#[test]
fn a_region_whose_load_is_within_its_limit_is_not_split() {
    let mut rig = Rig::with_load_limit();
    assert!(!rig.serve(40, LOAD * 9 / 10, spread, |handle| handle.counters().splits.get() > 0));
    // Nor one that is above it for a moment, again and again.
    for _ in 0..5 {
        assert!(!rig.serve(6, 3 * LOAD, spread, |handle| handle.counters().splits.get() > 0));
        assert!(!rig.serve(2, LOAD / 2, spread, |handle| handle.counters().splits.get() > 0));
    }
    assert_eq!(data_regions(&rig.handle()).len(), 2);
}

#[test]
fn a_region_whose_load_is_on_one_key_is_not_split_and_the_key_is_reported_once() {
    let mut rig = Rig::with_load_limit();
    let mostly_one =
        |millisecond: u64| if millisecond.is_multiple_of(7) { spread(millisecond) } else { number_key(500) };
    assert!(!rig.serve(120, 3 * LOAD, mostly_one, |handle| handle.counters().splits.get() > 0));
    let handle = rig.handle();
    let counters = handle.counters();
    assert_eq!((counters.hot_keys_reported.get(), counters.regions_indivisible.get()), (1, 1));
    assert_eq!(counters.regions_overloaded.get(), 1);
    rig.serve(5, 1, spread, |_| false);
    assert_eq!((counters.regions_overloaded.get(), counters.regions_indivisible.get()), (0, 0));
}

#[test]
fn a_split_by_load_that_fails_is_tried_again_later() {
    let mut rig = Rig::with_load_limit();
    rig.machine.fs.set_quota(Some(0));
    while rig.put(b"key", &[0; 1_000]).is_ok() {}
    let has_split = |handle: &NodeHandle| handle.counters().splits.get() > 0;
    assert!(!rig.serve(20, 3 * LOAD, spread, has_split), "nothing can be written");
    rig.machine.fs.set_quota(None);
    assert!(!rig.serve(15, 3 * LOAD, spread, has_split), "the region rests");
    assert!(!rig.handle().status().disk_full);
    assert!(rig.serve(120, 3 * LOAD, spread, has_split));
}
