//! Sends a snapshot: chunks with checksums, on a separate connection, created while they are sent.

use super::negotiate::dial;
use super::version::Versions;
use super::{Shared, describe_status};
use bytes::Bytes;
use kontiki_proto::internal::{SnapshotChunk, SnapshotHead};
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of a chunk: a disk reads it in a few milliseconds, and it is far below any message limit.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// A snapshot of which no chunk is sent for this long, or whose receiver does not confirm the last one within it, is
/// given up. Long, because the receiver reads the whole file again before it confirms.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Additional time for the receiver's check of the file, per this many bytes.
const CHECK_TIME: Duration = Duration::from_secs(1);
const CHECKED_BYTES: u64 = 16 << 20;

/// Writes all bytes of a snapshot through the function that it is given, in order; blocks. An error of that function
/// must be returned.
pub type WriteSnapshot = Box<dyn FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), String> + Send>;

/// A snapshot to send.
pub struct OutgoingSnapshot {
    /// Names it at the receiver.
    pub id: SnapshotId,
    /// The message that announces it; the receiver passes it on when the file is durable.
    pub message: Bytes,
    /// The approximate number of bytes.
    pub estimated_bytes: u64,
    /// The bytes.
    pub write: WriteSnapshot,
}

pub(super) async fn send(
    shared: &Shared,
    to: StoreId,
    address: &str,
    snapshot: OutgoingSnapshot,
) -> Result<(), String> {
    // Never closed: the semaphore lives as long as the transport.
    let _slot = shared.snapshot_slots.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let (mut client, version) = dial(shared.identity, to, address, shared.credentials.as_ref()).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let head = SnapshotHead {
        cluster_id: shared.identity.cluster_id,
        from_store: shared.identity.store_id.0,
        to_store: to.0,
        region_id: snapshot.id.region.0,
        term: snapshot.id.term,
        index: snapshot.id.index,
        estimated_bytes: snapshot.estimated_bytes,
        message: snapshot.message,
        version: Versions::stated(version),
    };
    let progress = Arc::new(Progress::default());
    let chunks = Chunks { sender, progress: progress.clone(), head: Some(head), offset: 0, data: Vec::new() };
    let (write, metrics) = (snapshot.write, shared.metrics.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let sent = chunks.send_all(write)?;
        metrics.snapshot_bytes.inc_by(sent);
        Ok::<(), String>(())
    });
    let call = tokio::select! {
        call = client.snapshot(ReceiverStream::new(receiver)) => call.map_err(|status| describe_status(&status)),
        () = progress.stalled() => Err("it made no progress".to_owned()),
    };
    // The channel on which the writer waits is dropped with the call, so the writer ends.
    drop(client);
    let written = writing.await.map_err(|error| error.to_string())?;
    match (call, written) {
        (Ok(_), Ok(())) => {
            shared.metrics.snapshots_sent.inc();
            Ok(())
        }
        // A source that cannot be read ends the stream early, which the receiver refuses: the cause is here.
        (_, Err(error)) if error != CALL_ENDED => Err(format!("reading the snapshot: {error}")),
        (Err(error), _) => Err(error),
        (Ok(_), Err(error)) => Err(error),
    }
}

/// The error for the source when the call has ended.
const CALL_ENDED: &str = "the call has ended";

/// Bytes of the chunks that were sent.
#[derive(Default)]
struct Progress {
    sent_bytes: AtomicU64,
    /// Counted apart: the last chunk may be empty.
    chunks: AtomicU64,
}

impl Progress {
    fn made(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.chunks.fetch_add(1, Ordering::Relaxed);
    }

    /// Done when no progress was made for too long: at the earliest after the permitted time, at the latest after twice
    /// that.
    async fn stalled(&self) {
        loop {
            let before = self.chunks.load(Ordering::Relaxed);
            let to_check = self.sent_bytes.load(Ordering::Relaxed) / CHECKED_BYTES;
            let check = CHECK_TIME * u32::try_from(to_check).unwrap_or(u32::MAX);
            tokio::time::sleep(STALL_MAX + check).await;
            if self.chunks.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// Cuts what is written into chunks.
struct Chunks {
    sender: mpsc::Sender<SnapshotChunk>,
    progress: Arc<Progress>,
    /// Sent with the first chunk.
    head: Option<SnapshotHead>,
    /// Of `data`.
    offset: u64,
    data: Vec<u8>,
}

impl Chunks {
    /// Returns the bytes sent. Without the last chunk the receiver refuses the whole.
    fn send_all(mut self, write: WriteSnapshot) -> Result<u64, String> {
        let mut write_part = |mut bytes: &[u8]| {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.data.len()));
                self.data.extend_from_slice(now);
                bytes = later;
                if self.data.len() == CHUNK_BYTES {
                    self.send(false)?;
                }
            }
            Ok(())
        };
        write(&mut write_part)?;
        self.send(true).map_err(|error| error.to_string())?;
        Ok(self.offset)
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        let data = Bytes::from(std::mem::take(&mut self.data));
        let (offset, checksum) = (self.offset, crc32fast::hash(&data));
        let bytes = data.len() as u64;
        self.offset += bytes;
        let chunk = SnapshotChunk { head: self.head.take(), offset, data, checksum, last };
        self.sender.blocking_send(chunk).map_err(|_| io::Error::other(CALL_ENDED))?;
        self.progress.made(bytes);
        Ok(())
    }
}
