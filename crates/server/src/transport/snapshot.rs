//! Sends a snapshot: chunks with checksums, on a separate connection, created while they are sent.
//!
//! A connection that breaks does not end the send. The chunks that the receiver may not have are kept; it is asked how
//! much it has, and gets the rest over another connection (docs/internals/snapshots.md). The writer of the snapshot
//! waits meanwhile.

use super::negotiate::dial;
use super::pace::Pace;
use super::partial::RESUME_TIME_MAX;
use super::version::Versions;
use super::{Shared, TransportMetrics, describe_status};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kontiki_proto::internal::{SnapshotChunk, SnapshotHead, SnapshotProgressRequest};
use kontiki_raftstore::StoreId;
use kontiki_raftstore::snapshot::SnapshotId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

/// Bytes of a chunk: a disk reads it in a few milliseconds, and it is far below any message limit.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// Chunks that are kept although they are sent, because the receiver may not have them: what its HTTP/2 window holds
/// (16 MiB), what is on its way to the disk there, and what is on its way out here. Memory for each send.
const CHUNKS_KEPT: usize = 24;
/// A snapshot of which no chunk is sent for this long, or whose receiver does not confirm the last one within it, is
/// given up. Long, because the receiver reads the whole file again before it confirms.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Additional time for the receiver's check of the file, per this many bytes.
const CHECK_TIME: Duration = Duration::from_secs(1);
const CHECKED_BYTES: u64 = 16 << 20;
/// First wait before a send is resumed; doubled up to the next.
const RESUME_BACKOFF_FIRST: Duration = Duration::from_millis(50);
const RESUME_BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long the receiver may take to say how much it has: it may have to end the call that broke first.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes all bytes of a snapshot through the function that it is given, in order; blocks. An error of that function
/// must be returned. Entries that expire are written only if the receiver's version of the protocol has them.
pub type WriteSnapshot =
    Box<dyn FnOnce(ReceiverKnows, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), String> + Send>;

/// What the receiver of a snapshot can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverKnows {
    /// Frames with entries that expire.
    pub expiry: bool,
}

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

/// Boxed: the compiler does not find out of so deep a future that it can be sent to another thread.
pub(super) fn send(
    shared: Arc<Shared>,
    to: StoreId,
    address: String,
    snapshot: OutgoingSnapshot,
) -> BoxFuture<'static, Result<(), String>> {
    send_whole(shared, to, address, snapshot).boxed()
}

async fn send_whole(
    shared: Arc<Shared>,
    to: StoreId,
    address: String,
    snapshot: OutgoingSnapshot,
) -> Result<(), String> {
    // Never closed: the semaphore lives as long as the transport.
    let _slot = shared.snapshot_slots.clone().acquire_owned().await.map_err(|error| error.to_string())?;
    let _sending = super::metrics::Held::new(&shared.metrics.snapshots_sending);
    let began = shared.clock.monotonic();
    // Of the first connection, so that nothing is read for a receiver that is not there.
    let (client, version) = connect(&shared, to, &address).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let source = Source { receiver, kept: VecDeque::new(), next: 0, pace: shared.snapshot_pace.clone() };
    let transfer = if Versions::resumes_snapshots(version) { shared.next_transfer() } else { 0 };
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
        transfer,
    };
    let chunks = Chunks { sender, offset: 0, data: Vec::new() };
    let (write, knows) = (snapshot.write, ReceiverKnows { expiry: Versions::has_expiry_in_snapshots(version) });
    let writing = tokio::task::spawn_blocking(move || chunks.send_all(write, knows));
    let progress = Progress::default();
    let transfer = Transfer { shared: shared.clone(), to, address, version, head, source, progress };
    // The channel on which the writer waits is dropped with the transfer, so the writer ends.
    let call = transfer.run(client).await;
    let written = writing.await.map_err(|error| error.to_string())?;
    match (call, written) {
        (Ok(()), Ok(bytes)) => {
            shared.metrics.snapshots_sent.inc();
            shared.metrics.snapshot_send.observe(bytes, shared.clock.monotonic().saturating_sub(began));
            Ok(())
        }
        // A source that cannot be read ends the stream early, which the receiver refuses: the cause is here.
        (_, Err(error)) if error != CALL_ENDED => Err(format!("reading the snapshot: {error}")),
        (Err(error), _) => Err(error),
        (Ok(()), Err(error)) => Err(error),
    }
}

