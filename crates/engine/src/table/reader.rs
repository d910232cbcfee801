//! Reads one table.

use super::block::Block;
use super::block_cache::{BlockCache, BlockSlots, HeldBlock};
use super::filter::{Filter, filter_hash};
use super::format::{
    BlockHandle, FOOTER_BYTES, Footer, HEADER_BYTES, Malformed, TRAILER_BYTES, check_header, decode_block,
    decode_footer,
};
use super::index::{PARTITION_BLOCKS, Separator, check_bounds, check_handles, handle_of};
use super::properties::Properties;
use super::read_ahead::ReadAhead;
use super::sequences::{INGESTED_SEQUENCE, Sequences};
use super::{FileNumber, TableMeta, table_path};
use crate::cache::Use;
use crate::prefetch::prefetch;
use crate::types::{Found, KeyRef};
use crate::{Direction, Error, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::Env;
use kontiki_env::fs::{Access, File, OpenMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open table: its filter and the top of its index are in memory, the index's partitions and data blocks come
/// through the block cache. Shared by threads.
pub struct TableReader {
    path: PathBuf,
    file: Arc<dyn File>,
    filter: Filter,
    top: Block,
    /// Slots of the data blocks, then of the index's partitions.
    residents: Arc<BlockSlots>,
    properties: Properties,
    footer: Footer,
    sequences: Sequences,
}

impl TableReader {
    /// Opens the table that `meta` describes, checking header, footer, filter, properties and index.
    pub fn open(env: &Env, tables_dir: &Path, meta: &TableMeta, cache: Arc<BlockCache>) -> Result<TableReader> {
        TableReader::open_path(env, table_path(tables_dir, meta.number), meta, cache)
    }

    /// The same of a table at any path.
    pub(crate) fn open_path(env: &Env, path: PathBuf, meta: &TableMeta, cache: Arc<BlockCache>) -> Result<TableReader> {
        let opened = env.fs.open(&path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
        let (bytes, file) = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => corruption(&path, 0, "the manifest names this table, but it is missing"),
            _ => Error::io(&path, &error),
        })?;
        if bytes != meta.file_bytes {
            let what = format!("the table has {bytes} bytes, but the manifest says {}", meta.file_bytes);
            return Err(corruption(&path, bytes.min(meta.file_bytes), what));
        }
        // Cursors read ahead themselves. A hint that is ignored costs speed, never a wrong answer.
        if let Err(error) = file.advise(Access::Random) {
            tracing::debug!(file = %path.display(), %error, "the system ignores the hint on how the table is read");
        }
        let mut reader = TableReader::open_file(path, meta.number, file, bytes, cache)?;
        let found = &reader.properties;
        let largest_sequence = match meta.global_sequence {
            Some(global) => {
                reader.sequences = Sequences::All(global);
                // All versions are stored at this number.
                if found.smallest_sequence == INGESTED_SEQUENCE && found.largest_sequence == INGESTED_SEQUENCE {
                    meta.largest_sequence
                } else {
                    0
                }
            }
            None => found.largest_sequence,
        };
        if found.entries != meta.entries
            || largest_sequence != meta.largest_sequence
            || found.smallest_key != meta.smallest_key
            || found.largest_key != meta.largest_key
        {
            let what = "the table's properties are not those that the manifest records";
            return Err(corruption(&reader.path, reader.footer.properties.offset, what));
        }
        Ok(reader)
    }

    /// Opens a table by its file alone.
    pub fn open_file(
        path: PathBuf,
        number: FileNumber,
        file: Arc<dyn File>,
        file_bytes: u64,
        cache: Arc<BlockCache>,
    ) -> Result<TableReader> {
        let header = read_exactly(&*file, &path, 0, HEADER_BYTES)?;
        check_header(&header, &path)?;
        let Some(footer_at) = file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Err(corruption(&path, 0, "the file is too short for a table"));
        };
        let footer = decode_footer(&read_exactly(&*file, &path, footer_at, FOOTER_BYTES)?, &path, footer_at)?;
        let load = |handle: BlockHandle| read_block(&*file, &path, handle);
        let bad = |handle: BlockHandle| move |what: Malformed| (handle.offset, what);
        let locate = |(offset, what): (u64, Malformed)| corruption(&path, offset, what);
        let filter = Filter::new(load(footer.filter)?).map_err(bad(footer.filter)).map_err(locate)?;
        let properties =
            Properties::decode(&load(footer.properties)?).map_err(bad(footer.properties)).map_err(locate)?;
        let top = Block::new(load(footer.index)?).map_err(bad(footer.index)).map_err(locate)?;
        let slots = check_counts(&top, &properties).map_err(bad(footer.index)).map_err(locate)?;
        let residents = BlockSlots::new(number, slots, cache);
        Ok(TableReader { path, file, filter, top, residents, properties, footer, sequences: Sequences::AsStored })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table's properties.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes of memory that the open table holds, whatever is in the block cache.
    pub fn memory_bytes(&self) -> usize {
        self.filter.bytes() + self.top.memory_bytes() + self.residents.memory_bytes() + size_of::<TableReader>()
    }

    /// Whether the filter lets the key pass; false means that the key is surely absent.
    pub fn may_contain(&self, user_key: &[u8]) -> bool {
        self.filter.may_contain(filter_hash(user_key))
    }

    /// The same as [`TableReader::may_contain`], given the key's [`filter_hash`].
    pub fn may_contain_hash(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// Whether there may be keys that begin with `prefix`; false means that there surely are none. Only of use if the
    /// prefix is at least as long as those that the table's filter holds.
    pub fn may_contain_prefix(&self, prefix: &[u8]) -> bool {
        let length = usize::try_from(self.properties.filter_prefix_bytes).unwrap_or(usize::MAX);
        match prefix.get(..length) {
            Some(known) if !known.is_empty() => self.filter.may_contain(filter_hash(known)),
            _ => true,
        }
    }

    /// The newest version of a key at or below `sequence`.
    pub fn get(&self, user_key: &[u8], sequence: SequenceNumber) -> Result<Option<Found>> {
        self.get_hashed(user_key, filter_hash(user_key), sequence)
    }

    /// The same, given the key's [`filter_hash`].
    pub fn get_hashed(&self, user_key: &[u8], hash: u64, sequence: SequenceNumber) -> Result<Option<Found>> {
        debug_assert_eq!(hash, filter_hash(user_key));
        self.get_hashed_for(user_key, hash, sequence, Use::Point)
    }

    /// The same, for a purpose: a frequently read key, for example.
    pub fn get_hashed_for(
        &self,
        user_key: &[u8],
        hash: u64,
        sequence: SequenceNumber,
        purpose: Use,
    ) -> Result<Option<Found>> {
        if !self.filter.may_contain(hash) {
            return Ok(None);
        }
        self.find(user_key, self.sequences.stored(sequence), purpose)
    }

    /// The newest version at or below `sequence`, a stored number.
    pub(super) fn find(&self, user_key: &[u8], sequence: SequenceNumber, purpose: Use) -> Result<Option<Found>> {
        let target = KeyRef::new(user_key, sequence);
        let Some(mut place) = self.place_for(target) else { return Ok(None) };
        let mut partition = self.partition(place.partition)?;
        place.entry = partition.position(target);
        loop {
            if place.entry < partition.len() {
                let block = self.data_block(&partition, place, purpose, None)?;
                let at = block.position(target);
                if at < block.len() {
                    return Ok(block.has_user_key(at, user_key).then(|| self.found(&block, at)));
                }
            }
            // The separator may lie behind the last version of its block: then the next block begins with the answer.
            let Some(next) = self.next_place(&partition, place, Direction::Forward) else { return Ok(None) };
            if next.partition != place.partition {
                partition = self.partition(next.partition)?;
            }
            place = next;
        }
    }

    /// Where the data blocks and the index's partitions end.
    pub(super) fn data_end(&self) -> u64 {
        self.footer.filter.offset
    }

    pub(super) fn found(&self, block: &Block, at: usize) -> Found {
        let (sequence, kind) = block.version(at);
        Found { sequence: self.sequences.reported(sequence), kind, stored: block.stored_bytes(at) }
    }

    /// How sequence numbers are reported.
    pub(super) fn sequences(&self) -> Sequences {
        self.sequences
    }

    /// Number of data blocks.
    pub fn block_count(&self) -> u64 {
        self.properties.data_blocks
    }

    /// The partition that a target is in, if any position of the table is at or after it. The entry is to be searched.
    pub(super) fn place_for(&self, target: KeyRef<'_>) -> Option<Place> {
        let partition = self.top.position(target);
        (partition < self.top.len()).then_some(Place { partition, entry: 0 })
    }

    /// The number of the last partition.
    pub(super) fn last_partition(&self) -> usize {
        self.top.len() - 1
    }

    /// The data block that follows in a direction. Backward, the entry in a partition before is not known without it:
    /// all partitions but the last are full.
    pub(super) fn next_place(&self, partition: &Block, place: Place, direction: Direction) -> Option<Place> {
        let Place { partition: number, entry } = place;
        match direction.next_index(entry, partition.len()) {
            Some(entry) => Some(Place { partition: number, entry }),
            None => {
                let number = direction.next_index(number, self.top.len())?;
                let full = PARTITION_BLOCKS as usize - 1;
                Some(Place { partition: number, entry: if direction == Direction::Forward { 0 } else { full } })
            }
        }
    }

    /// A partition of the index, from its slot or checked from the file.
    pub(super) fn partition(&self, number: usize) -> Result<HeldBlock> {
        let slot = self.data_blocks() + number as u32;
        if let Some(held) = self.residents.get(slot, Use::Point) {
            return Ok(held);
        }
        let load = |handle: BlockHandle| {
            let block = Block::new(read_block(&*self.file, &self.path, handle)?).map_err(at(handle, &self.path))?;
            self.check_partition(number, &block).map_err(at(handle, &self.path))?;
            Ok(block)
        };
        let handle = handle_of(&self.top, number).map_err(at(self.footer.index, &self.path))?;
        Ok(self.residents.insert(slot, load(handle)?, Use::Point))
    }

    fn check_partition(&self, number: usize, block: &Block) -> std::result::Result<(), Malformed> {
        let rest = self.data_blocks() - number as u32 * PARTITION_BLOCKS;
        if block.len() != rest.min(PARTITION_BLOCKS) as usize {
            return Err("a partition of the index has too few or too many entries");
        }
        let until = Separator::of(&self.top, number);
        let before = number.checked_sub(1).map(|before| Separator::of(&self.top, before));
        check_bounds(block, before.as_ref(), &until)?;
        if Separator::of(block, block.len() - 1) != until {
            return Err("a partition of the index does not end where the top says");
        }
        let start = (number == 0).then_some(HEADER_BYTES as u64);
        check_handles(block, start, self.footer.filter.offset)
    }

    fn data_blocks(&self) -> u32 {
        // Checked to fit when the table was opened.
        self.properties.data_blocks as u32
    }

    /// A data block, from its slot or checked from the file.
    pub(super) fn data_block(
        &self,
        partition: &Block,
        place: Place,
        purpose: Use,
        ahead: Option<&mut ReadAhead>,
    ) -> Result<HeldBlock> {
        match self.resident_block(place, purpose) {
            Some(held) => Ok(held),
            None => self.load_block(partition, place, purpose, ahead),
        }
    }

    /// A data block, if it is in memory.
    pub(super) fn resident_block(&self, place: Place, purpose: Use) -> Option<HeldBlock> {
        self.residents.get(place.slot(), purpose)
    }

    /// Prefetches what a search of a data block reads, if the block is in memory: step by step, as in
    /// [`Cursor::prepare_seek`](crate::types::Cursor::prepare_seek).
    pub(super) fn fetch_ahead(&self, place: Place, step: usize) {
        if step == 0 {
            return prefetch(self.residents.address(place.slot()), size_of::<usize>());
        }
        let Some(block) = self.residents.peek(place.slot()) else { return };
        match step {
            1 => prefetch(std::ptr::from_ref(&*block).cast(), size_of::<Block>()),
            _ => block.fetch_ahead(),
        }
    }

    /// A data block that is not in memory.
    pub(super) fn load_block(
        &self,
        partition: &Block,
        place: Place,
        purpose: Use,
        ahead: Option<&mut ReadAhead>,
    ) -> Result<HeldBlock> {
        let handle = handle_of(partition, place.entry).map_err(at(self.footer.index, &self.path))?;
        let stored = match ahead {
            Some(ahead) => ahead.read(&*self.file, &self.path, handle)?,
            None => read_stored(&*self.file, &self.path, handle)?,
        };
        let load = || {
            let block = Block::new(decode_block(stored, handle.offset)?.into())?;
            let before = match (place.entry.checked_sub(1), place.partition.checked_sub(1)) {
                (Some(entry), _) => Some(Separator::of(partition, entry)),
                (None, Some(number)) => Some(Separator::of(&self.top, number)),
                (None, None) => None,
            };
            check_bounds(&block, before.as_ref(), &Separator::of(partition, place.entry))?;
            Ok(block)
        };
        let block = load().map_err(at(handle, &self.path))?;
        Ok(self.residents.insert(place.slot(), block, purpose))
    }
}

/// The number of slots that a table needs; its data blocks must be as many as its index can hold.
fn check_counts(top: &Block, properties: &Properties) -> std::result::Result<u32, Malformed> {
    let partitions = properties.data_blocks.div_ceil(PARTITION_BLOCKS.into());
    let slots = u32::try_from(properties.data_blocks.saturating_add(partitions));
    match slots {
        Ok(slots) if partitions == top.len() as u64 => Ok(slots),
        _ => Err("the index does not fit the table's number of data blocks"),
    }
}

/// Which data block: by its partition of the index and the entry there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: usize,
    pub(super) entry: usize,
}

impl Place {
    /// The slot of the block.
    fn slot(self) -> u32 {
        // Checked to fit when the table was opened.
        self.partition as u32 * PARTITION_BLOCKS + self.entry as u32
    }
}

fn at(handle: BlockHandle, path: &Path) -> impl FnOnce(Malformed) -> Error {
    move |what| corruption(path, handle.offset, what)
}

pub(super) fn corruption(file: &Path, offset: u64, what: impl Into<String>) -> Error {
    Error::Corruption { file: file.to_path_buf(), offset, what: what.into() }
}

fn read_block(file: &dyn File, path: &Path, handle: BlockHandle) -> Result<Bytes> {
    decode_block(read_stored(file, path, handle)?, handle.offset).map(Bytes::from).map_err(at(handle, path))
}

/// A block as it is stored, with its trailer, by one read.
fn read_stored(file: &dyn File, path: &Path, handle: BlockHandle) -> Result<Vec<u8>> {
    let length = usize::try_from(handle.length).map_err(|_| corruption(path, handle.offset, "a block is too long"))?;
    read_exactly(file, path, handle.offset, length + TRAILER_BYTES)
}

pub(super) fn read_exactly(file: &dyn File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let (_, rest) = bytes.split_at_mut(filled);
        let count = file.read_at(rest, offset + filled as u64).map_err(|error| Error::io(path, &error))?;
        if count == 0 {
            return Err(corruption(path, offset, format!("the file ends within {length} bytes that must be there")));
        }
        filled += count;
    }
    Ok(bytes)
}
