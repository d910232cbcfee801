//! Node to node: one long-lived gRPC stream to every other store, and snapshots on separate streams.
//!
//! The contract is that of an unreliable network: a message may be lost, is never altered, and arrives at most once and
//! in order within the lifetime of a stream. Raft and the placement calls tolerate this, so:
//!
//! 1. [`Transport::send`] never blocks and never fails. A message beyond the queue's bounds is dropped and counted.
//!    *Rejected:* backpressure to the driver, because one dead peer would stall every region of the node.
//! 2. While a peer cannot be reached, what was queued for it is dropped at each failed attempt: raft repeats
//!    everything, and a peer that comes back must not process obsolete messages first.
//! 3. All messages that wait when the stream is ready are sent as one batch: the load itself forms the batches.
//! 4. Snapshots are sent separately, so that megabytes of data never delay a heartbeat, few at a time, and all together
//!    at a bounded rate. One whose connection breaks is resumed.
//!
//! Two nodes first agree on a version of what they send (`version.rs`). A stream names cluster, sender and receiver in
//! every batch; the receiver refuses what is not meant for it, so a wrong address in a configuration causes an error
//! and not a wrong raft group.

mod inbound;
mod links;
mod metrics;
mod negotiate;
mod pace;
mod partial;
mod peer;
mod receive;
mod service;
mod snapshot;
mod version;

pub use inbound::NodeInbound;
pub use links::Links;
pub use metrics::TransportMetrics;
pub use service::PeerService;
pub use snapshot::{OutgoingSnapshot, ReceiverKnows, WriteSnapshot};
pub use version::Versions;

use self::pace::Pace;
use crate::api::Reachability;
use crate::config::ENTRY_BYTES_LIMIT;
use bytes::Bytes;
use kontiki_env::clock::Clock;
use kontiki_proto::internal::peer_client::PeerClient;
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use kontiki_tls::Credentials;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

/// Maximum bytes of a request's headers, of clients and of nodes: clients send some hundreds.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// Longest message between nodes, at either end: a batch that was nearly full when it took the largest proposal that
/// any node may be configured for, with the framing. Nodes do not compress, and refuse compressed messages.
const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_LIMIT as usize + peer::BATCH_BYTES_MAX + (3 << 20);
/// The longest answer between nodes, a confirmation.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The maximum number of snapshots that a node sends, and receives, at a time: enough to keep a disk busy, few enough
/// that foreground work makes progress.
const SNAPSHOTS_AT_ONCE_MAX: usize = 4;
/// How long a connection attempt may take: several round trips on any network of a cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is probed after this long, and given up after as long again: less than one or two election
/// timeouts, so that a peer whose machine lost power is soon reconnected.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// HTTP/2 windows, so that a batch is not sent in 64 KiB steps, each a round trip.
const WINDOW_BYTES: u32 = 16 << 20;

/// The identity of a node to its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, never 0.
    pub cluster_id: u64,
    /// This store.
    pub store_id: StoreId,
    /// The versions of the protocol between nodes that it knows.
    pub versions: Versions,
}

/// The receiver of messages and snapshots.
pub trait Inbound: Send + Sync + 'static {
    /// A snapshot file that is arriving.
    type File: IncomingFile;
    /// One message from another store, as it was given to its [`Transport::send`]. Must not block.
    fn deliver(&self, from: StoreId, message: Bytes);
    /// A snapshot of about `estimated_bytes` is about to arrive. May block.
    fn begin_snapshot(&self, id: SnapshotId, estimated_bytes: u64) -> io::Result<Self::File>;
}

/// A snapshot file that is arriving; dropping it unfinished removes it. Its calls may block. An `InvalidData` error
/// means that the bytes are not a snapshot.
pub trait IncomingFile: Send + 'static {
    /// The next bytes, already checked against their checksum.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// All bytes have arrived: makes the file durable and passes it on with the message that announced it.
    fn finish(self, message: Bytes) -> io::Result<()>;
}

/// Called with a store to which the stream broke or could not be opened, and why. Must not block.
pub type OnFailure = Arc<dyn Fn(StoreId, &str) + Send + Sync>;

/// The sending half. Cheap to clone; dropping the last clone ends its streams.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    peers: BTreeMap<StoreId, peer::Peer>,
    runtime: Handle,
    metrics: TransportMetrics,
    snapshot_slots: Arc<Semaphore>,
    snapshot_pace: Arc<Pace>,
    /// The number of the last transfer of a snapshot.
    last_transfer: AtomicU64,
    credentials: Option<Arc<Credentials>>,
    links: Links,
    clock: Arc<dyn Clock>,
}

/// What a [`Transport`] has besides its peers.
#[derive(Clone)]
pub struct TransportOptions {
    /// With these, connections use TLS.
    pub credentials: Option<Arc<Credentials>>,
    /// The links that tests can cut.
    pub links: Links,
    /// All snapshots together are sent at this rate at most; 0: without a limit.
    pub snapshot_bytes_per_second_max: u64,
    /// A number that no other process of this store has used: it keeps their snapshots apart.
    pub process: u64,
    /// Measures times.
    pub clock: Arc<dyn Clock>,
}

