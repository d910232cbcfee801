//! Write batches: the unit of atomicity, and the payload of log records and of replicated entries.

use crate::types::{BEYOND_ALL_KEYS, Content, Decoded, EXPIRY_BYTES, Kind};
use crate::{Error, Family, KEY_BYTES_MAX, Range, Result, VALUE_BYTES_MAX};
use bytes::{Buf, Bytes};
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_varint, put_slice, put_u64, put_varint};

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOp<'a> {
    /// Sets a key.
    Put {
        /// Column family.
        family: Family,
        /// User key.
        key: &'a [u8],
        /// Value.
        value: &'a [u8],
    },
    /// Sets a key until a time.
    PutExpiring {
        /// Column family.
        family: Family,
        /// User key.
        key: &'a [u8],
        /// Value.
        value: &'a [u8],
        /// When the key is gone again: milliseconds of the wall clock since 1970.
        expires_at_ms: u64,
    },
    /// Removes a key.
    Delete {
        /// Column family.
        family: Family,
        /// User key.
        key: &'a [u8],
    },
    /// Removes every key of `start <= key < end`; none, if `end` is not above `start`.
    DeleteRange {
        /// Column family.
        family: Family,
        /// Inclusive.
        start: &'a [u8],
        /// Exclusive; empty: to the end of the family.
        end: &'a [u8],
    },
}

impl<'a> BatchOp<'a> {
    /// The column family that it writes to.
    pub fn family(&self) -> Family {
        match *self {
            BatchOp::Put { family, .. }
            | BatchOp::PutExpiring { family, .. }
            | BatchOp::Delete { family, .. }
            | BatchOp::DeleteRange { family, .. } => family,
        }
    }

    /// The key that it writes to, of a range the start.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            BatchOp::Put { key, .. } | BatchOp::PutExpiring { key, .. } | BatchOp::Delete { key, .. } => key,
            BatchOp::DeleteRange { start, .. } => start,
        }
    }
}

/// One operation as the engine's modules take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchEntry<'a> {
    /// One version of a key.
    Version { family: Family, key: &'a [u8], kind: Kind, stored: &'a [u8] },
    /// A range tombstone; to the end of the family, if `end` is [`BEYOND_ALL_KEYS`].
    DeleteRange { family: Family, start: &'a [u8], end: &'a [u8] },
}

impl BatchEntry<'_> {
    /// The column family that it writes to.
    pub(crate) fn family(&self) -> Family {
        match *self {
            BatchEntry::Version { family, .. } | BatchEntry::DeleteRange { family, .. } => family,
        }
    }

    /// Whether it is a range delete of no keys that only earlier builds wrote: its empty end is not what it means now.
    fn is_of_earlier_nothing(&self) -> bool {
        matches!(self, BatchEntry::DeleteRange { end: [], .. })
    }
}

const TAG_DELETE_RANGE: u8 = 16;
const TAG_DELETE_TO_END: u8 = 17;

