//! Calls to the placement driver. Every node answers them, itself or as a proxy, so any endpoint can be used.

use crate::backoff::Backoff;
use crate::{Error, Options};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kontiki_proto::pdpb::{self, pd_client::PdClient};
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// The largest answer that is decoded: servers limit their answers to slightly more than 65 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 96 << 20;
/// Maximum bytes of an answer's headers: servers send some hundreds.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

struct Node {
    url: String,
    channel: Channel,
}

impl Node {
    fn pd(&self) -> PdClient<Channel> {
        PdClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A list of endpoints, and the one that answered last.
pub(crate) struct Placement {
    nodes: Mutex<Vec<Node>>,
    current: Mutex<usize>,
    options: Options,
}

/// A channel to `address`, with or without a scheme, that connects at its first use and again after failures.
pub(crate) fn channel(address: &str, options: &Options) -> Result<Channel, Error> {
    let url = if address.contains("://") { address.to_string() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| Error::Invalid(format!("endpoint {address:?}: {error}; host:port is expected")))?;
    let endpoint = endpoint.connect_timeout(options.connect_timeout).tcp_nodelay(true);
    Ok(endpoint.http2_max_header_list_size(HEADER_LIST_BYTES_MAX).connect_lazy())
}

impl Placement {
    pub(crate) fn new(endpoints: &[String], options: &Options) -> Result<Placement, Error> {
        if endpoints.is_empty() {
            return Err(Error::Invalid("no endpoint is given; host:port of any node is expected".to_string()));
        }
        let placement = Placement { nodes: Mutex::default(), current: Mutex::new(0), options: options.clone() };
        for endpoint in endpoints {
            placement.add(endpoint)?;
        }
        Ok(placement)
    }

    fn add(&self, endpoint: &str) -> Result<(), Error> {
        let bare = endpoint.trim_start_matches("http://").trim_end_matches('/');
        let mut nodes = self.nodes.lock();
        if nodes.iter().all(|node| node.url != bare) {
            nodes.push(Node { url: bare.to_string(), channel: channel(bare, &self.options)? });
        }
        Ok(())
    }

    /// Asks for the other nodes, so that the given endpoints may become unavailable later. All known nodes are asked at
    /// the same time: a node that hangs, or whose machine is down, does not delay the answers of the others.
    pub(crate) async fn discover(&self, backoff: &mut Backoff) -> Result<(), Error> {
        loop {
            let obstacles = match self.ask_all(backoff).await {
                Ok((at, reply)) => {
                    *self.current.lock() = at;
                    self.add_members(&reply);
                    return Ok(());
                }
                Err(obstacles) => obstacles,
            };
            if obstacles.iter().all(|obstacle| obstacle.is_foreign) {
                let nodes: Vec<String> = self.nodes.lock().iter().map(|node| node.url.clone()).collect();
                let nodes = nodes.join(", ");
                return Err(Error::Invalid(format!(
                    "{nodes} is not the client address of a node; is it a node's status port?"
                )));
            }
            backoff.pause(obstacles.first().map_or("no node answers", |obstacle| &obstacle.text)).await?;
        }
    }

    /// The first answer with the members, and the number of the node it came from; or why no node answered.
    async fn ask_all(&self, backoff: &Backoff) -> Result<(usize, pdpb::GetMembersResponse), Vec<Obstacle>> {
        let clients: Vec<PdClient<Channel>> = self.nodes.lock().iter().map(Node::pd).collect();
        let limit = backoff.remaining(self.options.request_timeout);
        let asked = clients.into_iter().enumerate().map(|(at, mut pd)| async move {
            let call = async move { pd.get_members(pdpb::GetMembersRequest::default()).await };
            outcome(limit, call, |reply| reply.header.as_ref()).await.map(|reply| (at, reply))
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut obstacles = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => return Ok(answer),
                Err(obstacle) => obstacles.push(obstacle),
            }
        }
        Err(obstacles)
    }

    fn add_members(&self, reply: &pdpb::GetMembersResponse) {
        for url in reply.members.iter().flat_map(|member| &member.client_urls) {
            if let Err(error) = self.add(url) {
                tracing::debug!(%url, %error, "a member's URL cannot be used");
            }
        }
    }

    /// The client of the node that answered last.
    pub(crate) fn pd(&self) -> PdClient<Channel> {
        let nodes = self.nodes.lock();
        let at = *self.current.lock() % nodes.len();
        nodes[at].pd()
    }

    /// That node failed: the next one is asked from now on.
    pub(crate) fn next(&self) {
        *self.current.lock() += 1;
    }

    /// Repeats a call until a node answers it without an error.
    pub(crate) async fn call<Q: Clone, A, F>(
        &self,
        request: Q,
        backoff: &mut Backoff,
        call: impl Fn(PdClient<Channel>, Request<Q>) -> F,
        header: impl Fn(&A) -> Option<&pdpb::ResponseHeader>,
    ) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        loop {
            let limit = backoff.remaining(self.options.request_timeout);
            let obstacle = match outcome(limit, call(self.pd(), Request::new(request.clone())), &header).await {
                Ok(reply) => return Ok(reply),
                Err(obstacle) => obstacle,
            };
            self.next();
            backoff.pause(obstacle.text).await?;
        }
    }
}

/// Why a node did not answer.
struct Obstacle {
    text: String,
    /// It is not a placement service.
    is_foreign: bool,
}

/// The outcome of one call to one node.
async fn outcome<A>(
    limit: Duration,
    call: impl Future<Output = Result<Response<A>, Status>>,
    header: impl Fn(&A) -> Option<&pdpb::ResponseHeader>,
) -> Result<A, Obstacle> {
    let (text, is_foreign) = match tokio::time::timeout(limit, call).await {
        Ok(Ok(reply)) => {
            let reply = reply.into_inner();
            match header(&reply).and_then(|header| header.error.as_ref()) {
                None => return Ok(reply),
                Some(error) => (format!("the placement driver answers: {}", error.message), false),
            }
        }
        Ok(Err(status)) => {
            let text = format!("the placement driver fails: {}", describe(&status));
            (text, status.code() == Code::Unimplemented)
        }
        Err(_) => ("the placement driver does not answer".to_string(), false),
    };
    Err(Obstacle { text, is_foreign })
}

/// A status with its causes, which contain the details of a failed connection.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = format!("{}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
