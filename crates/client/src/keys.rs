//! Keys on the wire.
//!
//! Transactional requests carry user keys to stores, but region boundaries are *memcomparable* keys
//! ([`kontiki_env::memcomparable`]). Raw requests use plain keys everywhere.

use crate::{Error, Result};
use bytes::Bytes;
use kontiki_env::{KeyText, memcomparable};
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
            Mode::Txn => Bytes::from(memcomparable::encode(key)),
        }
    }

    /// The user key at a region's boundary; empty stays empty.
    pub(crate) fn user_key(self, boundary: &Bytes) -> Option<Bytes> {
        match self {
            Mode::Raw => Some(boundary.clone()),
            Mode::Txn if boundary.is_empty() => Some(Bytes::new()),
            Mode::Txn => memcomparable::decode(boundary).ok().map(Bytes::from),
        }
    }
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
