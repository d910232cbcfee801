//! Receives a snapshot file: chunks in order and without gaps, each checked, then passes on the whole file.

use super::{Inbound, IncomingFile, TransportMetrics};
use kontiki_proto::internal::{SnapshotChunk, SnapshotHead};
use kontiki_raftstore::RegionId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::io;
use std::sync::Arc;
use tonic::{Status, Streaming};

/// Longest snapshot: a bound against invalid values in the head, not against data.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 44;

/// Receives all chunks. The file is durable, and the node knows it, when this returns.
pub(super) async fn receive<I: Inbound>(
    inbound: Arc<I>,
    head: SnapshotHead,
    first: SnapshotChunk,
    chunks: &mut Streaming<SnapshotChunk>,
    metrics: &TransportMetrics,
) -> Result<(), Status> {
    let estimated = head.estimated_bytes;
    if estimated > SNAPSHOT_BYTES_MAX {
        return Err(Status::invalid_argument(format!("a snapshot of {estimated} bytes; at most {SNAPSHOT_BYTES_MAX}")));
    }
    let id = SnapshotId { region: RegionId(head.region_id), term: head.term, index: head.index };
    let mut file = blocking(move || inbound.begin_snapshot(id, estimated)).await?;
    let mut received = 0;
    let (mut next, mut is_whole) = (Some(first), false);
    while let Some(chunk) = next {
        if is_whole {
            return Err(Status::data_loss("a chunk came after the last"));
        }
        check(&chunk, received)?;
        is_whole = chunk.last;
        let count = chunk.data.len() as u64;
        received += count;
        metrics.snapshot_bytes.inc_by(count);
        file = blocking(move || file.append(&chunk.data).map(|()| file)).await?;
        next = chunks.message().await?;
    }
    if !is_whole {
        return Err(Status::data_loss(format!("the sender gave up after {received} bytes")));
    }
    blocking(move || file.finish(head.message)).await
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
        io::ErrorKind::StorageFull => Status::resource_exhausted("the receiver's disk is full"),
        io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        _ => Status::internal(format!("storing a snapshot: {error}")),
    })
}
