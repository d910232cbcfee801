//! Locks, and the commit: from snapshot, pending writes, reads and locks to one conditional commit.

use super::locks::{Grant, LockKey};
use super::{Isolation, Transaction, check_length};
use crate::{Commit, Error, Family, KEY_BYTES_MAX, Result, SequenceNumber, Unchanged, View};
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Transaction {
    /// Locks a key against other transactions until this one ends, and reads it: its newest committed value under
    /// snapshot isolation, whatever the snapshot holds (`get` and iterators show it too from then on). The commit
    /// does not fail for this key unless it is written without a transaction.
    ///
    /// A serializable transaction never leaves its snapshot; nor does one that has written the key before it locked it:
    /// there [`Error::Conflict`] tells at once that the key was written since the start.
    ///
    /// Errors: [`Error::LockTimeout`], [`Error::Deadlock`], [`Error::Conflict`]; the transaction can go on after a
    /// timeout, but after the other two it is best to roll back, so that others get on ([`Db::transact`](crate::Db::transact) does that).
    pub fn get_for_update(&mut self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.lock(family, key)?;
        self.get_in(family, key)
    }

    /// As [`Transaction::get_for_update`], without the value. What was read of the key before is as old as the
    /// snapshot: read it again, under the lock.
    pub fn lock(&mut self, family: Family, key: &[u8]) -> Result<()> {
        check_length("key", key, KEY_BYTES_MAX)?;
        let lock: LockKey = (family, Bytes::copy_from_slice(key));
        if self.locked.contains_key(&lock) {
            return Ok(());
        }
        self.acquire(&lock)?;
        // Whoever held it before has committed visibly or has given up: transactions release locks after that.
        let newest = self.db.snapshot();
        let since_start = Unchanged::Key { family, key: lock.1.clone(), since: self.start() };
        match since_start.check(&newest.state, 0) {
            Err(Error::Conflict { .. }) => {}
            unchanged => return unchanged,
        }
        if self.options.isolation == Isolation::Serializable || self.overlay.has_written(family, key) {
            self.db.core().transactions.conflicts.fetch_add(1, Relaxed);
            return Err(Error::Conflict { family, key: lock.1 });
        }
        let value = newest.get(family, key)?;
        self.overlay.see(family, lock.1.clone(), value);
        self.locked.insert(lock, newest.sequence());
        Ok(())
    }

    /// Gets a lock that this transaction does not have.
    fn acquire(&mut self, key: &LockKey) -> Result<()> {
        let core = self.db.core();
        let (transactions, me) = (&core.transactions, self.id);
        if !transactions.locks.try_acquire(me, key) {
            transactions.lock_waits.fetch_add(1, Relaxed);
            let began = core.env.clock.monotonic();
            // Where one thread drives everything, the owner cannot get on while this waits.
            let limit = if core.env.tasks.threaded() { self.options.lock_wait() } else { Duration::ZERO };
            let grant = transactions.locks.acquire(me, key, limit, &*core.env.clock);
            let waited = core.env.clock.monotonic().saturating_sub(began);
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
        let before = self.locked.insert(key.clone(), self.start());
        assert!(before.is_none(), "a transaction takes a lock once");
        Ok(())
    }

    /// Makes its writes visible, all at once, and as durable as its options say; returns their sequence number (without
    /// writes: its start, and nothing is written or checked: what it has read was there together).
    ///
    /// Errors: [`Error::Conflict`] if something that it writes (serializable: or has read) was written since its
    /// start: nothing is written, and it may be tried again from the beginning; [`Error::LockTimeout`] and
    /// [`Error::Deadlock`] if a key that it writes is locked by others; else those of [`Db::commit`](crate::Db::commit).
    pub fn commit(mut self) -> Result<SequenceNumber> {
        let result = self.try_commit();
        if matches!(result, Err(Error::Conflict { .. })) {
            self.db.core().transactions.conflicts.fetch_add(1, Relaxed);
        }
        self.end(result.is_ok());
        result
    }

    fn try_commit(&mut self) -> Result<SequenceNumber> {
        if self.overlay.is_read_only() {
            return Ok(self.start());
        }
        self.lock_written()?;
        let unchanged = self.conditions();
        self.db.commit(Commit { unchanged, ..Commit::new(self.overlay.batch(), self.options.durability) })
    }

    /// Takes the locks of the keys that it writes, in one order for all, so that commits do not deadlock each other.
    fn lock_written(&mut self) -> Result<()> {
        let keys = |(family, part): (Family, _)| {
            let part: &super::overlay::FamilyOverlay = part;
            part.written().map(move |key| (family, key.clone())).collect::<Vec<_>>()
        };
        let written: Vec<LockKey> = self.overlay.families().flat_map(keys).collect();
        debug_assert!(written.is_sorted());
        for key in written.iter().filter(|key| !self.locked.contains_key(key)).collect::<Vec<_>>() {
            self.acquire(key)?;
        }
        Ok(())
    }

    /// What must not have been written when the commit gets its number. Ends the reads.
    fn conditions(&self) -> Vec<Unchanged> {
        let start = self.start();
        // All written keys are among the locked ones.
        let mut unchanged: Vec<Unchanged> = self
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
        unchanged.extend(self.shared.end(|reads| {
            let keys = reads.keys().filter(|(family, key)| !self.locked.contains_key(&(*family, (*key).clone())));
            let keys = keys.map(|(family, key)| Unchanged::Key { family, key: key.clone(), since: start });
            let ranges = reads.ranges().map(|(family, range)| Unchanged::Range { family, range, since: start });
            keys.chain(ranges).collect::<Vec<_>>()
        }));
        unchanged
    }
}
