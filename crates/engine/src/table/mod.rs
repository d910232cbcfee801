//! Sorted tables: immutable files of one family's versions, in internal key order.
//!
//! ```text
//! header | data block* | filter block | properties block | index block | footer
//! ```
//!
//! Byte by byte: docs/formats/table.md, and at the encoders: [`mod@format`] (header, block trailer, footer),
//! [`block_writer`] (entries), [`filter`], [`properties`].
//!
//! A table is written once by [`TableWriter`] (temporary name, sync, rename), and becomes part of the database only
//! by a manifest edit, after the directory has been synced ([`sync_tables_dir`]). [`TableReader`] checks every block
//! it reads: a wrong byte is `Error::Corruption` with file and offset, never a wrong answer.
//!
//! For `db/`: nothing to call here directly; `compaction::flush` writes tables, `read::ReadState` reads them.

pub mod block;
mod block_cache;
pub mod block_writer;
pub mod cursor;
pub mod filter;
pub mod format;
mod index;
mod ingest_writer;
mod many;
pub mod properties;
mod read_ahead;
mod reader;
mod reader_slot;
mod salvage;
mod sequences;
mod sizes;
mod verify;
mod writer;

pub use block_cache::BlockCache;
pub use cursor::TableCursor;
pub use filter::filter_hash;
pub use ingest_writer::{IngestFile, IngestWriter};
pub use many::LookupKey;
pub use reader::TableReader;
pub use reader_slot::{HeldReader, ReaderSlot};
pub use sequences::INGESTED_SEQUENCE;
pub(crate) use verify::verify_table;
pub use writer::TableWriter;

use crate::vlog::ValueRefs;
use crate::{Error, Family, Range, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::Env;
use std::path::{Path, PathBuf};

/// Names a file of the database; never used twice.
pub type FileNumber = u64;

/// What the manifest records of a table: enough to plan compactions and to skip the table without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// Its file.
    pub number: FileNumber,
    /// Length of the file in bytes; an open checks it.
    pub file_bytes: u64,
    /// Smallest user key.
    pub smallest_key: Bytes,
    /// Largest user key.
    pub largest_key: Bytes,
    /// Smallest sequence number of a version.
    pub smallest_sequence: SequenceNumber,
    /// Largest sequence number of a version.
    pub largest_sequence: SequenceNumber,
    /// Number of versions, tombstones included.
    pub entries: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Set for a table that was built outside: all its versions are stored at `INGESTED_SEQUENCE` and count as
    /// written at this number, which then is the smallest and the largest.
    pub global_sequence: Option<SequenceNumber>,
}

impl TableMeta {
    /// Of a table that says this of itself and has so many bytes.
    pub(crate) fn of(properties: &properties::Properties, number: FileNumber, file_bytes: u64) -> TableMeta {
        TableMeta {
            number,
            file_bytes,
            smallest_key: properties.smallest_key.clone(),
            largest_key: properties.largest_key.clone(),
            smallest_sequence: properties.smallest_sequence,
            largest_sequence: properties.largest_sequence,
            entries: properties.entries,
            tombstones: properties.tombstones,
            global_sequence: None,
        }
    }

    /// Whether the key lies between the table's smallest and largest.
    pub fn spans(&self, user_key: &[u8]) -> bool {
        debug_assert!(self.smallest_key <= self.largest_key, "bounds are checked by every version");
        self.smallest_key <= user_key && user_key <= self.largest_key
    }

    /// Whether numbers and bounds can be those of a table that was written.
    pub fn is_plausible(&self) -> bool {
        self.smallest_key <= self.largest_key
            && self.smallest_sequence <= self.largest_sequence
            && self.tombstones <= self.entries
            && self.entries > 0
            && self
                .global_sequence
                .is_none_or(|global| global > 0 && (self.smallest_sequence, self.largest_sequence) == (global, global))
    }

    /// Whether it may hold keys of the range, which is normal: without an end, or with one that is not empty.
    #[inline]
    pub fn reaches_into(&self, range: &Range) -> bool {
        range.start.as_ref().is_none_or(|start| self.largest_key >= *start)
            && range.end.as_ref().is_none_or(|end| self.smallest_key < *end)
    }

    /// Whether the tables' key ranges touch.
    pub fn overlaps(&self, other: &TableMeta) -> bool {
        self.smallest_key <= other.largest_key && other.smallest_key <= self.largest_key
    }
}

/// A table that [`TableWriter::finish`] has made durable under its final name (the directory is synced separately).
/// Only such tables can be put into a version edit, so the manifest cannot name an unsynced file.
#[derive(Clone, Debug)]
pub struct FinishedTable {
    pub(crate) family: Family,
    pub(crate) meta: TableMeta,
    pub(crate) values: ValueRefs,
}

impl FinishedTable {
    /// The table's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What the manifest will record.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// What it refers to in the value log; the manifest will record that too.
    pub fn values(&self) -> &ValueRefs {
        &self.values
    }
}

/// Name of the directory of tables within a database's directory.
pub const TABLES_DIR: &str = "tables";

/// The path of a table in the directory of tables.
pub fn table_path(tables_dir: &Path, number: FileNumber) -> PathBuf {
    tables_dir.join(format!("{number:06}.sst"))
}

/// The number in a table's file name.
pub fn parse_table_name(name: &str) -> Option<FileNumber> {
    let digits = name.strip_suffix(".sst")?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Makes the names of finished tables durable; once per flush or compaction, before the manifest edit.
pub fn sync_tables_dir(env: &Env, tables_dir: &Path) -> Result<()> {
    env.fs.sync_dir(tables_dir).map_err(|error| Error::failed_sync(tables_dir, &error))
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