/// Operations that become visible, and survive a crash, together or not at all. Later operations on a key win.
///
/// Encoding, repeated to the end: tag (1 byte), family (varint), then for the tags 0 to 4, which are kinds (`kind.rs`):
/// key (varint length, bytes) and, unless it is a delete, stored bytes (varint length, bytes); for tag 16, a range
/// delete: start and end (each varint length, bytes); for tag 17, a delete to the end of the family: start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    count: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> WriteBatch {
        WriteBatch::default()
    }

    /// Adds a put. Sizes are checked when the batch is written ([`WriteBatch::validate`]).
    pub fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_head(Kind::Put.to_byte(), family, key.as_ref());
        put_slice(&mut self.encoded, value.as_ref());
    }

    /// Adds a put that expires at `expires_at_ms`, milliseconds of the wall clock since 1970: from then on the key is
    /// not there. [`Db::expires_at_ms`](crate::Db::expires_at_ms) makes it from a time to live.
    pub fn put_expiring(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, expires_at_ms: u64) {
        let value = value.as_ref();
        self.put_head(Kind::PutExpiring.to_byte(), family, key.as_ref());
        put_varint(&mut self.encoded, (EXPIRY_BYTES + value.len()) as u64);
        put_u64(&mut self.encoded, expires_at_ms);
        self.encoded.extend_from_slice(value);
    }

    /// Adds a delete.
    pub fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        self.put_head(Kind::Delete.to_byte(), family, key.as_ref());
    }

    /// Adds a delete of every key of a [`Range`]. It removes what the batch has put there before; what the batch puts
    /// there afterwards stays.
    pub fn delete_range(&mut self, family: Family, range: impl Into<Range>) {
        let range = range.into();
        let (start, end) = (range.start.as_deref().unwrap_or_default(), range.end.as_deref().unwrap_or_default());
        if end.is_empty() || end == BEYOND_ALL_KEYS {
            self.put_head(TAG_DELETE_TO_END, family, start);
        } else {
            self.put_head(TAG_DELETE_RANGE, family, start);
            put_slice(&mut self.encoded, end);
        }
    }

    /// Adds a version whose stored bytes are made already (a value pointer).
    pub(crate) fn put_stored(&mut self, family: Family, key: &[u8], kind: Kind, stored: &[u8]) {
        assert!(!kind.is_delete(), "a delete has no stored bytes");
        self.put_head(kind.to_byte(), family, key);
        put_slice(&mut self.encoded, stored);
    }

    fn put_head(&mut self, tag: u8, family: Family, key: &[u8]) {
        self.encoded.push(tag);
        put_varint(&mut self.encoded, u64::from(family.0));
        put_slice(&mut self.encoded, key);
        self.count += 1;
    }

    /// Appends all operations of `other`.
    pub fn append(&mut self, other: &WriteBatch) {
        self.encoded.extend_from_slice(&other.encoded);
        self.count += other.count;
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// The encoding, without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.encoded)
    }

    /// Decodes, checking every operation. A batch from outside refers to no value log.
    pub fn decode(bytes: &[u8]) -> std::result::Result<WriteBatch, Truncated> {
        let batch = WriteBatch::decode_logged(bytes)?;
        let refers = |entry| matches!(entry, BatchEntry::Version { kind, .. } if kind.is_pointer());
        if batch.entries().any(refers) { Err(Truncated) } else { Ok(batch) }
    }

    /// As [`WriteBatch::decode`], of a batch that this database has written: it may hold value pointers.
    pub(crate) fn decode_logged(bytes: &[u8]) -> std::result::Result<WriteBatch, Truncated> {
        let mut count = 0;
        for entry in entries_of(bytes) {
            count += usize::from(!entry?.is_of_earlier_nothing());
        }
        Ok(WriteBatch { encoded: bytes.to_vec(), count })
    }

    /// The operations in order.
    pub fn ops(&self) -> impl Iterator<Item = BatchOp<'_>> {
        self.entries().filter(|entry| !entry.is_of_earlier_nothing()).map(|entry| match entry {
            BatchEntry::DeleteRange { family, start, end } => {
                BatchOp::DeleteRange { family, start, end: if end == BEYOND_ALL_KEYS { &[] } else { end } }
            }
            BatchEntry::Version { family, key, kind, stored } => {
                let decoded = Decoded::new(kind, stored).expect("a WriteBatch holds a whole encoding");
                match (decoded.content, decoded.expires_at_ms) {
                    (Content::Deleted, _) => BatchOp::Delete { family, key },
                    (Content::Value(value), None) => BatchOp::Put { family, key, value },
                    (Content::Value(value), Some(expires_at_ms)) => {
                        BatchOp::PutExpiring { family, key, value, expires_at_ms }
                    }
                    (Content::Pointer(_), _) => unreachable!("batches with pointers stay within the write path"),
                }
            }
        })
    }

    /// The operations in order, as the engine's modules take them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = BatchEntry<'_>> {
        // A batch is built by the methods above or checked by `decode`, so its encoding is whole.
        entries_of(&self.encoded).map(|entry| entry.expect("a WriteBatch holds a whole encoding"))
    }

    /// Refuses keys or values beyond [`KEY_BYTES_MAX`] and [`VALUE_BYTES_MAX`].
    pub fn validate(&self) -> Result<()> {
        self.validate_at(|| 0)
    }

    /// As [`WriteBatch::validate`]; also refuses an expiry that can only be in another unit than milliseconds, because
    /// it lies decades before the wall time `now_ms`: such a put would vanish in silence.
    pub(crate) fn validate_at(&self, now_ms: impl Fn() -> u64) -> Result<()> {
        let refuse = |what: &str, bytes: usize, most: usize| {
            Err(Error::InvalidArgument(format!("a {what} has {bytes} bytes; at most {most} are accepted")))
        };
        for entry in self.entries() {
            let (key, end, stored_bytes) = match entry {
                BatchEntry::Version { key, kind, stored, .. } if kind.expires() => {
                    let decoded = Decoded::new(kind, stored).expect("a WriteBatch holds a whole encoding");
                    refuse_seconds(decoded.expires_at_ms.unwrap_or_default(), &now_ms)?;
                    (key, &[][..], stored.len() - EXPIRY_BYTES)
                }
                BatchEntry::Version { key, stored, .. } => (key, &[][..], stored.len()),
                BatchEntry::DeleteRange { start, end, .. } if end == BEYOND_ALL_KEYS => (start, &[][..], 0),
                BatchEntry::DeleteRange { start, end, .. } => (start, end, 0),
            };
            let key_bytes = key.len().max(end.len());
            if key_bytes > KEY_BYTES_MAX {
                return refuse("key", key_bytes, KEY_BYTES_MAX);
            }
            if stored_bytes > VALUE_BYTES_MAX {
                return refuse("value", stored_bytes, VALUE_BYTES_MAX);
            }
        }
        Ok(())
    }
}

