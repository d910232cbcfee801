//! A cursor over one table.

use super::block::Block;
use super::block_cache::CachedBlock;
use super::index::PARTITION_BLOCKS;
use super::read_ahead::ReadAhead;
use super::reader::{Place, TableReader};
use super::reader_slot::HeldReader;
use crate::cache::Use;
use crate::types::{Cursor, KeyRef, Kind, SEEK_STEPS};
use crate::{Direction, Result, SequenceNumber};
use bytes::Bytes;
use std::sync::Arc;

/// After a seek so many blocks count as point reads, which the cache values; those that follow count as a scan's.
const POINT_BLOCKS: u32 = 2;
/// After so many blocks it is a walk, which has the next block fetched ahead.
const WALK_BLOCKS: u32 = 1;

/// A cursor over all versions of a table. Keeps its file open.
pub struct TableCursor {
    reader: HeldReader,
    direction: Direction,
    ahead: ReadAhead,
    /// For a compaction.
    once: bool,
    /// Blocks since the last seek.
    blocks: u32,
    place: Place,
    /// The target of the next seek.
    prepared: Option<Place>,
    partition: Option<(usize, Arc<CachedBlock>)>,
    block: Option<Arc<CachedBlock>>,
    /// The current entry of `block`.
    at: usize,
    /// During a walk: the next block. What a walk over it reads is prefetched when the cursor reaches entry
    /// `fetch_at`.
    next: Option<Place>,
    fetch_at: usize,
    /// Its user key: the block's shared prefix, and the suffix that changes with each step.
    user_key: Vec<u8>,
    shared_bytes: usize,
    sequence: SequenceNumber,
    kind: Kind,
}

impl TableCursor {
    /// A cursor without a position.
    pub fn new(reader: impl Into<HeldReader>, direction: Direction) -> TableCursor {
        TableCursor::with_purpose(reader.into(), direction, false)
    }

    /// A cursor for one walk over the whole table (compaction): reads far ahead and leaves the block cache as it is.
    pub fn for_one_pass(reader: impl Into<HeldReader>, direction: Direction) -> TableCursor {
        TableCursor::with_purpose(reader.into().into_counted(), direction, true)
    }

    fn with_purpose(reader: HeldReader, direction: Direction, once: bool) -> TableCursor {
        TableCursor {
            direction,
            ahead: ReadAhead::new(direction, reader.data_end(), once),
            once,
            blocks: 0,
            place: Place { partition: 0, entry: 0 },
            prepared: None,
            partition: None,
            block: None,
            at: 0,
            next: None,
            fetch_at: usize::MAX,
            user_key: Vec::new(),
            shared_bytes: 0,
            sequence: 0,
            kind: Kind::Delete,
            reader,
        }
    }

    fn current(&self) -> &Block {
        self.block.as_ref().expect("the caller checked valid()")
    }

    /// Moves to a data block, without an entry.
    fn load(&mut self, place: Place) -> Result<()> {
        self.block = None;
        let purpose = match self.blocks {
            _ if self.once => Use::Once,
            0..POINT_BLOCKS => Use::Point,
            _ => Use::Scan,
        };
        self.blocks = self.blocks.saturating_add(1);
        let partition = keep_partition(&mut self.partition, &self.reader, place.partition)?;
        let block = self.reader.data_block(partition, place, purpose, Some(&mut self.ahead))?.into_arc();
        self.user_key.clear();
        self.user_key.extend_from_slice(block.shared_prefix());
        self.shared_bytes = self.user_key.len();
        self.place = place;
        self.fetch_at = usize::MAX;
        if self.blocks > WALK_BLOCKS {
            self.next = self.reader.next_place(partition, place, self.direction);
            if let Some(next) = self.next.filter(|next| next.partition == place.partition) {
                self.reader.fetch_ahead(next, 1);
                self.fetch_at = block.len() / 2;
            }
        }
        self.block = Some(block);
        Ok(())
    }

    #[cold]
    fn fetch_next(&self) {
        if let Some(next) = self.next {
            self.reader.fetch_ahead(next, SEEK_STEPS - 1);
        }
    }

    /// Moves to an entry of the current block.
    fn stand_on(&mut self, at: usize) {
        let Some(block) = &self.block else { return };
        debug_assert!(at < block.len());
        self.at = at;
        self.user_key.truncate(self.shared_bytes);
        self.user_key.extend_from_slice(block.suffix(at));
        let (sequence, kind) = block.version(at);
        (self.sequence, self.kind) = (self.reader.sequences().reported(sequence), kind);
    }

    /// Moves to the first entry of the next block in the cursor's direction, if there is one.
    fn next_block(&mut self) -> Result<()> {
        self.block = None;
        let partition = keep_partition(&mut self.partition, &self.reader, self.place.partition)?;
        let Some(next) = self.reader.next_place(partition, self.place, self.direction) else { return Ok(()) };
        self.load(next)?;
        self.stand_on(match self.direction {
            Direction::Forward => 0,
            Direction::Backward => self.current().len() - 1,
        });
        Ok(())
    }

