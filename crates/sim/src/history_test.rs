use super::{Answer, History, Operation, Outcome};
use bytes::Bytes;
use std::time::Duration;

#[test]
fn a_history_orders_events_and_prints_them() {
    let mut history = History::new();
    let key = Bytes::from("k");
    let put = history.invoke(1, key.clone(), Operation::Put(Bytes::from("a")), Duration::from_millis(1));
    let get = history.invoke(2, key.clone(), Operation::Get, Duration::from_millis(1));
    let running = history.invoke(3, key.clone(), Operation::Delete, Duration::from_millis(2));
    history.complete(get, Outcome::Ok(Answer::Value(None)), Duration::from_millis(2));
    history.complete(put, Outcome::Ok(Answer::Done), Duration::from_millis(3));
    let [a, b, c] = history.records() else { panic!("three operations") };
    assert!(a.invoked < b.invoked && b.completed < a.completed && c.completed == u64::MAX);
    assert_eq!((a.written(), a.observed()), (Some(Some(&Bytes::from("a"))), None));
    assert_eq!((b.written(), b.observed()), (None, Some(None)));
    assert_eq!((c.written(), c.effective_by()), (Some(None), u64::MAX));
    let text = history.to_string();
    assert!(text.contains("put \"a\" -> ok") && text.contains("get -> nothing") && text.contains("delete -> unknown"));
    history.complete(running, Outcome::Failed, Duration::from_millis(4));
    assert_eq!(history.records()[2].written(), None);
    assert_eq!(history.by_key()[&key].len(), 3);
}

#[test]
#[should_panic(expected = "ends once")]
fn an_operation_ends_once() {
    let mut history = History::new();
    let id = history.invoke(1, Bytes::new(), Operation::Get, Duration::ZERO);
    history.complete(id, Outcome::Failed, Duration::ZERO);
    history.complete(id, Outcome::Failed, Duration::ZERO);
}
