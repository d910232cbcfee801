//! What flushes and compactions have done since open, by the level of their output.

use crate::lock::{Mutex, Rank};
use crate::types::LEVEL_COUNT;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One level's share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelWork {
    /// Flushes and merges into the level.
    pub runs: u64,
    /// Tables that moved here without being read.
    pub moves: u64,
    /// Tables that were dropped here without being read.
    pub drops: u64,
    /// Bytes of tables read.
    pub read_bytes: u64,
    /// Bytes of tables written.
    pub written_bytes: u64,
    /// Versions read.
    pub versions_read: u64,
    /// Versions that were not written again.
    pub versions_dropped: u64,
    /// Versions that the layer above did not need, counted when they were dropped or became tombstones.
    pub versions_filtered: u64,
    /// Time spent, in microseconds; of several threads together.
    pub busy_us: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct CompactionStats {
    levels: Mutex<[LevelWork; LEVEL_COUNT]>,
    flushed_bytes: AtomicU64,
}

impl Default for CompactionStats {
    fn default() -> CompactionStats {
        CompactionStats {
            levels: Mutex::new(Rank::CompactionStats, Default::default()),
            flushed_bytes: AtomicU64::new(0),
        }
    }
}

impl CompactionStats {
    /// Of each level.
    pub fn levels(&self) -> [LevelWork; LEVEL_COUNT] {
        *self.levels.lock()
    }

    /// Bytes written to tables for each byte that a flush wrote; 0 before the first flush.
    pub fn write_amplification(&self) -> f64 {
        let levels = self.levels();
        let flushed = self.flushed_bytes.load(Ordering::Relaxed);
        let written: u64 = levels.iter().map(|level| level.written_bytes).sum();
        if flushed == 0 { 0.0 } else { written as f64 / flushed as f64 }
    }

    pub(super) fn note_flush(&self, bytes: u64) {
        self.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn note(&self, level: usize, change: impl FnOnce(&mut LevelWork)) {
        if let Some(work) = self.levels.lock().get_mut(level) {
            change(work);
        }
    }

    pub(super) fn note_busy(&self, level: usize, time: Duration) {
        self.note(level, |work| work.busy_us += u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}
