//! Transfers between accounts: no money appears or vanishes, in no snapshot, whichever way the transfers are protected.

use super::support::*;
use bytes::Bytes;
use kontiki_engine::{Db, Direction, Error, Family, Isolation, Range, Transaction, TransactionOptions};
use kontiki_env::rng::Rng;

const ACCOUNTS: u64 = 8;
const EACH: u64 = 100;
/// Far more than it takes for transfers to collide.
const SEEDS_MAX: u64 = 50;
const FAMILY: Family = Family::DEFAULT;

fn account(n: u64) -> Vec<u8> {
    format!("account {n}").into_bytes()
}

fn amount(value: Option<Bytes>) -> u64 {
    std::str::from_utf8(&value.expect("there")).expect("text").parse().expect("a number")
}

fn total(transaction: &Transaction) -> u64 {
    let range = Range { start: Some("account".into()), end: Some("accounu".into()) };
    let mut entries = transaction.entries(FAMILY, range, Direction::Forward).expect("opens");
    rest(&mut entries).into_iter().map(|(_, value)| amount(Some(value))).sum()
}

/// How a transfer protects what it reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Optimistic(Isolation),
    Pessimistic,
}

fn transfer(transaction: &mut Transaction, rng: &mut Rng, way: Way) -> Result<(), Error> {
    let (from, to) = (account(rng.below(ACCOUNTS)), account(rng.below(ACCOUNTS)));
    if from == to {
        return Ok(());
    }
    // In no particular order, so that pessimistic transfers meet in deadlocks.
    let mut read = |key: &[u8]| {
        give_way();
        match way {
            Way::Pessimistic => transaction.get_for_update(FAMILY, key),
            Way::Optimistic(_) => transaction.get(key),
        }
    };
    let (from_has, to_has) = (amount(read(&from)?), amount(read(&to)?));
    let moved = rng.below(20).min(from_has);
    give_way();
    transaction.put(&from, (from_has - moved).to_string().as_bytes())?;
    transaction.put(&to, (to_has + moved).to_string().as_bytes())
}

fn run(db: &Db, way: Way, seed: u64) {
    let mut setup = db.transaction();
    for n in 0..ACCOUNTS {
        setup.put(account(n), EACH.to_string().as_bytes()).expect("small");
    }
    setup.commit().expect("commit");
    let options = match way {
        Way::Optimistic(isolation) => TransactionOptions { isolation, retries_max: 1000, ..Default::default() },
        Way::Pessimistic => TransactionOptions { lock_wait_ms: 60_000, retries_max: 1000, ..Default::default() },
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let options = &options;
            scope.spawn(move || {
                let mut rng = Rng::new(seed).child(&format!("thread {thread}"));
                for _ in 0..100 {
                    db.transact_with(options, |transaction| transfer(transaction, &mut rng, way)).expect("at last");
                    if rng.chance(1, 5) {
                        assert_eq!(total(&db.transaction()), ACCOUNTS * EACH, "{way:?}");
                    }
                }
            });
        }
    });
    assert_eq!(total(&db.transaction()), ACCOUNTS * EACH, "{way:?}");
    let stats = db.stats().transactions;
    assert_eq!((stats.active, stats.locks, stats.started), (0, 0, stats.committed + stats.rolled_back));
}

#[test]
fn money_stays_whichever_way_transfers_are_protected() {
    for way in [Way::Optimistic(Isolation::Snapshot), Way::Optimistic(Isolation::Serializable), Way::Pessimistic] {
        let (mut conflicts, mut deadlocks) = (0, 0);
        // Until the transfers have got in each other's way: on a busy machine threads may take turns for long.
        for seed in 0..SEEDS_MAX {
            let db = threaded(seed);
            run(&db, way, seed);
            let stats = db.stats().transactions;
            conflicts += stats.conflicts;
            deadlocks += stats.deadlocks;
            if seed >= 2 && conflicts + deadlocks > 0 {
                break;
            }
        }
        match way {
            Way::Optimistic(_) => assert!(conflicts > 0, "{way:?}: the workload is too weak"),
            Way::Pessimistic => {
                assert!(deadlocks > 0, "{way:?}: the workload is too weak");
                assert_eq!(conflicts, 0, "what was locked does not conflict");
            }
        }
    }
}
