//! Merges cursors.

use super::{Cursor, KeyRef};
use crate::kind::Kind;
use crate::{Direction, Result};
use bytes::Bytes;
use std::cmp::Ordering;

/// All versions of several sources in one order: a binary heap of the cursors that are valid.
///
/// Of two sources at the same version (see [`KeyRef`]) the earlier one in the list comes first.
pub struct MergingCursor {
    sources: Vec<Box<dyn Cursor>>,
    direction: Direction,
    /// Indices of the valid sources; the parent of `i` is `(i - 1) / 2` and never comes after it.
    heap: Vec<usize>,
}

impl MergingCursor {
    /// Merges `sources`, all of which go in `direction`.
    pub fn new(sources: Vec<Box<dyn Cursor>>, direction: Direction) -> MergingCursor {
        MergingCursor { heap: Vec::with_capacity(sources.len()), sources, direction }
    }

    fn source(&self, index: usize) -> &dyn Cursor {
        &**self.sources.get(index).expect("the heap holds indices of sources")
    }

    fn top(&self) -> &dyn Cursor {
        self.source(*self.heap.first().expect("the caller checked valid()"))
    }

    /// Whether the source at heap slot `a` comes before that at `b`.
    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a], self.heap[b]);
        let order = self.source(a).key().cmp(&self.source(b).key());
        let order = if self.direction == Direction::Forward { order } else { order.reverse() };
        order.then(a.cmp(&b)) == Ordering::Less
    }

    fn sift_down(&mut self, mut slot: usize) {
        loop {
            let left = slot * 2 + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let child = if right < self.heap.len() && self.before(right, left) { right } else { left };
            if !self.before(child, slot) {
                return;
            }
            self.heap.swap(child, slot);
            slot = child;
        }
    }

    fn rebuild(&mut self, mut place: impl FnMut(&mut dyn Cursor) -> Result<()>) -> Result<()> {
        assert!(self.heap.len() <= self.sources.len(), "each source is in the heap once");
        self.heap.clear();
        for source in &mut self.sources {
            place(&mut **source)?;
        }
        self.heap.extend((0..self.sources.len()).filter(|&index| self.sources[index].valid()));
        for slot in (0..self.heap.len() / 2).rev() {
            self.sift_down(slot);
        }
        Ok(())
    }
}

impl Cursor for MergingCursor {
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn key(&self) -> KeyRef<'_> {
        self.top().key()
    }

    fn kind(&self) -> Kind {
        self.top().kind()
    }

    fn stored(&self) -> Bytes {
        self.top().stored()
    }

    fn advance(&mut self) -> Result<()> {
        let top = *self.heap.first().expect("the caller checked valid()");
        if let Err(error) = self.sources[top].advance() {
            self.heap.clear();
            return Err(error);
        }
        if !self.sources[top].valid() {
            let gone = self.heap.swap_remove(0);
            debug_assert_eq!(gone, top);
        }
        self.sift_down(0);
        debug_assert!(self.heap.iter().all(|&index| self.sources[index].valid()));
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        self.rebuild(|source| source.seek(target))
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.rebuild(|source| source.seek_to_first())
    }
}
