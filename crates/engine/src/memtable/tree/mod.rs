//! The ordered map of a memtable's family: a B+-tree in an arena, with optimistic latches.
//!
//! Keys are (user key ascending, sequence number descending); a key is never removed. Many threads insert at once,
//! readers take no latch and write no shared memory. Everything is in the arena: records are written once and
//! never move, so a borrowed record stays valid as long as the tree; nodes are never freed before it.
//!
//! **Reading** descends from the root to a leaf. At each node the reader loads the version, finds the child, loads the
//! child's version and only then checks whether the node is unchanged: so the child was the right one at a moment when
//! it had that version. If anything changed the search starts again.
//!
//! **Inserting** reads in the same way, and latches the leaf only once the place is found: by a compare-and-swap from
//! the version at which it was found. A full node on the way is split first, with its parent latched; the parent has
//! space, because full nodes are split from the top down. Latches are only tried, never waited for while another is
//! held. Under a latch nothing is requested from the system except an occasional chunk of memory.
//!
//! **Walking** copies the pointers of a leaf (one consistent state), and continues with the separator that bounded
//! it. There are no links between leaves to maintain; a descent through nodes that are in the processor's cache
//! costs a leaf's worth of entries a few nanoseconds each.
//!
//! Why a tree and not a skip list, with the measurements: docs/internals/memtable.md.

mod arena;
mod node;
mod record;
mod walk;

pub(super) use arena::Arena;
pub(super) use record::{Position, Record};
pub(super) use walk::Walk;

use super::sync::{AtomicPtr, NODE_SLOTS, relax};
use node::{Count, Node, shared_bytes};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

/// See the head of this file.
pub(super) struct Tree {
    root: AtomicPtr<Node>,
    /// Everything that `root` leads to lies in it.
    arena: Arc<Arena>,
}

/// A leaf and what was known of it.
struct Leaf<'t> {
    node: &'t Node,
    /// Read before the way to it was checked for the last time.
    version: u64,
    /// The greatest separator at or below everything in the leaf, if it is not the first.
    low: Option<Record<'t>>,
    /// The least separator above everything in the leaf, if it is not the last.
    high: Option<Record<'t>>,
}

