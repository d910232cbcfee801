//! Over loopback sockets: what is sent arrives in order, what cannot be sent is dropped and counted, and a peer that
//! comes back is found again.

use super::*;
use crate::stopping::{Stage, StopControl};
use kontiki_env::Env;
use kontiki_env::testing::loopback_address;
use kontiki_raftstore::RegionId;
use parking_lot::{Condvar, Mutex};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

pub(super) const CLUSTER: u64 = 77;

/// Whole snapshots: name, content, announcement.
pub(super) type Arrived = Arc<Mutex<Vec<(SnapshotId, Vec<u8>, Bytes)>>>;

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) messages: Mutex<Vec<(StoreId, Bytes)>>,
    pub(super) snapshots: Arrived,
    pub(super) gate: Gate,
    /// Snapshots that are arriving, or kept.
    pub(super) files: Arc<AtomicU64>,
}

/// While it is closed, snapshots are stored no further.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(super) fn set_closed(&self, is_closed: bool) {
        *self.0.0.lock() = is_closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut is_closed = self.0.0.lock();
        self.0.1.wait_while(&mut is_closed, |is_closed| *is_closed);
    }
}

pub(super) struct Arriving {
    id: SnapshotId,
    bytes: Vec<u8>,
    snapshots: Arrived,
    gate: Gate,
    files: Arc<AtomicU64>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.files.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inbound for Inbox {
    type File = Arriving;

    fn deliver(&self, from: StoreId, message: Bytes) {
        self.messages.lock().push((from, message));
    }

    fn begin_snapshot(&self, id: SnapshotId, estimated_bytes: u64) -> io::Result<Arriving> {
        self.files.fetch_add(1, Ordering::SeqCst);
        let bytes = Vec::with_capacity(estimated_bytes as usize);
        let (snapshots, gate, files) = (self.snapshots.clone(), self.gate.clone(), self.files.clone());
        Ok(Arriving { id, bytes, snapshots, gate, files })
    }
}

impl IncomingFile for Arriving {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gate.pass();
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(mut self, message: Bytes) -> io::Result<()> {
        self.snapshots.lock().push((self.id, std::mem::take(&mut self.bytes), message));
        Ok(())
    }
}

/// A receiving node that can be killed: it has its own runtime.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) inbox: Arc<Inbox>,
    pub(super) metrics: TransportMetrics,
    pub(super) links: Links,
    control: StopControl,
    runtime: Runtime,
}

impl Node {
    pub(super) async fn start(store: u64, address: &str) -> Node {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (inbox, metrics) = (Arc::new(Inbox::default()), TransportMetrics::default());
        let identity = Identity { cluster_id: CLUSTER, store_id: StoreId(store), versions: Versions::OWN };
        let links = Links::default();
        let control = StopControl::default();
        let service = PeerService::new(
            identity,
            inbox.clone(),
            metrics.clone(),
            control.stopping(),
            links.clone(),
            0,
            Env::real().clock,
        );
        let service = service.into_server();
        let address = address.to_owned();
        let (bound, listening) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Node { address: listening.await.unwrap(), inbox, metrics, links, control, runtime }
    }

    /// Like a killed process: connections break.
    pub(super) fn stop(self) {
        self.runtime.shutdown_background();
    }
}

pub(super) fn transport(address: SocketAddr, metrics: &TransportMetrics) -> Transport {
    transport_of(address.to_string(), Versions::OWN, metrics)
}

/// Of a release that knows these versions.
pub(super) fn transport_of(address: String, versions: Versions, metrics: &TransportMetrics) -> Transport {
    let identity = Identity { cluster_id: CLUSTER, store_id: StoreId(1), versions };
    let addresses = BTreeMap::from([(1, "own:1".to_owned()), (2, address)]);
    let on_failure = Arc::new(|_, _: &str| {});
    Transport::start(
        identity,
        &addresses,
        Handle::current(),
        metrics.clone(),
        on_failure,
        TransportOptions::new(Env::real().clock),
    )
}

