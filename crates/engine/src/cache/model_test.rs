//! The block cache under a scheduler that explores interleavings: the same source, compiled once more over scheduled
//! locks and slots. Readers of two tables load blocks, a table is dropped while others read, and the capacity is three
//! blocks.

mod budget {
    pub(super) use crate::cache::budget::{Budget, Part};
}
#[path = "hash.rs"]
#[allow(clippy::duplicate_mod)]
mod hash;
#[path = "residents.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod residents;
#[path = "slot_cache.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod slot_cache;

/// The interface of `sync.rs` over shuttle. A slot is a lock here: each of its operations is one step, as it is there.
mod sync {
    pub(super) use crate::lock::Rank;
    pub(super) use shuttle::sync::atomic::{AtomicU8, AtomicU64, Ordering};
    use std::ops::Deref;
    use std::sync::Arc;

    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(_rank: Rank, value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("not poisoned")
        }
    }

    pub(super) struct Guard<T>(T);

    impl<T> Guard<T> {
        pub(super) fn into_inner(guard: Guard<T>) -> T {
            guard.0
        }

        pub(super) fn from_inner(inner: T) -> Guard<T> {
            Guard(inner)
        }
    }

    impl<T> Deref for Guard<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    pub(super) struct ArcSwapOption<T>(shuttle::sync::Mutex<Option<Arc<T>>>);

    impl<T> ArcSwapOption<T> {
        pub(super) fn empty() -> ArcSwapOption<T> {
            ArcSwapOption(shuttle::sync::Mutex::new(None))
        }

        pub(super) fn load_full(&self) -> Option<Arc<T>> {
            self.0.lock().expect("not poisoned").clone()
        }

        pub(super) fn load(&self) -> Guard<Option<Arc<T>>> {
            Guard(self.load_full())
        }

        pub(super) fn store(&self, value: Option<Arc<T>>) {
            drop(self.swap(value));
        }

        pub(super) fn swap(&self, value: Option<Arc<T>>) -> Option<Arc<T>> {
            std::mem::replace(&mut *self.0.lock().expect("not poisoned"), value)
        }
    }
}

use self::residents::{Residents, Use};
use self::slot_cache::{SlotCache, SlotContent, weight};
use crate::planted::{self, Bug};
use crate::table::block::Block;
use crate::table::block_writer::BlockWriter;
use crate::types::{KeyRef, Kind};
use shuttle::rand::Rng as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const SCHEDULES: usize = 5_000;
const BLOCKS: u32 = 4;
const CAPACITY: u64 = 3;

impl SlotContent for Block {
    fn memory_bytes(&self) -> usize {
        Block::memory_bytes(self)
    }
}

/// A block that says whose it is.
fn block(table: u64, index: u32) -> Block {
    let mut writer = BlockWriter::new();
    writer.add(KeyRef::new(b"key", 1), Kind::Put, format!("{table:04}/{index:04}").as_bytes());
    Block::new(writer.finish().to_vec().into()).expect("well made")
}

/// A table of a task. If the task panics it stays for ever: its end would look at what is broken, or at a poisoned
/// lock, and a second panic while the first unwinds ends the process.
struct Kept(Option<Arc<Residents<Block>>>);

impl Kept {
    fn table(&self) -> &Arc<Residents<Block>> {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Reads a few blocks of a table, each where it should be.
fn read_some(table: &Arc<Residents<Block>>, number: u64) {
    for _ in 0..3 {
        let index = shuttle::rand::thread_rng().gen_range(0..BLOCKS);
        let purpose = if shuttle::rand::thread_rng().gen_range(0..3) == 0 { Use::Scan } else { Use::Point };
        let held = table.get(index, purpose).unwrap_or_else(|| table.insert(index, block(number, index), purpose));
        assert_eq!(held.stored(0), format!("{number:04}/{index:04}").as_bytes(), "the requested block");
    }
}

fn scenario() {
    let block_bytes = weight(&block(1, 0));
    let cache = Arc::new(SlotCache::new(CAPACITY * block_bytes));
    let stays = Kept(Some(Residents::new(1, BLOCKS, cache.clone())));
    // The last reader of the second table takes it along, in the middle of what the others do.
    let goes = Kept(Some(Residents::new(2, BLOCKS, cache.clone())));
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let again = |table: &Kept| Kept(Some(table.table().clone()));
            let (cache, stays, goes) = (cache.clone(), again(&stays), (thread > 0).then(|| again(&goes)));
            shuttle::thread::spawn(move || {
                if let Some(goes) = goes {
                    read_some(goes.table(), 2);
                }
                read_some(stays.table(), 1);
                assert!(cache.used_bytes() <= CAPACITY * block_bytes, "within its bytes at every check");
            })
        })
        .collect();
    drop(goes);
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    let there = (0..BLOCKS).filter(|index| stays.table().get(*index, Use::Scan).is_some()).count() as u64;
    assert_eq!(
        cache.used_bytes(),
        there * block_bytes,
        "the slots hold what is counted, and a table that went nothing"
    );
    drop(stays);
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn slots_and_their_count_agree_in_every_schedule() {
    shuttle::check_random(scenario, SCHEDULES);
}

#[test]
fn a_slot_that_is_filled_without_the_lock_is_found() {
    planted::set(Some(Bug::FillSlotUnlocked));
    let found = catch_unwind(AssertUnwindSafe(|| shuttle::check_random(scenario, SCHEDULES)));
    planted::set(None);
    assert!(found.is_err(), "the model sees a block that is counted twice");
}
