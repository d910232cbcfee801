//! The value log.

use super::Stats;
use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No};
use crate::db::Core;
use crate::vlog::ValueStats;

pub(super) fn collect(core: &Core) -> ValueStats {
    let context = &core.shared().context;
    let version = context.versions.current();
    let mut stats = context.values.stats();
    for state in version.values().files().values() {
        stats.files += 1;
        stats.file_bytes += state.sealed_bytes().unwrap_or(0);
    }
    stats.file_bytes += stats.open_bytes;
    stats.referred_bytes = version.values().referred().total_bytes();
    stats.relocated_segments = version.values().relocated().len() as u64;
    stats
}

impl Stats {
    pub(super) fn describe_values(&self, subsystem: &mut Subsystem<'_>) {
        let values = &self.values;
        subsystem.gauge("files", No, "Value files", values.files);
        subsystem.gauge("used", Bytes, "Bytes of value files", values.file_bytes);
        subsystem.gauge("open", Bytes, "Bytes in segments that are not sealed", values.open_bytes);
        subsystem.gauge("referred", Bytes, "Bytes that tables refer to", values.referred_bytes);
        subsystem.gauge("garbage", Bytes, "Bytes known to be garbage", values.garbage_bytes);
        subsystem.gauge("debt", Bytes, "Garbage beyond its bound: how far relocation is behind", values.debt_bytes);
        subsystem.gauge(
            "relocated_segments",
            No,
            "Segments whose values are in another file",
            values.relocated_segments,
        );
        subsystem.gauge("pending_deletes", No, "Removed files that wait for a reader", values.pending_deletes);
        subsystem.gauge("damaged_files", No, "Files that cannot be relocated: see kontiki check", values.damaged_files);
        subsystem.counter("appended", Bytes, "Bytes that commits wrote", values.appended_bytes);
        subsystem.counter("collections", No, "Collections of garbage", values.collections);
        subsystem.counter("relocated", Bytes, "Bytes that relocations wrote", values.relocated_bytes);
        subsystem.counter("freed", Bytes, "Bytes that collections freed", values.freed_bytes);
        subsystem.histogram("sync", "Syncs of values for commits", &self.latency.value_sync);
    }
}
