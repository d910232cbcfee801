//! The memory budget of a store for its regions' logs.
//!
//! It counts the entries of all logs in memory; a second time those that were handed out for apply and are not visible
//! yet (the batch is a copy); and the entries that are being read back from streams. Every region updates its share
//! ([`Memory::replace`]).
//!
//! Above a share of the budget, payloads of applied entries are *evicted* (docs/internals/log-memory.md): they are in
//! the streams, and few of them are needed again. So neither a follower that lags nor a flush that does not end fills
//! the budget; entries that are not applied do, and what every entry costs without its payload.
//!
//! When the budget is used up, nothing that would grow a log is accepted: neither appends from a leader nor proposals.
//! Each region may still have one append, or one proposal, beyond its applied entries, so that every region makes
//! progress. At 125% of the budget this ends, too. The total therefore stays below 125% of the budget plus one append.
//! If eviction does not help, from 75% of the budget on logs are no longer retained for followers that lag or catch up,
//! and if the remaining entries wait for memtables to be flushed, a flush is requested. All entries that fill the
//! budget are therefore about to be released: those that are not applied are being applied, those that are applied are
//! evicted or being flushed, and those that are flushed are truncated.

/// A store's use of memory for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Bytes of log entries in memory, over all regions; entries in flight to the engine count twice.
    pub log_bytes: usize,
    /// Bytes of entries in flight to the engine.
    pub applying_bytes: usize,
    /// Bytes of entries that are being read from streams; they count for `log_bytes`.
    pub reading_bytes: usize,
    /// Bytes of the logs of all regions, in memory or not.
    pub stored_bytes: usize,
    /// The bound of `stored_bytes` above which no log is retained for followers.
    pub stored_bytes_max: usize,
    /// Entries that were read from streams, for followers that lag.
    pub entries_read: u64,
    /// Reads of streams that failed, or found other entries than those of the log.
    pub failed_reads: u64,
    /// Appends that were delayed because a follower had enough in flight.
    pub appends_delayed: u64,
    /// The budget of `log_bytes`.
    pub log_bytes_max: usize,
    /// Appends from leaders and proposals that were refused because the budget of the store or of the region was used
    /// up.
    pub refused: u64,
    /// Snapshots that were in flight, or had arrived, when the log outgrew what is retained for their receivers.
    pub abandoned_snapshots: u64,
}

/// The bounds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub log_bytes_max: usize,
    /// The share of it above which applied entries are evicted.
    pub evict_percent: usize,
    pub applying_bytes_max: usize,
    pub reading_bytes_max: usize,
    pub stored_bytes_max: usize,
}

/// What a region takes, as last counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// In memory.
    pub bytes: usize,
    /// Of that, what eviction would release.
    pub evictable: usize,
    /// In memory or not.
    pub stored: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    bounds: Bounds,
    total: Share,
    applying_bytes: usize,
    reading_bytes: usize,
    pub refused: u64,
    pub abandoned_snapshots: u64,
    pub entries_read: u64,
    pub failed_reads: u64,
    pub appends_delayed: u64,
}

impl Memory {
    pub fn new(bounds: Bounds) -> Memory {
        Memory { bounds, ..Memory::default() }
    }

    /// A region's share was `before` and is `now`.
    pub fn replace(&mut self, before: &mut Share, now: Share) {
        let exchange = |total: &mut usize, before: usize, now: usize| {
            assert!(before <= *total, "the total holds each region's share");
            *total = *total - before + now;
        };
        exchange(&mut self.total.bytes, before.bytes, now.bytes);
        exchange(&mut self.total.evictable, before.evictable, now.evictable);
        exchange(&mut self.total.stored, before.stored, now.stored);
        *before = now;
    }

    fn log_bytes(&self) -> usize {
        self.total.bytes + self.reading_bytes
    }

    /// Whether `bytes` more would be beyond the budget.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.log_bytes() + bytes > self.bounds.log_bytes_max
    }

    /// Whether not even a region that has applied everything may accept more.
    pub fn is_exhausted(&self) -> bool {
        self.log_bytes() > self.bounds.log_bytes_max + self.bounds.log_bytes_max / 4
    }

    /// Whether logs must release what they retain for followers, if eviction does not help.
    pub fn is_tight(&self) -> bool {
        self.log_bytes() > self.bounds.log_bytes_max / 4 * 3
    }

    /// Whether enough is in flight to the engine.
    pub fn applies_enough(&self) -> bool {
        self.applying_bytes >= self.bounds.applying_bytes_max
    }

    pub fn apply_begins(&mut self, bytes: usize) {
        self.applying_bytes += bytes;
    }

    pub fn apply_ended(&mut self, bytes: usize) {
        assert!(bytes <= self.applying_bytes, "what becomes visible was handed out");
        self.applying_bytes -= bytes;
    }

    /// Whether the logs are so large, in memory or not, that they must release what they retain for followers.
    pub fn is_disk_tight(&self) -> bool {
        self.total.stored > self.bounds.stored_bytes_max
    }

    fn evict_above(&self) -> usize {
        self.bounds.log_bytes_max / 100 * self.bounds.evict_percent
    }

    /// Whether applied entries are to be evicted. Not for a few bytes: the largest logs have to be looked for.
    pub fn must_evict(&self) -> bool {
        let worth_it = if self.bounds.evict_percent == 0 { 1 } else { self.bounds.log_bytes_max / 32 };
        self.total.evictable >= worth_it.max(1) && self.log_bytes() > self.evict_above()
    }

    /// Bytes to evict: below what begins it, so that it is not repeated soon.
    pub fn eviction_bytes(&self) -> usize {
        self.log_bytes().saturating_sub(self.evict_above() / 3 * 2)
    }

    /// Whether another read of a stream may begin. One always may.
    pub fn may_read(&self) -> bool {
        let has_room = self.reading_bytes < self.bounds.reading_bytes_max && !self.is_full_for(0);
        self.reading_bytes == 0 || has_room
    }

    pub fn read_begins(&mut self, bytes: usize) {
        self.reading_bytes += bytes;
    }

    pub fn read_ended(&mut self, bytes: usize) {
        assert!(bytes <= self.reading_bytes, "what was read was requested");
        self.reading_bytes -= bytes;
    }

    pub fn status(&self) -> MemoryStatus {
        MemoryStatus {
            log_bytes: self.log_bytes(),
            applying_bytes: self.applying_bytes,
            reading_bytes: self.reading_bytes,
            stored_bytes: self.total.stored,
            stored_bytes_max: self.bounds.stored_bytes_max,
            entries_read: self.entries_read,
            failed_reads: self.failed_reads,
            appends_delayed: self.appends_delayed,
            log_bytes_max: self.bounds.log_bytes_max,
            refused: self.refused,
            abandoned_snapshots: self.abandoned_snapshots,
        }
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
