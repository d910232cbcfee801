//! The change feed: what was written is what subscribers are given.

use super::values::{large_values, text};
use super::*;
use crate::{BatchOp, Change, Changes, ChangesOptions, Error, SequenceNumber, StreamId};
use kontiki_env::Env;
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::tasks::Threads;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any test waits.
const DEADLINE: Duration = Duration::from_secs(60);

/// What was written, with the numbers that were answered.
type Written = Vec<(SequenceNumber, WriteBatch)>;

fn keeping_all() -> Options {
    Options { feed_retention_bytes: 64 << 20, ..large_values() }
}

fn keeping_little() -> Options {
    Options { feed_retention_bytes: 24 << 10, ..large_values() }
}

fn drain(changes: &mut Changes) -> crate::Result<Written> {
    let mut found = Vec::new();
    while let Some(Change { sequence, batch, .. }) = changes.next()? {
        found.push((sequence, batch));
    }
    Ok(found)
}

/// Everything that the feed gives after a number.
fn feed(db: &Db, from: SequenceNumber) -> crate::Result<Written> {
    drain(&mut db.changes_with(ChangesOptions { durable: false, ..ChangesOptions::from(from) })?)
}

/// What the feed must give after a number.
fn after(written: &Written, from: SequenceNumber) -> Written {
    written.iter().filter(|(sequence, _)| *sequence > from).cloned().collect()
}

/// A batch with operations of every kind, small and large.
fn random_batch(rng: &mut Rng, now_ms: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.range(1..6) {
        let family = if rng.chance(1, 3) { OTHER } else { Family::DEFAULT };
        let key = format!("key {:02}", rng.below(30));
        let value = text(rng.below(400) as usize, rng.below(1000) as usize);
        match rng.below(8) {
            0 => batch.delete(family, key.as_bytes()),
            1 => batch.delete_range(family, key.as_bytes()..format!("key {:02}", rng.below(30) + 30).as_bytes()),
            2 => batch.put_expiring(family, key.as_bytes(), value.as_bytes(), now_ms + rng.below(2000)),
            _ => batch.put(family, key.as_bytes(), value.as_bytes()),
        }
    }
    batch
}

fn random_durability(rng: &mut Rng) -> Durability {
    if rng.chance(1, 3) { Durability::Sync } else { Durability::Buffered }
}

/// Writes, streams, flushes, merges and collects at random.
fn random_step(db: &Db, machine: &SimMachine, rng: &mut Rng, streams: &mut u64, written: &mut Written) {
    match rng.below(24) {
        0 => db.flush().expect("flush"),
        1 => db.compact().expect("compact"),
        2 => drop(db.collect_value_garbage().expect("collect")),
        3..6 => {
            *streams += 1;
            let ops = vec![append(1, *streams, &[&text(rng.below(300) as usize, 3)])];
            db.commit(super::streams(ops, random_durability(rng))).expect("streams alone");
        }
        6 => {
            let through_index = *streams;
            let ops = vec![StreamOp::Truncate { stream: StreamId(1), through_index }];
            db.commit(super::streams(ops, Durability::Buffered)).expect("truncated");
        }
        7 => {
            let _ = machine.tasks.run_until_idle(10_000);
        }
        kind => {
            let batch = random_batch(rng, machine.env().clock.wall_ms());
            let mut commit = Commit::new(batch.clone(), random_durability(rng));
            if kind == 8 {
                *streams += 1;
                commit.streams = vec![append(1, *streams, &["with a batch"])];
            }
            written.push((db.commit(commit).expect("written"), batch));
        }
    }
}

