//! Memtables and their flushes.

use super::Stats;
use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No};
use crate::db::Core;
use std::sync::atomic::Ordering::Relaxed;

/// Memtables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemtableStats {
    /// Memtables now, the active one included.
    pub count: u64,
    /// Their bytes now.
    pub bytes: u64,
    /// Flushes, counted.
    pub flushes: u64,
    /// Bytes of memtables flushed, counted.
    pub flushed_bytes: u64,
}

pub(super) fn collect(core: &Core) -> MemtableStats {
    let (memtables, bytes) = core.write.memtables.memory();
    MemtableStats {
        count: memtables as u64,
        bytes,
        flushes: core.shared().counters.flushes.load(Relaxed),
        flushed_bytes: core.shared().counters.flushed_bytes.load(Relaxed),
    }
}

impl Stats {
    pub(super) fn describe_memtables(&self, subsystem: &mut Subsystem<'_>) {
        let memtables = &self.memtables;
        subsystem.gauge("count", No, "Memtables, the active one included", memtables.count);
        subsystem.gauge("used", Bytes, "Bytes of memtables", memtables.bytes);
        subsystem.counter("flushes", No, "Memtables flushed", memtables.flushes);
        subsystem.counter("flushed", Bytes, "Bytes of memtables flushed", memtables.flushed_bytes);
        subsystem.histogram("flush", "Flushes", &self.latency.flush);
    }
}
