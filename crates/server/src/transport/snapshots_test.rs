//! Snapshots beside messages, many at once, and over connections that break.

use super::tests::{Node, outgoing, transport, until};
use super::*;
use kontiki_raftstore::RegionId;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const MIB: usize = 1 << 20;

fn id(region: u64) -> SnapshotId {
    SnapshotId { region: RegionId(region), term: 5, index: 90 }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i % 251) as u8).collect()
}

/// Sends a snapshot; the result says whether the receiver has confirmed it.
fn send(transport: &Transport, region: u64, content: &[u8]) -> oneshot::Receiver<bool> {
    let (done, sent) = oneshot::channel();
    let snapshot = outgoing(id(region), content.to_vec(), Ok(()));
    transport.send_snapshot(StoreId(2), snapshot, move |ok| {
        let _ = done.send(ok);
    });
    sent
}

/// Between two nodes: passes on what they send, and cuts the connections over which a given number of bytes has gone.
#[derive(Clone)]
struct Proxy {
    to: Arc<Mutex<SocketAddr>>,
    /// Bytes after which a connection is cut; 0: none is.
    cut_after: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
    /// Instead of being cut, connections stand still from then on: neither end notices.
    is_silent: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(to: SocketAddr) -> (Proxy, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(to));
        let proxy = Proxy { to, cut_after: Arc::default(), cuts: Arc::default(), is_silent: Arc::default() };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().pass(from));
            }
        });
        (proxy, address)
    }

    async fn pass(self, from: TcpStream) {
        let to = *self.to.lock();
        let Ok(to) = TcpStream::connect(to).await else { return };
        let ((mut from_read, mut from_write), (mut to_read, mut to_write)) = (from.into_split(), to.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut to_read, &mut from_write).await });
        let (mut passed, mut buffer) = (0, vec![0; 64 << 10]);
        while let Ok(count @ 1..) = from_read.read(&mut buffer).await {
            passed += count as u64;
            let cut_after = self.cut_after.load(Ordering::SeqCst);
            if cut_after > 0 && passed > cut_after {
                self.cuts.fetch_add(1, Ordering::SeqCst);
                if self.is_silent.load(Ordering::SeqCst) {
                    // Both connections stay open.
                    std::future::pending::<()>().await;
                }
                break;
            }
            if to_write.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        back.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_do_not_wait_for_a_large_snapshot() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    let content = content(64 * MIB);
    let gate = node.inbox.gate.clone();
    // The receiver stores nothing: everything between the two is full of the snapshot.
    gate.set_closed(true);
    let sent = send(&transport, 7, &content);
    until("it is arriving", || node.inbox.files.load(Ordering::SeqCst) == 1).await;
    for i in 0..1_000u32 {
        transport.send(StoreId(2), Bytes::copy_from_slice(&i.to_be_bytes()));
    }
    until("all messages are there", || node.inbox.messages.lock().len() == 1_000).await;
    assert!(node.inbox.snapshots.lock().is_empty() && metrics.dropped.get() == 0);
    assert!(metrics.snapshot_bytes.get() < content.len() as u64, "the sender waits");
    gate.set_closed(false);
    assert!(sent.await.unwrap());
    assert!(node.inbox.snapshots.lock()[0].1 == content);
    node.stop();
}

