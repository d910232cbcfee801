use crate::db::Db;
use crate::db::tests::{open, put, small_options};
use crate::{Commit, Durability, Error, Family, Precondition, Range, StreamOp, Unchanged, WriteBatch};
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Threads;
use std::path::Path;
use std::sync::Arc;

fn key(name: &str, since: u64) -> Unchanged {
    Unchanged::Key { family: Family::DEFAULT, key: Bytes::copy_from_slice(name.as_bytes()), since }
}

fn range(start: &str, end: &str, since: u64) -> Unchanged {
    let range = Range::region(start.as_bytes(), end.as_bytes());
    Unchanged::Range { family: Family::DEFAULT, range, since }
}

fn commit(db: &Db, batch: WriteBatch, unchanged: Vec<Unchanged>) -> crate::Result<u64> {
    db.commit(Commit { unchanged, ..Commit::new(batch, Durability::Buffered) })
}

fn conflict(result: crate::Result<u64>, expected: &str) {
    match result.expect_err("a conflict") {
        Error::Conflict { family: Family::DEFAULT, key } => assert_eq!(key, expected.as_bytes()),
        error => panic!("{error}"),
    }
}

#[test]
fn a_commit_is_refused_when_a_key_or_range_was_written_since() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let first = db.write(put("b", "1"), Durability::Sync).expect("put");
    let second = db.write(put("d", "1"), Durability::Sync).expect("put");
    commit(&db, put("x", "1"), vec![key("b", first), key("never", 0), range("a", "d", first)]).expect("unchanged");
    conflict(commit(&db, put("x", "2"), vec![key("b", first), key("d", first)]), "d");
    conflict(commit(&db, put("x", "2"), vec![range("a", "e", first)]), "d");
    conflict(commit(&db, put("x", "2"), vec![range("", "", second)]), "x");
    // The answer is the same from tables.
    db.flush().expect("flush");
    conflict(commit(&db, put("x", "2"), vec![key("d", first)]), "d");
    conflict(commit(&db, put("x", "2"), vec![range("c", "", first)]), "d");
    commit(&db, put("x", "3"), vec![range("c", "x", second)]).expect("unchanged");
    assert_eq!(db.get(b"x").expect("get").as_deref(), Some(&b"3"[..]), "refused commits have no effect");
}

#[test]
fn a_deleted_range_is_a_write_before_and_after_its_flush() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    let first = db.write(put("b", "1"), Durability::Sync).expect("put");
    db.flush().expect("flush");
    let mut batch = WriteBatch::new();
    batch.delete_range(Family::DEFAULT, b"b"..b"d");
    let second = db.write(batch, Durability::Sync).expect("delete a range");
    for flushed in [false, true] {
        if flushed {
            db.flush().expect("flush");
            assert_eq!(db.snapshot().state.version.range_tombstone_count(), 1, "it has left the memtable");
        }
        conflict(commit(&db, put("x", "1"), vec![key("b", first)]), "b");
        conflict(commit(&db, put("x", "1"), vec![key("c", first)]), "c");
        conflict(commit(&db, put("x", "1"), vec![range("c", "z", first)]), "c");
        commit(&db, put("y", "1"), vec![key("a", first), key("d", first), key("b", second)]).expect("unchanged");
        commit(&db, put("y", "1"), vec![range("d", "x", first), range("", "x", second)]).expect("unchanged");
    }
}

#[test]
fn conditions_that_make_no_sense_are_refused() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    let refused = |commit: Commit| {
        let error = db.commit(commit).expect_err("refused");
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    };
    let batch = Commit::new(put("k", "v"), Durability::Sync);
    refused(Commit { unchanged: vec![key("k", 99)], ..batch.clone() });
    refused(Commit { unchanged: vec![key("k", 0)], durability: Durability::Derived, ..batch.clone() });
    let unknown = Unchanged::Key { family: Family(99), key: Bytes::new(), since: 0 };
    refused(Commit { unchanged: vec![unknown], ..batch });
}

#[test]
fn a_condition_without_a_batch_is_checked_too() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine);
    let op = StreamOp::Truncate { stream: crate::StreamId(1), through_index: 5 };
    let alone =
        |unchanged| Commit { unchanged, streams: vec![op.clone()], ..Commit::new(WriteBatch::new(), Durability::Sync) };
    db.commit(alone(vec![key("k", 0)])).expect("nothing was written");
    let written = db.write(put("k", "v"), Durability::Derived).expect("put");
    conflict(db.commit(alone(vec![key("k", 0)])), "k");
    db.commit(alone(vec![key("k", written)])).expect("nothing since");
}

