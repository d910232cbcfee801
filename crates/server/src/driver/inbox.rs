//! The driver's input from other threads: requests, messages of other nodes, completions.
//!
//! Bounds: requests are admitted with a [`Permit`] that is held until their answer, so the bound covers the whole path
//! and not only the queue; above it they are refused as busy. Raft messages above their bound are dropped, as a network
//! may drop them. Completions are never refused: there is at most one per operation that the driver started.

use super::arrivals::Arrival;
use super::counters::Counters;
use super::error::{NoChecksum, NodeError};
use super::snapshots::{SnapshotPath, SnapshotSource};
use super::surveys::Found;
use bytes::Bytes;
use futures::channel::oneshot;
use kontiki_engine::WriteBatch;
use kontiki_placement::{Request, Response};
use kontiki_raftstore::snapshot::{FileId, InstallError, SnapshotFile, SnapshotHead};
use kontiki_raftstore::{CheckOutcome, Epoch, ReadId, Region, RegionId, ReplicaLag, SafeTsClaim, StoreId, ViewId};
use kontiki_txn::WaitFor;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a view was of: a proposal that depends on it is refused in any other leadership, and once versions that the
/// view has may be missing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub term: u64,
    pub gc_safe_point: u64,
}

/// The maximum number of requests that wait for an answer. Each costs a few hundred bytes besides its batch.
const REQUESTS_MAX: usize = 16 << 10;
/// The maximum bytes of proposals that wait for an answer: the log, the messages and the memtable may hold twice as
/// much for a moment.
const PROPOSAL_BYTES_MAX: usize = 256 << 20;
/// The maximum bytes of messages from other nodes that wait for the driver. Raft's own windows stay below it unless the
/// driver is stuck.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The maximum number of messages from other nodes that wait.
const MESSAGES_MAX: usize = 64 << 10;

/// The lane of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LaneKind {
    Persist,
    Apply,
}

/// A change of a region's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChange {
    /// The store gets a replica, which does not vote.
    AddLearner(StoreId),
    /// The store's replica is removed.
    Remove(StoreId),
    /// The roles of replicas change, in one step: those that vote from now on, and those that do not any more.
    Roles {
        /// Their replicas do not vote yet.
        promote: Vec<StoreId>,
        /// Their replicas vote.
        demote: Vec<StoreId>,
    },
}

/// One input of the driver.
pub(super) enum Input {
    Message {
        from: StoreId,
        bytes: Bytes,
    },
    Propose {
        region: RegionId,
        epoch: Epoch,
        /// It depends on a view.
        bound: Option<Bound>,
        batch: WriteBatch,
        reply: Reply<u64>,
    },
    Barrier {
        region: RegionId,
        epoch: Epoch,
        reply: Reply<u64>,
    },
    ReplicaRead {
        region: RegionId,
        epoch: Epoch,
        read_at: u64,
        reply: Reply<u64>,
    },
    ReplicaShows {
        region: RegionId,
        index: u64,
        reply: Reply<u64>,
    },
    /// A transaction waits for another one; the channel gets the circle that this closes, if any.
    WaitBegins {
        wait: WaitFor,
        found: oneshot::Sender<Vec<WaitFor>>,
    },
    WaitEnds {
        wait: WaitFor,
    },
    Placement {
        request: Request,
        deadline: Duration,
        reply: Reply<Response>,
    },
    Committed {
        lane: LaneKind,
        result: kontiki_engine::Result<()>,
    },
    Found(Found),
    SnapshotPrepared {
        region: RegionId,
        view: ViewId,
        result: Result<(SnapshotSource, SnapshotHead), String>,
    },
    SnapshotInstalled {
        region: RegionId,
        file: FileId,
        result: Result<(), InstallError>,
    },
    SnapshotSent {
        region: RegionId,
        to: StoreId,
        view: ViewId,
        ok: bool,
    },
    /// The arrival keeps the file until raftstore has seen this.
    SnapshotReceived {
        message: Bytes,
        file: SnapshotFile,
        arrival: Arrival,
    },
    /// A file is about to be removed.
    SnapshotRemoval {
        file: FileId,
    },
    /// Every file under `snapshots/`.
    SnapshotFiles {
        paths: Vec<SnapshotPath>,
    },
    Split {
        region: RegionId,
        epoch: Epoch,
        keys: Vec<Bytes>,
        reply: Reply<Vec<Region>>,
    },
    Merge {
        source: RegionId,
        target: RegionId,
        reply: Reply<Region>,
    },
    ChangeMembers {
        region: RegionId,
        change: StoreChange,
        reply: Reply<Region>,
    },
    TransferLeader {
        region: RegionId,
        to: StoreId,
    },
    StopLeading {
        reply: Reply<()>,
    },
    Check {
        region: RegionId,
        reply: Reply<CheckOutcome>,
    },
    /// What is known of the log of a replica here.
    ReplicaLag {
        region: RegionId,
        reply: Reply<ReplicaLag>,
    },
    /// Entries of a log were read.
    EntriesRead {
        region: RegionId,
        id: ReadId,
        result: kontiki_engine::Result<Vec<Bytes>>,
    },
    /// A checksum of a region's data was computed.
    Checksummed {
        region: RegionId,
        index: u64,
        result: Result<u64, NoChecksum>,
    },
    /// The oldest locks of regions were found.
    SafeTs {
        claims: Vec<SafeTsClaim>,
    },
    /// A read met damaged data.
    Damaged,
    /// The connection to a store broke, or could not be made.
    Unreachable {
        store: StoreId,
    },
    GenerationFailed {
        error: kontiki_engine::Error,
    },
}

