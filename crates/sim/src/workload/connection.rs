//! The simulated network as the transport of the real client.

use super::Records;
use super::behaviour::BehaviourState;
use crate::check::timestamps::Grant;
use crate::executor::Handle;
use crate::history::History;
use crate::wire::{Answer, Request};
use crate::world::{CLIENTS, CallError, Caller, NodeId};
use bytes::Bytes;
use kontiki_client::transport::{Failure, Timestamps, Transport};
use kontiki_client::{Client, Error, Options};
use kontiki_env::rng::Rng;
use kontiki_proto::Code;
use kontiki_proto::calls::{Call, GetRegion};
use kontiki_proto::pdpb::{GetRegionResponse, TsoRequest, TsoResponse};
use kontiki_server::grpc::TSO_PATH;
use parking_lot::Mutex;
use prost::Message;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any client waits for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait between two tries to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Bits of the logical part of a timestamp.
pub(super) const LOGICAL_BITS: u32 = 18;

/// One client's connection to the nodes. Clones are the same client. What clients share is behind locks because the
/// tasks of the real client must be `Send`, although the simulator has one thread.
#[derive(Clone)]
pub struct Connection {
    caller: Caller,
    rng: Arc<Mutex<Rng>>,
    history: Arc<Mutex<History>>,
    grants: Arc<Mutex<Vec<Grant>>>,
    behaviour: Option<Arc<Mutex<BehaviourState>>>,
}

impl Connection {
    /// A connection that records the timestamps it gets.
    pub fn new(caller: Caller, rng: Rng, records: &Records) -> Connection {
        let (history, grants) = (records.history.clone(), records.grants.clone());
        Connection { caller, rng: Arc::new(Mutex::new(rng)), history, grants, behaviour: None }
    }

    /// The connection of a client that deviates from a well-behaved one: see [`BehaviourState`].
    pub fn with_behaviour(self, behaviour: Arc<Mutex<BehaviourState>>) -> Connection {
        Connection { behaviour: Some(behaviour), ..self }
    }

    /// The client's number.
    pub fn client(&self) -> u64 {
        self.caller.client()
    }

    /// The executor, for sleeping and the time.
    pub fn executor(&self) -> &Handle {
        self.caller.executor()
    }

    /// The encoded reply of a node to an encoded request.
    pub async fn exchange(&self, node: NodeId, path: &str, message: Bytes) -> Result<Bytes, Failure> {
        let request = Request { path: path.to_owned(), message }.encode_to_vec();
        match self.caller.call(node, request.into(), ANSWER_WAIT_MAX).await {
            Ok(answer) => {
                let answer = Answer::decode(answer).expect("nodes' answers decode").into_result();
                answer.inspect(|reply| check_reply(path, reply)).map_err(|status| Failure {
                    code: status.code(),
                    message: status.message().to_owned(),
                    text: status.to_string(),
                    is_unsent: false,
                    refusal: None,
                })
            }
            Err(CallError::Refused) => Err(unavailable("the node is down", true)),
            Err(CallError::Reset | CallError::TimedOut) => Err(unavailable("the connection broke", false)),
        }
    }
}

/// What every answer promises.
///
/// # Panics
/// If it does not keep that, which is a violation.
fn check_reply(path: &str, reply: &Bytes) {
    if path == GetRegion::PATH {
        let reply = GetRegionResponse::decode(reply.clone()).expect("nodes' replies decode");
        assert!(reply.region.is_some() && reply.leader.is_some(), "every key has a region, and its leader is said");
    }
}

fn unavailable(text: &str, is_unsent: bool) -> Failure {
    Failure { code: Code::Unavailable, message: String::new(), text: text.to_owned(), is_unsent, refusal: None }
}

impl Transport for Connection {
    type Channel = NodeId;
    type Timestamps = TimestampStream;

    /// Addresses are those of a cluster's members: `node-1:20160`.
    fn channel(&self, address: &str) -> kontiki_client::Result<NodeId> {
        let number = address.strip_prefix("node-").and_then(|rest| rest.split(':').next()?.parse().ok());
        number.ok_or_else(|| Error::Invalid(format!("{address} is not the address of a node")))
    }

    async fn call<C: Call>(&self, node: &NodeId, request: C::Request) -> Result<C::Reply, Failure> {
        let message = request.encode_to_vec().into();
        let reply = match &self.behaviour {
            None => self.exchange(*node, C::PATH, message).await?,
            Some(behaviour) => BehaviourState::exchange(behaviour, self, *node, C::PATH, message).await?,
        };
        Ok(C::Reply::decode(reply).expect("nodes' replies decode"))
    }

    async fn timestamps(&self, node: &NodeId) -> Result<TimestampStream, Failure> {
        Ok(TimestampStream { connection: self.clone(), node: *node })
    }

    fn now(&self) -> Duration {
        self.executor().now()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        self.executor().sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor().spawn(CLIENTS, task);
    }

    fn random(&self) -> u64 {
        self.rng.lock().next_u64()
    }
}

/// Timestamps of one node, each request a call.
pub struct TimestampStream {
    connection: Connection,
    node: NodeId,
}

impl Timestamps for TimestampStream {
    async fn ask(&mut self, request: TsoRequest) -> Result<TsoResponse, Failure> {
        let Connection { history, grants, .. } = &self.connection;
        let invoked = history.lock().event();
        let reply = self.connection.exchange(self.node, TSO_PATH, request.encode_to_vec().into()).await?;
        let completed = history.lock().event();
        let reply = TsoResponse::decode(reply).expect("nodes' replies decode");
        if let Some(last) = &reply.timestamp {
            let last = (last.physical as u64) << LOGICAL_BITS | last.logical as u64;
            let (client, count) = (self.connection.client(), u64::from(reply.count));
            grants.lock().push(Grant { client, invoked, completed, first: last + 1 - count, count });
        }
        Ok(reply)
    }
}

/// The options of a client whose operations take at most `operation_timeout`. A hasty one gives up a request soon:
/// where leaders change many times per second, clients with longer timeouts would make no progress.
pub fn options(operation_timeout: Duration, is_hasty: bool) -> Options {
    let (request_ms, backoff_ms) = if is_hasty { (60, 8) } else { (1_000, 100) };
    Options {
        operation_timeout,
        request_timeout: Duration::from_millis(request_ms),
        backoff_max: Duration::from_millis(backoff_ms),
        ..Options::default()
    }
}

/// A client of the cluster with these nodes; waits until one answers.
pub async fn connect(connection: Connection, nodes: Vec<NodeId>, options: Options) -> Client<Connection> {
    let endpoints: Vec<String> = nodes.iter().map(|node| format!("node-{node}:20160")).collect();
    loop {
        match Client::connect_over(connection.clone(), &endpoints, options.clone()).await {
            Ok(client) => return client,
            Err(_) => connection.executor().sleep(CONNECT_PAUSE).await,
        }
    }
}
