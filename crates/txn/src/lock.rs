//! Lock records.

use crate::{Malformed, TimeStamp};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_u64, get_varint, put_slice, put_u64, put_varint};

/// Values up to this many bytes are stored in the lock and write records, so that a read of them needs one lookup less.
/// 255 is also the limit in TiKV, and keeps a lock well below a table block.
pub const SHORT_VALUE_BYTES_MAX: usize = 255;

/// What a lock will do to its key at commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Sets a value.
    Put,
    /// Deletes the key.
    Delete,
    /// Changes nothing; it only conflicts with other writers.
    Lock,
    /// Held before prewrite by a pessimistic transaction; it never blocks reads.
    Pessimistic,
}

/// The lock of one transaction on one key. It exists from prewrite to commit or rollback.
///
/// Encoding, version 1:
/// - version (1 byte: 1)
/// - kind (1 byte: `P` put, `D` delete, `L` lock, `S` pessimistic)
/// - flags (1 byte: bit 0 async commit, bit 1 a short value follows; others must be 0)
/// - start timestamp (8 bytes, little-endian)
/// - time to live in milliseconds, for-update timestamp, min-commit timestamp, transaction size (varints)
/// - primary key (varint length, bytes)
/// - short value (varint length, bytes), if flagged
/// - number of secondaries (varint), then each (varint length, bytes)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What it does at commit.
    pub kind: LockKind,
    /// The transaction's start timestamp: its identity.
    pub start_ts: TimeStamp,
    /// The key whose lock decides the transaction's outcome.
    pub primary: Bytes,
    /// Milliseconds after the start timestamp's physical part until others may roll the transaction back.
    pub ttl_ms: u64,
    /// The value, if the kind is put and it is short; a longer one is in `txn_default`.
    pub short_value: Option<Bytes>,
    /// 0 in optimistic transactions.
    pub for_update_ts: TimeStamp,
    /// Commits below this timestamp are refused; 0 if readers must not push it.
    pub min_commit_ts: TimeStamp,
    /// How many keys the transaction wrote, as its client says; a hint for resolvers.
    pub txn_size: u64,
    /// Whether the transaction commits as soon as all keys are prewritten.
    pub use_async_commit: bool,
    /// The other keys; only in the primary's lock, and only with async commit.
    pub secondaries: Vec<Bytes>,
}

/// A lock as reported to the transaction that found it: enough to resolve it. Key and primary are user keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// The key whose lock decides the transaction's outcome.
    pub primary: Bytes,
    /// The transaction's start timestamp.
    pub start_ts: TimeStamp,
    /// The locked key.
    pub key: Bytes,
    /// Milliseconds from the start timestamp's physical part until others may roll it back.
    pub ttl_ms: u64,
    /// How many keys the transaction wrote, as its client said.
    pub txn_size: u64,
    /// What it does at commit.
    pub kind: LockKind,
    /// 0 in optimistic transactions.
    pub for_update_ts: TimeStamp,
    /// Whether all keys together, not the primary alone, decide the outcome.
    pub use_async_commit: bool,
    /// Commits below are refused.
    pub min_commit_ts: TimeStamp,
    /// The other keys of an async-commit transaction, in its primary's lock.
    pub secondaries: Vec<Bytes>,
}

impl LockInfo {
    /// Bytes of keys in it.
    pub(crate) fn answer_bytes(&self) -> usize {
        self.primary.len() + self.key.len() + self.secondaries.iter().map(Bytes::len).sum::<usize>()
    }
}

const VERSION: u8 = 1;
const FLAG_ASYNC: u8 = 1;
const FLAG_SHORT_VALUE: u8 = 2;

