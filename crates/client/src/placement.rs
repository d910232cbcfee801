//! Calls to the placement driver. Every node answers them, itself or by proxy, so any endpoint will do.

use crate::backoff::Backoff;
use crate::{Error, Options};
use kontiki_proto::pdpb::{self, pd_client::PdClient};
use parking_lot::Mutex;
use std::future::Future;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// The largest answer that is decoded: servers bound theirs to 65 MiB and a little.
pub(crate) const MESSAGE_BYTES_MAX: usize = 96 << 20;
/// Bytes of an answer's headers: servers send some hundreds.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

struct Node {
    url: String,
    channel: Channel,
}

/// A list of endpoints, and which one answered last.
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

    /// Learns of the other nodes, so that the given endpoints may go away later.
    pub(crate) async fn discover(&self, backoff: &mut Backoff) -> Result<(), Error> {
        let request = pdpb::GetMembersRequest::default();
        let call = async |mut pd: PdClient<Channel>, request| pd.get_members(request).await;
        let reply = self.call(request, backoff, call, |reply| reply.header.as_ref()).await?;
        for url in reply.members.iter().flat_map(|member| &member.client_urls) {
            if let Err(error) = self.add(url) {
                tracing::debug!(%url, %error, "a member's URL is of no use");
            }
        }
        Ok(())
    }

    /// The client of the node that answered last.
    pub(crate) fn pd(&self) -> PdClient<Channel> {
        let nodes = self.nodes.lock();
        let at = *self.current.lock() % nodes.len();
        PdClient::new(nodes[at].channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// That node failed: the next one is asked from now on.
    pub(crate) fn next(&self) {
        *self.current.lock() += 1;
    }

    /// Makes a call until some node answers it without an error.
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
            let answer = tokio::time::timeout(limit, call(self.pd(), Request::new(request.clone()))).await;
            let obstacle = match answer {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    match header(&reply).and_then(|header| header.error.as_ref()) {
                        None => return Ok(reply),
                        Some(error) => format!("the placement driver answers: {}", error.message),
                    }
                }
                Ok(Err(status)) => format!("the placement driver fails: {}", describe(&status)),
                Err(_) => "the placement driver does not answer".to_string(),
            };
            self.next();
            backoff.pause(obstacle).await?;
        }
    }
}

/// A status with its causes, which hold the interesting part of a failed connection.
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
