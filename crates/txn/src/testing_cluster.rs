//! Several nodes over one replicated region, for this crate's tests: any of them may lead it, and leadership moves
//! while proposals are on their way.

use crate::testing::{MapStore, Spawner, TestError, Yields};
use crate::{Leadership, Replicated, TimeStamp};
use futures::channel::oneshot;
use kontiki_engine::WriteBatch;
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

struct Proposal {
    batch: WriteBatch,
    settled: oneshot::Sender<()>,
    is_lost: bool,
}

#[derive(Default)]
struct State {
    store: MapStore,
    leader: usize,
    term: u64,
    proposals: BTreeMap<u64, Proposal>,
    next_proposal: u64,
    /// The oracle.
    clock: u64,
}

/// The region, its replicas and the oracle.
#[derive(Clone)]
pub(crate) struct TestCluster {
    state: Arc<Mutex<State>>,
    rng: Arc<Mutex<Rng>>,
    spawner: Spawner,
    /// One in this many replications fails; 0 is never.
    fail_one_in: u64,
}

/// The term to which a command is bound; 0: none yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestContext(Arc<AtomicU64>);

impl TestCluster {
    pub(crate) fn new(spawner: Spawner, rng: Rng, fail_one_in: u64) -> TestCluster {
        let state = State { term: 1, clock: 1_000 << 18, ..State::default() };
        TestCluster { state: Arc::new(Mutex::new(state)), rng: Arc::new(Mutex::new(rng)), spawner, fail_one_in }
    }

    /// One of its nodes.
    pub(crate) fn node(&self, number: usize) -> TestNode {
        TestNode { cluster: self.clone(), number }
    }

    pub(crate) fn leader(&self) -> usize {
        self.state.lock().leader
    }

    pub(crate) fn store(&self) -> MapStore {
        self.state.lock().store.clone()
    }

    /// A timestamp of the oracle.
    pub(crate) fn timestamp(&self) -> TimeStamp {
        let step = if self.rng.lock().below(3) == 0 { 1 << 18 } else { 1 };
        let mut state = self.state.lock();
        state.clock += step;
        TimeStamp(state.clock)
    }

    /// Another node leads. Each proposal on its way takes effect before the new leader serves, or never.
    pub(crate) fn transfer(&self, to: usize) {
        let mut state = self.state.lock();
        state.leader = to;
        state.term += 1;
        for (_, proposal) in std::mem::take(&mut state.proposals) {
            if !proposal.is_lost && self.rng.lock().chance(1, 2) {
                state.store.apply(&proposal.batch);
            }
            let _ = proposal.settled.send(());
        }
    }

    fn delay(&self) -> Yields {
        Yields(self.rng.lock().below(6))
    }

    fn fails(&self) -> bool {
        self.fail_one_in > 0 && self.rng.lock().chance(1, self.fail_one_in)
    }

    /// Unless a change of leaders has settled it.
    fn settle(&self, number: u64) {
        let mut state = self.state.lock();
        let Some(proposal) = state.proposals.remove(&number) else { return };
        if !proposal.is_lost {
            state.store.apply(&proposal.batch);
        }
        let _ = proposal.settled.send(()); // The caller may have been dropped.
    }
}

/// A replicated store with random delays, refusals and unknown outcomes. A proposal takes effect by itself, whether or
/// not a caller still waits for it.
#[derive(Clone)]
pub(crate) struct TestNode {
    pub(crate) cluster: TestCluster,
    number: usize,
}

impl TestNode {
    /// Binds a command to the present term, if this node leads.
    fn bind(&self, context: &TestContext, state: &State) -> Result<(), TestError> {
        let bound = context.0.compare_exchange(0, state.term, Ordering::SeqCst, Ordering::SeqCst);
        let is_bound = bound.is_ok() || bound == Err(state.term);
        if state.leader == self.number && is_bound { Ok(()) } else { Err(TestError::Refused) }
    }
}

impl Replicated for TestNode {
    type Context = TestContext;
    type Error = TestError;
    type View = MapStore;

    async fn view(&self, context: &TestContext) -> Result<MapStore, TestError> {
        self.cluster.delay().await;
        let view = {
            let state = self.cluster.state.lock();
            self.bind(context, &state)?;
            state.store.clone()
        };
        self.cluster.delay().await;
        Ok(view)
    }

    fn leadership(&self, context: &TestContext) -> Option<Leadership> {
        Some(Leadership { region: 1, term: context.0.load(Ordering::SeqCst), version: 1 })
    }

    async fn timestamp(&self) -> Result<TimeStamp, TestError> {
        self.cluster.delay().await;
        if self.cluster.fails() {
            return Err(TestError::Refused);
        }
        Ok(self.cluster.timestamp())
    }

    async fn replicate(&self, context: &TestContext, batch: WriteBatch) -> Result<(), TestError> {
        let cluster = &self.cluster;
        cluster.delay().await;
        if cluster.fails() {
            return Err(TestError::Refused);
        }
        let (is_lost, is_unknown) = (cluster.fails(), cluster.fails());
        let (done, settled) = oneshot::channel();
        let number = {
            let mut state = cluster.state.lock();
            self.bind(context, &state)?;
            state.next_proposal += 1;
            let number = state.next_proposal;
            state.proposals.insert(number, Proposal { batch, settled: done, is_lost });
            number
        };
        let (before, after, own) = (cluster.delay(), cluster.delay(), cluster.clone());
        cluster.spawner.spawn(async move {
            before.await;
            own.settle(number);
        });
        settled.await.expect("the proposal is settled");
        after.await;
        let changed = self.bind(context, &cluster.state.lock()).is_err();
        if is_lost || is_unknown || changed { Err(TestError::Undetermined) } else { Ok(()) }
    }
}
