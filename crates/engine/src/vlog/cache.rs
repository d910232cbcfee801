//! Values that were read recently, whole and checked.
//!
//! A value in a file costs a system call, a checksum and an allocation at each read: 1 to 5 microseconds, ten times
//! what a block in memory costs. A pointer never changes, nor does what it leads to, also when the segment is
//! relocated; so a pointer is the key, and nothing is ever invalidated. Eviction is that of blocks, in
//! one budget with them ([`SlotCache`]).
//!
//! The slots are a hash table: each pointer has a bucket of 8 slots under a lock, and a byte of its hash shows which of
//! them may hold it. A lookup waits for memory three times, one after the other: bucket, entry, the value's first
//! bytes. That is what it costs (some 200 ns each on a machine whose caches it exceeds), so a walk that knows its next
//! pointers prefetches these, step by step ([`Step`]).

use crate::cache::{Budget, CacheStats, FixedHash, Part, Resident, SlotCache, SlotContent, Slots};
use crate::lock::{Mutex, Rank};
use crate::prefetch::prefetch;
use crate::types::ValuePointer;
use bytes::Bytes;
use std::hash::{BuildHasher, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// Slots of a bucket.
const WAYS: usize = 8;
/// A slot for so many bytes of the budget; it costs 10 bytes.
const BYTES_PER_SLOT: u64 = 512;
/// A value counts as this much at least. So the budget is full while half of the slots are empty: then hardly a bucket
/// is ever full, and its values are evicted in time.
const VALUE_BYTES_MIN: usize = 2 * BYTES_PER_SLOT as usize;
/// At least so many buckets, for caches that hold a few values.
const BUCKETS_MIN: u64 = 16;
/// More would not fit the index of a slot: enough for a cache of 1 TiB.
const BUCKETS_MAX: u64 = 1 << 28;
/// Values up to this size are copied when they are added: without the record's header they fit the allocator's sizes,
/// which saves more memory than the copy costs time.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// How much of a value is prefetched; the processor itself fetches what follows, once it is read in order.
const AHEAD_BYTES: usize = 256;

/// A value with the pointer that leads to it.
pub(crate) struct CachedValue {
    pointer: ValuePointer,
    bytes: Bytes,
}

impl SlotContent for CachedValue {
    fn memory_bytes(&self) -> usize {
        (size_of::<Resident<CachedValue>>() + self.bytes.len()).max(VALUE_BYTES_MIN)
    }
}

/// A value that was read: from the cache, or owned.
pub(crate) enum ReadValue {
    Cached(Arc<Resident<CachedValue>>),
    Own(Bytes),
}

impl ReadValue {
    /// To keep.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            ReadValue::Cached(value) => Bytes::from_owner(Kept(value)),
            ReadValue::Own(bytes) => bytes,
        }
    }
}

impl Deref for ReadValue {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            ReadValue::Cached(value) => &value.bytes,
            ReadValue::Own(bytes) => bytes,
        }
    }
}

/// Keeps a value that may leave the cache.
struct Kept(Arc<Resident<CachedValue>>);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

/// What is prefetched before a lookup. Each step reads what the one before has fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The bucket.
    Bucket,
    /// The entry in its slot.
    Entry,
    /// The first bytes of the value.
    Value,
}

/// A cache of values, in one budget with the blocks.
pub(crate) struct ValueCache {
    cache: Arc<SlotCache<Table>>,
    bucket_count: u64,
    /// Made with the first value: a database without large values has none of it.
    table: OnceLock<Arc<Table>>,
}

struct Table {
    buckets: Box<[Mutex<Bucket>]>,
}

#[derive(Default)]
struct Bucket {
    /// A byte of the hash of what was put into each slot last.
    tags: [u8; WAYS],
    slots: [Option<Arc<Resident<CachedValue>>>; WAYS],
}

impl Bucket {
    /// What is in slots with this tag.
    #[inline]
    fn candidates(&self, tag: u8) -> impl Iterator<Item = &Arc<Resident<CachedValue>>> {
        self.tags.iter().zip(&self.slots).filter(move |(found, _)| **found == tag).filter_map(|(_, slot)| slot.as_ref())
    }

    fn find(&self, tag: u8, pointer: ValuePointer) -> Option<&Arc<Resident<CachedValue>>> {
        self.candidates(tag).find(|value| value.pointer == pointer)
    }
}

impl Table {
    #[inline]
    fn bucket(&self, index: usize) -> &Mutex<Bucket> {
        self.buckets.get(index).expect("a hash is spread over the buckets that there are")
    }

    /// Runs a closure on a slot, of which the cache has the index.
    fn with_slot<R>(&self, index: u32, work: impl FnOnce(&mut Option<Arc<Resident<CachedValue>>>) -> R) -> R {
        let mut bucket = self.bucket(index as usize / WAYS).lock();
        work(bucket.slots.get_mut(index as usize % WAYS).expect("a remainder is below the divisor"))
    }
}

impl Slots for Table {
    type Content = CachedValue;

    fn number(&self) -> u64 {
        0
    }