#[test]
fn batches_come_whole_in_order_with_every_kind_of_operation() {
    open_with(keeping_all);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let mut changes = db.changes(0).expect("open");
    assert_eq!(changes.next().expect("readable"), None);
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"small", b"1");
    batch.put(OTHER, b"large", text(500, 1).as_bytes());
    batch.put_expiring(Family::DEFAULT, b"ends", text(300, 2).as_bytes(), 77);
    batch.delete(OTHER, b"gone");
    batch.delete_range(Family::DEFAULT, b"a"..b"b");
    let first = db.write(batch.clone(), Durability::Sync).expect("written");
    let second = db.write(put("next", "2"), Durability::Sync).expect("written");
    let change = changes.next().expect("readable").expect("there");
    assert_eq!((change.sequence, &change.batch), (first, &batch));
    let large = text(500, 1);
    let (family, key, value) = (OTHER, &b"large"[..], large.as_bytes());
    assert_eq!(change.batch.ops().nth(1), Some(BatchOp::Put { family, key, value }));
    assert_eq!(changes.position(), first);
    assert_eq!(drain(&mut changes).expect("readable"), [(second, put("next", "2"))]);
    // A subscriber that comes later gets the same, and one that has a part the rest.
    assert_eq!(feed(&db, 0).expect("readable").len(), 2);
    assert_eq!(feed(&db, first).expect("readable"), [(second, put("next", "2"))]);
    assert_eq!(feed(&db, db.snapshot().sequence()).expect("readable"), []);
    let stats = db.stats().feed;
    assert_eq!((stats.subscribers, stats.lag_sequences, stats.batches, stats.oldest_sequence), (1, 0, 5, 1));
    let [subscriber] = db.change_subscribers()[..] else { panic!("one") };
    assert_eq!((subscriber.id, subscriber.position, subscriber.segment), (changes.id(), second, 1));
    drop(changes);
    assert_eq!(db.stats().feed.subscribers, 0);
}

#[test]
fn a_number_from_elsewhere_is_refused() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    db.write(put("a", "1"), Durability::Sync).expect("written");
    let error = db.changes(2).expect_err("beyond what was written");
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("newest is 1")), "{error}");
    db.changes(1).expect("at the end");
    let mut changes = db.changes(0).expect("open");
    let other = db.clone();
    db.close().expect("closed");
    assert!(matches!(changes.next(), Err(Error::Closed)));
    assert!(matches!(changes.wait(Duration::ZERO), Err(Error::Closed)));
    assert!(matches!(other.changes(0), Err(Error::Closed)));
}

/// From every number, through flushes, merges, collections of values, streams and reopening: what the feed gives is
/// what was written, or returns that it was deleted, and then the number in the error works.
#[test]
fn the_feed_from_any_number_equals_what_was_written() {
    for (options, seeds) in
        [(keeping_all as fn() -> Options, 0..12), (keeping_little, 100..112), (large_values, 200..206)]
    {
        for seed in seeds {
            open_with(options);
            follow_at_random(seed, options().feed_retention_bytes);
        }
    }
}

