//! The retry budget of an operation, and the backoff between tries.

use crate::Error;
use crate::transport::Transport;
use kontiki_proto::calls::Effect;
use std::fmt::Display;
use std::time::Duration;

const PAUSE_FIRST: Duration = Duration::from_millis(5);
/// Whatever the options say: a client does not ask without end in between.
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Tries without a backoff after a hint that makes the next one likely to succeed (a named leader).
const HINTS_MAX: u32 = 3;

/// The retry budget of one operation: a deadline, a growing backoff, and the history of the tries.
pub(crate) struct Backoff<T> {
    transport: T,
    started: Duration,
    deadline: Duration,
    pause: Duration,
    pause_max: Duration,
    hints: u32,
    decides: bool,
    uncertain: bool,
    /// Why the last try failed.
    obstacle: Option<String>,
}

impl<T: Transport> Backoff<T> {
    pub(crate) fn new(transport: T, budget: Duration, pause_max: Duration) -> Backoff<T> {
        let started = transport.now();
        let deadline = started.saturating_add(budget);
        let pause_max = pause_max.max(PAUSE_MIN);
        let pause = PAUSE_FIRST.min(pause_max);
        let (hints, obstacle) = (0, None);
        Backoff { transport, started, deadline, pause, pause_max, hints, decides: false, uncertain: false, obstacle }
    }

    /// A budget for a part of this operation: the same deadline, a separate history.
    pub(crate) fn fork(&self) -> Backoff<T> {
        let fresh = Backoff::new(self.transport.clone(), Duration::ZERO, self.pause_max);
        let obstacle = self.obstacle.clone();
        Backoff { started: self.started, deadline: self.deadline, decides: self.decides, obstacle, ..fresh }
    }

    /// The same for a part that has its own outcome, such as that of another transaction: a lost answer says nothing
    /// about this operation.
    pub(crate) fn aside(&self) -> Backoff<T> {
        Backoff { decides: false, ..self.fork() }
    }

    /// Time left, at most `limit`.
    pub(crate) fn remaining(&self, limit: Duration) -> Duration {
        self.deadline.saturating_sub(self.transport.now()).min(limit)
    }

    /// From now on the operation's idempotent requests decide its outcome: those of a commit, not those of a prewrite.
    pub(crate) fn begin_decision(&mut self) {
        self.decides = true;
    }

    /// Records that a request was sent and its answer is missing.
    pub(crate) fn answer_lost(&mut self, effect: Effect) {
        let is_doubtful = match effect {
            Effect::NoSideEffects => false,
            Effect::Idempotent => self.decides,
            Effect::IdempotencyUnknown => true,
        };
        if is_doubtful {
            self.mark_uncertain();
        }
    }

    /// Whether a try of this operation has failed before.
    pub(crate) fn has_failed(&self) -> bool {
        self.obstacle.is_some()
    }

    /// From now on a failure leaves the outcome unknown.
    pub(crate) fn mark_uncertain(&mut self) {
        self.uncertain = true;
    }

    /// Whether a write's outcome is unknown.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The error when the time is used up.
    pub(crate) fn give_up(&self, last: impl Display) -> Error {
        let (after, last) = (self.transport.now().saturating_sub(self.started), last.to_string());
        if self.uncertain { Error::Undetermined { after, last } } else { Error::Timeout { after, last } }
    }

    /// The obstacle of a request that was not answered within its limit. If its limit was the rest of the time, that
    /// may have been short, and what was in the way before says more.
    pub(crate) fn unanswered(&self, text: String) -> String {
        match &self.obstacle {
            Some(before) if self.transport.now() >= self.deadline => {
                format!("{before}; in the rest of the time {text}")
            }
            _ => text,
        }
    }

    /// The caller's error for the answer to a write that is only a text. It is about the try that it answers: an
    /// earlier one, whose answer was lost, may have been done.
    pub(crate) fn failed(&self, text: String) -> Error {
        if self.uncertain { self.give_up(text) } else { Error::Server(text) }
    }

    /// The same for an answer whose text may be empty, which is success.
    pub(crate) fn check_write(&self, text: String) -> Result<(), Error> {
        if text.is_empty() { Ok(()) } else { Err(self.failed(text)) }
    }

    /// Continues at once, unless the time is used up: for use after a step that removed an obstacle.
    pub(crate) fn check(&self, reason: impl Display) -> Result<(), Error> {
        if self.transport.now() < self.deadline { Ok(()) } else { Err(self.give_up(reason)) }
    }

    /// Continues at once a few times, then backs off.
    pub(crate) async fn hinted(&mut self, reason: impl Display) -> Result<(), Error> {
        self.hints += 1;
        if self.hints <= HINTS_MAX && self.transport.now() < self.deadline {
            self.obstacle = Some(reason.to_string());
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
        let wait = (half + half.mul_f64(fraction(self.transport.random()))).max(least.min(self.pause_max));
        self.pause = (self.pause * 2).min(self.pause_max);
        if self.transport.now() + wait >= self.deadline {
            return Err(self.give_up(reason));
        }
        self.obstacle = Some(reason.to_string());
        self.transport.sleep(wait).await;
        Ok(())
    }
}

/// A random number as a fraction in 0..1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
#[path = "backoff_test.rs"]
mod tests;
