//! A version in the arena: written once, before another thread can see it, and never changed.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | sequence number << 8, kind |
//! | 4 | length of the key |
//! | 4 | length of the stored bytes |
//! | 32 | only if they are large: a `Bytes` with the stored bytes |
//! | .. | key |
//! | .. | unless they are large: stored bytes |

use super::super::sync::RaceDetector;
use super::arena::Arena;
use bytes::Bytes;
use std::alloc::Layout;
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ptr::NonNull;

/// From this size on, stored bytes have a separate allocation, which readers share instead of copying it. Below,
/// a copy costs a reader no more than the allocation that any handle would need, and keeps no other memory alive.
const LARGE_BYTES: usize = 4 << 10;

/// A place in the order of the tree: by key ascending, then by sequence number *descending*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Position<'k> {
    pub(in super::super) key: &'k [u8],
    pub(in super::super) sequence: u64,
}

impl Ord for Position<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(other.key).then_with(|| other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for Position<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The fixed part.
#[repr(C)]
pub(super) struct Header {
    tag: u64,
    key_bytes: u32,
    stored_bytes: u32,
    race: RaceDetector,
}

/// A record that lives as long as the arena is borrowed.
#[derive(Clone, Copy)]
pub(in super::super) struct Record<'a> {
    header: NonNull<Header>,
    arena: PhantomData<&'a Arena>,
}

const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(align_of::<Header>() >= align_of::<Bytes>() && HEADER_BYTES.is_multiple_of(align_of::<Bytes>()));

impl<'a> Record<'a> {
    /// Copies a version into the arena.
    pub(super) fn write(arena: &'a Arena, at: Position<'_>, kind: u8, stored: &[u8]) -> Record<'a> {
        let large = stored.len() >= LARGE_BYTES;
        let inline = if large { size_of::<Bytes>() } else { stored.len() };
        let layout = Layout::from_size_align(HEADER_BYTES + inline + at.key.len(), align_of::<Header>())
            .expect("keys and values are far smaller than the address space");
        let header = Header {
            tag: at.sequence << 8 | u64::from(kind),
            key_bytes: u32::try_from(at.key.len()).expect("keys are bounded by KEY_BYTES_MAX"),
            stored_bytes: u32::try_from(stored.len()).expect("values are bounded by VALUE_BYTES_MAX"),
            race: RaceDetector::new(),
        };
        assert!(at.sequence < 1 << 56, "sequence number and kind share eight bytes");
        header.race.note_write();
        let memory = arena.allocate(layout);
        // SAFETY: the memory has the layout computed above, no other thread knows it, and every part is written within
        // it: header; then, at a multiple of its alignment, the large value if there is one; key; small value.
        unsafe {
            memory.cast::<Header>().write(header);
            let mut rest = memory.add(HEADER_BYTES);
            if large {
                rest.cast::<Bytes>().write(Bytes::copy_from_slice(stored));
                arena.adopt(rest.cast(), stored.len());
                rest = rest.add(size_of::<Bytes>());
            }
            rest.copy_from_nonoverlapping(NonNull::from(at.key).cast(), at.key.len());
            if !large {
                rest.add(at.key.len()).copy_from_nonoverlapping(NonNull::from(stored).cast(), stored.len());
            }
        }
        Record { header: memory.cast(), arena: PhantomData }
    }

    /// The record behind a pointer that a node holds.
    ///
    /// # Safety
    /// `header` comes from [`Record::as_ptr`] of a record of the arena that `'a` borrows, and was read from where it
    /// was published with release ordering by a load with acquire ordering.
    // SAFETY: the caller's obligations are listed above.
    pub(super) unsafe fn from_ptr(header: NonNull<Header>) -> Record<'a> {
        Record { header, arena: PhantomData }
    }

    pub(super) fn as_ptr(self) -> *mut Header {
        self.header.as_ptr()
    }

    fn header(self) -> &'a Header {
        // SAFETY: a record is whole before it is published, never changes, and lives as long as `'a`.
        let header = unsafe { self.header.as_ref() };
        header.race.note_read();
        header
    }

    fn slice(self, skip: usize, bytes: usize) -> &'a [u8] {
        // SAFETY: as for `header`; the callers name parts of what `write` wrote.
        unsafe { NonNull::slice_from_raw_parts(self.header.cast::<u8>().add(HEADER_BYTES + skip), bytes).as_ref() }
    }

    fn large(header: &Header) -> bool {
        header.stored_bytes as usize >= LARGE_BYTES
    }

    /// The user key.
    pub(in super::super) fn key(self) -> &'a [u8] {
        let header = self.header();
        self.slice(if Self::large(header) { size_of::<Bytes>() } else { 0 }, header.key_bytes as usize)
    }

    /// The sequence number.
    pub(in super::super) fn sequence(self) -> u64 {
        self.header().tag >> 8
    }

    /// The kind, as it was passed.
    pub(in super::super) fn kind(self) -> u8 {
        self.header().tag as u8
    }

    /// Key and sequence number.
    pub(in super::super) fn position(self) -> Position<'a> {
        Position { key: self.key(), sequence: self.sequence() }
    }

    fn large_value(self) -> Option<&'a Bytes> {
        // SAFETY: as for `header`; `write` put a `Bytes` there if the stored bytes are large.
        Self::large(self.header()).then(|| unsafe { self.header.add(1).cast::<Bytes>().as_ref() })
    }

    /// The stored bytes.
    pub(in super::super) fn stored_slice(self) -> &'a [u8] {
        let header = self.header();
        match self.large_value() {
            Some(value) => value,
            None => self.slice(header.key_bytes as usize, header.stored_bytes as usize),
        }
    }

    /// The stored bytes, which may outlive the arena: shared if they are large, else copied.
    pub(in super::super) fn stored(self) -> Bytes {
        match self.large_value() {
            Some(value) => value.clone(),
            None => Bytes::copy_from_slice(self.stored_slice()),
        }
    }

    /// Prefetches its first bytes.
    pub(in super::super) fn prefetch(self) {
        prefetch(self.header.cast(), HEADER_BYTES + 64);
    }
}

/// Prefetches these bytes.
pub(super) fn prefetch(start: NonNull<u8>, bytes: usize) {
    crate::prefetch::prefetch(start.as_ptr(), bytes);
}