fn follow_at_random(seed: u64, kept_bytes: u64) {
    let mut rng = Rng::new(seed);
    let mut machine = SimMachine::from_seed(seed);
    let (mut written, mut streams, mut gone) = (Written::new(), 0, 0);
    for _ in 0..4 {
        let db = open(&machine);
        let mut tail = db
            .changes_with(ChangesOptions { durable: false, ..ChangesOptions::from(db.snapshot().sequence()) })
            .expect("tail");
        let mut given_from = tail.position();
        for _ in 0..rng.range(20..120) {
            random_step(&db, &machine, &mut rng, &mut streams, &mut written);
            if rng.chance(1, 3) {
                match drain(&mut tail) {
                    Ok(found) => assert_eq!(found, after(&written, given_from), "seed {seed}"),
                    Err(Error::ChangesGone { .. }) if kept_bytes < 1 << 20 => {
                        gone += 1;
                        let from = db.snapshot().sequence();
                        tail = db
                            .changes_with(ChangesOptions { durable: false, ..ChangesOptions::from(from) })
                            .expect("from a snapshot");
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
                given_from = tail.position();
            }
            if rng.chance(1, 6) {
                let newest = written.last().map_or(0, |(sequence, _)| *sequence);
                gone += check_from(&db, &written, rng.below(newest + 1), seed);
            }
        }
        gone += check_from(&db, &written, 0, seed);
        if rng.chance(1, 2) {
            drop(tail);
            db.close().expect("closed");
        }
        machine = restarted(&machine, rng.below(1 << 30));
    }
    if kept_bytes > 1 << 20 {
        assert_eq!(gone, 0, "seed {seed}: everything is kept");
    } else {
        assert!(gone > 0, "seed {seed}: the script is too short to lose anything");
    }
}

/// Returns 1 if something was deleted.
fn check_from(db: &Db, written: &Written, from: SequenceNumber, seed: u64) -> u64 {
    match feed(db, from) {
        Ok(found) => {
            assert_eq!(found, after(written, from), "seed {seed}, from {from}");
            0
        }
        Err(Error::ChangesGone { after: behind, oldest_sequence }) => {
            assert!(behind >= from && oldest_sequence > from + 1, "seed {seed}: {behind}, {oldest_sequence}");
            // What the log keeps within its bound it keeps with all values.
            let kept = db.stats().feed.oldest_sequence - 1;
            if OPTIONS.get()().feed_retention_bytes > 0 {
                assert_eq!(feed(db, kept).expect("kept"), after(written, kept), "seed {seed}, from {kept}");
            }
            let newest = db.snapshot().sequence();
            assert_eq!(feed(db, newest).expect("kept"), after(written, newest), "seed {seed}: from a snapshot");
            1
        }
        Err(error) => panic!("seed {seed}, from {from}: {error}"),
    }
}

/// What a subscriber was given survives, with the same numbers, whatever the disk loses.
#[test]
fn power_loss_takes_back_nothing_that_a_subscriber_was_given() {
    open_with(keeping_all);
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let machine = SimMachine::from_seed(seed);
        let (mut written, mut given) = (Written::new(), Written::new());
        let db = open(&machine);
        let mut changes = db.changes(0).expect("open");
        machine.fs.power_off_after(rng.range(1..120));
        while !machine.fs.is_off() {
            let batch = random_batch(&mut rng, 0);
            if let Ok(sequence) = db.write(batch.clone(), random_durability(&mut rng)) {
                written.push((sequence, batch));
            }
            if rng.chance(1, 3) {
                let change = if rng.chance(1, 2) { changes.next() } else { changes.wait(Duration::ZERO) };
                given.extend(change.ok().flatten().map(|change| (change.sequence, change.batch)));
            }
        }
        drop((changes, db));
        machine.fs.crash(*rng.pick(&[CrashMode::LoseUnsynced, CrashMode::Random, CrashMode::Pages]).expect("a mode"));
        let machine = restarted(&machine, seed);
        let db = open(&machine);
        let found = feed(&db, 0).expect("readable");
        assert!(found.len() >= given.len(), "seed {seed}");
        assert_eq!(found[..given.len()], given[..], "seed {seed}: given in order, from the first one on");
        let common = found.len().min(written.len());
        assert_eq!(found[..common], written[..common], "seed {seed}: the log has what was written");
        // It continues where it was.
        let from = given.last().map_or(0, |(sequence, _)| *sequence);
        let next = db.write(put("after", "all"), Durability::Sync).expect("written");
        let rest = feed(&db, from).expect("readable");
        assert_eq!(rest.last(), Some(&(next, put("after", "all"))), "seed {seed}");
        assert_eq!(rest.len(), found.len() - given.len() + 1, "seed {seed}");
    }
}

#[test]
fn buffered_writes_are_delivered_when_durable_or_on_request() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let (mut safe, mut fast) = (db.changes(0).expect("open"), {
        db.changes_with(ChangesOptions { durable: false, ..ChangesOptions::from(0) }).expect("open")
    });
    db.write(put("a", "1"), Durability::Buffered).expect("written");
    assert_eq!(safe.next().expect("readable"), None, "a power loss may take it back");
    assert_eq!(drain(&mut fast).expect("readable").len(), 1);
    let syncs = db.stats().log.syncs;
    assert_eq!(safe.wait(Duration::ZERO).expect("readable").map(|change| change.sequence), Some(1));
    assert_eq!(db.stats().log.syncs, syncs + 1, "a waiting subscriber syncs");
    db.write(put("b", "1"), Durability::Buffered).expect("written");
    db.write(put("c", "1"), Durability::Sync).expect("written");
    assert_eq!(drain(&mut safe).expect("readable").len(), 2, "the sync made both durable");
    assert_eq!(db.stats().log.syncs, syncs + 2);
}

