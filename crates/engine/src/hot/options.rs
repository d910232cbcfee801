//! Options of hot keys.

/// Whether and how hot keys are watched: see `Stats::hot_keys`.
#[derive(Clone, Debug)]
pub struct HotKeyOptions {
    /// Whether keys that are read and written most are tracked, by the operations that `Options::stats_sample_one_in`
    /// chooses. Costs some 100 KiB of memory, and too little time to measure. Default true.
    pub tracked: bool,
    /// Counts are halved at the end of each window. Longer: steadier numbers; shorter: a new hot key shows sooner, and
    /// one that is not hot any more is dropped sooner. Default 2,000 ms; 100 to 3,600,000.
    pub window_ms: u64,
    /// One key may be written so many times per second, with bursts of one second's worth; beyond it commits are
    /// refused with `Error::Throttled`. What replication applies is never refused. Each write is counted then, which
    /// costs some 0.1 microseconds per key. Default 0, no limit; up to 1,000,000,000.
    pub write_limit_per_second: u64,
}

impl Default for HotKeyOptions {
    fn default() -> HotKeyOptions {
        HotKeyOptions { tracked: true, window_ms: 2_000, write_limit_per_second: 0 }
    }
}
