//! Families and key layouts of transactional data.
//!
//! | family | key | value |
//! |---|---|---|
//! | `kontiki.txn_default` | memcomparable(user key), 8 bytes: bitwise not of the start timestamp, big-endian | a long value |
//! | `kontiki.txn_lock` | memcomparable(user key) | a [`crate::Lock`] |
//! | `kontiki.txn_write` | memcomparable(user key), 8 bytes: bitwise not of the commit timestamp, big-endian | a [`crate::Write`] |
//!
//! The inverted timestamp puts newer versions of a key before older ones.

use crate::{Malformed, TimeStamp};
use bytes::Bytes;
use kontiki_engine::{Family, Range};
use kontiki_env::memcomparable;

/// Long values.
pub const TXN_DEFAULT: Family = Family::reserved(0);
/// Locks.
pub const TXN_LOCK: Family = Family::reserved(1);
/// Commit and rollback records.
pub const TXN_WRITE: Family = Family::reserved(2);

const TS_BYTES: usize = 8;

fn versioned(key: &[u8], ts: TimeStamp) -> Vec<u8> {
    let mut out = memcomparable::encode(key);
    let key_bytes = out.len();
    out.extend_from_slice(&(!ts.0).to_be_bytes());
    assert_eq!(out.len(), key_bytes + TS_BYTES, "key and timestamp");
    out
}

/// Physical key of the lock on a user key.
pub fn lock_key(key: &[u8]) -> Vec<u8> {
    memcomparable::encode(key)
}

/// Physical key of the write record of a user key at `commit_ts` (a rollback record's is its start timestamp).
pub fn write_key(key: &[u8], commit_ts: TimeStamp) -> Vec<u8> {
    versioned(key, commit_ts)
}

/// Physical key of a long value written at `start_ts`.
pub fn default_key(key: &[u8], start_ts: TimeStamp) -> Vec<u8> {
    versioned(key, start_ts)
}

/// The user key of a lock's physical key.
pub(crate) fn split_lock_key(physical: &[u8]) -> Result<Vec<u8>, Malformed> {
    Ok(memcomparable::decode(physical)?)
}

/// The encoded user key and the timestamp of a versioned physical key. Does not look inside the user key.
pub(crate) fn split_versioned(physical: &[u8]) -> Result<(&[u8], TimeStamp), Malformed> {
    let (encoded, suffix) = physical.split_last_chunk::<TS_BYTES>().ok_or(Malformed("a key without a timestamp"))?;
    Ok((encoded, TimeStamp(!u64::from_be_bytes(*suffix))))
}

/// All versions of a user key from `newest` down to `oldest` (both included), as a forward range.
pub(crate) fn version_range(key: &[u8], newest: TimeStamp, oldest: TimeStamp) -> Range {
    assert!(newest >= oldest, "versions run from new to old");
    let start = versioned(key, newest);
    let mut end = versioned(key, oldest);
    end.push(0); // The end of a range is exclusive; this is the smallest key beyond.
    debug_assert!(start < end, "newer versions come first");
    Range { start: Some(Bytes::from(start)), end: Some(Bytes::from(end)) }
}

/// The encoded keys of the user keys `lower <= key < upper` (an empty `upper` is unbounded) that a region owns;
/// `region` is the region's range as it is in the region table: memcomparable boundaries, unbounded where empty.
pub fn user_range(region: &Range, lower: &[u8], upper: &[u8]) -> Range {
    let lower = (!lower.is_empty()).then(|| Bytes::from(memcomparable::encode(lower)));
    let upper = (!upper.is_empty()).then(|| Bytes::from(memcomparable::encode(upper)));
    let start = lower.into_iter().chain(region.start.clone()).max();
    let end = upper.into_iter().chain(region.end.clone()).min();
    debug_assert!(region.start.is_none() || start >= region.start, "inside the region");
    debug_assert!(region.end.is_none() || end.as_ref().is_some_and(|end| Some(end) <= region.end.as_ref()));
    Range { start, end }
}

/// Whether no key can lie in the range.
pub(crate) fn is_empty(range: &Range) -> bool {
    matches!((&range.start, &range.end), (Some(start), Some(end)) if start >= end)
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod tests;
