//! How a client reaches its cluster, and its only source of time, tasks and randomness: gRPC on tokio in production
//! ([`Grpc`]), a simulated network in the simulator.

mod grpc;

pub use grpc::Grpc;

use crate::Result;
use futures::future::{Either, select};
use kontiki_proto::calls::Call;
use kontiki_proto::{Code, pdpb};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// How a client reaches its cluster. Clones share connections.
pub trait Transport: Clone + Send + Sync + 'static {
    /// A connection to one node, which is established at its first use and again after failures.
    type Channel: Clone + Send + Sync + 'static;
    /// A stream of timestamps.
    type Timestamps: Timestamps;

    /// A connection to `address`, with or without a scheme. Sends nothing yet; fails if the address is malformed.
    fn channel(&self, address: &str) -> Result<Self::Channel>;

    /// Makes a call. It has no time limit of its own; when it is dropped, its answer is not awaited.
    fn call<C: Call>(
        &self,
        channel: &Self::Channel,
        request: C::Request,
    ) -> impl Future<Output = std::result::Result<C::Reply, Failure>> + Send;

    /// Opens a stream of timestamps.
    fn timestamps(
        &self,
        channel: &Self::Channel,
    ) -> impl Future<Output = std::result::Result<Self::Timestamps, Failure>> + Send;

    /// The time since any moment in the past; it never goes back.
    fn now(&self) -> Duration;

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send;

    /// Runs `task` to its end, or as long as the program runs.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// A random number, to spread retries.
    fn random(&self) -> u64;
}

/// A stream of timestamps: one request at a time.
pub trait Timestamps: Send + 'static {
    /// The answer to `request`.
    fn ask(
        &mut self,
        request: pdpb::TsoRequest,
    ) -> impl Future<Output = std::result::Result<pdpb::TsoResponse, Failure>> + Send;
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure; [`Code::Unavailable`] if the node was not reached.
    pub code: Code,
    /// What the server reports; empty if it was not reached.
    pub message: String,
    /// The same with its kind and causes, for people.
    pub text: String,
    /// The request was certainly not sent, for instance because the connection was refused.
    pub is_unsent: bool,
    /// How the node and this client do not agree on TLS or on certificates: the same fails again until options or
    /// files change.
    pub refusal: Option<String>,
}

impl Failure {
    pub(crate) fn closed(text: &str) -> Failure {
        Failure {
            code: Code::Unavailable,
            message: String::new(),
            text: text.to_string(),
            is_unsent: false,
            refusal: None,
        }
    }
}

/// The output of `future`, unless it takes longer than `limit`.
pub(crate) async fn within<T: Transport, F: Future>(transport: &T, limit: Duration, future: F) -> Option<F::Output> {
    match select(pin!(future), pin!(transport.sleep(limit))).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
