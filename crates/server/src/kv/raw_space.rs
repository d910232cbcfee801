//! Where raw data are stored.
//!
//! | API version, column family | family | stored key |
//! |---|---|---|
//! | 1, `default` or none | `default` | the key |
//! | 1, `lock` | `kontiki.raw_lock` | the key |
//! | 1, `write` | `kontiki.raw_write` | the key |
//! | 2 | `kontiki.raw_v2` | the key, prefix included, in its memcomparable encoding |
//!
//! So a region owns the same key range in each: clients of version 1 compare keys with region boundaries unchanged,
//! those of version 2 encoded. The column families `lock` and `write` have nothing to do with those of transactions.

use super::answer::Refusal;
use super::api_version::{KeyMode, is_v2};
use super::route::KeySpace;
use crate::driver::NodeError;
use crate::families::{DEFAULT, RAW_LOCK, RAW_V2, RAW_WRITE};
use bytes::Bytes;
use kontiki_engine::{Family, Range};
use kontiki_proto::kvrpcpb::Context;
use kontiki_raftstore::Region;
use kontiki_txn::{Failure, memcomparable_decode, memcomparable_encode, user_range};

/// The raw data that a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawSpace {
    /// Where they are stored.
    pub family: Family,
    /// How its keys are stored, and compared with region boundaries.
    pub keys: KeySpace,
}

impl RawSpace {
    /// From the request's API version and column family.
    pub fn of(context: &Option<Context>, column_family: &str) -> Result<RawSpace, Refusal> {
        let refuse = |text: &str| Err(Refusal::Text(format!("column family `{column_family}` {text}")));
        let is_v2 = is_v2(context).map_err(Refusal::Text)?;
        let (family, keys) = match column_family {
            "" | "default" if is_v2 => (RAW_V2, KeySpace::Txn),
            "" | "default" => (DEFAULT, KeySpace::Raw),
            _ if is_v2 => return refuse("is not served in API version 2, which has no families but `default`"),
            "lock" => (RAW_LOCK, KeySpace::Raw),
            "write" => (RAW_WRITE, KeySpace::Raw),
            _ => return refuse("does not exist; raw calls have `default`, `lock` and `write`"),
        };
        Ok(RawSpace { family, keys })
    }

    /// Refuses keys that are not of this space.
    pub fn check_keys<'a>(self, keys: impl IntoIterator<Item = &'a Bytes>) -> Result<(), Refusal> {
        match self.keys {
            KeySpace::Raw => Ok(()),
            KeySpace::Txn => keys.into_iter().try_for_each(|key| KeyMode::Raw.check_key(key)).map_err(Refusal::Text),
        }
    }

    /// Refuses a range that is not of this space.
    pub fn check_range(self, lower: &[u8], upper: &[u8]) -> Result<(), Refusal> {
        match self.keys {
            KeySpace::Raw => Ok(()),
            KeySpace::Txn => KeyMode::Raw.check_range(lower, upper).map_err(Refusal::Text),
        }
    }

    /// The key under which a key is stored.
    pub fn stored(self, key: &Bytes) -> Bytes {
        match self.keys {
            KeySpace::Raw => key.clone(),
            KeySpace::Txn => memcomparable_encode(key).into(),
        }
    }

    /// The key that is stored under this one.
    pub fn key_of(self, stored: Bytes) -> Result<Bytes, Failure<NodeError>> {
        match self.keys {
            KeySpace::Raw => Ok(stored),
            KeySpace::Txn => match memcomparable_decode(&stored) {
                Ok(key) => Ok(key.into()),
                Err(malformed) => Err(Failure::Corrupt { key: stored, what: malformed.0 }),
            },
        }
    }

    /// The stored keys of `lower <= key < upper` that a region owns; an empty bound is unbounded. May be empty or
    /// inverted.
    pub fn range(self, region: &Region, lower: &Bytes, upper: &Bytes) -> Range {
        match self.keys {
            KeySpace::Raw => clip(lower, upper, region),
            KeySpace::Txn => user_range(&Range::region(&region.start_key, &region.end_key), lower, upper),
        }
    }

    /// The name of a key among the latches: that of no other space, and of no transactional key that is likely.
    pub fn latch(self, key: &Bytes) -> Bytes {
        [&self.family.0.to_be_bytes()[..], key].concat().into()
    }
}

fn clip(lower: &Bytes, upper: &Bytes, region: &Region) -> Range {
    let start = lower.max(&region.start_key).clone();
    let end = match (upper.is_empty(), region.end_key.is_empty()) {
        (true, _) => region.end_key.clone(),
        (_, true) => upper.clone(),
        _ => upper.min(&region.end_key).clone(),
    };
    let bound = |key: Bytes| (!key.is_empty()).then_some(key);
    Range { start: bound(start), end: bound(end) }
}

/// When a value with this time to live, in seconds, expires that is written now; `None`: it does not. The node that
/// proposes the write decides it, and replicas take it over: they agree on it whatever their clocks say.
pub(super) fn expires_at_ms(now_ms: u64, ttl_s: u64) -> Result<Option<u64>, String> {
    if ttl_s == 0 {
        return Ok(None);
    }
    let at = ttl_s.checked_mul(1_000).and_then(|ttl_ms| now_ms.checked_add(ttl_ms));
    match at {
        Some(at) => Ok(Some(at)),
        None => Err(format!("a time to live of {ttl_s} s ends beyond all time; send 0 for none")),
    }
}

/// The rest of a time to live, in seconds, of a value that is there at `now_ms`. At least 1: 0 means that it stays.
pub(super) fn ttl_s(now_ms: u64, expires_at_ms: u64) -> u64 {
    expires_at_ms.saturating_sub(now_ms).div_ceil(1_000).max(1)
}

#[cfg(test)]
#[path = "raw_space_test.rs"]
mod tests;
