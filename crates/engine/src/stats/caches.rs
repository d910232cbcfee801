//! Caches of blocks, open tables and values.

use super::Stats;
use super::metric::Unit::{Bytes, None as No};
use super::metric::{Metric, Subsystem};

impl Stats {
    pub(super) fn describe_caches(&self, metrics: &mut Vec<Metric>) {
        for (subsystem, cache) in [("block_cache", &self.block_cache), ("value_cache", &self.value_cache)] {
            let mut subsystem = Subsystem::new(metrics, subsystem);
            subsystem.gauge("capacity", Bytes, "The most bytes that it may hold", cache.capacity_bytes);
            subsystem.gauge("used", Bytes, "Bytes in it", cache.bytes);
            subsystem.counter("hits", No, "Lookups that found their entry", cache.hits);
            subsystem.counter("misses", No, "Lookups that went to the file", cache.misses);
            subsystem.counter("evictions", No, "Entries that had to go for others", cache.evictions);
        }
        let (mut subsystem, tables) = (Subsystem::new(metrics, "table_cache"), &self.table_cache);
        subsystem.gauge("capacity", Bytes, "The most bytes of filters and indexes", tables.capacity_bytes);
        subsystem.gauge("used", Bytes, "Bytes of filters and indexes, pinned while the table is open", tables.bytes);
        subsystem.gauge("tables", No, "Open tables", tables.tables);
        subsystem.counter("opens", No, "Tables opened", tables.opens);
        let help = "Times that a scan passed by a table without its prefix";
        subsystem.counter("skipped_by_scans", No, help, tables.skipped_by_scans);
    }
}
