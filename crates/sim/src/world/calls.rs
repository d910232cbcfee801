//! Requests of clients to nodes and their answers, over the simulated network.

use super::node::NodeId;
use crate::executor::{Handle, Sleep};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The node was down when the request arrived: nothing was done.
    Refused,
    /// The connection broke while the request was being served: its outcome is unknown.
    Reset,
    /// No answer in time: the outcome is unknown.
    TimedOut,
}

/// A packet between a client and a node.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Request(Bytes),
    Answer(Result<Bytes, CallError>),
}

#[derive(Clone, Debug)]
pub(super) struct CallPacket {
    pub(super) call: u64,
    pub(super) client: u64,
    pub(super) node: NodeId,
    pub(super) parcel: Parcel,
}

#[derive(Default)]
pub(super) struct Calls {
    next_call: u64,
    /// Packets to hand to the network.
    outbox: Vec<CallPacket>,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Default)]
struct Waiting {
    answer: Option<Result<Bytes, CallError>>,
    waker: Option<Waker>,
}

/// Behind a lock because a client's tasks must be `Send`, although the simulator has one thread.
pub(super) type SharedCalls = Arc<Mutex<Calls>>;

impl Calls {
    pub(super) fn take_outbox(&mut self) -> Vec<CallPacket> {
        std::mem::take(&mut self.outbox)
    }

    /// An answer arrived at the client. Late and repeated ones are ignored.
    pub(super) fn answered(&mut self, call: u64, answer: Result<Bytes, CallError>) {
        let Some(waiting) = self.waiting.get_mut(&call) else { return };
        waiting.answer.get_or_insert(answer);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }
}

/// A client's connection to the nodes. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    pub(super) client: u64,
    pub(super) calls: SharedCalls,
    pub(super) executor: Handle,
}

impl Caller {
    /// The client's number.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// The executor, for sleeping and the time.
    pub fn executor(&self) -> &Handle {
        &self.executor
    }

    /// Sends a request and waits for its answer, at most `timeout`.
    pub fn call(&self, node: NodeId, request: Bytes, timeout: Duration) -> Call {
        let mut calls = self.calls.lock();
        calls.next_call += 1;
        let call = calls.next_call;
        calls.waiting.insert(call, Waiting::default());
        calls.outbox.push(CallPacket { call, client: self.client, node, parcel: Parcel::Request(request) });
        Call { call, calls: Arc::clone(&self.calls), timeout: self.executor.sleep(timeout) }
    }
}

/// A call in progress; see [`Caller::call`].
pub struct Call {
    call: u64,
    calls: SharedCalls,
    timeout: Sleep,
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        {
            let mut calls = self.calls.lock();
            let waiting = calls.waiting.get_mut(&self.call).expect("it waits until it is dropped");
            if let Some(answer) = waiting.answer.take() {
                return Poll::Ready(answer);
            }
            waiting.waker = Some(context.waker().clone());
        }
        Pin::new(&mut self.timeout).poll(context).map(|()| Err(CallError::TimedOut))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let waiting = self.calls.lock().waiting.remove(&self.call);
        drop(waiting);
    }
}

/// The reply channel to a client. Dropping it without an answer (as a crash does) breaks the connection.
pub struct Reply {
    pub(super) call: u64,
    pub(super) client: u64,
    pub(super) node: NodeId,
    pub(super) calls: SharedCalls,
    pub(super) is_sent: bool,
}

impl Reply {
    /// The client.
    pub fn client(&self) -> u64 {
        self.client
    }

    /// Answers.
    pub fn send(mut self, answer: Bytes) {
        self.push(Ok(answer));
    }

    fn push(&mut self, answer: Result<Bytes, CallError>) {
        self.is_sent = true;
        let packet =
            CallPacket { call: self.call, client: self.client, node: self.node, parcel: Parcel::Answer(answer) };
        self.calls.lock().outbox.push(packet);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.push(Err(CallError::Reset));
        }
    }
}
