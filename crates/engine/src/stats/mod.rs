//! Statistics of a database.
//!
//! ```text
//! subsystems ──count──> Recorder, own counters ──Db::stats──> Stats ──metrics──> Vec<Metric> ──> Prometheus text, JSON
//! ```
//!
//! - `Recorder` (`recorder.rs`): latencies and the steps of reads; one for a database, passed to the subsystems that
//!   record. Other counters stay in the subsystem that counts.
//! - [`Stats`] (`snapshot.rs`): one typed snapshot, gathered by `collect.rs`.
//! - [`Stats::metrics`] (`describe.rs`): the one list of names, units, help and values. What is shown anywhere comes
//!   from it, so that two places cannot differ; `text.rs` writes it down.
//!
//! To add a number: count it in its subsystem, give it a field of a struct in `snapshot.rs`, fill that in `collect.rs`,
//! and describe it in `describe.rs` and docs/guide/statistics.md (a test compares the two).

mod collect;
mod describe;
mod families;
mod histogram;
mod metric;
mod recorder;
mod snapshot;
mod stripe;
mod text;

pub use families::METRIC_FAMILIES_MAX;
pub use histogram::Histogram;
pub use metric::{Metric, MetricKind, Sample, Unit, Value};
pub(crate) use recorder::{ReadCounters, Recorder};
pub use snapshot::{
    CacheStats, CommitStats, CompactionTotals, FamilyStats, FilterStats, HealthStats, HotKey, HotKeyStats, IngestStats,
    LatencyStats, LevelReads, LevelStats, LogStats, MemtableStats, ReadStats, StallStats, Stats, TableCacheStats,
};
pub(crate) use stripe::Sampler;

/// How an operation is chosen for measurement unless [`Options::stats_sample_one_in`](crate::Options) is set:
/// two reads of the clock cost some 50 ns, too much for each get of a microsecond.
pub(crate) const SAMPLE_ONE_IN_DEFAULT: u64 = 32;
