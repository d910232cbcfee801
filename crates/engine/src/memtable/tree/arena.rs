//! Memory that is allocated piece by piece and freed as a whole.

use super::super::sync::{Mutex, MutexGuard, Rank};
use bytes::Bytes;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Threads that can allocate at once without contention.
const SHARDS: usize = 8;
/// Size of a chunk: an eighth of what the arena holds already, within these bounds, so that a small memtable stays
/// small and at most an eighth of a large one is unused.
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 256 << 10;
/// A cache line; chunks begin on one, and no piece may require more.
const ALIGN_MAX: usize = 64;

/// A bump allocator with a few independent shards.
#[derive(Default)]
pub(in super::super) struct Arena {
    shards: [Shard; SHARDS],
    /// Bytes of all chunks and of large values.
    footprint: AtomicUsize,
}

/// Two cache lines, so that neighbours do not share what the processor fetches together.
#[repr(align(128))]
struct Shard(Mutex<Bump>);

impl Default for Shard {
    fn default() -> Shard {
        Shard(Mutex::new(Rank::MemtableArena, Bump::default()))
    }
}

#[derive(Default)]
struct Bump {
    /// The free rest of the newest chunk.
    rest: Option<NonNull<u8>>,
    rest_bytes: usize,
    chunks: Vec<(NonNull<u8>, Layout)>,
    /// Values with a separate allocation; their handles lie in the chunks and are dropped with the arena.
    large: Vec<NonNull<Bytes>>,
}

// SAFETY: the pointers of a `Bump` are to memory that it owns; `Bytes` may be dropped on any thread.
unsafe impl Send for Bump {}

thread_local! {
    /// Where this thread looks for a free shard first.
    static SHARD: Cell<usize> = Cell::new(NEXT_SHARD.fetch_add(1, Relaxed) % SHARDS);
}

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

impl Arena {
    /// Bytes taken from the system for it.
    pub(in super::super) fn footprint_bytes(&self) -> usize {
        self.footprint.load(Relaxed)
    }

    /// Counts memory that belongs to the memtable and is allocated elsewhere.
    pub(in super::super) fn note_bytes(&self, bytes: usize) {
        self.footprint.fetch_add(bytes, Relaxed);
    }

    /// Uninitialised memory of this layout, valid until the arena is dropped.
    pub(super) fn allocate(&self, layout: Layout) -> NonNull<u8> {
        self.shard().allocate(layout, &self.footprint)
    }

    /// Promises to drop `value`, which lies in this arena and is initialised, with the arena.
    ///
    /// # Safety
    /// `value` is initialised, lies in memory of this arena, and is not dropped elsewhere.
    // SAFETY: the caller's obligations are listed above.
    pub(super) unsafe fn adopt(&self, value: NonNull<Bytes>, value_bytes: usize) {
        self.note_bytes(value_bytes);
        self.shard().large.push(value);
    }

    /// A shard that no thread uses, preferably this thread's; so a thread that was descheduled while it held one blocks
    /// no other.
    fn shard(&self) -> MutexGuard<'_, Bump> {
        let first = SHARD.get();
        debug_assert!(first < SHARDS);
        for turn in 0..SHARDS {
            if let Some(bump) = self.shards[(first + turn) % SHARDS].0.try_lock() {
                return bump;
            }
        }
        self.shards[first].0.lock()
    }
}

impl Bump {
    fn allocate(&mut self, layout: Layout, footprint: &AtomicUsize) -> NonNull<u8> {
        assert!(layout.align() <= ALIGN_MAX && layout.size() > 0);
        if let Some(piece) = self.take(layout) {
            return piece;
        }
        let usual = (footprint.load(Relaxed) / 8).next_power_of_two().clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
        if layout.size() > usual {
            return self.add_chunk(layout.size(), footprint);
        }
        self.rest = Some(self.add_chunk(usual, footprint));
        self.rest_bytes = usual;
        self.take(layout).expect("a new chunk has space for a piece that is no larger")
    }

    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let rest = self.rest?;
        let skip = rest.align_offset(layout.align());
        let taken = skip.checked_add(layout.size())?;
        if taken > self.rest_bytes {
            return None;
        }
        self.rest_bytes -= taken;
        // SAFETY: `taken` bytes lie within the chunk, behind what was allocated before.
        let (piece, rest) = unsafe { (rest.add(skip), rest.add(taken)) };
        self.rest = Some(rest);
        Some(piece)
    }

    #[cold]
    fn add_chunk(&mut self, bytes: usize, footprint: &AtomicUsize) -> NonNull<u8> {
        let layout = Layout::from_size_align(bytes, ALIGN_MAX).expect("a chunk is far smaller than the address space");
        assert!(bytes > 0);
        // SAFETY: the layout's size is not zero.
        let chunk = unsafe { alloc(layout) };
        let Some(chunk) = NonNull::new(chunk) else { handle_alloc_error(layout) };
        self.chunks.push((chunk, layout));
        footprint.fetch_add(bytes, Relaxed);
        chunk
    }
}

impl Drop for Bump {
    fn drop(&mut self) {
        for &value in &self.large {
            // SAFETY: `adopt` was promised that it is initialised and ours to drop; the chunks still exist.
            unsafe { value.drop_in_place() };
        }
        for &(chunk, layout) in &self.chunks {
            // SAFETY: it was allocated with this layout, and every borrow from the arena has ended.
            unsafe { dealloc(chunk.as_ptr(), layout) };
        }
    }
}