/// Scenario 80: a node sends, and receives, only so many at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_snapshots_keep_to_their_limit_at_both_ends() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let (one, content) = (transport(node.address, &metrics), content(3 * MIB));
    let gate = node.inbox.gate.clone();
    gate.set_closed(true);
    let many = 2 * SNAPSHOTS_AT_ONCE_MAX as u64;
    let sent: Vec<_> = (0..many).map(|region| send(&one, region, &content)).collect();
    let most = SNAPSHOTS_AT_ONCE_MAX as u64;
    until("the first are arriving", || node.inbox.files.load(Ordering::SeqCst) == most).await;
    assert_eq!(node.metrics.snapshots_receiving.get(), most as i64);

    // Another sender is refused, and will try again.
    let others = TransportMetrics::default();
    let other = transport(node.address, &others);
    assert!(!send(&other, 99, &content).await.unwrap());
    assert_eq!((others.snapshots_failed.get(), node.inbox.files.load(Ordering::SeqCst)), (1, most));
    gate.set_closed(false);
    for sent in sent {
        assert!(sent.await.unwrap(), "those that waited for a slot of the sender are sent");
    }
    assert_eq!((metrics.snapshots_sent.get(), metrics.snapshots_failed.get()), (many, 0));
    assert!(send(&other, 99, &content).await.unwrap(), "the slots are free again");
    until("nothing is held", || node.inbox.files.load(Ordering::SeqCst) == 0).await;
    assert_eq!((metrics.snapshots_sending.get(), node.metrics.snapshots_receiving.get()), (0, 0));
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_connection_breaks_goes_on_where_it_was() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let (proxy, address) = Proxy::start(node.address).await;
    for (region, silent) in [(7, false), (8, true)] {
        let metrics = TransportMetrics::default();
        let transport = transport(address, &metrics);
        let content = content(9 * MIB + 77);
        proxy.cuts.store(0, Ordering::SeqCst);
        proxy.is_silent.store(silent, Ordering::SeqCst);
        proxy.cut_after.store(4 * MIB as u64, Ordering::SeqCst);
        assert!(send(&transport, region, &content).await.unwrap());
        let (arrived_id, arrived, _) = node.inbox.snapshots.lock().pop().unwrap();
        assert!(arrived_id == id(region) && arrived == content, "{} bytes arrived", arrived.len());
        let cuts = proxy.cuts.load(Ordering::SeqCst);
        assert!(cuts >= 2, "{cuts} connections broke");
        assert_eq!(metrics.snapshots_resumed.get(), cuts);
        assert_eq!((metrics.snapshots_sent.get(), metrics.snapshots_failed.get()), (1, 0));
        // Each resumption repeats at most what was on its way.
        assert!(metrics.snapshot_bytes.get() < 2 * content.len() as u64);
    }
    until("nothing is held", || node.inbox.files.load(Ordering::SeqCst) == 0).await;
    node.stop();
}

/// The receiver's process ends: what it had is gone, and the sender begins again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_receiver_was_restarted_begins_again() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let (proxy, address) = Proxy::start(node.address).await;
    let metrics = TransportMetrics::default();
    let transport = transport(address, &metrics);
    let content = content(9 * MIB);
    let gate = node.inbox.gate.clone();
    gate.set_closed(true);
    let sent = send(&transport, 7, &content);
    until("it is arriving", || node.inbox.files.load(Ordering::SeqCst) == 1).await;
    // The new process listens on another port: the old one may not be free yet.
    let next = Node::start(2, "127.0.0.1:0").await;
    *proxy.to.lock() = next.address;
    node.stop();
    gate.set_closed(false);
    let node = next;
    assert!(!sent.await.unwrap(), "the new process has nothing of it");
    assert_eq!(metrics.snapshots_resumed.get(), 0);
    assert!(send(&transport, 7, &content).await.unwrap());
    assert!(node.inbox.snapshots.lock()[0].1 == content);
    node.stop();
}

/// A source that fails is a sender that gives up: nothing is kept for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sender_gives_up_is_not_kept() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address, &metrics);
    let (done, sent) = oneshot::channel();
    let snapshot = outgoing(id(7), content(2 * MIB + 5), Err("the view is closed".to_owned()));
    transport.send_snapshot(StoreId(2), snapshot, move |ok| done.send(ok).unwrap());
    assert!(!sent.await.unwrap());
    until("it is removed", || node.inbox.files.load(Ordering::SeqCst) == 0).await;
    assert_eq!(metrics.snapshots_resumed.get(), 0);
    node.stop();
}
