//! Settings, and the time as the driver reports it.

use std::time::Duration;

/// The time of an event, read by the driver from its clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary origin; never goes back within a process.
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch; may jump either way.
    pub wall_ms: u64,
}

/// Settings of one node's placement.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's id, never 0.
    pub cluster_id: u64,
    /// The store this node is, never 0.
    pub store_id: u64,
    /// How far ahead the upper bound of timestamps is persisted, in milliseconds. Default 3,000: one small write every
    /// 1.5 seconds under load, and a new leader starts at most this far ahead of the wall clock.
    pub timestamp_window_ms: u64,
    /// How far the wall clock may deviate from the monotonic clock between two readings before it is no longer
    /// followed, in milliseconds. Default 10,000: more than any slewing or leap second, and a lock's time to live is
    /// prolonged or shortened by no more than this.
    pub wall_jump_ms_max: u64,
    /// How many ids are reserved by one write. Default 1,000: a crash leaves a gap of at most this size.
    pub ids_per_write: u64,
    /// A new leader hands out no timestamp below this, in milliseconds, whatever bound it finds: after an unsafe
    /// recovery, the bound may be older than what earlier leaders handed out. Default 0.
    pub timestamp_min_ms: u64,
    /// The same, of ids. Default 0.
    pub id_min: u64,
    /// The minimum time between two writes of store records. Default 1 s: bounds the cost of addresses that keep
    /// changing.
    pub store_write_interval: Duration,
}

impl Config {
    /// The defaults for store `store_id` of cluster `cluster_id`; neither may be 0.
    pub fn new(cluster_id: u64, store_id: u64) -> Config {
        assert!(cluster_id != 0 && store_id != 0, "an id is not 0");
        Config {
            cluster_id,
            store_id,
            timestamp_window_ms: 3_000,
            wall_jump_ms_max: 10_000,
            ids_per_write: 1_000,
            timestamp_min_ms: 0,
            id_min: 0,
            store_write_interval: Duration::from_secs(1),
        }
    }
}
