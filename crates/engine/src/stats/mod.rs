//! Statistics of a database.
//!
//! ```text
//! subsystems ──count──> Recorder, own counters ──Db::stats──> Stats ──metrics──> Vec<Metric> ──> Prometheus text, JSON
//! ```
//!
//! - `Recorder` (module `measure`): latencies and the steps of reads; one for a database, passed to the subsystems that
//!   record. Other counters stay in the subsystem that counts.
//! - [`Stats`] (`figures.rs`): one typed snapshot, gathered by `collect.rs`.
//! - [`Stats::metrics`] (`describe.rs`): the one list of names, units, help and values. What is shown anywhere comes
//!   from it, so that two places cannot differ; `text.rs` writes it down.
//!
//! To add a number: count it in its subsystem, give it a field of a struct in `figures.rs`, fill that in `collect.rs`,
//! and describe it in `describe.rs` and docs/guide/statistics.md (a test compares the two).

mod collect;
mod describe;
mod figures;
mod metric;
mod named_families;
mod text;

pub use crate::cache::CacheStats;
pub use crate::hot::{HotKey, HotKeyStats};
pub use crate::measure::{FilterStats, Histogram, LatencyStats, LevelReads, ReadStats};
pub use crate::version::TableCacheStats;
pub use figures::{
    CommitStats, CompactionTotals, FamilyStats, HealthStats, IngestStats, LevelStats, LogStats, MemtableStats,
    StallStats, Stats,
};
pub use metric::{Metric, MetricKind, Sample, Unit, Value};
pub use named_families::METRIC_FAMILIES_MAX;
