//! The memtable's tree under loom: every interleaving (with at most a few preemptions) of small scenes, with the
//! weak orders of memory that the language allows. The tree's own source is compiled over loom's types
//! (`shim.rs` in place of `memtable/sync.rs`), with nodes of two entries, so that three inserts split one.
//!
//! To show that mistakes would be found, the scenes are played again with one order of memory weakened at a time.
#![allow(dead_code, clippy::disallowed_methods, unsafe_code, reason = "the source of another crate, in part")]

#[path = "../../src/prefetch.rs"]
mod prefetch;
#[path = "shim.rs"]
mod sync;
#[path = "../../src/memtable/tree/mod.rs"]
mod tree;

use loom::thread;
use std::cell::Cell;
use std::sync::Arc;
use tree::{Arena, Position, Record, Tree, Walk};

/// What `shim.rs` leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Planted {
    Nothing,
    ReleaseOfPointers,
    ReleaseOfLatch,
    AcquireFence,
    ReleaseFence,
}

thread_local! {
    /// Loom runs all threads of a model on the thread of the test.
    static PLANTED: Cell<Planted> = const { Cell::new(Planted::Nothing) };
}

/// Plays a scene in every interleaving with at most so many preemptions. Most bugs of this kind need one or two; each
/// further one costs several times the time.
fn explore(preemptions_max: usize, scene: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions_max);
    builder.max_branches = 100_000;
    builder.check(scene);
}

fn new_tree(keys: &[&[u8]]) -> Arc<Tree> {
    let tree = Arc::new(Tree::new(Arc::new(Arena::default())));
    keys.iter().for_each(|key| insert(&tree, key));
    tree
}

fn insert(tree: &Tree, key: &[u8]) {
    tree.insert(Position { key, sequence: 5 }, 1, key);
}

/// Whether the key is there; what is there is whole.
fn has(tree: &Tree, key: &[u8]) -> bool {
    let found = tree.get(Position { key, sequence: 9 });
    found.inspect(|found| check(*found, key)).is_some()
}

fn check(record: Record<'_>, key: &[u8]) {
    assert_eq!((record.key(), record.sequence(), record.kind(), record.stored_slice()), (key, 5, 1, key));
}

fn walk(tree: &Arc<Tree>, backward: bool) -> Vec<Vec<u8>> {
    let mut walk = Walk::new(tree.clone(), backward);
    walk.seek_to_first();
    let mut keys = Vec::new();
    while let Some(record) = walk.current() {
        check(record, record.key());
        keys.push(record.key().to_vec());
        walk.advance();
    }
    if backward {
        keys.reverse();
    }
    assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "in order, each once");
    keys
}

/// One inserts before a key that another looks for. With `full`, that splits the root.
///
/// The reader is the thread that loom runs second: loom remembers one access of each value that it could
/// reorder, and a writer's own loads would hide those of a reader before it.
fn insert_beside_get(full: bool) {
    let tree = new_tree(if full { &[b"b", b"d"] } else { &[b"d"] });
    let reader = thread::spawn({
        let tree = tree.clone();
        move || {
            assert!(has(&tree, b"d"), "what was there stays there");
            has(&tree, b"a");
        }
    });
    insert(&tree, b"a");
    reader.join().expect("the reader ends");
    assert!(has(&tree, b"a") && has(&tree, b"d"));
}

/// One inserts into a full root while another walks.
fn split_beside_walk(backward: bool) {
    let tree = new_tree(&[b"b", b"d"]);
    let reader = thread::spawn({
        let tree = tree.clone();
        move || {
            let keys = walk(&tree, backward);
            assert!([b"b", b"d"].iter().all(|key| keys.contains(&key.to_vec())), "{keys:?}");
        }
    });
    insert(&tree, b"c");
    reader.join().expect("the reader ends");
    assert_eq!(walk(&tree, backward).len(), 3);
}

/// Two insert, into one leaf or into a full one.
fn two_inserts(before: &[&[u8]], one: &'static [u8], other: &'static [u8]) {
    let tree = new_tree(before);
    let writer = thread::spawn({
        let tree = tree.clone();
        move || insert(&tree, one)
    });
    insert(&tree, other);
    writer.join().expect("the writer ends");
    assert!(has(&tree, one) && has(&tree, other) && before.iter().all(|key| has(&tree, key)));
    assert_eq!(walk(&tree, false).len(), before.len() + if one == other { 1 } else { 2 });
}

/// One inserts a key behind a full leaf that is not the last, which makes the key the separator of a new leaf; another
/// looks for the same key at the newest number, which leads to the full leaf first and from there to the new one. With
/// `other`, the new leaf holds a later key by then.
fn insert_beside_get_of_the_separator(other: bool) {
    let tree = new_tree(&[b"a", b"b", b"d"]);
    let reader = thread::spawn({
        let tree = tree.clone();
        move || {
            if other {
                insert(&tree, b"cc");
            }
            has(&tree, b"c");
        }
    });
    insert(&tree, b"c");
    reader.join().expect("the reader ends");
    assert!([b"a", b"b", b"c", b"d"].iter().all(|key| has(&tree, *key)) && has(&tree, b"cc") == other);
}

#[test]
fn a_get_beside_an_insert() {
    explore(2, || insert_beside_get(false));
}

#[test]
fn a_get_beside_a_split() {
    explore(1, || insert_beside_get(true));
}

#[test]
fn a_get_of_the_key_that_splits() {
    explore(2, || insert_beside_get_of_the_separator(false));
    explore(1, || insert_beside_get_of_the_separator(true));
}

#[test]
fn walks_beside_a_split() {
    explore(2, || split_beside_walk(false));
    explore(2, || split_beside_walk(true));
}

#[test]
fn two_inserts_into_one_leaf() {
    explore(2, || two_inserts(&[], b"a", b"b"));
    explore(2, || two_inserts(&[], b"a", b"a"));
}

#[test]
fn two_inserts_that_split() {
    explore(2, || two_inserts(&[b"b", b"d"], b"a", b"e"));
}

/// Whether one of the scenes finds the mistake. Loom's report of it is written to the standard error.
fn found(planted: Planted) -> bool {
    PLANTED.set(planted);
    let scenes: [fn(); 4] = [
        || insert_beside_get(false),
        || insert_beside_get(true),
        || split_beside_walk(false),
        || two_inserts(&[], b"a", b"b"),
    ];
    scenes.into_iter().any(|scene| std::panic::catch_unwind(|| explore(1, scene)).is_err())
}

#[test]
fn a_pointer_published_without_release_is_found() {
    assert!(found(Planted::ReleaseOfPointers));
}

#[test]
fn a_latch_given_back_without_release_is_found() {
    assert!(found(Planted::ReleaseOfLatch));
}

#[test]
fn a_validation_without_its_fence_is_found() {
    assert!(found(Planted::AcquireFence));
}

#[test]
fn a_latch_taken_without_its_fence_is_found() {
    assert!(found(Planted::ReleaseFence));
}
