//! The cache of blocks: which of them stay in memory.
//!
//! It never looks a block up: each open table has a slot for each of its blocks ([`Residents`]), so a reader that knows
//! which block it wants finds it with one load. The cache only keeps the slots' content within its bound, by S3-FIFO
//! (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a block enters a short queue; if it was
//! used by the time it reaches the end it goes on to the main queue, otherwise out; the main queue gives a used block
//! another round. Blocks that went out of the short queue are remembered for a while: if one comes back, it was thrown
//! out too early and enters the main queue. So a scan passes through the short queue and leaves the main one alone.
//!
//! A hit writes nothing but a counter of the thread's own and, until it has the largest value, the block's use count.

use super::budget::Budget;
use super::hash::FixedHash;
use super::residents::{Resident, Residents};
use super::sync::{AtomicU64, Mutex, Ordering::Relaxed};
use crate::planted::{self, Bug};
use crate::stats::CacheStats;
use crate::table::block::Block;
use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};

/// Independent locks, taken by misses only. More than the cores of a small server, few enough that a shard of a small
/// cache holds blocks.
const SHARDS: usize = 16;
/// A cache smaller than this has one shard.
const SHARDED_BYTES_MIN: u64 = (SHARDS as u64) << 20;
/// What a cached block costs beside its own memory: queue entry, reference counts, allocator. An estimate.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// The short queue's part of the capacity; the paper's figure.
const SHORT_QUEUE_DIVISOR: u64 = 10;
/// Entries of tables that are gone are swept out of the queues once there are more of them than this, and than others.
const DEAD_ENTRIES_MIN: usize = 64;
/// Blocks remembered at least; otherwise as many as there are in the cache.
const GHOSTS_MIN: usize = 64;
/// Counters of hits, one a cache line: threads take them in turn.
const HIT_COUNTERS: usize = 16;

/// Uncompressed, checked blocks, within a budget.
pub struct BlockCache {
    shards: Box<[Mutex<Shard>]>,
    budget: Arc<Budget>,
    /// The shard that gives room for values next.
    gives_next: AtomicU64,
    hits: [Counter; HIT_COUNTERS],
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// A counter with a cache line of its own (two, for processors that fetch pairs).
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// A block in a queue. It is out of the cache if its table is gone.
struct Entry {
    owner: Weak<Residents>,
    index: u32,
    bytes: u64,
}

#[derive(Default)]
struct Shard {
    short: VecDeque<Entry>,
    main: VecDeque<Entry>,
    /// Bytes of the entries of `short`, also of those whose table is gone.
    short_bytes: u64,
    /// Bytes of the blocks in slots.
    live_bytes: u64,
    /// Entries whose table is gone, roughly.
    dead: usize,
    /// Blocks that had to go for others, counted.
    evicted: u64,
    ghosts: Ghosts,
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; 0 caches nothing.
    pub fn new(capacity_bytes: u64) -> BlockCache {
        BlockCache::within(Arc::new(Budget::of_blocks(capacity_bytes)))
    }

    /// A cache within a budget that it may share.
    pub(crate) fn within(budget: Arc<Budget>) -> BlockCache {
        let shards = if budget.total_bytes() < SHARDED_BYTES_MIN { 1 } else { SHARDS };
        BlockCache {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            budget,
            gives_next: AtomicU64::new(0),
            hits: Default::default(),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Bytes held.
    pub fn used_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().live_bytes).sum()
    }

