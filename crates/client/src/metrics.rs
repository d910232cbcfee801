//! What a client counts, for its user's own metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters and their copy for users, from one list.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a client and its clones have done since it connected: [`crate::Client::metrics`]. All numbers only
        /// rise.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ClientMetrics {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        impl Counters {
            /// All of them, each at some moment of the call.
            pub(crate) fn read(&self) -> ClientMetrics {
                ClientMetrics { $($name: self.$name.0.load(Ordering::Relaxed),)+ }
            }
        }

        impl ClientMetrics {
            /// Names and values, for exporters.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Requests to stores, tries included.
    requests,
    /// Requests that were refused because another replica leads the region.
    retries_not_leader,
    /// Requests that were refused because the region was split, merged or moved.
    retries_region_changed,
    /// Requests that were refused because the store is busy.
    retries_busy,
    /// Requests that were refused for other reasons that pass.
    retries_other,
    /// Requests that failed because a store was not reached, or its connection broke.
    retries_unreachable,
    /// Requests that were not answered within their time.
    retries_unanswered,
    /// Regions that had to be asked of the placement driver, because they were not known.
    region_cache_misses,
    /// Timestamps that callers asked for; many of them share a request.
    timestamps,
    /// Locks of other transactions that were met.
    locks_met,
    /// Of these, those that were resolved, because their transaction is decided.
    locks_resolved,
    /// Commits in one phase.
    commits_one_phase,
    /// Async commits.
    commits_async,
    /// Commits in two phases.
    commits_two_phases,
    /// Commits in two phases because the server declined the faster way.
    commits_declined,
    /// Commits that failed, without those whose outcome is unknown.
    commits_failed,
    /// Commits whose outcome is unknown.
    commits_undetermined,
    /// Requests for pessimistic locks that were repeated with a newer timestamp, because of a newer commit.
    lock_conflicts,
    /// Calls that ended with a deadlock.
    deadlocks,
    /// Heartbeats that prolonged locks.
    heartbeats,
}

/// A number that only rises.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