    /// As the table stores it.
    fn stored_target<'a>(&self, target: KeyRef<'a>) -> KeyRef<'a> {
        KeyRef::new(target.user_key, self.reader.sequences().stored(target.sequence))
    }

    /// The data block where a target is or would be; `None` if everything is before it.
    fn place_for(&mut self, target: KeyRef<'_>) -> Result<Option<Place>> {
        let target = self.stored_target(target);
        let Some(mut place) = self.reader.place_for(target) else { return Ok(None) };
        place.entry = keep_partition(&mut self.partition, &self.reader, place.partition)?.position(target);
        Ok(Some(place))
    }

    fn restart(&mut self) {
        self.block = None;
        self.blocks = 0;
        self.ahead.restart();
    }
}

/// A partition of the index, kept until the cursor needs another one. Its count is on a line that all threads share, so
/// it is taken once.
fn keep_partition<'a>(
    kept: &'a mut Option<(usize, Arc<CachedBlock>)>,
    reader: &TableReader,
    number: usize,
) -> Result<&'a Block> {
    let partition = match kept.take() {
        Some((at, partition)) if at == number => partition,
        _ => reader.partition(number)?.into_arc(),
    };
    Ok(&kept.insert((number, partition)).1)
}

impl Cursor for TableCursor {
    fn valid(&self) -> bool {
        self.block.is_some()
    }

    fn key(&self) -> KeyRef<'_> {
        debug_assert!(self.valid(), "the caller checked valid()");
        KeyRef::new(&self.user_key, self.sequence)
    }

    fn kind(&self) -> Kind {
        debug_assert!(self.valid(), "the caller checked valid()");
        self.kind
    }

    fn stored(&self) -> Bytes {
        self.current().stored_bytes(self.at)
    }

    fn stored_slice(&self) -> &[u8] {
        self.current().stored(self.at)
    }

    fn run_before(&self, limit: KeyRef<'_>) -> usize {
        // By user key alone: versions of the limit's own key are left to be compared.
        let block = self.current();
        match self.direction {
            Direction::Forward => block.position(KeyRef::before_all(limit.user_key)).saturating_sub(self.at + 1),
            Direction::Backward => self.at.saturating_sub(block.position(KeyRef::after_all(limit.user_key))),
        }
    }

    fn peek(&self, steps: usize) -> Option<(Kind, &[u8])> {
        let block = self.current();
        let at = match self.direction {
            Direction::Forward => self.at + steps,
            Direction::Backward => self.at.checked_sub(steps)?,
        };
        (at < block.len()).then(|| (block.version(at).1, block.stored(at)))
    }

    fn advance(&mut self) -> Result<()> {
        debug_assert!(self.valid(), "the caller checked valid()");
        match self.direction.next_index(self.at, self.current().len()) {
            Some(next) => {
                if next == self.fetch_at {
                    self.fetch_next();
                }
                self.stand_on(next);
                Ok(())
            }
            None => self.next_block(),
        }
    }

    fn prepare_seek(&mut self, target: KeyRef<'_>, step: usize) -> Result<()> {
        if step == 0 {
            self.restart();
            self.prepared = self.place_for(target)?;
        }
        if let Some(place) = self.prepared {
            self.reader.fetch_ahead(place, step);
        }
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.restart();
        let prepared = self.prepared.take();
        debug_assert!(prepared.is_none() || prepared == self.place_for(target)?, "prepared for another target");
        let place = match prepared {
            Some(place) => place,
            None => match self.place_for(target)? {
                Some(place) => place,
                None if self.direction == Direction::Forward => return Ok(()),
                // Everything is before the target.
                None => return self.seek_to_first(),
            },
        };
        let target = self.stored_target(target);
        self.load(place)?;
        let block = self.current();
        let position = block.position(target);
        let at = match self.direction {
            Direction::Forward => Some(position).filter(|at| *at < block.len()),
            // The first at or after the target, if it is the target; otherwise the one before.
            Direction::Backward if position < block.len() && block.cmp_entry(position, target).is_eq() => {
                Some(position)
            }
            Direction::Backward => position.checked_sub(1),
        };
        match at {
            Some(at) => {
                self.stand_on(at);
                Ok(())
            }
            None => self.next_block(),
        }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.restart();
        self.prepared = None;
        match self.direction {
            Direction::Forward => {
                self.load(Place { partition: 0, entry: 0 })?;
                self.stand_on(0);
            }
            Direction::Backward => {
                let partition = self.reader.last_partition();
                let entry = keep_partition(&mut self.partition, &self.reader, partition)?.len() - 1;
                debug_assert!(entry < PARTITION_BLOCKS as usize);
                self.load(Place { partition, entry })?;
                self.stand_on(self.current().len() - 1);
            }
        }
        Ok(())
    }
}
