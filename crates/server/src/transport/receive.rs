//! Receives a snapshot file: chunks in order and without gaps, each checked, then passes on the whole file. What was
//! received when a connection breaks is kept for a while (`partial.rs`).

use super::metrics::Held;
use super::pace::Pace;
use super::partial::{Active, Partials, Received};
use super::{Inbound, IncomingFile, TransportMetrics};
use crate::stopping::{Stage, Stopping};
use kontiki_env::clock::Clock;
use kontiki_proto::internal::{SnapshotChunk, SnapshotHead};
use kontiki_raftstore::snapshot::SnapshotId;
use kontiki_raftstore::{RegionId, StoreId};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming};

/// Longest snapshot: a bound against invalid values in the head, not against data.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 44;

/// What all snapshots that a node receives share.
pub(super) struct Receiver<I: Inbound> {
    pub inbound: Arc<I>,
    /// Those that are arriving, or kept to be resumed, have one each.
    pub slots: Arc<Semaphore>,
    pub partials: Arc<Partials<I::File>>,
    pub pace: Arc<Pace>,
    pub metrics: TransportMetrics,
    pub stopping: Stopping,
    pub clock: Arc<dyn Clock>,
}

/// How a call ended that did not fail.
enum End {
    Whole,
    /// The connection broke, or the sender goes on over another one.
    Cut(Status),
}

impl<I: Inbound> Receiver<I> {
    /// Receives what one call brings. The file is durable, and the node knows it, when this returns without an error.
    ///
    /// To be run in a task of its own: that of a call is dropped when its connection breaks.
    pub async fn receive(
        self: Arc<Self>,
        from: StoreId,
        head: SnapshotHead,
        first: SnapshotChunk,
        mut chunks: Streaming<SnapshotChunk>,
    ) -> Result<(), Status> {
        let _receiving = Held::new(&self.metrics.snapshots_receiving);
        let (active, received) = self.begin(from, &head, &first).await?;
        let (received, end) = self.receive_chunks(active.as_ref(), received, first, &mut chunks).await?;
        if let End::Cut(status) = end {
            if let Some(active) = active {
                active.keep(received);
            }
            return Err(status);
        }
        let Received { file, bytes, began, slot } = received;
        blocking(move || file.finish(head.message)).await?;
        drop(slot);
        self.metrics.snapshots_received.inc();
        self.metrics.snapshot_receive.observe(bytes, self.clock.monotonic().saturating_sub(began));
        Ok(())
    }

    /// What is there before the first chunk: of a transfer that is resumed, what was kept of it.
    async fn begin(
        &self,
        from: StoreId,
        head: &SnapshotHead,
        first: &SnapshotChunk,
    ) -> Result<(Option<Active<I::File>>, Received<I::File>), Status> {
        let key = (from, head.transfer);
        if head.transfer != 0 && first.offset > 0 {
            let kept = self.partials.resume(key);
            let (active, received) = kept.ok_or_else(|| Status::aborted("nothing is here of this snapshot"))?;
            self.metrics.snapshots_resumed.inc();
            return Ok((Some(active), received));
        }
        let estimated = head.estimated_bytes;
        if estimated > SNAPSHOT_BYTES_MAX {
            let text = format!("a snapshot of {estimated} bytes; at most {SNAPSHOT_BYTES_MAX}");
            return Err(Status::invalid_argument(text));
        }
        let slot = self.slots.clone().try_acquire_owned();
        let slot = slot.map_err(|_| Status::resource_exhausted("as many snapshots as allowed are arriving already"))?;
        let id = SnapshotId { region: RegionId(head.region_id), term: head.term, index: head.index };
        let inbound = self.inbound.clone();
        let file = blocking(move || inbound.begin_snapshot(id, estimated)).await?;
        let active = (head.transfer != 0).then(|| self.partials.begin(key));
        Ok((active, Received { file, bytes: 0, began: self.clock.monotonic(), slot }))
    }

    async fn receive_chunks(
        &self,
        active: Option<&Active<I::File>>,
        mut received: Received<I::File>,
        first: SnapshotChunk,
        chunks: &mut Streaming<SnapshotChunk>,
    ) -> Result<(Received<I::File>, End), Status> {
        let mut stopped = pin!(self.stopping.reached(Stage::Peers));
        let mut chunk = first;
        loop {
            check(&chunk, received.bytes)?;
            let count = chunk.data.len() as u64;
            self.pace.take(count).await;
            self.metrics.snapshot_bytes.inc_by(count);
            let (data, file) = (chunk.data, received.file);
            let file = blocking(move || append(file, &data)).await?;
            received = Received { file, bytes: received.bytes + count, ..received };
            if chunk.last {
                return Ok((received, End::Whole));
            }
            let arrived = tokio::select! {
                arrived = chunks.message() => arrived,
                () = ended(active) => Err(Status::aborted("the sender goes on over another connection")),
                () = &mut stopped => return Err(Status::unavailable("the node is stopping")),
            };
            chunk = match arrived {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    return Err(Status::data_loss(format!("the sender gave up after {} bytes", received.bytes)));
                }
                Err(status) => return Ok((received, End::Cut(status))),
            };
        }
    }
}

async fn ended<F: Send + 'static>(active: Option<&Active<F>>) {
    match active {
        Some(active) => active.ended().await,
        None => std::future::pending().await,
    }
}

fn append<F: IncomingFile>(mut file: F, bytes: &[u8]) -> io::Result<F> {
    file.append(bytes)?;
    Ok(file)
}

fn check(chunk: &SnapshotChunk, received: u64) -> Result<(), Status> {
    if chunk.offset != received {
        return Err(Status::data_loss(format!("a chunk at {} came where {received} was due", chunk.offset)));
    }
    if chunk.data.len() as u64 > SNAPSHOT_BYTES_MAX - received {
        return Err(Status::data_loss(format!("a snapshot of more than {SNAPSHOT_BYTES_MAX} bytes")));
    }
    if crc32fast::hash(&chunk.data) != chunk.checksum {
        return Err(Status::data_loss(format!("the checksum of the chunk at {received} does not match")));
    }
    Ok(())
}

/// File work on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, Status> {
    let joined = tokio::task::spawn_blocking(work).await.map_err(|error| Status::internal(error.to_string()))?;
    joined.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => Status::resource_exhausted(format!("the receiver's disk is full: {error}")),
        io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        _ => Status::internal(format!("storing a snapshot: {error}")),
    })
}