/// Random commits with conditions against a list of all writes, with flushes and compactions in between.
#[test]
fn every_answer_is_that_of_the_history() {
    for seed in 0..20 {
        let machine = SimMachine::from_seed(seed);
        let db = open(&machine);
        let mut rng = Rng::new(seed);
        let name = |rng: &mut Rng| format!("key {}", rng.below(12));
        let mut history: Vec<(u64, String)> = Vec::new();
        let (mut refused, mut accepted) = (0, 0);
        // Registered before everything, so that no tombstone is dropped.
        let (_snapshot, _registration) = db.core().begin_transaction();
        for _ in 0..300 {
            match rng.below(30) {
                0 => db.flush().expect("flush"),
                1 => db.compact().expect("compact"),
                2..=9 => {
                    machine.tasks.run_until_idle(10_000);
                }
                _ => {}
            }
            let newest = history.last().map_or(0, |(sequence, _)| *sequence);
            let since = newest - rng.below(newest.min(20) + 1);
            let (written, read, end) = (name(&mut rng), name(&mut rng), name(&mut rng));
            let (condition, last) = if rng.chance(1, 2) || end <= read {
                (key(&read, since), format!("{read}\0"))
            } else {
                (range(&read, &end, since), end)
            };
            let mut batch = WriteBatch::new();
            match rng.below(3) {
                0 => batch.delete(Family::DEFAULT, written.as_bytes()),
                _ => batch.put(Family::DEFAULT, written.as_bytes(), vec![7; rng.below(200) as usize]),
            }
            let expected = history.iter().any(|(sequence, key)| *sequence > since && (&read..&last).contains(&key));
            match commit(&db, batch, vec![condition]) {
                Ok(sequence) => {
                    assert!(!expected, "seed {seed}: since {since} {read}..{last} was written");
                    history.push((sequence, written.clone()));
                    accepted += 1;
                }
                Err(Error::Conflict { .. }) if expected => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        assert!(refused > 20 && accepted > 20, "both happen: {refused}, {accepted}");
    }
}

#[test]
fn counters_kept_by_write_if_lose_no_step() {
    let machine = SimMachine::from_seed(5);
    let env = kontiki_env::Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new("/db"), small_options()).expect("opens");
    let counter = Bytes::from_static(b"counter");
    let (threads, steps) = (4, 50);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (db, key) = (&db, counter.clone());
            scope.spawn(move || {
                let mut done = 0;
                while done < steps {
                    let found = db.get(&key).expect("get");
                    let next =
                        found.as_deref().map_or(0, |text| String::from_utf8_lossy(text).parse().expect("a number")) + 1;
                    let condition = match found {
                        Some(value) => Precondition::Equals { family: Family::DEFAULT, key: key.clone(), value },
                        None => Precondition::Absent { family: Family::DEFAULT, key: key.clone() },
                    };
                    let batch = put("counter", &u64::to_string(&next));
                    match db.write_if(batch, &[condition], Durability::Buffered) {
                        Ok(_) => done += 1,
                        Err(Error::Conflict { key: named, .. }) => assert_eq!(named, key),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let total = db.snapshot().get_in(Family::DEFAULT, &counter).expect("get").expect("there");
    assert_eq!(total, (threads * steps).to_string());
    let present = Precondition::Present { family: Family::DEFAULT, key: Bytes::from_static(b"absent") };
    let error = db.write_if(put("k", "v"), &[present], Durability::Buffered).expect_err("it is not there");
    assert!(matches!(error, Error::Conflict { .. }), "{error}");
}

#[test]
fn the_oldest_open_transaction_is_known_to_compaction() {
    let machine = SimMachine::from_seed(6);
    let db = open(&machine);
    let core = db.core();
    assert_eq!(core.transactions.starts.oldest(), u64::MAX);
    let (_, first) = core.begin_transaction();
    db.write(put("k", "v"), Durability::Buffered).expect("put");
    let (snapshot, second) = core.begin_transaction();
    assert!(snapshot.sequence() > core.transactions.starts.oldest());
    assert_eq!(core.transactions.starts.len(), 2);
    let of_compaction = || core.shared().context.versions.horizon().transactions();
    assert_eq!(of_compaction(), core.transactions.starts.oldest());
    drop(first);
    assert_eq!(of_compaction(), snapshot.sequence());
    drop(second);
    assert_eq!((of_compaction(), core.transactions.starts.len()), (u64::MAX, 0));
}

fn delete(db: &Db, name: &str) {
    let mut batch = WriteBatch::new();
    batch.delete(Family::DEFAULT, name.as_bytes());
    db.write(batch, Durability::Buffered).expect("delete");
}

fn delete_range(db: &Db, start: &str, end: &str) {
    let mut batch = WriteBatch::new();
    batch.delete_range(Family::DEFAULT, start.as_bytes()..end.as_bytes());
    db.write(batch, Durability::Buffered).expect("delete a range");
}

#[test]
fn a_deletion_since_a_snapshot_is_found_while_the_snapshot_is_held_however_much_is_compacted() {
    for by_range in [false, true] {
        let machine = SimMachine::from_seed(7);
        let db = open(&machine);
        for name in ["k", "other"] {
            db.write(put(name, "v"), Durability::Buffered).expect("put");
        }
        db.compact().expect("compact");
        let snapshot = db.snapshot();
        // A conflict names the key, or the first one of the deleted range.
        let named = if by_range { "j" } else { "k" };
        if by_range {
            delete_range(&db, "j", "l")
        } else {
            delete(&db, "k")
        }
        for _ in 0..2 {
            db.compact().expect("compact");
            conflict(commit(&db, put("x", "1"), vec![key("k", snapshot.sequence())]), "k");
            conflict(commit(&db, put("x", "1"), vec![range("a", "m", snapshot.sequence())]), named);
            commit(&db, put("x", "1"), vec![key("other", snapshot.sequence())]).expect("unchanged");
        }
        drop(snapshot);
        db.compact().expect("compact");
        let version = db.core().shared().context.versions.current();
        let tombstones: u64 = version.tables().map(|(_, _, table)| table.meta().tombstones).sum();
        assert_eq!((tombstones, version.range_tombstone_count()), (0, 0), "no reader needs them any more");
    }
}

#[test]
fn a_condition_since_a_number_that_is_not_held_counts_as_broken_once_later_deletions_are_forgotten() {
    let machine = SimMachine::from_seed(8);
    let db = open(&machine);
    for name in ["k", "other"] {
        db.write(put(name, "v"), Durability::Buffered).expect("put");
    }
    db.compact().expect("compact");
    let number = db.snapshot().sequence();
    db.write(put("new", "v"), Durability::Buffered).expect("put");
    db.compact().expect("compact");
    commit(&db, put("x", "1"), vec![key("k", number)]).expect("nothing was deleted since, so the answer is known");
    delete(&db, "k");
    db.compact().expect("compact");
    conflict(commit(&db, put("x", "2"), vec![key("k", number)]), "k");
    conflict(commit(&db, put("x", "2"), vec![key("other", number)]), "other");
    let number = db.snapshot().sequence();
    commit(&db, put("x", "2"), vec![key("other", number), key("k", number)]).expect("unchanged");
    // No reader holds a number of an earlier run.
    db.close().expect("close");
    let db = open(&machine);
    conflict(commit(&db, put("x", "3"), vec![key("other", number - 1)]), "other");
}

/// Snapshots are taken and dropped next to deletions and compactions: a condition never misses a deletion.
#[test]
fn no_deletion_is_missed_while_snapshots_come_and_go_beside_compactions() {
    let machine = SimMachine::from_seed(9);
    let env = kontiki_env::Env { tasks: Arc::new(Threads), ..machine.env() };
    let db = Db::open_in(&env, Path::new("/db"), small_options()).expect("opens");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                db.compact().expect("compact");
            }
        });
        for turn in 0..150 {
            db.write(put("k", "v"), Durability::Buffered).expect("put");
            let snapshot = db.snapshot();
            match turn % 3 {
                0 => delete_range(&db, "j", "l"),
                1 => delete(&db, "k"),
                _ => {
                    let unchanged = vec![key("k", snapshot.sequence())];
                    commit(&db, put("x", "1"), unchanged).expect("it was not written since");
                    continue;
                }
            }
            if turn % 2 == 0 {
                db.flush().expect("flush");
            }
            conflict(commit(&db, put("x", "1"), vec![key("k", snapshot.sequence())]), "k");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
