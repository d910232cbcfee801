//! Transactions: snapshot isolation, or serializability on request, over snapshots and conditional commits alone.
//!
//! A transaction reads its snapshot with its own writes laid over it, and writes nothing until its commit: one batch,
//! with the condition that nothing it depends on was written since the snapshot (`Unchanged`, checked where commits
//! get their sequence numbers). So an open transaction costs memory and a pinned snapshot, and blocks no other thread.
//!
//! - `overlay.rs`: the pending writes, and savepoints; `entries.rs`: iterators over both;
//! - `reads.rs`: what a serializable transaction has read;
//! - locks of keys, with deadlock detection, are in `key_locks`; what a database knows of its open transactions (for
//!   compaction and statistics) is in `db/transactions.rs`;
//! - `commit.rs`: from all this to one conditional commit; `retry.rs`: trying again.
//!
//! docs/internals/transactions.md has the reasons.

mod commit;
mod entries;
mod options;
mod overlay;
mod range_set;
mod read_tracking;
mod reads;
mod retry;

pub use entries::TransactionEntries;
pub use options::{Isolation, TransactionOptions};

use self::entries::At;
use self::overlay::{Overlay, Pending};
use self::read_tracking::ReadTracking;
use self::reads::ReadSet;
use self::retry::Loss;
use crate::db::{Core, TransactionStart};
use crate::key_locks::{LockKey, TransactionId};
use crate::{
    Db, Direction, Error, Family, KEY_BYTES_MAX, Range, ReadOptions, Result, SequenceNumber, Snapshot, VALUE_BYTES_MAX,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Reads of one moment and writes that take effect together, or not at all, at [`Transaction::commit`].
///
/// Made by [`Db::transaction`]. Dropped without a commit it has no effect. It sees its own writes. While it is open it
/// pins the files and memtables of its snapshot, as a [`Snapshot`] does, and keeps the database open.
///
/// Locks ([`Transaction::lock`], [`Transaction::get_for_update`]) are held until the end. Every commit of a transaction
/// takes the locks of the keys that it writes, so a locked key is not written by another transaction, optimistic ones
/// included; a plain write ([`Db::write`]) and a range delete heed no locks, and make the commit of the lock's holder
/// fail.
pub struct Transaction {
    held: Held,
    db: Db,
    snapshot: Snapshot,
    options: TransactionOptions,
    overlay: Overlay,
    /// The conflict or deadlock that a lock of it has met, if any.
    loss: Option<Loss>,
}

/// What a transaction has of the database's; given back when this goes, with the transaction or after its commit.
struct Held {
    core: Arc<Core>,
    id: TransactionId,
    /// Counts the times that it was begun anew; see [`Transaction::begin_again`].
    attempt: u32,
    /// Its locks, with the number after which the key must not have been written.
    locked: BTreeMap<LockKey, SequenceNumber>,
    tracking: Arc<ReadTracking>,
    committed: bool,
    /// While it lives, the conditions of the commit can be answered.
    start: TransactionStart,
}

impl Held {
    /// The commit was answered.
    fn finish(&mut self, result: &Result<SequenceNumber>) {
        self.committed = result.is_ok();
        if matches!(result, Err(Error::Conflict { .. })) {
            self.core.transactions.conflicts.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tracking.end(|_| ());
        for key in std::mem::take(&mut self.locked).keys() {
            self.core.transactions.locks.release(self.id, key);
        }
        self.core.transactions.end(self.id, self.committed);
    }
}

/// A moment of a transaction to which its writes can be rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Savepoint {
    transaction: u64,
    attempt: u32,
    serial: u64,
}

impl Db {
    /// Begins a transaction with [`TransactionOptions::default`]: snapshot isolation, commits that survive power loss.
    pub fn transaction(&self) -> Transaction {
        self.begin(TransactionOptions::default())
    }

    /// Begins a transaction.
    ///
    /// Errors: [`Error::InvalidArgument`] for options out of range.
    pub fn transaction_with(&self, options: TransactionOptions) -> Result<Transaction> {
        options.validate()?;
        Ok(self.begin(options))
    }

    fn begin(&self, options: TransactionOptions) -> Transaction {
        let core = self.core();
        let (snapshot, start) = core.begin_transaction();
        let held = Held {
            core: core.clone(),
            id: core.transactions.begin(core.shared().env.clock.monotonic()),
            attempt: 0,
            locked: BTreeMap::new(),
            tracking: new_tracking(&options),
            committed: false,
            start,
        };
        let overlay = Overlay::new(options.write_bytes_max);
        Transaction { held, db: self.clone(), snapshot, overlay, options, loss: None }
    }
}

impl Transaction {
    /// The newest write that its snapshot sees.
    pub fn start(&self) -> SequenceNumber {
        self.snapshot.sequence()
    }

    /// The value of a key of the default family.
    ///
    /// Errors: as [`Transaction::get_in`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_in(Family::DEFAULT, key)
    }

    /// The value of a key: what this transaction has written, else what the snapshot holds (for a key locked under
    /// snapshot isolation: what it held when it was locked).
    ///
    /// Errors: as those of a snapshot; [`Error::TransactionTooLarge`] if the read set is full.
    pub fn get_in(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.get_slice(family, key.as_ref())
    }

    fn get_slice(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        match self.find_pending(family, key) {
            Some(found) => Ok(found),
            None => {
                self.held.tracking.with_reads(|reads| reads.note_key(family, key))?;
                self.snapshot.get_in(family, key)
            }
        }
    }

    /// Whether a family has a key, for this transaction: a read as [`Transaction::get_in`], also for serializability,
    /// but the value is not read.
    ///
    /// Errors: as [`Transaction::get_in`].
    pub fn contains(&self, family: Family, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        match self.find_pending(family, key) {
            Some(found) => Ok(found.is_some()),
            None => {
                self.held.tracking.with_reads(|reads| reads.note_key(family, key))?;
                self.snapshot.contains(family, key)
            }
        }
    }

    /// The values of several keys, in their order: as many calls of [`Transaction::get_in`], but cheaper.
    ///
    /// Errors: as [`Transaction::get_in`].
    pub fn multi_get(&self, family: Family, keys: &[impl AsRef<[u8]>]) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let mut found: Vec<Option<Option<Bytes>>> = keys.iter().map(|key| self.find_pending(family, key)).collect();
        let asked: Vec<&[u8]> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| *key).collect();
        self.held.tracking.with_reads(|reads| asked.iter().try_for_each(|key| reads.note_key(family, key)))?;
        let values = self.snapshot.multi_get(family, &asked)?;
        debug_assert_eq!(values.len(), asked.len());
        let missing = found.iter_mut().filter(|found| found.is_none());
        missing.zip(values).for_each(|(found, value)| *found = Some(value));
        Ok(found.into_iter().flatten().collect())
    }

    /// The entries of a range of the default family by ascending key: an iterator. It does not borrow the transaction:
    /// see [`TransactionEntries`] for what it shows of writes that follow.
    ///
    /// Errors: as [`Transaction::get_in`]; the iterator gives those that it meets, and ends.
    pub fn range(&self, range: impl Into<Range>) -> Result<TransactionEntries> {
        self.range_in(Family::DEFAULT, range)
    }

    /// As [`Transaction::range`], of any family.
    pub fn range_in(&self, family: Family, range: impl Into<Range>) -> Result<TransactionEntries> {
        self.entries(family, range, Direction::Forward)
    }

    /// As [`Transaction::range_in`], in either direction.
    pub fn entries(&self, family: Family, range: impl Into<Range>, direction: Direction) -> Result<TransactionEntries> {
        self.entries_with(family, range, direction, ReadOptions::default())
    }

    /// As [`Transaction::entries`], with options.
    pub fn entries_with(
        &self,
        family: Family,
        range: impl Into<Range>,
        direction: Direction,
        options: ReadOptions,
    ) -> Result<TransactionEntries> {
        let range = range.into().normal();
        let base = self.snapshot.scan(family, range.clone(), direction, options)?;
        let iterator = self.held.tracking.with_reads(|reads| Ok(Some(reads.open(family))))?;
        let overlay = self.overlay.family(family).cloned();
        let at = At { range, direction, now_ms: self.snapshot.now_ms(), key_only: options.key_only };
        Ok(TransactionEntries::new(base, overlay, at, self.held.tracking.clone(), iterator))
    }

    /// Sets a key of the default family.
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.put_in(Family::DEFAULT, key, value)
    }

    /// Sets a key.
    ///
    /// Errors: [`Error::InvalidArgument`] for a key or value that is too long, [`Error::TransactionTooLarge`]; the
    /// transaction is as before then. An unknown family is an error of the commit.
    pub fn put_in(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let value = value.as_ref();
        check_length("value", value, VALUE_BYTES_MAX)?;
        self.write(family, key.as_ref(), Pending::Put(Bytes::copy_from_slice(value)))
    }

    /// Sets a key until `expires_at_ms` (wall clock, milliseconds since 1970).
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn put_expiring(
        &mut self,
        family: Family,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires_at_ms: u64,
    ) -> Result<()> {
        let value = value.as_ref();
        check_length("value", value, VALUE_BYTES_MAX)?;
        self.write(family, key.as_ref(), Pending::PutExpiring(Bytes::copy_from_slice(value), expires_at_ms))
    }

    /// Sets a key for `ttl` from this call on, by the wall clock.
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn put_with_ttl(
        &mut self,
        family: Family,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<()> {
        let expires_at_ms = self.held.core.shared().expires_at_ms(ttl);
        self.put_expiring(family, key, value, expires_at_ms)
    }

    /// Removes a key of the default family, if it is there.
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.delete_in(Family::DEFAULT, key)
    }

    /// Removes a key, if it is there.
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn delete_in(&mut self, family: Family, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(family, key.as_ref(), Pending::Delete)
    }

    /// Removes every key of the range that exists when the transaction *commits*. The commit is refused if anything in
    /// the range was written since the start, so these are the keys that the transaction sees.
    ///
    /// Errors: as [`Transaction::put_in`].
    pub fn delete_range(&mut self, family: Family, range: impl Into<Range>) -> Result<()> {
        let range = range.into();
        let (start, end) = (range.start.as_deref().unwrap_or_default(), range.end.as_deref().unwrap_or_default());
        check_length("key", start, KEY_BYTES_MAX)?;
        check_length("key", end, KEY_BYTES_MAX)?;
        self.overlay.delete_range(family, start, end)
    }

    fn write(&mut self, family: Family, key: &[u8], pending: Pending) -> Result<()> {
        check_length("key", key, KEY_BYTES_MAX)?;
        self.overlay.write(family, key, pending)
    }

    fn find_pending(&self, family: Family, key: &[u8]) -> Option<Option<Bytes>> {
        self.overlay.family(family)?.find(key, self.snapshot.now_ms())
    }

    /// Marks the present state of its writes. Costs nothing by itself; from then on the first change of each key
    /// keeps what was pending before.
    pub fn savepoint(&mut self) -> Savepoint {
        let Held { id, attempt, .. } = self.held;
        Savepoint { transaction: id, attempt, serial: self.overlay.savepoint() }
    }

    /// Takes back what was written since the savepoint. The savepoint stays and can be rolled back to again; those set
    /// after it are gone. Locks stay, and reads stay in the read set.
    ///
    /// Errors: [`Error::InvalidArgument`] for a savepoint that is gone or is another transaction's.
    pub fn rollback_to(&mut self, savepoint: &Savepoint) -> Result<()> {
        if (savepoint.transaction, savepoint.attempt) != (self.held.id, self.held.attempt) {
            return Err(Error::InvalidArgument("the savepoint is another transaction's".into()));
        }
        self.overlay.rollback_to(savepoint.serial)
    }

    /// Ends it without effect, as dropping it does.
    pub fn rollback(self) {}
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("start", &self.start())
            .field("isolation", &self.options.isolation)
            .finish_non_exhaustive()
    }
}

fn new_tracking(options: &TransactionOptions) -> Arc<ReadTracking> {
    let serializable = options.isolation == Isolation::Serializable;
    Arc::new(ReadTracking::new(serializable.then(|| ReadSet::new(options.read_set_bytes_max))))
}

fn check_length(what: &str, bytes: &[u8], max: usize) -> Result<()> {
    if bytes.len() <= max {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("a {what} has {} bytes; at most {max} are accepted", bytes.len())))
}
