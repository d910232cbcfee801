//! The interface of a node that the services use: the driver's handle in production and in the simulator, a map in
//! tests.

use crate::driver::{LagReport, NodeError, NodeHandle, RegionContext, Sample};
use bytes::Bytes;
use futures::future::BoxFuture;
use kontiki_placement::{Request, Response};
use kontiki_raftstore::{CheckOutcome, Peer, Region, RegionError, RegionId, ReplicaLag, StoreId};
use kontiki_txn::{ConcurrencyManager, DeadlockDetector, LocalDetector, Replicated};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The raft logs of a node.
#[derive(Clone, Debug, Default)]
pub struct RaftLogs {
    /// How far they are behind.
    pub lag: Arc<LagReport>,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the log that a restart reads.
    pub replay_bytes: u64,
}

/// A node, from any thread. Clones are the same node.
pub trait Node: Replicated<Context = RegionContext, Error = NodeError> + Clone {
    /// This store.
    fn store_id(&self) -> StoreId;
    /// The cluster, never 0.
    fn cluster_id(&self) -> u64;
    /// The node's monotonic clock.
    fn monotonic(&self) -> Duration;
    /// The node's wall clock, in milliseconds since 1970: when keys expire is decided by it.
    fn wall_ms(&self) -> u64;
    /// A region's descriptor here, and its leader as far as this node knows.
    fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)>;
    /// The same, for a request to the region.
    fn requested_region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        self.region(region)
    }
    /// A read of the region met damaged data. Returns whether another node may lead the region instead.
    fn met_damage(&self, _region: RegionId, _error: &kontiki_engine::Error) -> bool {
        false
    }
    /// Requests to a region were served, of so many bytes of keys and values. `sample` says what one of them touched;
    /// it is called, with the index of a request, for few of them.
    fn served(&self, _region: RegionId, _requests: u64, _bytes: u64, _sample: &mut dyn FnMut(u64) -> Sample) {}
    /// The stores to which no connection can be made at the moment, or which refuse it, and why.
    fn peer_failures(&self) -> BTreeMap<StoreId, String> {
        BTreeMap::new()
    }
    /// The stores that the last unsafe recovery has given up.
    fn lost_stores(&self) -> BTreeSet<StoreId> {
        BTreeSet::new()
    }
    /// Done when the leader of a region changes, as far as this node knows; changes since this call count.
    fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static;
    /// All regions with a replica here.
    fn regions(&self) -> Vec<Arc<Region>>;
    /// Splits a region at these keys, ascending and within it; returns the regions that it leaves, in key order.
    fn split(
        &self,
        context: &RegionContext,
        keys: Vec<Bytes>,
    ) -> impl Future<Output = Result<Vec<Region>, NodeError>> + Send;
    /// How far the raft logs of this node are behind, and the bytes of the log that a restart reads.
    fn raft_logs(&self) -> RaftLogs {
        RaftLogs::default()
    }
    /// The raft log of a replica here.
    fn replica_lag(&self, region: RegionId) -> impl Future<Output = Result<ReplicaLag, NodeError>> + Send {
        std::future::ready(Err(RegionError::RegionNotFound { region }.into()))
    }
    /// The reads of this node.
    fn concurrency(&self) -> Arc<ConcurrencyManager>;
    /// Where transactions that wait are reported.
    fn detector(&self) -> Arc<dyn DeadlockDetector> {
        let node = self.clone();
        Arc::new(LocalDetector::new(Arc::new(move || node.monotonic())))
    }
    /// Compares the replicas of a region, if this node leads it.
    fn compare_replicas(&self, region: RegionId) -> impl Future<Output = Result<CheckOutcome, NodeError>> + Send;
    /// The lowest timestamp up to which replicas here can be read, of the regions with keys in a range that have one.
    fn safe_ts(&self, _start: &[u8], _end: &[u8]) -> Option<u64> {
        None
    }
    /// Asks placement, on any node that leads it; bounded in time.
    fn placement(&self, request: Request) -> impl Future<Output = Result<Response, NodeError>> + Send;
}

impl Node for NodeHandle {
    fn store_id(&self) -> StoreId {
        NodeHandle::store_id(self)
    }

    fn cluster_id(&self) -> u64 {
        NodeHandle::cluster_id(self)
    }

    fn monotonic(&self) -> Duration {
        NodeHandle::monotonic(self)
    }

    fn wall_ms(&self) -> u64 {
        NodeHandle::wall_ms(self)
    }

    fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        NodeHandle::region(self, region)
    }

    fn requested_region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        NodeHandle::requested_region(self, region)
    }

    fn met_damage(&self, region: RegionId, error: &kontiki_engine::Error) -> bool {
        NodeHandle::met_damage(self, region, error)
    }

    fn served(&self, region: RegionId, requests: u64, bytes: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        NodeHandle::served(self, region, requests, bytes, sample);
    }

    fn peer_failures(&self) -> BTreeMap<StoreId, String> {
        NodeHandle::peer_failures(self)
    }

    fn lost_stores(&self) -> BTreeSet<StoreId> {
        NodeHandle::lost_stores(self)
    }

    fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static {
        NodeHandle::leader_news(self)
    }

    fn regions(&self) -> Vec<Arc<Region>> {
        NodeHandle::regions(self)
    }

    async fn split(&self, context: &RegionContext, keys: Vec<Bytes>) -> Result<Vec<Region>, NodeError> {
        NodeHandle::split(self, context, keys).await
    }

    fn raft_logs(&self) -> RaftLogs {
        let (bytes, replay_bytes) = (self.counters().log_stored_bytes.get(), self.state().stats().log_bytes);
        RaftLogs { lag: self.lag(), bytes, replay_bytes }
    }

    async fn replica_lag(&self, region: RegionId) -> Result<ReplicaLag, NodeError> {
        NodeHandle::replica_lag(self, region).await
    }

    fn concurrency(&self) -> Arc<ConcurrencyManager> {
        NodeHandle::concurrency(self)
    }

    fn detector(&self) -> Arc<dyn DeadlockDetector> {
        NodeHandle::detector(self)
    }

    async fn compare_replicas(&self, region: RegionId) -> Result<CheckOutcome, NodeError> {
        NodeHandle::compare_replicas(self, region).await
    }

    fn safe_ts(&self, start: &[u8], end: &[u8]) -> Option<u64> {
        NodeHandle::safe_ts(self, start, end)
    }

    async fn placement(&self, request: Request) -> Result<Response, NodeError> {
        NodeHandle::placement(self, request).await
    }
}

/// Waits on the executor that runs the services: `tokio::time::sleep`, or the simulator's clock.
pub type Sleep = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// Whether a store is reachable, as far as this node knows.
pub type Reachability = Arc<dyn Fn(StoreId) -> bool + Send + Sync>;

/// How long a request may wait for a transient condition to end (no leader, a full queue) before its client gets the
/// error.
///
/// Some clients treat "the server is busy" as fatal, and a leader election uses up most of their own retry budget, so a
/// short wait here avoids an error there. It stays below the 2 s after which they give up on a request: it limits the
/// time since the request began, including attempts, and not the sum of the waits.
#[derive(Clone)]
pub struct RetryBudget {
    /// From the beginning of a request to its last wait.
    pub wait_max: Duration,
    /// How to wait.
    pub pause: Sleep,
}

/// The length of one wait: short compared with an election, long compared with reading an atomic.
const BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait for a notification before the condition is checked again: some changes are not notified on this
/// node (a leader that reported to placement on another node, a store that is unreachable).
const NEWS_WAIT_MAX: Duration = Duration::from_millis(50);

impl RetryBudget {
    /// A budget of at most `wait_max` per request.
    pub fn new(wait_max: Duration, pause: Sleep) -> RetryBudget {
        RetryBudget { wait_max, pause }
    }

    /// Begins the budget of one request to `node`; `limit_ms` is the limit that the request itself states (0: none).
    pub(crate) fn begin<'a, N: Node>(&'a self, node: &'a N, limit_ms: u64) -> Waiting<'a, N> {
        Waiting { retry_budget: self, node, until: self.until(node, limit_ms) }
    }

    /// When the budget of such a request that begins now ends, on the monotonic clock.
    pub(crate) fn until<N: Node>(&self, node: &N, limit_ms: u64) -> Duration {
        let limit = if limit_ms == 0 { self.wait_max } else { self.wait_max.min(Duration::from_millis(limit_ms)) };
        node.monotonic().saturating_add(limit)
    }
}

/// The rest of one request's retry budget.
pub(crate) struct Waiting<'a, N> {
    retry_budget: &'a RetryBudget,
    node: &'a N,
    until: Duration,
}

impl<N: Node> Waiting<'_, N> {
    /// Waits once. False, at once, when the budget is used up.
    pub(crate) async fn pause(&mut self) -> bool {
        let left = self.until.saturating_sub(self.node.monotonic());
        if left.is_zero() {
            return false;
        }
        (self.retry_budget.pause)(left.min(BACKOFF)).await;
        true
    }

    /// Waits for `news`, for a while. False, at once, when the budget is used up.
    pub(crate) async fn pause_for(&mut self, news: impl Future<Output = ()> + Send) -> bool {
        let left = self.until.saturating_sub(self.node.monotonic());
        if left.is_zero() {
            return false;
        }
        let pause = (self.retry_budget.pause)(left.min(NEWS_WAIT_MAX));
        futures::future::select(std::pin::pin!(news), pause).await;
        true
    }
}
