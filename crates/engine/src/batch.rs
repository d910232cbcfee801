//! Write batches: the unit of atomicity, and the payload of log records and of replicated entries.

use crate::{Error, Family, KEY_BYTES_MAX, Result, VALUE_BYTES_MAX};
use bytes::{Buf, Bytes};
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_varint, put_slice, put_varint};

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
    /// Removes a key.
    Delete {
        /// Column family.
        family: Family,
        /// User key.
        key: &'a [u8],
    },
}

const KIND_DELETE: u8 = 0;
const KIND_PUT: u8 = 1;

/// Operations that become visible, and survive a crash, together or not at all. Later operations on a key win.
///
/// Encoding, repeated to the end: kind (1 byte: 0 delete, 1 put), family (varint), key (varint length, bytes) and,
/// for a put, value (varint length, bytes).
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
    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.encoded.push(KIND_PUT);
        put_varint(&mut self.encoded, u64::from(family.0));
        put_slice(&mut self.encoded, key);
        put_slice(&mut self.encoded, value);
        self.count += 1;
    }

    /// Adds a delete.
    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.encoded.push(KIND_DELETE);
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

    /// Decodes, checking every operation.
    pub fn decode(bytes: &[u8]) -> std::result::Result<WriteBatch, Truncated> {
        let mut count = 0;
        for op in ops_of(bytes) {
            op?;
            count += 1;
        }
        Ok(WriteBatch { encoded: bytes.to_vec(), count })
    }

    /// The operations in order.
    pub fn ops(&self) -> impl Iterator<Item = BatchOp<'_>> {
        // A batch is built by `put`/`delete` or checked by `decode`, so its encoding is whole.
        ops_of(&self.encoded).map(|op| op.expect("a WriteBatch holds a whole encoding"))
    }

    /// Refuses keys or values beyond [`KEY_BYTES_MAX`] and [`VALUE_BYTES_MAX`].
    pub fn validate(&self) -> Result<()> {
        for op in self.ops() {
            let (key, value) = match op {
                BatchOp::Put { key, value, .. } => (key, value),
                BatchOp::Delete { key, .. } => (key, &[][..]),
            };
            if key.len() > KEY_BYTES_MAX {
                let message = format!("a key has {} bytes; at most {KEY_BYTES_MAX} are accepted", key.len());
                return Err(Error::InvalidArgument(message));
            }
            if value.len() > VALUE_BYTES_MAX {
                let message = format!("a value has {} bytes; at most {VALUE_BYTES_MAX} are accepted", value.len());
                return Err(Error::InvalidArgument(message));
            }
        }
        Ok(())
    }
}

fn ops_of(mut rest: &[u8]) -> impl Iterator<Item = std::result::Result<BatchOp<'_>, Truncated>> {
    std::iter::from_fn(move || {
        if !rest.has_remaining() {
            return None;
        }
        let op = decode_op(&mut rest);
        if op.is_err() {
            rest = &[];
        }
        Some(op)
    })
}

fn decode_op<'a>(rest: &mut &'a [u8]) -> std::result::Result<BatchOp<'a>, Truncated> {
    let kind = get_u8(rest)?;
    let family = Family(u32::try_from(get_varint(rest)?).map_err(|_| Truncated)?);
    let key = get_slice(rest)?;
    match kind {
        KIND_PUT => Ok(BatchOp::Put { family, key, value: get_slice(rest)? }),
        KIND_DELETE => Ok(BatchOp::Delete { family, key }),
        _ => Err(Truncated),
    }
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
