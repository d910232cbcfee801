//! The receiving half, as a gRPC service.

use super::pace::Pace;
use super::partial::Partials;
use super::receive::Receiver;
use super::version::Versions;
use super::{Identity, Inbound, Links, MESSAGE_BYTES_MAX, SNAPSHOTS_AT_ONCE_MAX, TransportMetrics, negotiate};
use crate::connections::ConnectionInfo;
use crate::stopping::{Stage, Stopping};
use kontiki_env::clock::Clock;
use kontiki_proto::internal::peer_server::{Peer, PeerServer};
use kontiki_proto::internal::{
    NegotiateReply, NegotiateRequest, PeerAck, PeerBatch, SnapshotAck, SnapshotChunk, SnapshotProgressReply,
    SnapshotProgressRequest,
};
use kontiki_raftstore::StoreId;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// Receives messages and snapshots from other nodes.
pub struct PeerService<I: Inbound> {
    identity: Identity,
    /// Of snapshots, and what it shares with those of messages.
    receiver: Arc<Receiver<I>>,
    links: Links,
    /// The stores of this node's list; `None`: any.
    members: Option<BTreeSet<u64>>,
}

impl<I: Inbound> PeerService<I> {
    /// The service of the store `identity`; what arrives is passed to `inbound`. All snapshots together arrive at the
    /// given rate at most; 0: without a limit.
    pub fn new(
        identity: Identity,
        inbound: Arc<I>,
        metrics: TransportMetrics,
        stopping: Stopping,
        links: Links,
        snapshot_bytes_per_second_max: u64,
        clock: Arc<dyn Clock>,
    ) -> PeerService<I> {
        let pace = Arc::new(Pace::new(snapshot_bytes_per_second_max, clock.clone(), metrics.snapshot_paced_ms.clone()));
        let slots = Arc::new(Semaphore::new(SNAPSHOTS_AT_ONCE_MAX));
        let receiver = Receiver { inbound, slots, partials: Partials::new(), pace, metrics, stopping, clock };
        PeerService { identity, receiver: Arc::new(receiver), links, members: None }
    }

    fn metrics(&self) -> &TransportMetrics {
        &self.receiver.metrics
    }

    /// Refuses stores that are not in this node's list: it has no address to answer to, and they would wait without
    /// knowing for what.
    pub fn of_members(self, members: impl IntoIterator<Item = u64>) -> PeerService<I> {
        PeerService { members: Some(members.into_iter().collect()), ..self }
    }

