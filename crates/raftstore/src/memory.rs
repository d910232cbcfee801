//! The memory budget of a store for its regions' logs.
//!
//! It counts the entries of all logs in memory, and a second time those that were handed out for apply and are not
//! visible yet (the batch is a copy). Every region updates its share ([`Memory::replace`]).
//!
//! When the budget is used up, nothing that would grow a log is accepted: neither appends from a leader nor proposals.
//! Each region may still have one append, or one proposal, beyond its applied entries, so that every region makes
//! progress. At 125% of the budget this ends, too, because applied entries stay in the log until they are flushed. The
//! total therefore stays below 125% of the budget plus one append. From 75% of the budget on, logs are no longer
//! retained for followers that lag or catch up, and if the remaining entries wait for memtables to be flushed, a flush
//! is requested. All entries that fill the budget are therefore about to be released: those that are not applied are
//! being applied, those that are applied are being flushed, and those that are flushed are truncated.

/// A store's use of memory for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Bytes of log entries in memory, over all regions; entries in flight to the engine count twice.
    pub log_bytes: usize,
    /// Bytes of entries in flight to the engine.
    pub applying_bytes: usize,
    /// The budget of `log_bytes`.
    pub log_bytes_max: usize,
    /// Appends from leaders and proposals that were refused because the budget of the store or of the region was used
    /// up.
    pub refused: u64,
    /// Snapshots that were in flight, or had arrived, when the log outgrew what is retained for their receivers.
    pub abandoned_snapshots: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    log_bytes: usize,
    log_bytes_max: usize,
    applying_bytes: usize,
    applying_bytes_max: usize,
    pub refused: u64,
    pub abandoned_snapshots: u64,
}

impl Memory {
    pub fn new(log_bytes_max: usize, applying_bytes_max: usize) -> Memory {
        Memory { log_bytes_max, applying_bytes_max, ..Memory::default() }
    }

    /// A region's share was `before` and is `now`.
    pub fn replace(&mut self, before: &mut usize, now: usize) {
        assert!(*before <= self.log_bytes, "the total holds each region's share");
        self.log_bytes = self.log_bytes - *before + now;
        *before = now;
    }

    /// Whether `bytes` more would be beyond the budget.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.log_bytes + bytes > self.log_bytes_max
    }

    /// Whether not even a region that has applied everything may accept more: only a flush releases memory.
    pub fn is_exhausted(&self) -> bool {
        self.log_bytes > self.log_bytes_max + self.log_bytes_max / 4
    }

    /// Whether logs must release what they retain for followers.
    pub fn is_tight(&self) -> bool {
        self.log_bytes > self.log_bytes_max / 4 * 3
    }

    /// Whether enough is in flight to the engine.
    pub fn applies_enough(&self) -> bool {
        self.applying_bytes >= self.applying_bytes_max
    }

    pub fn apply_begins(&mut self, bytes: usize) {
        self.applying_bytes += bytes;
    }

    pub fn apply_ended(&mut self, bytes: usize) {
        assert!(bytes <= self.applying_bytes, "what becomes visible was handed out");
        self.applying_bytes -= bytes;
    }

    pub fn status(&self) -> MemoryStatus {
        let Memory { log_bytes, log_bytes_max, applying_bytes, refused, abandoned_snapshots, .. } = *self;
        MemoryStatus { log_bytes, applying_bytes, log_bytes_max, refused, abandoned_snapshots }
    }
}