/// The reply channel of a request. If it is dropped without an answer, the caller gets the error that the node stopped.
pub(super) struct Reply<T> {
    sender: oneshot::Sender<Result<T, NodeError>>,
    _permit: Permit,
}

impl<T> Reply<T> {
    pub(super) fn new(permit: Permit) -> (Reply<T>, oneshot::Receiver<Result<T, NodeError>>) {
        let (sender, receiver) = oneshot::channel();
        (Reply { sender, _permit: permit }, receiver)
    }

    pub(super) fn send(self, answer: Result<T, NodeError>) {
        // A caller that gave up no longer waits: its answer is dropped.
        let _ = self.sender.send(answer);
    }
}

/// The permit for one waiting request; released when dropped.
pub(super) struct Permit {
    inbox: Arc<Inbox>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inbox.requests.fetch_sub(1, Ordering::Relaxed);
        self.inbox.request_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

type Waker = Box<dyn Fn() + Send + Sync>;

/// The driver's queue. Any thread pushes, the driver drains.
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    waker: Mutex<Option<Arc<Waker>>>,
    requests: AtomicUsize,
    request_bytes: AtomicUsize,
    counters: Arc<Counters>,
    /// Why the connection to each store last failed, and when: for people, so the driver does not read it.
    pub(super) peer_failures: Mutex<BTreeMap<StoreId, (String, Duration)>>,
}

#[derive(Default)]
struct Queue {
    inputs: VecDeque<Input>,
    messages_count: usize,
    message_bytes: usize,
    closed: bool,
}

impl Inbox {
    pub(super) fn new(counters: Arc<Counters>) -> Inbox {
        Inbox {
            queue: Mutex::default(),
            waker: Mutex::default(),
            peer_failures: Mutex::default(),
            requests: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(0),
            counters,
        }
    }

    /// Called when there is work for the driver; without locks held, from any thread.
    pub(super) fn set_waker(&self, waker: Waker) {
        *self.waker.lock() = Some(Arc::new(waker));
    }

    /// Admits a request that carries `bytes`.
    pub(super) fn admit(self: &Arc<Inbox>, bytes: usize) -> Result<Permit, NodeError> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.request_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let permit = Permit { inbox: self.clone(), bytes };
        // A single request is admitted with any size: its own limits are checked elsewhere.
        if requests > REQUESTS_MAX || (total > PROPOSAL_BYTES_MAX && requests > 1) {
            self.counters.busy.increment();
            return Err(NodeError::Busy("too many requests wait for an answer"));
        }
        Ok(permit)
    }

    /// Admits a request without regard to the bounds.
    pub(super) fn admit_always(self: &Arc<Inbox>) -> Permit {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Permit { inbox: self.clone(), bytes: 0 }
    }

    /// Requests that were admitted and have no answer yet.
    pub(super) fn requests_waiting(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Queues an input, unless the driver has ended.
    pub(super) fn push(&self, input: Input) {
        let was_empty = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return; // Dropping the input drops its reply, which notifies the caller.
            }
            let was_empty = queue.inputs.is_empty();
            queue.inputs.push_back(input);
            was_empty
        };
        if was_empty {
            self.wake();
        }
    }

    /// Queues a message of another node, or drops it if too many wait.
    pub(super) fn push_message(&self, from: StoreId, bytes: Bytes) {
        let was_empty = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return;
            }
            if queue.messages_count >= MESSAGES_MAX || queue.message_bytes + bytes.len() > MESSAGE_BYTES_MAX {
                self.counters.messages_dropped.increment();
                return;
            }
            queue.messages_count += 1;
            queue.message_bytes += bytes.len();
            let was_empty = queue.inputs.is_empty();
            queue.inputs.push_back(Input::Message { from, bytes });
            was_empty
        };
        if was_empty {
            self.wake();
        }
    }

    /// Everything queued, in order.
    pub(super) fn drain(&self) -> VecDeque<Input> {
        let mut queue = self.queue.lock();
        queue.messages_count = 0;
        queue.message_bytes = 0;
        std::mem::take(&mut queue.inputs)
    }

    /// Whether nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().inputs.is_empty()
    }

    /// Accepts no further input; what is queued is dropped, so its callers are notified.
    pub(super) fn close(&self) {
        let inputs = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.inputs)
        };
        drop(inputs); // Outside the lock: replies may wake tasks that push again.
    }

    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker();
        }
    }
}

#[cfg(test)]
#[path = "inbox_test.rs"]
mod tests;
