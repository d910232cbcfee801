use super::*;
use futures::FutureExt;

fn next(wait: &mut LockWait) -> Option<News> {
    wait.now_or_never()
}

fn turn(wait: &mut LockWait) -> Turn {
    match next(wait) {
        Some(News::Turn(turn)) => turn,
        other => panic!("its turn, not {other:?}"),
    }
}

fn enter(waits: &LockWaits, key: &'static str) -> LockWait {
    waits.enter(&key.into(), Some(TimeStamp(1)), None).unwrap()
}

#[test]
fn first_come_first_served() {
    let waits = LockWaits::default();
    let (mut first, mut second) = (enter(&waits, "k"), enter(&waits, "k"));
    let mut elsewhere = enter(&waits, "other");
    assert!(next(&mut first).is_none());
    waits.released(&lock_key(b"k"));
    assert!(matches!(next(&mut second), Some(News::Holder(None))), "it is known that the first has the turn");
    let mut turn_of_first = turn(&mut first);
    drop(first);
    assert!(waits.turn_of_another(&["k".into()], None).is_some(), "a newcomer queues up");
    assert!(waits.turn_of_another(&["k".into()], Some(&turn_of_first)).is_none());
    assert!(next(&mut second).is_none());
    waits.locked(&lock_key(b"k"), TimeStamp(7));
    turn_of_first.locked();
    drop(turn_of_first);
    assert!(matches!(next(&mut second), Some(News::Holder(Some(TimeStamp(7))))));
    assert!(next(&mut second).is_none(), "it waits for the first now");
    waits.released(&lock_key(b"k"));
    drop(turn(&mut second));
    assert!(next(&mut elsewhere).is_none());
    drop((second, elsewhere));
    assert_eq!(waits.len(), 0);
    assert!(waits.state.lock().queues.is_empty());
}

#[test]
fn a_turn_that_is_not_used_passes_on() {
    let waits = LockWaits::default();
    let (first, mut second, third) = (enter(&waits, "k"), enter(&waits, "k"), enter(&waits, "k"));
    waits.released(&lock_key(b"k"));
    drop(first); // Its client gave up before it learned of its turn.
    let turn_of_second = turn(&mut second);
    drop(second);
    drop(turn_of_second); // A conflict.
    drop(third);
    assert!(waits.state.lock().queues.is_empty());
}

#[test]
fn one_that_must_wait_again_stays_in_front() {
    let waits = LockWaits::default();
    let (mut first, mut second) = (enter(&waits, "k"), enter(&waits, "k"));
    waits.released(&lock_key(b"k"));
    let turn_of_first = turn(&mut first);
    drop(first);
    // Another transaction has prewritten the key.
    let mut first = waits.enter(&"k".into(), Some(TimeStamp(9)), Some(turn_of_first)).unwrap();
    waits.released(&lock_key(b"k"));
    drop(turn(&mut first));
    drop(first);
    drop(turn(&mut second));
}