impl Lock {
    /// The lowest timestamp at which its transaction may commit: what readers have pushed it to, and above what a
    /// pessimistic lock has seen, which was committed at its for-update timestamp or before.
    pub(crate) fn lowest_commit_ts(&self) -> TimeStamp {
        let seen = if self.for_update_ts.is_zero() { TimeStamp::ZERO } else { self.for_update_ts.next() };
        self.min_commit_ts.max(seen)
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        assert!(
            self.short_value.as_ref().is_none_or(|value| value.len() <= SHORT_VALUE_BYTES_MAX),
            "long values are in txn_default"
        );
        assert!(self.short_value.is_none() || self.kind == LockKind::Put, "only a put has a value");
        let mut out = Vec::with_capacity(48 + self.primary.len());
        out.push(VERSION);
        out.push(match self.kind {
            LockKind::Put => b'P',
            LockKind::Delete => b'D',
            LockKind::Lock => b'L',
            LockKind::Pessimistic => b'S',
        });
        let short = if self.short_value.is_some() { FLAG_SHORT_VALUE } else { 0 };
        out.push(short | if self.use_async_commit { FLAG_ASYNC } else { 0 });
        put_u64(&mut out, self.start_ts.0);
        put_varint(&mut out, self.ttl_ms);
        put_varint(&mut out, self.for_update_ts.0);
        put_varint(&mut out, self.min_commit_ts.0);
        put_varint(&mut out, self.txn_size);
        put_slice(&mut out, &self.primary);
        if let Some(value) = &self.short_value {
            put_slice(&mut out, value);
        }
        put_varint(&mut out, self.secondaries.len() as u64);
        for key in &self.secondaries {
            put_slice(&mut out, key);
        }
        debug_assert_eq!(Lock::decode(&out).as_ref(), Ok(self), "what is written can be read");
        out
    }

    /// Decodes a record.
    pub fn decode(bytes: &[u8]) -> Result<Lock, Malformed> {
        Lock::decode_parts(bytes).map_err(|Truncated| Malformed("a malformed lock record"))
    }

    fn decode_parts(mut rest: &[u8]) -> Result<Lock, Truncated> {
        let rest = &mut rest;
        if get_u8(rest)? != VERSION {
            return Err(Truncated);
        }
        let kind = match get_u8(rest)? {
            b'P' => LockKind::Put,
            b'D' => LockKind::Delete,
            b'L' => LockKind::Lock,
            b'S' => LockKind::Pessimistic,
            _ => return Err(Truncated),
        };
        let flags = get_u8(rest)?;
        let has_short_value = flags & FLAG_SHORT_VALUE != 0;
        if flags & !(FLAG_ASYNC | FLAG_SHORT_VALUE) != 0 || (has_short_value && kind != LockKind::Put) {
            return Err(Truncated);
        }
        let start_ts = TimeStamp(get_u64(rest)?);
        let ttl_ms = get_varint(rest)?;
        let for_update_ts = TimeStamp(get_varint(rest)?);
        let min_commit_ts = TimeStamp(get_varint(rest)?);
        let txn_size = get_varint(rest)?;
        let primary = Bytes::copy_from_slice(get_slice(rest)?);
        let short_value = if has_short_value { Some(Bytes::copy_from_slice(get_slice(rest)?)) } else { None };
        let mut secondaries = Vec::new();
        for _ in 0..get_varint(rest)? {
            // A wrong count runs out of bytes, so this is bounded.
            secondaries.push(Bytes::copy_from_slice(get_slice(rest)?));
        }
        if !rest.is_empty() || short_value.as_ref().is_some_and(|value| value.len() > SHORT_VALUE_BYTES_MAX) {
            return Err(Truncated);
        }
        Ok(Lock {
            kind,
            start_ts,
            primary,
            ttl_ms,
            short_value,
            for_update_ts,
            min_commit_ts,
            txn_size,
            use_async_commit: flags & FLAG_ASYNC != 0,
            secondaries,
        })
    }

    /// Whether others may roll the transaction back at `now`. Compared in physical time.
    pub fn is_expired(&self, now: TimeStamp) -> bool {
        self.start_ts.physical_ms().saturating_add(self.ttl_ms) < now.physical_ms()
    }

    /// The information that a client needs to resolve it.
    pub fn info(&self, key: &[u8]) -> LockInfo {
        LockInfo {
            primary: self.primary.clone(),
            start_ts: self.start_ts,
            key: Bytes::copy_from_slice(key),
            ttl_ms: self.ttl_ms,
            txn_size: self.txn_size,
            kind: self.kind,
            for_update_ts: self.for_update_ts,
            use_async_commit: self.use_async_commit,
            min_commit_ts: self.min_commit_ts,
            secondaries: self.secondaries.clone(),
        }
    }
}

#[cfg(test)]
#[path = "lock_test.rs"]
mod tests;
