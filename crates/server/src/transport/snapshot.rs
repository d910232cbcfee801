//! A snapshot file leaving: chunks with checksums, on a connection of its own.

use super::{Shared, connect, describe_status};
use bytes::Bytes;
use kontiki_env::fs::{Fs, OpenMode};
use kontiki_proto::internal::{SnapshotChunk, SnapshotHead};
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of a chunk: a disk reads it in a few milliseconds, and it is far below any message limit.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// A snapshot that is not through after this long is given up and begun anew.
const SEND_TIME_MAX: Duration = Duration::from_secs(600);

/// A file to send.
#[derive(Clone, Debug)]
pub struct OutgoingSnapshot {
    /// Names it at the receiver.
    pub id: SnapshotId,
    /// The message that announces it; the receiver hands it over when the file is durable.
    pub message: Bytes,
    /// The file here.
    pub path: PathBuf,
}

pub(super) async fn send(
    shared: &Shared,
    to: StoreId,
    address: &str,
    snapshot: OutgoingSnapshot,
) -> Result<(), String> {
    // Closed never: the semaphore lives as long as the transport.
    let _slot = shared.snapshot_slots.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let mut client = connect(address).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let head = SnapshotHead {
        cluster_id: shared.identity.cluster_id,
        from_store: shared.identity.store_id.0,
        to_store: to.0,
        region_id: snapshot.id.region.0,
        term: snapshot.id.term,
        index: snapshot.id.index,
        length_bytes: 0,
        message: snapshot.message,
    };
    let (fs, path, metrics) = (shared.fs.clone(), snapshot.path, shared.metrics.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let sent = read_chunks(&*fs, &path, head, &sender)?;
        metrics.snapshot_bytes.inc_by(sent);
        io::Result::Ok(())
    });
    let call = tokio::time::timeout(SEND_TIME_MAX, client.snapshot(ReceiverStream::new(receiver))).await;
    let read = reading.await.map_err(|error| error.to_string())?;
    // A file that cannot be read ends the stream early, which the receiver refuses: the cause is here.
    read.map_err(|error| format!("reading the snapshot: {error}"))?;
    call.map_err(|_| "it took too long".to_owned())?.map_err(|status| describe_status(&status))?;
    shared.metrics.snapshots_sent.inc();
    Ok(())
}

/// Reads the file into chunks until it ends or the call does. Returns the bytes read.
fn read_chunks(
    fs: &dyn Fs,
    path: &Path,
    mut head: SnapshotHead,
    chunks: &mpsc::Sender<SnapshotChunk>,
) -> io::Result<u64> {
    let file = fs.open(path, OpenMode::Read)?;
    head.length_bytes = file.len()?;
    let (length, mut head, mut offset) = (head.length_bytes, Some(head), 0);
    // An empty file still has one chunk: its head.
    while offset < length || head.is_some() {
        let wanted = (length - offset).min(CHUNK_BYTES as u64) as usize;
        let mut data = vec![0; wanted];
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let checksum = crc32fast::hash(&data);
        let chunk = SnapshotChunk { head: head.take(), offset, data: data.into(), checksum };
        if chunks.blocking_send(chunk).is_err() {
            return Ok(offset);
        }
        offset += wanted as u64;
    }
    Ok(length)
}
