//! Many transactions, interleaved at random, over an unreliable replicated store: is it snapshot isolation?
//!
//! Coordinators behave as clients do: read at the start timestamp, prewrite in two groups as if the keys lay in two
//! regions, take the commit timestamp, commit the primary, then the rest. They crash at any point, repeat commands, and
//! resolve the locks of others. At the end all locks are resolved and the history in the write family is checked
//! against everything that the clients saw.

use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, split_versioned};
use crate::testing::{Executor, Spawner, TestReplicated, Yields};
use crate::*;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use kontiki_engine::Range;
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const ACCOUNTS: usize = 6;
const TOTAL: u64 = 100 * ACCOUNTS as u64;
const TTL_MS: u64 = 12;

/// Reads and outcomes, as the clients saw them.
#[derive(Default)]
struct History {
    /// (timestamp, key, value).
    reads: Vec<(TimeStamp, Bytes, Option<Bytes>)>,
    acknowledged: BTreeMap<TimeStamp, TimeStamp>,
    given_up: BTreeSet<TimeStamp>,
    /// The intended writes of each transaction, recorded before its prewrite.
    intents: BTreeMap<TimeStamp, BTreeMap<Bytes, Option<Bytes>>>,
}

#[derive(Clone)]
struct World {
    scheduler: Scheduler<TestReplicated>,
    history: Arc<Mutex<History>>,
    clock: Arc<Mutex<u64>>,
    rng: Arc<Mutex<Rng>>,
    spawner: Spawner,
}

/// Why a coordinator stops.
enum Stop {
    /// Rolled back, or never written.
    Aborted,
    /// Its outcome is unknown to it.
    Unknown,
}

impl World {
    fn new(seed: u64, executor: &Executor) -> World {
        let rng = Rng::new(seed);
        let fail_one_in = if seed.is_multiple_of(2) { 0 } else { 25 };
        let spawner = executor.spawner();
        let detach = spawner.clone();
        let replicated = TestReplicated::new(spawner.clone(), rng.child("replicated"), fail_one_in);
        World {
            scheduler: Scheduler::new(replicated, Arc::new(move |future| detach.spawn(future))),
            history: Arc::default(),
            clock: Arc::new(Mutex::new(1_000 << 18)),
            rng: Arc::new(Mutex::new(rng.child("world"))),
            spawner,
        }
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.lock().below(bound)
    }

    fn timestamp(&self) -> TimeStamp {
        let step = if self.below(3) == 0 { 1 << 18 } else { 1 };
        let mut clock = self.clock.lock();
        *clock += step;
        TimeStamp(*clock)
    }

    /// Sometimes a long delay: other coordinators time out, and copies of requests arrive out of order.
    async fn dawdle(&self) {
        if self.below(4) == 0 {
            Yields(self.below(150)).await;
        }
    }

    fn account(index: usize) -> Bytes {
        Bytes::from(format!("account{index}"))
    }

    /// A balance as it is stored: sometimes long, so that both places of values are used.
    fn balance(&self, amount: u64) -> Bytes {
        let padding = if self.below(4) == 0 { 300 } else { 0 };
        Bytes::from(format!("{amount}{}", " ".repeat(padding)))
    }

    fn amount(value: &Bytes) -> u64 {
        std::str::from_utf8(value).unwrap().trim_end().parse().unwrap()
    }

    /// Resolves a lock as a client does: true if it may be ignored from now on.
    async fn resolve(&self, lock: &LockInfo, caller: TimeStamp, options: Option<&mut ReadOptions>) {
        let command = CheckTxnStatus {
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            caller_start_ts: caller,
            current_ts: self.timestamp(),
            rollback_if_not_exist: true,
            force_sync_commit: false,
            resolving_pessimistic_lock: false,
            verify_is_primary: false,
        };
        let Ok(status) = self.scheduler.check_txn_status(&(), command).await else { return };
        if status.lock.is_some() {
            match options {
                Some(options) if status.action == StatusAction::MinCommitTsPushed => {
                    options.resolved_locks.insert(lock.start_ts);
                }
                _ => Yields(self.below(20)).await,
            }
            return;
        }
        if let Some(options) = options
            && self.below(3) == 0
        {
            let visible = !status.commit_ts.is_zero() && status.commit_ts <= caller;
            let known = if visible { &mut options.committed_locks } else { &mut options.resolved_locks };
            known.insert(lock.start_ts);
            return;
        }
        let keys = if self.below(2) == 0 { vec![lock.key.clone()] } else { Vec::new() };
        let command = ResolveLock { txns: [(lock.start_ts, status.commit_ts)].into(), keys };
        let _ = self.scheduler.resolve_lock(&(), &Range::all(), command, &mut NoYield).await;
    }

