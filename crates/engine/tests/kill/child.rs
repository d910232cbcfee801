//! The process that is killed: writers, transfers between accounts, and maintenance, on real threads, for ever.

use crate::progress::Progress;
use crate::script::{self, BANK, LARGE, Op, Script, Step, WRITERS, id_of, key};
use kontiki_engine::copy::BackupStore;
use kontiki_engine::{
    Db, Direction, Durability, Error, Family, Options, Range, Result, Transaction, TransactionOptions, View, WriteBatch,
};
use kontiki_env::rng::Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const ACCOUNTS: u64 = 12;
pub const BALANCE: u64 = 1000;
pub const TRANSFERRERS: u64 = 2;
/// Backups that are kept.
const BACKUPS: usize = 3;

/// What the parent says to the child.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The database's directory is `db` in it.
    pub place: PathBuf,
    pub seed: u64,
    pub began_ms: u64,
    /// Whether a thread of the process takes all descriptors now and then.
    pub hogs: bool,
}

pub fn account(number: u64) -> Vec<u8> {
    format!("account/{number:03}").into_bytes()
}

pub fn counter(thread: u64) -> Vec<u8> {
    format!("counter/{thread}").into_bytes()
}

pub fn number_in(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("eight bytes"))
}

/// The sum over all accounts, and how many there are.
pub fn bank_of(view: &dyn View) -> Result<(u64, u64)> {
    let mut entries = view.entries(BANK, Range::prefix(b"account/"), Direction::Forward)?;
    let (mut sum, mut count) = (0, 0);
    while let Some((_, value)) = entries.next().transpose()? {
        (sum, count) = (sum + number_in(&value), count + 1);
    }
    Ok((sum, count))
}

fn check_bank(view: &dyn View, what: &str) -> Result<()> {
    assert_eq!(bank_of(view)?, (ACCOUNTS * BALANCE, ACCOUNTS), "{what}: money is neither made nor lost");
    Ok(())
}

/// Runs until it is killed. Anything unexpected ends it, which the parent sees.
pub fn run(orders: &Orders) {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let progress = Progress::open(&orders.place);
    let db = Db::open(orders.place.join("db"), script::options(orders.seed)).expect("opens");
    progress.set_opened();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, progress) = (&db, &progress);
            scope.spawn(move || write(db, progress, writer, orders));
        }
        for thread in 0..TRANSFERRERS {
            let (db, progress) = (&db, &progress);
            scope.spawn(move || transfer(db, progress, thread, orders.seed));
        }
        if orders.hogs {
            scope.spawn(|| hog(orders.seed));
        }
        maintain(&db, orders);
    });
}

/// Takes every descriptor that there is, for a moment, again and again.
fn hog(seed: u64) {
    let mut rng = Rng::new(seed).child("hog");
    loop {
        let held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        std::thread::park_timeout(Duration::from_millis(rng.below(100)));
        drop(held);
        std::thread::park_timeout(Duration::from_millis(rng.below(100)));
    }
}

/// The answer, once there is space for it, or a descriptor: a call that was refused has no effect, and may be tried
/// again.
fn retry_while_full<T>(progress: &Progress, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match attempt() {
            Err(Error::NoSpace { .. } | Error::NoDescriptors { .. }) => {
                progress.note_refusal();
                std::thread::park_timeout(Duration::from_millis(5));
            }
            answer => return answer,
        }
    }
}

fn write(db: &Db, progress: &Progress, writer: u64, orders: &Orders) {
    for (number, step) in (1..).zip(Script::new(orders.seed, writer, orders.began_ms)) {
        progress.begin(writer, number);
        let answer = retry_while_full(progress, || apply(db, writer, &step));
        answer.unwrap_or_else(|error| panic!("writer {writer}, step {number}, {step:?}: {error}"));
        progress.end(writer, number);
    }
}

fn apply(db: &Db, writer: u64, step: &Step) -> Result<()> {
    let Step { family, durability, op } = step;
    let key = |number: &u64| key(writer, *number);
    let mut batch = WriteBatch::new();
    match op {
        Op::Put { from, value } => match value.expires_at_ms {
            Some(at) => batch.put_expiring(*family, key(from), value.bytes(), at),
            None => batch.put(*family, key(from), value.bytes()),
        },
        Op::Delete { from } => batch.delete(*family, key(from)),
        Op::DeleteRange { from, to } => batch.delete_range(*family, &key(from)..&key(to)),
        Op::PutMany { from, to, value } => {
            (*from..*to).for_each(|number| batch.put(*family, key(&number), value.bytes()));
        }
        Op::Replace { from, to, value } => {
            batch.delete_range(*family, &key(from)..&key(to));
            batch.put(*family, key(from), value.bytes());
        }
        Op::Transact { from, middle, to, value } => {
            let options = TransactionOptions { durability: *durability, ..TransactionOptions::default() };
            return db.transact_with(&options, |transaction| {
                if from < middle {
                    transaction.delete_range(*family, &key(from)..&key(middle))?;
                }
                (*middle..*to).try_for_each(|number| transaction.put_in(*family, key(&number), value.bytes()))
            });
        }
    }
    db.write(batch, *durability).map(drop)
}

