//! Many point reads at once: on disks with faults and bit rot, and next to single reads of the same snapshot.

use super::values::{large_values, text};
use super::*;
use crate::{Error, Result, Snapshot};
use kontiki_env::fs::{Fs, Op, OpenMode, TraceEntry, read_all};
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

type Values = Vec<Option<Bytes>>;

/// Blocks so small that a table has many, and space for a level between level 0 and the last.
fn small_blocks() -> Options {
    let mut options = large_values();
    options.table.block_bytes = 256;
    options.compaction.table_bytes = 600;
    options.compaction.level0_tables = 2;
    options.compaction.level1_bytes = 400;
    options.compaction.level_factor = 2;
    options
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:03}").into_bytes()
}

const KEYS: u64 = 120;

/// All keys that there are, some that are not, and one twice, in no order.
fn requested_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..KEYS).map(|number| key(number * 37 % KEYS)).collect();
    keys.extend([&b"absent"[..], b"", b"050", b"0505"].map(<[u8]>::to_vec));
    keys
}

fn multi_get(db: &Db, keys: &[Vec<u8>]) -> Result<Values> {
    db.multi_get(Family::DEFAULT, &keys.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// A closed directory whose keys are in a memtable (by the log), in level 0 and in two levels below it, in part under a
/// range tombstone, expired, and with values in segments and in relocated files; with what [`requested_keys`] must
/// find.
fn directory() -> (SimMachine, Values) {
    open_with(small_blocks);
    let machine = SimMachine::from_seed(31);
    let db = open(&machine);
    let mut model: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut write = |numbers: &mut dyn Iterator<Item = u64>, round: usize| {
        for number in numbers {
            let value = format!("{number}/{round} {}", text(if number % 2 == 0 { 20 } else { 90 }, number as usize));
            db.write(put(std::str::from_utf8(&key(number)).expect("digits"), &value), Durability::Buffered)
                .expect("put");
            model.insert(key(number), value);
        }
    };
    write(&mut (0..KEYS), 0);
    db.compact().expect("a healthy disk");
    write(&mut (0..KEYS).filter(|number| number % 3 == 0), 1);
    db.compact().expect("a healthy disk");
    assert!(db.collect_value_garbage().expect("a healthy disk").moved_bytes > 0);
    for rest in [0, 1] {
        write(&mut (0..KEYS).filter(|number| number % 4 == rest), 2);
        db.flush().expect("a healthy disk");
    }
    machine.tasks.run_until_idle(1000);
    let mut batch = WriteBatch::new();
    batch.delete_range(Family::DEFAULT, b"030"..b"040");
    let ended = machine.env().clock.wall_ms() - 1;
    batch.put_expiring(Family::DEFAULT, b"041", text(100, 1).as_bytes(), ended);
    batch.put_expiring(Family::DEFAULT, b"042", b"short", ended);
    batch.delete(Family::DEFAULT, b"043");
    db.write(batch, Durability::Buffered).expect("written");
    write(&mut (32..34), 3);
    db.flush().expect("a healthy disk");
    write(&mut (100..106), 4);
    for number in (30..44).filter(|number| ![32, 33, 40].contains(number)) {
        model.remove(&key(number));
    }
    let levels: Vec<u64> = default_levels(&db).iter().map(|level| level.tables).collect();
    assert!(levels[0] > 0 && levels[1..].iter().filter(|tables| **tables > 0).count() > 1, "{levels:?}");
    assert!(db.stats().families[0].range_tombstones > 0 && db.stats().values.relocated_segments > 0);
    drop(db); // The last of it stays in the log.
    let expected = requested_keys().iter().map(|key| model.get(key).map(|value| Bytes::from(value.clone()))).collect();
    (machine, expected)
}

fn default_levels(db: &Db) -> Vec<crate::stats::LevelStats> {
    db.stats().families.into_iter().find(|family| family.family == 0).expect("always there").levels
}

/// The same directory under a fresh process, which has read `warm` of the keys.
fn reopened(machine: &SimMachine, warm: usize) -> (SimMachine, Db) {
    let machine = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..restarted(machine, 1) };
    let db = open(&machine);
    for key in &requested_keys()[..warm] {
        db.get(key).expect("a healthy disk");
    }
    machine.fs.start_trace();
    (machine, db)
}

/// The reads of a call on a healthy disk.
fn reads_of_a_call(machine: &SimMachine, warm: usize, expected: &Values) -> Vec<TraceEntry> {
    let (machine, db) = reopened(machine, warm);
    check(&multi_get(&db, &requested_keys()).expect("a healthy disk"), expected, "a healthy disk");
    machine.fs.trace().into_iter().filter(|entry| entry.op == Op::Read).collect()
}

fn check(found: &Values, expected: &Values, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((key, found), expected) in requested_keys().iter().zip(found).zip(expected) {
        assert_eq!(found, expected, "{what}: {key:?}");
    }
}

/// All answers are right once the fault is over, together and one by one.
fn check_afterwards(db: &Db, expected: &Values, what: &str) {
    for _ in 0..2 {
        check(&multi_get(db, &requested_keys()).unwrap_or_else(|error| panic!("{what}: {error}")), expected, what);
    }
    for (key, expected) in requested_keys().iter().zip(expected) {
        assert_eq!(db.get(key).unwrap_or_else(|error| panic!("{what}: {error}")), *expected, "{what}: {key:?}");
    }
}

fn folder(path: &Path) -> &str {
    path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).expect("a file of the database")
}