/// Waits until `condition` holds.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("timed out while waiting until {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    let numbered = |i: u32| Bytes::copy_from_slice(&i.to_be_bytes());
    for i in 0..2_000 {
        transport.send(StoreId(2), numbered(i));
    }
    until("all are there", || node.inbox.messages.lock().len() == 2_000).await;
    let messages = node.inbox.messages.lock().clone();
    assert!(messages.iter().enumerate().all(|(i, (from, m))| *from == StoreId(1) && *m == numbered(i as u32)));
    assert!(metrics.batches.get() < 2_000, "waiting messages are sent together");
    assert_eq!((metrics.sent.get(), metrics.dropped.get()), (2_000, 0));
    assert_eq!(node.metrics.received.get(), 2_000);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_out_of_reach_costs_messages_and_no_time_and_is_found_again() {
    let node = Node::start(2, &format!("{}:20160", loopback_address())).await;
    let address = node.address;
    let metrics = TransportMetrics::default();
    let transport = transport(address, &metrics);
    transport.send(StoreId(2), Bytes::from_static(b"first"));
    until("the first is there", || node.inbox.messages.lock().len() == 1).await;
    let is_reachable = transport.reachability();
    assert!(is_reachable(StoreId(2)) && is_reachable(StoreId(1)), "both are reachable");
    node.stop();

    until("it is noticed", || metrics.failures.get() > 0 && !is_reachable(StoreId(2))).await;
    // Far more than the queue holds: none of these calls waits, and the excess is counted. (Before the interruption is
    // noticed the stream may accept any number of messages: those are lost in the network, not dropped.)
    for _ in 0..2 * peer::QUEUE_MESSAGES_MAX {
        transport.send(StoreId(2), Bytes::from_static(b"lost"));
    }
    until("messages were dropped", || metrics.dropped.get() > 0).await;

    let node = Node::start(2, &address.to_string()).await;
    let arrived = node.inbox.clone();
    until("it is found again", || {
        transport.send(StoreId(2), Bytes::from_static(b"again"));
        arrived.messages.lock().iter().any(|(_, message)| message == "again")
    })
    .await;
    assert!(metrics.connects.get() >= 2 && is_reachable(StoreId(2)));
    node.stop();
}

/// Answers to calls that were forwarded for clients arrive over these streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_hears_of_its_peers_until_its_clients_are_answered() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    transport.send(StoreId(2), Bytes::from_static(b"before"));
    until("the first is there", || node.inbox.messages.lock().len() == 1).await;
    node.control.end(Stage::Clients);
    transport.send(StoreId(2), Bytes::from_static(b"while clients are answered"));
    until("the second is there", || node.inbox.messages.lock().len() == 2).await;
    assert_eq!((metrics.connects.get(), metrics.failures.get()), (1, 0));
    node.control.end(Stage::Peers);
    until("the stream has ended", || metrics.failures.get() > 0).await;
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_over_its_bytes_drops() {
    // Without a listener.
    let address = SocketAddr::from((loopback_address(), 20_160));
    let metrics = TransportMetrics::default();
    let transport = transport(address, &metrics);
    let large = Bytes::from(vec![0; peer::QUEUE_BYTES_MAX / 2]);
    for _ in 0..4 {
        transport.send(StoreId(2), large.clone());
    }
    until("some were dropped", || metrics.dropped.get() >= 1).await;
    transport.send(StoreId(9), Bytes::from_static(b"unknown store"));
    until("all were dropped in the end", || metrics.dropped.get() == 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_meant_for_another_is_refused() {
    let node = Node::start(3, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    until("it is refused", || {
        transport.send(StoreId(2), Bytes::from_static(b"hello"));
        node.metrics.refused.get() > 0
    })
    .await;
    assert!(node.inbox.messages.lock().is_empty());
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_arrives_whole_with_its_message() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    let id = SnapshotId { region: RegionId(2), term: 5, index: 90 };

    // More than two chunks, the last one short; a whole number of chunks; and an empty one.
    for length in [(2 << 20) + 12_345, 2 << 20, 0] {
        let content: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let (done, sent) = oneshot::channel();
        let snapshot = outgoing(id, content.clone(), Ok(()));
        transport.send_snapshot(StoreId(2), snapshot, move |ok| done.send(ok).unwrap());
        assert!(sent.await.unwrap());
        let (arrived_id, arrived, message) = node.inbox.snapshots.lock().pop().unwrap();
        assert_eq!((arrived_id, message), (id, Bytes::from_static(b"announcement")));
        assert!(arrived == content, "{} bytes arrived of {length}", arrived.len());
    }

    // A source that fails in the middle.
    for length in [0, (2 << 20) + 5] {
        let (done, sent) = oneshot::channel();
        let snapshot = outgoing(id, vec![1; length], Err("the view is closed".to_owned()));
        transport.send_snapshot(StoreId(2), snapshot, move |ok| done.send(ok).unwrap());
        assert!(!sent.await.unwrap());
    }
    assert!(node.inbox.snapshots.lock().is_empty(), "a partial file is not a snapshot");
    node.stop();
}

pub(super) fn outgoing(id: SnapshotId, content: Vec<u8>, result: Result<(), String>) -> OutgoingSnapshot {
    let estimated_bytes = content.len() as u64 / 2;
    let write: WriteSnapshot = Box::new(move |_, part| {
        // In pieces that do not fit the chunks.
        content.chunks(700_001).try_for_each(part).map_err(|error| error.to_string())?;
        result
    });
    OutgoingSnapshot { id, message: Bytes::from_static(b"announcement"), estimated_bytes, write }
}