fn transfer(db: &Db, progress: &Progress, thread: u64, seed: u64) {
    let mut rng = Rng::new(seed).child(&format!("transfers {thread}"));
    let made = || {
        let found = retry_while_full(progress, || db.get_in(BANK, counter(thread)));
        found.expect("readable").map_or(0, |value| number_in(&value))
    };
    for number in made() + 1.. {
        let (from, to) = (rng.below(ACCOUNTS), rng.below(ACCOUNTS));
        let amount = rng.range(1..20);
        let sync = rng.chance(1, 4);
        let options = TransactionOptions {
            durability: if sync { Durability::Sync } else { Durability::Buffered },
            retries_max: 1000,
            ..if rng.chance(1, 2) { TransactionOptions::default() } else { TransactionOptions::serializable() }
        };
        let locks = rng.chance(1, 3);
        progress.begin(WRITERS + thread, number);
        let once = || db.transact_with(&options, |bank| move_money(bank, (from, to), amount, locks, thread, number));
        match retry_while_full(progress, once) {
            // Two who lock in different orders, or one who lost too often: nothing was written.
            Err(Error::LockTimeout { .. } | Error::Conflict { .. }) => {}
            answer => answer.unwrap_or_else(|error| panic!("transfer {number} of {thread}: {error}")),
        }
        if made() == number {
            progress.end(WRITERS + thread, number);
        }
    }
}

fn move_money(
    bank: &mut Transaction,
    (from, to): (u64, u64),
    amount: u64,
    locks: bool,
    thread: u64,
    number: u64,
) -> Result<()> {
    let read = |bank: &mut Transaction, of: u64| {
        let value = if locks { bank.get_for_update(BANK, account(of)) } else { bank.get_in(BANK, account(of)) };
        Ok(number_in(&value?.expect("each account is there")))
    };
    let amount = amount.min(read(bank, from)?);
    let less = read(bank, from)? - amount;
    bank.put_in(BANK, account(from), less.to_le_bytes())?;
    let more = read(bank, to)? + amount;
    bank.put_in(BANK, account(to), more.to_le_bytes())?;
    bank.put_in(BANK, counter(thread), number.to_le_bytes())
}

/// Everything that works on files in parallel with the writers.
fn maintain(db: &Db, orders: &Orders) {
    let mut rng = Rng::new(orders.seed).child("maintenance");
    loop {
        std::thread::park_timeout(Duration::from_millis(rng.range(1..30)));
        let done = match rng.below(9) {
            0 => db.flush(),
            1 => db.compact(),
            2 => {
                let (start, end) = (key(0, rng.below(100)), key(2, rng.below(100)));
                db.compact_range(Family::DEFAULT, Range { start: Some(start.into()), end: Some(end.into()) }).map(drop)
            }
            3 => db.collect_value_garbage().map(drop),
            4 => checkpoint(db, &orders.place.join("copy")),
            5 => back_up(db, &orders.place.join("backups")),
            _ => read_everything(db, if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward }),
        };
        match done {
            Ok(()) | Err(Error::NoSpace { .. } | Error::NoDescriptors { .. }) => {}
            // A copy gives up after some rounds if values are written fast enough meanwhile.
            Err(Error::Bug(what)) if what.contains("could not be sealed") => {}
            Err(error) => panic!("maintenance: {error}"),
        }
    }
}

fn checkpoint(db: &Db, target: &Path) -> Result<()> {
    match std::fs::remove_dir_all(target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Ok(()), // no descriptor for that
        _ => {}
    }
    db.checkpoint(target)?;
    let copy = Db::open_read_only(target, Options::default())?;
    check_bank(&copy.snapshot(), "a checkpoint")
}

fn back_up(db: &Db, directory: &Path) -> Result<()> {
    let backups = BackupStore::open(directory)?;
    let made = backups.create(db, &mut |_| ())?;
    backups.verify(made.number, &mut |_| ())?;
    let list = backups.list()?;
    list.iter().rev().skip(BACKUPS).try_for_each(|old| backups.delete(old.number))
}

fn read_everything(db: &Db, direction: Direction) -> Result<()> {
    let snapshot = db.snapshot();
    check_bank(&snapshot, "a snapshot")?;
    for family in [Family::DEFAULT, LARGE] {
        let mut entries = snapshot.entries(family, Range::all(), direction)?;
        while let Some((key, value)) = entries.next().transpose()? {
            assert!(id_of(&value).is_some(), "{family:?} {key:?}: a value that was never written");
        }
    }
    Ok(())
}
