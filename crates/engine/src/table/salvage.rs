//! Reading what is left of a damaged table.

use super::TableReader;
use super::reader::Place;
use crate::cache::Use;
use crate::types::{KeyRef, Kind};
use crate::{Error, Result};

/// Takes a version: its position, its kind, and the bytes that go with it.
type Visit<'a> = dyn FnMut(KeyRef<'_>, Kind, &[u8]) -> Result<()> + 'a;

impl TableReader {
    /// Passes every version that can be read to `visit`, in order, and what cannot to `lost`. Returns errors that are
    /// no damage.
    pub(crate) fn salvage(&self, visit: &mut Visit<'_>, lost: &mut dyn FnMut(Error)) -> Result<()> {
        let mut sound = |error: Error| match error {
            Error::Corruption { .. } => {
                lost(error);
                Ok(())
            }
            other => Err(other),
        };
        let mut user_key = Vec::new();
        for number in 0..=self.last_partition() {
            let partition = match self.partition(number) {
                Ok(partition) => partition,
                Err(error) => {
                    sound(error)?;
                    continue;
                }
            };
            for entry in 0..partition.len() {
                let place = Place { partition: number, entry };
                let block = match self.data_block(&partition, place, Use::Once, None) {
                    Ok(block) => block,
                    Err(error) => {
                        sound(error)?;
                        continue;
                    }
                };
                for at in 0..block.len() {
                    let (sequence, kind) = block.version(at);
                    user_key.clear();
                    user_key.extend_from_slice(block.shared_prefix());
                    user_key.extend_from_slice(block.suffix(at));
                    visit(KeyRef::new(&user_key, self.sequences().reported(sequence)), kind, block.stored(at))?;
                }
            }
        }
        Ok(())
    }
}
