//! The slots of one open table: which of its blocks are in memory.
//!
//! Below, "block" is what the slots hold.

use super::slot_cache::{SlotCache, SlotContent, Slots};
use super::sync::{ArcSwapOption, AtomicU8, Guard, Ordering::Relaxed};
use std::ops::Deref;
use std::sync::Arc;

/// Uses are counted up to this limit: a block stays for that many rounds of the main queue without another use.
const USES_MAX: u8 = 3;

/// The content of a slot, now or earlier.
pub struct Resident<T> {
    content: T,
    uses: AtomicU8,
}

impl<T> Resident<T> {
    pub(super) fn new(content: T) -> Resident<T> {
        Resident { content, uses: AtomicU8::new(0) }
    }

    /// One that stays for the largest number of rounds.
    pub(super) fn used_often(content: T) -> Resident<T> {
        Resident { content, uses: AtomicU8::new(USES_MAX) }
    }

    /// Counts a use. Two threads may count the same one: the count is a hint.
    pub(crate) fn touch(&self) {
        let uses = self.uses.load(Relaxed);
        if uses < USES_MAX {
            self.uses.store(uses + 1, Relaxed);
        }
    }

    /// Lets it stay for the largest number of rounds.
    pub(crate) fn touch_often(&self) {
        self.uses.store(USES_MAX, Relaxed);
    }

    /// Sets its uses to zero and returns how many there were.
    pub(crate) fn take_uses(&self) -> u8 {
        self.uses.swap(0, Relaxed)
    }

    /// Subtracts one use, if there is one.
    pub(crate) fn take_use(&self) -> bool {
        let uses = self.uses.load(Relaxed);
        self.uses.store(uses.saturating_sub(1), Relaxed);
        uses > 0
    }
}

impl<T> Deref for Resident<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

/// A block that a reader holds for a short while: no reference count is touched, in the common case.
pub struct HeldContent<T>(Guard<Option<Arc<Resident<T>>>>);

impl<T> HeldContent<T> {
    /// Counts a use of a block that was found in memory without one.
    pub fn count_use(&self) {
        self.0.as_ref().expect("made of a block only").touch();
    }

    /// The block to keep.
    pub fn into_arc(self) -> Arc<Resident<T>> {
        Guard::into_inner(self.0).expect("made of a block only")
    }
}

impl<T> From<Arc<Resident<T>>> for HeldContent<T> {
    fn from(block: Arc<Resident<T>>) -> HeldContent<T> {
        HeldContent(Guard::from_inner(Some(block)))
    }
}

impl<T> Deref for HeldContent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("made of a block only")
    }
}

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A point read, or the first blocks of a scan: the block has been used once.
    Point,
    /// A point read of a key that is read often: the block need not prove itself.
    Hot,
    /// A block in the course of a longer scan: it may be cached, but its priority does not rise.
    Scan,
    /// A read by a compaction: what it reads is not needed again.
    Once,
}

/// The slots of one open table. Blocks leave them when the cache needs memory, and with the last reader.
pub struct Residents<T: SlotContent> {
    table: u64,
    cache: Arc<SlotCache<Residents<T>>>,
    slots: Box<[ArcSwapOption<Resident<T>>]>,
}

impl<T: SlotContent> Residents<T> {
    /// Empty slots for `count` blocks of a table; numbers of tables are never used twice.
    pub fn new(table: u64, count: u32, cache: Arc<SlotCache<Residents<T>>>) -> Arc<Residents<T>> {
        Arc::new(Residents { table, cache, slots: (0..count).map(|_| ArcSwapOption::empty()).collect() })
    }

    /// Bytes of memory of the slots themselves.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    fn slot(&self, index: u32) -> &ArcSwapOption<Resident<T>> {
        self.slots.get(index as usize).expect("there is a slot for each of the table's blocks")
    }

    /// What is in a slot: neither a lookup nor a use.
    pub(crate) fn peek(&self, index: u32) -> Option<HeldContent<T>> {
        let guard = self.slot(index).load();
        guard.is_some().then_some(HeldContent(guard))
    }

    /// Where a slot is in memory: to fetch it ahead.
    pub(crate) fn address(&self, index: u32) -> *const u8 {
        std::ptr::from_ref(self.slot(index)).cast()
    }

    /// The block, if it is in memory.
    pub fn get(&self, index: u32, purpose: Use) -> Option<HeldContent<T>> {
        let guard = self.slot(index).load();
        match guard.as_ref() {
            Some(block) => {
                match purpose {
                    Use::Point => block.touch(),
                    Use::Hot => block.touch_often(),
                    Use::Scan | Use::Once => {}
                }
                self.cache.count_hit();
                Some(HeldContent(guard))
            }
            None => {
                self.cache.count_miss();
                None
            }
        }
    }

    /// Keeps a block that was read, if the cache has capacity for it.
    pub fn insert(self: &Arc<Self>, index: u32, block: T, purpose: Use) -> HeldContent<T> {
        match purpose {
            Use::Once => HeldContent::from(Arc::new(Resident::new(block))),
            Use::Point | Use::Scan => HeldContent::from(self.cache.insert(self, index, block, false)),
            Use::Hot => HeldContent::from(self.cache.insert(self, index, block, true)),
        }
    }
}

impl<T: SlotContent> Slots for Residents<T> {
    type Content = T;

    fn number(&self) -> u64 {
        self.table
    }

    fn fill(&self, index: u32, block: &Arc<Resident<T>>) -> Option<Arc<Resident<T>>> {
        let slot = self.slot(index);
        let there = slot.load_full();
        if there.is_none() {
            slot.store(Some(block.clone()));
        }
        there
    }

    fn empty(&self, index: u32) -> bool {
        self.slot(index).swap(None).is_some()
    }

    fn take_uses(&self, index: u32) -> u8 {
        self.slot(index).load().as_ref().map_or(0, |block| block.take_uses())
    }

    fn take_use(&self, index: u32) -> bool {
        self.slot(index).load().as_ref().is_some_and(|block| block.take_use())
    }
}

impl<T: SlotContent> Drop for Residents<T> {
    fn drop(&mut self) {
        // A thread that panics while it evicts holds a shard's lock, and may have the last reference to these slots:
        // releasing them would wait for itself. They stay counted.
        if std::thread::panicking() {
            return;
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if let Some(block) = slot.swap(None) {
                self.cache.release(self.table, index as u32, &block);
            }
        }
    }
}
