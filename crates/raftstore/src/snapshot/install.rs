//! Replacing a region's state by a snapshot's.
//!
//! A large file is taken in as tables, a small one by batches; docs/internals/snapshots.md has the reasons. The steps:
//!
//! 1. The whole file is read and checked. Tables are built of the families that are large enough; nothing of the
//!    database changes.
//! 2. A range delete in each family removes what the region's range holds.
//! 3. The memtables are flushed, and the tables ingested, as one write.
//! 4. What is in no table (small families, large values) is written by batches.
//! 5. The last batch has the descriptor and the applied position.
//!
//! A crash before tables hold step 5 leaves the old applied position, which is below the log's truncation mark, and
//! this makes recovery install again, from step 1.
//!
//! The flush in step 3 keeps the order of history for this range. Tables that are ingested are durable at once, and
//! commits of `Durability::Derived` before them may not be. Without the flush a crash could bring back a state in which
//! a split is not applied yet, and the range of this region, with the new data, belongs to the region that it was split
//! from.

use super::read::{Entry, SnapshotReader};
use super::{SnapshotError, SnapshotFile, SnapshotId, verify};
use crate::consensus::log::Position;
use crate::families::Families;
use crate::meta;
use crate::region::Region;
use kontiki_engine::{Family, Range, Result as EngineResult, View, WriteBatch};
use std::io::{self, Read};

/// Why an install ended without the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The file is missing, unreadable or damaged: another snapshot is needed.
    #[error("{0}")]
    FileLost(String),
    /// The disk is full. What was written so far is harmless, and the install can be repeated from its beginning.
    #[error("{0}")]
    NoSpace(String),
    /// The store cannot write the data.
    #[error("{0}")]
    Store(String),
}

