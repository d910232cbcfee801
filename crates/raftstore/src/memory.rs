//! The bytes that a store holds for its regions' logs, against one budget.
//!
//! Counted are the entries of all logs in memory, and once more those that were handed out for apply and are not visible
//! yet (the batch is a copy). Every region keeps its share up to date ([`Memory::replace`]).
//!
//! At the budget nothing that would grow a log is taken: neither appends from a leader nor proposals. Each region may
//! still have one append, or one proposal, beyond what it has applied, so that every region gets on; a quarter beyond the
//! budget that ends, too, because what is applied stays in the log until it is flushed. So the total stays below that plus
//! one append. From three quarters of it on, logs no longer wait for followers that lag or catch up, and
//! if what remains is waiting for memtables to be flushed, a flush is asked for. So whatever fills the budget is on its
//! way out: what is not applied is being applied, what is applied is being flushed, and what is flushed goes.

/// A store's use of memory for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryStatus {
    /// Bytes of log entries in memory, over all regions, and of those that are on their way to the engine once more.
    pub log_bytes: usize,
    /// Bytes of entries on their way to the engine.
    pub applying_bytes: usize,
    /// The budget of `log_bytes`.
    pub log_bytes_max: usize,
    /// Appends from leaders and proposals that were refused for want of room, here or in the region.
    pub refused: u64,
    /// Snapshots that were on their way, or had come, when the log outgrew what is kept for their receivers.
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

    /// Whether not even a region that has applied all may take more: only a flush makes room.
    pub fn is_exhausted(&self) -> bool {
        self.log_bytes > self.log_bytes_max + self.log_bytes_max / 4
    }

    /// Whether logs must give back what they keep for others.
    pub fn is_tight(&self) -> bool {
        self.log_bytes > self.log_bytes_max / 4 * 3
    }

    /// Whether enough is on its way to the engine.
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
