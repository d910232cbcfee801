//! Databases to test on.

use bytes::Bytes;
use kontiki_engine::{Db, Direction, Entries, Family, FamilySpec, Options, Range, Transaction};
use kontiki_env::clock::RealClock;
use kontiki_env::tasks::Threads;
use kontiki_env::{Env, SimMachine};
use std::path::Path;
use std::sync::Arc;

pub const OTHER: Family = Family(7);

/// Everything small, so that a few writes exercise flush and compaction.
pub fn small_options() -> Options {
    let mut options = Options {
        families: vec![FamilySpec::new(OTHER, "other")],
        memtable_bytes: 4 << 10,
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        group_bytes_max: 4 << 10,
        ..Options::default()
    };
    options.compaction.level1_bytes = 16 << 10;
    options.compaction.table_bytes = 8 << 10;
    options
}

/// One thread drives everything.
pub fn stepped(machine: &SimMachine) -> Db {
    Db::open_in(&machine.env(), Path::new("/db"), small_options()).expect("opens")
}

/// Threads and real time, on a simulated disk, so that syncs cost nothing.
pub fn threaded(seed: u64) -> Db {
    let env = Env { tasks: Arc::new(Threads), clock: Arc::new(RealClock::new()), ..SimMachine::from_seed(seed).env() };
    Db::open_in(&env, Path::new("/db"), small_options()).expect("opens")
}

/// What an iterator still has.
pub fn rest(entries: &mut dyn Entries) -> Vec<(Bytes, Bytes)> {
    let mut out = Vec::new();
    while let Some(entry) = entries.next().transpose().expect("readable") {
        out.push(entry);
    }
    out
}

/// All that a transaction sees of the default family, as text.
pub fn dump(transaction: &Transaction) -> Vec<(String, String)> {
    let mut entries = transaction.entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("readable");
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
    rest(&mut entries).into_iter().map(|(key, value)| (text(key), text(value))).collect()
}

/// Lets other threads in, so that transactions overlap whatever the machine does.
pub fn give_way() {
    std::thread::yield_now();
}
