//! The content of a version: its kind, and the bytes that go with it. The same in batches, memtables and tables.
//!
//! | kind | byte | stored bytes |
//! |---|---|---|
//! | delete | 0 | none |
//! | put | 1 | the value |
//! | expiring put | 2 | `expires_at_ms` (u64 LE, wall clock), then the value |
//! | pointer | 3 | a value pointer (20 bytes) |
//! | expiring pointer | 4 | `expires_at_ms` (u64 LE), then a value pointer |
//!
//! A value pointer: segment (u64 LE), offset of the record in it (u64 LE), length of the value (u32 LE).

use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_u32, get_u64, put_u32, put_u64};

/// See the head of this file. The numbers are part of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The key is deleted: a tombstone.
    Delete = 0,
    /// A value.
    Put = 1,
    /// A value that ends.
    PutExpiring = 2,
    /// A value in the value log.
    Pointer = 3,
    /// A value in the value log that ends.
    PointerExpiring = 4,
}

/// Bits that a kind takes in a table entry's tag.
pub const KIND_BITS: u32 = 3;
/// Bytes of `expires_at_ms` in front of stored bytes that have it.
pub const EXPIRY_BYTES: usize = 8;
/// Bytes of an encoded [`ValuePointer`].
pub const VALUE_POINTER_BYTES: usize = 20;

impl Kind {
    /// The kind of this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            0 => Some(Kind::Delete),
            1 => Some(Kind::Put),
            2 => Some(Kind::PutExpiring),
            3 => Some(Kind::Pointer),
            4 => Some(Kind::PointerExpiring),
            _ => None,
        }
    }

    /// Its number.
    pub fn to_byte(self) -> u8 {
        self as u8
    }

    /// Whether it is a tombstone.
    pub fn is_delete(self) -> bool {
        self == Kind::Delete
    }

    /// Whether the value is in the value log.
    pub fn is_pointer(self) -> bool {
        matches!(self, Kind::Pointer | Kind::PointerExpiring)
    }

    /// Whether the stored bytes begin with `expires_at_ms`.
    pub fn expires(self) -> bool {
        matches!(self, Kind::PutExpiring | Kind::PointerExpiring)
    }
}

/// Where a value lies in the value log. It never changes, also when the value is relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValuePointer {
    /// The segment that the value was first written to.
    pub segment: u64,
    /// Offset of its record there.
    pub offset: u64,
    /// Length of the value in bytes.
    pub length: u32,
}

impl ValuePointer {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.segment);
        put_u64(out, self.offset);
        put_u32(out, self.length);
    }

    /// Takes an encoding, which must be all there is.
    pub fn decode(mut input: &[u8]) -> Result<ValuePointer, Truncated> {
        let input = &mut input;
        let pointer = ValuePointer { segment: get_u64(input)?, offset: get_u64(input)?, length: get_u32(input)? };
        if input.is_empty() { Ok(pointer) } else { Err(Truncated) }
    }
}

/// What kind and stored bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// When it ends, in milliseconds of the wall clock since 1970; `None` if never.
    pub expires_at_ms: Option<u64>,
    /// What there is until then.
    pub content: Content<'a>,
}

/// See [`Decoded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// Nothing: the key is deleted.
    Deleted,
    /// The value itself.
    Value(&'a [u8]),
    /// Where the value is.
    Pointer(ValuePointer),
}

impl<'a> Decoded<'a> {
    /// Takes stored bytes apart, checking them.
    pub fn new(kind: Kind, stored: &'a [u8]) -> Result<Decoded<'a>, Truncated> {
        let mut rest = stored;
        let expires_at_ms = if kind.expires() { Some(get_u64(&mut rest)?) } else { None };
        let content = match kind {
            Kind::Delete if rest.is_empty() => Content::Deleted,
            Kind::Delete => return Err(Truncated),
            Kind::Put | Kind::PutExpiring => Content::Value(rest),
            Kind::Pointer | Kind::PointerExpiring => Content::Pointer(ValuePointer::decode(rest)?),
        };
        Ok(Decoded { expires_at_ms, content })
    }

    /// Whether it has ended at `now_ms`.
    pub fn expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|end| now_ms >= end)
    }
}

/// The value within the stored bytes of a kind that has one there, without a copy.
pub fn inline_value(kind: Kind, stored: Bytes) -> Option<Bytes> {
    match kind {
        Kind::Put => Some(stored),
        Kind::PutExpiring if stored.len() >= EXPIRY_BYTES => Some(stored.slice(EXPIRY_BYTES..)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "kind_test.rs"]
mod tests;
