//! `visibility.rs` on the primitives of a model checker for schedules: writers, syncs in flight, a failing sync.

mod sync {
    pub(super) use shuttle::sync::MutexGuard;
    pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(super) use shuttle::thread::yield_now;

    /// Few, so that writers have to wait for a slot.
    pub(super) const SYNCS_MAX: usize = 2;

    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("not poisoned")
        }
    }

    pub(super) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Condvar {
            Condvar(shuttle::sync::Condvar::new())
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).expect("not poisoned")
        }

        pub(super) fn wait_for_insertions<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.wait(guard)
        }
    }
}
#[path = "visibility.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
// with other primitives; and the model has no recovery and no derived commits
mod visibility;

use self::visibility::{Arrival, Due, SyncError, Visibility};
use crate::planted::{self, Bug};
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

const SCHEDULES: usize = 10_000;

/// A log and its disk. Every record has ten bytes.
struct World {
    visibility: Visibility<u64>,
    /// The lock that orders commits: the last number, and the log's end.
    log: Mutex<(u64, u64)>,
    appended: AtomicU64,
    platter: AtomicU64,
    /// Syncs until one fails; never if it is large.
    healthy: AtomicU64,
    answers: Mutex<Vec<u64>>,
}

impl World {
    fn new(healthy: u64) -> Arc<World> {
        Arc::new(World {
            visibility: Visibility::new(0, 0),
            log: Mutex::new((0, 0)),
            appended: AtomicU64::new(0),
            platter: AtomicU64::new(0),
            healthy: AtomicU64::new(healthy),
            answers: Mutex::default(),
        })
    }

    /// Gives a number and a place; the commit is to be durable if `sync`.
    fn place(&self, sync: bool) -> Due {
        self.place_in(&mut self.log.lock().unwrap(), sync, Arrival::InMemory)
    }

    fn place_in(&self, log: &mut (u64, u64), sync: bool, arrival: Arrival) -> Due {
        log.0 += 1;
        log.1 += 10;
        self.appended.store(log.1, SeqCst);
        let due = Due { sequence: log.0, log_end: if sync { log.1 } else { 0 } };
        self.visibility.note_appended(log.1);
        self.visibility.assign(due.sequence, due.log_end, arrival);
        due
    }

    fn insert(&self, due: Due) {
        let give = &mut |answer| self.answers.lock().unwrap().push(answer);
        self.visibility.inserted(due.sequence, None, give);
    }

    fn sync(&self) -> Result<(), &'static str> {
        let covered = self.appended.load(SeqCst);
        thread::yield_now();
        let healthy = self.healthy.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if healthy.is_err() {
            return Err("a broken disk");
        }
        self.platter.fetch_max(covered, SeqCst);
        Ok(())
    }

    fn wait(&self, due: Due) -> Result<(), SyncError<&'static str>> {
        let give = &mut |answer| self.answers.lock().unwrap().push(answer);
        let outcome = self.visibility.wait(due, &|_, _| self.sync(), give);
        if outcome.is_ok() {
            assert!(self.visibility.visible() >= due.sequence, "visible when answered");
            assert!(self.platter.load(SeqCst) >= due.log_end, "durable when answered");
        }
        outcome
    }
}

