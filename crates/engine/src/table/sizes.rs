//! How the bytes of a table are distributed over its keys, by its index: no data block is read.

use super::TableReader;
use super::format::{HEADER_BYTES, TRAILER_BYTES};
use super::index::{Separator, handle_of};
use super::reader::{Place, corruption};
use crate::types::KeyRef;
use crate::{Range, Result};

impl TableReader {
    /// Bytes of all data blocks in the file, which begin behind the header and follow one another.
    pub(crate) fn data_bytes(&self) -> Result<u64> {
        let partition = self.partition(self.last_partition())?;
        let last = handle_of(&partition, partition.len() - 1).map_err(|what| corruption(self.path(), 0, what))?;
        Ok((last.offset + last.length + TRAILER_BYTES as u64).saturating_sub(HEADER_BYTES as u64))
    }

    /// Passes the data blocks that may hold keys of a range to `visit`, ascending: for each a key at or behind its last
    /// one and at or before all that follow, and its bytes in the file.
    pub(crate) fn block_sizes(&self, range: &Range, visit: &mut dyn FnMut(Vec<u8>, u64)) -> Result<()> {
        let start = range.start.as_deref().unwrap_or_default();
        let Some(Place { partition: first, .. }) = self.place_for(KeyRef::before_all(start)) else { return Ok(()) };
        for number in first..=self.last_partition() {
            let partition = self.partition(number)?;
            // Only the first partition can hold separators before the start.
            for entry in partition.position(KeyRef::before_all(start))..partition.len() {
                let handle = handle_of(&partition, entry).map_err(|what| corruption(self.path(), 0, what))?;
                let Separator { user_key, .. } = Separator::of(&partition, entry);
                let is_last = range.end.as_deref().is_some_and(|end| end <= &user_key[..]);
                visit(user_key, handle.length + TRAILER_BYTES as u64);
                if is_last {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
