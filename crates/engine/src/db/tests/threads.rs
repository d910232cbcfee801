//! Many threads at once, on the simulated disk (so that syncs cost nothing) with real background threads.

use super::*;
use crate::{Error, StreamId};
use kontiki_env::Env;
use kontiki_env::fs::CrashMode;
use kontiki_env::tasks::Threads;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn threaded(machine: &SimMachine) -> Env {
    // Threads that wait for a time need a clock that advances.
    Env { tasks: Arc::new(Threads), clock: machine_clock(), ..machine.env() }
}

pub(super) fn open_threaded(machine: &SimMachine) -> Db {
    Db::open_in(&threaded(machine), Path::new(DIR), small_options()).expect("opens")
}

/// A pair of keys in two families that every batch sets to the same value.
fn pair(name: &str, value: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for family in [Family::DEFAULT, OTHER] {
        batch.put(family, name.as_bytes(), format!("{value:08} {}", "x".repeat(40)).as_bytes());
    }
    batch
}

#[test]
fn batches_are_seen_whole_and_sequence_numbers_never_go_back() {
    let machine = SimMachine::from_seed(1);
    let db = open_threaded(&machine);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let db = &db;
                scope.spawn(move || {
                    for i in 0..400 {
                        let durability = match i % 3 {
                            0 => Durability::Sync,
                            1 => Durability::Buffered,
                            _ => Durability::Derived,
                        };
                        let name = format!("pair {thread}");
                        let sequence = db.write(pair(&name, i), durability).expect("write");
                        let snapshot = db.snapshot();
                        assert!(snapshot.sequence() >= sequence, "visible when answered");
                        let found = snapshot.get_in(Family::DEFAULT, name.as_bytes()).expect("get").expect("there");
                        assert!(found.starts_with(format!("{i:08}").as_bytes()), "its own write");
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let snapshot = db.snapshot();
                    assert!(snapshot.sequence() >= last, "never back");
                    last = snapshot.sequence();
                    assert_eq!(dump(&snapshot, Family::DEFAULT), dump(&snapshot, OTHER), "whole batches");
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                db.compact().expect("compact");
            }
        });
        writers.into_iter().for_each(|writer| writer.join().expect("writer"));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(db.stats().health.stopped, None);
    assert_eq!(dump(&db.snapshot(), OTHER).len(), 4);
}

#[test]
fn answers_to_submitted_commits_come_once_in_order_and_are_durable() {
    let machine = SimMachine::from_seed(2);
    let db = open_threaded(&machine);
    let (sender, receiver) = mpsc::channel();
    let submitted = 600u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 1..=submitted {
                let (of_log, of_apply) = (sender.clone(), sender.clone());
                let logged = streams(vec![append(1, i, &["an entry"])], Durability::Sync);
                db.submit(logged, Box::new(move |result| of_log.send((0, i, result)).expect("received")));
                let derived = Commit {
                    batch: pair("applied", i),
                    streams: vec![],
                    durability: Durability::Derived,
                    unchanged: vec![],
                };
                db.submit(derived, Box::new(move |result| of_apply.send((1, i, result)).expect("received")));
            }
        });
        scope.spawn(|| {
            for i in 0..300 {
                db.write(pair("blocking", i), Durability::Sync).expect("write");
            }
        });
    });
    let mut next = [1, 1];
    for _ in 0..2 * submitted {
        let (kind, i, result) = receiver.recv_timeout(DEADLINE).expect("an answer for each");
        result.expect("no faults");
        assert_eq!(i, next[kind], "in order");
        next[kind] += 1;
    }
    db.close().expect("close");
    assert!(receiver.try_recv().is_err(), "no answer twice");
    machine.fs.crash(CrashMode::LoseUnsynced);
    let db = open(&restarted(&machine, 3));
    assert_eq!(db.stream(StreamId(1)).expect("read").entries.len(), submitted as usize);
    let found = db.snapshot().get_in(OTHER, b"blocking").expect("get").expect("there");
    assert!(found.starts_with(b"00000299"));
}

