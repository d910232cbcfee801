//! Merges cursors.

use super::source::Source;
use crate::types::{Cursor, KeyRef, Kind, SEEK_STEPS};
use crate::{Direction, Result, SequenceNumber};
use bytes::Bytes;
use std::cmp::Ordering;

/// After a source has been first so many times in succession its run length is determined.
const STEPS_BEFORE_RUN: u32 = 3;
/// Heads begin so many bytes before the place where the sources' keys begin to differ. With more the heads distinguish
/// less; with fewer the walk sooner reaches keys for which other heads must be chosen.
const HEAD_SLACK_BYTES: usize = 3;

/// All versions of several sources in one order: a binary heap of the cursors that are valid.
///
/// Three things keep a step cheap. 8 bytes of each source's key are in the heap, so most comparisons do not follow a
/// pointer: not the first 8, which neighbours often share, but those around the place where the keys begin to differ.
/// The second in line is known, so as long as the first stays first there is one comparison per step. And if it stays
/// first for a few steps, the number of its following versions before the second one's is determined
/// ([`Cursor::run_before`]): these are passed over without any comparison.
///
/// Of two sources at the same version (see [`KeyRef`]) the earlier one in the list comes first.
pub struct MergingCursor {
    sources: Vec<Source>,
    direction: Direction,
    /// The valid sources; the parent of `i` is `(i - 1) / 2` and never comes after it. The head of the first is out of
    /// date while `run` is not zero.
    heap: Vec<Slot>,
    /// The bytes before the heads of keys in `heap`: see [`head_behind`].
    shared: Vec<u8>,
    /// The slot of the second in line, if there are two.
    second: usize,
    /// Times in succession that the first stayed first.
    streak: u32,
    /// That many steps need no comparison.
    run: usize,
}

#[derive(Clone, Copy)]
struct Slot {
    /// Of two slots with different ones, the smaller comes first.
    head: u64,
    source: usize,
}

impl MergingCursor {
    /// Merges `sources`, all of which go in `direction`.
    pub fn new<S: Into<Source>>(sources: impl IntoIterator<Item = S>, direction: Direction) -> MergingCursor {
        let sources: Vec<Source> = sources.into_iter().map(Into::into).collect();
        let heap = Vec::with_capacity(sources.len());
        MergingCursor { heap, sources, direction, shared: Vec::new(), second: 0, streak: 0, run: 0 }
    }

    fn source(&self, slot: Slot) -> &Source {
        self.sources.get(slot.source).expect("the heap holds indices of sources")
    }

    /// The current source, if there are any versions left.
    #[inline]
    pub(super) fn top(&self) -> Option<&Source> {
        let slot = self.heap.first()?;
        self.sources.get(slot.source)
    }

    fn expect_top(&self) -> &Source {
        self.top().expect("the caller checked valid()")
    }

    fn slot(&self, source: usize) -> Slot {
        let key = self.sources.get(source).expect("the caller has its index").key();
        let head = head_behind(&self.shared, key.user_key);
        Slot { head: if self.direction == Direction::Forward { head } else { !head }, source }
    }

    /// Chooses the bytes before the heads, by the present keys of the sources, and fills the heap, without
    /// order.
    fn choose_heads(&mut self) {
        let mut keys = self.sources.iter().filter(|source| source.valid()).map(|source| source.key().user_key);
        let first = keys.next().unwrap_or_default();
        let common = |length: usize, key: &[u8]| first.iter().zip(key).take(length).take_while(|(a, b)| a == b).count();
        let length = keys.fold(first.len(), common).saturating_sub(HEAD_SLACK_BYTES);
        let shared = first.get(..length).unwrap_or_default().to_vec();
        self.shared = shared;
        self.heap.clear();
        for source in 0..self.sources.len() {
            if self.sources[source].valid() {
                self.heap.push(self.slot(source));
            }
        }
    }

    fn order_heap(&mut self) {
        for slot in (0..self.heap.len() / 2).rev() {
            self.sift_down(slot);
        }
        self.find_second();
    }

