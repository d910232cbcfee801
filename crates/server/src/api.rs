//! What the services need of a node: the driver's handle in production and in the simulator, a map in tests.

use crate::driver::{NodeError, NodeHandle, RegionContext};
use futures::future::BoxFuture;
use kontiki_placement::{Request, Response};
use kontiki_raftstore::{Peer, Region, RegionId, StoreId};
use kontiki_txn::Replicated;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A node, from any thread. Clones are the same node.
pub trait Node: Replicated<Context = RegionContext, Error = NodeError> + Clone {
    /// This store.
    fn store_id(&self) -> StoreId;
    /// The cluster, never 0.
    fn cluster_id(&self) -> u64;
    /// The node's monotonic clock.
    fn monotonic(&self) -> Duration;
    /// A region's descriptor here, and its leader as far as this node knows.
    fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)>;
    /// Done when the leader of a region changes, as far as this node knows; changes since this call count.
    fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static;
    /// Asks placement, wherever its leader is; bounded in time.
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

    fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        NodeHandle::region(self, region)
    }

    fn leader_news(&self) -> impl Future<Output = ()> + Send + 'static {
        NodeHandle::leader_news(self)
    }

    async fn placement(&self, request: Request) -> Result<Response, NodeError> {
        NodeHandle::placement(self, request).await
    }
}

/// Waits, by whatever executor drives the services: `tokio::time::sleep`, or the simulator's clock.
pub type Sleep = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// Whether nothing speaks against a store: it answers, as far as this node has noticed.
pub type Reaches = Arc<dyn Fn(StoreId) -> bool + Send + Sync>;

/// How long a request may wait for better times (a leader, room in a queue) before its client is told of them.
///
/// Some clients take "the server is busy" for fatal, and a leader election costs them most of their retry budget, so a
/// short wait here spares an error there. It stays below the 2 s after which they give up on a request: what counts is
/// the time since the request began, attempts included, and not the sum of the pauses.
#[derive(Clone)]
pub struct RetryBudget {
    /// From the beginning of a request to its last pause.
    pub wait_max: Duration,
    /// How to wait.
    pub pause: Sleep,
}

/// How long one pause is: short against an election, long against a look at an atomic.
const BACKOFF: Duration = Duration::from_millis(10);
/// How long a wait for news is before another look: some news is not of this node (a leader that reported to placement
/// elsewhere, a store that is out of reach).
const NEWS_WAIT_MAX: Duration = Duration::from_millis(50);

impl RetryBudget {
    /// A budget of at most `wait_max` per request.
    pub fn new(wait_max: Duration, pause: Sleep) -> RetryBudget {
        RetryBudget { wait_max, pause }
    }

    /// For one request to `node`, which says itself how long it may take (0: it does not).
    pub(crate) fn begin<'a, N: Node>(&'a self, node: &'a N, limit_ms: u64) -> Waiting<'a, N> {
        let limit = if limit_ms == 0 { self.wait_max } else { self.wait_max.min(Duration::from_millis(limit_ms)) };
        Waiting { retry_budget: self, node, until: node.monotonic().saturating_add(limit) }
    }
}

/// What is left of one request's retry budget.
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