#[test]
fn a_read_that_fails_is_named_and_nothing_of_it_is_remembered() {
    let (machine, expected) = directory();
    for warm in [0, 40] {
        let reads = reads_of_a_call(&machine, warm, &expected);
        for place in ["tables", "vlog"] {
            assert!(reads.iter().filter(|read| folder(&read.path) == place).count() > 5, "{place}: {reads:?}");
        }
        for (healthy, read) in reads.iter().enumerate() {
            let (machine, db) = reopened(&machine, warm);
            let seen = AtomicU64::new(0);
            machine.fs.fail_next(Op::Read, 1, move |_| seen.fetch_add(1, Ordering::Relaxed) == healthy as u64);
            let context = format!("{warm} keys were warm, read {healthy}: {read:?}");
            let error = multi_get(&db, &requested_keys()).expect_err(&context);
            assert!(matches!(&error, Error::Io { file, .. } if *file == read.path), "{context}: {error}");
            assert!(machine.fs.trace().last().is_some_and(|last| last.faulted), "{context}: it stops there");
            check_afterwards(&db, &expected, &context);
            assert!(db.stats().health.stopped.is_none(), "{context}: writes do not stop for a read");
        }
    }
}

/// Which bytes of what is read are tried: the first and the last ones, and some between.
fn places(read: &TraceEntry) -> BTreeSet<u64> {
    let last = read.length - 1;
    let inside = (1..6).map(|part| last * part / 6);
    inside.chain([0, last, last.saturating_sub(4)]).map(|at| read.offset + at).collect()
}

#[test]
fn a_flipped_bit_of_anything_read_is_named_and_nothing_of_it_is_remembered() {
    let (machine, expected) = directory();
    let mut named: BTreeMap<String, u64> = BTreeMap::new();
    for read in reads_of_a_call(&machine, 0, &expected) {
        for offset in places(&read) {
            let (machine, db) = reopened(&machine, 0);
            let context = format!("byte {offset} of {read:?}");
            let bit = (offset % 8) as u8;
            machine.fs.flip_bit(&read.path, offset, bit).expect("inside");
            let error = multi_get(&db, &requested_keys()).expect_err(&context);
            let (file, at) = match &error {
                Error::Corruption { file, offset, .. } => (file, *offset),
                // The byte that says which format it is.
                Error::UnsupportedFormat { file, .. } => (file, offset),
                error => panic!("{context}: {error}"),
            };
            assert_eq!(*file, read.path, "{context}: {error}");
            let inside = read.offset..read.offset + read.length;
            assert!(inside.contains(&at), "{context}: {error}");
            *named.entry(folder(file).to_string()).or_default() += 1;
            machine.fs.flip_bit(&read.path, offset, bit).expect("inside");
            check_afterwards(&db, &expected, &context);
        }
    }
    assert!(named["tables"] > 100 && named["vlog"] > 100, "{named:?}");
}

#[test]
fn a_file_that_has_lost_its_end_is_named_and_nothing_of_it_is_remembered() {
    let (machine, expected) = directory();
    for warm in [0, 40] {
        for read in reads_of_a_call(&machine, warm, &expected) {
            let (machine, db) = reopened(&machine, warm);
            let context = format!("{warm} keys were warm: {read:?}");
            let whole = read_all(&machine.fs, &read.path).expect("readable");
            let file = machine.fs.open(&read.path, OpenMode::ReadWrite).expect("opens");
            file.set_len(read.offset + read.length / 2).expect("a healthy disk");
            let error = multi_get(&db, &requested_keys()).expect_err(&context);
            assert!(matches!(&error, Error::Corruption { file, .. } if *file == read.path), "{context}: {error}");
            file.write_at(&whole, 0).expect("a healthy disk");
            check_afterwards(&db, &expected, &context);
        }
    }
}

/// What a script of random writes has reached, so that the comparison is known to have met it.
#[derive(Debug, Default)]
struct Met {
    memtables: u64,
    level0: u64,
    deeper: u64,
    range_tombstones: u64,
    values: u64,
}

