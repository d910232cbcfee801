//! The kinds of a bank's transactions.

use super::behaviour::LOCK_TTL_MS;
use kontiki_client::TransactionOptions;
use kontiki_env::rng::Rng;
use std::time::Duration;

/// Longest time that a transaction waits for locks.
const LOCK_WAIT_MS_MAX: u64 = 2_000;

/// How many transactions are of which kind, each in percent.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    /// They lock what they read and write.
    pub pessimistic_percent: u64,
    /// They commit in one phase if they can.
    pub one_phase_percent: u64,
    /// They commit asynchronously if they can.
    pub async_percent: u64,
    /// Pessimistic ones wait while they hold locks.
    pub thinks_percent: u64,
}

impl Kinds {
    /// Draws a mix: of each kind none, some, or all.
    pub fn draw(rng: &mut Rng) -> Kinds {
        let mut percent = || match rng.below(4) {
            0 => 0,
            1 => 100,
            _ => rng.below(100),
        };
        let (one_phase_percent, async_percent) = (percent(), percent());
        let pessimistic_percent = percent().min(80);
        Kinds { pessimistic_percent, one_phase_percent, async_percent, thinks_percent: rng.below(50) }
    }

    /// The options of one transaction.
    pub fn options(&self, rng: &mut Rng) -> TransactionOptions {
        TransactionOptions {
            one_phase_commit: rng.chance(self.one_phase_percent, 100),
            async_commit: rng.chance(self.async_percent, 100),
            lock_wait: Duration::from_millis(rng.below(LOCK_WAIT_MS_MAX)),
            lock_ttl: Duration::from_millis(LOCK_TTL_MS),
        }
    }
}
