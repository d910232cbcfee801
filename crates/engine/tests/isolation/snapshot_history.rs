//! Snapshot isolation, checked with the sequence numbers in view: every read returns the newest commit at or below the
//! reader's start, no two overlapping transactions write one key, and a transaction that begins after an answer sees
//! what was answered. Exact, and linear but for sorting.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Error, Family, Isolation, Range, SequenceNumber, TransactionOptions};
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

const KEYS: u64 = 8;
const FAMILY: Family = Family::DEFAULT;

/// One committed transaction.
#[derive(Debug, Default)]
struct Record {
    start: SequenceNumber,
    /// Absent if it wrote nothing.
    commit: Option<SequenceNumber>,
    /// The newest commit that was answered before it began.
    answered_before: SequenceNumber,
    /// Keys read from the snapshot and what was found.
    reads: Vec<(u64, Option<Bytes>)>,
    /// Keys locked before anything else was done to them, and what was found then.
    locked: Vec<(u64, Option<Bytes>)>,
    /// Keys written; `None` is a delete. Every value is unique.
    writes: BTreeMap<u64, Option<Bytes>>,
}

/// Checks a history whose keys begin absent.
fn check(records: &[Record]) -> Result<(), String> {
    let mut versions: BTreeMap<u64, Vec<(SequenceNumber, &Record)>> = BTreeMap::new();
    for record in records {
        if let Some(commit) = record.commit {
            if commit <= record.start {
                return Err(format!("committed at or before its start: {record:?}"));
            }
            record.writes.keys().for_each(|key| versions.entry(*key).or_default().push((commit, record)));
        }
        if record.start < record.answered_before {
            return Err(format!("began below a commit that was answered before: {record:?}"));
        }
    }
    versions.values_mut().for_each(|versions| versions.sort_unstable_by_key(|(commit, _)| *commit));
    let none = Vec::new();
    let newest_below = |key: u64, limit: SequenceNumber| {
        let versions: &Vec<(SequenceNumber, &Record)> = versions.get(&key).unwrap_or(&none);
        let (commit, record) = versions[..versions.partition_point(|(commit, _)| *commit < limit)].last()?;
        Some((*commit, record.writes[&key].clone()))
    };
    for record in records {
        for (key, found) in &record.reads {
            let expected = newest_below(*key, record.start + 1).and_then(|(_, value)| value);
            if *found != expected {
                return Err(format!("key {key}: read {found:?} instead of {expected:?}: {record:?}"));
            }
        }
        let Some(commit) = record.commit else { continue };
        for (key, found) in &record.locked {
            let expected = newest_below(*key, commit).and_then(|(_, value)| value);
            if *found != expected {
                return Err(format!("key {key}: {found:?} under the lock, then {expected:?}: {record:?}"));
            }
        }
        for key in record.writes.keys().filter(|key| record.locked.iter().all(|(locked, _)| locked != *key)) {
            if let Some((before, _)) = newest_below(*key, commit).filter(|(before, _)| *before > record.start) {
                return Err(format!("key {key}: overlaps the writer at {before}: {record:?}"));
            }
        }
    }
    Ok(())
}

fn name(key: u64) -> Bytes {
    Bytes::from(format!("key {key}"))
}

fn scan(transaction: &kontiki_engine::Transaction, rng: &mut Rng, record: &mut Record) -> Result<(), Error> {
    let (from, to) = (rng.below(KEYS), rng.below(KEYS + 1));
    let direction = *rng.pick(&[Direction::Forward, Direction::Backward]).expect("two");
    let range = Range { start: Some(name(from)), end: Some(name(to.max(from))) };
    let mut entries = transaction.entries(FAMILY, range, direction)?;
    let mut found = BTreeMap::new();
    while let Some((key, value)) = entries.next().transpose()? {
        found.insert(key, value);
    }
    let own = |key: &u64| record.writes.contains_key(key) || record.locked.iter().any(|(locked, _)| locked == key);
    let read: Vec<_> = (from..to).filter(|key| !own(key)).map(|key| (key, found.get(&name(key)).cloned())).collect();
    record.reads.extend(read);
    Ok(())
}

