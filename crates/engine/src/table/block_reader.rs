//! Reads data and index blocks. The layout is in [`super::block_writer`].
//!
//! A block comes with a checked checksum, yet nothing here trusts it: every length is checked, so that bytes made by
//! a bug or by hand give an error, not a panic.

use super::format::Malformed;
use crate::iterator::KeyRef;
use crate::kind::{KIND_BITS, Kind};
use crate::{Direction, SequenceNumber};
use bytes::Bytes;
use kontiki_env::codec::{Truncated, get_u32, get_varint};
use std::ops::Range;

type Checked<T> = std::result::Result<T, Malformed>;

const CUT: Malformed = "an entry of the block is cut short";

/// An uncompressed block; cheap to clone.
#[derive(Clone, Debug)]
pub struct Block {
    data: Bytes,
    restarts_at: usize,
    restart_count: usize,
}

/// One decoded entry: where its parts are.
struct Raw {
    shared: usize,
    suffix: Range<usize>,
    sequence: SequenceNumber,
    kind: Kind,
    stored: Range<usize>,
    end: usize,
}

impl Block {
    /// Checks the restart array.
    pub fn new(data: Bytes) -> Checked<Block> {
        let bad = "the block's restart points are malformed";
        let tail = data.len().checked_sub(4).ok_or(bad)?;
        let restart_count = get_u32(&mut data.get(tail..).ok_or(bad)?).map_err(|_| bad)? as usize;
        let restarts_at = restart_count.checked_mul(4).and_then(|bytes| tail.checked_sub(bytes)).ok_or(bad)?;
        let block = Block { data, restarts_at, restart_count };
        let mut previous = None;
        for index in 0..restart_count {
            let offset = block.restart(index)?;
            let ordered = previous.map_or(offset == 0, |previous| previous < offset);
            if !ordered || offset >= restarts_at {
                return Err(bad);
            }
            previous = Some(offset);
        }
        if restart_count == 0 && restarts_at > 0 { Err(bad) } else { Ok(block) }
    }

    /// Bytes of memory, for the cache.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Number of restart points: of an index block, its number of entries.
    pub fn restart_count(&self) -> usize {
        self.restart_count
    }

    fn restart(&self, index: usize) -> Checked<usize> {
        let at = self.restarts_at + index * 4;
        let mut input = self.data.get(at..).ok_or(CUT)?;
        Ok(get_u32(&mut input).map_err(|_| CUT)? as usize)
    }

