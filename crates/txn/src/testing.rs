//! A store in a map, a seeded executor and a replicated store over both, for this crate's tests.

use crate::action::ActionResult;
use crate::error::ActionFailure;
use crate::{
    Assertion, AssertionLevel, BatchRollback, Commit, KeyError, Leadership, Lock, LockKind, Mutation, MutationOp,
    PessimisticAction, Prewrite, Prewritten, ReadOptions, Replicated, TimeStamp, action, read,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::task::{ArcWake, waker};
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, Result, View, WriteBatch};
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

type Map = BTreeMap<(Family, Bytes), Bytes>;

/// The result of a read that does not yield.
pub(crate) fn ready<T>(read: impl Future<Output = T>) -> T {
    read.now_or_never().expect("nothing to wait for")
}

/// The lock of a transaction that computes its commit timestamp.
pub(crate) fn lock_in_memory(start_ts: u64, min_commit_ts: u64) -> Lock {
    Lock {
        kind: LockKind::Put,
        start_ts: TimeStamp(start_ts),
        primary: "p".into(),
        ttl_ms: 3000,
        short_value: None,
        for_update_ts: TimeStamp::ZERO,
        min_commit_ts: TimeStamp(min_commit_ts),
        txn_size: 1,
        use_async_commit: true,
        secondaries: Vec::new(),
    }
}

/// A state of the store; also the store itself. Cloning is a snapshot.
#[derive(Clone, Default)]
pub(crate) struct MapStore {
    map: Arc<Map>,
}

impl View for MapStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.map.get(&(family, Bytes::copy_from_slice(key))).cloned())
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        let low = Bound::Included(range.start.unwrap_or_default());
        let high = range.end.map_or(Bound::Unbounded, Bound::Excluded);
        let mut entries = MapEntries { map: self.map.clone(), family, low, high, items: Vec::new(), direction };
        entries.fill(None);
        Ok(Box::new(entries))
    }
}

struct MapEntries {
    map: Arc<Map>,
    family: Family,
    low: Bound<Bytes>,
    high: Bound<Bytes>,
    /// The remaining entries, the next one last.
    items: Vec<(Bytes, Bytes)>,
    direction: Direction,
}

impl MapEntries {
    fn fill(&mut self, from: Option<&[u8]>) {
        let (low, high) = (self.low.clone(), self.high.clone());
        let inside = |key: &Bytes| {
            let above = !matches!(&low, Bound::Included(low) if key < low);
            above && !matches!(&high, Bound::Excluded(high) if key >= high)
        };
        let wanted = |key: &Bytes| match (from, self.direction) {
            (None, _) => true,
            (Some(from), Direction::Forward) => key >= from,
            (Some(from), Direction::Backward) => key <= from,
        };
        let of_family = self.map.range((self.family, Bytes::new())..(Family(self.family.0 + 1), Bytes::new()));
        let pick = of_family.filter(|((_, key), _)| inside(key) && wanted(key));
        self.items = pick.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        if self.direction == Direction::Forward {
            self.items.reverse();
        }
    }
}

impl Iterator for MapEntries {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.items.pop().map(Ok)
    }
}

impl Entries for MapEntries {
    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.fill(Some(key));
        Ok(())
    }
}

impl MapStore {
    pub(crate) fn apply(&mut self, batch: &WriteBatch) {
        let map = Arc::make_mut(&mut self.map);
        for op in batch.ops() {
            match op {
                BatchOp::Put { family, key, value } => {
                    map.insert((family, Bytes::copy_from_slice(key)), Bytes::copy_from_slice(value));
                }
                BatchOp::Delete { family, key } => {
                    map.remove(&(family, Bytes::copy_from_slice(key)));
                }
                other => panic!("this model does not know {other:?}"),
            }
        }
    }

    pub(crate) fn put_raw(&mut self, family: Family, key: Vec<u8>, value: &[u8]) {
        Arc::make_mut(&mut self.map).insert((family, key.into()), Bytes::copy_from_slice(value));
    }

    pub(crate) fn remove_raw(&mut self, family: Family, key: &Bytes) {
        Arc::make_mut(&mut self.map).remove(&(family, key.clone()));
    }