    /// Reads the accounts `keys` at `ts` by point reads or one scan, resolving locks until the read succeeds.
    async fn read(&self, keys: &[Bytes], ts: TimeStamp) -> BTreeMap<Bytes, Option<Bytes>> {
        let mut options = ReadOptions::at(ts);
        loop {
            let pairs = match self.below(3) {
                0 => self.scheduler.batch_get(&(), keys, &options, &mut NoYield).await,
                reverse => {
                    let scan = Scan { range: Range::all(), limit: 100, key_only: false, reverse: reverse == 1 };
                    self.scheduler.scan(&(), &scan, &options, &mut NoYield).await
                }
            };
            let pairs: BTreeMap<Bytes, _> =
                pairs.expect("reads do not fail here").into_iter().map(|pair| (pair.key, pair.outcome)).collect();
            let mut values = BTreeMap::new();
            let mut lock = None;
            for key in keys {
                match pairs.get(key) {
                    None => drop(values.insert(key.clone(), None)),
                    Some(Ok(version)) => drop(values.insert(key.clone(), Some(version.value.clone()))),
                    Some(Err(found)) => lock = Some(found.clone()),
                }
            }
            let Some(lock) = lock else {
                let seen = values.iter().map(|(key, value)| (ts, key.clone(), value.clone()));
                self.history.lock().reads.extend(seen);
                return values;
            };
            self.resolve(&lock, ts, Some(&mut options)).await;
        }
    }