/// Refuses an expiry that is a time of this century in seconds: it would be in 1970, and the key would never be seen.
fn refuse_seconds(expires_at_ms: u64, now_ms: impl Fn() -> u64) -> Result<()> {
    const SECONDS: std::ops::Range<u64> = 1_000_000_000..100_000_000_000;
    if !SECONDS.contains(&expires_at_ms) || now_ms() < 1000 * SECONDS.start {
        return Ok(());
    }
    Err(Error::InvalidArgument(format!(
        "expires_at_ms is {expires_at_ms}, which looks like seconds: it is in milliseconds since 1970; see Db::expires_at_ms"
    )))
}

fn entries_of(mut rest: &[u8]) -> impl Iterator<Item = std::result::Result<BatchEntry<'_>, Truncated>> {
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let entry = decode_entry(&mut rest);
        if entry.is_err() {
            rest = &[];
        }
        Some(entry)
    })
}

fn decode_entry<'a>(rest: &mut &'a [u8]) -> std::result::Result<BatchEntry<'a>, Truncated> {
    let tag = get_u8(rest)?;
    let family = Family(u32::try_from(get_varint(rest)?).map_err(|_| Truncated)?);
    let key = get_slice(rest)?;
    match tag {
        TAG_DELETE_RANGE => return Ok(BatchEntry::DeleteRange { family, start: key, end: get_slice(rest)? }),
        TAG_DELETE_TO_END => return Ok(BatchEntry::DeleteRange { family, start: key, end: BEYOND_ALL_KEYS }),
        _ => {}
    }
    let kind = Kind::from_byte(tag).ok_or(Truncated)?;
    let stored = if kind.is_delete() { &[][..] } else { get_slice(rest)? };
    Decoded::new(kind, stored)?;
    Ok(BatchEntry::Version { family, key, kind, stored })
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