fn writers(world: &Arc<World>, count: u64, commits: u64) {
    let threads: Vec<_> = (0..count)
        .map(|writer| {
            let world = world.clone();
            thread::spawn(move || {
                for i in 0..commits {
                    let due = world.place((writer + i) % 3 != 0);
                    world.insert(due);
                    if world.wait(due).is_err() {
                        world.visibility.stop();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn every_writer_gets_a_true_answer() {
    let run = || {
        let world = World::new(u64::MAX);
        writers(&world, 4, 2);
        assert_eq!(world.visibility.visible(), 8);
    };
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn a_failed_sync_answers_everybody() {
    let run = || {
        let world = World::new(1);
        writers(&world, 4, 1);
        assert!(
            world.platter.load(SeqCst) >= world.visibility.durable(),
            "nothing is durable that a sync has not made so"
        );
    };
    shuttle::check_random(run, SCHEDULES / 2);
}

#[test]
fn answers_come_in_order_of_commit_not_of_insertion() {
    let run = || {
        let world = World::new(u64::MAX);
        let leader = world.clone();
        let submitted = thread::spawn(move || {
            for _ in 0..3 {
                let due = leader.place(true);
                let give = &mut |answer| leader.answers.lock().unwrap().push(answer);
                leader.visibility.answer(due, due.sequence, give);
                leader.insert(due);
            }
            let log_end = leader.log.lock().unwrap().1;
            leader.wait(Due { sequence: 0, log_end }).unwrap();
        });
        writers(&world, 2, 1);
        submitted.join().unwrap();
        let answers = world.answers.lock().unwrap();
        assert!(answers.len() == 3 && answers.is_sorted(), "{answers:?}");
    };
    shuttle::check_random(run, SCHEDULES / 4);
}

/// One thread waits, under the lock that orders commits, for all batches to be in memory; so many syncs are `healthy`.
fn check_while_others_write(healthy: u64) {
    let run = move || {
        let world = World::new(healthy);
        let of_checker = world.clone();
        let checker = thread::spawn(move || {
            let log = of_checker.log.lock().unwrap();
            of_checker.visibility.wait_all_inserted();
            drop(log);
        });
        writers(&world, 3, 1);
        checker.join().unwrap();
    };
    shuttle::check_random(run, SCHEDULES / 4);
}

#[test]
fn a_caller_that_needs_all_batches_in_memory_sees_them() {
    check_while_others_write(u64::MAX);
}

/// A close waits for what is on its way into memory, also when a failed sync has stopped everything else meanwhile.
#[test]
fn a_waiter_for_insertions_is_notified_of_the_last_after_a_stop() {
    check_while_others_write(0);
}

/// An ingest gets its number, syncs the log, which takes the lock that orders commits, and then installs its tables.
/// `checker` is a commit with conditions: returns once it has seen all that came before it.
fn ingest_beside(checker: fn(&World)) {
    let run = move || {
        let world = World::new(u64::MAX);
        let (of_ingest, of_checker) = (world.clone(), world.clone());
        let ingest = thread::spawn(move || {
            let due = of_ingest.place_in(&mut of_ingest.log.lock().unwrap(), true, Arrival::InTables);
            drop(of_ingest.log.lock().unwrap());
            of_ingest.wait(Due { sequence: 0, ..due }).unwrap();
            of_ingest.insert(due);
            of_ingest.wait(due).unwrap();
        });
        let checker = thread::spawn(move || checker(&of_checker));
        writers(&world, 2, 1);
        ingest.join().unwrap();
        checker.join().unwrap();
        assert_eq!(world.visibility.visible(), 3);
    };
    shuttle::check_random(run, SCHEDULES / 4);
}

#[test]
fn a_commit_with_conditions_waits_for_an_ingest_without_the_lock_that_orders_commits() {
    ingest_beside(|world| {
        loop {
            let log = world.log.lock().unwrap();
            if !world.visibility.is_installing() {
                world.visibility.wait_all_inserted();
                return;
            }
            drop(log);
            world.visibility.wait_all_installed();
        }
    });
}

#[test]
fn a_commit_with_conditions_that_kept_the_lock_while_an_ingest_installs_would_deadlock() {
    let outcome = std::panic::catch_unwind(|| {
        ingest_beside(|world| {
            let _log = world.log.lock().unwrap();
            world.visibility.wait_all_installed();
        });
    });
    assert!(outcome.is_err(), "some schedule has each of the two wait for the other");
}

#[test]
fn a_planted_lost_wake_up_is_found() {
    planted::set(Some(Bug::ForgetTheNextSync));
    let run = || writers(&World::new(u64::MAX), 4, 2);
    let outcome = std::panic::catch_unwind(|| shuttle::check_random(run, SCHEDULES));
    planted::set(None);
    assert!(outcome.is_err(), "some schedule leaves a writer asleep for ever");
}
