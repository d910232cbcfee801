//! TxnHeartBeat: a live client prolongs its transaction.

use super::{ActionResult, own_lock};
use crate::keys::{TXN_LOCK, lock_key};
use crate::read::MvccReader;
use crate::{KeyError, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{View, WriteBatch};

/// Prolongs a primary's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnHeartBeat {
    /// The primary's user key.
    pub primary: Bytes,
    /// The transaction.
    pub start_ts: TimeStamp,
    /// The wanted time to live in milliseconds since the start timestamp; one shorter than the present is ignored.
    pub advise_ttl_ms: u64,
}

/// Returns the time to live that the lock has afterwards.
pub(crate) fn txn_heart_beat(command: &TxnHeartBeat, view: &dyn View) -> ActionResult<u64> {
    let reader = MvccReader::new(view);
    let mut batch = WriteBatch::new();
    let Some(mut lock) = own_lock(&reader, &command.primary, command.start_ts)? else {
        let primary = command.primary.clone();
        return Err(KeyError::TxnNotFound { start_ts: command.start_ts, primary }.into());
    };
    if lock.ttl_ms < command.advise_ttl_ms {
        lock.ttl_ms = command.advise_ttl_ms;
        batch.put(TXN_LOCK, lock_key(&command.primary), lock.encode());
    }
    assert!(lock.ttl_ms >= command.advise_ttl_ms, "never less than asked");
    Ok((lock.ttl_ms, batch))
}
