//! Tables that were built outside.

use super::Stats;
use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No};
use crate::db::Core;
use std::sync::atomic::Ordering::Relaxed;

/// Tables that were built outside and ingested, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IngestStats {
    /// Calls of `Db::ingest` that ingested something.
    pub ingests: u64,
    /// Their tables.
    pub tables: u64,
    /// Bytes of these.
    pub bytes: u64,
}

pub(super) fn collect(core: &Core) -> IngestStats {
    let counters = &core.shared().counters;
    IngestStats {
        ingests: counters.ingests.load(Relaxed),
        tables: counters.ingested_tables.load(Relaxed),
        bytes: counters.ingested_bytes.load(Relaxed),
    }
}

impl Stats {
    pub(super) fn describe_ingest(&self, subsystem: &mut Subsystem<'_>) {
        subsystem.counter("done", No, "Ingests of tables that were built outside", self.ingest.ingests);
        subsystem.counter("tables", No, "Tables that they took in", self.ingest.tables);
        subsystem.counter("taken_in", Bytes, "Bytes of these", self.ingest.bytes);
    }
}
