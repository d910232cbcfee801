//! For how long followers have lagged, and when that is worth a warning.

use kontiki_raftstore::{FollowerLag, RegionId, StoreId, StoreLag};
use std::collections::BTreeMap;
use std::time::Duration;

/// The first pause after a warning; each further one is twice as long, while followers lag.
const WARN_PAUSE_MIN: Duration = Duration::from_secs(60);
/// The longest pause: a store that is away for days is in the log of each hour.
const WARN_PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// A follower beyond the bound, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lagging {
    /// The follower.
    pub follower: FollowerLag,
    /// For how long it has been beyond the bound without a break, as this leader saw it.
    pub since: Duration,
}

/// How far the raft logs of this node are behind, as of at most a second ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LagReport {
    /// Sums, maxima, and what stands out.
    pub all: StoreLag,
    /// The worst followers beyond the bound, the worst first: as many as `all` names of its worst ones.
    pub lagging: Vec<Lagging>,
    /// The number of followers beyond the bound.
    pub lagging_count: u64,
    /// The bound of the log that a restart reads, in bytes.
    pub replay_bytes_max: u64,
}

/// What to warn of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) worst: Lagging,
    /// How many have lagged for so long.
    pub(super) count: usize,
}

/// The followers that lag.
pub(super) struct LagWatch {
    /// For how long one may lag.
    warn_after: Duration,
    since: BTreeMap<(RegionId, StoreId), Duration>,
    /// When the next warning may come, and the pause after it.
    next_warning: Option<(Duration, Duration)>,
}

impl LagWatch {
    pub(super) fn new(warn_after: Duration) -> LagWatch {
        LagWatch { warn_after, since: BTreeMap::new(), next_warning: None }
    }

    /// Takes the followers that are beyond the bound at `now`. Returns them with their times in the same order, and
    /// what to warn of.
    pub(super) fn see(&mut self, beyond: &[FollowerLag], now: Duration) -> (Vec<Lagging>, Option<Warning>) {
        let before = std::mem::take(&mut self.since);
        let mut lagging = Vec::with_capacity(beyond.len());
        for follower in beyond {
            let key = (follower.region, follower.store);
            let since = before.get(&key).copied().unwrap_or(now);
            self.since.insert(key, since);
            lagging.push(Lagging { follower: *follower, since: now.saturating_sub(since) });
        }
        let mut long = lagging.iter().filter(|lagging| lagging.since >= self.warn_after);
        let Some(worst) = long.next().copied() else {
            self.next_warning = None;
            return (lagging, None);
        };
        let warning = Warning { worst, count: 1 + long.count() };
        let (due, pause) = self.next_warning.unwrap_or((now, WARN_PAUSE_MIN));
        if now < due {
            return (lagging, None);
        }
        self.next_warning = Some((now + pause, (2 * pause).min(WARN_PAUSE_MAX)));
        (lagging, Some(warning))
    }
}

#[cfg(test)]
#[path = "lag_watch_test.rs"]
mod tests;