#[test]
fn a_subscriber_that_is_too_slow_learns_where_to_restart() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let mut slow = db.changes(0).expect("open");
    for i in 0..100 {
        db.write(put(&format!("{i:03}"), &text(300, i)), Durability::Sync).expect("written");
    }
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    let Err(Error::ChangesGone { after, oldest_sequence }) = slow.next() else { panic!("segments were deleted") };
    assert!(after == 0 && oldest_sequence > 1 && slow.position() == 0);
    assert_eq!(db.stats().feed.cut_off, 1);
    assert!(db.stats().feed.lag_sequences == 100 && db.stats().feed.lag_bytes > 0);
    // The remedy.
    let snapshot = db.snapshot();
    let mut again = db.changes(snapshot.sequence()).expect("open");
    db.write(put("more", "1"), Durability::Sync).expect("written");
    assert_eq!(drain(&mut again).expect("readable"), [(101, put("more", "1"))]);
    // One that has everything is not cut off when the segment that it has read is deleted.
    let mut idle = db.changes(101).expect("open");
    for i in 2..100 {
        db.commit(streams(vec![append(1, i - 1, &[&text(300, 1)])], Durability::Sync)).expect("streams");
    }
    let ops = vec![StreamOp::Truncate { stream: StreamId(1), through_index: 98 }];
    db.commit(streams(ops, Durability::Sync)).expect("truncated");
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    assert_eq!(idle.next().expect("nothing was missed"), None);
    db.write(put("most", "1"), Durability::Sync).expect("written");
    assert_eq!(drain(&mut idle).expect("readable"), [(102, put("most", "1"))]);
}

#[test]
fn damage_in_the_log_is_named_and_an_io_error_passes() {
    open_with(keeping_all);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    for i in 0..5 {
        db.write(put(&format!("{i}"), "value"), Durability::Sync).expect("written");
    }
    let mut changes = db.changes(0).expect("open");
    machine.fs.fail_next(Op::Read, 1, |path| path.to_string_lossy().contains("wal"));
    assert!(matches!(changes.next(), Err(Error::Io { .. })));
    assert_eq!(changes.next().expect("readable").map(|change| change.sequence), Some(1));
    let path = Path::new(DIR).join("wal/000001.wal");
    machine.fs.flip_bit(&path, 32 + 25 + 3, 1).expect("flipped");
    let mut other = db.changes(0).expect("open");
    assert!(matches!(other.next(), Err(Error::Corruption { file, offset: 32, .. }) if file == path));
    assert_eq!(db.stats().health.stopped, None, "a reader of the log does not stop writes");
}

#[test]
fn a_waiting_subscriber_wakes_on_a_write_and_at_the_end() {
    let machine = SimMachine::from_seed(1);
    let env = Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new(DIR), keeping_all()).expect("opens");
    const WRITERS: usize = 4;
    const EACH: usize = 150;
    let follow = |durable| {
        let mut changes = db.changes_with(ChangesOptions { durable, ..ChangesOptions::from(0) }).expect("open");
        move || {
            let mut last = 0;
            for _ in 0..WRITERS * EACH {
                let change = changes.wait(DEADLINE).expect("running").expect("in time");
                assert_eq!(change.sequence, last + 1, "no number is left out");
                last = change.sequence;
                let BatchOp::Put { value, .. } = change.batch.ops().next().expect("one") else { panic!("a put") };
                assert!(value.len() >= 50);
            }
            // Nothing follows, so this ends only with the database.
            assert!(matches!(changes.wait(DEADLINE), Err(Error::Closed)));
        }
    };
    std::thread::scope(|scope| {
        let subscribers = [true, false, true].map(|durable| scope.spawn(follow(durable)));
        let write = |writer| {
            let db = &db;
            move || {
                for i in 0..EACH {
                    let durability = if i % 2 == 0 { Durability::Sync } else { Durability::Buffered };
                    let batch = put(&format!("{writer} {i}"), &text(50 + i, i));
                    db.write(batch, durability).expect("written");
                }
            }
        };
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(write(writer))).collect();
        writers.into_iter().for_each(|writer| writer.join().expect("writer"));
        while db.stats().feed.batches < (3 * WRITERS * EACH) as u64 {
            assert!(subscribers.iter().all(|subscriber| !subscriber.is_finished()), "a subscriber failed");
            std::thread::yield_now();
        }
        db.clone().close().expect("closed");
    });
}
