//! What a database frees when it is not written to: memory and log of dead versions, and files that the log keeps
//! ahead.
//!
//! The first `compact` job checks every `idle_look_ms`, and whenever it is woken. If nothing has been written for so
//! long:
//! - a memtable with much that is dead is flushed, so that compaction can drop it and what it hides;
//! - log files that wait to be used again are removed, and so is the next segment that was made ahead, unless it is
//!   small;
//! - if the log holds nothing that is needed, it continues in a small segment, and the large one is deleted.

use super::failure::background_failed;
use crate::Result;
use crate::db::write::WritePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A memtable is flushed for its dead if it has at least this part of the bytes of a full one: less is not worth a
/// table.
const MEMTABLE_ONE_IN: u64 = 64;

/// The time since which nothing has been written.
pub(crate) struct IdleWatch {
    /// What was visible then, and what had been appended to the log.
    visible: AtomicU64,
    appended: AtomicU64,
    /// By the monotonic clock.
    since_ms: AtomicU64,
    /// The log has moved to a small segment since: once is enough.
    log_left: AtomicBool,
}

impl Default for IdleWatch {
    fn default() -> IdleWatch {
        let unknown = || AtomicU64::new(u64::MAX);
        IdleWatch { visible: unknown(), appended: unknown(), since_ms: unknown(), log_left: AtomicBool::new(false) }
    }
}

impl IdleWatch {
    /// Frees what is not needed, once for each time that nothing is written. Only the first `compact` job calls
    /// it.
    pub(crate) fn check(&self, write: &WritePath) {
        let now_ms = u64::try_from(write.shared.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let (visible, appended) = (write.memtables.visible(), write.shared.counters.appended_bytes.load(Relaxed));
        if self.visible.swap(visible, Relaxed) != visible || self.appended.swap(appended, Relaxed) != appended {
            self.since_ms.store(now_ms, Relaxed);
            self.log_left.store(false, Relaxed);
            return;
        }
        let idle_ms = now_ms.saturating_sub(self.since_ms.load(Relaxed));
        if idle_ms < write.shared.options.compaction.idle_look_ms {
            return;
        }
        let bytes_min = write.shared.options.memtable_bytes / MEMTABLE_ONE_IN;
        if write.memtables.freeze_dead(bytes_min, write.shared.env.clock.wall_ms()) {
            write.shared.jobs.wake_flush();
        }
        if let Err(error) = self.release_log_space(write) {
            background_failed(write, &error);
        }
    }

    fn release_log_space(&self, write: &WritePath) -> Result<()> {
        write.log.next_segments.release();
        write.log.next_segments.release_ready();
        let needed = || write.memtables.log_pin().0.is_some() || write.log.streams.lock().len() > 0;
        let kept = write.shared.options.feed_retention_bytes > 0 || needed();
        if !kept && !self.log_left.swap(true, Relaxed) {
            let moved = {
                let mut log = write.log.writer.lock();
                // No commit runs meanwhile, so what was not needed is still not needed now.
                !needed() && log.leave_large_segment(write.memtables.visibility.durable())?
            };
            if moved {
                write.shared.jobs.wake_flush(); // It maintains the log.
            }
        }
        Ok(())
    }
}
