//! Internal keys: how versions of user keys are ordered.

use super::{KEY_BYTES_MAX, Kind, SequenceNumber};
use bytes::Bytes;
use std::cmp::Ordering;

/// Largest sequence number of a write. Larger than any realistic counter, and small enough that
/// sequence number and kind share a `u64` in tables.
pub const SEQUENCE_NUMBER_MAX: SequenceNumber = (1 << 56) - 1;

/// The end of a range that has none: greater than every key that there can be. So the code that orders and cuts ranges
/// needs no special case; the price is that a manifest's record of such a range has 64 KiB, and a family has at most
/// one of those.
pub(crate) const BEYOND_ALL_KEYS: &[u8] = &[u8::MAX; KEY_BYTES_MAX + 1];

/// A position among the versions of one family: by user key ascending, then by sequence number *descending*, so
/// that the newest version of a key comes first.
///
/// Each (user key, sequence number) exists at most once in a database; two sources may hold the same one only while
/// a memtable and the table flushed from it are both visible, and then they agree. Sequence number 0 is before
/// every write, so `(key, 0)` is a position after all versions of `key`; `(key, SEQUENCE_NUMBER_MAX)` is one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The user key.
    pub user_key: &'a [u8],
    /// Its version.
    pub sequence: SequenceNumber,
}

impl<'a> KeyRef<'a> {
    /// The position of one version.
    pub fn new(user_key: &'a [u8], sequence: SequenceNumber) -> KeyRef<'a> {
        KeyRef { user_key, sequence }
    }

    /// The position before every version of `user_key`.
    pub fn before_all(user_key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { user_key, sequence: SEQUENCE_NUMBER_MAX }
    }

    /// The position after every version of `user_key`.
    pub fn after_all(user_key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { user_key, sequence: 0 }
    }
}

impl Ord for KeyRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key.cmp(other.user_key).then_with(|| other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for KeyRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first key behind a key.
pub(crate) fn successor(user_key: &[u8]) -> Bytes {
    Bytes::from([user_key, &[0]].concat())
}

/// A version that a source holds of a key. A tombstone answers as well: older sources must not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its sequence number.
    pub sequence: SequenceNumber,
    /// Its kind.
    pub kind: Kind,
    /// The bytes that go with the kind; shares the memory of the block or memtable.
    pub stored: Bytes,
}
