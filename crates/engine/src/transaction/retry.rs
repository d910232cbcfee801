//! Trying a transaction again.
//!
//! A transaction that lost to another commit keeps the locks that its own commit had taken, takes that of the key of the conflict, and
//! only then reads anew. Each commit of a transaction takes the locks of the keys that it writes, so no other transaction can
//! get ahead of it again: those that want one key stand in its queue, and each comes to its turn once. Only plain writes,
//! which heed no locks, and conflicts over ranges can make it lose again.
//!
//! Rejected: to sleep for a random time and try without locks, as before. A commit conflicts with others from its number until
//! its sync has ended, and readers do not see it for as long; so a retry that begins in that time has lost already, and with enough
//! writers it nearly always does.

use super::{Transaction, TransactionOptions};
use crate::{Db, Error, Result};
use kontiki_env::rng::Rng;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The first pause is at most this long: about the time that a conflicting commit needs to finish.
const PAUSE_FIRST_US: u64 = 1000;

impl Db {
    /// Runs `body` in a transaction and commits it. If either meets a conflict or a deadlock, both are done again from the
    /// beginning, with a new snapshot: after a conflict under the lock of the key that it was about, after a deadlock without locks;
    /// and, but for the first conflict, after a pause, random, below a bound that doubles. So `body` must have no effect but on the transaction. An
    /// error of `body` rolls back and is returned.
    ///
    /// Errors: of `body` and of [`Transaction::commit`]; [`Error::Conflict`] or [`Error::Deadlock`] when the retries of
    /// the options are used up. With transactions alone that want few keys, each call needs a retry or two.
    pub fn transact<T>(&self, body: impl FnMut(&mut Transaction) -> Result<T>) -> Result<T> {
        self.transact_with(&TransactionOptions::default(), body)
    }

    /// As [`Db::transact`], with options.
    pub fn transact_with<T>(
        &self,
        options: &TransactionOptions,
        mut body: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut pauses = Pauses { rng: None, bound_us: PAUSE_FIRST_US };
        let mut transaction = self.transaction_with(options.clone())?;
        for tries_left in (0..=options.retries_max).rev() {
            let result = body(&mut transaction).and_then(|value| transaction.commit_or_stay().map(|_| value));
            let lost = match result {
                Err(Error::Conflict { family, key }) if tries_left > 0 => Some((family, key)),
                Err(Error::Deadlock { .. }) if tries_left > 0 => None,
                result => return result,
            };
            self.core().transactions.retries.fetch_add(1, Relaxed);
            let (id, attempt) = (transaction.held.id, transaction.held.attempt);
            if lost.is_some() && (attempt > 0 || !self.core().env.tasks.threaded()) {
                // It lost under the lock: to plain writes, or over a range.
                self.pause(pauses.next(self, id, options));
            }
            if lost.is_none_or(|key| transaction.begin_again(key).is_err()) {
                // Its locks go, so that the transactions in whose way it is get on.
                drop(transaction);
                self.pause(pauses.next(self, id, options));
                transaction = self.transaction_with(options.clone())?;
            }
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

struct Pauses {
    rng: Option<Rng>,
    bound_us: u64,
}

impl Pauses {
    fn next(&mut self, db: &Db, id: u64, options: &TransactionOptions) -> Duration {
        // Those that collide begin within the same moment, but no two have one number.
        let seed = || (db.core().env.clock.monotonic().as_nanos() as u64) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pause = Duration::from_micros(self.rng.get_or_insert_with(|| Rng::new(seed())).below(self.bound_us) + 1);
        self.bound_us = (self.bound_us * 2).min(options.retry_pause_ms_max * 1000);
        pause
    }
}
