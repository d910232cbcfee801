//! The services of a simulated node: the real `server::kv` and `server::pd`, with the world's time instead of tokio's.

use crate::wire::{Answer, Request};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use kontiki_server::api::{RetryBudget, Sleep};
use kontiki_server::driver::NodeHandle;
use kontiki_server::grpc::EncodedCalls;
use kontiki_server::kv::Kv;
use kontiki_server::pd::Pd;
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits at a node for a leader: as in production, less than a client waits.
const LEADER_WAIT_MAX: Duration = Duration::from_millis(500);

/// Timers and background futures of the services, collected until the node's next step. Behind a lock because services
/// must be `Send`, although the simulator has one thread.
#[derive(Clone, Default)]
pub struct ServiceTasks {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    detached: Vec<BoxFuture<'static, ()>>,
    pauses: Vec<(Duration, oneshot::Sender<()>)>,
    timers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    timers_count: u64,
}

impl ServiceTasks {
    fn detach(&self, future: BoxFuture<'static, ()>) {
        self.inner.lock().detached.push(future);
    }

    fn pause(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        self.inner.lock().pauses.push((duration, sender));
        Box::pin(async move {
            // The process ended with its timers: this is not polled any more.
            let _ = receiver.await;
        })
    }

    /// Whether there is work at `now`.
    pub fn is_due(&self, now: Duration) -> bool {
        let inner = self.inner.lock();
        let timer = inner.timers.keys().next().is_some_and(|(at, _)| *at <= now);
        timer || !inner.detached.is_empty() || !inner.pauses.is_empty()
    }

    /// Starts and fires timers; returns the detached futures, to be driven to their end.
    pub fn take_due(&self, now: Duration) -> Vec<BoxFuture<'static, ()>> {
        let mut inner = self.inner.lock();
        for (duration, sender) in std::mem::take(&mut inner.pauses) {
            inner.timers_count += 1;
            let key = (now + duration, inner.timers_count);
            inner.timers.insert(key, sender);
        }
        let later = inner.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut inner.timers, later);
        let detached = std::mem::take(&mut inner.detached);
        drop(inner); // Firing a timer wakes a task, which may start another one.
        for sender in due.into_values() {
            let _ = sender.send(());
        }
        detached
    }
}

/// A node's services.
#[derive(Clone)]
pub struct Services {
    calls: EncodedCalls<NodeHandle>,
}

impl Services {
    /// The services of `node`; their timers and background futures are collected in `tasks`.
    pub fn new(node: NodeHandle, tasks: &ServiceTasks) -> Services {
        let (pausing, detaching) = (tasks.clone(), tasks.clone());
        let pause: Sleep = Arc::new(move |duration| pausing.pause(duration));
        let detach = Arc::new(move |future| detaching.detach(future));
        let retry_budget = RetryBudget::new(LEADER_WAIT_MAX, pause);
        // The transport's knowledge of broken streams is not simulated: every store seems reachable.
        let pd = Pd::new(node.clone(), retry_budget.clone(), Arc::new(|_| true));
        Services { calls: EncodedCalls::new(Kv::new(node, retry_budget, detach), pd) }
    }

    /// Transactional commands that hold latches or wait for them.
    pub fn commands_latched(&self) -> usize {
        self.calls.kv().commands_latched()
    }

    /// Serves a request.
    pub async fn serve(self, request: Bytes) -> Bytes {
        let Request { path, message } = Request::decode(request).expect("the simulator's own requests decode");
        let answer: Answer = self.calls.serve(&path, message).await.into();
        answer.encode_to_vec().into()
    }
}
