//! Trying a transaction again.
//!
//! A transaction that lost to another commit keeps the locks that its own commit had taken, takes that of the key of
//! the conflict, and only then reads anew. Each commit of a transaction takes the locks of the keys that it writes, so
//! no other transaction can get ahead of it again: those that want one key stand in its queue, and each comes to its
//! turn once. Only plain writes, which heed no locks, and conflicts over ranges can make it lose again.
//!
//! Rejected: to sleep for a random time and try without locks, as before. A commit conflicts with others from its
//! number until its sync has ended, and readers do not see it for as long; so a retry that begins in that time has lost
//! already, and with enough writers it nearly always does.

use super::{Transaction, TransactionOptions};
use crate::key_locks::LockKey;
use crate::{Db, Error, Result};
use kontiki_env::rng::Rng;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The first pause is at most this long: about the time that a conflicting commit needs to finish.
const PAUSE_FIRST_US: u64 = 1000;

/// Why a transaction cannot commit, and another try may.
#[derive(Clone, Debug)]
pub(super) enum Loss {
    /// This key was written since the start.
    Conflict(LockKey),
    Deadlock,
}

impl Loss {
    pub(super) fn of(error: &Error) -> Option<Loss> {
        match error {
            Error::Conflict { family, key } => Some(Loss::Conflict((*family, key.clone()))),
            Error::Deadlock { .. } => Some(Loss::Deadlock),
            _ => None,
        }
    }
}

impl Db {
    /// Runs `body` in a transaction and commits it. If the transaction meets a conflict or a deadlock, both run again
    /// with a new snapshot: after a conflict while holding the lock of the key in question, after a deadlock without
    /// locks. From the second conflict on, a random pause comes first, whose bound doubles each time. `body` must
    /// therefore have no effect except on the transaction. Any other error of `body` rolls back and is returned.
    ///
    /// The error is of the caller's choice: any type into which an [`Error`] converts. Where the compiler cannot infer
    /// which, name it: `db.transact(|transaction| -> Result<_, MyError> { .. })`.
    ///
    /// ```
    /// # let env = kontiki_env::SimMachine::from_seed(1).env();
    /// # let db = kontiki_engine::Db::open_in(&env, "/db".as_ref(), kontiki_engine::Options::default()).unwrap();
    /// #[derive(Debug)]
    /// enum BookingError {
    ///     SoldOut,
    ///     Store(kontiki_engine::Error),
    /// }
    ///
    /// impl From<kontiki_engine::Error> for BookingError {
    ///     fn from(error: kontiki_engine::Error) -> BookingError {
    ///         BookingError::Store(error)
    ///     }
    /// }
    ///
    /// let booked = db.transact(|transaction| {
    ///     let Some(seats) = transaction.get("seats")? else { return Err(BookingError::SoldOut) };
    ///     transaction.put("seats", &seats[1..])?;
    ///     Ok(seats[0])
    /// });
    /// assert!(matches!(booked, Err(BookingError::SoldOut)));
    /// ```
    ///
    /// Errors: those of `body`, and of [`Transaction::commit`]; when the retries of the options are used up, the last
    /// one, made of [`Error::Conflict`] or [`Error::Deadlock`]. Callers that use transactions alone and want few keys
    /// need a retry or two.
    pub fn transact<T, E: From<Error>>(&self, body: impl FnMut(&mut Transaction) -> Result<T, E>) -> Result<T, E> {
        self.transact_with(&TransactionOptions::default(), body)
    }

    /// As [`Db::transact`], with options.
    pub fn transact_with<T, E: From<Error>>(
        &self,
        options: &TransactionOptions,
        mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pauses = Pauses { rng: None, bound_us: PAUSE_FIRST_US };
        let mut transaction = self.transaction_with(options.clone())?;
        for tries_left in (0..=options.retries_max).rev() {
            let (error, loss) = match body(&mut transaction) {
                Ok(value) => match transaction.commit_or_stay() {
                    Ok(_) => return Ok(value),
                    Err(error) => (error.clone().into(), Loss::of(&error)),
                },
                // It may have made another error of it.
                Err(error) => (error, transaction.loss.take()),
            };
            let lost = match loss {
                Some(Loss::Conflict(key)) if tries_left > 0 => Some(key),
                Some(Loss::Deadlock) if tries_left > 0 => None,
                _ => return Err(error),
            };
            self.core().transactions.retries.fetch_add(1, Relaxed);
            let (id, attempt) = (transaction.held.id, transaction.held.attempt);
            if lost.is_some() && (attempt > 0 || !self.core().shared().env.tasks.threaded()) {
                // It lost under the lock: to plain writes, or over a range.
                self.pause(pauses.next(self, id, options));
            }
            if lost.is_none_or(|key| transaction.begin_again(key).is_err()) {
                // Its locks are released, so that the transactions that wait for them make progress.
                drop(transaction);
                self.pause(pauses.next(self, id, options));
                transaction = self.transaction_with(options.clone())?;
            }
        }
        unreachable!("the last try returns its result")
    }

    /// Lets time pass, unless the database is closed. Where one thread drives everything, lets a job make progress
    /// instead.
    fn pause(&self, pause: Duration) {
        let core = self.core();
        if core.shared().env.tasks.threaded() {
            core.shared().progress.wait_for_end(pause, || core.shared().health.check_writable().is_err());
        } else {
            core.shared().env.tasks.step();
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
        let seed =
            || (db.core().shared().env.clock.monotonic().as_nanos() as u64) ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pause = Duration::from_micros(self.rng.get_or_insert_with(|| Rng::new(seed())).below(self.bound_us) + 1);
        self.bound_us = (self.bound_us * 2).min(options.retry_pause_ms_max * 1000);
        pause
    }
}
