//! What is counted while a database runs.

use crate::Durability;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since open, which only grow, and gauges.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) commits_sync: AtomicU64,
    /// One more than the number of these when a segment was last filled ahead; 0 before the first.
    pub(crate) filled_at: AtomicU64,
    pub(crate) commits_buffered: AtomicU64,
    pub(crate) commits_derived: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) rewritten_bytes: AtomicU64,
    pub(crate) segments_deleted: AtomicU64,
    pub(crate) log_holder_warnings: AtomicU64,
    pub(crate) replayed_bytes: AtomicU64,
    pub(crate) stalls: AtomicU64,
    /// Callers that wait at a hard bound now.
    pub(crate) stalled: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
    pub(crate) ingests: AtomicU64,
    pub(crate) ingested_tables: AtomicU64,
    pub(crate) ingested_bytes: AtomicU64,
    /// Compactions that scans requested, and requests refused because too many were waiting.
    pub(crate) dead_requests: AtomicU64,
    pub(crate) dead_requests_refused: AtomicU64,
    /// Copies that gave up with `Busy`.
    pub(crate) copies_refused: AtomicU64,
    /// Shared with the file system that counts them.
    pub(crate) descriptors_refused: Arc<AtomicU64>,
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

impl Counters {
    pub(crate) fn note_commit(&self, durability: Durability) {
        add(
            match durability {
                Durability::Sync => &self.commits_sync,
                Durability::Buffered => &self.commits_buffered,
                Durability::Derived => &self.commits_derived,
            },
            1,
        );
    }

    pub(crate) fn note_append(&self, bytes: u64) {
        add(&self.appended_bytes, bytes);
    }

    pub(crate) fn note_sync(&self) {
        add(&self.syncs, 1);
    }

    pub(crate) fn note_rewrite(&self, bytes: u64) {
        add(&self.rewritten_bytes, bytes);
    }

    pub(crate) fn note_segment_deleted(&self) {
        add(&self.segments_deleted, 1);
    }

    pub(crate) fn note_stall(&self) {
        add(&self.stalls, 1);
    }

    /// A caller waits at a hard bound until what this returns is dropped.
    pub(crate) fn stalled(&self) -> impl Drop + '_ {
        struct Stalled<'a>(&'a AtomicU64);
        impl Drop for Stalled<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        add(&self.stalled, 1);
        Stalled(&self.stalled)
    }

    pub(crate) fn note_flush(&self, bytes: u64) {
        add(&self.flushes, 1);
        add(&self.flushed_bytes, bytes);
    }

    pub(crate) fn note_ingest(&self, tables: u64, bytes: u64) {
        add(&self.ingests, 1);
        add(&self.ingested_tables, tables);
        add(&self.ingested_bytes, bytes);
    }
}
