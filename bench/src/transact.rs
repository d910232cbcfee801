//! Transactions that all update one key: threads that each read a counter, add one, and put it, durably. Kontiki by
//! `Db::transact`, the same behind one mutex (so that no two conflict), and redb, which has one writer at a time. The
//! counter is checked.

use kontiki_engine::{Db, Options, Transaction};
use redb::{Database, ReadableTable, TableDefinition};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Arguments {
    /// Threads.
    #[arg(long, default_value_t = 8)]
    threads: u64,
    /// Transactions of each thread.
    #[arg(long, default_value_t = 200)]
    turns: u64,
    /// How often all is done, one after the other.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the databases are created; the default is the system's directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const KEY: &[u8] = b"counter";
const TABLE: TableDefinition<&[u8], u64> = TableDefinition::new("default");

/// Lets every thread repeat the work; returns the total time.
fn measure(arguments: &Arguments, add_one: impl Fn() + Sync) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| (0..arguments.turns).for_each(|_| add_one()));
        }
    });
    began.elapsed()
}

fn number(found: Option<&[u8]>) -> u64 {
    found.map_or(0, |value| u64::from_le_bytes(value.try_into().expect("eight bytes")))
}

fn add_one(transaction: &mut Transaction) -> kontiki_engine::Result<()> {
    let before = number(transaction.get(KEY)?.as_deref());
    transaction.put(KEY, &(before + 1).to_le_bytes())
}

/// With the number of retries.
fn kontiki(arguments: &Arguments, dir: &Path, one_at_a_time: bool) -> (Duration, u64) {
    let db = Db::open(dir, Options::default()).expect("kontiki opens");
    let mutex = Mutex::new(());
    let took = measure(arguments, || {
        let _alone = one_at_a_time.then(|| mutex.lock().expect("no thread panics"));
        db.transact(add_one).expect("no call gives up");
    });
    let found = number(db.get(KEY).expect("readable").as_deref());
    assert_eq!(found, arguments.threads * arguments.turns, "an addition is lost");
    (took, db.stats().transactions.retries)
}

fn redb(arguments: &Arguments, dir: &Path) -> Duration {
    std::fs::create_dir_all(dir).expect("a temporary directory");
    let db = Database::create(dir.join("redb")).expect("redb opens");
    let took = measure(arguments, || {
        let transaction = db.begin_write().expect("redb begin");
        {
            let mut table = transaction.open_table(TABLE).expect("redb table");
            let before = table.get(KEY).expect("redb get").map_or(0, |value| value.value());
            table.insert(KEY, before + 1).expect("redb insert");
        }
        transaction.commit().expect("redb commit");
    });
    let transaction = db.begin_write().expect("redb begin");
    let table = transaction.open_table(TABLE).expect("redb table");
    let found = table.get(KEY).expect("redb get").map_or(0, |value| value.value());
    assert_eq!(found, arguments.threads * arguments.turns, "an addition is lost");
    took
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

pub fn run(arguments: &Arguments) {
    let root = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let root = root.expect("a temporary directory");
    let calls = (arguments.threads * arguments.turns) as f64;
    println!("{} threads, {} additions each to one key, durable:", arguments.threads, arguments.turns);
    println!("{:>9} {:>12} {:>12} {:>9} {:>9}", "transact", "one mutex", "redb", "/ mutex", "/ redb");
    let (mut by_mutex, mut by_redb) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds.max(1) {
        let dir = |name: &str| root.path().join(format!("{name}-{round}"));
        let (transact, retries) = kontiki(arguments, &dir("transact"), false);
        let (mutex, _) = kontiki(arguments, &dir("mutex"), true);
        let redb = redb(arguments, &dir("redb"));
        let ratio = |other: Duration| transact.as_secs_f64() / other.as_secs_f64();
        let ms = |took: Duration| took.as_secs_f64() * 1e3;
        println!(
            "{:>6.0} ms {:>9.0} ms {:>9.0} ms {:>9.2} {:>9.2}   {:.2} retries per call, {:.0} us per call",
            ms(transact),
            ms(mutex),
            ms(redb),
            ratio(mutex),
            ratio(redb),
            retries as f64 / calls,
            ms(transact) * 1e3 / calls,
        );
        by_mutex.push(ratio(mutex));
        by_redb.push(ratio(redb));
    }
    println!("median of the ratios: {:.2} of one mutex, {:.2} of redb", median(by_mutex), median(by_redb));
}
