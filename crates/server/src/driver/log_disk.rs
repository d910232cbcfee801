//! Whether the raft log can be written: not while the disk refuses writes for lack of space, nor while one write takes
//! too long. raftstore is notified and transfers the leadership of the regions that it leads (`peer/leader_transfer.rs`
//! there): a leader with such a disk continues to send heartbeats, so its followers would not depose it.

use super::{Driver, FLUSHED_TICKS};
use kontiki_engine::Error as EngineError;
use kontiki_placement::Now;
use kontiki_raftstore::Event;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A write of the raft log that takes longer than this makes the log unwritable until it is done. Clients give up on a
/// request after some seconds, so other stores should lead the regions by then; a sync of a healthy disk is two orders
/// of magnitude faster.
const PERSIST_STALL_MAX: Duration = Duration::from_secs(2);

/// The known state of the disk of the log.
#[derive(Default)]
pub(super) struct LogDisk {
    unwritable: bool,
    /// When the commit in the engine was submitted.
    begun_at: Option<Duration>,
    /// The memtables are full and cannot be flushed for lack of space: committed entries cannot be applied.
    no_room: bool,
}

impl LogDisk {
    /// Whether the memtables are full and cannot be flushed.
    pub(super) fn no_room(&self) -> bool {
        self.no_room
    }
}

impl Driver {
    /// A commit of the log was submitted to the engine.
    pub(super) fn persist_begun(&mut self) {
        self.log_disk.begun_at = Some(self.env.clock.monotonic());
    }

    /// The commit ended.
    pub(super) fn persist_done(&mut self, done: bool, now: Now) {
        self.log_disk.begun_at = None;
        self.set_log_writable(done && !self.log_disk.no_room, now);
    }

    /// Whether the engine accepts nothing for lack of space: neither the log nor memtables that wait to be flushed.
    pub(super) fn is_disk_full(&self) -> bool {
        self.persists.is_blocked() || self.log_disk.no_room
    }

    /// Checks, on ticks, whether memtables can be flushed. The log may have preallocated space long after tables have
    /// none, and then the callers that wait for an apply would not be notified.
    fn check_room(&mut self, now: Now) {
        let error = self.state.write_stall_error().filter(EngineError::is_retryable);
        let before = std::mem::replace(&mut self.log_disk.no_room, error.is_some());
        if let Some(error) = error {
            if !self.shared.disk_full.swap(true, Ordering::Relaxed) {
                tracing::warn!("writes stop: {error}");
            }
            self.abandon_proposals();
            self.set_log_writable(false, now);
        } else if before && !self.persists.is_blocked() {
            self.shared.disk_full.store(false, Ordering::Relaxed);
            tracing::info!("the disk has free space again; writes resume");
            self.set_log_writable(true, now);
        }
    }

    /// Checks, on ticks, whether the commit takes too long.
    pub(super) fn check_log_disk(&mut self, now: Now) {
        let stalls = |begun_at: Duration| now.monotonic.saturating_sub(begun_at) >= PERSIST_STALL_MAX;
        if self.log_disk.begun_at.is_some_and(stalls) {
            self.set_log_writable(false, now);
        }
        // As often as the engine tries by itself.
        if self.ticks.is_multiple_of(FLUSHED_TICKS) {
            self.check_room(now);
            self.snapshots.retry_installs();
        }
    }

    fn set_log_writable(&mut self, writable: bool, now: Now) {
        if self.log_disk.unwritable != writable {
            return;
        }
        self.log_disk.unwritable = !writable;
        if writable {
            tracing::info!("the raft log can be written again");
        } else {
            self.shared.counters.log_unwritable.increment();
            tracing::warn!(
                "the raft log cannot be written (full disk, or a write that takes over {PERSIST_STALL_MAX:?})"
            );
        }
        self.store.handle(Event::LogWritable { writable }, now.monotonic);
    }
}