fn connect<'a>(shared: &'a Shared, to: StoreId, address: &'a str) -> BoxFuture<'a, Result<(Client, u32), String>> {
    dial(shared.identity, to, address, shared.credentials.as_ref()).boxed()
}

/// The error for the source when the call has ended.
const CALL_ENDED: &str = "the call has ended";

type Client = super::PeerClient<super::Channel>;

/// How a call ended without the receiver's confirmation.
enum Ended {
    /// The receiver refused, or its data cannot be sent.
    Refused(String),
    /// The connection broke: the receiver keeps what it has for a while.
    Cut(String),
}

/// A snapshot on its way.
struct Transfer {
    shared: Arc<Shared>,
    to: StoreId,
    address: String,
    version: u32,
    head: SnapshotHead,
    source: Source,
    progress: Progress,
}

impl Transfer {
    /// Sends everything, over as many connections as it takes, while the receiver gets more by them.
    async fn run(mut self, mut client: Client) -> Result<(), String> {
        let (mut received, mut grew_at) = (0, self.shared.clock.monotonic());
        loop {
            let (error, chunks) = match self.call(client).await {
                Ok(()) => return Ok(()),
                Err(Ended::Refused(error)) => return Err(error),
                Err(Ended::Cut(error)) => (error, self.progress.chunks.load(Ordering::Relaxed)),
            };
            if self.head.transfer == 0 || chunks == 0 {
                return Err(error);
            }
            let bytes;
            (client, bytes) = self.resume(&error).await.map_err(|why| format!("{error}; not resumed: {why}"))?;
            let now = self.shared.clock.monotonic();
            if bytes > received {
                (received, grew_at) = (bytes, now);
            } else if now.saturating_sub(grew_at) >= STALL_MAX {
                return Err(format!("{error}; over new connections, too, it gets no more than {bytes} bytes"));
            }
            self.shared.metrics.snapshots_resumed.inc();
        }
    }

    /// One call, from the next chunk on.
    async fn call(&mut self, mut client: Client) -> Result<(), Ended> {
        let Transfer { shared, head, source, progress, .. } = self;
        let (sender, chunks) = mpsc::channel(1);
        tokio::select! {
            call = client.snapshot(ReceiverStream::new(chunks)) => call.map(|_| ()).map_err(ended_by),
            never = pump(source, head.clone(), sender, progress, &shared.metrics) => match never {},
            () = progress.stalled() => Err(Ended::Refused("it made no progress".to_owned())),
        }
    }

    /// Connects again, and goes to the first byte that the receiver does not have. Returns how many it has.
    async fn resume(&mut self, cut: &str) -> Result<(Client, u64), String> {
        let deadline = self.shared.clock.monotonic() + RESUME_TIME_MAX;
        tracing::info!(store = self.to.0, error = cut, "a snapshot's connection broke; it is resumed");
        let mut backoff = RESUME_BACKOFF_FIRST;
        loop {
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(RESUME_BACKOFF_MAX);
            let error = match self.try_resume().await {
                Ok(resumed) => return Ok(resumed),
                Err(Ended::Refused(error)) => return Err(error),
                Err(Ended::Cut(error)) => error,
            };
            if self.shared.clock.monotonic() >= deadline {
                return Err(error);
            }
        }
    }

