//! A node that is a map: what the tests of this folder run over.

use crate::api::{Node, RetryBudget};
use crate::driver::{NodeError, RegionContext, Sample};
use crate::families::FAMILIES;
use crate::kv::Kv;
use bytes::Bytes;
use kontiki_engine::{BatchOp, Direction, Entries, Family, Range, View, WriteBatch};
use kontiki_placement::{Request, Response};
use kontiki_proto::{kvrpcpb, metapb};
use kontiki_raftstore::{CheckOutcome, Epoch, Peer, PeerId, Region, RegionError, RegionId, Space, StoreId};
use kontiki_txn::{ConcurrencyManager, Leadership, Replicated, TimeStamp, memcomparable_encode};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub const CLUSTER: u64 = 77;
/// The region before the split key, and the one behind it.
pub const LEFT: u64 = 2;
pub const RIGHT: u64 = 4;

/// With the time at which a value expires.
type Map = BTreeMap<(Family, Bytes), (Bytes, Option<u64>)>;

#[derive(Default)]
pub struct State {
    pub data: Arc<Map>,
    pub regions: BTreeMap<RegionId, (Arc<Region>, Option<Peer>)>,
    /// Errors of the next views and writes, in order.
    pub errors: VecDeque<NodeError>,
    /// Errors of the next writes alone, in order.
    pub fail_writes: VecDeque<NodeError>,
    pub writes: usize,
    pub pauses: usize,
    /// Advances with pauses and placement calls.
    pub elapsed: Duration,
    /// The wall clock.
    pub wall_ms: u64,
    pub placement_takes: Duration,
    /// Called at each pause, with the number of pauses so far.
    pub on_pause: Option<fn(&mut State)>,
    /// What placement answers, in order.
    pub placement: VecDeque<Result<Response, NodeError>>,
    pub placement_requests: Vec<Request>,
    /// What the oracle says; 0: nothing.
    pub oracle: u64,
    pub concurrency: Arc<ConcurrencyManager>,
    pub leader_news: watch::Sender<()>,
    /// Up to where it can be read without a leader.
    pub safe_ts: u64,
    /// What was reported as served: the region, bytes, and a sample of each request.
    pub served: Vec<(RegionId, u64, Vec<Sample>)>,
}

#[derive(Clone, Default)]
pub struct FakeNode {
    pub state: Arc<Mutex<State>>,
}

pub fn peer_of(region: u64, store: u64) -> Peer {
    Peer { id: PeerId(region * 1000 + store), store: StoreId(store) }
}

fn region(id: u64, start: Bytes, end: Bytes, space: Space) -> (RegionId, (Arc<Region>, Option<Peer>)) {
    let peers = (1..=3).map(|store| peer_of(id, store)).collect();
    let epoch = Epoch { conf_version: 1, version: 5 };
    let region = Region {
        id: RegionId(id),
        start_key: start,
        end_key: end,
        epoch,
        peers,
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space,
    };
    (RegionId(id), (Arc::new(region), Some(peer_of(id, 1))))
}

/// The boundary of the two data regions, as a user key.
pub const SPLIT: &[u8] = b"m";

impl FakeNode {
    /// Store 1 of three, leading: a system region and two data regions.
    pub fn new() -> FakeNode {
        let split = Bytes::from(memcomparable_encode(SPLIT));
        let node = FakeNode::default();
        node.state.lock().regions = BTreeMap::from([
            region(1, Bytes::new(), Bytes::new(), Space::System),
            region(LEFT, Bytes::new(), split.clone(), Space::Data),
            region(RIGHT, split, Bytes::new(), Space::Data),
        ]);
        node
    }

