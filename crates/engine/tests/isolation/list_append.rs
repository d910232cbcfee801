//! Histories of appends to lists, checked from outside: `adya` infers from the lists alone which transaction depends on
//! which, and looks for the cycles that each isolation level forbids.

use super::support::*;
use adya::history::{Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{History, Opts, Report, Valid, Workload};
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Error, Family, Isolation, Range, Transaction, TransactionOptions};
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

const KEYS: u64 = 4;
/// So often other lists take the place of the old ones: none of them exists at first, so phantoms can appear.
const TRANSACTIONS_PER_PHASE: u64 = 10;
const THREADS: i64 = 4;
const TRANSACTIONS: usize = 150;

/// A read with what it found, the same by an iterator over all lists of a phase, or an append.
#[derive(Clone, Debug)]
enum Step {
    Read(u64, Option<Vec<i64>>),
    Scan(u64, Direction, Option<Vec<(u64, Vec<i64>)>>),
    Append(u64, i64),
}

type Event = (i64, OpType, Vec<Step>);

fn name(key: u64) -> Bytes {
    Bytes::from(format!("list {key:06}"))
}

fn parse(text: &[u8]) -> Vec<i64> {
    let text = std::str::from_utf8(text).expect("text");
    text.split(' ').filter(|part| !part.is_empty()).map(|part| part.parse().expect("a number")).collect()
}

fn list(transaction: &Transaction, key: u64) -> Result<Vec<i64>, Error> {
    Ok(parse(&transaction.get(name(key))?.unwrap_or_default()))
}

fn scan(transaction: &Transaction, first: u64, direction: Direction) -> Result<Vec<(u64, Vec<i64>)>, Error> {
    let range = Range { start: Some(name(first)), end: Some(name(first + KEYS)) };
    let mut entries = transaction.entries(Family::DEFAULT, range, direction)?;
    let mut found = BTreeMap::new();
    while let Some((key, value)) = entries.next().transpose()? {
        found.insert(key, parse(&value));
    }
    Ok((first..first + KEYS).map(|key| (key, found.remove(&name(key)).unwrap_or_default())).collect())
}

fn run(transaction: &mut Transaction, steps: &mut [Step]) -> Result<(), Error> {
    for step in steps {
        match step {
            Step::Read(key, found) => *found = Some(list(transaction, *key)?),
            Step::Scan(first, direction, found) => *found = Some(scan(transaction, *first, *direction)?),
            Step::Append(key, value) => {
                let mut all = list(transaction, *key)?;
                all.push(*value);
                let text: Vec<String> = all.iter().map(ToString::to_string).collect();
                transaction.put(name(*key), text.join(" ").as_bytes())?;
            }
        }
        give_way();
    }
    Ok(())
}

/// Runs random transactions on threads. The order of events is real time.
fn record(db: &Db, isolation: Isolation, seed: u64) -> Vec<Event> {
    let events = Mutex::new(Vec::new());
    let (unique, begun) = (AtomicI64::new(1), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for process in 0..THREADS {
            let (events, unique, begun) = (&events, &unique, &begun);
            scope.spawn(move || {
                let mut rng = Rng::new(seed).child(&format!("process {process}"));
                for _ in 0..TRANSACTIONS {
                    let began = begun.fetch_add(1, Ordering::Relaxed);
                    let first = began / TRANSACTIONS_PER_PHASE * KEYS;
                    let mut steps: Vec<Step> = (0..rng.range(1..5))
                        .map(|_| match (first + rng.below(KEYS), rng.below(6)) {
                            (key, 0 | 1) => Step::Read(key, None),
                            (_, 2) => Step::Scan(first, Direction::Forward, None),
                            (_, 3) => Step::Scan(first, Direction::Backward, None),
                            (key, _) => Step::Append(key, unique.fetch_add(1, Ordering::Relaxed)),
                        })
                        .collect();
                    events.lock().push((process, OpType::Invoke, steps.clone()));
                    let options = TransactionOptions { isolation, ..Default::default() };
                    let mut transaction = db.transaction_with(options).expect("good options");
                    let result = run(&mut transaction, &mut steps).and_then(|()| transaction.commit());
                    let kind = match result {
                        Ok(_) => OpType::Ok,
                        Err(Error::Conflict { .. }) => OpType::Fail,
                        Err(error) => panic!("{error}"),
                    };
                    events.lock().push((process, kind, steps));
                }
            });
        }
    });
    events.into_inner()
}

fn history(events: Vec<Event>) -> History {
    let mut interner = Interner::default();
    let mut ops = Vec::new();
    for (index, (process, kind, steps)) in events.into_iter().enumerate() {
        let mut value = Vec::new();
        for step in steps {
            match step {
                Step::Append(key, one) => {
                    let value_id = interner.intern(Scalar::Int(one));
                    value.push(Mop::Append { key: interner.intern(Scalar::Str(key.to_string())), value: value_id });
                }
                Step::Read(key, found) => value.push(read(&mut interner, key, found)),
                Step::Scan(first, _, None) => {
                    value.extend((first..first + KEYS).map(|key| read(&mut interner, key, None)));
                }
                Step::Scan(_, _, Some(all)) => {
                    value.extend(all.into_iter().map(|(key, found)| read(&mut interner, key, Some(found))));
                }
            }
        }
        ops.push(Op { index: index as u64, kind, process: Some(process), value, time: None });
    }
    History::from_ops(ops, interner)
}

fn read(interner: &mut Interner, key: u64, found: Option<Vec<i64>>) -> Mop {
    let found = found.map(|all| all.into_iter().map(|one| interner.intern(Scalar::Int(one))).collect());
    let value = found.map_or(ReadValue::Nil, ReadValue::List);
    Mop::Read { key: interner.intern(Scalar::Str(key.to_string())), value }
}

fn check(history: &History, model: &str) -> Report {
    let opts = Opts { models: vec![model.into()], ..Opts::default() };
    adya::check(history, Workload::ListAppend, &opts)
}

#[test]
fn serializable_transactions_are_strictly_serializable() {
    let mut committed = 0;
    for seed in 0..5 {
        let db = threaded(seed);
        let history = history(record(&db, Isolation::Serializable, seed));
        let report = check(&history, "strict-serializable");
        assert_eq!(report.valid, Valid::True, "seed {seed}: {:?} {:?}", report.anomaly_types, report.anomalies);
        committed += db.stats().transactions.committed;
    }
    assert!(committed > 300, "only {committed} commits");
}

#[test]
fn snapshot_isolation_shows_write_skew_and_nothing_worse() {
    let mut skewed = 0;
    // Until it has been seen: on a busy machine threads may take turns for long.
    for seed in 0..60 {
        if seed >= 4 && skewed > 0 {
            break;
        }
        let db = threaded(seed);
        let history = history(record(&db, Isolation::Snapshot, seed));
        let report = check(&history, "strong-snapshot-isolation");
        assert_eq!(report.valid, Valid::True, "seed {seed}: {:?} {:?}", report.anomaly_types, report.anomalies);
        skewed += usize::from(check(&history, "serializable").valid == Valid::False);
    }
    assert!(skewed > 0, "no write skew in any history: the workload is too weak to be of use");
}
