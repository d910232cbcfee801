//! Write records: the outcome of a transaction on a key.

use crate::{Malformed, SHORT_VALUE_BYTES_MAX, TimeStamp};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_u64, put_slice, put_u64};

/// The kind of a write record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteKind {
    /// The key has a value from this commit timestamp on.
    Put,
    /// The key is deleted from this commit timestamp on.
    Delete,
    /// A committed lock: changes nothing for readers, conflicts with writers.
    Lock,
    /// The transaction was rolled back; it may never prewrite or commit this key any more. Kept at its start timestamp;
    /// readers skip it.
    Rollback,
}

/// A write record.
///
/// Encoding, version 1:
/// - version (1 byte: 1)
/// - kind (1 byte: `P` put, `D` delete, `L` lock, `R` rollback)
/// - flags (1 byte: bit 0 overlapped rollback, bit 1 a short value follows; others must be 0)
/// - start timestamp (8 bytes, little-endian)
/// - short value (varint length, bytes), if flagged
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What it says.
    pub kind: WriteKind,
    /// The transaction's start timestamp.
    pub start_ts: TimeStamp,
    /// The value if the kind is put and it is short.
    pub short_value: Option<Bytes>,
    /// Another transaction, whose start timestamp is this record's commit timestamp, was rolled back on this key: two
    /// records cannot share a key, so the commit record carries the rollback too.
    pub overlapped_rollback: bool,
}

const VERSION: u8 = 1;
const FLAG_OVERLAPPED: u8 = 1;
const FLAG_SHORT_VALUE: u8 = 2;

impl Write {
    /// The record of a rollback.
    pub fn rollback(start_ts: TimeStamp) -> Write {
        Write { kind: WriteKind::Rollback, start_ts, short_value: None, overlapped_rollback: false }
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.short_value.is_none() || self.kind == WriteKind::Put, "only a put has a value");
        let mut out = Vec::with_capacity(16 + self.short_value.as_ref().map_or(0, Bytes::len));
        out.push(VERSION);
        out.push(match self.kind {
            WriteKind::Put => b'P',
            WriteKind::Delete => b'D',
            WriteKind::Lock => b'L',
            WriteKind::Rollback => b'R',
        });
        let short = if self.short_value.is_some() { FLAG_SHORT_VALUE } else { 0 };
        out.push(short | if self.overlapped_rollback { FLAG_OVERLAPPED } else { 0 });
        put_u64(&mut out, self.start_ts.0);
        if let Some(value) = &self.short_value {
            assert!(value.len() <= SHORT_VALUE_BYTES_MAX, "long values are in txn_default");
            put_slice(&mut out, value);
        }
        debug_assert_eq!(Write::decode(&out).as_ref(), Ok(self), "what is written can be read");
        out
    }

    /// Decodes the record that stands at `commit_ts`. A commit is later than its start, a rollback is at its start;
    /// anything else was not written by this crate.
    pub(crate) fn decode_at(commit_ts: TimeStamp, bytes: &[u8]) -> Result<Write, Malformed> {
        let write = Write::decode(bytes)?;
        let in_place = match write.kind {
            WriteKind::Rollback => write.start_ts == commit_ts,
            WriteKind::Put | WriteKind::Delete | WriteKind::Lock => write.start_ts < commit_ts,
        };
        if in_place { Ok(write) } else { Err(Malformed("a write record at a wrong timestamp")) }
    }

    /// Decodes a record.
    pub fn decode(bytes: &[u8]) -> Result<Write, Malformed> {
        Write::decode_parts(bytes).map_err(|Truncated| Malformed("a malformed write record"))
    }

    fn decode_parts(mut rest: &[u8]) -> Result<Write, Truncated> {
        let rest = &mut rest;
        if get_u8(rest)? != VERSION {
            return Err(Truncated);
        }
        let kind = match get_u8(rest)? {
            b'P' => WriteKind::Put,
            b'D' => WriteKind::Delete,
            b'L' => WriteKind::Lock,
            b'R' => WriteKind::Rollback,
            _ => return Err(Truncated),
        };
        let flags = get_u8(rest)?;
        let has_short_value = flags & FLAG_SHORT_VALUE != 0;
        if flags & !(FLAG_OVERLAPPED | FLAG_SHORT_VALUE) != 0 || (has_short_value && kind != WriteKind::Put) {
            return Err(Truncated);
        }
        let start_ts = TimeStamp(get_u64(rest)?);
        let short_value = if has_short_value { Some(Bytes::copy_from_slice(get_slice(rest)?)) } else { None };
        if !rest.is_empty() || short_value.as_ref().is_some_and(|value| value.len() > SHORT_VALUE_BYTES_MAX) {
            return Err(Truncated);
        }
        Ok(Write { kind, start_ts, short_value, overlapped_rollback: flags & FLAG_OVERLAPPED != 0 })
    }
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
