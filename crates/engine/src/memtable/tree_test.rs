use super::tree::{Arena, Position, Record, Tree, Walk};
use kontiki_env::rng::Rng;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

/// As in `tree/record.rs`: the test below finds the bound there.
const LARGE_BYTES: usize = 4 << 10;

type Entry = ((Vec<u8>, Reverse<u64>), (u8, Vec<u8>));
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), (u8, Vec<u8>)>;

fn tree() -> Arc<Tree> {
    Arc::new(Tree::new(Arc::new(Arena::default())))
}

fn entry(record: Record<'_>) -> Entry {
    let key = (record.key().to_vec(), Reverse(record.sequence()));
    assert_eq!(record.stored(), record.stored_slice());
    (key, (record.kind(), record.stored_slice().to_vec()))
}

/// What a walk meets from where it stands, in order.
fn rest(walk: &mut Walk) -> Vec<Entry> {
    let mut out = Vec::new();
    while let Some(record) = walk.current() {
        out.push(entry(record));
        walk.advance();
    }
    out
}

fn check(tree: &Arc<Tree>, model: &Model, lookups: &[(Vec<u8>, u64)]) {
    for (key, sequence) in lookups {
        let at = Position { key, sequence: *sequence };
        let from = (key.clone(), Reverse(*sequence));
        let expected = model.range(from.clone()..).next().filter(|((found, _), _)| found == key);
        let expected = expected.map(|(key, value)| (key.clone(), value.clone()));
        assert_eq!(tree.get(at).map(entry), expected, "get {key:?} at {sequence}");
        let mut forward = Walk::new(tree.clone(), false);
        forward.seek(at);
        let expected: Vec<_> = model.range(from.clone()..).map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(rest(&mut forward), expected);
        let mut backward = Walk::new(tree.clone(), true);
        backward.seek(at);
        let expected: Vec<_> = model.range(..=from).rev().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(rest(&mut backward), expected);
    }
    let mut forward = Walk::new(tree.clone(), false);
    forward.seek_to_first();
    assert!(rest(&mut forward).into_iter().eq(model.clone()));
    let mut backward = Walk::new(tree.clone(), true);
    backward.seek_to_first();
    assert!(rest(&mut backward).into_iter().eq(model.clone().into_iter().rev()));
}

