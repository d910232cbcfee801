//! Timestamps of the oracle.

use std::fmt;

/// Bits of a timestamp below its physical part.
const LOGICAL_BITS: u32 = 18;

/// A timestamp of the placement driver's oracle: milliseconds since the epoch << 18 | a counter within the millisecond.
/// 0 is "none"; [`TimeStamp::MAX`] is "the newest version" and is never handed out.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeStamp(pub u64);

impl TimeStamp {
    /// No timestamp.
    pub const ZERO: TimeStamp = TimeStamp(0);
    /// Reads at this timestamp see the newest committed version.
    pub const MAX: TimeStamp = TimeStamp(u64::MAX);

    /// From its parts; bits of `logical` beyond its 18 are an error of the caller.
    pub fn compose(physical_ms: u64, logical: u64) -> TimeStamp {
        debug_assert!(logical < 1 << LOGICAL_BITS, "the logical part has 18 bits");
        TimeStamp((physical_ms << LOGICAL_BITS) | logical)
    }

    /// The physical part, milliseconds.
    pub fn physical_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & ((1 << LOGICAL_BITS) - 1)
    }

    /// The smallest greater timestamp ([`TimeStamp::MAX`] stays).
    pub fn next(self) -> TimeStamp {
        TimeStamp(self.0.saturating_add(1))
    }

    /// Whether it is 0, "none".
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is [`TimeStamp::MAX`].
    pub fn is_max(self) -> bool {
        self.0 == u64::MAX
    }
}

impl From<u64> for TimeStamp {
    fn from(value: u64) -> TimeStamp {
        TimeStamp(value)
    }
}

impl fmt::Debug for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ts {}", self.0)
    }
}

impl fmt::Display for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
