//! The clients of the model test: they do what real ones do, in every kind of transaction, and crash at any point.

use crate::testing::{Executor, Spawner, Yields, surroundings};
use crate::testing_cluster::{TestCluster, TestContext, TestNode};
use crate::*;
use bytes::Bytes;
use futures::future::{Either, select};
use kontiki_engine::Range;
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ACCOUNTS: usize = 6;
pub(crate) const TOTAL: u64 = 100 * ACCOUNTS as u64;
const TTL_MS: u64 = 12;
/// Times that a client repeats a request.
const TRIES: usize = 20;

pub(crate) type Writes = BTreeMap<Bytes, Option<Bytes>>;

/// Reads and outcomes, as the clients saw them.
#[derive(Default)]
pub(crate) struct History {
    /// (timestamp, key, value).
    pub(crate) reads: Vec<(TimeStamp, Bytes, Option<Bytes>)>,
    pub(crate) acknowledged: BTreeMap<TimeStamp, TimeStamp>,
    pub(crate) given_up: BTreeSet<TimeStamp>,
    /// The intended writes of each transaction, recorded before its prewrite.
    pub(crate) intents: BTreeMap<TimeStamp, Writes>,
    /// The for-update timestamps of pessimistic locks.
    pub(crate) locked_at: BTreeMap<(TimeStamp, Bytes), TimeStamp>,
    /// Acknowledged transactions of each kind.
    pub(crate) kinds: BTreeMap<(bool, How), usize>,
    pub(crate) deadlocks: usize,
}

/// How a transaction commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    TwoPhases,
    Async,
    OnePhase,
}

/// Why a coordinator stops.
pub(crate) enum Stop {
    /// Rolled back, or never written.
    Aborted,
    /// Its outcome is unknown to it.
    Unknown,
}

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) cluster: TestCluster,
    /// By the number of the node. A node that restarts gets a new number.
    schedulers: Arc<Mutex<Vec<Scheduler<TestNode>>>>,
    pub(crate) history: Arc<Mutex<History>>,
    rng: Arc<Mutex<Rng>>,
    pub(crate) spawner: Spawner,
}

impl World {
    pub(crate) fn new(seed: u64, executor: &Executor) -> World {
        let rng = Rng::new(seed);
        let fail_one_in = if seed.is_multiple_of(2) { 0 } else { 25 };
        let spawner = executor.spawner();
        let cluster = TestCluster::new(spawner.clone(), rng.child("replicated"), fail_one_in);
        let (history, rng) = (Arc::default(), Arc::new(Mutex::new(rng.child("world"))));
        let world = World { cluster, schedulers: Arc::default(), history, rng, spawner };
        world.start_node();
        world
    }

    fn start_node(&self) -> usize {
        let mut schedulers = self.schedulers.lock();
        let detach = self.spawner.clone();
        let sleep = |_: Duration| -> futures::future::BoxFuture<'static, ()> { Box::pin(Yields(60)) };
        let surroundings = surroundings(Arc::new(move |future| detach.spawn(future)), sleep);
        let number = schedulers.len();
        schedulers.push(Scheduler::new(self.cluster.node(number), surroundings));
        number
    }

    /// Another node leads: one that has led before, or one that has just started and knows nothing.
    pub(crate) fn move_leadership(&self) {
        let nodes = self.schedulers.lock().len();
        let to = match self.below(2) {
            0 => self.start_node(),
            _ => self.below(nodes as u64) as usize,
        };
        if to != self.cluster.leader() {
            self.cluster.transfer(to);
        }
    }

    pub(crate) fn leader(&self) -> (Scheduler<TestNode>, TestContext) {
        (self.schedulers.lock()[self.cluster.leader()].clone(), TestContext::default())
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.schedulers.lock().iter().all(|scheduler| {
            scheduler.latches().is_empty()
                && scheduler.lock_waiters() == 0
                && scheduler.concurrency().memory_locks().is_empty()
        })
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.rng.lock().below(bound)
    }

    fn timestamp(&self) -> TimeStamp {
        self.cluster.timestamp()
    }

