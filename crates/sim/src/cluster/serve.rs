//! The services of a simulated node: the real `server::kv`, with the world's time instead of tokio's.

use super::wire::{Ask, Request, Response};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use kontiki_server::api::{RetryBudget, Sleep};
use kontiki_server::driver::NodeHandle;
use kontiki_server::kv::Kv;
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
    node: NodeHandle,
    kv: Kv<NodeHandle>,
}

impl Services {
    /// The services of `node`; their timers and background futures are collected in `tasks`.
    pub fn new(node: NodeHandle, tasks: &ServiceTasks) -> Services {
        let (pausing, detaching) = (tasks.clone(), tasks.clone());
        let pause: Sleep = Arc::new(move |duration| pausing.pause(duration));
        let detach = Arc::new(move |future| detaching.detach(future));
        Services { kv: Kv::new(node.clone(), RetryBudget::new(LEADER_WAIT_MAX, pause), detach), node }
    }

    /// Transactional commands that hold latches or wait for them.
    pub fn commands_latched(&self) -> usize {
        self.kv.commands_latched()
    }

    /// Serves a request.
    pub async fn serve(self, request: Bytes) -> Bytes {
        let ask = Request::decode(request).ok().and_then(|request| request.ask);
        let kv = &self.kv;
        let response = match ask.expect("the simulator's own requests decode") {
            Ask::Placement(request) => match self.node.placement(request).await {
                Ok(response) => Response::Placement(response),
                Err(error) => Response::Status(error.to_string()),
            },
            Ask::RawGet(request) => Response::RawGet(kv.raw_get(request).await),
            Ask::RawPut(request) => Response::RawPut(kv.raw_put(request).await),
            Ask::RawDelete(request) => Response::RawDelete(kv.raw_delete(request).await),
            Ask::RawBatchGet(request) => Response::RawBatchGet(kv.raw_batch_get(request).await),
            Ask::RawBatchPut(request) => Response::RawBatchPut(kv.raw_batch_put(request).await),
            Ask::RawBatchDelete(request) => Response::RawBatchDelete(kv.raw_batch_delete(request).await),
            Ask::RawScan(request) => Response::RawScan(kv.raw_scan(request).await),
            Ask::RawDeleteRange(request) => Response::RawDeleteRange(kv.raw_delete_range(request).await),
            Ask::Get(request) => Response::Get(kv.get(request).await),
            Ask::BatchGet(request) => Response::BatchGet(kv.batch_get(request).await),
            Ask::Scan(request) => Response::Scan(kv.scan(request).await),
            Ask::Prewrite(request) => Response::Prewrite(kv.prewrite(request).await),
            Ask::Commit(request) => Response::Commit(kv.commit(request).await),
            Ask::CheckTxnStatus(request) => Response::CheckTxnStatus(kv.check_txn_status(request).await),
            Ask::ResolveLock(request) => Response::ResolveLock(kv.resolve_lock(request).await),
            Ask::BatchRollback(request) => Response::BatchRollback(kv.batch_rollback(request).await),
            Ask::Cleanup(request) => Response::Cleanup(kv.cleanup(request).await),
            Ask::TxnHeartBeat(request) => Response::TxnHeartBeat(kv.txn_heart_beat(request).await),
            Ask::ScanLock(request) => Response::ScanLock(kv.scan_lock(request).await),
        };
        response.into_bytes()
    }
}
