//! Keeps in memory what was read: blocks of tables, and in a second instance values of the value log.
//!
//! It never looks a block up: each open table has a slot for each of its blocks ([`Slots`]), so a reader that knows
//! which block it needs finds it with one load. The cache only keeps the slots' content within its bound, by S3-FIFO
//! (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a block enters a short queue; if it was
//! used by the time it reaches the end it moves to the main queue, otherwise it is evicted; the main queue gives a used
//! block another round. Blocks that went out of the short queue are remembered for a while: if one comes back, it was
//! thrown out too early and enters the main queue. So a scan passes through the short queue and leaves the main one
//! alone.
//!
//! Below, "block" is what the slots hold, and "table" the owner of the slots.
//!
//! A hit writes nothing but a per-thread counter and, until it has the largest value, the block's use count.

use super::budget::{Budget, Part};
use super::hash::FixedHash;
use super::residents::Resident;
use super::sync::{AtomicU64, Mutex, Ordering::Relaxed, Rank};
use crate::planted::{self, Bug};
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
/// What a cached block costs in addition to its own memory: queue entry, reference counts, allocator. An estimate.
const ENTRY_OVERHEAD_BYTES: u64 = 96;
/// The short queue's part of the capacity; the paper's figure.
const SHORT_QUEUE_DIVISOR: u64 = 10;
/// Entries of dropped tables are swept out of the queues once there are more of them than this, and than of others.
const DEAD_ENTRIES_MIN: usize = 64;
/// Blocks remembered at least; otherwise as many as there are in the cache.
const GHOSTS_MIN: usize = 64;
/// Counters of hits, one in each cache line: threads take them in turn.
const HIT_COUNTERS: usize = 16;

/// The counters of a cache, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// The most bytes that it may hold.
    pub capacity_bytes: u64,
    /// Bytes in it now.
    pub bytes: u64,
    /// Lookups that found their entry, counted.
    pub hits: u64,
    /// Lookups that did not, counted.
    pub misses: u64,
    /// Entries evicted for others, counted.
    pub evictions: u64,
}

impl CacheStats {
    /// Hits per lookup; 0 before the first.
    pub fn hit_ratio(&self) -> f64 {
        let lookups = self.hits + self.misses;
        if lookups == 0 { 0.0 } else { self.hits as f64 / lookups as f64 }
    }
}

/// What slots hold.
pub trait SlotContent: Send + Sync + 'static {
    /// Bytes of memory that it takes.
    fn memory_bytes(&self) -> usize;
}

/// Slots, in which readers find what is in memory without a call of the cache. The cache calls these under the lock of
/// the shard that a slot belongs to, so nothing else fills or empties it meanwhile.
pub trait Slots: Send + Sync + 'static {
    /// What is in them.
    type Content: SlotContent;
    /// Distinguishes these slots from all others.
    fn number(&self) -> u64;
    /// Puts content into its slot; or returns what is there.
    fn fill(&self, index: u32, content: &Arc<Resident<Self::Content>>) -> Option<Arc<Resident<Self::Content>>>;
    /// Empties a slot; whether there was anything in it.
    fn empty(&self, index: u32) -> bool;
    /// Sets the uses of what is in a slot to zero and returns how many there were.
    fn take_uses(&self, index: u32) -> u8;
    /// Subtracts one use, if there is one.
    fn take_use(&self, index: u32) -> bool;
}

/// Keeps slots within a budget.
pub struct SlotCache<S: Slots> {
    shards: Box<[Mutex<Shard<S>>]>,
    budget: Arc<Budget>,
    part: Part,
    /// The shard that next frees memory for the other part.
    gives_next: AtomicU64,
    hits: [Counter; HIT_COUNTERS],
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// A counter in its own cache line (two, for processors that fetch pairs).
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// A block in a queue. It is out of the cache once its table is dropped.
struct Entry<S: Slots> {
    owner: Weak<S>,
    index: u32,
    bytes: u64,
}

struct Shard<S: Slots> {
    short: VecDeque<Entry<S>>,
    main: VecDeque<Entry<S>>,
    /// Bytes of the entries of `short`, also of those whose table was dropped.
    short_bytes: u64,
    /// Bytes of the blocks in slots.
    live_bytes: u64,
    /// Entries whose table was dropped, roughly.
    dead: usize,
    /// Blocks evicted for others, counted.
    evicted: u64,
    ghosts: Ghosts,
}

impl<S: Slots> Default for Shard<S> {
    fn default() -> Shard<S> {
        Shard {
            short: VecDeque::new(),
            main: VecDeque::new(),
            short_bytes: 0,
            live_bytes: 0,
            dead: 0,
            evicted: 0,
            ghosts: Ghosts::default(),
        }
    }
}

impl<S: Slots> SlotCache<S> {
    /// A cache of at most `capacity_bytes`; 0 caches nothing.
    pub fn new(capacity_bytes: u64) -> SlotCache<S> {
        SlotCache::of(Arc::new(Budget::of_blocks(capacity_bytes)), Part::Blocks)
    }

    /// A cache that has a part of a budget.
    pub(crate) fn within(budget: Arc<Budget>, part: Part) -> Arc<SlotCache<S>> {
        let cache = Arc::new(SlotCache::of(budget, part));
        let weak = Arc::downgrade(&cache);
        cache.budget.on_give_way(part, move || {
            if let Some(cache) = weak.upgrade() {
                cache.give_way();
            }
        });
        cache
    }

