//! Reads one table.

use super::block_reader::{Block, BlockCursor};
use super::filter::Filter;
use super::format::{
    BlockHandle, FOOTER_BYTES, Footer, HEADER_BYTES, Malformed, TRAILER_BYTES, check_header, decode_block,
    decode_footer,
};
use super::properties::Properties;
use super::{FileNumber, TableMeta, table_path};
use crate::cache::BlockCache;
use crate::iterator::{Found, KeyRef};
use crate::{Direction, Error, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::Env;
use kontiki_env::fs::{File, OpenMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open table: its filter and index are in memory, data blocks come through the block cache. Shared by threads.
pub struct TableReader {
    path: PathBuf,
    number: FileNumber,
    file: Arc<dyn File>,
    cache: Arc<BlockCache>,
    filter: Filter,
    index: Block,
    properties: Properties,
    footer: Footer,
}

impl TableReader {
    /// Opens the table that `meta` describes, checking header, footer, filter, properties and index.
    pub fn open(env: &Env, tables_dir: &Path, meta: &TableMeta, cache: Arc<BlockCache>) -> Result<TableReader> {
        let path = table_path(tables_dir, meta.number);
        let opened = env.fs.open(&path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
        let (bytes, file) = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => corruption(&path, 0, "the manifest names this table, but it is missing"),
            _ => Error::io(&path, &error),
        })?;
        if bytes != meta.file_bytes {
            let what = format!("the table has {bytes} bytes, but the manifest says {}", meta.file_bytes);
            return Err(corruption(&path, bytes.min(meta.file_bytes), what));
        }
        let reader = TableReader::open_file(path, meta.number, file, bytes, cache)?;
        let found = &reader.properties;
        if found.entries != meta.entries
            || found.largest_sequence != meta.largest_sequence
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
        let index = Block::new(load(footer.index)?).map_err(bad(footer.index)).map_err(locate)?;
        Ok(TableReader { path, number, file, cache, filter, index, properties, footer })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the table says of itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes of memory that the open table holds.
    pub fn memory_bytes(&self) -> usize {
        self.filter.bytes() + self.index.bytes() + size_of::<TableReader>()
    }

    /// Whether the filter lets the key pass; false means that the key is surely absent.
    pub fn may_contain(&self, user_key: &[u8]) -> bool {
        self.filter.may_contain(user_key)
    }

    /// The newest version of a key at or below `sequence`.
    pub fn get(&self, user_key: &[u8], sequence: SequenceNumber) -> Result<Option<Found>> {
        if !self.filter.may_contain(user_key) {
            return Ok(None);
        }
        let target = KeyRef::new(user_key, sequence);
        let mut at = self.first_block_for(target)?;
        // The separator may lie behind the last version of its block: then the next block begins with the answer.
        while at < self.block_count() {
            let (handle, block) = self.data_block(at)?;
            let mut cursor = BlockCursor::new(block, Direction::Forward);
            cursor.seek(target).map_err(|what| corruption(&self.path, handle.offset, what))?;
            if cursor.valid() {
                let key = cursor.key();
                if key.user_key != user_key {
                    return Ok(None);
                }
                debug_assert!(key.sequence <= sequence, "a forward seek does not go back");
                return Ok(Some(Found { sequence: key.sequence, kind: cursor.kind(), stored: cursor.stored() }));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Number of data blocks.
    pub fn block_count(&self) -> usize {
        self.index.restart_count()
    }

    /// The position that index entry `at` gives: at or after every version of data block `at`.
    pub fn separator(&self, at: usize) -> Result<KeyRef<'_>> {
        self.index.restart_key(at).map_err(|what| self.bad_index(what))
    }

    /// The first data block whose separator is at or after `target`; the number of blocks if there is none.
    pub(super) fn first_block_for(&self, target: KeyRef<'_>) -> Result<usize> {
        self.index.partition(|separator| separator < target).map_err(|what| self.bad_index(what))
    }

    /// Data block `at`, from the cache or checked from the file.
    pub fn data_block(&self, at: usize) -> Result<(BlockHandle, Block)> {
        let value = self.index.restart_value(at).map_err(|what| self.bad_index(what))?;
        let handle = BlockHandle::decode(&mut &value[..]).map_err(|_| self.bad_index("a block handle is malformed"))?;
        if handle.length > super::format::BLOCK_BYTES_MAX || handle.offset >= self.footer.filter.offset {
            return Err(self.bad_index("an entry of the index points outside of the data blocks"));
        }
        if let Some(block) = self.cache.get(self.number, handle.offset) {
            return Ok((handle, block));
        }
        let data = read_block(&*self.file, &self.path, handle)?;
        let block = Block::new(data).map_err(|what| corruption(&self.path, handle.offset, what))?;
        self.cache.insert(self.number, handle.offset, block.clone());
        Ok((handle, block))
    }

    fn bad_index(&self, what: Malformed) -> Error {
        corruption(&self.path, self.footer.index.offset, what)
    }
}

pub(super) fn corruption(file: &Path, offset: u64, what: impl Into<String>) -> Error {
    Error::Corruption { file: file.to_path_buf(), offset, what: what.into() }
}

fn read_block(file: &dyn File, path: &Path, handle: BlockHandle) -> Result<Bytes> {
    let length = usize::try_from(handle.length).map_err(|_| corruption(path, handle.offset, "a block is too long"))?;
    let stored = read_exactly(file, path, handle.offset, length + TRAILER_BYTES)?;
    decode_block(stored, handle.offset).map(Bytes::from).map_err(|what| corruption(path, handle.offset, what))
}

fn read_exactly(file: &dyn File, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
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
