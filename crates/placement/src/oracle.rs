//! The timestamp oracle: `physical milliseconds << 18 | logical`, strictly increasing.
//!
//! Invariants:
//! 1. Every timestamp handed out has a physical part below a bound that was durable before. A new leader starts at
//!    the bound it finds, hence above everything that any earlier leader handed out.
//! 2. Within one leadership `(physical, logical)` only grows.
//!
//! The physical part follows the wall clock, because the time to live of locks depends on it, but never goes back. At
//! each reading the progress of the wall clock is compared with that of the monotonic clock; as long as they agree
//! within a tolerance, the wall clock is followed. When it jumps further, in either direction, it is not followed: time
//! advances by the monotonic clock from where it was, until the wall clock returns or another leader takes over. A jump
//! back therefore does not freeze the time to live of locks, and a jump forward does not expire them all at once. This
//! does not detect a clock that is wrong from the start of a leadership: timestamps then run ahead with it, but their
//! order stays correct.
//!
//! *Rejected:* following forward jumps, as the well-known implementations do: one wrong reading on one machine moves
//! the cluster's time ahead permanently.

use crate::planted::{self, Bug};
use crate::{Config, LOGICAL_BITS, Now, TimestampsGranted};
use std::time::Duration;

/// The maximum number of timestamps that one call may ask for: what fits in one physical part.
pub const TIMESTAMP_COUNT_MAX: u32 = (1 << LOGICAL_BITS) - 1;

/// Timestamps at one physical part.
const LOGICAL_COUNT: u64 = 1 << LOGICAL_BITS;

/// The greatest physical part: 46 bits of milliseconds, the year 4199.
pub(crate) const PHYSICAL_MS_MAX: u64 = (1 << (64 - LOGICAL_BITS)) - 1;

/// Hands out timestamps below the durable bound.
#[derive(Debug)]
pub(crate) struct Oracle {
    window_ms: u64,
    /// The next timestamp to hand out.
    physical_ms: u64,
    logical: u64,
    /// Durable and exclusive.
    bound_ms: u64,
    /// The greatest bound that a write was requested for, at or above the durable one.
    asked_ms: u64,
    time: Timekeeper,
}

impl Oracle {
    /// The state of a new leader. Nothing can be handed out before a bound is written.
    pub fn new(config: &Config, bound_ms: u64, now: Now) -> Oracle {
        let bound_ms = if planted::is_set(Bug::BeginAtWallClock) { now.wall_ms.min(bound_ms) } else { bound_ms };
        let ahead_ms = bound_ms.saturating_sub(now.wall_ms);
        if ahead_ms > config.wall_jump_ms_max {
            tracing::warn!(
                ahead_ms,
                "timestamps begin ahead of this machine's clock: an earlier leader's clock was ahead, or an unsafe \
                 recovery left a margin (--clock-margin-seconds); locks from before expire earlier by that, and the \
                 clock is followed again when it has caught up"
            );
        }
        let time = Timekeeper {
            // A bound ahead of the wall clock means that the last leader's clock was ahead: continue from there.
            base_ms: now.wall_ms.min(PHYSICAL_MS_MAX).max(bound_ms),
            base: now.monotonic,
            jump_ms_max: config.wall_jump_ms_max,
            // The warning about a jump would have the wrong cause.
            distrusted: ahead_ms > config.wall_jump_ms_max,
        };
        Oracle {
            window_ms: config.timestamp_window_ms.max(1),
            // Timestamp 0 means none, everywhere.
            physical_ms: bound_ms.max(1),
            logical: 0,
            bound_ms,
            asked_ms: bound_ms,
            time,
        }
    }

    /// `count` timestamps at the current time, or `None` if the bound must be raised first.
    pub fn allocate(&mut self, count: u32, now: Now) -> Option<TimestampsGranted> {
        let time_ms = self.time.read(now);
        self.allocate_at(count, time_ms)
    }

