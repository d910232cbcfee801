//! What is measured while the database works: latencies, and the steps of reads. The lower layers record here; `stats`
//! shows it.

mod histogram;
mod recorded;
mod recorder;
mod stripe;

pub use histogram::Histogram;
#[cfg(test)]
pub(crate) use histogram::Recording;
pub use recorded::{FilterStats, LatencyStats, LevelReads, ReadStats};
pub(crate) use recorder::{ReadCounters, Recorder};
pub(crate) use stripe::Sampler;

/// How an operation is chosen for measurement unless [`Options::stats_sample_one_in`](crate::Options) is set:
/// two reads of the clock cost some 50 ns, too much for each get of a microsecond.
pub(crate) const SAMPLE_ONE_IN_DEFAULT: u64 = 32;
