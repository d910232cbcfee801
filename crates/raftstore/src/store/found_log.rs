//! The raft logs of a directory, as recovery reads them: all in one pass, in the order in which the disk has the
//! entries of all regions.
//!
//! So the entries of one log may come in any order. Of each one the term and the size are noted (16 bytes, a fraction
//! of what the engine's index of the streams takes for it); the entries that are not applied are kept. Whether all have
//! come, and whether they fit together, is checked when the pass has ended. The memory that a start needs is therefore
//! that of what is not applied, and no log is in memory as a whole.

use super::damaged;
use crate::consensus::log::{FoundEntries, entry_bytes};
use crate::consensus::{Entry, entry_from_wire, wire};
use crate::error::RecoverError;
use crate::region::RegionId;
use bytes::Bytes;
use kontiki_engine::{StreamContents, StreamHead, StreamId, StreamVisitor};
use prost::Message;
use std::collections::BTreeMap;
use std::ops::Range;

/// The raft logs of a directory.
pub trait Logs {
    /// What is known of each log without its entries, in order.
    fn heads(&self) -> Vec<(StreamId, StreamHead)>;

    /// Passes every entry of every log to `visit`, in any order and at least once, until it breaks.
    fn scan(&self, visit: &mut StreamVisitor<'_>) -> kontiki_engine::Result<()>;

    /// The entries of one log in a range of indices.
    fn entries(&self, id: StreamId, range: Range<u64>) -> kontiki_engine::Result<Vec<Bytes>>;
}

/// Logs in memory.
impl Logs for BTreeMap<StreamId, StreamContents> {
    fn heads(&self) -> Vec<(StreamId, StreamHead)> {
        self.iter().map(|(id, contents)| (*id, head(contents))).collect()
    }

    fn scan(&self, visit: &mut StreamVisitor<'_>) -> kontiki_engine::Result<()> {
        for (id, contents) in self {
            for (index, entry) in (contents.truncated_through + 1..).zip(&contents.entries) {
                if visit(*id, index, entry).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn entries(&self, id: StreamId, range: Range<u64>) -> kontiki_engine::Result<Vec<Bytes>> {
        let Some(contents) = self.get(&id) else { return Ok(Vec::new()) };
        let entries = (contents.truncated_through + 1..).zip(&contents.entries);
        Ok(entries.filter(|(index, _)| range.contains(index)).map(|(_, entry)| entry.clone()).collect())
    }
}

fn head(contents: &StreamContents) -> StreamHead {
    StreamHead {
        truncated_through: contents.truncated_through,
        state: contents.state.clone(),
        last_index: contents.truncated_through + contents.entries.len() as u64,
    }
}

/// What is noted of an entry.
#[derive(Clone, Copy, Default)]
struct Seen {
    term: u64,
    /// As the log accounts for it; 0 until it comes.
    bytes: usize,
}

/// The log of one region.
pub(super) struct FoundLog {
    region: RegionId,
    head: StreamHead,
    /// Of each entry behind the truncation mark.
    seen: Vec<Seen>,
    /// Entries above this index are kept.
    kept_above: u64,
    kept: BTreeMap<u64, Entry>,
}

impl FoundLog {
    /// A log whose entries are to come; all of them are kept.
    pub fn new(region: RegionId, head: StreamHead) -> FoundLog {
        let count = head.last_index.saturating_sub(head.truncated_through);
        let seen = vec![Seen::default(); usize::try_from(count).unwrap_or(usize::MAX)];
        FoundLog { region, kept_above: head.truncated_through, head, seen, kept: BTreeMap::new() }
    }

    /// A log in memory.
    pub fn of(region: RegionId, contents: &StreamContents) -> Result<FoundLog, RecoverError> {
        let mut log = FoundLog::new(region, head(contents));
        for (index, entry) in (contents.truncated_through + 1..).zip(&contents.entries) {
            log.take(index, entry)?;
        }
        Ok(log)
    }

    pub fn state(&self) -> &Bytes {
        &self.head.state
    }

    pub fn truncated_through(&self) -> u64 {
        self.head.truncated_through
    }

    /// Entries at or below this index, which are applied, need not be kept.
    pub fn keep_above(&mut self, index: u64) {
        self.kept_above = index.clamp(self.head.truncated_through, self.head.last_index);
    }

    /// An entry of this log came.
    pub fn take(&mut self, index: u64, bytes: &[u8]) -> Result<(), RecoverError> {
        let at = index.checked_sub(self.head.truncated_through + 1).and_then(|at| usize::try_from(at).ok());
        // Appended or truncated since the head was taken: not what was asked for.
        let Some(seen) = at.and_then(|at| self.seen.get_mut(at)) else { return Ok(()) };
        let entry = decode(self.region, index, bytes)?;
        *seen = Seen { term: entry.term, bytes: entry_bytes(&entry) };
        if index > self.kept_above {
            self.kept.insert(index, entry);
        }
        Ok(())
    }

    /// The entries that are kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Entry> {
        self.kept.values()
    }

    /// The entries above `index` that are not kept.
    pub fn lacks(&self, index: u64) -> Option<Range<u64>> {
        let index = index.max(self.head.truncated_through);
        (index < self.kept_above).then(|| index + 1..self.kept_above + 1)
    }

    /// Keeps these as well, which [`FoundLog::lacks`] has named.
    pub fn keep(&mut self, range: Range<u64>, entries: &[Bytes]) -> Result<(), RecoverError> {
        if entries.len() as u64 != range.end - range.start || range.end != self.kept_above + 1 {
            let what = format_args!("{} of the entries {} to {} are there", entries.len(), range.start, range.end - 1);
            return Err(damaged(self.region, what));
        }
        self.kept_above = range.start - 1;
        range.zip(entries).try_for_each(|(index, entry)| self.take(index, entry))
    }

    /// Index and term of the last entry; `None` if there are none.
    pub fn last(&self) -> Option<(u64, u64)> {
        self.seen.last().map(|seen| (self.head.last_index, seen.term))
    }

    /// All of it, if nothing is missing and the terms do not fall.
    pub fn into_entries(self) -> Result<FoundEntries, RecoverError> {
        let mut term = 0;
        for (seen, index) in self.seen.iter().zip(self.head.truncated_through + 1..) {
            if seen.bytes == 0 {
                return Err(damaged(self.region, format_args!("entry {index} is missing")));
            }
            if seen.term < term {
                let what = format_args!("entry {index} says it is of term {}, after one of term {term}", seen.term);
                return Err(damaged(self.region, what));
            }
            term = seen.term;
        }
        let count = (self.kept_above - self.head.truncated_through) as usize;
        let evicted = self.seen.iter().take(count).map(|seen| (seen.term, seen.bytes)).collect();
        Ok(FoundEntries { evicted, entries: self.kept.into_values().collect() })
    }
}

fn decode(region: RegionId, index: u64, bytes: &[u8]) -> Result<Entry, RecoverError> {
    // From a slice, so copied: otherwise an entry that stays in memory would keep the whole record in which it was.
    let entry = wire::Entry::decode(bytes).map_err(|_| "it cannot be decoded").and_then(entry_from_wire);
    let entry = entry.map_err(|why| damaged(region, format_args!("entry {index}: {why}")))?;
    if entry.index != index {
        return Err(damaged(region, format_args!("entry {index} says it is {} of term {}", entry.index, entry.term)));
    }
    Ok(entry)
}

#[cfg(test)]
#[path = "found_log_test.rs"]
mod tests;
