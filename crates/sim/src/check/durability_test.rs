use super::check;
use crate::history::{Answer, History, Operation, Outcome};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

const DONE: Outcome = Outcome::Ok(Answer::Done);

fn write(history: &mut History, operation: Operation, outcome: Outcome) {
    let id = history.invoke(1, Bytes::from("k"), operation, Duration::ZERO);
    history.complete(id, outcome, Duration::ZERO);
}

fn put(value: &'static str) -> Operation {
    Operation::Put(Bytes::from(value))
}

fn state(value: Option<&'static str>) -> BTreeMap<Bytes, Bytes> {
    value.map(|value| (Bytes::from("k"), Bytes::from(value))).into_iter().collect()
}

#[test]
fn the_last_acknowledged_write_or_a_later_unknown_one_is_there() {
    let mut history = History::new();
    write(&mut history, put("a"), DONE);
    write(&mut history, put("b"), DONE);
    write(&mut history, put("c"), Outcome::Unknown);
    write(&mut history, put("d"), Outcome::Failed);
    let lost = |value| !check(&history, &state(value)).is_empty();
    assert!(!lost(Some("b")) && !lost(Some("c")));
    assert!(lost(Some("a")) && lost(None) && lost(Some("d")) && lost(Some("never written")));
}

#[test]
fn an_unknown_write_may_take_effect_late() {
    let mut history = History::new();
    write(&mut history, put("a"), Outcome::Unknown);
    write(&mut history, put("b"), DONE);
    assert!(check(&history, &state(Some("a"))).is_empty());
    assert!(!check(&history, &state(None)).is_empty());
}

#[test]
fn deletes_and_concurrent_writes_count() {
    let mut history = History::new();
    write(&mut history, put("a"), DONE);
    let slow = history.invoke(2, Bytes::from("k"), put("slow"), Duration::ZERO);
    write(&mut history, Operation::Delete, DONE);
    history.complete(slow, DONE, Duration::ZERO);
    let lost = |value| !check(&history, &state(value)).is_empty();
    assert!(!lost(None) && !lost(Some("slow")) && lost(Some("a")));
}

#[test]
fn a_key_nobody_touched_is_absent() {
    assert!(check(&History::new(), &state(None)).is_empty());
    assert_eq!(check(&History::new(), &state(Some("ghost"))).len(), 1);
}
