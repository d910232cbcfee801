//! Iterators of transactions against an ordered map: both directions, ranges, seeks, and writes meanwhile.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Entries, Error, Family, Range, ReadOptions, Transaction};
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

type Map = BTreeMap<Bytes, Bytes>;

fn key(n: u64) -> Bytes {
    Bytes::from(format!("{n:02}"))
}

fn random_range(rng: &mut Rng) -> Range {
    let (a, b) = (key(rng.below(40)), key(rng.below(40)));
    let (start, end) = if a <= b { (a, b) } else { (b, a) };
    Range { start: rng.chance(2, 3).then_some(start), end: rng.chance(2, 3).then_some(end) }
}

fn change(rng: &mut Rng, transaction: &mut Transaction, map: &mut Map) {
    let at = key(rng.below(40));
    match rng.below(6) {
        0..=2 => {
            let value = Bytes::from(format!("own {}", rng.below(1000)));
            transaction.put(&at, &value).expect("small");
            map.insert(at, value);
        }
        3 | 4 => {
            transaction.delete(&at).expect("small");
            map.remove(&at);
        }
        _ => {
            let end = key(rng.below(41));
            if at <= end {
                transaction.delete_range(Family::DEFAULT, &at..&end).expect("small");
                map.retain(|key, _| !(at <= *key && *key < end));
            }
        }
    }
}

fn expected(map: &Map, range: &Range, direction: Direction, from: Option<&Bytes>) -> Vec<(Bytes, Bytes)> {
    let beyond = |key: &Bytes| match direction {
        Direction::Forward => from.is_none_or(|from| key >= from),
        Direction::Backward => from.is_none_or(|from| key <= from),
    };
    let inside = map.iter().filter(|(key, _)| range.contains(key) && beyond(key));
    let mut entries: Vec<_> = inside.map(|(key, value)| (key.clone(), value.clone())).collect();
    if direction == Direction::Backward {
        entries.reverse();
    }
    entries
}

fn base(db: &Db, rng: &mut Rng) -> Map {
    let mut map = Map::new();
    for _ in 0..60 {
        let (key, value) = (key(rng.below(40)), Bytes::from(format!("{:0>60}", rng.below(1000))));
        if rng.chance(1, 4) {
            db.delete(&key).expect("delete");
            map.remove(&key);
        } else {
            db.put(&key, &value).expect("put");
            map.insert(key, value);
        }
    }
    map
}

#[test]
fn every_range_direction_and_seek_agrees_with_a_map() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let db = stepped(&SimMachine::from_seed(seed));
        let mut map = base(&db, &mut rng);
        let mut transaction = db.transaction();
        for _ in 0..60 {
            for _ in 0..rng.below(4) {
                change(&mut rng, &mut transaction, &mut map);
            }
            let range = random_range(&mut rng);
            let direction = *rng.pick(&[Direction::Forward, Direction::Backward]).expect("two");
            let context = format!("seed {seed}, {range:?}, {direction:?}");
            let keys_only: Vec<_> =
                expected(&map, &range, direction, None).into_iter().map(|(key, _)| (key, Bytes::new())).collect();
            let mut keys = transaction
                .entries_with(Family::DEFAULT, range.clone(), direction, ReadOptions::key_only())
                .expect("opens");
            assert_eq!(rest(&mut keys), keys_only, "{context}");
            let mut entries = transaction.entries(Family::DEFAULT, range.clone(), direction).expect("opens");
            if rng.chance(1, 2) {
                assert_eq!(rest(&mut entries), expected(&map, &range, direction, None), "{context}");
                assert_eq!(entries.next().transpose().expect("at its end"), None);
            }
            for _ in 0..3 {
                let from = if rng.chance(1, 8) { Bytes::new() } else { key(rng.below(42)) };
                entries.seek(&from).expect("seek");
                let expected = expected(&map, &range, direction, Some(&from));
                let shown = rng.below(expected.len() as u64 + 2) as usize;
                for entry in expected.iter().take(shown) {
                    assert_eq!(
                        entries.next().transpose().expect("next").as_ref(),
                        Some(entry),
                        "{context}, from {from:?}"
                    );
                }
                if shown > expected.len() {
                    assert_eq!(entries.next().transpose().expect("next"), None, "{context}, from {from:?}");
                }
            }
        }
    }
}

#[test]
fn writes_of_the_transaction_do_not_show_in_iterators_that_live() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let db = stepped(&SimMachine::from_seed(seed));
        let mut map = base(&db, &mut rng);
        let mut transaction = db.transaction();
        for _ in 0..10 {
            change(&mut rng, &mut transaction, &mut map);
        }
        let direction = *rng.pick(&[Direction::Forward, Direction::Backward]).expect("two");
        let mut entries = transaction.entries(Family::DEFAULT, Range::all(), direction).expect("opens");
        for entry in expected(&map.clone(), &Range::all(), direction, None) {
            assert_eq!(entries.next().transpose().expect("next"), Some(entry), "seed {seed}");
            change(&mut rng, &mut transaction, &mut map);
        }
        assert_eq!(entries.next().transpose().expect("next"), None, "seed {seed}");
        let mut fresh = transaction.entries(Family::DEFAULT, Range::all(), direction).expect("opens");
        assert_eq!(rest(&mut fresh), expected(&map, &Range::all(), direction, None), "a new one shows them");
    }
}

#[test]
fn a_loop_that_writes_what_it_iterates_over_ends() {
    let db = stepped(&SimMachine::from_seed(1));
    for i in 0..10 {
        db.put(key(i), b"v").expect("put");
    }
    let mut transaction = db.transaction();
    let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
    let mut steps = 0;
    while let Some((key, value)) = entries.next().transpose().expect("next") {
        steps += 1;
        transaction.put([&key[..], b"+"].concat(), &value).expect("small");
    }
    assert_eq!((steps, dump(&transaction).len()), (10, 20));
}

#[test]
fn an_iterator_ends_with_its_transaction() {
    let db = stepped(&SimMachine::from_seed(2));
    db.put(b"a", b"v").expect("put");
    for commit in [true, false] {
        let transaction = db.transaction();
        let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
        if commit {
            transaction.commit().expect("it only reads");
        } else {
            drop(transaction);
        }
        assert!(matches!(entries.next(), Some(Err(Error::InvalidArgument(_)))));
        assert!(matches!(entries.seek(b"a"), Err(Error::InvalidArgument(_))));
    }
    let transaction = db.transaction();
    let upside_down = Range { start: Some(key(2)), end: Some(key(1)) };
    let mut none = transaction.entries(Family::DEFAULT, upside_down, Direction::Forward).expect("no range is refused");
    assert_eq!(none.next().transpose().expect("readable"), None, "it has no keys");
}
