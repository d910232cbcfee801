//! Statistics of a database.
//!
//! ```text
//! subsystems ──count──> Recorder, own counters ──Db::stats──> Stats ──metrics──> Vec<Metric> ──> Prometheus text, JSON
//! ```
//!
//! - `Recorder` (module `measure`): latencies and the steps of reads; one for a database, passed to the subsystems that
//!   record. Other counters stay in the subsystem that counts.
//! - A file for each subsystem (`commits.rs`, `log.rs`, ...): its struct, how that is filled, and the names, units and
//!   help of its numbers. What is shown anywhere comes from these, so that two places cannot differ.
//! - [`Stats`] (`figures.rs`): one typed snapshot of all of them; `text.rs` writes it down.
//!
//! To add a number: count it where it happens, give it a field in the file of its subsystem, fill and describe it
//! there, and explain it in docs/guide/statistics.md (a test compares the two).

mod caches;
mod commits;
mod compaction;
mod feed;
mod figures;
mod health;
mod hot_keys;
mod ingest;
mod levels;
mod log;
mod memtables;
mod metric;
mod named_families;
mod reads;
mod text;
mod transactions;
mod values;

pub use crate::cache::CacheStats;
pub use crate::hot::{HotKey, HotKeyStats};
pub use crate::measure::{FilterStats, Histogram, LatencyStats, LevelReads, ReadStats};
pub use crate::version::TableCacheStats;
pub use commits::{CommitStats, StallStats};
pub use compaction::CompactionTotals;
pub use figures::Stats;
use figures::{level_label, seconds};
pub use health::HealthStats;
pub use ingest::IngestStats;
pub use levels::{FamilyStats, LevelStats};
pub use log::LogStats;
pub use memtables::MemtableStats;
pub use metric::{Metric, MetricKind, Sample, Unit, Value};
pub use named_families::METRIC_FAMILIES_MAX;
