//! Stores of other releases, over loopback: one of the release before, in both directions, and one that is too new.

use crate::transport::tests::{CLUSTER, Node, transport_of as transport, until};
use crate::transport::{TransportMetrics, Versions};
use bytes::Bytes;
use kontiki_env::testing::read_golden;
use kontiki_proto::internal::peer_client::PeerClient;
use kontiki_proto::internal::peer_server::{Peer, PeerServer};
use kontiki_proto::internal::*;
use kontiki_raftstore::StoreId;
use parking_lot::Mutex;
use prost::Message;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

/// A store of the release before: it does not know `Negotiate`.
#[derive(Clone, Default)]
struct Before(Arc<Mutex<Vec<PeerBatch>>>);

#[tonic::async_trait]
impl Peer for Before {
    async fn negotiate(&self, _: Request<NegotiateRequest>) -> Result<Response<NegotiateReply>, Status> {
        Err(Status::unimplemented("unknown call"))
    }

    async fn stream(&self, request: Request<Streaming<PeerBatch>>) -> Result<Response<PeerAck>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.message().await? {
            self.0.lock().push(batch);
        }
        Ok(Response::new(PeerAck {}))
    }

    async fn snapshot(&self, _: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAck>, Status> {
        Err(Status::unavailable("not in this test"))
    }

    async fn snapshot_progress(
        &self,
        _: Request<SnapshotProgressRequest>,
    ) -> Result<Response<SnapshotProgressReply>, Status> {
        Err(Status::unimplemented("unknown call"))
    }
}

/// What the release before has sent, byte for byte.
fn batch_from_before() -> PeerBatch {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peer-batch.hex");
    let batch = PeerBatch::decode(read_golden(&path).as_slice()).unwrap();
    assert_eq!(batch.version, 0);
    PeerBatch { cluster_id: CLUSTER, ..batch }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_the_release_before_is_served() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let mut client = PeerClient::connect(format!("http://{}", node.address)).await.unwrap();
    client.stream(futures::stream::iter([batch_from_before()])).await.unwrap();
    let messages = node.inbox.messages.lock().clone();
    assert_eq!(messages, [(StoreId(1), Bytes::from_static(b"first")), (StoreId(1), Bytes::from_static(b"second"))]);
    assert_eq!(node.metrics.refused.get(), 0);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_the_release_before_gets_what_it_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let before = Before::default();
    let service = PeerServer::new(before.clone());
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    let metrics = TransportMetrics::default();
    let transport = transport(address, Versions::OWN, &metrics);
    until("a message is there", || {
        transport.send(StoreId(2), Bytes::from_static(b"message"));
        !before.0.lock().is_empty()
    })
    .await;
    assert!(before.0.lock().iter().all(|batch| batch.version == 0));
    assert_eq!(metrics.version_with(StoreId(2)), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_this_release_use_its_newest_version() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address.to_string(), Versions::OWN, &metrics);
    transport.send(StoreId(2), Bytes::from_static(b"message"));
    until("it is there", || !node.inbox.messages.lock().is_empty()).await;
    assert_eq!(metrics.version_with(StoreId(2)), i64::from(Versions::OWN.max));
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_too_new_is_refused_with_both_versions() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let (min, max) = (Versions::OWN.max + 1, Versions::OWN.max + 2);
    let metrics = TransportMetrics::default();
    let transport = transport(node.address.to_string(), Versions { min, max }, &metrics);
    until("the new store has tried twice", || {
        transport.send(StoreId(2), Bytes::from_static(b"message"));
        metrics.failures.get() >= 2
    })
    .await;
    assert_eq!(node.inbox.messages.lock().len(), 0);
    assert!(node.metrics.refused.get() > 0);

    let mut client = PeerClient::connect(format!("http://{}", node.address)).await.unwrap();
    let request = NegotiateRequest {
        cluster_id: CLUSTER,
        from_store: 1,
        to_store: 2,
        version_min: min,
        version_max: max,
        program: "9.9.9".into(),
    };
    let status = client.negotiate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let text = status.message();
    for part in [format!("store 1 (kontiki 9.9.9) knows versions {min} to {max}"), "upgrade store 2".into()] {
        assert!(text.contains(&part), "{part} is missing in: {text}");
    }

    // One that does not ask first.
    let batch = PeerBatch { version: min, ..batch_from_before() };
    let status = client.stream(futures::stream::iter([batch])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(&format!("version {min}")), "{}", status.message());
    assert_eq!(node.inbox.messages.lock().len(), 0);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_link_loses_messages_in_both_directions_and_a_link_that_is_not_passes_them() {
    let node = Node::start(2, "127.0.0.1:0").await;
    let metrics = TransportMetrics::default();
    let transport = transport(node.address.to_string(), Versions::OWN, &metrics);
    let send = |text: &'static str| transport.send(StoreId(2), Bytes::from_static(text.as_bytes()));
    let arrived =
        |text: &'static str| node.inbox.messages.lock().iter().any(|(_, message)| message.as_ref() == text.as_bytes());
    send("before");
    until("the first is there", || arrived("before")).await;
    // At the receiver.
    node.links.block(StoreId(1));
    send("at the receiver");
    until("it was dropped", || node.metrics.blocked.get() == 1).await;
    node.links.unblock(StoreId(1));
    // At the sender.
    transport.links().block(StoreId(2));
    send("at the sender");
    assert_eq!(metrics.blocked.get(), 1);
    transport.links().unblock(StoreId(2));
    send("after");
    until("the last is there", || arrived("after")).await;
    assert!(!arrived("at the receiver") && !arrived("at the sender"));
    node.stop();
}
