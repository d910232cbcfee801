//! Trying a transaction again.

use super::{Transaction, TransactionOptions};
use crate::{Db, Error, Result};
use kontiki_env::rng::Rng;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The first pause is at most this long: about the time that a conflicting commit needs to finish.
const PAUSE_FIRST_US: u64 = 1000;

impl Db {
    /// Runs `body` in a transaction and commits it. If either meets a conflict or a deadlock, both are done again in a
    /// new transaction, after a pause: random, below a bound that doubles. So `body` must have no effect but on the
    /// transaction. An error of `body` rolls back and is returned.
    ///
    /// Errors: of `body` and of [`Transaction::commit`]; [`Error::Conflict`] or [`Error::Deadlock`] when the retries of
    /// the options are used up.
    pub fn transact<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.transact_with(&TransactionOptions::default(), body)
    }

    /// As [`Db::transact`], with options.
    pub fn transact_with<T>(
        &self,
        options: &TransactionOptions,
        mut body: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut rng: Option<Rng> = None;
        let mut bound_us = PAUSE_FIRST_US;
        for tries_left in (0..=options.retries_max).rev() {
            let mut transaction = self.transaction_with(options.clone())?;
            let id = transaction.held.id;
            let result = body(&mut transaction).and_then(|value| transaction.commit().map(|_| value));
            match result {
                Err(Error::Conflict { .. } | Error::Deadlock { .. }) if tries_left > 0 => {}
                result => return result,
            }
            let core = self.core();
            core.transactions.retries.fetch_add(1, Relaxed);
            // Those that collide begin within the same moment, but no two have one number.
            let rng = rng.get_or_insert_with(|| {
                Rng::new((core.env.clock.monotonic().as_nanos() as u64) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            });
            self.pause(Duration::from_micros(rng.below(bound_us) + 1));
            bound_us = (bound_us * 2).min(options.retry_pause_ms_max * 1000);
        }
        unreachable!("the last try returns its result")
    }

    /// Lets time pass, unless the database is closed. Where one thread drives everything, lets a job get on instead.
    fn pause(&self, pause: Duration) {
        let core = self.core();
        if core.env.tasks.threaded() {
            core.progress.wait_for_end(pause, || core.check_writable().is_err());
        } else {
            core.env.tasks.step();
        }
    }
}
