//! Writes one table, streaming.

use super::block_writer::BlockWriter;
use super::filter::FilterWriter;
use super::format::{BlockHandle, FOOTER_BYTES, Footer, TRAILER_BYTES, encode_block, encode_footer, encode_header};
use super::index::IndexWriter;
use super::properties::Properties;
use super::{FileNumber, FinishedTable, TableMeta, table_path};
use crate::planted::{self, Bug};
use crate::types::{Compression, KeyRef, Kind, SEQUENCE_NUMBER_MAX, TableOptions};
use crate::vlog::ValueRefs;
use crate::{Error, Family, Result};
use bytes::Bytes;
use kontiki_env::Env;
use kontiki_env::fs::{File, OpenMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes collected before a write call: large enough that the call's cost vanishes, small against a memtable.
const WRITE_BUFFER_BYTES: usize = 256 << 10;

/// Where a table is until it is whole: its final name with `.tmp` appended.
pub(super) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

/// A table being written under a temporary name. After an error, or instead of [`TableWriter::finish`], call
/// [`TableWriter::abandon`]; a forgotten temporary file is removed when the database is opened again.
pub struct TableWriter {
    env: Env,
    path: PathBuf,
    temporary: PathBuf,
    number: FileNumber,
    file: Arc<dyn File>,
    options: TableOptions,
    /// Bytes not yet written, which start at `written_bytes` of the file.
    buffer: Vec<u8>,
    written_bytes: u64,
    scratch: Vec<u8>,
    block: BlockWriter,
    index: IndexWriter,
    filter: FilterWriter,
    properties: Properties,
    values: ValueRefs,
    /// The last data block, whose index entry waits for the key that follows.
    pending: Option<(BlockHandle, Vec<u8>, u64)>,
    last_user_key: Vec<u8>,
}

impl TableWriter {
    /// Creates the temporary file of table `number`.
    pub fn create(
        env: &Env,
        tables_dir: &Path,
        number: FileNumber,
        family: Family,
        options: TableOptions,
    ) -> Result<Self> {
        TableWriter::create_at(env, table_path(tables_dir, number), number, family, options)
    }

    /// The same, to be named `path`.
    pub(super) fn create_at(
        env: &Env,
        path: PathBuf,
        number: FileNumber,
        family: Family,
        options: TableOptions,
    ) -> Result<Self> {
        let temporary = temporary_path(&path);
        let file = env.fs.open(&temporary, OpenMode::CreateNew).map_err(|error| Error::io(&temporary, &error))?;
        Ok(TableWriter {
            env: env.clone(),
            path,
            temporary,
            number,
            file,
            buffer: encode_header(),
            written_bytes: 0,
            scratch: Vec::new(),
            block: BlockWriter::new(),
            index: IndexWriter::default(),
            filter: FilterWriter::new(options.filter_bits_per_key, options.filter_prefix_bytes),
            properties: Properties {
                family: family.0,
                filter_prefix_bytes: options.filter_prefix_bytes as u64,
                ..Properties::default()
            },
            values: ValueRefs::new(),
            pending: None,
            last_user_key: Vec::new(),
            options,
        })
    }

    /// Adds a version. Keys must strictly increase.
    pub fn add(&mut self, key: KeyRef<'_>, kind: Kind, stored: &[u8]) -> Result<()> {
        assert!(key.sequence > 0 && key.sequence < SEQUENCE_NUMBER_MAX, "a version's sequence number is in range");
        let properties = &mut self.properties;
        if properties.entries == 0 {
            properties.smallest_key = Bytes::copy_from_slice(key.user_key);
            properties.smallest_sequence = key.sequence;
        }
        if properties.entries == 0 || self.last_user_key != key.user_key {
            assert!(
                properties.entries == 0 || self.last_user_key.as_slice() < key.user_key,
                "user keys of a table must not go back"
            );
            self.filter.add(key.user_key);
            self.last_user_key.clear();
            self.last_user_key.extend_from_slice(key.user_key);
        }
        properties.entries += 1;
        properties.tombstones += u64::from(kind.is_delete());
        properties.smallest_sequence = properties.smallest_sequence.min(key.sequence);
        properties.largest_sequence = properties.largest_sequence.max(key.sequence);
        properties.key_bytes += key.user_key.len() as u64;
        properties.value_bytes += stored.len() as u64;
        self.values.note(key.user_key.len(), kind, stored);
        self.index_pending(Some(key));
        self.block.add(key, kind, stored);
        if self.block.bytes() >= self.options.block_bytes { self.end_block() } else { Ok(()) }
    }

    /// Bytes of the file if it ended now, roughly.
    pub fn estimated_bytes(&self) -> u64 {
        let rest = self.block.bytes() + self.index.bytes() + self.filter.bytes() + FOOTER_BYTES;
        self.end_offset() + rest as u64
    }

    /// The user key of the last version added; empty before the first.
    pub fn last_user_key(&self) -> &[u8] {
        &self.last_user_key
    }

    /// Writes the rest, syncs the file and gives it its final name. The caller syncs the directory.
    pub fn finish(mut self) -> Result<FinishedTable> {
        match self.write_rest() {
            Ok(finished) => Ok(finished),
            Err(error) => {
                self.abandon();
                Err(error)
            }
        }
    }

    /// What must hold of the numbers that were counted during the write.
    fn assert_consistent(&self) {
        let properties = &self.properties;
        assert!(properties.entries > 0, "an empty table is never written");
        assert!(properties.tombstones <= properties.entries && properties.data_blocks <= properties.entries);
        assert!(properties.smallest_key.as_ref() <= self.last_user_key.as_slice());
        assert!(properties.smallest_sequence > 0 && properties.smallest_sequence <= properties.largest_sequence);
    }

    fn write_rest(&mut self) -> Result<FinishedTable> {
        self.end_block()?;
        self.assert_consistent();
        self.index_pending(None);
        self.properties.largest_key = Bytes::copy_from_slice(&self.last_user_key);
        let mut index = std::mem::take(&mut self.index);
        let top = index.finish(|partition| self.write_block(partition, Compression::None))?;
        let filter = std::mem::replace(&mut self.filter, FilterWriter::new(0, 0)).finish();
        let filter = self.write_block(&filter, Compression::None)?;
        let properties = self.properties.encode();
        let properties = self.write_block(&properties, Compression::None)?;
        let index = self.write_block(&top, Compression::None)?;
        self.buffer.extend_from_slice(&encode_footer(&Footer { filter, properties, index }));
        self.write_buffer()?;
        if !planted::is_set(Bug::TableNotSynced) {
            self.file.sync().map_err(|error| Error::failed_sync(&self.temporary, &error))?;
        }
        self.env.fs.rename(&self.temporary, &self.path).map_err(|error| Error::io(&self.path, &error))?;
        let properties = &self.properties;
        let meta = TableMeta::of(properties, self.number, self.written_bytes);
        assert!(meta.is_plausible(), "a table's metadata is that of a table");
        assert_eq!(meta.file_bytes, index.offset + index.length + (TRAILER_BYTES + FOOTER_BYTES) as u64);
        Ok(FinishedTable { family: properties.family(), meta, values: std::mem::take(&mut self.values) })
    }

    /// Removes the temporary file, as well as the disk allows: what stays is removed at the next open.
    pub fn abandon(self) {
        if let Err(error) = self.env.fs.remove(&self.temporary) {
            tracing::debug!(file = %self.temporary.display(), %error, "an abandoned table stays until the next open");
        }
    }

    fn end_block(&mut self) -> Result<()> {
        let Some(last) = self.block.last_key() else { return Ok(()) };
        assert!(self.pending.is_none(), "a block's index entry is written before the next block");
        let last = (last.user_key.to_vec(), last.sequence);
        let mut block = std::mem::take(&mut self.block);
        let written = self.write_block(block.finish(), self.options.compression);
        block.reset();
        self.block = block;
        self.properties.data_blocks += 1;
        self.pending = Some((written?, last.0, last.1));
        Ok(())
    }

    /// Adds the index entry of the block before `next`.
    fn index_pending(&mut self, next: Option<KeyRef<'_>>) {
        let Some((handle, user_key, sequence)) = self.pending.take() else { return };
        self.index.add(KeyRef::new(&user_key, sequence), next, handle);
    }

    fn end_offset(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    fn write_block(&mut self, raw: &[u8], compression: Compression) -> Result<BlockHandle> {
        assert!(self.buffer.len() < WRITE_BUFFER_BYTES, "a full buffer is written");
        let offset = self.end_offset();
        encode_block(raw, offset, compression, &mut self.scratch);
        self.buffer.extend_from_slice(&self.scratch);
        let length = (self.scratch.len() - TRAILER_BYTES) as u64;
        if self.buffer.len() >= WRITE_BUFFER_BYTES {
            self.write_buffer()?;
        }
        Ok(BlockHandle { offset, length })
    }

    fn write_buffer(&mut self) -> Result<()> {
        let result = self.file.write_at(&self.buffer, self.written_bytes);
        result.map_err(|error| Error::io(&self.temporary, &error))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
