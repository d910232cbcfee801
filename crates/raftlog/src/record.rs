//! What a directory records of its raft logs, in a family of the engine.
//!
//! | key | value |
//! |---|---|
//! | [`Place::choice_key`] | which choice the directory has: version (1 byte, 1), number (1 byte: 1 shared, 2 per group, 3 memory); absent: shared |
//! | [`Place::intent_key`] | operations on files that are to be done: version (1 byte, 1), then of each log: its id (8 bytes LE), length (varint), operations ([`crate::ops`]) |

use crate::{LogChoice, ops};
use bytes::Bytes;
use kontiki_engine::{Commit, Durability, Error, Family, Result, StreamId, StreamOp, View, WriteBatch};
use kontiki_env::codec::{Truncated, get_slice, get_u8, get_u64, put_slice, put_u64};
use kontiki_state::StateEngine;
use std::path::Path;

/// Version of both values' format.
const FORMAT: u8 = 1;

/// Where in the engine the owner of the directory lets this be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The family: one that no copy of the directory takes along.
    pub family: Family,
    /// The key of the choice.
    pub choice_key: &'static [u8],
    /// The key of operations that are to be done.
    pub intent_key: &'static [u8],
}

/// A batch that is durable when it is committed.
pub(crate) fn synced(batch: WriteBatch) -> Commit {
    Commit::new(batch, Durability::Sync)
}

impl Place {
    fn damaged(directory: &Path, what: &str) -> Error {
        Error::Corruption { file: directory.to_owned(), offset: 0, what: what.to_owned() }
    }

    /// Nothing in a directory that was never served.
    fn get(&self, state: &dyn StateEngine, key: &[u8]) -> Result<Option<Bytes>> {
        if !state.has_family(self.family) {
            return Ok(None);
        }
        state.snapshot().get(self.family, key)
    }

    /// The recorded choice, if there is one.
    pub(crate) fn choice(&self, state: &dyn StateEngine, directory: &Path) -> Result<Option<LogChoice>> {
        let Some(value) = self.get(state, self.choice_key)? else { return Ok(None) };
        match value.as_ref() {
            [FORMAT, number] if LogChoice::from_number(*number).is_some() => Ok(LogChoice::from_number(*number)),
            [FORMAT, _] | [] => Err(Self::damaged(directory, "the record of where raft logs are kept is malformed")),
            [version, ..] => Err(Error::UnsupportedFormat {
                file: directory.to_owned(),
                what: format!(
                    "the record of where raft logs are kept has format {version}; this version knows {FORMAT}: use a \
                     newer version of the program"
                ),
            }),
        }
    }

    pub(crate) fn put_choice(&self, batch: &mut WriteBatch, choice: LogChoice) {
        batch.put(self.family, self.choice_key, [FORMAT, choice.number()]);
    }

    /// Adds the operations that are to be done to a batch.
    pub(crate) fn put_intent(&self, batch: &mut WriteBatch, streams: &[StreamOp]) {
        let mut value = vec![FORMAT];
        for op in streams {
            let mut bytes = Vec::new();
            ops::encode(&mut bytes, op);
            put_u64(&mut value, op.stream().0);
            put_slice(&mut value, &bytes);
        }
        batch.put(self.family, self.intent_key, &value);
    }

    /// The operations that are to be done, in order.
    pub(crate) fn intent(&self, state: &dyn StateEngine, directory: &Path) -> Result<Vec<StreamOp>> {
        let Some(value) = self.get(state, self.intent_key)? else { return Ok(Vec::new()) };
        decode_intent(&value)
            .map_err(|Truncated| Self::damaged(directory, "the record of operations on raft logs is malformed"))
    }

    /// Records that they are done.
    pub(crate) fn end_intent(&self, state: &dyn StateEngine) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(self.family, self.intent_key);
        state.commit(batch, Durability::Sync)
    }

    /// Whether the family has no key at all: nothing was ever recorded of this directory.
    pub(crate) fn is_unused(&self, state: &dyn StateEngine) -> Result<bool> {
        let (range, direction) = (kontiki_engine::Range::all(), kontiki_engine::Direction::Forward);
        Ok(state.snapshot().entries(self.family, range, direction)?.next().transpose()?.is_none())
    }
}

fn decode_intent(value: &[u8]) -> std::result::Result<Vec<StreamOp>, Truncated> {
    let mut rest = value;
    if get_u8(&mut rest)? != FORMAT {
        return Err(Truncated);
    }
    let mut streams = Vec::new();
    while !rest.is_empty() {
        let stream = StreamId(get_u64(&mut rest)?);
        let bytes = get_slice(&mut rest)?;
        let copy = |range: std::ops::Range<usize>| Bytes::copy_from_slice(&bytes[range]);
        for item in ops::decode(bytes)? {
            streams.push(match item {
                ops::Item::Append { first_index, entries } => {
                    StreamOp::Append { stream, first_index, entries: entries.into_iter().map(copy).collect() }
                }
                ops::Item::State(state) => StreamOp::State { stream, state: copy(state) },
                ops::Item::Truncate(through_index) => StreamOp::Truncate { stream, through_index },
                ops::Item::Remove => StreamOp::Remove { stream },
            });
        }
    }
    Ok(streams)
}