/// One transaction of random operations; `None` if it was refused or rolled back.
fn attempt(db: &Db, rng: &mut Rng, unique: &AtomicU64, answered: &AtomicU64) -> Option<Record> {
    let mut record = Record { answered_before: answered.load(Ordering::Acquire), ..Record::default() };
    let isolation = if rng.chance(1, 4) { Isolation::Serializable } else { Isolation::Snapshot };
    let options = TransactionOptions { isolation, lock_wait_ms: 50, ..Default::default() };
    let mut transaction = db.transaction_with(options).expect("good options");
    record.start = transaction.start();
    for _ in 0..rng.range(1..6) {
        let key = rng.below(KEYS);
        let untouched = !record.writes.contains_key(&key) && record.locked.iter().all(|(locked, _)| *locked != key);
        match rng.below(10) {
            0..=2 => {
                let found = transaction.get(name(key)).expect("get");
                if untouched {
                    record.reads.push((key, found));
                }
            }
            3 => scan(&transaction, rng, &mut record).expect("scan"),
            4 if untouched => match transaction.get_for_update(FAMILY, name(key)) {
                Ok(found) => record.locked.push((key, found)),
                Err(Error::Conflict { .. } | Error::Deadlock { .. } | Error::LockTimeout { .. }) => return None,
                Err(error) => panic!("{error}"),
            },
            5 if rng.chance(1, 3) => {
                let end = (key + rng.below(3)).min(KEYS);
                transaction.delete_range(FAMILY, &name(key)..&name(end)).expect("small");
                record.writes.extend((key..end).map(|key| (key, None)));
            }
            5 => {
                transaction.delete(name(key)).expect("small");
                record.writes.insert(key, None);
            }
            6 => {
                let savepoint = transaction.savepoint();
                transaction.put(name(key), b"taken back").expect("small");
                transaction.rollback_to(&savepoint).expect("it is there");
            }
            _ => {
                let value = format!("{:0>40}", unique.fetch_add(1, Ordering::Relaxed));
                transaction.put(name(key), value.as_bytes()).expect("small");
                record.writes.insert(key, Some(Bytes::from(value)));
            }
        }
        give_way();
    }
    if rng.chance(1, 20) {
        return None;
    }
    let writes = !record.writes.is_empty();
    match transaction.commit() {
        Ok(sequence) if writes => {
            answered.fetch_max(sequence, Ordering::AcqRel);
            record.commit = Some(sequence);
        }
        Ok(sequence) => assert_eq!(sequence, record.start, "nothing was written"),
        Err(Error::Conflict { .. } | Error::Deadlock { .. } | Error::LockTimeout { .. }) => return None,
        Err(error) => panic!("{error}"),
    }
    Some(record)
}

fn history(seed: u64) -> (Vec<Record>, kontiki_engine::TransactionStats) {
    let db = threaded(seed);
    let records = Mutex::new(Vec::new());
    let (unique, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (db, records, unique, answered) = (&db, &records, &unique, &answered);
            scope.spawn(move || {
                let mut rng = Rng::new(seed).child(&format!("thread {thread}"));
                for _ in 0..150 {
                    let record = attempt(db, &mut rng, unique, answered);
                    records.lock().extend(record);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..5 {
                db.compact().expect("compact");
            }
        });
    });
    (records.into_inner(), db.stats().transactions)
}

#[test]
fn random_histories_are_snapshot_isolated() {
    let (mut committed, mut conflicts) = (0, 0);
    // Until they have collided often: on a busy machine threads may take turns for long.
    for seed in 0..200 {
        if seed >= 10 && committed > 1000 && conflicts > 50 {
            break;
        }
        let (records, stats) = history(seed);
        check(&records).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        committed += records.iter().filter(|record| record.commit.is_some()).count();
        conflicts += stats.conflicts;
        assert_eq!((stats.active, stats.locks, stats.waiting), (0, 0, 0));
    }
    assert!(committed > 1000 && conflicts > 50, "{committed} commits, {conflicts} conflicts: too weak");
}

#[test]
fn the_checker_finds_what_it_looks_for() {
    let write = |start, commit, key, value: &'static str| Record {
        start,
        commit: Some(commit),
        writes: BTreeMap::from([(key, Some(Bytes::from(value)))]),
        ..Record::default()
    };
    let read = |start, key, value: Option<&'static str>| Record {
        start,
        reads: vec![(key, value.map(Bytes::from))],
        ..Record::default()
    };
    assert_eq!(check(&[write(0, 1, 1, "a"), write(1, 2, 1, "b"), read(1, 1, Some("a"))]), Ok(()));
    assert!(check(&[write(0, 1, 1, "a"), write(0, 2, 1, "b")]).is_err(), "a lost update");
    assert!(check(&[write(0, 1, 1, "a"), read(1, 1, None)]).is_err(), "a stale read");
    assert!(check(&[write(0, 2, 1, "a"), read(1, 1, Some("a"))]).is_err(), "a read of the future");
    assert!(check(&[Record { answered_before: 3, ..read(2, 1, None) }]).is_err(), "an answer forgotten");
    let stale_lock = Record { locked: vec![(1, None)], ..write(0, 2, 1, "b") };
    assert!(check(&[write(0, 1, 1, "a"), stale_lock]).is_err(), "a lost update under a lock");
}
