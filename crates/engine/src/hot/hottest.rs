//! What is shown of hot keys.

/// Keys that are read and written most, the hottest first: those with at least one in 512 of all reads or writes of the
/// last windows (`HotKeyOptions::window_ms`), at most 16 each. Estimates, which exceed the true value only by sampling.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HotKeyStats {
    /// By reads.
    pub reads: Vec<HotKey>,
    /// By writes.
    pub writes: Vec<HotKey>,
    /// Commits refused by `HotKeyOptions::write_limit_per_second`, counted.
    pub throttled: u64,
    /// Times that what a hot key's read has found was promoted in a cache, counted.
    pub promoted: u64,
}

/// A hot key.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HotKey {
    /// Its family's number.
    pub family: u32,
    /// Its first 64 bytes.
    pub key: Vec<u8>,
    /// Whether it is longer.
    pub truncated: bool,
    /// Reads or writes of it per second, estimated.
    pub per_second: f64,
}