    fn entry_at(&self, offset: usize) -> Checked<Raw> {
        let mut input = self.data.get(offset..self.restarts_at).ok_or(CUT)?;
        let before = input.len();
        let parsed = (|| {
            let shared = get_varint(&mut input)?;
            let suffix = get_varint(&mut input)?;
            let tag = get_varint(&mut input)?;
            let kind = Kind::from_byte((tag & ((1 << KIND_BITS) - 1)) as u8).ok_or(Truncated)?;
            let stored = if kind.is_delete() { 0 } else { get_varint(&mut input)? };
            Ok::<_, Truncated>((shared, suffix, tag >> KIND_BITS, kind, stored))
        })();
        let (shared, suffix, sequence, kind, stored) = parsed.map_err(|_| CUT)?;
        let suffix_at = offset + (before - input.len());
        let end = |start: usize, length: u64| -> Checked<usize> {
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length)).ok_or(CUT)?;
            if end <= self.restarts_at { Ok(end) } else { Err(CUT) }
        };
        let suffix_end = end(suffix_at, suffix)?;
        let end = end(suffix_end, stored)?;
        let shared = usize::try_from(shared).map_err(|_| CUT)?;
        Ok(Raw { shared, suffix: suffix_at..suffix_end, sequence, kind, stored: suffix_end..end, end })
    }

    /// The entry at a restart point: its position and the range of its value.
    fn restart_entry(&self, index: usize) -> Checked<(KeyRef<'_>, Raw)> {
        let raw = self.entry_at(self.restart(index)?)?;
        if raw.shared != 0 {
            return Err("a restart point of the block is prefix-compressed");
        }
        let user_key = self.data.get(raw.suffix.clone()).ok_or(CUT)?;
        Ok((KeyRef::new(user_key, raw.sequence), raw))
    }

    /// The position at a restart point.
    pub fn restart_key(&self, index: usize) -> Checked<KeyRef<'_>> {
        Ok(self.restart_entry(index)?.0)
    }

    /// The value at a restart point (index blocks).
    pub fn restart_value(&self, index: usize) -> Checked<Bytes> {
        let (_, raw) = self.restart_entry(index)?;
        if raw.kind == Kind::Put { Ok(self.data.slice(raw.stored)) } else { Err("an entry of the index is not a put") }
    }

    /// Number of restart points whose key satisfies `before`, which must hold for a prefix of them.
    pub fn partition(&self, mut before: impl FnMut(KeyRef<'_>) -> bool) -> Checked<usize> {
        let (mut low, mut high) = (0, self.restart_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.restart_key(middle)?) { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

/// Walks over a block's entries in one direction. After an error it stands nowhere.
pub struct BlockCursor {
    block: Block,
    direction: Direction,
    valid: bool,
    user_key: Vec<u8>,
    sequence: SequenceNumber,
    kind: Kind,
    stored: Range<usize>,
    /// Forward: offset of the next entry.
    next: usize,
    /// Backward: the entries of the current restart interval that are still to come, and where it starts.
    interval: usize,
    pending: Vec<Pending>,
    /// Backward: the keys that `pending` refers to.
    arena: Vec<u8>,
}

struct Pending {
    key: Range<usize>,
    sequence: SequenceNumber,
    kind: Kind,
    stored: Range<usize>,
}

impl BlockCursor {
    /// A cursor that stands nowhere.
    pub fn new(block: Block, direction: Direction) -> BlockCursor {
        BlockCursor {
            block,
            direction,
            valid: false,
            user_key: Vec::new(),
            sequence: 0,
            kind: Kind::Delete,
            stored: 0..0,
            next: 0,
            interval: 0,
            pending: Vec::new(),
            arena: Vec::new(),
        }
    }

    /// Walks over another block from now on; stands nowhere.
    pub fn reset(&mut self, block: Block) {
        self.block = block;
        self.valid = false;
        self.pending.clear();
    }

    /// Whether it stands on an entry.
    pub fn valid(&self) -> bool {
        self.valid
    }

    /// The current position. Must be valid.
    pub fn key(&self) -> KeyRef<'_> {
        debug_assert!(self.valid, "the caller checked valid()");
        KeyRef::new(&self.user_key, self.sequence)
    }

    /// What the current entry says. Must be valid.
    pub fn kind(&self) -> Kind {
        debug_assert!(self.valid, "the caller checked valid()");
        self.kind
    }

    /// The bytes that go with it: a slice of the block.
    pub fn stored(&self) -> Bytes {
        self.block.data.slice(self.stored.clone())
    }

    /// The same, borrowed.
    pub fn stored_slice(&self) -> &[u8] {
        self.block.data.get(self.stored.clone()).unwrap_or_default()
    }

    /// Goes to the first entry in the cursor's direction.
    pub fn seek_to_first(&mut self) -> Checked<()> {
        self.valid = false;
        match self.direction {
            Direction::Forward => {
                self.start_at(0);
                self.step_forward()
            }
            Direction::Backward => match self.block.restart_count.checked_sub(1) {
                Some(last) => {
                    self.load_interval(last, None)?;
                    self.step_backward()
                }
                None => Ok(()),
            },
        }
    }

    /// Goes to the first entry at or beyond `target` in the cursor's direction.
    pub fn seek(&mut self, target: KeyRef<'_>) -> Checked<()> {
        self.valid = false;
        match self.direction {
            Direction::Forward => {
                let restart = self.block.partition(|key| key < target)?.saturating_sub(1);
                let offset = if self.block.restart_count == 0 { 0 } else { self.block.restart(restart)? };
                self.start_at(offset);
                self.step_forward()?;
                while self.valid && self.key() < target {
                    self.step_forward()?;
                }
                Ok(())
            }
            Direction::Backward => match self.block.partition(|key| key <= target)?.checked_sub(1) {
                Some(restart) => {
                    self.load_interval(restart, Some(target))?;
                    self.step_backward()
                }
                None => Ok(()),
            },
        }
    }

    /// Goes to the next entry in the cursor's direction.
    pub fn advance(&mut self) -> Checked<()> {
        match self.direction {
            Direction::Forward => self.step_forward(),
            Direction::Backward => self.step_backward(),
        }
    }

    fn start_at(&mut self, offset: usize) {
        self.next = offset;
        self.user_key.clear();
    }

    fn step_forward(&mut self) -> Checked<()> {
        self.valid = false;
        if self.next >= self.block.restarts_at {
            return Ok(());
        }
        let raw = self.block.entry_at(self.next)?;
        if raw.shared > self.user_key.len() {
            return Err("an entry of the block shares more than there is");
        }
        self.user_key.truncate(raw.shared);
        self.user_key.extend_from_slice(self.block.data.get(raw.suffix).ok_or(CUT)?);
        self.sequence = raw.sequence;
        self.kind = raw.kind;
        self.stored = raw.stored;
        self.next = raw.end;
        self.valid = true;
        Ok(())
    }

    /// Decodes the interval that starts at restart point `index`, up to `limit`.
    fn load_interval(&mut self, index: usize, limit: Option<KeyRef<'_>>) -> Checked<()> {
        self.pending.clear();
        self.arena.clear();
        self.interval = index;
        let end =
            if index + 1 < self.block.restart_count { self.block.restart(index + 1)? } else { self.block.restarts_at };
        let mut offset = self.block.restart(index)?;
        let mut previous = 0..0;
        while offset < end {
            let raw = self.block.entry_at(offset)?;
            if raw.shared > previous.len() {
                return Err("an entry of the block shares more than there is");
            }
            let start = self.arena.len();
            self.arena.extend_from_within(previous.start..previous.start + raw.shared);
            self.arena.extend_from_slice(self.block.data.get(raw.suffix).ok_or(CUT)?);
            let key = start..self.arena.len();
            let position = KeyRef::new(self.arena.get(key.clone()).ok_or(CUT)?, raw.sequence);
            if limit.is_some_and(|limit| position > limit) {
                break;
            }
            self.pending.push(Pending { key: key.clone(), sequence: raw.sequence, kind: raw.kind, stored: raw.stored });
            previous = key;
            offset = raw.end;
        }
        Ok(())
    }

    fn step_backward(&mut self) -> Checked<()> {
        self.valid = false;
        if self.pending.is_empty() {
            let Some(previous) = self.interval.checked_sub(1) else { return Ok(()) };
            self.load_interval(previous, None)?;
        }
        let Some(entry) = self.pending.pop() else { return Err("a restart interval of the block is empty") };
        self.user_key.clear();
        self.user_key.extend_from_slice(self.arena.get(entry.key).ok_or(CUT)?);
        self.sequence = entry.sequence;
        self.kind = entry.kind;
        self.stored = entry.stored;
        self.valid = true;
        Ok(())
    }
}