    /// What it has done since it was made, and what it holds.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            capacity_bytes: self.budget.block_capacity_bytes(),
            bytes: self.used_bytes(),
            hits: self.hits(),
            misses: self.misses(),
            evictions: self.evictions.load(Relaxed),
        }
    }

    /// Entries of the queues, also those of tables that are gone: what the cache remembers beside the blocks is bounded too.
    pub fn queue_entries(&self) -> usize {
        let entries = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.short.len() + shard.main.len()
        };
        self.shards.iter().map(entries).sum()
    }

    /// Lookups that found their block.
    pub fn hits(&self) -> u64 {
        self.hits.iter().map(|counter| counter.0.load(Relaxed)).sum()
    }

    /// Lookups that did not.
    pub fn misses(&self) -> u64 {
        self.misses.load(Relaxed)
    }

    pub(super) fn count_hit(&self) {
        self.hits[counter_of_thread()].0.fetch_add(1, Relaxed);
    }

    pub(super) fn count_miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        let index = (hash >> 32) as usize % self.shards.len();
        self.shards.get(index).expect("a remainder is below the divisor")
    }

    /// Puts a block into its slot, unless another thread was faster, and makes room. A hot one goes past the short queue.
    /// Returns what is to be used.
    pub(super) fn insert(&self, owner: &Arc<Residents>, index: u32, block: Block, hot: bool) -> Arc<Resident> {
        let bytes = weight(&block);
        let block = Arc::new(if hot { Resident::used_often(block) } else { Resident::new(block) });
        let shard_capacity_bytes = self.shard_capacity_bytes();
        if bytes > shard_capacity_bytes {
            return block;
        }
        let hash = hash_of(owner.table(), index);
        // Declared before the lock, so dropped after it: the last reference to a table's slots takes locks of shards.
        let mut owners = Vec::new();
        let early = planted::is_set(Bug::FillSlotUnlocked).then(|| owner.fill(index, &block));
        let mut shard = self.shard(hash).lock();
        if let Some(there) = early.unwrap_or_else(|| owner.fill(index, &block)) {
            return there;
        }
        let entry = Entry { owner: Arc::downgrade(owner), index, bytes };
        if shard.ghosts.take(hash) || hot {
            shard.main.push_back(entry);
        } else {
            shard.short_bytes += bytes;
            shard.short.push_back(entry);
        }
        shard.live_bytes += bytes;
        self.budget.add_block(bytes);
        let removed_bytes = self.evict(&mut shard, shard_capacity_bytes, &mut owners);
        drop(shard);
        self.budget.remove_blocks(removed_bytes);
        self.budget.fit_values();
        block
    }

    /// Brings a shard within its bound; the bytes that went.
    fn evict(&self, shard: &mut Shard, capacity_bytes: u64, owners: &mut Vec<Arc<Residents>>) -> u64 {
        let before = (shard.live_bytes, shard.evicted);
        while shard.live_bytes > capacity_bytes && shard.evict_one(capacity_bytes, owners) {}
        self.evictions.fetch_add(shard.evicted - before.1, Relaxed);
        before.0 - shard.live_bytes
    }

    /// Gives room back that values claim: one shard's part of it at each call.
    pub(crate) fn give_way(&self) {
        if !self.budget.blocks_must_shrink() {
            return;
        }
        let next = self.gives_next.fetch_add(1, Relaxed) as usize % self.shards.len();
        let mut owners = Vec::new();
        let mut shard = self.shards.get(next).expect("a remainder is below the divisor").lock();
        let removed_bytes = self.evict(&mut shard, self.shard_capacity_bytes(), &mut owners);
        drop(shard);
        self.budget.remove_blocks(removed_bytes);
    }

    fn shard_capacity_bytes(&self) -> u64 {
        self.budget.block_capacity_bytes() / self.shards.len() as u64
    }

    /// A block's table is gone, and the block with it.
    pub(super) fn release(&self, table: u64, index: u32, block: &Resident) {
        let mut shard = self.shard(hash_of(table, index)).lock();
        shard.live_bytes -= weight(block);
        shard.dead += 1;
        shard.sweep();
        drop(shard);
        self.budget.remove_blocks(weight(block));
    }
}

impl Shard {
    /// Takes one entry off a queue, which need not free anything. False if there is none. `owners` takes references that
    /// must be dropped outside of the lock.
    fn evict_one(&mut self, capacity_bytes: u64, owners: &mut Vec<Arc<Residents>>) -> bool {
        if self.short_bytes > capacity_bytes / SHORT_QUEUE_DIVISOR || self.main.is_empty() {
            let Some(entry) = self.short.pop_front() else { return false };
            self.short_bytes -= entry.bytes;
            let Some(owner) = entry.owner.upgrade() else { return self.forget_dead() };
            if owner.take_uses(entry.index) > 0 {
                self.main.push_back(entry);
            } else {
                self.ghosts.remember(hash_of(owner.table(), entry.index), self.short.len() + self.main.len());
                self.empty_slot(&owner, &entry);
            }
            owners.push(owner);
        } else {
            let Some(entry) = self.main.pop_front() else { return false };
            let Some(owner) = entry.owner.upgrade() else { return self.forget_dead() };
            if owner.take_use(entry.index) {
                self.main.push_back(entry);
            } else {
                self.empty_slot(&owner, &entry);
            }
            owners.push(owner);
        }
        true
    }

    fn empty_slot(&mut self, owner: &Residents, entry: &Entry) {
        let emptied = owner.empty(entry.index);
        assert!(emptied, "a block in a queue is in its slot while its table is there");
        self.live_bytes -= entry.bytes;
        self.evicted += 1;
    }

    fn forget_dead(&mut self) -> bool {
        self.dead = self.dead.saturating_sub(1);
        true
    }

    /// Drops the entries of tables that are gone once they are the larger part.
    fn sweep(&mut self) {
        let entries = self.short.len() + self.main.len();
        if self.dead <= DEAD_ENTRIES_MIN || self.dead <= entries / 2 {
            return;
        }
        self.short.retain(|entry| entry.owner.strong_count() > 0);
        self.main.retain(|entry| entry.owner.strong_count() > 0);
        self.short_bytes = self.short.iter().map(|entry| entry.bytes).sum();
        self.dead = 0;
    }
}

/// Hashes of blocks that left the short queue unused, oldest first.
#[derive(Default)]
struct Ghosts {
    queue: VecDeque<u64>,
    known: HashSet<u64, FixedHash>,
}

impl Ghosts {
    fn remember(&mut self, hash: u64, entries: usize) {
        if self.known.insert(hash) {
            self.queue.push_back(hash);
        }
        while self.queue.len() > entries.max(GHOSTS_MIN) {
            if let Some(oldest) = self.queue.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// Whether the block is known. It is not any more; its place in the queue goes when its turn comes.
    fn take(&mut self, hash: u64) -> bool {
        self.known.remove(&hash)
    }
}

pub(super) fn weight(block: &Block) -> u64 {
    block.memory_bytes() as u64 + ENTRY_OVERHEAD_BYTES
}

fn hash_of(table: u64, index: u32) -> u64 {
    let mut hasher = FixedHash.build_hasher();
    hasher.write_u64(table);
    hasher.write_u64(index.into());
    hasher.finish()
}

/// The counter of this thread.
fn counter_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % HIT_COUNTERS);
        }
        mine.get()
    })
}
