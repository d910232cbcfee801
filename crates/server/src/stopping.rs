//! The end of a node's services: in which order they end, and how a stream of a client ends.
//!
//! A stream between a client and a node has no end of its own, and HTTP/2 waits for the streams of a connection before
//! it closes the connection. So each stream ends itself, when the services stop: it answers what had arrived, and then
//! ends with the status UNAVAILABLE, which clients take as a request to go elsewhere.

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;

/// Messages of one stream that had arrived when the services stop, and are answered still: more than HTTP/2's windows
/// hold of usual messages. A client that sends more than this at a time gets no answer to the rest.
const ARRIVED_MAX: usize = 1_024;

/// What has ended, in the order in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing.
    Serving,
    /// No connection is accepted, connections of clients end with their last answer, and their streams end.
    Clients,
    /// The streams of other nodes, over which answers to forwarded calls of clients arrive, end too.
    Peers,
}

/// Moves the services from stage to stage.
#[derive(Debug)]
pub struct StopControl(watch::Sender<Stage>);

impl Default for StopControl {
    fn default() -> StopControl {
        StopControl(watch::Sender::new(Stage::Serving))
    }
}

impl StopControl {
    /// The services' side.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }

    /// Everything up to `stage` ends.
    pub fn end(&self, stage: Stage) {
        self.0.send_if_modified(|ended| {
            let is_later = *ended < stage;
            *ended = stage.max(*ended);
            is_later
        });
    }
}

/// Reports which services have to end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stopping(watch::Receiver<Stage>);

impl Stopping {
    /// Done when what belongs to `stage` has to end; also when the node has been dropped.
    pub fn reached(&self, stage: Stage) -> impl Future<Output = ()> + Send + use<> {
        let mut stages = self.0.clone();
        async move {
            let _ = stages.wait_for(|ended| *ended >= stage).await;
        }
    }

    /// The messages of a client's stream, until the services stop: then those that had arrived, and a last status.
    pub fn messages<T, S>(&self, messages: S) -> UntilStop<T, S>
    where
        S: Stream<Item = Result<T, Status>> + Unpin,
    {
        UntilStop { messages, stop: self.reached(Stage::Clients).boxed(), arrived: None }
    }
}

/// See [`Stopping::messages`].
pub struct UntilStop<T, S> {
    messages: S,
    stop: BoxFuture<'static, ()>,
    /// Once the services stop: what is left to return.
    arrived: Option<VecDeque<Result<T, Status>>>,
}

impl<T: Unpin, S: Stream<Item = Result<T, Status>> + Unpin> Stream for UntilStop<T, S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<T, Status>>> {
        if self.arrived.is_none() && self.stop.poll_unpin(context).is_ready() {
            self.arrived = Some(take_arrived(&mut self.messages, context));
        }
        match &mut self.arrived {
            Some(arrived) => Poll::Ready(arrived.pop_front()),
            None => self.messages.poll_next_unpin(context),
        }
    }
}

/// All at once, before any of it is answered: a client that goes on sending does not delay the end.
fn take_arrived<T, S>(messages: &mut S, context: &mut Context<'_>) -> VecDeque<Result<T, Status>>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    let mut arrived = VecDeque::new();
    while arrived.len() < ARRIVED_MAX {
        match messages.poll_next_unpin(context) {
            Poll::Ready(Some(message)) => arrived.push_back(message),
            Poll::Ready(None) => return arrived, // the client has ended the stream: no status is needed
            Poll::Pending => break,
        }
    }
    arrived.push_back(Err(Status::unavailable("the node is stopping; another one answers")));
    arrived
}

#[cfg(test)]
#[path = "stopping_test.rs"]
mod tests;