    /// Whether the source at heap slot `a` comes before that at `b`.
    #[inline]
    fn before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.heap[a], self.heap[b]);
        match a.head.cmp(&b.head) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.before_on_tie(a, b),
        }
    }

    fn before_on_tie(&self, a: Slot, b: Slot) -> bool {
        let order = self.source(a).key().cmp(&self.source(b).key());
        let order = if self.direction == Direction::Forward { order } else { order.reverse() };
        order.then(a.source.cmp(&b.source)) == Ordering::Less
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

    /// Restores the heap after its first slot has changed or was removed, and finds the second in line.
    fn settle(&mut self) {
        self.sift_down(0);
        self.find_second();
    }

    fn find_second(&mut self) {
        self.second = if self.heap.len() > 2 && self.before(2, 1) { 2 } else { 1 };
        (self.streak, self.run) = (0, 0);
    }

    fn rebuild(&mut self, mut place: impl FnMut(&mut Source) -> Result<()>) -> Result<()> {
        assert!(self.heap.len() <= self.sources.len(), "each source is in the heap once");
        self.heap.clear();
        for source in &mut self.sources {
            place(source)?;
        }
        self.choose_heads();
        self.order_heap();
        Ok(())
    }

    /// Seeks the first source to `target`, which is beyond, if all that it has before that is older than `below`;
    /// whether it did.
    pub(super) fn skip_old(&mut self, target: KeyRef<'_>, below: SequenceNumber) -> Result<bool> {
        let Some(first) = self.heap.first().map(|slot| slot.source) else { return Ok(false) };
        match self.sources[first].skip_old(target, below) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                self.heap.clear();
                return Err(error);
            }
        }
        // The sources may have any position now.
        self.choose_heads();
        self.order_heap();
        Ok(true)
    }

    /// The first source has advanced by one version, beyond what the comparisons so far cover.
    fn compare(&mut self, source: usize) {
        if !self.sources[source].valid() {
            let gone = self.heap.swap_remove(0);
            debug_assert_eq!(gone.source, source);
            return self.settle();
        }
        if self.heap.len() == 1 {
            return;
        }
        self.heap[0] = self.slot(source);
        if matches!(self.heap[0].head, 0 | u64::MAX) && !self.sources[source].key().user_key.starts_with(&self.shared) {
            // The walk has left the keys for which the heads were chosen.
            self.choose_heads();
            return self.order_heap();
        }
        if self.before(self.second, 0) {
            return self.settle();
        }
        self.streak += 1;
        if self.streak == STEPS_BEFORE_RUN {
            self.streak = 0;
            let limit = self.source(self.heap[self.second]).key();
            self.run = self.sources[source].run_before(limit);
        }
    }
}

/// The 8 bytes behind `shared` as a big-endian integer, padded with zeros; of a key that does not begin with `shared`
/// the smallest or the largest number. Where two heads differ, they compare as the keys do.
#[inline]
fn head_behind(shared: &[u8], key: &[u8]) -> u64 {
    let Some(rest) = key.strip_prefix(shared) else {
        return if key < shared { 0 } else { u64::MAX };
    };
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_be_bytes(bytes)
        }
    }
}

impl Cursor for MergingCursor {
    fn valid(&self) -> bool {
        !self.heap.is_empty()
    }

    fn key(&self) -> KeyRef<'_> {
        self.expect_top().key()
    }

    fn kind(&self) -> Kind {
        self.expect_top().kind()
    }

    fn stored(&self) -> Bytes {
        self.expect_top().stored()
    }

    fn stored_slice(&self) -> &[u8] {
        self.expect_top().stored_slice()
    }

    #[inline]
    fn advance(&mut self) -> Result<()> {
        let top = self.heap.first().expect("the caller checked valid()").source;
        if let Err(error) = self.sources[top].advance() {
            self.heap.clear();
            return Err(error);
        }
        if self.run > 0 {
            self.run -= 1;
            debug_assert!(self.sources[top].valid(), "a run ends within its source");
        } else {
            self.compare(top);
        }
        debug_assert!(self.heap.iter().all(|slot| self.sources[slot.source].valid()));
        debug_assert!(self.heap.len() < 2 || !self.before_on_tie(self.heap[self.second], self.heap[0]));
        Ok(())
    }

    fn seek(&mut self, target: KeyRef<'_>) -> Result<()> {
        // If a source fails during this, the merge has no position.
        self.heap.clear();
        if self.sources.len() > 1 {
            for step in 0..SEEK_STEPS {
                self.sources.iter_mut().try_for_each(|source| source.prepare_seek(target, step))?;
            }
        }
        self.rebuild(|source| source.seek(target))
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.rebuild(|source| source.seek_to_first())
    }
}

#[cfg(test)]
#[path = "merging_test.rs"]
mod tests;