/// What an install writes to. Nothing else writes to the region's range meanwhile.
pub trait InstallTarget {
    /// Commits a batch as `Durability::Derived`.
    fn commit(&mut self, batch: WriteBatch) -> EngineResult<()>;
    /// Whether a value of this many bytes is kept in tables. If not (it belongs into the value log), it is committed.
    fn is_kept_in_tables(&self, family: Family, value_bytes: usize) -> bool;
    /// Adds an entry to the tables that [`InstallTarget::ingest`] takes in: families and keys ascend over all calls.
    /// Changes nothing that a reader sees. An entry may expire, at a time in milliseconds of the wall clock since 1970.
    fn add(&mut self, family: Family, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> EngineResult<()>;
    /// Flushes what was committed before this, and then takes in the tables: as one write, durable at return. Does
    /// nothing if nothing was added.
    fn ingest(&mut self) -> EngineResult<()>;
}

/// Opens the file at its beginning.
pub type OpenFile<'a> = &'a mut dyn FnMut() -> io::Result<Box<dyn Read>>;

/// Bytes of one batch of an install; bounds memory and the share of a memtable that one batch takes.
const BATCH_BYTES: usize = 1 << 20;

/// Makes the region's state that of the file: clears its range as found in `view`, writes the file's entries to
/// `target`, and in a last batch the descriptor and the applied position. A family with at least `tables_from` bytes is
/// taken in as tables; `None`: none is.
///
/// What the region's descriptor in `view` has besides is cleared, too: the replica has lost that range by a split that
/// it did not see. No other replica holds it until tables have the new descriptor: [`crate::Store`] creates none there.
///
/// The whole file is checked before anything is committed or ingested.
pub fn install(
    families: &Families,
    view: &dyn View,
    expected: SnapshotId,
    tables_from: Option<u64>,
    open: OpenFile<'_>,
    target: &mut dyn InstallTarget,
) -> Result<(), SnapshotError> {
    let (file, left) = match tables_from {
        Some(bytes_min) => build_tables(families, expected, bytes_min, open, target)?,
        None => (verify(families, open()?.as_mut())?, LeftOut { small: WriteBatch::new(), again: Again::All }),
    };
    expect_file(file.id, expected)?;
    let before = meta::region(families.meta, view, file.id.region)?;
    let range = range_to_clear(&file.region, before.as_ref());
    let mut clear = WriteBatch::new();
    families.of(file.region.space).iter().for_each(|family| clear.delete_range(*family, range.clone()));
    target.commit(clear)?;
    if tables_from.is_some() {
        target.ingest()?;
    }
    let mut batch = left.small;
    if left.again != Again::Nothing {
        let mut input = open()?;
        let mut reader = SnapshotReader::new(families, input.as_mut())?;
        while let Some(frame) = reader.next()? {
            for entry in &frame.entries {
                if left.again == Again::All || !target.is_kept_in_tables(frame.family, entry.value.len()) {
                    entry.put_into(frame.family, &mut batch);
                }
                if batch.as_bytes().len() > BATCH_BYTES {
                    target.commit(std::mem::take(&mut batch))?;
                }
            }
        }
    }
    if !batch.is_empty() {
        target.commit(batch)?;
    }
    let mut last = WriteBatch::new();
    meta::put_region(families.meta, &mut last, &file.region);
    meta::put_applied(families.meta, &mut last, file.id.region, Position { index: file.id.index, term: file.id.term });
    target.commit(last)?;
    Ok(())
}

fn expect_file(found: SnapshotId, expected: SnapshotId) -> Result<(), SnapshotError> {
    if found == expected { Ok(()) } else { Err(SnapshotError::Other { found, expected }) }
}

/// What is in no table.
struct LeftOut {
    /// The entries of small families.
    small: WriteBatch,
    /// What the file has to be read for again.
    again: Again,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Nothing,
    /// Values that are not kept in tables.
    Large,
    All,
}

/// Step 1 of the head of this file, with tables.
fn build_tables(
    families: &Families,
    expected: SnapshotId,
    bytes_min: u64,
    open: OpenFile<'_>,
    target: &mut dyn InstallTarget,
) -> Result<(SnapshotFile, LeftOut), SnapshotError> {
    let mut input = open()?;
    let mut reader = SnapshotReader::new(families, input.as_mut())?;
    expect_file(reader.file().id, expected)?;
    let mut left = LeftOut { small: WriteBatch::new(), again: Again::Nothing };
    let mut first: Option<FirstEntries> = None;
    while let Some(frame) = reader.next()? {
        if first.as_ref().is_none_or(|first| first.family != frame.family) {
            let before = first.replace(FirstEntries { family: frame.family, entries: Vec::new(), bytes: 0 });
            before.iter().for_each(|before| before.put_into(&mut left.small));
        }
        let first = first.as_mut().expect("set above");
        for entry in frame.entries {
            if !target.is_kept_in_tables(frame.family, entry.value.len()) {
                left.again = Again::Large;
            } else if first.bytes >= bytes_min {
                add(target, frame.family, &entry)?;
            } else {
                first.bytes += (entry.key.len() + entry.value.len()) as u64;
                first.entries.push(entry);
                if first.bytes >= bytes_min {
                    let entries = std::mem::take(&mut first.entries);
                    entries.iter().try_for_each(|entry| add(target, frame.family, entry))?;
                }
            }
        }
    }
    first.iter().for_each(|last| last.put_into(&mut left.small));
    Ok((reader.file().clone(), left))
}

fn add(target: &mut dyn InstallTarget, family: Family, entry: &Entry) -> EngineResult<()> {
    target.add(family, &entry.key, &entry.value, entry.expires_at_ms)
}

/// Entries of a family that is not known to be large enough for tables.
struct FirstEntries {
    family: Family,
    /// Empty once they are in a table.
    entries: Vec<Entry>,
    /// Their bytes, not reset then.
    bytes: u64,
}

impl FirstEntries {
    fn put_into(&self, batch: &mut WriteBatch) {
        self.entries.iter().for_each(|entry| entry.put_into(self.family, batch));
    }
}

/// The region's range and the one that it had: a split takes the end of a range.
fn range_to_clear(region: &Region, before: Option<&Region>) -> Range {
    let is_longer = |before: &&Region| before.end_key.is_empty() || before.end_key > region.end_key;
    let longer = before.filter(|_| !region.end_key.is_empty()).filter(is_longer);
    Range::region(&region.start_key, longer.map_or(&region.end_key, |before| &before.end_key))
}
