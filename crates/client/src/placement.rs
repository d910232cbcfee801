//! Calls to the placement driver. Every node answers them, itself or as a proxy, so any endpoint can be used.

use crate::backoff::Backoff;
use crate::transport::{Failure, Transport, within};
use crate::{Error, Options};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kontiki_proto::calls::{GetMembers, PlacementCall};
use kontiki_proto::{Code, pdpb};
use parking_lot::Mutex;

struct Node<C> {
    url: String,
    channel: C,
}

/// A list of endpoints, and the one that answered last.
pub(crate) struct Placement<T: Transport> {
    transport: T,
    nodes: Mutex<Vec<Node<T::Channel>>>,
    current: Mutex<usize>,
    options: Options,
}

impl<T: Transport> Placement<T> {
    pub(crate) fn new(transport: T, endpoints: &[String], options: &Options) -> Result<Placement<T>, Error> {
        if endpoints.is_empty() {
            return Err(Error::Invalid("no endpoint is given; host:port of any node is expected".to_string()));
        }
        let (nodes, current) = (Mutex::default(), Mutex::new(0));
        let placement = Placement { transport, nodes, current, options: options.clone() };
        for endpoint in endpoints {
            placement.add(endpoint)?;
        }
        Ok(placement)
    }

    fn add(&self, endpoint: &str) -> Result<(), Error> {
        let bare = endpoint.split_once("://").map_or(endpoint, |(_, bare)| bare).trim_end_matches('/');
        let mut nodes = self.nodes.lock();
        if nodes.iter().all(|node| node.url != bare) {
            nodes.push(Node { url: bare.to_string(), channel: self.transport.channel(bare)? });
        }
        Ok(())
    }

    /// Asks for the other nodes, so that the given endpoints may become unavailable later. All known nodes are asked at
    /// the same time: a node that hangs, or whose machine is down, does not delay the answers of the others.
    pub(crate) async fn discover(&self, backoff: &mut Backoff<T>) -> Result<(), Error> {
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
            // A node in another state does not change what the others refuse, so one that is down is no reason to wait.
            if let Some(refusal) = obstacles.iter().find_map(|obstacle| obstacle.refusal.clone()) {
                return Err(Error::Invalid(refusal));
            }
            backoff.pause(obstacles.first().map_or("no node answers", |obstacle| &obstacle.text)).await?;
        }
    }

    /// The first answer with the members, and the number of the node it came from; or why no node answered.
    async fn ask_all(&self, backoff: &Backoff<T>) -> Result<(usize, pdpb::GetMembersResponse), Vec<Obstacle>> {
        let channels: Vec<T::Channel> = self.nodes.lock().iter().map(|node| node.channel.clone()).collect();
        let asked = channels.into_iter().enumerate().map(|(at, channel)| async move {
            let reply = self.ask::<GetMembers>(&channel, pdpb::GetMembersRequest::default(), backoff).await;
            reply.map(|reply| (at, reply))
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

    /// The node that answered last.
    pub(crate) fn channel(&self) -> T::Channel {
        let nodes = self.nodes.lock();
        let at = *self.current.lock() % nodes.len();
        nodes[at].channel.clone()
    }

    /// That node failed: the next one is asked from now on.
    pub(crate) fn next(&self) {
        *self.current.lock() += 1;
    }

    /// Repeats a call until a node answers it without an error.
    pub(crate) async fn call<C: PlacementCall>(
        &self,
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<C::Reply, Error> {
        loop {
            match self.ask::<C>(&self.channel(), request.clone(), backoff).await {
                Ok(reply) => return Ok(reply),
                Err(obstacle) => {
                    self.next();
                    backoff.pause(obstacle.text).await?;
                }
            }
        }
    }

    /// One call to one node.
    async fn ask<C: PlacementCall>(
        &self,
        channel: &T::Channel,
        request: C::Request,
        backoff: &Backoff<T>,
    ) -> Result<C::Reply, Obstacle> {
        let limit = backoff.remaining(self.options.request_timeout);
        match within(&self.transport, limit, self.transport.call::<C>(channel, request)).await {
            Some(Ok(reply)) => match C::header(&reply).and_then(|header| header.error.as_ref()) {
                None => Ok(reply),
                Some(error) => Err(Obstacle::new(format!("the placement driver answers: {}", error.message))),
            },
            Some(Err(failure)) => Err(failure.into()),
            None => Err(Obstacle::new(backoff.unanswered("the placement driver does not answer".to_string()))),
        }
    }
}

/// Why a node did not answer.
struct Obstacle {
    text: String,
    /// It is not a placement service.
    is_foreign: bool,
    /// Why it does not accept this client, nor will the next time.
    refusal: Option<String>,
}

impl Obstacle {
    fn new(text: String) -> Obstacle {
        Obstacle { text, is_foreign: false, refusal: None }
    }
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Obstacle {
        let text = format!("the placement driver fails: {}", failure.text);
        Obstacle { text, is_foreign: failure.code == Code::Unimplemented, refusal: failure.refusal }
    }
}
