//! The committed state of a view on which no transaction runs any more, such as the directory of a stopped node.
//!
//! A lock in it belongs to a transaction that was in progress. Its primary decides: if the view contains the primary's
//! commit record, the transaction is committed, and the value of the lock is visible. Otherwise the transaction counts
//! as not committed, also if the primary belongs to a region that the view does not contain. A transaction whose
//! primary is in the view is therefore seen completely or not at all.

use super::scan::{Scan, Scanner};
use super::{MvccReader, ReadOptions, TxnRecord, get};
use crate::error::ActionFailure;
use crate::keys::{is_empty, user_range};
use crate::{Failure, KeyError, LockInfo, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{Range, View};
use kontiki_env::memcomparable;
use std::convert::Infallible;

/// Reads the newest committed values.
#[derive(Clone, Copy)]
pub struct CommittedReader<'a> {
    view: &'a dyn View,
}

impl<'a> CommittedReader<'a> {
    /// Of what `view` holds.
    pub fn new(view: &'a dyn View) -> CommittedReader<'a> {
        CommittedReader { view }
    }

    /// The value of a user key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Failure<Infallible>> {
        let mut options = ReadOptions::at(TimeStamp::MAX);
        loop {
            match get(self.view, key, &options) {
                Ok(version) => return Ok(version.map(|version| version.value)),
                Err(failure) => record_outcome(self.view, &locked(failure)?, &mut options)?,
            }
        }
    }

    /// The user keys `lower <= key < upper` and their values; an empty `upper` is unbounded.
    pub fn scan(&self, lower: &[u8], upper: &[u8], reverse: bool) -> Result<CommittedScan<'a>, Failure<Infallible>> {
        let scan = Scan { range: user_range(&Range::all(), lower, upper), limit: 0, key_only: false, reverse };
        let scanner = match is_empty(&scan.range) {
            true => None,
            false => Some(Scanner::open(self.view, &scan, ReadOptions::at(TimeStamp::MAX))?),
        };
        Ok(CommittedScan { view: self.view, scanner })
    }
}

/// Committed entries in order, one by one ([`CommittedReader::scan`]).
pub struct CommittedScan<'a> {
    view: &'a dyn View,
    /// Absent if the range is empty.
    scanner: Option<Scanner<'a>>,
}

impl CommittedScan<'_> {
    /// The next user key and its value; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<(Bytes, Bytes)>, Failure<Infallible>> {
        let Some(scanner) = &mut self.scanner else { return Ok(None) };
        while let Some(encoded) = scanner.next_key()? {
            let key = memcomparable::decode(&encoded).map_err(|what| Failure::corrupt(&encoded, what.into()))?;
            let mut outcome = scanner.outcome(&encoded, &key)?;
            if let Some(Err(lock)) = &outcome {
                record_outcome(self.view, lock, &mut scanner.options)?;
                outcome = scanner.outcome(&encoded, &key)?;
                // The other keys of the range do not need it: the cache stays small.
                scanner.options = ReadOptions::at(TimeStamp::MAX);
            }
            scanner.pass(&encoded)?;
            match outcome {
                None => {}
                Some(Ok(version)) => return Ok(Some((Bytes::from(key), version.value))),
                Some(Err(lock)) => return Err(KeyError::Locked(lock).into()),
            }
        }
        Ok(None)
    }
}

/// The lock that blocked a read of one key, or another error.
fn locked(failure: ActionFailure) -> Result<LockInfo, ActionFailure> {
    match failure {
        Failure::Keys(mut errors) => match errors.pop() {
            Some(KeyError::Locked(lock)) if errors.is_empty() => Ok(lock),
            last => {
                errors.extend(last);
                Err(Failure::Keys(errors))
            }
        },
        other => Err(other),
    }
}

/// Records the outcome of a lock's transaction, so that its lock blocks no read.
fn record_outcome(view: &dyn View, lock: &LockInfo, options: &mut ReadOptions) -> Result<(), ActionFailure> {
    let record = MvccReader::new(view).record_of(&lock.primary, lock.start_ts)?;
    let outcomes = match record {
        TxnRecord::Committed { .. } => &mut options.committed_locks,
        TxnRecord::None { .. } | TxnRecord::RolledBack => &mut options.resolved_locks,
    };
    let new = outcomes.insert(lock.start_ts);
    assert!(new, "a transaction whose outcome is known blocks no read");
    Ok(())
}

#[cfg(test)]
#[path = "committed_test.rs"]
mod tests;