    /// As [`Oracle::allocate`], but when the time has passed the bound, uses the last values below it. For calls that
    /// waited for the bound: if the disk is slower than the window they would otherwise wait forever.
    pub fn allocate_late(&mut self, count: u32, now: Now) -> Option<TimestampsGranted> {
        let time_ms = self.time.read(now).min(self.bound_ms.saturating_sub(1));
        self.allocate_at(count, time_ms)
    }

    fn allocate_at(&mut self, count: u32, time_ms: u64) -> Option<TimestampsGranted> {
        assert!((1..=TIMESTAMP_COUNT_MAX).contains(&count), "checked when the call came in");
        let (mut physical_ms, mut logical) = (self.physical_ms, self.logical);
        if time_ms > physical_ms {
            (physical_ms, logical) = (time_ms, 0);
        }
        if logical + u64::from(count) > LOGICAL_COUNT {
            (physical_ms, logical) = (physical_ms + 1, 0);
        }
        if physical_ms >= self.bound_ms && !planted::is_set(Bug::TimestampsBeyondBound) {
            return None;
        }
        let before = (self.physical_ms, self.logical);
        (self.physical_ms, self.logical) = (physical_ms, logical + u64::from(count));
        assert!(before < (self.physical_ms, self.logical), "timestamps strictly increase");
        Some(TimestampsGranted { physical_ms, logical: self.logical - 1, count })
    }

    /// Whether less than half of the window is left: time to write a new bound, before a call has to wait.
    pub fn runs_low(&mut self, now: Now) -> bool {
        self.time_ms(now) + self.window_ms / 2 >= self.bound_ms
    }

    /// The bound to write now. Never below one that was requested before, whose write may still take effect.
    pub fn next_bound(&mut self, now: Now) -> u64 {
        // One more than the physical part, so that a batch that no longer fits in it uses the next one.
        let time_ms = self.time.read(now).max(self.physical_ms + 1);
        self.asked_ms = self.asked_ms.max((time_ms + self.window_ms).min(PHYSICAL_MS_MAX));
        self.asked_ms
    }

    /// The oracle's time: the physical part that a call would get now if there were no bound.
    pub fn time_ms(&mut self, now: Now) -> u64 {
        self.time.read(now).max(self.physical_ms)
    }

    /// A bound became durable.
    pub fn raised(&mut self, bound_ms: u64) {
        assert!(bound_ms >= self.bound_ms && bound_ms <= self.asked_ms, "bounds are asked for, and never go down");
        self.bound_ms = bound_ms;
    }
}

/// Reads the wall clock with the monotonic clock beside it.
#[derive(Debug)]
struct Timekeeper {
    base_ms: u64,
    base: Duration,
    jump_ms_max: u64,
    distrusted: bool,
}

impl Timekeeper {
    fn read(&mut self, now: Now) -> u64 {
        let elapsed_ms = now.monotonic.saturating_sub(self.base).as_millis() as u64;
        let expected_ms = self.base_ms.saturating_add(elapsed_ms).min(PHYSICAL_MS_MAX);
        let believed = expected_ms.abs_diff(now.wall_ms) <= self.jump_ms_max && now.wall_ms <= PHYSICAL_MS_MAX;
        if believed {
            (self.base_ms, self.base) = (now.wall_ms, now.monotonic);
        }
        if believed == self.distrusted {
            self.distrusted = !believed;
            let (wall_ms, jump_ms_max) = (now.wall_ms, self.jump_ms_max);
            if believed {
                tracing::info!(wall_ms, "the wall clock is back; timestamps follow it again");
            } else {
                tracing::warn!(
                    wall_ms,
                    expected_ms,
                    jump_ms_max,
                    "the wall clock jumped; timestamps do not follow it until it is back, or another node leads placement: check the time service of this machine"
                );
            }
        }
        if believed { now.wall_ms } else { expected_ms }
    }
}

#[cfg(test)]
#[path = "oracle_test.rs"]
mod tests;
