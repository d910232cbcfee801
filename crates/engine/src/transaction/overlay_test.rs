use super::{Overlay, Pending};
use crate::{BatchOp, Error, Family};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

const FAMILY: Family = Family::DEFAULT;

fn put(value: &str) -> Pending {
    Pending::Put(Bytes::copy_from_slice(value.as_bytes()))
}

fn find(overlay: &Overlay, key: &[u8]) -> Option<Option<Bytes>> {
    overlay.family(FAMILY)?.find(key, 0)
}

#[test]
fn the_last_write_of_a_key_counts_and_a_range_delete_drops_what_is_inside() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.write(FAMILY, b"a", put("1")).expect("small");
    overlay.write(FAMILY, b"a", put("2")).expect("small");
    overlay.write(FAMILY, b"b", put("3")).expect("small");
    overlay.write(FAMILY, b"d", Pending::Delete).expect("small");
    overlay.delete_range(FAMILY, b"b", b"d").expect("small");
    overlay.write(FAMILY, b"c", put("4")).expect("small");
    assert_eq!(find(&overlay, b"a"), Some(Some(Bytes::from("2"))));
    assert_eq!(find(&overlay, b"b"), Some(None), "in the deleted range");
    assert_eq!(find(&overlay, b"c"), Some(Some(Bytes::from("4"))), "put after the range was deleted");
    assert_eq!(find(&overlay, b"d"), Some(None));
    assert_eq!(find(&overlay, b"e"), None);
    assert!(overlay.has_written(FAMILY, b"bb") && !overlay.has_written(FAMILY, b"e"));
    let batch = overlay.batch();
    let ops: Vec<BatchOp<'_>> = batch.ops().collect();
    assert_eq!(
        ops,
        [
            BatchOp::DeleteRange { family: FAMILY, start: b"b", end: b"d" },
            BatchOp::Put { family: FAMILY, key: b"a", value: b"2" },
            BatchOp::Put { family: FAMILY, key: b"c", value: b"4" },
            BatchOp::Delete { family: FAMILY, key: b"d" },
        ]
    );
}

#[test]
fn an_expiring_put_is_absent_after_its_end() {
    let pending = Pending::PutExpiring(Bytes::from("v"), 10);
    assert_eq!(pending.value(9), Some(Bytes::from("v")));
    assert_eq!(pending.value(10), None);
}

#[test]
fn what_was_seen_is_read_and_not_written() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.see(FAMILY, Bytes::from("a"), Some(Bytes::from("new")));
    overlay.see(FAMILY, Bytes::from("b"), None);
    assert!(overlay.is_read_only() && overlay.batch().is_empty());
    assert_eq!(find(&overlay, b"a"), Some(Some(Bytes::from("new"))));
    assert_eq!(find(&overlay, b"b"), Some(None));
    let savepoint = overlay.savepoint();
    overlay.write(FAMILY, b"a", put("own")).expect("small");
    assert_eq!(find(&overlay, b"a"), Some(Some(Bytes::from("own"))));
    overlay.rollback_to(savepoint).expect("it is there");
    assert_eq!(find(&overlay, b"a"), Some(Some(Bytes::from("new"))), "the lock stays, and so does what it showed");
}

#[test]
fn a_savepoint_is_invalid_after_a_rollback_to_an_earlier_one() {
    let mut overlay = Overlay::new(1 << 20);
    let first = overlay.savepoint();
    let second = overlay.savepoint();
    overlay.rollback_to(first).expect("it is there");
    assert!(matches!(overlay.rollback_to(second), Err(Error::InvalidArgument(_))));
    let third = overlay.savepoint();
    assert_ne!(second, third, "a number is used once");
    overlay.rollback_to(first).expect("it stays");
}

#[test]
fn the_bound_names_its_option_and_leaves_everything_as_it_was() {
    let mut overlay = Overlay::new(4096);
    overlay.savepoint();
    overlay.write(FAMILY, b"a", put(&"x".repeat(3000))).expect("small");
    let before = overlay.bytes();
    let refused = overlay.write(FAMILY, b"b", put(&"x".repeat(3000)));
    assert!(matches!(refused, Err(Error::TransactionTooLarge { option: "write_bytes_max", limit: 4096 })));
    assert_eq!((overlay.bytes(), find(&overlay, b"b")), (before, None));
    overlay.write(FAMILY, b"a", put(&"y".repeat(3500))).expect("what it replaces is freed");
    // Also what only the undo log holds is counted.
    overlay.savepoint();
    assert!(overlay.write(FAMILY, b"a", put(&"z".repeat(1000))).is_err());
}

#[test]
fn a_key_written_again_and_again_after_a_savepoint_takes_no_more_memory() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.write(FAMILY, b"k", put("before")).expect("small");
    overlay.savepoint();
    overlay.write(FAMILY, b"k", put("0000")).expect("small");
    let bytes = overlay.bytes();
    for i in 1..1000 {
        overlay.write(FAMILY, b"k", put(&format!("{i:04}"))).expect("small");
    }
    assert_eq!(overlay.bytes(), bytes);
}

#[test]
fn an_iterators_part_stays_as_it_was() {
    let mut overlay = Overlay::new(1 << 20);
    overlay.write(FAMILY, b"a", put("1")).expect("small");
    let part = overlay.family(FAMILY).expect("written to").clone();
    overlay.write(FAMILY, b"a", put("2")).expect("small");
    overlay.delete_range(FAMILY, b"a", b"c").expect("small");
    assert_eq!(part.find(b"a", 0), Some(Some(Bytes::from("1"))));
    assert!(part.deleted().is_empty());
}

/// The model of a state: point writes, and the keys that are deleted by range.
type Model = (BTreeMap<u8, Option<u8>>, BTreeSet<u8>);

/// Random writes and savepoints against a stack of copies; the memory count returns with the state.
#[test]
fn savepoints_behave_as_a_stack_of_copies() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut overlay = Overlay::new(1 << 30);
        let mut model: Model = Model::default();
        let mut stack: Vec<(u64, Model, u64)> = Vec::new();
        for _ in 0..60 {
            let key = rng.below(12) as u8;
            match rng.below(8) {
                0..=2 => {
                    let value = rng.below(256) as u8;
                    overlay.write(FAMILY, &[key], Pending::Put(Bytes::from(vec![value]))).expect("small");
                    model.0.insert(key, Some(value));
                }
                3 => {
                    overlay.write(FAMILY, &[key], Pending::Delete).expect("small");
                    model.0.insert(key, None);
                }
                4 => {
                    let end = key + rng.below(5) as u8;
                    overlay.delete_range(FAMILY, &[key], &[end]).expect("small");
                    model.0.retain(|at, _| !(key..end).contains(at));
                    model.1.extend(key..end);
                }
                5 => stack.push((overlay.savepoint(), model.clone(), overlay.bytes())),
                _ => {
                    let Some(at) = (!stack.is_empty()).then(|| rng.below(stack.len() as u64) as usize) else {
                        continue;
                    };
                    stack.truncate(at + 1);
                    let (serial, before, bytes) = stack[at].clone();
                    overlay.rollback_to(serial).expect("it is on the stack");
                    model = before;
                    assert_eq!(overlay.bytes(), bytes, "seed {seed}");
                }
            }
            for key in 0..16u8 {
                let expected = match model.0.get(&key) {
                    Some(value) => Some(value.map(|value| Bytes::from(vec![value]))),
                    None => model.1.contains(&key).then_some(None),
                };
                assert_eq!(find(&overlay, &[key]), expected, "seed {seed}, key {key}");
            }
        }
    }
}