/// Keys that share prefixes of all lengths, are prefixes of each other, and hold zeros where padding would be.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..12);
    (0..60usize, prop_oneof![Just(b'a'), Just(0)], tail).prop_map(|(shared, byte, tail)| {
        let mut key = vec![byte; shared / 10 * 10];
        key.extend(tail);
        key
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_an_ordered_map(
        entries in prop::collection::vec((keys(), 1..6u64, any::<u8>(), 0..20usize), 0..400),
        lookups in prop::collection::vec((keys(), 0..7u64), 20),
    ) {
        let tree = tree();
        let mut model = Model::new();
        for (i, (key, sequence, kind, length)) in entries.into_iter().enumerate() {
            let stored = vec![i as u8; length];
            tree.insert(Position { key: &key, sequence }, kind, &stored);
            model.insert((key, Reverse(sequence)), (kind, stored));
        }
        check(&tree, &model, &lookups);
    }
}

#[test]
fn ascending_descending_and_many_versions_of_one_key() {
    let orders: [fn(u64) -> (u64, u64); 3] = [|i| (i, 1), |i| (9_999 - i, 1), |i| (7, i + 1)];
    for order in orders {
        let tree = tree();
        let mut model = Model::new();
        for i in 0..3_000 {
            let (key, sequence) = order(i);
            let key = format!("a key with a long prefix, longer than a node keeps, {key:06}").into_bytes();
            tree.insert(Position { key: &key, sequence }, 1, &i.to_le_bytes());
            model.insert((key, Reverse(sequence)), (1, i.to_le_bytes().to_vec()));
        }
        let some: Vec<_> = model.keys().step_by(500).map(|(key, sequence)| (key.clone(), sequence.0)).collect();
        check(&tree, &model, &some);
    }
}

#[test]
fn large_values_are_shared_and_outlive_the_tree() {
    let arena = Arc::new(Arena::default());
    let tree = Tree::new(arena.clone());
    let large: Vec<u8> = (0..LARGE_BYTES * 3).map(|i| i as u8).collect();
    let before = arena.footprint_bytes();
    for (sequence, bytes) in [(1, large.len()), (2, LARGE_BYTES), (3, LARGE_BYTES - 1), (4, 0)] {
        tree.insert(Position { key: b"k", sequence }, 2, &large[..bytes]);
        let record = tree.get(Position { key: b"k", sequence }).expect("it was inserted");
        assert_eq!((record.kind(), record.sequence(), record.key()), (2, sequence, &b"k"[..]));
        assert_eq!(record.stored(), &large[..bytes]);
        let shared = std::ptr::eq(record.stored().as_ptr(), record.stored_slice().as_ptr());
        assert_eq!(shared, bytes >= LARGE_BYTES);
    }
    assert!(arena.footprint_bytes() >= before + large.len() + LARGE_BYTES);
    // A key of the largest length takes a separate chunk.
    let key = vec![1; 64 << 10];
    tree.insert(Position { key: &key, sequence: 1 }, 1, b"v");
    assert_eq!(tree.get(Position { key: &key, sequence: 9 }).map(|record| record.key().len()), Some(key.len()));
    let kept = tree.get(Position { key: b"k", sequence: 1 }).expect("it was inserted").stored();
    drop((tree, arena));
    assert_eq!(kept, large);
}

/// Writers insert versions of shared keys and say how far they are; readers must find everything that was said to be
/// there, in both directions, meanwhile. At the end everything is there.
#[test]
fn writers_and_readers_at_once() {
    const WRITERS: u64 = 4;
    const VERSIONS: u64 = 4_000;
    let key = |writer: u64, i: u64| {
        let mut rng = Rng::new(writer << 32 | i);
        // Half of the keys ascend, the other half is anywhere among them.
        let number = if i.is_multiple_of(2) { i * 1000 } else { rng.next_u64() % (VERSIONS * 1000) };
        format!("key{number:08}").into_bytes()
    };
    let tree = tree();
    let done: [AtomicU64; WRITERS as usize] = Default::default();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (tree, done) = (&tree, &done);
            scope.spawn(move || {
                for i in 0..VERSIONS {
                    let sequence = i * WRITERS + writer + 1;
                    tree.insert(Position { key: &key(writer, i), sequence }, 1, &sequence.to_le_bytes());
                    done[writer as usize].store(i + 1, Release);
                }
            });
        }
        for reader in 0..2 {
            let (tree, done) = (&tree, &done);
            scope.spawn(move || {
                let mut rng = Rng::new(reader);
                while done.iter().any(|done| done.load(Acquire) < VERSIONS) {
                    let writer = rng.next_u64() % WRITERS;
                    let until = done[writer as usize].load(Acquire);
                    let Some(i) = rng.next_u64().checked_rem(until) else { continue };
                    let (key, sequence) = (key(writer, i), i * WRITERS + writer + 1);
                    let at = Position { key: &key, sequence };
                    let record = tree.get(at).expect("it was there");
                    assert_eq!((record.position(), record.stored_slice()), (at, &sequence.to_le_bytes()[..]));
                    let mut walk = Walk::new(tree.clone(), reader == 1);
                    walk.seek(at);
                    assert_eq!(walk.current().map(Record::position), Some(at));
                    let mut last = at;
                    let steps: Vec<_> = (0..100)
                        .map_while(|_| {
                            walk.advance();
                            walk.current().map(|record| (record.key().to_vec(), record.sequence()))
                        })
                        .collect();
                    for (key, sequence) in &steps {
                        let next = Position { key, sequence: *sequence };
                        assert!(if reader == 1 { next < last } else { next > last }, "walks go one way");
                        last = next;
                    }
                }
            });
        }
    });
    let mut model = Model::new();
    for (writer, i) in (0..WRITERS).flat_map(|writer| (0..VERSIONS).map(move |i| (writer, i))) {
        let sequence = i * WRITERS + writer + 1;
        model.insert((key(writer, i), Reverse(sequence)), (1, sequence.to_le_bytes().to_vec()));
    }
    check(&tree, &model, &[]);
}
