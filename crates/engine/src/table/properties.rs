//! The properties of a table; the manifest holds a copy of most of them, and `kontiki check` compares the two.
//!
//! Properties block: family, entries, tombstones, smallest and largest sequence number, bytes of user keys, bytes of
//! values, number of data blocks, filter prefix bytes (varints, in this order), smallest and largest user key (varint
//! length and bytes).

use super::format::Malformed;
use crate::{Family, SequenceNumber};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_varint, put_slice, put_varint};

/// The properties of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Family number.
    pub family: u32,
    /// Number of versions, tombstones included.
    pub entries: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Smallest sequence number.
    pub smallest_sequence: SequenceNumber,
    /// Largest sequence number.
    pub largest_sequence: SequenceNumber,
    /// Sum of the lengths of user keys, in bytes.
    pub key_bytes: u64,
    /// Sum of the lengths of values, in bytes.
    pub value_bytes: u64,
    /// Number of data blocks.
    pub data_blocks: u64,
    /// The filter holds the first so many bytes of keys as long; 0 if it holds no prefixes.
    pub filter_prefix_bytes: u64,
    /// Smallest user key.
    pub smallest_key: Bytes,
    /// Largest user key.
    pub largest_key: Bytes,
}

impl Properties {
    /// The family.
    pub fn family(&self) -> Family {
        Family(self.family)
    }

    /// The block's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = [
            u64::from(self.family),
            self.entries,
            self.tombstones,
            self.smallest_sequence,
            self.largest_sequence,
            self.key_bytes,
            self.value_bytes,
            self.data_blocks,
            self.filter_prefix_bytes,
        ];
        for number in numbers {
            put_varint(&mut out, number);
        }
        put_slice(&mut out, &self.smallest_key);
        put_slice(&mut out, &self.largest_key);
        out
    }

    /// Takes what [`Properties::encode`] wrote.
    pub fn decode(mut input: &[u8]) -> std::result::Result<Properties, Malformed> {
        let bad = "the properties block is malformed";
        let input = &mut input;
        let mut number = || get_varint(input).map_err(|_| bad);
        let mut properties = Properties {
            family: u32::try_from(number()?).map_err(|_| bad)?,
            entries: number()?,
            tombstones: number()?,
            smallest_sequence: number()?,
            largest_sequence: number()?,
            key_bytes: number()?,
            value_bytes: number()?,
            data_blocks: number()?,
            filter_prefix_bytes: number()?,
            ..Properties::default()
        };
        let slice = |input: &mut &[u8]| Ok(Bytes::copy_from_slice(get_slice(input)?));
        properties.smallest_key = slice(input).map_err(|_: Truncated| bad)?;
        properties.largest_key = slice(input).map_err(|_: Truncated| bad)?;
        if input.is_empty() { Ok(properties) } else { Err(bad) }
    }
}
