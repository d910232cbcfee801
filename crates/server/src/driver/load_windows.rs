//! When the load of a region is so high, for so long, that the region should be split: a function of the windows that
//! have passed.
//!
//! # Hysteresis
//! A streak begins with a window above a limit, and ends with one below three quarters of it; windows between these
//! neither count nor end it. After ten windows above the limit something is done. A moment of load therefore causes
//! nothing, and a load that is clearly above the limit is not forgotten for a slow second.
//!
//! # Rest
//! After a decision that changed nothing (no boundary, a split that failed) the region rests, each time for twice as
//! long. So does a part of a split that did not help: if the load moves with what is written, as that of ascending
//! keys does, each split leaves one of the parts as loaded as the region was, and others would follow without an end.

use std::time::Duration;

/// Windows above a limit before something is done.
pub(super) const WINDOWS: u32 = 10;
/// Windows for which the parts of a split rest: until leaders are elected, and clients know of them.
const SETTLE_WINDOWS: u32 = 10;
/// Windows of the first rest after a decision that changed nothing.
const REST_WINDOWS: u32 = 30;
/// The longest rest is the first one doubled this many times: half an hour.
const REST_DOUBLINGS_MAX: u32 = 6;
/// A load that is at a limit.
const AT_LIMIT: u64 = 1000;
/// A load below this ends a streak.
const CALM: u64 = 750;
/// A split has helped if each part has at most this share of the region's load before.
const HELPED_PERCENT: u64 = 85;

/// How much of a region may be served before it is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadLimits {
    /// Requests each second; each key of a batch is one. 0: no region is split by their number.
    pub requests_max: u64,
    /// Bytes of keys and values each second, read and written; 0: no region is split by them.
    pub bytes_max: u64,
    /// How long loads are averaged.
    pub window: Duration,
}

/// Which limit a load is closer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Requests,
    Bytes,
}

/// A load, in thousandths of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) permille: u64,
    pub(super) measure: Measure,
}

impl LoadLimits {
    pub(super) fn is_off(&self) -> bool {
        self.requests_max == 0 && self.bytes_max == 0
    }

    /// The load of a region of which so much was served in `elapsed`.
    pub(super) fn load(&self, requests: u64, bytes: u64, elapsed: Duration) -> Load {
        let of = |count: u64, max: u64| {
            let (count, per_elapsed) =
                (u128::from(count) * u128::from(AT_LIMIT), u128::from(max) * elapsed.as_millis());
            let permille = (count * 1000).checked_div(per_elapsed).unwrap_or(0);
            u64::try_from(permille).unwrap_or(u64::MAX)
        };
        let (requests, bytes) = (of(requests, self.requests_max), of(bytes, self.bytes_max));
        let measure = if bytes > requests { Measure::Bytes } else { Measure::Requests };
        Load { permille: requests.max(bytes), measure }
    }
}

/// What follows from a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing; there is no streak.
    Calm,
    /// A streak has begun: from now on requests are sampled.
    Sample,
    /// The streak goes on.
    Wait,
    /// It is time to decide.
    Decide,
}

/// The windows of a region.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Windows {
    /// Those of this streak that were above the limit.
    above: u32,
    /// Their loads.
    sum: u64,
    is_above: bool,
    rest_until: Duration,
    /// How many decisions in a row have changed nothing.
    in_vain: u32,
    /// The load before the last split, until it is known whether that has helped.
    before_split: Option<u64>,
}

/// What the parts of a split inherit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inherited {
    load: u64,
    in_vain: u32,
}

impl Windows {
    /// A window has passed.
    pub(super) fn pass(&mut self, load: Load, now: Duration, window: Duration) -> Next {
        if load.permille < CALM {
            self.end_streak();
            self.is_above = false;
            if now >= self.rest_until + rest(REST_DOUBLINGS_MAX, window) {
                self.in_vain = 0;
            }
            return Next::Calm;
        }
        self.is_above |= load.permille >= AT_LIMIT;
        if now < self.rest_until {
            return Next::Calm;
        }
        if load.permille >= AT_LIMIT {
            self.above += 1;
            self.sum = self.sum.saturating_add(load.permille);
            if self.above == 1 {
                return Next::Sample;
            }
        }
        match self.above {
            0 => Next::Calm,
            WINDOWS.. => Next::Decide,
            _ => Next::Wait,
        }
    }

    /// The region is above a limit, whether something can be done or not.
    pub(super) fn is_above(&self) -> bool {
        self.is_above
    }

    /// Its range has changed, and so has its load.
    pub(super) fn range_changed(&mut self) {
        self.end_streak();
        self.is_above = false;
    }

    /// Nothing of the streak counts: the region cannot be split now.
    pub(super) fn end_streak(&mut self) {
        (self.above, self.sum) = (0, 0);
    }

    /// At the time to decide: whether the split that made this region has helped, in as much as its load is that of a
    /// part. If not, it rests.
    pub(super) fn split_helped(&mut self, now: Duration, window: Duration) -> bool {
        let Some(before) = self.before_split.take() else { return true };
        let load = self.sum / u64::from(self.above.max(1));
        if load.saturating_mul(100) <= before.saturating_mul(HELPED_PERCENT) {
            self.in_vain = 0;
            return true;
        }
        self.rest(now, window);
        false
    }

    /// A decision has changed nothing.
    pub(super) fn rest(&mut self, now: Duration, window: Duration) {
        self.end_streak();
        self.rest_until = now + rest(self.in_vain, window);
        self.in_vain = (self.in_vain + 1).min(REST_DOUBLINGS_MAX);
    }

    /// A split begins; this is for its parts.
    pub(super) fn split(&mut self) -> Inherited {
        let inherited = Inherited { load: self.sum / u64::from(self.above.max(1)), in_vain: self.in_vain };
        self.end_streak();
        inherited
    }

    /// The region is a part of a split.
    pub(super) fn inherit(&mut self, inherited: Inherited, now: Duration, window: Duration) {
        self.range_changed();
        (self.before_split, self.in_vain) = (Some(inherited.load), inherited.in_vain);
        self.rest_until = now + window * SETTLE_WINDOWS;
    }
}

fn rest(doublings: u32, window: Duration) -> Duration {
    window * (REST_WINDOWS << doublings.min(REST_DOUBLINGS_MAX))
}

#[cfg(test)]
#[path = "load_windows_test.rs"]
mod tests;
