//! Commits that do not block.

use super::support::*;
use kontiki_engine::{Error, Family};
use kontiki_env::SimMachine;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn the_answer_comes_when_the_world_gets_on_and_locks_are_held_until_then() {
    let machine = SimMachine::from_seed(1);
    let db = stepped(&machine);
    let (sender, receiver) = mpsc::channel();
    let submit = |key: &[u8]| {
        let mut transaction = db.transaction();
        transaction.put(key, b"v").expect("small");
        let sender = sender.clone();
        transaction.submit(Box::new(move |result| sender.send(result).expect("received")));
    };
    submit(b"a");
    assert!(receiver.try_recv().is_err(), "no group was written yet");
    assert_eq!((db.stats().transactions.active, db.stats().transactions.locks), (1, 1));
    submit(b"a");
    let refused = receiver.try_recv().expect("answered at once").expect_err("the key is being written");
    assert!(matches!(refused, Error::Conflict { .. }));
    machine.tasks.run_until_idle(1000);
    let sequence = receiver.try_recv().expect("answered").expect("commit");
    assert_eq!(db.snapshot().sequence(), sequence);
    // One without writes has nothing to wait for.
    let answers = sender.clone();
    db.transaction().submit(Box::new(move |result| answers.send(result).expect("received")));
    assert_eq!(receiver.try_recv().expect("answered").expect("it only reads"), sequence);
    let stats = db.stats().transactions;
    assert_eq!((stats.active, stats.locks, stats.committed, stats.conflicts), (0, 0, 2, 1));
}

#[test]
fn many_in_flight_are_answered_each_once_and_those_that_overlap_conflict() {
    let db = threaded(2);
    let (sender, receiver) = mpsc::channel();
    let committed = Arc::new(AtomicU64::new(0));
    const EACH: u64 = 200;
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let (db, sender, committed) = (&db, sender.clone(), &committed);
            scope.spawn(move || {
                for i in 0..EACH {
                    let mut transaction = db.transaction();
                    // One private key, one that all threads contend for.
                    transaction.put_in(OTHER, [thread as u8, i as u8], b"v").expect("small");
                    transaction.put(b"shared", b"v").expect("small");
                    let (sender, committed) = (sender.clone(), committed.clone());
                    transaction.submit(Box::new(move |result| {
                        match result {
                            Ok(_) => _ = committed.fetch_add(1, Ordering::Relaxed),
                            Err(Error::Conflict { family: Family::DEFAULT, .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        sender.send(()).expect("received");
                    }));
                }
            });
        }
    });
    for _ in 0..3 * EACH {
        receiver.recv_timeout(DEADLINE).expect("an answer for each");
    }
    let stats = db.stats().transactions;
    assert_eq!((stats.active, stats.locks, stats.committed), (0, 0, committed.load(Ordering::Relaxed)));
    let transaction = db.transaction();
    let all = kontiki_engine::Range::all();
    let mut entries = transaction.entries(OTHER, all, kontiki_engine::Direction::Forward).expect("opens");
    assert_eq!(rest(&mut entries).len() as u64, stats.committed, "whole or not at all");
}

#[test]
fn closing_answers_what_is_in_flight() {
    let machine = SimMachine::from_seed(3);
    let db = stepped(&machine);
    let (sender, receiver) = mpsc::channel();
    let mut transaction = db.transaction();
    transaction.put(b"a", b"v").expect("small");
    transaction.submit(Box::new(move |result| sender.send(result).expect("received")));
    let observer = db.clone();
    db.close().expect("close");
    assert!(matches!(receiver.try_recv().expect("answered"), Err(Error::Closed)));
    assert_eq!((observer.stats().transactions.active, observer.stats().transactions.locks), (0, 0));
}
