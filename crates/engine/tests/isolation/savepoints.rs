//! Savepoints against a stack of ordered maps.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Direction, Error, Family, Range};
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

#[test]
fn random_writes_and_rollbacks_behave_as_a_stack_of_maps() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let db = stepped(&SimMachine::from_seed(seed));
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let key = |n: u64| Bytes::from(format!("{n:02}"));
        for _ in 0..20 {
            let (key, value) = (key(rng.below(30)), Bytes::from(format!("{}", rng.below(1000))));
            db.put(&key, &value).expect("put");
            model.insert(key, value);
        }
        let mut transaction = db.transaction();
        let mut stack = Vec::new();
        for _ in 0..120 {
            let key = key(rng.below(30));
            match rng.below(8) {
                0..=2 => {
                    let value = Bytes::from(format!("{}", rng.below(1000)));
                    transaction.put(&key, &value).expect("small");
                    model.insert(key, value);
                }
                3 => {
                    transaction.delete(&key).expect("small");
                    model.remove(&key);
                }
                4 => {
                    let end = Bytes::from(format!("{:02}", rng.below(31)));
                    let (start, end) = if key <= end { (key, end) } else { (end, key) };
                    transaction.delete_range(Family::DEFAULT, &start..&end).expect("small");
                    model.retain(|key, _| !(start <= *key && *key < end));
                }
                5 => stack.push((transaction.savepoint(), model.clone())),
                6 => {
                    let Some(at) = (!stack.is_empty()).then(|| rng.below(stack.len() as u64) as usize) else {
                        continue;
                    };
                    let gone = stack.split_off(at + 1);
                    transaction.rollback_to(&stack[at].0).expect("it is on the stack");
                    model = stack[at].1.clone();
                    for (savepoint, _) in gone {
                        assert!(matches!(transaction.rollback_to(&savepoint), Err(Error::InvalidArgument(_))));
                    }
                }
                _ => assert_eq!(transaction.get(&key).expect("get"), model.get(&key).cloned(), "seed {seed}"),
            }
        }
        let expected: Vec<(Bytes, Bytes)> = model.into_iter().collect();
        let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
        assert_eq!(rest(&mut entries), expected, "seed {seed}");
        transaction.commit().expect("no other writer");
        let mut entries = db.transaction().entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
        assert!(entries_end(&mut entries), "an iterator ends with its transaction");
        let transaction = db.transaction();
        let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("opens");
        assert_eq!(rest(&mut entries), expected, "seed {seed}");
    }
}

fn entries_end(entries: &mut dyn kontiki_engine::Entries) -> bool {
    matches!(entries.next(), Some(Err(Error::InvalidArgument(_))))
}

#[test]
fn a_savepoint_belongs_to_its_transaction() {
    let db = stepped(&SimMachine::from_seed(1));
    let (mut one, mut other) = (db.transaction(), db.transaction());
    let savepoint = one.savepoint();
    assert!(matches!(other.rollback_to(&savepoint), Err(Error::InvalidArgument(_))));
    one.rollback_to(&savepoint).expect("its own");
}
