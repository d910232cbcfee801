//! Stream operations of one region: the rules for them, and their bytes.
//!
//! | tag (1 byte) | content |
//! |---|---|
//! | 1, entries | first index (varint), number (varint), each entry: length (varint), bytes |
//! | 2, state | length (varint), bytes |
//! | 3, truncation mark | index (varint) |
//! | 4, removal | nothing; not in files |

use kontiki_engine::{Error, Result, STREAM_STATE_BYTES_MAX, StreamId, StreamOp};
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_varint, put_slice, put_varint};
use std::collections::BTreeMap;
use std::ops::Range;

const TAG_APPEND: u8 = 1;
const TAG_STATE: u8 = 2;
const TAG_TRUNCATE: u8 = 3;
const TAG_REMOVE: u8 = 4;

/// A decoded operation. Ranges are of the bytes that were decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Entries.
    Append {
        /// Index of the first one.
        first_index: u64,
        /// Where each is.
        entries: Vec<Range<usize>>,
    },
    /// The state.
    State(Range<usize>),
    /// The truncation mark.
    Truncate(u64),
    /// The log ends.
    Remove,
}

/// Appends the bytes of an operation.
pub fn encode(out: &mut Vec<u8>, op: &StreamOp) {
    match op {
        StreamOp::Append { first_index, entries, .. } => {
            put_append(out, *first_index, entries.len(), entries.iter().map(AsRef::as_ref));
        }
        StreamOp::State { state, .. } => put_state(out, state),
        StreamOp::Truncate { through_index, .. } => put_truncate(out, *through_index),
        StreamOp::Remove { .. } => out.push(TAG_REMOVE),
    }
}

pub fn put_append<'a>(out: &mut Vec<u8>, first_index: u64, count: usize, entries: impl Iterator<Item = &'a [u8]>) {
    out.push(TAG_APPEND);
    put_varint(out, first_index);
    put_varint(out, count as u64);
    entries.for_each(|entry| put_slice(out, entry));
}

pub fn put_state(out: &mut Vec<u8>, state: &[u8]) {
    out.push(TAG_STATE);
    put_slice(out, state);
}

pub fn put_truncate(out: &mut Vec<u8>, through_index: u64) {
    out.push(TAG_TRUNCATE);
    put_varint(out, through_index);
}

/// Decodes all operations of some bytes.
pub fn decode(bytes: &[u8]) -> std::result::Result<Vec<Item>, Truncated> {
    let mut rest = bytes;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let item = match get_u8(&mut rest)? {
            TAG_APPEND => {
                let (first_index, count) = (get_varint(&mut rest)?, get_varint(&mut rest)?);
                // An entry takes at least a byte, so a wrong count ends with the bytes.
                let entries = (0..count).map(|_| slice(bytes, &mut rest)).collect::<std::result::Result<_, _>>()?;
                // The one behind the last must be an index, too.
                first_index.checked_add(count).filter(|end| *end < u64::MAX).ok_or(Truncated)?;
                Item::Append { first_index, entries }
            }
            TAG_STATE => Item::State(slice(bytes, &mut rest)?),
            TAG_TRUNCATE => match get_varint(&mut rest)? {
                u64::MAX => return Err(Truncated), // No log has it: it leaves no index for an entry.
                through_index => Item::Truncate(through_index),
            },
            TAG_REMOVE => Item::Remove,
            _ => return Err(Truncated),
        };
        items.push(item);
    }
    Ok(items)
}

fn slice(all: &[u8], rest: &mut &[u8]) -> std::result::Result<Range<usize>, Truncated> {
    let found = get_slice(rest)?;
    let end = all.len() - rest.len();
    Ok(end - found.len()..end)
}

/// What the next append to a log must match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The truncation mark.
    pub truncated_through: u64,
    /// The last index; the mark if there are no entries.
    pub last_index: u64,
}

impl Bounds {
    /// The bounds after an operation; an error if it does not match. The rules are those of the engine's streams.
    fn after(self, op: &StreamOp) -> Result<Bounds> {
        let id = op.stream().0;
        match op {
            StreamOp::Append { first_index, entries, .. } => {
                let (low, high) = (self.truncated_through.saturating_add(1), self.last_index.saturating_add(1));
                let last_index = first_index.checked_add(entries.len() as u64).and_then(|end| end.checked_sub(1));
                match last_index.filter(|_| (low..=high).contains(first_index)) {
                    Some(last_index) => Ok(Bounds { last_index, ..self }),
                    None => Err(Error::InvalidArgument(format!(
                        "append of {} entries at index {first_index} of log {id}: the first index must be in {low}..={high}",
                        entries.len(),
                    ))),
                }
            }
            StreamOp::State { state, .. } if state.len() > STREAM_STATE_BYTES_MAX => {
                let bytes = state.len();
                Err(Error::InvalidArgument(format!(
                    "the state of log {id} has {bytes} bytes; at most {STREAM_STATE_BYTES_MAX} are accepted"
                )))
            }
            StreamOp::State { .. } => Ok(self),
            StreamOp::Truncate { through_index: u64::MAX, .. } => {
                Err(Error::InvalidArgument(format!("truncation of log {id} leaves no index for an entry")))
            }
            StreamOp::Truncate { through_index, .. } => {
                let truncated_through = self.truncated_through.max(*through_index);
                Ok(Bounds { truncated_through, last_index: self.last_index.max(truncated_through) })
            }
            StreamOp::Remove { .. } => Ok(Bounds::default()),
        }
    }
}

/// Refuses operations that do not match the logs, whose bounds `bounds_of` returns.
pub fn check(ops: &[StreamOp], bounds_of: impl Fn(StreamId) -> Bounds) -> Result<()> {
    let mut seen: BTreeMap<StreamId, Bounds> = BTreeMap::new();
    for op in ops {
        let bounds = seen.entry(op.stream()).or_insert_with(|| bounds_of(op.stream()));
        *bounds = bounds.after(op)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "ops_test.rs"]
mod tests;
