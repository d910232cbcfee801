//! What is persisted of garbage collection.

use std::collections::BTreeMap;

/// A time to live, in seconds, from which on a barrier never expires.
pub const GC_BARRIER_TTL_FOREVER: i64 = i64::MAX;
/// When a barrier that never expires expires.
pub(crate) const NEVER_MS: u64 = u64::MAX;

/// A barrier, under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// The transaction safe point does not pass it.
    pub ts: u64,
    /// In the time of the oracle; [`NEVER_MS`]: never.
    pub expires_at_ms: u64,
}

impl Barrier {
    pub fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms != NEVER_MS && self.expires_at_ms <= now_ms
    }

    /// Seconds that are left, rounded up.
    pub fn ttl_seconds(&self, now_ms: u64) -> i64 {
        if self.expires_at_ms == NEVER_MS {
            return GC_BARRIER_TTL_FOREVER;
        }
        i64::try_from(self.expires_at_ms.saturating_sub(now_ms).div_ceil(1000)).unwrap_or(GC_BARRIER_TTL_FOREVER)
    }
}

/// What is persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GcRecord {
    pub safe_point: u64,
    pub txn_safe_point: u64,
    pub barriers: BTreeMap<String, Barrier>,
}

impl GcRecord {
    /// The lowest barrier that has not expired.
    pub fn lowest(&self, now_ms: u64) -> Option<(&str, Barrier)> {
        let live = self.barriers.iter().filter(|(_, barrier)| !barrier.has_expired(now_ms));
        live.min_by_key(|(_, barrier)| barrier.ts).map(|(name, barrier)| (name.as_str(), *barrier))
    }

    /// Asserts the order of the points.
    pub fn check(&self) {
        assert!(self.safe_point <= self.txn_safe_point, "versions are dropped only below what transactions may use");
    }
}