    /// The tonic service with its size limits.
    pub fn into_server(self) -> PeerServer<PeerService<I>> {
        PeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn check(&self, cluster_id: u64, from: u64, to: u64) -> Result<StoreId, Status> {
        let Identity { cluster_id: own_cluster, store_id, .. } = self.identity;
        let refusal = if cluster_id != own_cluster {
            format!(
                "meant for cluster {cluster_id}, this is cluster {own_cluster}; --initial-cluster, from which the id is \
                 derived, or else --cluster-id has to be the same on every node"
            )
        } else if to != store_id.0 {
            format!("meant for store {to}, this is store {store_id}; check the addresses of --initial-cluster")
        } else if from == 0 || from == store_id.0 {
            format!("store {from} cannot be the sender to store {store_id}; is --store-id used twice?")
        } else if self.members.as_ref().is_some_and(|members| !members.contains(&from)) {
            format!(
                "store {store_id} was started without store {from} in its --initial-cluster; the list has to be the same on \
                 every node, and a node that was started alone stays alone: see docs/guide/serving.md, From one node to \
                 three"
            )
        } else {
            return Ok(StoreId(from));
        };
        self.metrics().refused.inc();
        Err(Status::failed_precondition(refusal))
    }

    /// Messages of an unknown version could be misread.
    fn check_version(&self, version: u32) -> Result<(), Status> {
        let Identity { store_id, versions: Versions { min, max }, .. } = self.identity;
        if self.identity.versions.know(version) {
            return Ok(());
        }
        self.metrics().refused.inc();
        Err(Status::failed_precondition(format!(
            "sent in version {version} of the protocol between nodes, store {store_id} knows {min} to {max}; upgrade the \
             older of the two stores"
        )))
    }

    fn negotiate(&self, request: &NegotiateRequest) -> Result<NegotiateReply, Status> {
        self.check(request.cluster_id, request.from_store, request.to_store)?;
        negotiate::answer(self.identity, request).map_err(|error| {
            self.metrics().refused.inc();
            let error = error.to_string();
            tracing::warn!(error, "a connection of another node was refused");
            Status::failed_precondition(error)
        })
    }

    async fn receive_messages(&self, mut batches: Streaming<PeerBatch>) -> Result<(), Status> {
        while let Some(batch) = batches.message().await? {
            let from = self.check(batch.cluster_id, batch.from_store, batch.to_store)?;
            self.check_version(batch.version)?;
            let count = batch.messages.len() as u64;
            if self.links.is_blocked(from) {
                self.metrics().blocked.inc_by(count);
                continue;
            }
            self.metrics().received.inc_by(count);
            for message in batch.messages {
                self.receiver.inbound.deliver(from, message);
            }
        }
        Ok(())
    }

    async fn receive_snapshot(&self, mut chunks: Streaming<SnapshotChunk>) -> Result<(), Status> {
        let first = chunks.message().await?;
        let head = first.as_ref().and_then(|chunk| chunk.head.clone());
        let (Some(first), Some(head)) = (first, head) else {
            return Err(Status::invalid_argument("a snapshot begins with a chunk that has a head"));
        };
        let from = self.check(head.cluster_id, head.from_store, head.to_store)?;
        self.check_version(head.version)?;
        if self.links.is_blocked(from) {
            return Err(Status::unavailable("the link is blocked"));
        }
        // A task of its own: that of the call is dropped when the connection breaks; this one then keeps what it has.
        let receiving = tokio::spawn(self.receiver.clone().receive(from, head, first, chunks));
        receiving.await.map_err(|error| Status::internal(error.to_string()))?
    }

    async fn progress(&self, request: &SnapshotProgressRequest) -> Result<SnapshotProgressReply, Status> {
        let from = self.check(request.cluster_id, request.from_store, request.to_store)?;
        let received = self.receiver.partials.progress((from, request.transfer)).await;
        Ok(SnapshotProgressReply { is_known: received.is_some(), received_bytes: received.unwrap_or(0) })
    }

    /// Receives until the sender ends, or until this node does not need other nodes any more.
    async fn until_stop(&self, received: impl Future<Output = Result<(), Status>>) -> Result<(), Status> {
        tokio::select! {
            result = received => result,
            () = self.receiver.stopping.reached(Stage::Peers) => Err(Status::unavailable("the node is stopping")),
        }
    }
}

/// Accepts a connection as another node's. A client's connection would have to end before this node can stop; and where
/// clients need no certificate, another node still does: its messages change data without any further check.
fn accept_peer<T>(request: &Request<T>) -> Result<(), Status> {
    if let Some(connection) = request.extensions().get::<ConnectionInfo>() {
        if !connection.is_identified() {
            return Err(Status::unauthenticated("another node needs a certificate; start it with --cert-file"));
        }
        connection.mark_peer();
    }
    Ok(())
}

#[tonic::async_trait]
impl<I: Inbound> Peer for PeerService<I> {
    async fn negotiate(&self, request: Request<NegotiateRequest>) -> Result<Response<NegotiateReply>, Status> {
        accept_peer(&request)?;
        PeerService::negotiate(self, request.get_ref()).map(Response::new)
    }

    async fn stream(&self, request: Request<Streaming<PeerBatch>>) -> Result<Response<PeerAck>, Status> {
        accept_peer(&request)?;
        self.until_stop(self.receive_messages(request.into_inner())).await.map(|()| Response::new(PeerAck {}))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<SnapshotAck>, Status> {
        accept_peer(&request)?;
        self.until_stop(self.receive_snapshot(request.into_inner())).await.map(|()| Response::new(SnapshotAck {}))
    }

    async fn snapshot_progress(
        &self,
        request: Request<SnapshotProgressRequest>,
    ) -> Result<Response<SnapshotProgressReply>, Status> {
        accept_peer(&request)?;
        self.progress(request.get_ref()).await.map(Response::new)
    }
}
