//! Replacing a region's state by a snapshot's.

use super::read::SnapshotReader;
use super::{SnapshotError, SnapshotId, verify};
use crate::consensus::log::Position;
use crate::families::Families;
use crate::meta;
use crate::region::Region;
use kontiki_engine::{Direction, Range, View, WriteBatch};
use std::io::{self, Read};

/// Why an install ended without the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The file is missing, unreadable or damaged: another snapshot is needed.
    #[error("{0}")]
    FileLost(String),
    /// The store cannot write the data.
    #[error("{0}")]
    Store(String),
}

/// Bytes of one batch of an install; bounds memory and the share of a memtable that one batch takes.
const BATCH_BYTES: usize = 1 << 20;

/// Makes the region's state that of the file: clears its range as found in `view`, writes the file's entries, and in a
/// last batch the descriptor and the applied position. `write` gets the batches in order; they are to be committed as
/// `Durability::Derived`, and nothing else may write the range meanwhile.
///
/// What the region's descriptor in `view` has besides is cleared, too: the replica has lost that range by a split that
/// it did not see. No other replica holds it until tables have the new descriptor: [`crate::Store`] creates none there.
///
/// The whole file is checked before the first batch. A crash in the middle leaves the old applied position, which is
/// below the log's truncation mark, and this makes recovery install again.
pub fn install(
    families: &Families,
    view: &dyn View,
    expected: SnapshotId,
    open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    write: &mut dyn FnMut(WriteBatch) -> kontiki_engine::Result<()>,
) -> Result<(), SnapshotError> {
    let file = verify(families, open()?.as_mut())?;
    if file.id != expected {
        return Err(SnapshotError::Other { found: file.id, expected });
    }
    let mut batch = WriteBatch::new();
    let mut flush_if = |batch: &mut WriteBatch, bytes_max: usize| {
        if batch.as_bytes().len() > bytes_max { write(std::mem::take(batch)) } else { Ok(()) }
    };
    let before = meta::region(families.meta, view, file.id.region)?;
    let range = range_to_clear(&file.region, before.as_ref());
    for &family in families.of(file.region.space) {
        let mut entries = view.entries(family, range.clone(), Direction::Forward)?;
        while let Some((key, _)) = entries.next().transpose()? {
            batch.delete(family, &key);
            flush_if(&mut batch, BATCH_BYTES)?;
        }
    }
    let mut input = open()?;
    let mut reader = SnapshotReader::new(families, input.as_mut())?;
    while let Some(frame) = reader.next()? {
        for (key, value) in &frame.entries {
            batch.put(frame.family, key, value);
            flush_if(&mut batch, BATCH_BYTES)?;
        }
    }
    flush_if(&mut batch, 0)?;
    meta::put_region(families.meta, &mut batch, &file.region);
    meta::put_applied(families.meta, &mut batch, file.id.region, Position { index: file.id.index, term: file.id.term });
    flush_if(&mut batch, 0)?;
    Ok(())
}

/// The region's range and the one that it had: a split takes the end of a range.
fn range_to_clear(region: &Region, before: Option<&Region>) -> Range {
    let is_longer = |before: &&Region| before.end_key.is_empty() || before.end_key > region.end_key;
    let longer = before.filter(|_| !region.end_key.is_empty()).filter(is_longer);
    Range::region(&region.start_key, longer.map_or(&region.end_key, |before| &before.end_key))
}
