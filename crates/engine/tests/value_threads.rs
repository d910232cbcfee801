//! Values that are overwritten while their garbage is collected, on the real machine with real threads: every read
//! gives a value that its key had at some moment of the read.

use kontiki_engine::{Db, Durability, Family, FamilySpec, Options, VALUE_BYTES_MAX, WriteBatch};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const KEYS: usize = 40;
const WRITERS: usize = 2;
const ROUNDS: u64 = 60;

fn options(threshold_bytes: u64) -> Options {
    let mut default = FamilySpec::new(Family::DEFAULT, "default");
    default.options.value_threshold_bytes = threshold_bytes;
    let mut options = Options {
        families: vec![default],
        memtable_bytes: 16 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 1 << 20,
        value_segment_bytes: 16 << 10,
        value_garbage_percent: 5,
        cache_bytes: 8 << 10,
        ..Options::default()
    };
    options.compaction.level0_tables = 2;
    options.compaction.table_bytes = 4 << 10;
    options
}

/// Before a key is written its `begun` is raised, and `done` after it was answered: so a read that saw `done` at `d`
/// before it began and `begun` at `b` after it ended must give a version from `d` to `b`.
#[derive(Default)]
struct Versions {
    begun: AtomicU64,
    done: AtomicU64,
}

fn key(number: usize) -> Vec<u8> {
    format!("key {number:03}").into_bytes()
}

fn value(number: usize, version: u64) -> Vec<u8> {
    let filler = vec![(version ^ number as u64) as u8; 200 + number * 7];
    [version.to_be_bytes().as_slice(), &(number as u64).to_be_bytes(), &filler].concat()
}

fn version_of(number: usize, found: Option<&[u8]>) -> u64 {
    let Some(found) = found else { return 0 };
    let version = u64::from_be_bytes(*found.first_chunk().expect("a version"));
    assert_eq!(found, value(number, version), "a value of another key or version");
    version
}

fn write(db: &Db, writer: usize, versions: &[Versions]) {
    for version in 1..=ROUNDS {
        for number in (0..KEYS).filter(|number| number % WRITERS == writer) {
            versions[number].begun.store(version, Ordering::SeqCst);
            let mut batch = WriteBatch::new();
            batch.put(Family::DEFAULT, key(number), value(number, version));
            db.write(batch, Durability::Buffered).expect("a healthy disk");
            versions[number].done.store(version, Ordering::SeqCst);
        }
    }
}

fn read(db: &Db, versions: &[Versions], step: usize, stop: &AtomicBool) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number = (number + step) % KEYS;
        let least = versions[number].done.load(Ordering::SeqCst);
        let snapshot = db.snapshot();
        let now = db.get(key(number)).expect("a healthy disk");
        let now = version_of(number, now.as_deref());
        // Through the snapshot a little later, when collections have gone on.
        let then = snapshot.get_in(Family::DEFAULT, key(number)).expect("a healthy disk");
        let then = version_of(number, then.as_deref());
        let most = versions[number].begun.load(Ordering::SeqCst);
        assert!((least..=most).contains(&now), "key {number}: {now} is not from {least} to {most}");
        assert!((least..=now).contains(&then), "key {number}: the snapshot has {then}, not from {least} to {now}");
    }
}

fn overwrite_and_collect(threshold_bytes: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(directory.path(), options(threshold_bytes)).expect("opens");
    let versions: Vec<Versions> = (0..KEYS).map(|_| Versions::default()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (db, versions) = (&db, &versions);
                scope.spawn(move || write(db, writer, versions))
            })
            .collect();
        for step in [1, 7] {
            let (db, versions, stop) = (&db, &versions, &stop);
            scope.spawn(move || read(db, versions, step, stop));
        }
        let (of_collector, stop) = (&db, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                of_collector.compact().expect("a healthy disk");
                of_collector.collect_value_garbage().expect("a healthy disk");
            }
        });
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|writer| writer.expect("the writer's assertions hold"));
    });
    for collected in [false, true] {
        for (number, of_key) in versions.iter().enumerate() {
            let found = db.get(key(number)).expect("a healthy disk");
            assert_eq!(
                version_of(number, found.as_deref()),
                of_key.done.load(Ordering::SeqCst),
                "collected: {collected}"
            );
        }
        db.compact().expect("a healthy disk");
        db.collect_value_garbage().expect("a healthy disk");
    }
    let freed = db.stats().values.freed_bytes;
    assert_eq!(freed > 0, threshold_bytes == 32, "{freed} bytes were freed");
    db.close().expect("a healthy disk");
    let db = Db::open(directory.path(), options(threshold_bytes)).expect("opens");
    for number in 0..KEYS {
        let found = db.get(key(number)).expect("a healthy disk");
        assert_eq!(version_of(number, found.as_deref()), ROUNDS);
    }
}

#[test]
fn reads_give_current_values_while_garbage_is_collected_with_all_values_in_the_log() {
    overwrite_and_collect(32);
}

#[test]
fn reads_give_current_values_with_all_values_in_the_tree() {
    overwrite_and_collect(0);
}

#[test]
fn reads_give_current_values_with_a_threshold_that_nothing_reaches() {
    overwrite_and_collect(VALUE_BYTES_MAX as u64);
}