#[test]
fn groups_form_while_a_leader_is_busy() {
    let machine = SimMachine::from_seed(4);
    let db = open_threaded(&machine);
    let answered = Arc::new(AtomicU64::new(0));
    for i in 0..500 {
        let answered = answered.clone();
        let commit = Commit { batch: pair("k", i), streams: vec![], durability: Durability::Sync, unchanged: vec![] };
        db.submit(commit, Box::new(move |_| _ = answered.fetch_add(1, Ordering::Relaxed)));
    }
    db.write(pair("last", 0), Durability::Sync).expect("write");
    assert_eq!(answered.load(Ordering::Relaxed), 500, "answers come in order, so all were before the last");
    let stats = db.stats();
    assert!(stats.log.syncs <= 501 && stats.latency.log_sync.count() <= stats.log.syncs, "{stats:?}");
}

#[test]
fn closing_in_the_middle_answers_everybody() {
    for seed in 0..20 {
        let machine = SimMachine::from_seed(seed);
        let db = open_threaded(&machine);
        let acknowledged = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (db, acknowledged) = (db.clone(), &acknowledged);
                scope.spawn(move || {
                    for i in 0.. {
                        match db.write(put(&format!("{thread} {i:06}"), "value"), Durability::Sync) {
                            Ok(_) => acknowledged.fetch_add(1, Ordering::Relaxed),
                            Err(Error::Closed | Error::Stopped(_)) => return,
                            Err(error) => panic!("{error}"),
                        };
                    }
                });
            }
            let in_time = wait_until(|| acknowledged.load(Ordering::Relaxed) >= 30);
            // First the end of the writers: a scope that panics waits for its threads.
            db.clone().close().expect("close");
            assert!(in_time, "writers make progress");
        });
        machine.fs.crash(CrashMode::LoseUnsynced);
        let db = open(&restarted(&machine, seed));
        let found = dump(&db.snapshot(), Family::DEFAULT).len() as u64;
        assert!(found >= acknowledged.load(Ordering::Relaxed), "{found} rows");
    }
}

/// Whether it comes true in time.
pub(super) fn wait_until(come_true: impl Fn() -> bool) -> bool {
    let clock = machine_clock();
    // The clocks of a process share one origin: what they show is not the time of this test.
    let began = clock.monotonic();
    loop {
        if come_true() {
            return true;
        }
        if clock.monotonic() - began > DEADLINE {
            return false;
        }
        std::thread::yield_now();
    }
}

fn machine_clock() -> Arc<dyn kontiki_env::clock::Clock> {
    Arc::new(kontiki_env::clock::RealClock::new())
}

#[test]
fn a_write_that_waits_for_a_full_disk_continues_when_there_is_space() {
    let machine = SimMachine::from_seed(6);
    let db = open_threaded(&machine);
    machine.fs.set_quota(Some(20 << 10));
    let (sender, receiver) = mpsc::channel();
    let mut rng = Rng::new(6);
    for i in 0..1000 {
        let of_done = sender.clone();
        // Far more than there is space for, however small tables are made.
        let mut batch = WriteBatch::new();
        let value: Vec<u8> = (0..100).map(|_| rng.below(256) as u8).collect();
        batch.put(OTHER, format!("{i}").as_bytes(), &value);
        let commit = Commit { batch, streams: vec![], durability: Durability::Derived, unchanged: vec![] };
        db.submit(commit, Box::new(move |result| of_done.send(result).expect("received")));
    }
    // No writes any more: the flush tries again by itself. One attempt may be in progress, and one requested.
    let failures = || db.core().shared().progress.get().failed_flushes;
    let before = failures();
    // Or level 0 is full, and the compaction that would free it finds no space.
    let level0_is_full = || {
        let version = db.core().shared().context.versions.current();
        let full = version.families().values().any(|levels| levels.level0_depth() >= small_options().level0_tables_max);
        full && db.core().shared().progress.get().compaction_error.is_some()
    };
    assert!(wait_until(|| failures() >= before + 3 || level0_is_full()), "the flush has given up");
    machine.fs.set_quota(None);
    let mut answered = 0;
    while answered < 1000 {
        receiver.recv_timeout(DEADLINE).expect("an answer for each").expect("no faults");
        answered += 1;
    }
    let all = db.snapshot().scan(OTHER, Range::all(), Direction::Forward, crate::ReadOptions::default());
    let (mut all, mut count) = (all.expect("scan"), 0);
    while all.advance().expect("readable") {
        count += 1;
    }
    assert_eq!(count, 1000);
}

