//! The payload of the record that an ingest leaves in the log: count (varint), then for each table: family (varint),
//! file number (varint), first and last user key (each varint length, bytes).
//!
//! The tables themselves are not in the log; a manifest edit adds them once the record is durable. The
//! record holds the ingest's place in the order of commits: so no restart assigns its sequence number again, and a
//! subscriber of the change feed learns that these key ranges have changed outside of the log. If the edit then failed,
//! they have not.

use crate::Family;
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_slice, get_varint, put_slice, put_varint};

/// A table that an ingest has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IngestedTable {
    pub(crate) family: Family,
    /// Its file.
    pub(crate) number: u64,
    pub(crate) smallest_key: Bytes,
    pub(crate) largest_key: Bytes,
}

/// The record's payload.
pub(crate) fn encode_ingested(tables: &[IngestedTable]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, tables.len() as u64);
    for table in tables {
        put_varint(&mut out, u64::from(table.family.0));
        put_varint(&mut out, table.number);
        put_slice(&mut out, &table.smallest_key);
        put_slice(&mut out, &table.largest_key);
    }
    out
}

/// Takes what [`encode_ingested`] made; it must be all there is, and of a record with a sequence number.
pub(crate) fn decode_ingested(sequence: u64, payload: &[u8]) -> Result<Vec<IngestedTable>, Truncated> {
    let mut input = payload;
    let count = get_varint(&mut input)?;
    let mut tables = Vec::new();
    for _ in 0..count {
        let family = Family(u32::try_from(get_varint(&mut input)?).map_err(|_| Truncated)?);
        let number = get_varint(&mut input)?;
        let [smallest_key, largest_key] = [get_slice(&mut input)?, get_slice(&mut input)?].map(Bytes::copy_from_slice);
        if smallest_key > largest_key {
            return Err(Truncated);
        }
        tables.push(IngestedTable { family, number, smallest_key, largest_key });
    }
    if input.is_empty() && !tables.is_empty() && sequence > 0 { Ok(tables) } else { Err(Truncated) }
}

#[cfg(test)]
#[path = "ingested_test.rs"]
mod tests;
