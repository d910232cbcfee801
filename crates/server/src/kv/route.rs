//! From a request's context to a region that may serve it.

use super::answer::is_transient;
use super::{Kv, Refusal};
use crate::api::Node;
use crate::driver::{NodeError, RegionContext};
use kontiki_proto::kvrpcpb::ApiVersion;
use kontiki_proto::{errorpb, kvrpcpb};
use kontiki_raftstore::{Epoch, Region, RegionError, RegionId, Space, StoreId};
use kontiki_txn::{Failure, memcomparable_encode};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of regions in an answer that the epoch does not match.
const SIBLINGS_MAX: usize = 8;

/// How keys of a request are compared with region boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeySpace {
    /// Unchanged.
    Raw,
    /// In their memcomparable encoding.
    Txn,
}

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It only reads: a replica that does not lead serves it, if the request asks for that.
    Read,
    /// It only reads what was committed at or below a timestamp: any replica serves it alone, if the request asks for
    /// that, and the replica has all of it.
    ReadAt(u64),
    /// It may write.
    Write,
}

/// A region that passed the checks of the request's route.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub region: Arc<Region>,
    /// The request is of API version 2.
    pub is_v2: bool,
    /// Created for each attempt, because its first view binds it to a term of leadership.
    pub context: RegionContext,
}

impl Route {
    /// The same, of a request that ends at this time.
    fn until(self, deadline: Option<Duration>) -> Route {
        Route { context: deadline.into_iter().fold(self.context, RegionContext::until), ..self }
    }

    /// `KeyNotInRegion` for the first key that lies outside.
    pub fn check_keys<'a>(&self, space: KeySpace, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<(), RegionError> {
        for key in keys {
            match space {
                KeySpace::Raw => RegionError::check_key(&self.region, key)?,
                KeySpace::Txn => RegionError::check_key(&self.region, &memcomparable_encode(key))?,
            }
        }
        Ok(())
    }
}

impl<N: Node> Kv<N> {
    /// Routes a request and executes it, and repeats this if it was refused by a transient error.
    pub(super) async fn routed<T, F>(
        &self,
        purpose: Purpose,
        context: &Option<kvrpcpb::Context>,
        attempt: impl Fn(Route) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Failure<NodeError>>> + Send,
    {
        let context = context.as_ref().ok_or_else(|| Refusal::Text("the request has no context".into()))?;
        self.check_cluster(context)?;
        let limit_ms = context.max_execution_duration_ms;
        let mut waiting = self.retry_budget.begin(&self.node, limit_ms);
        let deadline = (limit_ms != 0).then(|| self.node.monotonic().saturating_add(Duration::from_millis(limit_ms)));
        loop {
            let failure = match self.route(context, purpose) {
                Ok(route) => match attempt(route.until(deadline)).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => self.without_own_hint(failure),
                },
                Err(error) => Failure::Replicated(error.into()),
            };
            let may_end = matches!(&failure, Failure::Replicated(error) if is_transient(error));
            let region = RegionId(context.region_id);
            let may_end = may_end || damage(&failure).is_some_and(|error| self.node.met_damage(region, error));
            if !may_end || !waiting.pause().await {
                return Err(self.with_siblings(failure).into());
            }
        }
    }

    /// If leadership is lost and regained, the answer "the leader is this node" would send the client here again at
    /// once and use up its tries; the answer is that no node leads at the moment.
    fn without_own_hint(&self, failure: Failure<NodeError>) -> Failure<NodeError> {
        match failure {
            Failure::Replicated(NodeError::Region(RegionError::NotLeader { region, leader })) => {
                let leader = leader.filter(|leader| leader.store != self.node.store_id());
                refused(RegionError::NotLeader { region, leader })
            }
            other => other,
        }
    }

    /// If a region's range has changed, the answer names what the region is now and, after a split, the regions that
    /// took the rest of its range: the client need not look them up.
    fn with_siblings(&self, failure: Failure<NodeError>) -> Failure<NodeError> {
        let Failure::Replicated(NodeError::Region(RegionError::EpochNotMatch { mut current })) = failure else {
            return failure;
        };
        let here = self.node.regions();
        while let Some(last) = current.last().filter(|_| current.len() < SIBLINGS_MAX) {
            let follows = |region: &&Arc<Region>| {
                let is_next = !last.end_key.is_empty() && region.start_key == last.end_key;
                is_next && region.space == Space::Data && region.epoch.version >= last.epoch.version
            };
            let Some(next) = here.iter().find(follows) else { break };
            current.push(Region::clone(next));
        }
        refused(RegionError::EpochNotMatch { current })
    }

    pub(super) fn check_cluster(&self, context: &kvrpcpb::Context) -> Result<(), Refusal> {
        let own = self.node.cluster_id();
        if context.cluster_id == 0 || context.cluster_id == own {
            return Ok(());
        }
        let message = format!("mismatch cluster id: this is cluster {own}, not {}", context.cluster_id);
        Err(Refusal::Region(Box::new(errorpb::Error { message, ..Default::default() })))
    }

    /// The checks that need no key, in the order of the contract: store, region, leader, epoch.
    fn route(&self, request: &kvrpcpb::Context, purpose: Purpose) -> Result<Route, RegionError> {
        let stale_at = match purpose {
            Purpose::ReadAt(ts) if request.stale_read => Some(ts),
            _ => None,
        };
        let at_any_replica = purpose != Purpose::Write && (request.replica_read || stale_at.is_some());
        let own = self.node.store_id();
        if let Some(peer) = request.peer.as_ref().filter(|peer| peer.store_id != own.0) {
            return Err(RegionError::StoreNotMatch { requested: StoreId(peer.store_id), actual: own });
        }
        let id = RegionId(request.region_id);
        // A stale read needs no leader, so it ends no hibernation.
        let found = if stale_at.is_some() { self.node.region(id) } else { self.node.requested_region(id) };
        let found = found.filter(|(region, _)| region.space == Space::Data);
        let (region, leader) = found.ok_or(RegionError::RegionNotFound { region: id })?;
        if !at_any_replica && leader.is_none_or(|leader| leader.store != own) {
            return Err(RegionError::NotLeader { region: id, leader });
        }
        let asked = request.region_epoch.unwrap_or_default();
        let epoch = Epoch { conf_version: asked.conf_ver, version: asked.version };
        RegionError::check_epoch(&region, epoch)?;
        let context = RegionContext::new(id, epoch);
        let context = if at_any_replica { context.at_any_replica() } else { context };
        let context = stale_at.into_iter().fold(context, RegionContext::stale_at);
        Ok(Route { region, is_v2: request.api_version == ApiVersion::V2 as i32, context })
    }
}

/// The engine's error, if stored data are damaged.
fn damage(failure: &Failure<NodeError>) -> Option<&kontiki_engine::Error> {
    let error = match failure {
        Failure::Storage(error) => &error.0,
        Failure::Replicated(NodeError::Engine(error)) => error,
        _ => return None,
    };
    Some(error).filter(|error| error.kind() == kontiki_engine::ErrorKind::Corruption)
}

/// A region error as a scheduler would report it.
pub(super) fn refused(error: RegionError) -> Failure<NodeError> {
    Failure::Replicated(error.into())
}
