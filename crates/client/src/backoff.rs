//! The retry budget of an operation, and the backoff between tries.

use crate::Error;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Tries without a backoff after a hint that makes the next one likely to succeed (a named leader).
const HINTS_MAX: u32 = 3;

/// The retry budget of one operation: a deadline, a growing backoff, and the history of the tries.
#[derive(Debug)]
pub(crate) struct Backoff {
    started: Instant,
    deadline: Instant,
    pause: Duration,
    hints: u32,
    uncertain: bool,
}

impl Backoff {
    pub(crate) fn new(budget: Duration) -> Backoff {
        let started = Instant::now();
        Backoff { started, deadline: started + budget, pause: PAUSE_FIRST, hints: 0, uncertain: false }
    }

    /// A budget for a part of this operation: the same deadline, a separate history.
    pub(crate) fn fork(&self) -> Backoff {
        Backoff { pause: PAUSE_FIRST, hints: 0, uncertain: false, ..*self }
    }

    /// Time left, at most `limit`.
    pub(crate) fn remaining(&self, limit: Duration) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(limit)
    }

    /// Records that a write was sent and its answer is missing: from now on a failure leaves its outcome unknown.
    pub(crate) fn mark_uncertain(&mut self) {
        self.uncertain = true;
    }

    /// Whether a write's outcome is unknown.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The error when the time is used up.
    pub(crate) fn give_up(&self, last: impl Display) -> Error {
        let (after, last) = (self.started.elapsed(), last.to_string());
        if self.uncertain { Error::Undetermined { after, last } } else { Error::Timeout { after, last } }
    }

    /// Continues at once, unless the time is used up: for use after a step that removed an obstacle.
    pub(crate) fn check(&self, reason: impl Display) -> Result<(), Error> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(self.give_up(reason)) }
    }

    /// Continues at once a few times, then backs off.
    pub(crate) async fn hinted(&mut self, reason: impl Display) -> Result<(), Error> {
        self.hints += 1;
        if self.hints <= HINTS_MAX && Instant::now() < self.deadline {
            return Ok(());
        }
        self.pause(reason).await
    }

    /// Waits before the next try, or gives up if the deadline would pass.
    pub(crate) async fn pause(&mut self, reason: impl Display) -> Result<(), Error> {
        self.pause_at_least(Duration::ZERO, reason).await
    }

    /// The same, with a minimum wait that the server asked for.
    pub(crate) async fn pause_at_least(&mut self, least: Duration, reason: impl Display) -> Result<(), Error> {
        // Between half and all of the backoff, so that clients that failed together do not retry together.
        let half = self.pause / 2;
        let wait = (half + half.mul_f64(random_fraction())).max(least.min(PAUSE_MAX));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if Instant::now() + wait >= self.deadline {
            return Err(self.give_up(reason));
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// In 0..1. The seeds of hash maps are random enough to spread retries; nothing else depends on it.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
#[path = "backoff_test.rs"]
mod tests;