/// What a leaf contains about a position.
enum Found<'t> {
    /// The first entry at or behind it, perhaps of another key.
    Here(Record<'t>),
    /// Everything at or behind it is beyond this separator.
    Beyond(Record<'t>),
}

/// Which leaf a descent looks for.
#[derive(Clone, Copy)]
enum Target<'k> {
    First,
    Last,
    /// The one that holds, or would hold, this position.
    At(Position<'k>),
    /// The one that holds what comes right before this position.
    Before(Position<'k>),
}

impl Target<'_> {
    fn child(self, node: &Node) -> usize {
        match self {
            Target::First => 0,
            Target::Last => node.len(),
            Target::At(at) => node.rank(at, Count::AtOrBelow).index,
            Target::Before(at) => node.rank(at, Count::Below).index,
        }
    }
}

impl Tree {
    /// An empty tree in `arena`.
    pub(super) fn new(arena: Arc<Arena>) -> Tree {
        let root = AtomicPtr::new(Node::new(&arena, 0).as_ptr());
        Tree { root, arena }
    }

    /// Inserts a version. The same position again replaces kind and stored bytes.
    pub(super) fn insert(&self, at: Position<'_>, kind: u8, stored: &[u8]) {
        let mut record = None;
        let mut tries = 0;
        let write = || Record::write(&self.arena, at, kind, stored);
        while self.try_insert(at, &mut record, &write).is_none() {
            relax(tries);
            tries += 1;
        }
    }

    /// The newest version of `key` at or below `sequence`.
    pub(super) fn get(&self, at: Position<'_>) -> Option<Record<'_>> {
        let found = self.optimistic(|| self.try_find(at))?;
        match found {
            Found::Here(record) => (record.key() == at.key).then_some(record),
            // All versions in the leaf are newer; the next leaf begins with the separator's position.
            Found::Beyond(separator) if separator.key() == at.key => {
                let found = self.optimistic(|| self.try_find(separator.position()))?;
                let Found::Here(record) = found else { unreachable!("the leaf of a separator holds its position") };
                debug_assert!(record.key() == at.key);
                Some(record)
            }
            Found::Beyond(_) => None,
        }
    }

    fn optimistic<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        let mut tries = 0;
        loop {
            if let Some(result) = attempt() {
                return result;
            }
            relax(tries);
            tries += 1;
        }
    }

    /// `None`: try again. `Some(None)`: the leaf has no such version.
    fn try_find(&self, at: Position<'_>) -> Option<Option<Found<'_>>> {
        let leaf = self.descend(Target::At(at))?;
        let rank = leaf.node.rank(at, Count::Below);
        let found = if rank.index == leaf.node.len() {
            leaf.high.map(Found::Beyond)
        } else if rank.maybe_equal {
            leaf.node.record(rank.index).map(Found::Here)
        } else {
            None
        };
        leaf.node.unchanged(leaf.version).then_some(found)
    }

    fn load_root(&self) -> &Node {
        // SAFETY: the root is a node of our arena, stored with release ordering.
        unsafe { Node::from_ptr(self.root.load(Acquire)) }.expect("a tree has a root")
    }

    /// The root and its version, at a moment when it was the root.
    fn enter(&self) -> Option<(&Node, u64)> {
        let root = self.load_root();
        let version = root.rest_version();
        // A root is replaced under its latch: if it still is the root, it was at this version.
        std::ptr::eq(self.root.load(Acquire), root).then_some((root, version))
    }

    /// The child and its version, at a moment when it was this child of `node`, which had `version`.
    fn step(&self, node: &Node, version: u64, child: *mut Node) -> Option<(&Node, u64)> {
        // SAFETY: children are nodes of our arena, stored with release ordering and loaded with acquire.
        let child = unsafe { Node::from_ptr(child) }?;
        let child_version = child.rest_version();
        node.unchanged(version).then_some((child, child_version))
    }

    /// Descends to a leaf. `None` if something changed on the way.
    fn descend(&self, target: Target<'_>) -> Option<Leaf<'_>> {
        let (mut node, mut version) = self.enter()?;
        let (mut low, mut high) = (None, None);
        while node.level() > 0 {
            let index = target.child(node);
            let child = node.child(index);
            Node::prefetch(child);
            if index < node.len() {
                high = node.record(index);
            }
            if index > 0 {
                low = node.record(index - 1);
            }
            (node, version) = self.step(node, version, child)?;
        }
        Some(Leaf { node, version, low, high })
    }

    /// `None` if something changed on the way, or a node had to be split first.
    fn try_insert<'t>(
        &'t self,
        at: Position<'_>,
        record: &mut Option<Record<'t>>,
        write: &dyn Fn() -> Record<'t>,
    ) -> Option<()> {
        let mut parent = None;
        let (mut node, mut version) = self.enter()?;
        while node.level() > 0 {
            if node.is_full() {
                self.split(parent, node, version, None);
                return None;
            }
            let child = node.child(node.rank(at, Count::AtOrBelow).index);
            Node::prefetch(child);
            if node.level() == 1 {
                // The leaf is being fetched from memory; the record is written meanwhile.
                record.get_or_insert_with(write);
            }
            parent = Some((node, version));
            (node, version) = self.step(node, version, child)?;
        }
        let record = *record.get_or_insert_with(write);
        if node.is_full() {
            return self.split(parent, node, version, Some(record));
        }
        let index = node.rank(at, Count::Below).index;
        if !node.try_latch(version) {
            return None;
        }
        node.put(index, record);
        node.unlatch();
        Some(())
    }

    /// Splits a full node: moves its upper half to a new one; `coming` is what a leaf needs space for, and is
    /// in one of the two before a reader can see either. `None`, and nothing done, if one of the nodes has changed.
    /// `parent`, if there is one, has space for another child.
    fn split(&self, parent: Option<(&Node, u64)>, node: &Node, version: u64, coming: Option<Record<'_>>) -> Option<()> {
        if let Some((parent, version)) = parent
            && !parent.try_latch(version)
        {
            return None;
        }
        let latched = node.try_latch(version);
        if latched {
            let right = Node::new(&self.arena, node.level());
            let separator = divide(node, right, coming);
            match parent {
                Some((parent, _)) => {
                    let index = parent.rank(separator.position(), Count::Below).index;
                    parent.put_child(index, separator, right);
                }
                None => {
                    assert!(std::ptr::eq(self.load_root(), node), "only the root has no parent");
                    let root = Node::new(&self.arena, node.level() + 1);
                    root.put_only_child(node);
                    root.put_child(0, separator, right);
                    self.root.store(root.as_ptr(), Release);
                }
            }
            node.unlatch();
        }
        if let Some((parent, _)) = parent {
            parent.unlatch();
        }
        latched.then_some(())
    }
}

/// Moves a part of a full node to an empty one, puts `coming` into the one where it belongs, and returns the separator.
/// Where keys come in ascending order, the left one stays full.
///
/// A leaf always holds the record at the position of the separator before it: [`Tree::get`] relies on that. So a record
/// that becomes a separator must be in its leaf before the separator can be seen.
fn divide<'t>(node: &'t Node, right: &Node, coming: Option<Record<'t>>) -> Record<'t> {
    assert!(node.is_full());
    let Some(coming) = coming else { return node.move_upper(NODE_SLOTS / 2, right) };
    let last = node.record(NODE_SLOTS - 1).expect("a full node has its last entry");
    let separator = if coming.position() > last.position() {
        let first = node.record(0).expect("a full node has its first entry");
        right.set_prefix(&coming.key()[..shared_bytes(first.key(), coming.key())]);
        coming
    } else {
        node.move_upper(NODE_SLOTS / 2, right)
    };
    let half = if coming.position() < separator.position() { node } else { right };
    half.put(half.rank(coming.position(), Count::Below).index, coming);
    separator
}
