//! The stream to one other store.

use super::negotiate::dial;
use super::version::Versions;
use super::{Channel, Identity, OnFailure, PeerClient, TransportMetrics, describe_status};
use bytes::Bytes;
use futures::StreamExt;
use kontiki_proto::internal::PeerBatch;
use kontiki_raftstore::StoreId;
use kontiki_tls::Credentials;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

/// The maximum number of messages queued for a peer. Raft's windows (256 appends in flight per region) stay far below
/// it for hundreds of busy regions.
pub(super) const QUEUE_MESSAGES_MAX: usize = 16 << 10;
/// The maximum bytes queued for a peer; a single message may have any size.
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;
/// The maximum number of messages of one batch.
const BATCH_MESSAGES_MAX: usize = 512;
/// A batch of this many bytes takes no further message: large enough to spread the cost of a frame, small enough
/// that the receiver starts early.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;
/// First wait after a failure; doubled up to the next.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait: a peer that is started again is found within about a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A stream that lasted this long was accepted.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// Another store, and how it is reached.
pub(super) struct Destination {
    pub(super) store: StoreId,
    pub(super) address: String,
    pub(super) credentials: Option<Arc<Credentials>>,
}

/// The queue of messages for one store; its task empties it.
pub(super) struct Peer {
    address: String,
    queue: mpsc::Sender<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    /// The last stream, or attempt to open one, failed.
    broken: Arc<AtomicBool>,
    metrics: TransportMetrics,
}

impl Peer {
    pub(super) fn start(
        from: Identity,
        to: Destination,
        runtime: &Handle,
        metrics: TransportMetrics,
        on_failure: OnFailure,
    ) -> Peer {
        let (queue, receiver) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox { receiver, queued_bytes: queued_bytes.clone(), metrics: metrics.clone() };
        let broken = Arc::new(AtomicBool::new(false));
        let outbox = Arc::new(Mutex::new(outbox));
        let address = to.address.clone();
        let Destination { store: to, address: dialled, credentials } = to;
        let broken_here = broken.clone();
        let task = Sender { from, to, address: dialled, credentials, outbox, broken: broken_here, metrics, on_failure };
        let metrics = task.metrics.clone();
        runtime.spawn(task.run());
        Peer { address, queue, queued_bytes, broken, metrics }
    }

    pub(super) fn broken(&self) -> Arc<AtomicBool> {
        self.broken.clone()
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn send(&self, message: Bytes) {
        let bytes = message.len();
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if (before > 0 && before + bytes > QUEUE_BYTES_MAX) || self.queue.try_send(message).is_err() {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.dropped.inc();
        }
    }
}

/// The reading end of the queue. It outlives streams: each stream takes it for its lifetime.
struct Outbox {
    receiver: mpsc::Receiver<Bytes>,
    queued_bytes: Arc<AtomicUsize>,
    metrics: TransportMetrics,
}

impl Outbox {
    /// Waits for a message and takes all other queued messages with it; `None` when the transport has ended.
    async fn batch(&mut self) -> Option<Vec<Bytes>> {
        let mut messages = vec![self.receiver.recv().await?];
        let mut bytes = messages[0].len();
        while messages.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(message) = self.receiver.try_recv() else { break };
            bytes += message.len();
            messages.push(message);
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.metrics.batches.inc();
        self.metrics.sent.inc_by(messages.len() as u64);
        self.metrics.sent_bytes.inc_by(bytes as u64);
        Some(messages)
    }

    /// Drops what is queued. False when the transport has ended.
    fn drop_queued(&mut self) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(message) => {
                    self.queued_bytes.fetch_sub(message.len(), Ordering::Relaxed);
                    self.metrics.dropped.inc();
                }
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }
}

/// The task: connect, stream until it breaks, wait, again.
struct Sender {
    from: Identity,
    to: StoreId,
    address: String,
    credentials: Option<Arc<Credentials>>,
    outbox: Arc<Mutex<Outbox>>,
    broken: Arc<AtomicBool>,
    metrics: TransportMetrics,
    on_failure: OnFailure,
}

impl Sender {
    async fn run(self) {
        let mut backoff = BACKOFF_FIRST;
        let mut reported = false;
        loop {
            let error = match dial(self.from, self.to, &self.address, self.credentials.as_ref()).await {
                Ok((client, version)) => {
                    self.metrics.set_version(self.to, version);
                    self.broken.store(false, Ordering::Relaxed);
                    self.metrics.connects.inc();
                    self.metrics.connected.inc();
                    let result = self.stream_steadily(client, version, &mut backoff, &mut reported).await;
                    self.metrics.connected.dec();
                    result.err().unwrap_or_else(|| "the peer closed the stream".into())
                }
                Err(error) => error,
            };
            self.metrics.failures.inc();
            self.broken.store(true, Ordering::Relaxed);
            (self.on_failure)(self.to, &format!("{}: {error}", self.address));
            if !self.outbox.lock().await.drop_queued() {
                return;
            }
            // Once per interruption, not once per attempt: a node that is down for a day must not fill the log.
            if !reported {
                tracing::warn!(store = self.to.0, address = %self.address, %error, "no connection; trying on");
                reported = true;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Streams; after it has succeeded for a while, resets the backoff. Not sooner: a peer that refuses this node
    /// accepts the connection first.
    async fn stream_steadily(
        &self,
        client: PeerClient<Channel>,
        version: u32,
        backoff: &mut Duration,
        reported: &mut bool,
    ) -> Result<(), String> {
        let stream = self.stream(client, version);
        tokio::pin!(stream);
        tokio::select! {
            result = &mut stream => return result,
            () = tokio::time::sleep(STEADY_AFTER) => {}
        }
        *backoff = BACKOFF_FIRST;
        if std::mem::take(reported) {
            tracing::info!(store = self.to.0, address = %self.address, "connected again");
        }
        stream.await
    }

    /// Sends batches until the stream or the transport ends.
    async fn stream(&self, mut client: PeerClient<Channel>, version: u32) -> Result<(), String> {
        let (from, to) = (self.from, self.to);
        let outbox = self.outbox.clone().lock_owned().await;
        let batches = futures::stream::unfold(outbox, |mut outbox| async move {
            let messages = outbox.batch().await?;
            Some((messages, outbox))
        });
        // Ends the stream, and so releases the outbox for the next one, also if HTTP/2 would keep polling it.
        let (alive, ended) = oneshot::channel::<()>();
        let batches = batches.take_until(ended).map(move |messages| PeerBatch {
            cluster_id: from.cluster_id,
            from_store: from.store_id.0,
            to_store: to.0,
            messages,
            version: Versions::stated(version),
        });
        let result = client.stream(batches).await;
        drop(alive);
        result.map(|_| ()).map_err(|status| describe_status(&status))
    }
}
