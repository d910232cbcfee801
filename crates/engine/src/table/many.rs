//! Many point lookups in one table.

use super::block_cache::HeldBlock;
use super::reader::{Place, TableReader};
use crate::cache::Use;
use crate::types::{Found, KeyRef};
use crate::{Result, SequenceNumber};

/// Blocks held at once. A reader of a table holds a few guards of arc-swap in addition, and only 8 of a thread have
/// no reference count.
const BLOCKS_TOGETHER: usize = 4;

/// A key that is looked up.
#[derive(Clone, Copy, Debug)]
pub struct LookupKey<'a> {
    /// The key.
    pub user_key: &'a [u8],
    /// Its [`super::filter_hash`].
    pub hash: u64,
}

/// Keys of one data block, as indices.
struct Group {
    place: Place,
    keys: std::ops::Range<usize>,
}

impl TableReader {
    /// What [`TableReader::get`] finds for each of these keys, which ascend. Each filter line, partition and data block
    /// is read once for all keys that need it; and each stage is done for several keys before the next one
    /// begins, so that memory accesses for one key overlap with those for others.
    pub fn get_many(&self, wanted: &[LookupKey<'_>], sequence: SequenceNumber) -> Result<Vec<Option<Found>>> {
        debug_assert!(wanted.is_sorted_by_key(|wanted| wanted.user_key), "neighbours share blocks");
        let sequence = self.sequences().stored(sequence);
        let mut found = vec![None; wanted.len()];
        // Those that pass the filter, as indices.
        let passed: Vec<usize> = (0..wanted.len()).filter(|&at| self.may_contain_hash(wanted[at].hash)).collect();
        let target = |at: usize| KeyRef::new(wanted[at].user_key, sequence);
        let groups = self.group(&passed, target)?;
        for together in groups.chunks(BLOCKS_TOGETHER) {
            let mut blocks: [Option<HeldBlock>; BLOCKS_TOGETHER] = Default::default();
            for (block, group) in blocks.iter_mut().zip(together) {
                *block = self.resident_block(group.place, Use::Scan);
            }
            blocks.iter().flatten().for_each(HeldBlock::count_use);
            for (block, group) in blocks.into_iter().zip(together) {
                let block = match block {
                    Some(block) => block,
                    None => self.load_block(&*self.partition(group.place.partition)?, group.place, Use::Point, None)?,
                };
                for &at in passed.get(group.keys.clone()).unwrap_or_default() {
                    let position = block.position(target(at));
                    found[at] = match position < block.len() {
                        true => block.has_user_key(position, wanted[at].user_key).then(|| self.found(&block, position)),
                        // At the end of its block: the answer, if any, is in the next one.
                        false => self.find(wanted[at].user_key, sequence, Use::Point)?,
                    };
                }
            }
        }
        Ok(found)
    }

    /// Groups keys by data block; those beyond the end of the table are left out.
    fn group<'k>(&self, keys: &[usize], target: impl Fn(usize) -> KeyRef<'k>) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::with_capacity(keys.len());
        let mut partition: Option<(usize, HeldBlock)> = None;
        for (index, &at) in keys.iter().enumerate() {
            let Some(mut place) = self.place_for(target(at)) else { break };
            let held = match partition.take_if(|(number, _)| *number == place.partition) {
                Some((_, held)) => held,
                None => self.partition(place.partition)?,
            };
            place.entry = held.position(target(at));
            debug_assert!(place.entry < held.len(), "the top says that the target is in this partition");
            partition = Some((place.partition, held));
            match groups.last_mut().filter(|group| group.place == place) {
                Some(group) => group.keys.end = index + 1,
                None => groups.push(Group { place, keys: index..index + 1 }),
            }
        }
        Ok(groups)
    }
}