    async fn try_resume(&mut self) -> Result<(Client, u64), Ended> {
        if self.shared.links.is_blocked(self.to) {
            return Err(Ended::Cut("the link is blocked".to_owned()));
        }
        let dialled = connect(&self.shared, self.to, &self.address).await;
        let (mut client, version) = dialled.map_err(Ended::Cut)?;
        if version != self.version {
            return Err(Ended::Refused("the receiver is of another version now".to_owned()));
        }
        let request = SnapshotProgressRequest {
            cluster_id: self.head.cluster_id,
            from_store: self.head.from_store,
            to_store: self.head.to_store,
            transfer: self.head.transfer,
        };
        let asked = timeout(PROGRESS_TIMEOUT, client.snapshot_progress(Request::new(request))).await;
        let reply = asked.map_err(|_| Ended::Cut("it does not say how much it has".to_owned()))?.map_err(ended_by)?;
        let reply = reply.into_inner();
        if !reply.is_known {
            return Err(Ended::Refused("the receiver has nothing of it any more".to_owned()));
        }
        self.source.go_to(reply.received_bytes).map_err(Ended::Refused)?;
        Ok((client, reply.received_bytes))
    }
}

/// Feeds a call with chunks, until it ends.
async fn pump(
    source: &mut Source,
    head: SnapshotHead,
    sender: mpsc::Sender<SnapshotChunk>,
    progress: &Progress,
    metrics: &TransportMetrics,
) -> Infallible {
    let mut head = Some(head);
    while let Some(chunk) = source.next().await {
        let bytes = chunk.data.len() as u64;
        if sender.send(SnapshotChunk { head: head.take(), ..chunk }).await.is_err() {
            break;
        }
        progress.made(bytes);
        metrics.snapshot_bytes.inc_by(bytes);
    }
    // The call reads to its end.
    drop(sender);
    std::future::pending().await
}

fn ended_by(status: Status) -> Ended {
    let text = describe_status(&status);
    // What the receiver answered has no source; what the connection met has.
    if std::error::Error::source(&status).is_some() { Ended::Cut(text) } else { Ended::Refused(text) }
}

/// The chunks, in order, of which the last ones can be repeated.
struct Source {
    receiver: mpsc::Receiver<SnapshotChunk>,
    /// Those that were taken from the channel last.
    kept: VecDeque<SnapshotChunk>,
    /// The place in `kept` of the next one to be sent.
    next: usize,
    pace: Arc<Pace>,
}

impl Source {
    async fn next(&mut self) -> Option<SnapshotChunk> {
        if self.next == self.kept.len() {
            let chunk = self.receiver.recv().await?;
            if self.kept.len() == CHUNKS_KEPT {
                self.kept.pop_front();
                self.next -= 1;
            }
            self.kept.push_back(chunk);
        }
        let chunk = self.kept.get(self.next).cloned()?;
        self.next += 1;
        self.pace.take(chunk.data.len() as u64).await;
        Some(chunk)
    }

    /// The next chunk is the one at this offset.
    fn go_to(&mut self, offset: u64) -> Result<(), String> {
        let end = self.kept.back().map_or(0, |last| last.offset + last.data.len() as u64);
        let is_whole = self.kept.back().is_some_and(|last| last.last);
        match self.kept.iter().position(|chunk| chunk.offset == offset && (!chunk.data.is_empty() || chunk.last)) {
            Some(at) => self.next = at,
            None if offset == end && !is_whole => self.next = self.kept.len(),
            None => return Err(format!("the receiver has {offset} bytes, and those behind them are not kept")),
        }
        Ok(())
    }
}

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
    /// Of `data`.
    offset: u64,
    data: Vec<u8>,
}

impl Chunks {
    /// Returns the bytes written. Without the last chunk the receiver refuses the whole.
    fn send_all(mut self, write: WriteSnapshot, knows: ReceiverKnows) -> Result<u64, String> {
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
        write(knows, &mut write_part)?;
        self.send(true).map_err(|error| error.to_string())?;
        Ok(self.offset)
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        let data = Bytes::from(std::mem::take(&mut self.data));
        let (offset, checksum) = (self.offset, crc32fast::hash(&data));
        self.offset += data.len() as u64;
        let chunk = SnapshotChunk { head: None, offset, data, checksum, last };
        self.sender.blocking_send(chunk).map_err(|_| io::Error::other(CALL_ENDED))
    }
}
