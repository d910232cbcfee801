//! One region's log: where each entry is in its file, and the state.

use super::format::{FileId, HEADER_BYTES};
use crate::ops::{Bounds, Item};
use bytes::Bytes;
use kontiki_env::fs::File;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Where an entry is: in which record, and where in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub record: u64,
    pub body_bytes: u32,
    pub start: u32,
    pub bytes: u32,
}

/// A region's log. Entries follow the truncation mark without a gap.
pub struct Group {
    pub id: FileId,
    /// Open for writing; others are opened when they are needed.
    pub handle: Option<Arc<dyn File>>,
    /// When it was used last, while it is open.
    pub used: u64,
    /// Where the next record goes.
    pub end: u64,
    pub allocated: u64,
    /// Through here the file is durable.
    pub durable: u64,
    /// Whether a record says so.
    pub is_claimed: bool,
    pub truncated_through: u64,
    pub state: Bytes,
    pub entries: VecDeque<Position>,
    entry_bytes: u64,
}

impl Group {
    pub fn new(id: FileId) -> Group {
        Group {
            id,
            handle: None,
            used: 0,
            end: HEADER_BYTES,
            allocated: HEADER_BYTES,
            durable: HEADER_BYTES,
            is_claimed: true,
            truncated_through: 0,
            state: Bytes::new(),
            entries: VecDeque::new(),
            entry_bytes: 0,
        }
    }

    pub fn bounds(&self) -> Bounds {
        let last_index = self.truncated_through + self.entries.len() as u64;
        Bounds { truncated_through: self.truncated_through, last_index }
    }

    /// The bytes of entries and state.
    pub fn live_bytes(&self) -> u64 {
        self.entry_bytes + self.state.len() as u64
    }

    /// The entries that exist in a range, from its first one on; none if that one does not exist.
    pub fn positions(&self, range: Range<u64>) -> Vec<Position> {
        let Some(skipped) = range.start.checked_sub(self.truncated_through + 1) else { return Vec::new() };
        let count = range.end.saturating_sub(range.start);
        let entries = self.entries.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        entries.take(usize::try_from(count).unwrap_or(usize::MAX)).copied().collect()
    }

    /// Applies the operations of the record at `record` with this body, in the order of the file; an error if entries
    /// would be missing. Written and recovered records come through here, so both lead to the same.
    ///
    /// An operation that is done again, after a crash, may begin below the truncation mark.
    pub fn apply(&mut self, record: u64, body: &[u8], items: Vec<Item>) -> Result<(), String> {
        for item in items {
            match item {
                Item::Append { first_index, entries } => self.append(first_index, record, body.len(), entries)?,
                Item::State(state) => self.state = Bytes::copy_from_slice(body.get(state).unwrap_or_default()),
                Item::Truncate(through_index) => self.truncate(through_index),
                Item::Remove => return Err("a removal in a file".into()),
            }
        }
        Ok(())
    }

    fn append(&mut self, first: u64, record: u64, body: usize, entries: Vec<Range<usize>>) -> Result<(), String> {
        let Bounds { truncated_through, last_index } = self.bounds();
        if first > last_index + 1 {
            return Err(format!("entries {} to {} are missing", last_index + 1, first - 1));
        }
        let kept = first.saturating_sub(truncated_through + 1) as usize;
        let cut = self.entries.drain(kept.min(self.entries.len())..);
        self.entry_bytes -= cut.map(|position| u64::from(position.bytes)).sum::<u64>();
        // Offsets in a body fit, as its length does.
        let fits = |number: usize| u32::try_from(number).map_err(|_| "a body of 4 GiB".to_owned());
        for (index, entry) in (first..).zip(entries) {
            if index > truncated_through {
                let (start, bytes) = (fits(entry.start)?, fits(entry.len())?);
                self.entries.push_back(Position { record, body_bytes: fits(body)?, start, bytes });
                self.entry_bytes += u64::from(bytes);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, through_index: u64) {
        let gone = through_index.saturating_sub(self.truncated_through).min(self.entries.len() as u64);
        let dropped = self.entries.drain(..gone as usize);
        self.entry_bytes -= dropped.map(|position| u64::from(position.bytes)).sum::<u64>();
        self.truncated_through = self.truncated_through.max(through_index);
    }
}