    async fn prewrite(&self, command: &Prewrite) -> Result<(), Stop> {
        for _ in 0..20 {
            match self.scheduler.prewrite(&(), command.clone()).await {
                Ok(_) => return Ok(()),
                Err(Failure::Replicated(_)) => continue, // Whatever happened, repeating it is safe.
                Err(Failure::Keys(errors)) => {
                    for error in errors {
                        let KeyError::Locked(lock) = error else { return Err(Stop::Aborted) };
                        self.resolve(&lock, command.start_ts, None).await;
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
        Err(Stop::Aborted)
    }

    async fn commit(&self, start_ts: TimeStamp, keys: Vec<Bytes>) -> Result<TimeStamp, Stop> {
        let mut sent = false;
        for _ in 0..20 {
            let commit_ts = self.timestamp();
            self.dawdle().await; // Readers may push the lock meanwhile.
            let command = Commit { keys: keys.clone(), start_ts, commit_ts };
            match self.scheduler.commit(&(), command.clone()).await {
                Ok(_) if sent => return Err(Stop::Unknown), // Committed, but perhaps by the earlier try.
                Ok(_) => return Ok(commit_ts),
                Err(Failure::Replicated(_)) => sent = true,
                Err(Failure::Keys(errors)) if matches!(errors[0], KeyError::CommitTsExpired { .. }) => {}
                Err(Failure::Keys(errors)) => {
                    assert!(matches!(errors[0], KeyError::TxnLockNotFound { .. }), "{errors:?}");
                    return Err(Stop::Aborted);
                }
                Err(other) => panic!("{other}"),
            }
        }
        Err(Stop::Unknown)
    }

    async fn two_phases(&self, start_ts: TimeStamp, writes: BTreeMap<Bytes, Option<Bytes>>) -> Result<TimeStamp, Stop> {
        let primary = writes.keys().next().expect("it writes").clone();
        let op = |value: &Option<Bytes>| value.clone().map_or(MutationOp::Delete, MutationOp::Put);
        let command = |keys: &[&Bytes]| Prewrite {
            mutations: keys
                .iter()
                .map(|key| Mutation { key: (*key).clone(), op: op(&writes[*key]), assertion: Assertion::None })
                .collect(),
            primary: primary.clone(),
            start_ts,
            ttl_ms: TTL_MS,
            txn_size: writes.len() as u64,
            min_commit_ts: if start_ts.0.is_multiple_of(2) { start_ts.next() } else { TimeStamp::ZERO },
            for_update_ts: TimeStamp::ZERO,
            assertion_level: AssertionLevel::Off,
            use_async_commit: false,
            try_one_pc: false,
        };
        let keys: Vec<&Bytes> = writes.keys().collect();
        let (first, second) = keys.split_at(1 + self.below(keys.len() as u64) as usize);
        self.history.lock().intents.insert(start_ts, writes.clone());
        for group in [first, second].into_iter().filter(|group| !group.is_empty()) {
            self.prewrite(&command(group)).await?;
            if self.below(3) == 0 {
                // A copy of the request, delayed in the network.
                let (late, world, delay) = (command(group), self.clone(), self.below(200));
                self.spawner.spawn(async move {
                    Yields(delay).await;
                    let _ = world.scheduler.prewrite(&(), late).await;
                });
            }
        }
        let commit_ts = self.commit(start_ts, vec![primary.clone()]).await?;
        let others = keys.iter().filter(|key| ***key != primary).map(|key| (*key).clone()).collect();
        let _ = self.scheduler.commit(&(), Commit { keys: others, start_ts, commit_ts }).await;
        Ok(commit_ts)
    }

    /// Moves money between accounts; sometimes closes an account that becomes empty.
    async fn transfer(self) {
        let (from, to) = (self.below(ACCOUNTS as u64) as usize, self.below(ACCOUNTS as u64) as usize);
        if from == to {
            return;
        }
        let (from, to) = (World::account(from), World::account(to));
        let start_ts = self.timestamp();
        let seen = self.read(&[from.clone(), to.clone()], start_ts).await;
        let held = |key: &Bytes| seen[key].as_ref().map_or(0, World::amount);
        let moved = self.below(held(&from) + 1);
        let rest = held(&from) - moved;
        let left = (rest > 0 || self.below(2) == 0).then(|| self.balance(rest));
        let more = self.balance(held(&to) + moved);
        let writes: BTreeMap<Bytes, Option<Bytes>> = [(from, left), (to, Some(more))].into();
        let keys: Vec<Bytes> = writes.keys().cloned().collect();
        match self.two_phases(start_ts, writes).await {
            Ok(commit_ts) => drop(self.history.lock().acknowledged.insert(start_ts, commit_ts)),
            Err(Stop::Unknown) => {}
            Err(Stop::Aborted) => {
                let rollback = BatchRollback { keys, start_ts };
                if self.scheduler.batch_rollback(&(), rollback).await.is_ok() {
                    self.history.lock().given_up.insert(start_ts);
                }
            }
        }
    }

    async fn audit(self) {
        let keys: Vec<Bytes> = (0..ACCOUNTS).map(World::account).collect();
        let ts = self.timestamp();
        let seen = self.read(&keys, ts).await;
        let total: u64 = seen.values().flatten().map(World::amount).sum();
        assert_eq!(total, TOTAL, "at {ts}: {seen:?}");
    }

    /// Runs a coordinator that is dropped after some polls, at any point.
    async fn crash_after(polls: u64, coordinator: impl Future<Output = ()> + Send + 'static) {
        let done = select(Box::pin(coordinator), Yields(polls)).await;
        if let Either::Right((_, abandoned)) = done {
            drop(abandoned);
        }
    }

    /// Resolves every lock that is left, as garbage collection would.
    async fn settle(&self) {
        loop {
            let wanted = ScanLock { range: Range::all(), max_version: TimeStamp::MAX, limit: 10 };
            let locks = self.scheduler.scan_lock(&(), &wanted, &mut NoYield).await.expect("reads do not fail here");
            let Some(lock) = locks.first() else { return };
            self.resolve(lock, TimeStamp::ZERO, None).await;
        }
    }
}

/// Commits and rollbacks of a key, oldest first.
type Versions = BTreeMap<Bytes, Vec<(TimeStamp, Write)>>;

fn versions(world: &World) -> Versions {
    let store = world.scheduler.replicated().store.lock().clone();
    let mut versions = Versions::new();
    for (physical, bytes) in store.family(TXN_WRITE).into_iter().rev() {
        let (encoded, commit_ts) = split_versioned(&physical).unwrap();
        let key = Bytes::from(memcomparable_decode(encoded).unwrap());
        versions.entry(key).or_default().push((commit_ts, Write::decode(&bytes).unwrap()));
    }
    versions
}

fn check(world: &World) {
    let versions = versions(world);
    let history = world.history.lock();
    let mut outcomes: BTreeMap<TimeStamp, BTreeSet<TimeStamp>> = BTreeMap::new();
    for (key, versions) in &versions {
        let mut newest_commit = TimeStamp::ZERO;
        let mut rolled_back = BTreeSet::new();
        let mut committed = BTreeSet::new();
        for (commit_ts, write) in versions {
            if write.overlapped_rollback {
                rolled_back.insert(*commit_ts);
            }
            if write.kind == WriteKind::Rollback {
                rolled_back.insert(write.start_ts);
                continue;
            }
            assert!(write.start_ts >= newest_commit, "{key:?}: {} overlaps the commit before it", write.start_ts);
            newest_commit = *commit_ts;
            assert!(committed.insert(write.start_ts), "{key:?}: {} committed twice", write.start_ts);
            outcomes.entry(write.start_ts).or_default().insert(*commit_ts);
        }
        assert!(committed.is_disjoint(&rolled_back), "{key:?}: two outcomes of one transaction");
    }
    for (start_ts, intent) in &history.intents {
        let on = |key: &Bytes| {
            let records = versions.get(key).into_iter().flatten();
            records.clone().find(|(_, write)| write.start_ts == *start_ts && write.kind != WriteKind::Rollback)
        };
        let commits: BTreeSet<Option<TimeStamp>> = intent.keys().map(|key| on(key).map(|(ts, _)| *ts)).collect();
        assert_eq!(commits.len(), 1, "{start_ts} is half committed: {commits:?}");
        let commit_ts = commits.into_iter().next().flatten();
        if let Some(acknowledged) = history.acknowledged.get(start_ts) {
            assert_eq!(commit_ts, Some(*acknowledged), "{start_ts} was acknowledged");
        }
        assert!(commit_ts.is_none() || !history.given_up.contains(start_ts), "{start_ts} was given up");
    }
    assert!(outcomes.values().all(|commits| commits.len() == 1), "one commit timestamp for each transaction");
    for (ts, key, seen) in &history.reads {
        let visible = versions
            .get(key)
            .into_iter()
            .flatten()
            .rev()
            .find(|(commit_ts, write)| commit_ts <= ts && matches!(write.kind, WriteKind::Put | WriteKind::Delete));
        let expected = visible.and_then(|(_, write)| history.intents[&write.start_ts][key].clone());
        assert_eq!(seen, &expected, "the read of {key:?} at {ts}");
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut executor = Executor::new(Rng::new(seed).child("executor"));
    let world = World::new(seed, &executor);
    let setup = world.clone();
    executor.spawner().spawn(async move {
        loop {
            let start_ts = setup.timestamp();
            let accounts = (0..ACCOUNTS).map(|index| (World::account(index), Some(Bytes::from("100")))).collect();
            if setup.two_phases(start_ts, accounts).await.is_ok() {
                return;
            }
            setup.settle().await;
        }
    });
    executor.run();
    for _ in 0..60 {
        let polls = world.below(60);
        let later = Yields(world.below(1_500)); // Few enough at once that many succeed.
        let (transfer, audit) = (world.clone().transfer(), world.clone().audit());
        match world.below(8) {
            0 | 1 => executor.spawner().spawn(later.then(|()| audit)),
            2 | 3 => executor.spawner().spawn(later.then(move |()| World::crash_after(polls, transfer))),
            _ => executor.spawner().spawn(later.then(|()| transfer)),
        }
    }
    executor.run();
    let last = world.clone();
    executor.spawner().spawn(async move {
        last.settle().await;
        last.audit().await;
    });
    executor.run();
    assert!(world.scheduler.latches().is_empty(), "seed {seed}: a latch is left");
    let store = world.scheduler.replicated().store.lock().clone();
    assert!(store.family(TXN_LOCK).is_empty());
    let long_values = store.family(TXN_DEFAULT).len();
    check(&world);
    (world.history.lock().acknowledged.len(), long_values)
}

#[test]
fn random_interleavings_are_snapshot_isolation() {
    let (mut commits, mut long_values) = (0, 0);
    for seed in 0..100 {
        let (acknowledged, long) = run(seed);
        commits += acknowledged;
        long_values += long;
    }
    assert!(commits > 1000 && long_values > 100, "the test did little: {commits} commits, {long_values} long values");
}

#[test]
fn a_seed_repeats_exactly() {
    assert_eq!(run(3), run(3));
}