    fn fill(&self, index: u32, value: &Arc<Resident<CachedValue>>) -> Option<Arc<Resident<CachedValue>>> {
        self.with_slot(index, |slot| match slot {
            Some(there) => Some(there.clone()),
            None => {
                *slot = Some(value.clone());
                None
            }
        })
    }

    fn empty(&self, index: u32) -> bool {
        // Freed outside of the bucket's lock.
        let emptied = self.with_slot(index, Option::take);
        emptied.is_some()
    }

    fn take_uses(&self, index: u32) -> u8 {
        self.with_slot(index, |slot| slot.as_ref().map_or(0, |value| value.take_uses()))
    }

    fn take_use(&self, index: u32) -> bool {
        self.with_slot(index, |slot| slot.as_ref().is_some_and(|value| value.take_use()))
    }
}

impl ValueCache {
    /// A cache that has the values' part of a budget; none is held if that is 0.
    pub(crate) fn within(budget: Arc<Budget>) -> ValueCache {
        let bucket_count = (budget.total_bytes() / BYTES_PER_SLOT / WAYS as u64).clamp(BUCKETS_MIN, BUCKETS_MAX);
        ValueCache { cache: SlotCache::within(budget, Part::Values), bucket_count, table: OnceLock::new() }
    }

    /// The value that a pointer leads to, if it is in the cache.
    pub(crate) fn get(&self, pointer: ValuePointer) -> Option<ReadValue> {
        let Some(value) = self.find(pointer) else {
            self.cache.count_miss();
            return None;
        };
        self.cache.count_hit();
        value.touch();
        Some(ReadValue::Cached(value))
    }

    /// Counts a value in the cache as used often, apart from the statistics: it moves from the short queue, where it
    /// would be evicted unused, to the main queue.
    pub(crate) fn promote(&self, pointer: ValuePointer) {
        if let Some(value) = self.find(pointer) {
            value.touch_often();
        }
    }

    /// Adds a value that was checked, if there is a free slot for it in its bucket.
    pub(crate) fn insert(&self, pointer: ValuePointer, bytes: Bytes) -> ReadValue {
        debug_assert_eq!(bytes.len(), pointer.length as usize, "a pointer knows the length");
        let table = self.table.get_or_init(|| Arc::new(self.new_table()));
        let (at, tag) = self.place(pointer);
        let way = {
            let mut bucket = table.bucket(at).lock();
            if let Some(there) = bucket.find(tag, pointer) {
                return ReadValue::Cached(there.clone());
            }
            let Some(way) = bucket.slots.iter().position(Option::is_none) else { return ReadValue::Own(bytes) };
            // If another thread is faster with another value, the tag is wrong, and that value is not found: no harm.
            bucket.tags[way] = tag;
            way
        };
        let kept = if bytes.len() <= COPIED_BYTES_MAX { Bytes::copy_from_slice(&bytes) } else { bytes.clone() };
        let value = self.cache.insert(table, (at * WAYS + way) as u32, CachedValue { pointer, bytes: kept }, false);
        if value.pointer == pointer { ReadValue::Cached(value) } else { ReadValue::Own(bytes) }
    }

    /// Prefetches memory that a lookup will need soon.
    #[inline]
    pub(crate) fn fetch_ahead(&self, pointer: ValuePointer, step: Step) {
        let Some(table) = self.table.get() else { return };
        let (at, tag) = self.place(pointer);
        let bucket = table.bucket(at);
        if step == Step::Bucket {
            prefetch(std::ptr::from_ref(bucket).cast(), size_of::<Mutex<Bucket>>());
            return;
        }
        // Not worth waiting for.
        let Some(bucket) = bucket.try_lock() else { return };
        for value in bucket.candidates(tag) {
            match step {
                Step::Bucket | Step::Entry => prefetch(Arc::as_ptr(value).cast(), size_of::<Resident<CachedValue>>()),
                Step::Value if value.pointer == pointer => {
                    prefetch(value.bytes.as_ptr(), AHEAD_BYTES.min(value.bytes.len()));
                }
                Step::Value => {}
            }
        }
    }

    /// Counters since it was made, and what it holds.
    pub(crate) fn stats(&self) -> CacheStats {
        self.cache.stats()
    }

    fn new_table(&self) -> Table {
        Table {
            buckets: (0..self.bucket_count).map(|_| Mutex::new(Rank::ValueCacheBucket, Bucket::default())).collect(),
        }
    }

    #[inline]
    fn find(&self, pointer: ValuePointer) -> Option<Arc<Resident<CachedValue>>> {
        let table = self.table.get()?;
        let (at, tag) = self.place(pointer);
        table.bucket(at).lock().find(tag, pointer).cloned()
    }

    /// The bucket of a pointer, and its tag.
    #[inline]
    fn place(&self, pointer: ValuePointer) -> (usize, u8) {
        let mut hasher = FixedHash.build_hasher();
        hasher.write_u64(pointer.segment);
        hasher.write_u64(pointer.offset);
        let hash = hasher.finish();
        // The high part of a product spreads over the buckets as a remainder does, without a division.
        let bucket = (u128::from(hash) * u128::from(self.bucket_count)) >> 64;
        (bucket as usize, hash as u8)
    }
}

#[cfg(test)]
#[path = "cache_test.rs"]
mod tests;
