//! How a transaction behaves.

use crate::{Durability, Error, Result};
use std::time::Duration;

/// What a transaction is protected from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Snapshot isolation: reads see one moment, the transaction's start; a commit is refused if a key or range that it
    /// writes was written since. Write skew is possible: two transactions that each read what the other writes.
    #[default]
    Snapshot,
    /// Serializable: as `Snapshot`, and a commit that writes is refused if anything that the transaction has read was
    /// written since, keys that were not there and ranges that were iterated over included. The transactions of this
    /// kind, and plain writes, have the effect of running one after the other in the order of their commits.
    Serializable,
}

/// Options of one transaction. Start from [`TransactionOptions::default`] and change fields.
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    /// Default [`Isolation::Snapshot`].
    pub isolation: Isolation,
    /// What the answer of the commit means. Default [`Durability::Sync`]; [`Durability::Derived`] is refused.
    pub durability: Durability,
    /// How long one lock of a key is waited for at most, in milliseconds. It also bounds how long a deadlock with
    /// something outside of the database lasts. Default 1,000; 0 (do not wait) to 3,600,000.
    pub lock_wait_ms: u64,
    /// Memory for what is written and not committed, and for locks. Bounds what one transaction can take, and its
    /// commit, which is one record of the log. Default 64 MiB; 4 KiB to 192 MiB.
    pub write_bytes_max: u64,
    /// Memory for what a serializable transaction has read: bounds the work of its commit. Default 16 MiB (some 100,000
    /// keys; a range counts once however long); 4 KiB to 1 GiB.
    pub read_set_bytes_max: u64,
    /// How often [`Db::transact`](crate::Db::transact) tries again at most. Default 20; up to 1,000.
    pub retries_max: u32,
    /// The longest pause between two tries, in milliseconds; the first is at most 1 ms and each may be twice the one
    /// before. Default 100; 1 to 60,000.
    pub retry_pause_ms_max: u64,
}

impl Default for TransactionOptions {
    fn default() -> TransactionOptions {
        TransactionOptions {
            isolation: Isolation::Snapshot,
            durability: Durability::Sync,
            lock_wait_ms: 1000,
            write_bytes_max: 64 << 20,
            read_set_bytes_max: 16 << 20,
            retries_max: 20,
            retry_pause_ms_max: 100,
        }
    }
}

impl TransactionOptions {
    /// The default with [`Isolation::Serializable`].
    pub fn serializable() -> TransactionOptions {
        TransactionOptions { isolation: Isolation::Serializable, ..TransactionOptions::default() }
    }

    /// Checks every field.
    pub fn validate(&self) -> Result<()> {
        if self.durability == Durability::Derived {
            let why = "durability is Derived; a transaction is logged: Sync or Buffered";
            return Err(Error::InvalidArgument(why.into()));
        }
        in_range("lock_wait_ms", self.lock_wait_ms, 0, 3_600_000)?;
        in_range("write_bytes_max", self.write_bytes_max, 4 << 10, 192 << 20)?;
        in_range("read_set_bytes_max", self.read_set_bytes_max, 4 << 10, 1 << 30)?;
        in_range("retries_max", u64::from(self.retries_max), 0, 1000)?;
        in_range("retry_pause_ms_max", self.retry_pause_ms_max, 1, 60_000)
    }

    pub(super) fn lock_wait(&self) -> Duration {
        Duration::from_millis(self.lock_wait_ms)
    }
}

fn in_range(field: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!("{field} is {value}; it must be from {min} to {max}")))
}
