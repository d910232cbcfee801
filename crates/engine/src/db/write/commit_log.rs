//! The log as commits use it: one writer at a time, and what is read from it.

use super::WritePath;
use super::visibility::Due;
use crate::Result;
use crate::lock::{Mutex, Rank};
use crate::log::{Appended, LogWriter, Need, NextSegments, Outgoing, Segments, Tail};
use crate::stream::StreamIndex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the head of this file.
pub(crate) struct CommitLog {
    /// The lock that orders commits.
    pub(crate) writer: Mutex<LogWriter>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) next_segments: Arc<NextSegments>,
    /// What syncs have to cover.
    pub(crate) tail: Arc<Tail>,
    /// Where each stream's entries are.
    pub(crate) streams: Mutex<StreamIndex>,
    /// The last number given to a logged batch; 0 before the first. Changed under the writer's lock.
    last_sequence: AtomicU64,
}

impl CommitLog {
    /// The log as recovery has left it.
    pub(crate) fn new(
        segments: Arc<Segments>,
        next_segments: Arc<NextSegments>,
        tail: Arc<Tail>,
        streams: StreamIndex,
    ) -> CommitLog {
        let writer = LogWriter::new(segments.clone(), next_segments.clone(), tail.clone());
        CommitLog {
            writer: Mutex::new(Rank::Log, writer),
            segments,
            next_segments,
            tail,
            streams: Mutex::new(Rank::Streams, streams),
            last_sequence: AtomicU64::new(0),
        }
    }

    /// The last number given to a logged batch; 0 before the first.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence.load(Ordering::Acquire)
    }

    /// A logged batch has got this number. Under the writer's lock.
    pub(crate) fn set_last_sequence(&self, sequence: u64) {
        self.last_sequence.store(sequence, Ordering::Release);
    }
}

impl WritePath {
    /// Copies a record into the log. Under the writer's lock, which the caller holds as `log`.
    pub(crate) fn append(
        &self,
        log: &mut LogWriter,
        record: &Outgoing<'_>,
        sequence: u64,
        need: Need,
    ) -> Result<Appended> {
        let appended = log.append(record, sequence, self.memtables.visibility.durable(), need)?;
        self.shared.counters.note_append(appended.position.bytes);
        Ok(appended)
    }

    /// Makes everything in the log survive power loss. A failure stops writes.
    pub(crate) fn sync_log(&self) -> Result<()> {
        let log_end = {
            let log = self.log.writer.lock();
            self.memtables.visibility.note_appended(log.end());
            log.end()
        };
        self.wait_due(Due { sequence: 0, log_end })?;
        self.memtables.completions.run();
        Ok(())
    }

    /// Ends the log of a database that is closed. Nothing is appended to it, so what is synced is all there is.
    pub(crate) fn close_log(&self) -> Result<()> {
        self.sync_log()?;
        let mut log = self.log.writer.lock();
        log.close(self.memtables.visibility.durable())
    }
}