    fn of(budget: Arc<Budget>, part: Part) -> SlotCache<S> {
        let shards = if budget.total_bytes() < SHARDED_BYTES_MIN { 1 } else { SHARDS };
        SlotCache {
            shards: (0..shards).map(|_| Mutex::new(Rank::CacheShard, Shard::default())).collect(),
            budget,
            part,
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

    /// Counters since it was made, and what it holds.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            capacity_bytes: self.budget.capacity_bytes(self.part),
            bytes: self.used_bytes(),
            hits: self.hits(),
            misses: self.misses(),
            evictions: self.evictions.load(Relaxed),
        }
    }

    /// Entries of the queues, also those of dropped tables: what the cache remembers in addition to the blocks is
    /// bounded too.
    pub fn queue_entries(&self) -> usize {
        let entries = |shard: &Mutex<Shard<S>>| {
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

    pub(crate) fn count_hit(&self) {
        self.hits[counter_of_thread()].0.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Relaxed);
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<S>> {
        let index = (hash >> 32) as usize % self.shards.len();
        self.shards.get(index).expect("a remainder is below the divisor")
    }

    /// Puts a block into its slot, unless another thread was faster, and evicts others until it fits. A hot one skips
    /// the short queue. Returns the block to use.
    pub(crate) fn insert(&self, owner: &Arc<S>, index: u32, block: S::Content, hot: bool) -> Arc<Resident<S::Content>> {
        let bytes = weight(&block);
        let block = Arc::new(if hot { Resident::used_often(block) } else { Resident::new(block) });
        let shard_capacity_bytes = self.shard_capacity_bytes();
        if bytes > shard_capacity_bytes {
            return block;
        }
        let hash = hash_of(owner.number(), index);
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
        self.budget.add(self.part, bytes);
        let removed_bytes = self.evict(&mut shard, shard_capacity_bytes, &mut owners);
        drop(shard);
        self.budget.remove(self.part, removed_bytes);
        self.budget.reclaim_for(self.part);
        block
    }

    /// Evicts from a shard until it is within its bound; returns the bytes that were freed.
    fn evict(&self, shard: &mut Shard<S>, capacity_bytes: u64, owners: &mut Vec<Arc<S>>) -> u64 {
        let before = (shard.live_bytes, shard.evicted);
        while shard.live_bytes > capacity_bytes && shard.evict_one(capacity_bytes, owners) {}
        self.evictions.fetch_add(shard.evicted - before.1, Relaxed);
        before.0 - shard.live_bytes
    }

    /// Frees memory that the other part claims: one shard's part of it at each call.
    fn give_way(&self) {
        let next = self.gives_next.fetch_add(1, Relaxed) as usize % self.shards.len();
        let mut owners = Vec::new();
        let mut shard = self.shards.get(next).expect("a remainder is below the divisor").lock();
        let removed_bytes = self.evict(&mut shard, self.shard_capacity_bytes(), &mut owners);
        drop(shard);
        self.budget.remove(self.part, removed_bytes);
    }

    fn shard_capacity_bytes(&self) -> u64 {
        self.budget.capacity_bytes(self.part) / self.shards.len() as u64
    }

    /// A block's table was dropped, and the block with it.
    pub(super) fn release(&self, table: u64, index: u32, block: &S::Content) {
        let mut shard = self.shard(hash_of(table, index)).lock();
        shard.live_bytes -= weight(block);
        shard.dead += 1;
        shard.sweep();
        drop(shard);
        self.budget.remove(self.part, weight(block));
    }
}

impl<S: Slots> Shard<S> {
    /// Takes one entry off a queue, which need not free anything. False if there is none. `owners` receives references
    /// that that must be dropped outside of the lock.
    fn evict_one(&mut self, capacity_bytes: u64, owners: &mut Vec<Arc<S>>) -> bool {
        if self.short_bytes > capacity_bytes / SHORT_QUEUE_DIVISOR || self.main.is_empty() {
            let Some(entry) = self.short.pop_front() else { return false };
            self.short_bytes -= entry.bytes;
            let Some(owner) = entry.owner.upgrade() else { return self.forget_dead() };
            if owner.take_uses(entry.index) > 0 {
                self.main.push_back(entry);
            } else {
                self.ghosts.remember(hash_of(owner.number(), entry.index), self.short.len() + self.main.len());
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

    fn empty_slot(&mut self, owner: &S, entry: &Entry<S>) {
        let emptied = owner.empty(entry.index);
        assert!(emptied, "a block in a queue is in its slot while its table is there");
        self.live_bytes -= entry.bytes;
        self.evicted += 1;
    }

    fn forget_dead(&mut self) -> bool {
        self.dead = self.dead.saturating_sub(1);
        true
    }

    /// Drops the entries of dropped tables once they are the larger part.
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

    /// Whether the block is known. It is forgotten by this call; its entry in the queue is removed when it reaches the
    /// end.
    fn take(&mut self, hash: u64) -> bool {
        self.known.remove(&hash)
    }
}

pub(crate) fn weight(block: &impl SlotContent) -> u64 {
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