/// No writes and no reads: the idle job finds and drops what has expired.
#[test]
fn expired_values_are_dropped_from_an_idle_database() {
    let machine = SimMachine::from_seed(10);
    let mut options = small_options();
    options.compaction.idle_look_ms = 10;
    // On the simulated clock, which the test moves on.
    let env = Env { clock: machine.env().clock, ..threaded(&machine) };
    let db = Db::open_in(&env, Path::new(DIR), options).expect("opens");
    let end_ms = machine.env().clock.wall_ms() + 1000;
    for i in 0..20 {
        let mut batch = WriteBatch::new();
        batch.put_expiring(Family::DEFAULT, format!("{i}").as_bytes(), b"value", end_ms);
        db.write(batch, Durability::Buffered).expect("write");
    }
    db.compact().expect("compact");
    let versions = || {
        let stats = db.stats();
        stats.families.iter().flat_map(|family| &family.levels).map(|level| level.entries).sum::<u64>()
    };
    assert_eq!(versions(), 20);
    machine.clock.time().advance_to(Duration::from_secs(2));
    assert!(wait_until(|| versions() == 0), "the idle job does not look");
}

/// After `close` has returned the directory can be opened again.
#[test]
fn a_second_close_waits_for_the_first() {
    let machine = SimMachine::from_seed(9);
    for round in 0..50 {
        let db = open_threaded(&machine);
        for i in 0..20 {
            db.write(pair(&format!("{round} {i}"), i), Durability::Buffered).expect("write");
        }
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (db, sender) = (db.clone(), sender.clone());
                scope.spawn(move || sender.send(db.close()).expect("received"));
            }
            receiver.recv_timeout(DEADLINE).expect("an answer").expect("closed");
            drop(open_threaded(&machine));
            receiver.recv_timeout(DEADLINE).expect("an answer").expect("closed");
        });
    }
}

#[test]
fn a_failed_sync_answers_everybody() {
    let machine = SimMachine::from_seed(5);
    let db = open_threaded(&machine);
    db.put(b"before", b"1").expect("put");
    // A segment's handle bears the temporary name it was created under.
    machine.fs.fail_next(kontiki_env::fs::Op::Sync, u64::MAX, |path| path.to_string_lossy().contains(".wal"));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = &db;
            scope.spawn(
                move || {
                    while let Ok(_sequence) = db.write(put(&format!("{thread}"), "value"), Durability::Sync) {}
                },
            );
        }
    });
    assert!(matches!(db.put(b"k", b"v"), Err(Error::Stopped(_))));
    assert_eq!(db.get(b"before").expect("reads go on").as_deref(), Some(&b"1"[..]));
    assert!(matches!(db.flush(), Err(Error::Stopped(_))));
}

/// Threads put, delete and scan the same few keys, each key written by one thread: a thread that has put a key finds
/// it, though others learn at the same moment that there is nothing around it.
#[test]
fn what_was_put_is_found_while_others_learn_that_nothing_is_there() {
    let machine = SimMachine::from_seed(12);
    let options = Options { dead_range_versions_min: 1, memtable_bytes: 64 << 10, ..small_options() };
    let db = Db::open_in(&threaded(&machine), Path::new(DIR), options).expect("opens");
    let range = || Range { start: Some(Bytes::from_static(b"a")), end: Some(Bytes::from_static(b"z")) };
    let finds = |key: &str, direction| {
        let mut scan = db.scan(Family::DEFAULT, range(), direction, crate::ReadOptions::default()).expect("scan");
        let mut found = false;
        while scan.advance().expect("readable") {
            found |= scan.key() == key.as_bytes();
        }
        found
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, finds) = (&db, &finds);
            scope.spawn(move || {
                for round in 0..600 {
                    let key = format!("k{:02}", (round % 10) * 4 + thread);
                    let direction = if round % 2 == 0 { Direction::Forward } else { Direction::Backward };
                    db.write(put(&key, "there"), Durability::Buffered).expect("write");
                    assert!(finds(&key, direction), "{key} was put, and is not found in round {round}");
                    let mut gone = WriteBatch::new();
                    gone.delete(Family::DEFAULT, key.as_bytes());
                    db.write(gone, Durability::Buffered).expect("write");
                    assert!(!finds(&key, direction), "{key} was deleted, and is found in round {round}");
                }
            });
        }
    });
    let reads = db.stats().reads;
    assert!(reads.dead_ranges_skipped > 0 && reads.dead_ranges_cut > 0, "{reads:?}");
}