impl TransportOptions {
    /// Without TLS, and without a limit.
    pub fn new(clock: Arc<dyn Clock>) -> TransportOptions {
        let (links, snapshot_bytes_per_second_max, process) = (Links::default(), 0, 0);
        TransportOptions { credentials: None, links, snapshot_bytes_per_second_max, process, clock }
    }
}

impl Shared {
    /// A number for a transfer; never 0.
    fn next_transfer(&self) -> u64 {
        self.last_transfer.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
    }
}

impl Transport {
    /// Starts a sender task on `runtime` for each of `addresses` (`host:port`) except its own. `on_failure` is called
    /// each time when the stream to a store breaks or cannot be opened.
    pub fn start(
        identity: Identity,
        addresses: &BTreeMap<u64, String>,
        runtime: Handle,
        metrics: TransportMetrics,
        on_failure: OnFailure,
        options: TransportOptions,
    ) -> Transport {
        let TransportOptions { credentials, links, snapshot_bytes_per_second_max, process, clock } = options;
        let others = addresses.iter().filter(|(id, _)| **id != identity.store_id.0);
        let peers = others
            .map(|(id, address)| {
                let to = peer::Destination {
                    store: StoreId(*id),
                    address: address.clone(),
                    credentials: credentials.clone(),
                };
                (to.store, peer::Peer::start(identity, to, &runtime, metrics.clone(), on_failure.clone()))
            })
            .collect();
        let snapshot_slots = Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE_MAX));
        let snapshot_pace = Pace::new(snapshot_bytes_per_second_max, clock.clone(), metrics.snapshot_paced_ms.clone());
        let (snapshot_pace, last_transfer) = (Arc::new(snapshot_pace), AtomicU64::new(process));
        let shared = Shared {
            identity,
            peers,
            runtime,
            metrics,
            snapshot_slots,
            snapshot_pace,
            last_transfer,
            credentials,
            links,
            clock,
        };
        Transport { shared: Arc::new(shared) }
    }

    /// Returns a function that reports whether a store's last stream, or attempt to open one, has not failed; it is
    /// true for stores without an address. It outlives the transport without keeping it alive.
    pub fn reachability(&self) -> Reachability {
        let broken: BTreeMap<_, _> = self.shared.peers.iter().map(|(id, peer)| (*id, peer.broken())).collect();
        Arc::new(move |store| broken.get(&store).is_none_or(|broken| !broken.load(Ordering::Relaxed)))
    }

    /// The links that tests can cut.
    pub fn links(&self) -> &Links {
        &self.shared.links
    }

    /// Sends a message, or drops it. Never blocks.
    pub fn send(&self, to: StoreId, message: Bytes) {
        if self.shared.links.is_blocked(to) {
            self.shared.metrics.blocked.inc();
            return;
        }
        match self.shared.peers.get(&to) {
            Some(peer) => peer.send(message),
            None => {
                self.shared.metrics.dropped.inc();
                tracing::warn!(store = to.0, "no address is known for this store; a message was dropped");
            }
        }
    }

    /// Sends a snapshot in the background and calls `done` once: with true when the receiver has all of it durable.
    pub fn send_snapshot(&self, to: StoreId, snapshot: OutgoingSnapshot, done: impl FnOnce(bool) + Send + 'static) {
        let shared = self.shared.clone();
        self.shared.runtime.spawn(async move {
            let result = match shared.peers.get(&to) {
                _ if shared.links.is_blocked(to) => Err("the link is blocked".to_owned()),
                Some(peer) => snapshot::send(shared.clone(), to, peer.address().to_owned(), snapshot).await,
                None => Err("no address is known".to_owned()),
            };
            if let Err(error) = &result {
                shared.metrics.snapshots_failed.inc();
                tracing::warn!(store = to.0, %error, "sending a snapshot failed; it will be tried again");
            }
            done(result.is_ok());
        });
    }
}

/// A client of another node, connected.
async fn connect(address: &str, credentials: Option<&Arc<Credentials>>) -> Result<PeerClient<Channel>, String> {
    let channel = kontiki_tls::connect(address, credentials, |endpoint| {
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
    });
    let channel =
        channel.await.map_err(|error| kontiki_tls::refusal(&error).unwrap_or_else(|| kontiki_tls::describe(&error)))?;
    Ok(PeerClient::new(channel)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
        .max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// A peer's answer, or its error.
fn describe_status(status: &tonic::Status) -> String {
    if let Some(refusal) = kontiki_tls::refusal(status) {
        return refusal;
    }
    match std::error::Error::source(status) {
        Some(cause) => kontiki_tls::describe(cause),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod snapshots_test;
#[cfg(test)]
#[path = "transport_test.rs"]
mod tests;
