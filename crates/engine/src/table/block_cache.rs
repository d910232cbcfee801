//! Blocks in memory: the cache's slots with blocks in them.

use super::block::Block;
use crate::cache::{HeldContent, Resident, Residents, SlotCache, SlotContent};

/// Uncompressed, checked blocks.
pub type BlockCache = SlotCache<Residents<Block>>;
/// The slots of one open table.
pub(crate) type BlockSlots = Residents<Block>;
/// A block that is in a slot, or was.
pub(crate) type CachedBlock = Resident<Block>;
/// A block that a reader holds for a short while.
pub(crate) type HeldBlock = HeldContent<Block>;

impl SlotContent for Block {
    fn memory_bytes(&self) -> usize {
        Block::memory_bytes(self)
    }
}