    /// Sometimes a long delay: other coordinators time out, and copies of requests arrive out of order.
    async fn dawdle(&self) {
        if self.below(4) == 0 {
            Yields(self.below(150)).await;
        }
    }

    pub(crate) fn account(index: usize) -> Bytes {
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

    async fn status(&self, lock: &LockInfo, caller: TimeStamp, force_sync_commit: bool) -> Option<TxnStatus> {
        let command = CheckTxnStatus {
            primary: lock.primary.clone(),
            start_ts: lock.start_ts,
            caller_start_ts: caller,
            current_ts: self.timestamp(),
            rollback_if_not_exist: true,
            force_sync_commit,
            resolving_pessimistic_lock: lock.kind == LockKind::Pessimistic,
            verify_is_primary: false,
        };
        let (scheduler, context) = self.leader();
        scheduler.check_txn_status(&context, command).await.ok()
    }

    /// The outcome of an async commit whose client has stopped: all its locks together say it.
    async fn async_outcome(&self, primary: &LockInfo) -> Option<TimeStamp> {
        let command = CheckSecondaryLocks { keys: primary.secondaries.clone(), start_ts: primary.start_ts };
        let (scheduler, context) = self.leader();
        match scheduler.check_secondary_locks(&context, command).await.ok()? {
            SecondaryStatus::Locked(locks) if locks.iter().all(|lock| lock.use_async_commit) => {
                locks.iter().map(|lock| lock.min_commit_ts).chain([primary.min_commit_ts]).max()
            }
            // It has fallen back to two phases: the primary decides alone.
            SecondaryStatus::Locked(_) => {
                let status = self.status(primary, TimeStamp::ZERO, true).await?;
                status.lock.is_none().then_some(status.commit_ts)
            }
            SecondaryStatus::Committed(commit_ts) => Some(commit_ts),
            SecondaryStatus::RolledBack => Some(TimeStamp::ZERO),
        }
    }

    /// Resolves a lock as a client does: true if it may be ignored from now on.
    async fn resolve(&self, lock: &LockInfo, caller: TimeStamp, options: Option<&mut ReadOptions>) {
        let Some(status) = self.status(lock, caller, false).await else { return };
        let is_expired = |lock: &LockInfo| lock.start_ts.physical_ms() + lock.ttl_ms < self.timestamp().physical_ms();
        let commit_ts = match status.lock {
            None => status.commit_ts,
            Some(primary) if primary.use_async_commit && is_expired(&primary) => {
                let Some(commit_ts) = self.async_outcome(&primary).await else { return };
                commit_ts
            }
            Some(_) => {
                match options {
                    Some(options) if status.action == StatusAction::MinCommitTsPushed => {
                        options.resolved_locks.insert(lock.start_ts);
                    }
                    _ => Yields(self.below(20)).await,
                }
                return;
            }
        };
        if let Some(options) = options
            && self.below(3) == 0
        {
            let visible = !commit_ts.is_zero() && commit_ts <= caller;
            let known = if visible { &mut options.committed_locks } else { &mut options.resolved_locks };
            known.insert(lock.start_ts);
            return;
        }
        if lock.kind == LockKind::Pessimistic && commit_ts.is_zero() {
            // The primary's lock may have been dropped without a record: its transaction is not decided.
            let (keys, for_update_ts) = (vec![lock.key.clone()], lock.for_update_ts);
            let command = PessimisticRollback { keys, start_ts: lock.start_ts, for_update_ts };
            let (scheduler, context) = self.leader();
            let _ = scheduler.pessimistic_rollback(&context, command).await;
            return;
        }
        let keys = if self.below(2) == 0 { vec![lock.key.clone()] } else { Vec::new() };
        let command = ResolveLock { txns: [(lock.start_ts, commit_ts)].into(), keys };
        let (scheduler, context) = self.leader();
        let _ = scheduler.resolve_lock(&context, &Range::all(), command, &mut NoYield).await;
    }

    /// Reads the accounts `keys` at `ts` by point reads or one scan, resolving locks until the read succeeds.
    async fn read(&self, keys: &[Bytes], ts: TimeStamp) -> Writes {
        let mut options = ReadOptions::at(ts);
        loop {
            let (scheduler, context) = self.leader();
            let pairs = match self.below(3) {
                0 => scheduler.batch_get(&context, keys, &options, &mut NoYield).await,
                reverse => {
                    let scan = Scan { range: Range::all(), limit: 100, key_only: false, reverse: reverse == 1 };
                    scheduler.scan(&context, &scan, &options, &mut NoYield).await
                }
            };
            let pairs = match pairs {
                Ok(pairs) => pairs,
                Err(Failure::Replicated(_)) => continue, // Another node leads.
                Err(Failure::Keys(errors)) => {
                    let [KeyError::Locked(lock), ..] = &errors[..] else { panic!("{errors:?}") };
                    self.resolve(lock, ts, Some(&mut options)).await;
                    continue;
                }
                Err(other) => panic!("{other}"),
            };
            let pairs: BTreeMap<Bytes, _> = pairs.into_iter().map(|pair| (pair.key, pair.outcome)).collect();
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

    /// Locks a key; its value, and the for-update timestamp.
    async fn lock(&self, key: &Bytes, primary: &Bytes, start_ts: TimeStamp) -> Result<Option<Bytes>, Stop> {
        let allow_conflict = self.below(3) == 0;
        for _ in 0..TRIES {
            let for_update_ts = self.timestamp();
            let command = PessimisticLock {
                keys: vec![KeyToLock { key: key.clone(), must_not_exist: false }],
                primary: primary.clone(),
                start_ts,
                ttl_ms: TTL_MS,
                for_update_ts,
                min_commit_ts: for_update_ts.next(),
                return_values: true,
                check_existence: false,
                lock_only_if_exists: false,
                allow_conflict,
            };
            let wait = (self.below(4) > 0).then_some(LOCK_WAIT_MAX);
            let (scheduler, context) = self.leader();
            match scheduler.pessimistic_lock(&context, command, wait).await {
                Ok(locked) => {
                    let at = for_update_ts.max(locked[0].conflict_ts);
                    let mut history = self.history.lock();
                    history.locked_at.insert((start_ts, key.clone()), at);
                    history.reads.push((at, key.clone(), locked[0].value.clone()));
                    return Ok(locked[0].value.clone());
                }
                Err(Failure::Replicated(_)) => {}
                Err(Failure::Keys(errors)) => match &errors[..] {
                    [KeyError::Locked(lock), ..] => self.resolve(lock, start_ts, None).await,
                    [KeyError::WriteConflict { reason: ConflictReason::PessimisticRetry, .. }] => {}
                    [KeyError::Deadlock { .. }] => {
                        self.history.lock().deadlocks += 1;
                        return Err(Stop::Aborted);
                    }
                    _ => return Err(Stop::Aborted),
                },
                Err(other) => panic!("{other}"),
            }
        }
        Err(Stop::Aborted)
    }

    async fn prewrite(&self, command: &Prewrite) -> Result<Prewritten, Stop> {
        for _ in 0..TRIES {
            let (scheduler, context) = self.leader();
            match scheduler.prewrite(&context, command.clone()).await {
                Ok(answer) => return Ok(answer),
                // Whatever happened, repeating it is safe.
                Err(Failure::Replicated(_) | Failure::NoTimestamp(_)) => continue,
                Err(Failure::Keys(errors)) => {
                    for error in errors {
                        let KeyError::Locked(lock) = error else { return Err(Stop::Aborted) };
                        self.resolve(&lock, command.start_ts, None).await;
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
        // With async commit or in one phase it may be committed.
        Err(if command.use_async_commit || command.try_one_pc { Stop::Unknown } else { Stop::Aborted })
    }

    async fn commit(&self, start_ts: TimeStamp, keys: Vec<Bytes>) -> Result<TimeStamp, Stop> {
        let mut sent = false;
        for _ in 0..TRIES {
            let commit_ts = self.timestamp();
            self.dawdle().await; // Readers may push the lock meanwhile.
            let command = Commit { keys: keys.clone(), start_ts, commit_ts };
            let (scheduler, context) = self.leader();
            match scheduler.commit(&context, command.clone()).await {
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

    fn prewrite_of(&self, start_ts: TimeStamp, writes: &Writes, how: How) -> Prewrite {
        let primary = writes.keys().next().expect("it writes").clone();
        let history = self.history.lock();
        let locked_at = |key: &Bytes| history.locked_at.get(&(start_ts, key.clone())).copied();
        let for_update_ts = writes.keys().filter_map(locked_at).max().unwrap_or_default();
        let mutation = |(key, value): (&Bytes, &Option<Bytes>)| Mutation {
            key: key.clone(),
            op: value.clone().map_or(MutationOp::Delete, MutationOp::Put),
            assertion: Assertion::None,
            pessimistic: PessimisticAction::CheckLock,
            expected_for_update_ts: None,
        };
        let least = start_ts.max(for_update_ts).next();
        let max_commit_ts = if start_ts.0.is_multiple_of(5) { TimeStamp(least.0 + 3) } else { TimeStamp::ZERO };
        Prewrite {
            mutations: writes.iter().map(mutation).collect(),
            secondaries: writes.keys().filter(|key| **key != primary).cloned().collect(),
            primary,
            start_ts,
            ttl_ms: TTL_MS,
            txn_size: writes.len() as u64,
            min_commit_ts: if start_ts.0.is_multiple_of(2) { least } else { TimeStamp::ZERO },
            for_update_ts,
            assertion_level: AssertionLevel::Off,
            use_async_commit: how != How::TwoPhases && (how == How::Async || start_ts.0.is_multiple_of(3)),
            try_one_pc: how == How::OnePhase,
            max_commit_ts,
        }
    }

    /// Writes and commits.
    pub(crate) async fn write(&self, start_ts: TimeStamp, writes: Writes, how: How) -> Result<TimeStamp, Stop> {
        let whole = self.prewrite_of(start_ts, &writes, how);
        self.history.lock().intents.insert(start_ts, writes.clone());
        let (first, second) = match how {
            How::OnePhase => (&whole.mutations[..], &[][..]),
            _ => whole.mutations.split_at(1 + self.below(writes.len() as u64) as usize),
        };
        let mut answers = Vec::new();
        for group in [first, second].into_iter().filter(|group| !group.is_empty()) {
            let command = Prewrite { mutations: group.to_vec(), ..whole.clone() };
            answers.push(self.prewrite(&command).await?);
            if self.below(3) == 0 {
                // A copy of the request, delayed in the network.
                let (world, delay) = (self.clone(), self.below(200));
                self.spawner.spawn(async move {
                    Yields(delay).await;
                    let (scheduler, context) = world.leader();
                    let _ = scheduler.prewrite(&context, command).await;
                });
            }
        }
        let (primary, others) = (whole.primary.clone(), whole.secondaries.clone());
        let computed = match how {
            How::TwoPhases => None,
            How::OnePhase if !answers[0].one_pc_commit_ts.is_zero() => return Ok(answers[0].one_pc_commit_ts),
            How::OnePhase if !whole.use_async_commit => None,
            How::OnePhase | How::Async => answers.iter().map(|answer| answer.min_commit_ts).min(),
        };
        if computed.is_some_and(|ts| !ts.is_zero()) {
            let commit_ts = answers.iter().map(|answer| answer.min_commit_ts).max().expect("it prewrote");
            let (scheduler, context) = self.leader();
            let keys = if self.below(2) == 0 { vec![primary] } else { others };
            let world = self.clone();
            self.spawner.spawn(async move {
                world.dawdle().await;
                let _ = scheduler.commit(&context, Commit { keys, start_ts, commit_ts }).await;
            });
            return Ok(commit_ts);
        }
        let commit_ts = self.commit(start_ts, vec![primary]).await?;
        let (scheduler, context) = self.leader();
        let _ = scheduler.commit(&context, Commit { keys: others, start_ts, commit_ts }).await;
        Ok(commit_ts)
    }

    /// What the transaction sees of its keys: under locks, or in its snapshot.
    async fn begin(&self, start_ts: TimeStamp, keys: &[Bytes; 2], is_pessimistic: bool) -> Result<Writes, Stop> {
        if !is_pessimistic {
            return Ok(self.read(keys, start_ts).await);
        }
        let mut seen = BTreeMap::new();
        let primary = keys.iter().min().expect("two keys");
        let order = if self.below(2) == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let value = self.lock(&keys[index], primary, start_ts).await?;
            seen.insert(keys[index].clone(), value);
            self.dawdle().await;
        }
        Ok(seen)
    }

    /// Moves money between accounts; sometimes closes an account that becomes empty.
    pub(crate) async fn transfer(self) {
        let (from, to) = (self.below(ACCOUNTS as u64) as usize, self.below(ACCOUNTS as u64) as usize);
        if from == to {
            return;
        }
        let is_pessimistic = self.below(2) == 0;
        let how = [How::TwoPhases, How::Async, How::OnePhase][self.below(3) as usize];
        let keys = [World::account(from), World::account(to)];
        let start_ts = self.timestamp();
        let done = async {
            let seen = self.begin(start_ts, &keys, is_pessimistic).await?;
            let [from, to] = keys.clone();
            let held = |key: &Bytes| seen[key].as_ref().map_or(0, World::amount);
            let moved = self.below(held(&from) + 1);
            let rest = held(&from) - moved;
            let left = (rest > 0 || self.below(2) == 0).then(|| self.balance(rest));
            let more = self.balance(held(&to) + moved);
            self.write(start_ts, [(from, left), (to, Some(more))].into(), how).await
        };
        match done.await {
            Ok(commit_ts) => {
                let mut history = self.history.lock();
                history.acknowledged.insert(start_ts, commit_ts);
                *history.kinds.entry((is_pessimistic, how)).or_default() += 1;
            }
            Err(Stop::Unknown) => {}
            Err(Stop::Aborted) => self.give_up(start_ts, keys.to_vec()).await,
        }
    }

    async fn give_up(&self, start_ts: TimeStamp, keys: Vec<Bytes>) {
        if self.below(3) == 0 {
            let command = PessimisticRollback { keys: keys.clone(), start_ts, for_update_ts: self.timestamp() };
            let (scheduler, context) = self.leader();
            let _ = scheduler.pessimistic_rollback(&context, command).await;
        }
        let (scheduler, context) = self.leader();
        if scheduler.batch_rollback(&context, BatchRollback { keys, start_ts }).await.is_ok() {
            self.history.lock().given_up.insert(start_ts);
        }
    }

    pub(crate) async fn audit(self) {
        let keys: Vec<Bytes> = (0..ACCOUNTS).map(World::account).collect();
        let ts = self.timestamp();
        let seen = self.read(&keys, ts).await;
        let total: u64 = seen.values().flatten().map(World::amount).sum();
        assert_eq!(total, TOTAL, "at {ts}: {seen:?}");
    }

    /// Opens the accounts.
    pub(crate) async fn open(self) {
        loop {
            let accounts = (0..ACCOUNTS).map(|index| (World::account(index), Some(Bytes::from("100")))).collect();
            if self.write(self.timestamp(), accounts, How::TwoPhases).await.is_ok() {
                return;
            }
            self.settle().await;
        }
    }

    /// Runs a coordinator that is dropped after some polls, at any point.
    pub(crate) async fn crash_after(polls: u64, coordinator: impl Future<Output = ()> + Send + 'static) {
        let done = select(Box::pin(coordinator), Yields(polls)).await;
        if let Either::Right((_, abandoned)) = done {
            drop(abandoned);
        }
    }

    /// Resolves every lock that is left, as garbage collection would.
    pub(crate) async fn settle(&self) {
        loop {
            let wanted = ScanLock { range: Range::all(), max_version: TimeStamp::MAX, limit: 10 };
            let (scheduler, context) = self.leader();
            match scheduler.scan_lock(&context, &wanted, &mut NoYield).await {
                Ok(locks) => match locks.first() {
                    None => return,
                    Some(lock) => self.resolve(lock, TimeStamp::ZERO, None).await,
                },
                Err(Failure::Replicated(_) | Failure::Keys(_)) => Yields(3).await,
                Err(other) => panic!("{other}"),
            }
        }
    }
}