fn random_write(db: &Db, now_ms: u64, rng: &mut Rng) {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.range(1..6) {
        let family = if rng.chance(1, 4) { OTHER } else { Family::DEFAULT };
        let key = key(rng.below(KEYS));
        let value = format!("{} {}", rng.next_u64(), text(rng.below(150) as usize, 0));
        match rng.below(12) {
            0 => batch.delete_range(family, &key..&self::key(rng.below(KEYS)).max(key.clone())),
            1 | 2 => batch.delete(family, &key),
            3 | 4 => batch.put_expiring(family, &key, value.as_bytes(), now_ms + rng.below(3000)),
            _ => batch.put(family, &key, value.as_bytes()),
        }
    }
    db.write(batch, Durability::Buffered).expect("a healthy disk");
}

/// Unsorted, with duplicates, keys that are nowhere, and sometimes none at all.
fn random_keys(rng: &mut Rng) -> Vec<Vec<u8>> {
    let random = |rng: &mut Rng| match rng.below(10) {
        0 => Vec::new(),
        1 => format!("{:03}x", rng.below(KEYS)).into_bytes(),
        2 => vec![0xff; 3],
        _ => key(rng.below(KEYS)),
    };
    let mut keys: Vec<Vec<u8>> = (0..rng.below(60)).map(|_| random(rng)).collect();
    for _ in 0..keys.len() / 5 {
        let (from, to) = (rng.below(keys.len() as u64) as usize, rng.below(keys.len() as u64) as usize);
        keys[to] = keys[from].clone();
    }
    keys
}

fn compare(snapshot: &Snapshot, rng: &mut Rng) {
    let keys = random_keys(rng);
    let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for family in [Family::DEFAULT, OTHER] {
        let single: Values = slices.iter().map(|key| snapshot.get_in(family, key).expect("a healthy disk")).collect();
        let many = snapshot.multi_get(family, &slices).expect("a healthy disk");
        assert_eq!(many, single, "{family:?} at {}: {keys:?}", snapshot.sequence());
    }
    let unknown = snapshot.multi_get(Family(77), &slices).expect_err("there is no such family");
    assert!(matches!(&unknown, Error::InvalidArgument(what) if what.contains("77")), "{unknown}");
}

#[test]
fn many_keys_together_give_what_each_gives_alone_at_every_snapshot() {
    open_with(small_blocks);
    let mut met = Met::default();
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let machine = SimMachine::from_seed(seed);
        let db = open(&machine);
        let mut snapshots: Vec<(Snapshot, Values)> = Vec::new();
        let all: Vec<Vec<u8>> = (0..KEYS).map(key).collect();
        let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        for step in 0..400 {
            let now_ms = machine.env().clock.wall_ms();
            match rng.below(40) {
                0 => db.flush().expect("a healthy disk"),
                1 => drop(machine.tasks.run_until_idle(10_000)),
                2 if step > 200 => db.compact().expect("a healthy disk"),
                3 => drop(db.collect_value_garbage().expect("a healthy disk")),
                4 => machine.clock.set_wall_offset_ms((step as i64) * 20),
                5 if snapshots.len() < 6 => {
                    let snapshot = db.snapshot();
                    let now = snapshot.multi_get(Family::DEFAULT, &all).expect("a healthy disk");
                    snapshots.push((snapshot, now));
                }
                6 if !snapshots.is_empty() => drop(snapshots.swap_remove(rng.below(snapshots.len() as u64) as usize)),
                7..=10 => {
                    compare(&db.snapshot(), &mut rng);
                    met.note(&db);
                }
                11..=13 => {
                    for (snapshot, then) in &snapshots {
                        compare(snapshot, &mut rng);
                        let now = snapshot.multi_get(Family::DEFAULT, &all).expect("a healthy disk");
                        assert_eq!(now, *then, "a snapshot never changes");
                    }
                }
                _ => random_write(&db, now_ms, &mut rng),
            }
        }
        assert_eq!(db.multi_get(Family::DEFAULT, &[] as &[&[u8]]).expect("nothing to read"), Values::new());
    }
    let Met { memtables, level0, deeper, range_tombstones, values } = met;
    for (count, what) in [
        (memtables, "memtables"),
        (level0, "tables of level 0"),
        (deeper, "deeper levels"),
        (range_tombstones, "range tombstones"),
        (values, "value files"),
    ] {
        assert!(count > 20, "the script hardly meets {what}: {count}");
    }
}

impl Met {
    fn note(&mut self, db: &Db) {
        let stats = db.stats();
        let levels = default_levels(db);
        self.memtables += u64::from(stats.memtables.bytes > 0);
        self.level0 += u64::from(levels[0].tables > 0);
        self.deeper += u64::from(levels[1..].iter().any(|level| level.tables > 0));
        self.range_tombstones += u64::from(stats.families[0].range_tombstones > 0);
        self.values += u64::from(stats.values.files > 0);
    }
}