    pub fn retry_budget(&self) -> RetryBudget {
        let state = self.state.clone();
        let pause = move |pause: Duration| -> futures::future::BoxFuture<'static, ()> {
            let mut state = state.lock();
            state.pauses += 1;
            state.elapsed += pause;
            if let Some(act) = state.on_pause {
                act(&mut state);
            }
            Box::pin(std::future::ready(()))
        };
        RetryBudget::new(Duration::from_millis(100), Arc::new(pause))
    }

    /// Pauses and writes so far.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.pauses, state.writes)
    }

    pub fn kv(&self) -> Kv<FakeNode> {
        let detach = Arc::new(|future| drop(tokio::spawn(future)));
        Kv::new(self.clone(), self.retry_budget(), detach)
    }
}

/// The context of a client with an up-to-date cache.
pub fn context(region: u64) -> Option<kvrpcpb::Context> {
    Some(kvrpcpb::Context {
        region_id: region,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 5 }),
        peer: Some(metapb::Peer { id: region * 1000 + 1, store_id: 1, ..Default::default() }),
        ..Default::default()
    })
}

impl Replicated for FakeNode {
    type Context = RegionContext;
    type Error = NodeError;
    type View = FakeView;

    async fn view(&self, context: &RegionContext) -> Result<FakeView, NodeError> {
        let mut state = self.state.lock();
        assert!(state.regions.contains_key(&context.region));
        if context.stale_ts().is_some_and(|ts| ts > state.safe_ts) {
            let (region, peer) = (context.region, peer_of(context.region.0, 1).id);
            return Err(RegionError::DataIsNotReady { region, peer, safe_ts: state.safe_ts }.into());
        }
        match state.errors.pop_front() {
            Some(error) => Err(error),
            None => Ok(FakeView(state.data.clone(), state.wall_ms)),
        }
    }

    fn leadership(&self, context: &RegionContext) -> Option<Leadership> {
        Some(Leadership { region: context.region.0, term: 1, version: context.epoch.version })
    }

    async fn timestamp(&self) -> Result<TimeStamp, NodeError> {
        match self.state.lock().oracle {
            0 => Err(NodeError::Timeout),
            ts => Ok(TimeStamp(ts)),
        }
    }

    async fn replicate(&self, context: &RegionContext, batch: WriteBatch) -> Result<(), NodeError> {
        batch.validate()?;
        let mut state = self.state.lock();
        context.check_deadline(state.elapsed)?;
        let fails = state.fail_writes.pop_front();
        if let Some(error) = fails.or_else(|| state.errors.pop_front()) {
            return Err(error);
        }
        state.writes += 1;
        let region = state.regions[&context.region].0.clone();
        let data = Arc::make_mut(&mut state.data);
        if let Some(key) = FAMILIES.first_foreign_key(&region, &batch) {
            RegionError::check_key(&region, key)?;
            panic!("a family that is not of regions, or the end of a range, is foreign: {batch:?}");
        }
        for op in batch.ops() {
            let place = (op.family(), Bytes::copy_from_slice(op.key()));
            match op {
                BatchOp::Put { value, .. } => drop(data.insert(place, (Bytes::copy_from_slice(value), None))),
                BatchOp::PutExpiring { value, expires_at_ms, .. } => {
                    drop(data.insert(place, (Bytes::copy_from_slice(value), Some(expires_at_ms))));
                }
                BatchOp::Delete { .. } => drop(data.remove(&place)),
                BatchOp::DeleteRange { family, start, end } => {
                    let range = Range::region(start, end);
                    data.retain(|(of, key), _| *of != family || !range.contains(key));
                }
            }
        }
        Ok(())
    }
}

impl Node for FakeNode {
    fn served(&self, region: RegionId, requests: u64, bytes: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        self.state.lock().served.push((region, bytes, (0..requests).map(sample).collect()));
    }

    fn concurrency(&self) -> Arc<ConcurrencyManager> {
        self.state.lock().concurrency.clone()
    }

    fn store_id(&self) -> StoreId {
        StoreId(1)
    }

    fn cluster_id(&self) -> u64 {
        CLUSTER
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().elapsed
    }

    fn wall_ms(&self) -> u64 {
        self.state.lock().wall_ms
    }

    fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        self.state.lock().regions.get(&region).cloned()
    }

    fn safe_ts(&self, _: &[u8], _: &[u8]) -> Option<u64> {
        Some(self.state.lock().safe_ts).filter(|safe_ts| *safe_ts != 0)
    }

    fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static {
        let news = self.state.lock().leader_news.subscribe();
        wait_for(news)
    }

    fn regions(&self) -> Vec<Arc<Region>> {
        self.state.lock().regions.values().map(|(region, _)| region.clone()).collect()
    }

    /// The new regions are numbered from 100 on.
    async fn split(&self, context: &RegionContext, keys: Vec<Bytes>) -> Result<Vec<Region>, NodeError> {
        let mut state = self.state.lock();
        if let Some(error) = state.errors.pop_front() {
            return Err(error);
        }
        let (before, leader) = state.regions[&context.region].clone();
        let version = before.epoch.version + keys.len() as u64;
        let starts = std::iter::once(before.start_key.clone()).chain(keys.clone());
        let ends = keys.into_iter().chain([before.end_key.clone()]);
        let mut made = Vec::new();
        for (at, (start_key, end_key)) in starts.zip(ends).enumerate() {
            let id = if at == 0 { before.id } else { RegionId(99 + at as u64) };
            let region =
                Region { id, start_key, end_key, epoch: Epoch { version, ..before.epoch }, ..(*before).clone() };
            state.regions.insert(id, (Arc::new(region.clone()), leader));
            made.push(region);
        }
        Ok(made)
    }

    async fn compare_replicas(&self, region: RegionId) -> Result<CheckOutcome, NodeError> {
        Err(RegionError::RegionNotFound { region }.into())
    }

    async fn placement(&self, request: Request) -> Result<Response, NodeError> {
        let mut state = self.state.lock();
        state.placement_requests.push(request);
        let takes = state.placement_takes;
        state.elapsed += takes;
        state.placement.pop_front().unwrap_or(Err(NodeError::Timeout))
    }
}

async fn wait_for(mut news: watch::Receiver<()>) {
    news.changed().await.expect("the node exists");
}

/// The data, and the time at which it is read.
pub struct FakeView(Arc<Map>, u64);

impl FakeView {
    fn is_there(&self, expires_at_ms: Option<u64>) -> bool {
        expires_at_ms.is_none_or(|at| self.1 < at)
    }
}

impl View for FakeView {
    fn get(&self, family: Family, key: &[u8]) -> kontiki_engine::Result<Option<Bytes>> {
        let found = self.0.get(&(family, Bytes::copy_from_slice(key)));
        Ok(found.filter(|(_, at)| self.is_there(*at)).map(|(value, _)| value.clone()))
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> kontiki_engine::Result<Box<dyn Entries>> {
        let inside = self.0.iter().filter(|((f, key), _)| *f == family && range.contains(key));
        let there = inside.filter(|(_, (_, at))| self.is_there(*at));
        let mut all: Vec<_> = there.map(|((_, key), (value, at))| (key.clone(), value.clone(), *at)).collect();
        if direction == Direction::Backward {
            all.reverse();
        }
        Ok(Box::new(FakeEntries { all, next: 0, direction }))
    }
}

struct FakeEntries {
    all: Vec<(Bytes, Bytes, Option<u64>)>,
    next: usize,
    direction: Direction,
}

impl Iterator for FakeEntries {
    type Item = kontiki_engine::Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.all.get(self.next).cloned();
        self.next += 1;
        found.map(|(key, value, _)| Ok((key, value)))
    }
}

impl Entries for FakeEntries {
    fn seek(&mut self, key: &[u8]) -> kontiki_engine::Result<()> {
        let reached = |(other, _, _): &(Bytes, Bytes, Option<u64>)| match self.direction {
            Direction::Forward => other.as_ref() >= key,
            Direction::Backward => other.as_ref() <= key,
        };
        self.next = self.all.iter().position(reached).unwrap_or(self.all.len());
        Ok(())
    }

    fn expires_at_ms(&self) -> Option<u64> {
        self.next.checked_sub(1).and_then(|last| self.all.get(last)).and_then(|(_, _, at)| *at)
    }
}
