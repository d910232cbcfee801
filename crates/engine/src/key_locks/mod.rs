//! Exclusive locks of keys, held by transactions. They know no database: a transaction is a number here.

mod sync;
mod table;

pub(crate) use table::{Grant, LockKey, LockTable, TransactionId};

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod table_test;
