//! The cache of data blocks.

use super::hash::FixedHash;
use crate::table::FileNumber;
use crate::table::block_reader::Block;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Independent locks. More than the cores of a small server, few enough that a shard of a small cache holds blocks.
const SHARDS: usize = 16;
/// What a cached block costs beside its bytes. An estimate.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// Guess of the blocks' size, which only sizes the cache's own tables.
const BLOCK_BYTES_GUESS: u64 = 4 << 10;

type Key = (FileNumber, u64);

/// Uncompressed, checked data blocks by file and offset; at most so many bytes. Blocks of removed files age out:
/// file numbers are not used twice.
pub struct BlockCache {
    blocks: Cache<Key, Block, BlockWeight, FixedHash, DefaultLifecycle<Key, Block>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone)]
struct BlockWeight;

impl Weighter<Key, Block> for BlockWeight {
    fn weight(&self, _: &Key, block: &Block) -> u64 {
        block.bytes() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; 0 caches nothing.
    pub fn new(capacity_bytes: u64) -> BlockCache {
        let options = OptionsBuilder::new()
            .shards(if capacity_bytes < (SHARDS as u64) << 20 { 1 } else { SHARDS })
            .estimated_items_capacity((capacity_bytes / BLOCK_BYTES_GUESS).clamp(16, 1 << 20) as usize)
            .weight_capacity(capacity_bytes)
            .build()
            .expect("every option is given and in range");
        let blocks = Cache::with_options(options, BlockWeight, FixedHash, DefaultLifecycle::default());
        BlockCache { blocks, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The block at `offset` of a table, if it is here.
    pub fn get(&self, number: FileNumber, offset: u64) -> Option<Block> {
        let found = self.blocks.get(&(number, offset));
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Relaxed);
        found
    }

    /// Keeps a block.
    pub fn insert(&self, number: FileNumber, offset: u64, block: Block) {
        self.blocks.insert((number, offset), block);
    }

    /// Bytes held.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// Lookups that found their block.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Lookups that did not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }
}
