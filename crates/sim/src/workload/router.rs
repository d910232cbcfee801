//! A minimal routing client: finds the leader, retries requests that certainly had no effect, and reports those that
//! may have had one.

use crate::cluster::wire::{Answer, Ask, Response};
use crate::world::{CallError, Caller, NodeId};
use kontiki_env::rng::Rng;
use kontiki_raftstore::RegionId;
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one request waits for its answer.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long a pinned client waits: it must not miss the moment at which its node answers again.
const PINNED_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest backoff between two tries.
const BACKOFF_MS_MAX: u64 = 100;
/// How long a hasty client waits for an answer, and its longest backoff.
const HASTY_TIMEOUT: Duration = Duration::from_millis(60);
const HASTY_BACKOFF_MS_MAX: u64 = 8;

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// With an answer.
    Answered(Box<Response>),
    /// The time is used up, and the call had no effect (or may be repeated).
    Failed,
    /// It may have taken effect.
    Unknown,
}

/// One client's router to the cluster.
pub struct Router {
    caller: Caller,
    nodes: Vec<NodeId>,
    rng: Rng,
    /// The leader of each region, as far as this client knows; it begins with a guess.
    guesses: BTreeMap<RegionId, NodeId>,
    is_pinned: bool,
    call_timeout: Duration,
    backoff_ms_max: u64,
}

impl Router {
    /// A client with an empty cache.
    pub fn new(caller: Caller, nodes: Vec<NodeId>, rng: Rng) -> Router {
        assert!(!nodes.is_empty(), "a cluster has nodes");
        Router {
            caller,
            nodes,
            rng,
            guesses: BTreeMap::new(),
            is_pinned: false,
            call_timeout: CALL_TIMEOUT,
            backoff_ms_max: BACKOFF_MS_MAX,
        }
    }

    /// A client that asks `node` only, and once: a client that follows the leader never asks a deposed one.
    pub fn pinned(caller: Caller, node: NodeId, rng: Rng) -> Router {
        let router = Router::new(caller, vec![node], rng);
        Router { is_pinned: true, call_timeout: PINNED_TIMEOUT, ..router }
    }

    /// A client that gives up soon: where leaders change many times per second, clients with longer timeouts would make
    /// no progress.
    pub fn hasty(self) -> Router {
        Router { call_timeout: HASTY_TIMEOUT, backoff_ms_max: HASTY_BACKOFF_MS_MAX, ..self }
    }

    /// The caller below.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Asks until there is an answer, for `timeout` at most. A request that must not be executed twice is not repeated
    /// once it may have been executed.
    pub async fn ask(&mut self, mut ask: Ask, timeout: Duration) -> CallOutcome {
        let executor = self.caller.executor().clone();
        let deadline = executor.now() + timeout;
        let region = ask.region();
        loop {
            let node = self.guess(region);
            ask.address(region, node);
            let answer = self.caller.call(node, ask.clone().into_bytes(), self.call_timeout).await;
            let response = answer.map(|bytes| Answer::decode(bytes).expect("nodes' answers decode").response);
            let may_be_done = match response {
                Err(CallError::Refused) => {
                    self.turn(region, 0);
                    false
                }
                Ok(Some(response)) => match (response.region_error(), response.doubt()) {
                    (None, None) => return CallOutcome::Answered(Box::new(response)),
                    (Some(error), _) => {
                        let leader = error.not_leader.as_ref().and_then(|error| error.leader.as_ref());
                        self.turn(region, leader.map_or(0, |peer| peer.store_id));
                        // Also returned for a write whose outcome is unknown.
                        error.stale_command.is_some()
                    }
                    (None, Some(_)) => true,
                },
                Ok(None) | Err(CallError::Reset | CallError::TimedOut) => true,
            };
            if may_be_done && !ask.may_repeat() {
                self.turn(region, 0);
                return CallOutcome::Unknown;
            }
            if self.is_pinned || executor.now() >= deadline {
                return CallOutcome::Failed;
            }
            if may_be_done {
                self.turn(region, 0);
            }
            let pause = Duration::from_millis(1 + self.rng.below(self.backoff_ms_max));
            executor.sleep(pause).await;
        }
    }

    fn guess(&mut self, region: RegionId) -> NodeId {
        let Router { guesses, rng, nodes, .. } = self;
        *guesses.entry(region).or_insert_with(|| *rng.pick(nodes).expect("a cluster has nodes"))
    }

    /// Sets the next node: `leader`, or any node.
    fn turn(&mut self, region: RegionId, leader: NodeId) {
        let next = match leader {
            0 => *self.rng.pick(&self.nodes).expect("a cluster has nodes"),
            leader => leader,
        };
        if !self.is_pinned {
            self.guesses.insert(region, next);
        }
    }
}
