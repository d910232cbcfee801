//! Keys on the wire.
//!
//! Transactional requests carry user keys to stores, but region boundaries are *memcomparable* keys: the key in groups
//! of 8 bytes, zero-padded, each followed by 0xFF - (number of padding bytes); a length that is a multiple of 8 gets
//! one more group. Raw requests use plain keys everywhere.

use crate::{Error, Result};
use bytes::Bytes;
use kontiki_env::KeyText;
use kontiki_proto::kvrpcpb::{KvPair, Mutation};

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPair {
    /// The key.
    pub key: Bytes,
    /// The value; empty if only keys were requested.
    pub value: Bytes,
}

/// How keys are looked up in the region table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Raw,
    Txn,
}

impl Mode {
    /// The position of a user key in the region table. Empty stays empty: an open bound.
    pub(crate) fn position(self, key: &[u8]) -> Bytes {
        match self {
            Mode::Raw => Bytes::copy_from_slice(key),
            Mode::Txn => Bytes::from(encode(key)),
        }
    }

    /// The user key at a region's boundary; empty stays empty.
    pub(crate) fn user_key(self, boundary: &Bytes) -> Option<Bytes> {
        match self {
            Mode::Raw => Some(boundary.clone()),
            Mode::Txn if boundary.is_empty() => Some(Bytes::new()),
            Mode::Txn => decode(boundary).map(Bytes::from),
        }
    }
}

const GROUP: usize = 8;

/// The boundary for a raw key: behind the keys that begin with its first eight bytes.
pub(crate) fn boundary_behind(key: &[u8]) -> Vec<u8> {
    encode(&key[..key.len().min(GROUP)])
}

pub(crate) fn encode(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((key.len() / GROUP + 1) * (GROUP + 1));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(0xff);
    }
    let rest = groups.remainder();
    out.extend_from_slice(rest);
    out.resize(out.len() + GROUP - rest.len(), 0);
    out.push(0xff - (GROUP - rest.len()) as u8);
    out
}

pub(crate) fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(encoded.len());
    let mut groups = encoded.chunks_exact(GROUP + 1);
    let tail_is_whole = groups.remainder().is_empty();
    while let Some((marker, bytes)) = groups.next().and_then(|group| group.split_last()) {
        let padding = usize::from(0xff - marker);
        let (data, zeros) = bytes.split_at_checked(GROUP.checked_sub(padding)?)?;
        key.extend_from_slice(data);
        if padding > 0 {
            let last = groups.next().is_none() && tail_is_whole;
            return (last && zeros.iter().all(|byte| *byte == 0)).then_some(key);
        }
    }
    None
}

/// An item of a request, sent to the region of its key.
pub(crate) trait Item: Clone + Send {
    fn key(&self) -> &Bytes;
    /// Its share of a request, in bytes.
    fn bytes(&self) -> usize;
}

impl Item for Bytes {
    fn key(&self) -> &Bytes {
        self
    }

    fn bytes(&self) -> usize {
        self.len()
    }
}

impl Item for KvPair {
    fn key(&self) -> &Bytes {
        &self.key
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

impl Item for Mutation {
    fn key(&self) -> &Bytes {
        &self.key
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// The user key at a region's boundary.
pub(crate) fn boundary(mode: Mode, position: &Bytes) -> Result<Bytes> {
    let malformed = || Error::Server(format!("a region ends at {}, which is not an encoded key", KeyText(position)));
    mode.user_key(position).ok_or_else(malformed)
}

/// The smallest key above `key`.
pub(crate) fn after(key: &[u8]) -> Bytes {
    Bytes::from([key, &[0]].concat())
}

#[cfg(test)]
#[path = "keys_test.rs"]
mod tests;
