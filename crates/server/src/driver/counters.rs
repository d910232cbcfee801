//! The driver's counters, for `/metrics`. Plain atomics: read from any thread, never reset, ordering irrelevant.

use kontiki_raftstore::MemoryStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one node since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Proposals submitted to raftstore.
    pub proposals: Counter,
    /// Proposals answered as applied.
    pub proposals_applied: Counter,
    /// Proposals refused with a region error (not the leader, epoch, key range, ...).
    pub proposals_refused: Counter,
    /// Proposals whose outcome remained unknown.
    pub proposals_undetermined: Counter,
    /// Proposals and calls refused because too many were waiting.
    pub busy: Counter,
    /// Proposals refused because the disk was full.
    pub disk_full: Counter,
    /// Regions split on this node's proposal.
    pub splits: Counter,
    /// Of these, splits because of the region's load.
    pub splits_by_load: Counter,
    /// Regions led here with a load above a limit.
    pub regions_overloaded: Gauge,
    /// Of these, regions whose load no boundary divides.
    pub regions_indivisible: Gauge,
    /// Keys reported as the cause of a region's load.
    pub hot_keys_reported: Counter,
    /// Replicas here whose range another region has taken over.
    pub merges: Counter,
    /// Checks that compared the replicas of a region that this node leads.
    pub consistency_checks: Counter,
    /// Those that ended without the result of some replica.
    pub consistency_checks_incomplete: Counter,
    /// Those that found replicas that differ.
    pub consistency_differences: Counter,
    /// Synced commits of raft state (each covers every region that had something to persist).
    pub persists: Counter,
    /// Persists retried after the disk was full.
    pub persist_retries: Counter,
    /// Times that the raft log became unwritable: a full disk, or a write that took too long.
    pub log_unwritable: Counter,
    /// Microseconds that a write of the raft log takes until it is durable, averaged over the last ones.
    pub log_write_us: Gauge,
    /// 1 while that is so much longer than on other nodes that these lead instead.
    pub log_slow: Gauge,
    /// Batches of committed entries applied to the memtable.
    pub applies: Counter,
    /// Views served under the leader lease.
    pub reads_lease: Counter,
    /// Views served after a read barrier (ReadIndex).
    pub reads_barrier: Counter,
    /// Views served by a replica that does not lead.
    pub reads_replica: Counter,
    /// Raft messages received.
    pub messages_received: Counter,
    /// Raft messages dropped because the inbox was full.
    pub messages_dropped: Counter,
    /// Views served at timestamps by replicas that lead or not.
    pub reads_stale: Counter,
    /// Reads at timestamps that were refused, because the replica may not be read there yet.
    pub reads_stale_refused: Counter,
    /// Of the regions that were read at timestamps here in the last interval, how far the lowest safe timestamp is
    /// behind this node's clock, in milliseconds.
    pub safe_ts_lag_ms: Gauge,
    /// Locks that were read to find the oldest ones.
    pub safe_ts_locks_read: Counter,
    /// The GC safe point that placement has last answered, a timestamp.
    pub gc_safe_point: Gauge,
    /// How far it is behind this node's clock, in milliseconds.
    pub gc_safe_point_age_ms: Gauge,
    /// Write records read to find dead ones.
    pub gc_records_read: Counter,
    /// Compactions of a region's part of this store because enough of its versions were dead.
    pub gc_regions_collected: Counter,
    /// Transactions of clients that had stopped, finished by this node.
    pub locks_resolved: Counter,
    /// Those that could not be finished at once; they are tried again.
    pub locks_unresolved: Counter,
    /// Raft messages ignored because this node may not take part in consensus yet.
    pub messages_ignored: Counter,
    /// Raft messages refused because no correct peer sends them.
    pub messages_refused: Counter,
    /// Messages from other nodes that did not decode.
    pub messages_malformed: Counter,
    /// Placement calls started here (by services or by this node's heartbeats).
    pub placement_calls: Counter,
    /// Placement calls answered for another node.
    pub placement_proxied: Counter,
    /// Placement calls that reached their deadline.
    pub placement_timeouts: Counter,
    /// Views taken for sending snapshots.
    pub snapshots_prepared: Counter,
    /// Views retained for sending snapshots.
    pub snapshot_views: Gauge,
    /// Views for sending that wait for others to be released.
    pub snapshot_views_waiting: Gauge,
    /// Snapshots in flight for which the log was no longer retained.
    pub snapshots_abandoned: Gauge,
    /// Snapshots sent completely.
    pub snapshots_sent: Counter,
    /// Snapshots received completely.
    pub snapshots_received: Counter,
    /// Snapshots refused for lack of space on the disk.
    pub snapshots_refused: Counter,
    /// Snapshots installed.
    pub snapshots_installed: Counter,
    /// Of these, those that were taken in as tables.
    pub snapshots_installed_as_tables: Counter,
    /// Bytes of these tables.
    pub snapshot_table_bytes: Counter,
    /// Bytes of the files of installed snapshots.
    pub snapshot_installed_bytes: Counter,
    /// Milliseconds that installs of snapshots have taken.
    pub snapshot_install_ms: Counter,
    /// Replicas without ticks: they hibernate, or have no peer to hear from and nothing to do.
    pub regions_resting: Gauge,
    /// Replicas that hibernate and wait for their turn to wake up.
    pub regions_waking: Gauge,
    /// Bytes that raft logs take in memory, over all regions.
    pub log_memory_bytes: Gauge,
    /// Their budget.
    pub log_memory_bytes_max: Gauge,
    /// Bytes of entries that are being read back from the logs on disk, for followers that lag.
    pub log_reading_bytes: Gauge,
    /// Entries that were read back since the start.
    pub log_entries_read: Gauge,
    /// Reads of the logs on disk that failed since the start.
    pub log_reads_failed: Gauge,
    /// Bytes of raft logs in memory or not, over all regions.
    pub log_stored_bytes: Gauge,
    /// Their bound, above which no log is retained for followers.
    pub log_stored_bytes_max: Gauge,
    /// Warnings that a follower has lagged for long.
    pub lag_warnings: Counter,
    /// Appends delayed since the start because a follower had enough in flight.
    pub appends_delayed: Gauge,
    /// Bytes of committed entries in flight to the engine.
    pub applying_bytes: Gauge,
    /// Appends from leaders and proposals refused since the start because the logs in memory were full.
    pub log_memory_refused: Gauge,
}

impl Counters {
    /// Sets the values about the speed of the raft log.
    pub(super) fn set_log_speed(&self, write: Option<Duration>, is_slow: bool) {
        let micros = write.map_or(0, |write| u64::try_from(write.as_micros()).unwrap_or(u64::MAX));
        self.log_write_us.set(micros);
        self.log_slow.set(u64::from(is_slow));
    }

    /// Sets the values from raftstore's memory status.
    pub(super) fn set_memory(&self, memory: MemoryStatus) {
        self.snapshots_abandoned.set(memory.abandoned_snapshots);
        self.log_memory_bytes.set(memory.log_bytes as u64);
        self.log_memory_bytes_max.set(memory.log_bytes_max as u64);
        self.log_reading_bytes.set(memory.reading_bytes as u64);
        self.log_entries_read.set(memory.entries_read);
        self.log_reads_failed.set(memory.failed_reads);
        self.log_stored_bytes.set(memory.stored_bytes as u64);
        self.log_stored_bytes_max.set(memory.stored_bytes_max as u64);
        self.appends_delayed.set(memory.appends_delayed);
        self.applying_bytes.set(memory.applying_bytes as u64);
        self.log_memory_refused.set(memory.refused);
    }
}
