//! Transactions on disks that fail, fill up and lose power: whole or not at all, and nothing stays locked.

use super::support::*;
use kontiki_engine::{Db, Error, Family, Result, TransactionOptions};
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::rng::Rng;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const PAIRS: u64 = 4;
const ROUNDS: u64 = 60;

/// Each transaction counts one pair of keys up, in two families. Returns the last value that each pair was answered
/// with.
fn count_up(db: &Db, answered: &mut [u64]) -> Result<()> {
    for round in 0..ROUNDS {
        let pair = round % PAIRS;
        let options = TransactionOptions { retries_max: 3, ..TransactionOptions::serializable() };
        let value = db.transact_with(&options, |transaction| {
            let key = [pair as u8];
            let before = transaction.get_for_update(Family::DEFAULT, key)?;
            let value = before.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().expect("8 bytes"))) + 1;
            let stored = [&value.to_le_bytes()[..], &[0; 200]].concat();
            transaction.put(key, &stored)?;
            let savepoint = transaction.savepoint();
            transaction.put(b"never", b"seen")?;
            transaction.rollback_to(&savepoint)?;
            transaction.put_in(OTHER, key, &stored)?;
            Ok(value)
        })?;
        answered[pair as usize] = value;
    }
    Ok(())
}

fn check(db: &Db, answered: &[u64], context: &str) {
    let transaction = db.transaction();
    for (pair, answered) in answered.iter().enumerate() {
        let key = [pair as u8];
        let stored = transaction.get(key).expect("get");
        assert_eq!(stored, transaction.get_in(OTHER, key).expect("get"), "{context}: a torn transaction");
        let value = stored.map_or(0, |value| u64::from_le_bytes(value[..8].try_into().expect("8 bytes")));
        assert!(value >= *answered, "{context}: pair {pair} is at {value}, answered was {answered}");
        assert!(value <= *answered + 1, "{context}: at most one commit was unanswered");
    }
    assert_eq!(transaction.get(b"never").expect("get"), None, "{context}: taken back by a savepoint");
}

fn try_open(machine: &SimMachine) -> Result<Db> {
    Db::open_in(&machine.env(), Path::new("/db"), small_options())
}

/// Runs the script with one operation failing; false if there are fewer of them.
fn survive_one_failure(op: Op, healthy: u64) -> bool {
    let context = format!("{op:?} {healthy}");
    let machine = SimMachine::from_seed(healthy);
    let seen = AtomicU64::new(0);
    machine.fs.start_trace();
    machine.fs.fail_next(op, 1, move |_| seen.fetch_add(1, Ordering::Relaxed) == healthy);
    let mut answered = [0; PAIRS as usize];
    if let Ok(db) = try_open(&machine) {
        if let Err(error) = count_up(&db, &mut answered) {
            assert!(matches!(error, Error::Io { .. } | Error::Stopped(_)), "{context}: {error}");
        }
        let stats = db.stats().transactions;
        assert_eq!((stats.active, stats.locks), (0, 0), "{context}: nothing stays behind a failure");
        machine.fs.power_off();
    }
    if !machine.fs.trace().iter().any(|entry| entry.faulted) {
        return false;
    }
    machine.fs.crash(if healthy.is_multiple_of(2) { CrashMode::LoseUnsynced } else { CrashMode::Random });
    let db = try_open(&machine.restarted(Rng::new(healthy))).unwrap_or_else(|error| panic!("{context}: {error}"));
    check(&db, &answered, &context);
    true
}

#[test]
fn a_failure_of_any_operation_leaves_transactions_whole_and_nothing_locked() {
    for op in [Op::Sync, Op::Write, Op::SyncDir, Op::Create] {
        let count = (0..).take_while(|healthy| survive_one_failure(op, *healthy)).count();
        assert!(count > 5, "{op:?}: the script has become too short: {count}");
    }
}

#[test]
fn power_lost_at_any_operation_leaves_transactions_whole() {
    let mut lost = 0;
    for ops in 0.. {
        let machine = SimMachine::from_seed(ops);
        machine.fs.power_off_after(ops);
        let mut answered = [0; PAIRS as usize];
        let done = try_open(&machine).and_then(|db| count_up(&db, &mut answered)).is_ok();
        if done && !machine.fs.is_off() {
            break;
        }
        lost += 1;
        machine.fs.crash(CrashMode::Random);
        let db = try_open(&machine.restarted(Rng::new(ops))).unwrap_or_else(|error| panic!("{ops}: {error}"));
        check(&db, &answered, &format!("power lost at {ops}"));
    }
    assert!(lost > 100, "the script has become too short: {lost}");
}

#[test]
fn a_full_disk_refuses_commits_and_later_ones_succeed() {
    let machine = SimMachine::from_seed(1);
    let db = try_open(&machine).expect("opens");
    machine.fs.set_quota(Some(machine.fs.used_bytes() + (2 << 10)));
    let mut answered = [0; PAIRS as usize];
    let refused = count_up(&db, &mut answered).expect_err("the disk is full");
    assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
    let stats = db.stats().transactions;
    assert_eq!((stats.active, stats.locks), (0, 0));
    check(&db, &answered, "full");
    machine.fs.set_quota(None);
    count_up(&db, &mut answered).expect("there is space again");
    check(&db, &answered, "with space");
}