    /// The entries of a family.
    pub(crate) fn family(&self, family: Family) -> Vec<(Bytes, Bytes)> {
        let entries = self.map.iter().filter(|((of, _), _)| *of == family);
        entries.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    /// Runs an action and applies what it writes.
    pub(crate) fn run<T>(
        &mut self,
        action: impl FnOnce(&dyn View) -> ActionResult<T>,
    ) -> std::result::Result<T, ActionFailure> {
        let (answer, batch) = action(self)?;
        self.apply(&batch);
        Ok(answer)
    }

    pub(crate) fn prewrite(&mut self, command: &Prewrite) -> std::result::Result<Prewritten, ActionFailure> {
        self.run(|view| action::prewrite(command, None, view))
    }

    pub(crate) fn commit(
        &mut self,
        keys: &[&'static str],
        start_ts: u64,
        commit_ts: u64,
    ) -> std::result::Result<TimeStamp, ActionFailure> {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let command = Commit { keys, start_ts: TimeStamp(start_ts), commit_ts: TimeStamp(commit_ts) };
        self.run(|view| action::commit(&command, view))
    }

    pub(crate) fn rollback(&mut self, keys: &[&'static str], start_ts: u64) -> std::result::Result<(), ActionFailure> {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let command = BatchRollback { keys, start_ts: TimeStamp(start_ts) };
        self.run(|view| action::batch_rollback(&command, view))
    }

    /// Prewrites and commits a value.
    pub(crate) fn committed(&mut self, key: &'static str, value: &str, start_ts: u64, commit_ts: u64) {
        self.prewrite(&prewrite(&[(key, put(value))], key, start_ts)).unwrap();
        self.commit(&[key], start_ts, commit_ts).unwrap();
    }

    /// Reads at a timestamp; a lock is an error.
    pub(crate) fn get_at(&self, key: &str, ts: u64) -> std::result::Result<Option<String>, ActionFailure> {
        let found = read::get(self, key.as_bytes(), &ReadOptions::at(TimeStamp(ts)))?;
        Ok(found.map(|version| String::from_utf8(version.value.to_vec()).unwrap()))
    }
}

pub(crate) fn put(value: &str) -> MutationOp {
    MutationOp::Put(Bytes::copy_from_slice(value.as_bytes()))
}

/// An optimistic prewrite with a time to live of 3 s.
pub(crate) fn prewrite(mutations: &[(&'static str, MutationOp)], primary: &'static str, start_ts: u64) -> Prewrite {
    let mutation = |(key, op): &(&'static str, MutationOp)| Mutation {
        key: Bytes::from_static(key.as_bytes()),
        op: op.clone(),
        assertion: Assertion::None,
        pessimistic: PessimisticAction::Skip,
        expected_for_update_ts: None,
    };
    Prewrite {
        mutations: mutations.iter().map(mutation).collect(),
        primary: Bytes::from_static(primary.as_bytes()),
        start_ts: TimeStamp(start_ts),
        ttl_ms: 3000,
        txn_size: mutations.len() as u64,
        min_commit_ts: TimeStamp::ZERO,
        for_update_ts: TimeStamp::ZERO,
        assertion_level: AssertionLevel::Off,
        use_async_commit: false,
        secondaries: Vec::new(),
        try_one_pc: false,
        max_commit_ts: TimeStamp::ZERO,
    }
}

/// The single error of a failure of the protocol.
pub(crate) fn error_of<T: fmt::Debug>(result: std::result::Result<T, ActionFailure>) -> KeyError {
    match result.expect_err("an error is expected") {
        crate::Failure::Keys(errors) if errors.len() == 1 => errors.into_iter().next().unwrap(),
        other => panic!("one key error is expected, not {other:?}"),
    }
}

/// Yields some times: lets the executor interleave others.
pub(crate) struct Yields(pub(crate) u64);

impl Future for Yields {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[derive(Default)]
struct Shared {
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
    ready: Mutex<BTreeSet<usize>>,
}

struct TaskWaker {
    task: usize,
    shared: Arc<Shared>,
}

impl ArcWake for TaskWaker {
    fn wake_by_ref(this: &Arc<Self>) {
        this.shared.ready.lock().insert(this.task);
    }
}

/// Hands futures to an [`Executor`].
#[derive(Clone, Default)]
pub(crate) struct Spawner(Arc<Shared>);

impl Spawner {
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.spawned.lock().push(Box::pin(future));
    }
}

/// Polls a random ready task until all are done. The same seed gives the same interleaving.
pub(crate) struct Executor {
    shared: Arc<Shared>,
    rng: Rng,
}

impl Executor {
    pub(crate) fn new(rng: Rng) -> Executor {
        Executor { shared: Arc::default(), rng }
    }

    pub(crate) fn spawner(&self) -> Spawner {
        Spawner(self.shared.clone())
    }

    pub(crate) fn run(&mut self) {
        let mut tasks: Vec<Option<BoxFuture<'static, ()>>> = Vec::new();
        loop {
            for future in std::mem::take(&mut *self.shared.spawned.lock()) {
                self.shared.ready.lock().insert(tasks.len());
                tasks.push(Some(future));
            }
            let ready: Vec<usize> = self.shared.ready.lock().iter().copied().collect();
            let Some(task) = self.rng.pick(&ready).copied() else { break };
            self.shared.ready.lock().remove(&task);
            let Some(future) = &mut tasks[task] else { continue };
            let waker = waker(Arc::new(TaskWaker { task, shared: self.shared.clone() }));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                tasks[task] = None;
            }
        }
        let stuck = tasks.iter().filter(|task| task.is_some()).count();
        assert_eq!(stuck, 0, "tasks wait forever");
    }
}

/// A scheduler's surroundings in tests: `sleep` gives a future for a time.
pub(crate) fn surroundings(
    detach: crate::Detach,
    sleep: impl Fn(std::time::Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> crate::Surroundings {
    let detector = crate::LocalDetector::new(Arc::new(|| std::time::Duration::ZERO));
    crate::Surroundings { detach, sleep: Arc::new(sleep), detector: Arc::new(detector), concurrency: Arc::default() }
}

/// The errors of the layer below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TestError {
    #[error("refused")]
    Refused,
    #[error("the outcome is unknown")]
    Undetermined,
}

/// A replicated store in a map, with random delays, refusals and unknown outcomes. A proposal takes effect by itself,
/// whether or not a caller still waits for it.
pub(crate) struct TestReplicated {
    pub(crate) store: Arc<Mutex<MapStore>>,
    spawner: Spawner,
    rng: Mutex<Rng>,
    /// One in this many replications fails; 0 is never.
    fail_one_in: u64,
}

impl TestReplicated {
    pub(crate) fn new(spawner: Spawner, rng: Rng, fail_one_in: u64) -> TestReplicated {
        TestReplicated { store: Arc::default(), spawner, rng: Mutex::new(rng), fail_one_in }
    }

    fn delay(&self) -> Yields {
        Yields(self.rng.lock().below(6))
    }

    fn fails(&self) -> bool {
        self.fail_one_in > 0 && self.rng.lock().chance(1, self.fail_one_in)
    }
}

impl Replicated for TestReplicated {
    type Context = ();
    type Error = TestError;
    type View = MapStore;

    async fn view(&self, (): &()) -> std::result::Result<MapStore, TestError> {
        self.delay().await;
        let view = self.store.lock().clone();
        self.delay().await;
        Ok(view)
    }

    fn leadership(&self, (): &()) -> Option<Leadership> {
        Some(Leadership { region: 1, term: 1, version: 1 })
    }

    async fn timestamp(&self) -> std::result::Result<TimeStamp, TestError> {
        self.delay().await;
        Ok(TimeStamp::ZERO.next())
    }

    async fn replicate(&self, (): &(), batch: WriteBatch) -> std::result::Result<(), TestError> {
        self.delay().await;
        if self.fails() {
            return Err(TestError::Refused);
        }
        let (lost, unknown) = (self.fails(), self.fails());
        let (before, after, store) = (self.delay(), self.delay(), self.store.clone());
        let (done, settled) = oneshot::channel();
        self.spawner.spawn(async move {
            before.await;
            if !lost {
                store.lock().apply(&batch);
            }
            after.await;
            let _ = done.send(()); // The caller may have been dropped.
        });
        settled.await.expect("the proposal is settled");
        if lost || unknown { Err(TestError::Undetermined) } else { Ok(()) }
    }
}
