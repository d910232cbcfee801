//! A node: up to `NODE_SLOTS` entries in order, under a version by which readers check that they saw a whole state.
//!
//! **Layout.** One cache line of header, then the slots, 16 bytes each: a *head*, eight bytes of the key as a number
//! in big-endian order, and a pointer to the record. The heads begin after the prefix that all keys of the node share
//! (up to 40 bytes of it, kept in the header), so nearly every comparison is one of two numbers in the node. Only equal
//! heads make a search read records.
//!
//! An inner node's entries are separators: records, borrowed from wherever they are, whose positions divide its
//! children. Child `i` holds what is below separator `i` and not below separator `i - 1`.
//!
//! **Protocol** (a sequence lock). The version is even when the node is at rest. A writer makes it odd (the latch),
//! changes the node, and makes it even and greater. A reader loads an even version, reads, and then checks whether the
//! version is still the same; if not, it discards what it read. In the meantime it may see anything from several
//! states, so reads check every count and pointer that they use.
//!
//! | order | where | why |
//! |---|---|---|
//! | acquire load of the version before reading | `rest_version` | pairs with the release store of `unlatch`: what it promises is visible |
//! | acquire fence before the second load | `unchanged` | a reader of anything written under a latch sees the odd version |
//! | compare-and-swap to odd: acquire, then a release fence | `try_latch` | the former: sees the last writer's changes; the latter: pairs with the fence above |
//! | release stores and acquire loads of pointers | slots, children, root | a record or node that can be seen at all is seen whole, even in a state that is then discarded |
//! | everything else relaxed | | |

use super::super::sync::{AtomicPtr, AtomicU64, NODE_SLOTS, RaceDetector, fence, relax};
use super::arena::Arena;
use super::record::{Header, Position, Record, prefetch};
use std::alloc::Layout;
use std::cmp::Ordering;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const PREFIX_WORDS: usize = 5;
const PREFIX_BYTES_MAX: usize = PREFIX_WORDS * 8;
/// Heads are computed anew, which touches every record of a node, only if they gain at least so many bytes.
const PREFIX_GAIN_MIN: usize = 4;

#[repr(C, align(64))]
pub(super) struct Node {
    version: AtomicU64,
    /// Number of entries; bytes of the shared prefix << 16.
    meta: AtomicU64,
    /// For `level` and `children`.
    race: RaceDetector,
    /// 0 for a leaf. Never changes.
    level: u32,
    /// Only inner nodes. Never changes.
    children: Option<NonNull<Children>>,
    /// The shared prefix as big-endian numbers, zero behind its end.
    prefix: [AtomicU64; PREFIX_WORDS],
    slots: [Slot; NODE_SLOTS],
}

type Children = [AtomicPtr<Node>; NODE_SLOTS + 1];

struct Slot {
    head: AtomicU64,
    record: AtomicPtr<Header>,
}

/// Where a position is among the entries of a node.
pub(super) struct Rank {
    /// Entries before it.
    pub(super) index: usize,
    /// Whether the next entry may have the same key. If not, it has not.
    pub(super) maybe_equal: bool,
}

/// Which entries a rank counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Below,
    AtOrBelow,
}

/// The eight bytes of `key` from `skip` on as a number, zeros for what is beyond its end.
fn word(key: &[u8], skip: usize) -> u64 {
    if let Some(bytes) = key.get(skip..).and_then(|rest| rest.first_chunk::<8>()) {
        return u64::from_be_bytes(*bytes);
    }
    let rest = key.get(skip..).unwrap_or_default();
    rest.iter().enumerate().fold(0, |word, (i, &byte)| word | u64::from(byte) << (56 - 8 * i))
}

/// The first `bytes` bytes of a word.
fn masked(word: u64, bytes: usize) -> u64 {
    if bytes >= 8 { word } else { word & !(u64::MAX >> (8 * bytes)) }
}

pub(super) fn shared_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count().min(PREFIX_BYTES_MAX)
}

