//! Locks, and the commit: from snapshot, pending writes, reads and locks to one conditional commit.

use super::overlay::Overlay;
use super::retry::Loss;
use super::{Held, Isolation, Transaction, check_length, new_tracking};
use crate::key_locks::{Grant, LockKey};
use crate::{Commit, Error, Family, KEY_BYTES_MAX, Result, SequenceNumber, Unchanged};
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Transaction {
    /// Locks a key against other transactions until this one ends, and reads it: its newest committed value under
    /// snapshot isolation, whatever the snapshot holds (`get` and iterators show it too from then on). The commit
    /// does not fail for this key unless it is written without a transaction.
    ///
    /// A serializable transaction never leaves its snapshot; nor does one that has written the key before it locked it:
    /// there [`Error::Conflict`] reports at once that the key was written since the start.
    ///
    /// Errors: [`Error::LockTimeout`], [`Error::Deadlock`], [`Error::Conflict`]; the transaction can continue after a
    /// timeout, but after the other two it is best to roll back, so that others make progress
    /// ([`Db::transact`](crate::Db::transact) does that).
    pub fn get_for_update(&mut self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let key = key.as_ref();
        self.lock(family, key)?;
        self.get_in(family, key)
    }

    /// As [`Transaction::get_for_update`], without the value. What was read of the key before is as old as the
    /// snapshot: read it again, under the lock.
    pub fn lock(&mut self, family: Family, key: impl AsRef<[u8]>) -> Result<()> {
        let result = self.try_lock(family, key.as_ref());
        if let Err(error) = &result {
            self.loss = Loss::of(error).or(self.loss.take());
        }
        result
    }

    fn try_lock(&mut self, family: Family, key: &[u8]) -> Result<()> {
        check_length("key", key, KEY_BYTES_MAX)?;
        let lock: LockKey = (family, Bytes::copy_from_slice(key));
        if self.held.locked.contains_key(&lock) {
            return Ok(());
        }
        self.overlay.note_lock(key)?;
        self.acquire(&lock, self.options.lock_wait())?;
        // The previous owner has committed visibly or has given up: transactions release locks after that.
        let newest = self.db.snapshot();
        let since_start = Unchanged::Key { family, key: lock.1.clone(), since: self.start() };
        match since_start.check(&newest.state, 0, self.held.core.shared().context.versions.horizon()) {
            Ok(()) => return Ok(()),
            Err(Error::Conflict { .. }) => {}
            Err(error) => {
                // The order of the key's writes is unknown, and so would be that of the commit if the key stayed among
                // its conditions.
                self.held.locked.remove(&lock);
                self.held.core.transactions.locks.release(self.held.id, &lock);
                return Err(error);
            }
        }
        if self.options.isolation == Isolation::Serializable || self.overlay.has_written(family, key) {
            self.held.core.transactions.conflicts.fetch_add(1, Relaxed);
            return Err(Error::Conflict { family, key: lock.1 });
        }
        let value = newest.get_in(family, key)?;
        self.overlay.see(family, lock.1.clone(), value);
        self.held.locked.insert(lock, newest.sequence());
        Ok(())
    }

    /// Gets a lock that this transaction does not have.
    fn acquire(&mut self, key: &LockKey, limit: Duration) -> Result<()> {
        let Held { core, id, locked, .. } = &mut self.held;
        let transactions = &core.transactions;
        if !transactions.locks.try_acquire(*id, key) {
            transactions.lock_waits.fetch_add(1, Relaxed);
            let began = core.shared().env.clock.monotonic();
            // Where one thread drives everything, the owner cannot make progress while this waits.
            let limit = if core.shared().env.tasks.threaded() { limit } else { Duration::ZERO };
            let grant = transactions.locks.acquire(*id, key, limit, &*core.shared().env.clock);
            let waited = core.shared().env.clock.monotonic().saturating_sub(began);
            transactions.lock_wait_us.fetch_add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX), Relaxed);
            match grant {
                Grant::Granted => {}
                Grant::TimedOut => {
                    transactions.lock_timeouts.fetch_add(1, Relaxed);
                    let waited_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                    return Err(Error::LockTimeout { family: key.0, key: key.1.clone(), waited_ms });
                }
                Grant::Deadlock(keys) => {
                    transactions.deadlocks.fetch_add(1, Relaxed);
                    return Err(Error::Deadlock { keys });
                }
                Grant::Closed => return Err(Error::Closed),
            }
        }
        let before = locked.insert(key.clone(), self.snapshot.sequence());
        assert!(before.is_none(), "a transaction takes a lock once");
        Ok(())
    }

    /// Makes its writes visible, all at once, and as durable as its options require; returns their sequence number
    /// (without writes: its start, and nothing is written or checked: everything that it has read existed at that
    /// number).
    ///
    /// Errors: [`Error::Conflict`] if something that it writes (serializable: or has read) was written since its
    /// start: nothing is written, and it may be tried again from the beginning; [`Error::LockTimeout`] and
    /// [`Error::Deadlock`] if a key that it writes is locked by others; else those of
    /// [`Db::commit`](crate::Db::commit).
    pub fn commit(mut self) -> Result<SequenceNumber> {
        self.commit_or_stay()
    }

    /// As [`Transaction::commit`]; after an error the transaction can begin again.
    pub(super) fn commit_or_stay(&mut self) -> Result<SequenceNumber> {
        let result = match self.prepare(self.options.lock_wait()) {
            Ok(Some(commit)) => self.db.commit(commit),
            Ok(None) => Ok(self.start()),
            Err(error) => Err(error),
        };
        self.held.finish(&result);
        result
    }

    /// Begins anew after a conflict over `lost`: with a new snapshot, nothing read and nothing written. It keeps its
    /// locks and takes that of `lost` first, so what it reads of these keys now no other transaction writes before its
    /// commit.
    ///
    /// Errors: those of a lock; then it has all the locks that it had.
    pub(super) fn begin_again(&mut self, lost: LockKey) -> Result<()> {
        if !self.held.locked.contains_key(&lost) {
            self.acquire(&lost, self.options.lock_wait())?;
        }
        // After the locks: transactions release theirs when their writes are visible.
        let (snapshot, start) = self.held.core.begin_transaction();
        self.held.tracking.end(|_| ());
        self.held.tracking = new_tracking(&self.options);
        self.held.start = start;
        self.held.attempt += 1;
        self.held.locked.values_mut().for_each(|since| *since = snapshot.sequence());
        self.overlay = Overlay::new(self.options.write_bytes_max);
        self.snapshot = snapshot;
        self.loss = None;
        Ok(())
    }

    /// As [`Transaction::commit`], without blocking: `done` gets the answer, under the rules of
    /// [`Db::submit`](crate::Db::submit). A key that is locked is not waited for: it is a conflict.
    pub fn submit(mut self, done: Box<dyn FnOnce(Result<SequenceNumber>) + Send>) {
        let result = match self.prepare(Duration::ZERO) {
            Ok(Some(commit)) => {
                let mut held = self.held;
                let answer = move |result| {
                    held.finish(&result);
                    drop(held); // So that the callback can begin anew.
                    done(result);
                };
                return self.db.submit(commit, Box::new(answer));
            }
            Ok(None) => Ok(self.start()),
            Err(Error::LockTimeout { family, key, .. }) => Err(Error::Conflict { family, key }),
            Err(error) => Err(error),
        };
        self.held.finish(&result);
        drop(self);
        done(result);
    }

    /// Prepares the commit; `None` if it has nothing to write. Ends the reads.
    fn prepare(&mut self, lock_wait: Duration) -> Result<Option<Commit>> {
        if self.overlay.is_read_only() {
            return Ok(None);
        }
        // In one order for all, so that commits do not deadlock each other.
        let missing: Vec<LockKey> = self.overlay.written().filter(|key| !self.held.locked.contains_key(key)).collect();
        debug_assert!(missing.is_sorted());
        for key in &missing {
            self.acquire(key, lock_wait)?;
        }
        let unchanged = self.conditions();
        Ok(Some(Commit { unchanged, ..Commit::new(self.overlay.batch(), self.options.durability) }))
    }

    /// What must not have been written when the commit gets its number. Ends the reads.
    fn conditions(&self) -> Vec<Unchanged> {
        let start = self.start();
        // All written keys are among the locked ones.
        let mut unchanged: Vec<Unchanged> = self
            .held
            .locked
            .iter()
            .map(|((family, key), since)| Unchanged::Key { family: *family, key: key.clone(), since: *since })
            .collect();
        for (family, part) in self.overlay.families() {
            let ranges = part
                .deleted()
                .iter()
                .map(|(first, end)| crate::Range { start: Some(first.clone()), end: end.cloned() });
            unchanged.extend(ranges.map(|range| Unchanged::Range { family, range, since: start }));
        }
        unchanged.extend(self.held.tracking.end(|reads| {
            let keys = reads.keys().filter(|(family, key)| !self.held.locked.contains_key(&(*family, (*key).clone())));
            let keys = keys.map(|(family, key)| Unchanged::Key { family, key: key.clone(), since: start });
            let ranges = reads.ranges().map(|(family, range)| Unchanged::Range { family, range, since: start });
            keys.chain(ranges).collect::<Vec<_>>()
        }));
        unchanged
    }
}