impl Node {
    /// An empty node.
    pub(super) fn new(arena: &Arena, level: u32) -> &Node {
        let children = (level > 0).then(|| {
            let children: Children = std::array::from_fn(|_| AtomicPtr::new(null_mut()));
            let memory = arena.allocate(Layout::new::<Children>()).cast::<Children>();
            // SAFETY: fresh memory of this layout.
            unsafe { memory.write(children) };
            memory
        });
        let memory = arena.allocate(Layout::new::<Node>()).cast::<Node>();
        let race = RaceDetector::new();
        race.note_write();
        let node = Node {
            race,
            version: AtomicU64::new(0),
            meta: AtomicU64::new(0),
            level,
            children,
            prefix: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| Slot { head: AtomicU64::new(0), record: AtomicPtr::new(null_mut()) }),
        };
        // SAFETY: fresh memory of this layout; it lives as long as the arena, and from now on it is only shared.
        unsafe {
            memory.write(node);
            memory.as_ref()
        }
    }

    /// The node behind a pointer that the root or a child slot holds.
    ///
    /// # Safety
    /// `node` is null or comes from [`Node::as_ptr`] of a node of an arena that lives as long as `'a`, and was loaded
    /// with acquire ordering from where it was stored with release ordering.
    // SAFETY: the caller's obligations are listed above.
    pub(super) unsafe fn from_ptr<'a>(node: *mut Node) -> Option<&'a Node> {
        // SAFETY: nodes are whole before they are published, never move, and have only atomics that change.
        NonNull::new(node).map(|node| unsafe { node.as_ref() })
    }

    pub(super) fn as_ptr(&self) -> *mut Node {
        std::ptr::from_ref(self).cast_mut()
    }

    pub(super) fn level(&self) -> u32 {
        self.race.note_read();
        self.level
    }

    /// Prefetches all of it.
    pub(super) fn prefetch(node: *mut Node) {
        if let Some(node) = NonNull::new(node) {
            prefetch(node.cast(), size_of::<Node>());
        }
    }

    // The protocol.

    /// Waits until no thread holds the latch.
    pub(super) fn rest_version(&self) -> u64 {
        let mut tries = 0;
        loop {
            let version = self.version.load(Acquire);
            if version.is_multiple_of(2) {
                return version;
            }
            relax(tries);
            tries += 1;
        }
    }

    /// Whether everything read since `version` was of one state.
    pub(super) fn unchanged(&self, version: u64) -> bool {
        fence(Acquire);
        self.version.load(Relaxed) == version
    }

    /// Takes the latch if everything read since `version` still holds.
    #[must_use]
    pub(super) fn try_latch(&self, version: u64) -> bool {
        debug_assert!(version.is_multiple_of(2));
        let latched = self.version.compare_exchange(version, version + 1, Acquire, Relaxed).is_ok();
        fence(Release);
        latched
    }

    /// Releases the latch, which the caller holds.
    pub(super) fn unlatch(&self) {
        let version = self.version.load(Relaxed);
        assert!(!version.is_multiple_of(2), "only the holder releases a latch");
        self.version.store(version + 1, Release);
    }

    // Reading. Without the latch, results count only if the version is unchanged afterwards.

    pub(super) fn len(&self) -> usize {
        (self.meta.load(Relaxed) as usize & 0xFFFF).min(NODE_SLOTS)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == NODE_SLOTS
    }

    fn prefix_bytes(&self) -> usize {
        (self.meta.load(Relaxed) as usize >> 16).min(PREFIX_BYTES_MAX)
    }

    fn set_meta(&self, len: usize, prefix_bytes: usize) {
        debug_assert!(len <= NODE_SLOTS && prefix_bytes <= PREFIX_BYTES_MAX);
        self.meta.store((prefix_bytes << 16 | len) as u64, Relaxed);
    }

    pub(super) fn record(&self, index: usize) -> Option<Record<'_>> {
        let pointer = NonNull::new(self.slots.get(index)?.record.load(Acquire))?;
        // SAFETY: records are stored below with release ordering, and live as long as the arena, which outlives the
        // borrow of this node.
        Some(unsafe { Record::from_ptr(pointer) })
    }

    pub(super) fn child(&self, index: usize) -> *mut Node {
        self.children().get(index).map_or(null_mut(), |child| child.load(Acquire))
    }

    fn children(&self) -> &[AtomicPtr<Node>] {
        // SAFETY: written by `new` before the node could be shared; lives as long as the arena.
        self.children.map_or(&[], |children| unsafe { children.as_ref() })
    }

    /// How `key` compares with the shared prefix, and its head if it has the prefix.
    fn head(&self, key: &[u8]) -> Result<u64, Ordering> {
        let bytes = self.prefix_bytes();
        for (i, prefix) in self.prefix.iter().enumerate().take(bytes.div_ceil(8)) {
            let order = masked(word(key, 8 * i), bytes - 8 * i).cmp(&prefix.load(Relaxed));
            if order != Ordering::Equal {
                return Err(order);
            }
        }
        Ok(word(key, bytes))
    }

    /// Entries before `at` (with [`Count::AtOrBelow`]: and at it).
    pub(super) fn rank(&self, at: Position<'_>, count: Count) -> Rank {
        let len = self.len();
        let head = match self.head(at.key) {
            Ok(head) => head,
            Err(order) => {
                return Rank { index: if order == Ordering::Less { 0 } else { len }, maybe_equal: false };
            }
        };
        let mut index = self.heads_below(head, len);
        let mut maybe_equal = index < len && self.slots[index].head.load(Relaxed) == head;
        if maybe_equal {
            // Usually one; thousands of versions of one key fill whole nodes.
            let end = head.checked_add(1).map_or(len, |next| self.heads_below(next, len));
            let mut end = end.max(index);
            maybe_equal = false;
            while index < end {
                let middle = index.midpoint(end);
                let Some(record) = self.record(middle) else { break };
                let order = record.position().cmp(&at);
                if order == Ordering::Less || (count == Count::AtOrBelow && order == Ordering::Equal) {
                    index = middle + 1;
                } else {
                    end = middle;
                    maybe_equal = true;
                }
            }
        }
        Rank { index, maybe_equal }
    }

    /// Heads less than `head` among the first `len`, by a search without branches to mispredict.
    fn heads_below(&self, head: u64, len: usize) -> usize {
        let mut base = 0;
        let mut rest = len;
        while rest > 1 {
            let half = rest / 2;
            base += if self.slots[base + half - 1].head.load(Relaxed) < head { half } else { 0 };
            rest -= half;
        }
        base + usize::from(rest == 1 && self.slots[base].head.load(Relaxed) < head)
    }

    // Writing: the caller holds the latch, or no other thread knows the node.

    /// Puts `record` before entry `index`, or in its place if that has the same position.
    pub(super) fn put(&self, index: usize, record: Record<'_>) {
        debug_assert!(self.level == 0);
        if index < self.len() && self.record(index).map(Record::position) == Some(record.position()) {
            self.slots[index].record.store(record.as_ptr(), Release);
        } else {
            self.insert(index, record);
        }
    }

    /// Puts a separator before entry `index`, and `right` behind it.
    pub(super) fn put_child(&self, index: usize, separator: Record<'_>, right: &Node) {
        assert!(right.level + 1 == self.level);
        let children = self.children();
        for i in (index + 1..=self.len()).rev() {
            children[i + 1].store(children[i].load(Relaxed), Release);
        }
        children[index + 1].store(right.as_ptr(), Release);
        self.insert(index, separator);
    }

    /// Makes `child` the only child of an empty inner node.
    pub(super) fn put_only_child(&self, child: &Node) {
        assert!(child.level + 1 == self.level && self.len() == 0);
        self.children()[0].store(child.as_ptr(), Release);
    }

    fn insert(&self, index: usize, record: Record<'_>) {
        let len = self.len();
        assert!(index <= len && len < NODE_SLOTS, "the caller has split a full node");
        debug_assert!(index == 0 || self.record(index - 1).is_none_or(|r| r.position() < record.position()));
        debug_assert!(index == len || self.record(index).is_none_or(|r| r.position() > record.position()));
        let head = self.head(record.key()).unwrap_or_else(|_| {
            self.shorten_prefix(record.key());
            self.head(record.key()).expect("the prefix was cut to what this key shares")
        });
        for i in (index..len).rev() {
            let (from, to) = (&self.slots[i], &self.slots[i + 1]);
            to.head.store(from.head.load(Relaxed), Relaxed);
            to.record.store(from.record.load(Relaxed), Release);
        }
        self.slots[index].head.store(head, Relaxed);
        self.slots[index].record.store(record.as_ptr(), Release);
        self.set_meta(len + 1, self.prefix_bytes());
    }

    #[cold]
    fn shorten_prefix(&self, key: &[u8]) {
        let bytes = self.prefix_bytes();
        let shared = (0..bytes).take_while(|&i| {
            let ours = self.prefix[i / 8].load(Relaxed).to_be_bytes()[i % 8];
            key.get(i).copied().unwrap_or(0) == ours
        });
        let shared = shared.count();
        assert!(shared < bytes, "a key without the prefix differs in it");
        let mut start = [0; PREFIX_BYTES_MAX];
        for (bytes, word) in start.chunks_exact_mut(8).zip(&self.prefix) {
            bytes.copy_from_slice(&word.load(Relaxed).to_be_bytes());
        }
        self.set_prefix(&start[..shared]);
    }

    /// Sets the shared prefix, which all keys of the node have, and computes the heads anew.
    pub(super) fn set_prefix(&self, prefix: &[u8]) {
        assert!(prefix.len() <= PREFIX_BYTES_MAX);
        for (i, slot) in self.prefix.iter().enumerate() {
            slot.store(word(prefix, 8 * i), Relaxed);
        }
        let len = self.len();
        for slot in &self.slots[..len] {
            NonNull::new(slot.record.load(Relaxed)).inspect(|record| prefetch(record.cast(), 64));
        }
        for (index, slot) in self.slots[..len].iter().enumerate() {
            let record = self.record(index).expect("every entry has a record");
            slot.head.store(word(record.key(), prefix.len()), Relaxed);
        }
        self.set_meta(len, prefix.len());
    }

    /// Lengthens the shared prefix if that is worth the work.
    fn lengthen_prefix(&self) {
        let Some(last) = self.len().checked_sub(1) else { return };
        let (Some(first), Some(last)) = (self.record(0), self.record(last)) else { return };
        let shared = shared_bytes(first.key(), last.key());
        if last.as_ptr() != first.as_ptr() && shared >= self.prefix_bytes() + PREFIX_GAIN_MIN {
            self.set_prefix(&first.key()[..shared]);
        }
    }

    /// Moves the entries from `from` on to `right`, which is empty, and returns the separator between the two: the
    /// first entry that moved; an inner node keeps the child before it and passes on the entry itself.
    pub(super) fn move_upper(&self, from: usize, right: &Node) -> Record<'_> {
        let len = self.len();
        assert!(from < len && right.len() == 0 && right.level == self.level, "{from} of {len}");
        let separator = self.record(from).expect("every entry has a record");
        let first = if self.level == 0 { from } else { from + 1 };
        for (to, i) in (first..len).enumerate() {
            right.slots[to].head.store(self.slots[i].head.load(Relaxed), Relaxed);
            right.slots[to].record.store(self.slots[i].record.load(Relaxed), Release);
        }
        for (to, i) in (first..=len).enumerate().take_while(|_| self.level > 0) {
            right.children()[to].store(self.children()[i].load(Relaxed), Release);
        }
        for (to, from) in right.prefix.iter().zip(&self.prefix) {
            to.store(from.load(Relaxed), Relaxed);
        }
        right.set_meta(len - first, self.prefix_bytes());
        self.set_meta(from, self.prefix_bytes());
        right.lengthen_prefix();
        self.lengthen_prefix();
        separator
    }
}
