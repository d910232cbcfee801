use super::*;
use crate::{Durability, Family, Options, ReadOptions, WriteBatch};
use kontiki_env::SimMachine;
use std::time::Duration;

fn open(machine: &SimMachine, options: Options) -> Db {
    Db::open_in(&machine.env(), "/db".as_ref(), options).unwrap()
}

fn put(db: &Db, key: &[u8], value: &[u8], durability: Durability) {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, key, value);
    db.write(batch, durability).unwrap();
}

fn options() -> Options {
    Options { stats_sample_one_in: 1, ..Options::default() }
}

#[test]
fn every_subsystem_counts_what_it_does() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine, options());
    for i in 0..100_u32 {
        put(&db, &i.to_be_bytes(), &[7; 5000], if i % 2 == 0 { Durability::Sync } else { Durability::Buffered });
    }
    db.flush().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(Family::DEFAULT, [0].as_slice()..&[0, 0, 0, 9]);
    db.write(batch, Durability::Sync).unwrap();
    db.flush().unwrap();
    for i in 50..150_u32 {
        assert_eq!(db.get(i.to_be_bytes()).unwrap().is_some(), i < 100);
    }
    put(&db, b"memory", b"", Durability::Buffered);
    db.get(b"memory").unwrap();
    db.multi_get(Family::DEFAULT, &[b"a", b"b"]).unwrap();
    let range = || crate::Range::all();
    db.scan(Family::DEFAULT, range(), crate::Direction::Backward, ReadOptions::default()).unwrap().advance().unwrap();
    let stats = db.stats();
    assert_eq!((stats.commits.sync, stats.commits.buffered), (51, 51));
    assert_eq!((stats.latency.write.count(), stats.latency.commit_wait.count()), (102, 102));
    assert!(stats.log.syncs >= 51 && stats.latency.log_sync.count() == stats.log.syncs, "{stats:?}");
    assert!(stats.latency.value_sync.count() >= 50, "each sync of a large value syncs its segment: {stats:?}");
    assert_eq!((stats.memtables.flushes, stats.latency.flush.count()), (2, 2));
    assert_eq!(stats.families[0].range_tombstones, 1);
    assert_eq!((stats.reads.gets, stats.reads.gets_found, stats.reads.gets_in_memtables), (101, 51, 1));
    assert_eq!((stats.latency.get.count(), stats.latency.multi_get.count()), (101, 1));
    assert_eq!((stats.reads.scans, stats.latency.seek.count()), (1, 1));
    let level0 = &stats.reads.levels[0];
    assert_eq!(level0.found, 50, "{:?}", stats.reads);
    assert_eq!(level0.tables_read, level0.found + level0.filters.false_positives);
    assert_eq!((stats.value_cache.misses, stats.value_cache.hits), (50, 0));
    assert!(stats.block_cache.misses > 0 && stats.block_cache.bytes > 0 && stats.table_cache.tables > 0, "{stats:?}");
    assert_eq!(stats.table_cache.opens, stats.table_cache.tables);
    assert_eq!(stats.compaction.levels[0].runs, stats.memtables.flushes);
}

#[test]
fn levels_report_their_targets_and_scores() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine, options());
    for round in 0..3_u32 {
        for i in 0..50_u32 {
            put(&db, &i.to_be_bytes(), &round.to_be_bytes(), Durability::Buffered);
        }
        db.flush().unwrap();
    }
    let level0 = db.stats().families[0].levels[0];
    let trigger = Options::default().compaction.level0_tables as f64;
    assert!(level0.tables > 0 && level0.score <= level0.tables as f64 / trigger && level0.score > 0.0, "{level0:?}");
    assert_eq!(level0.target_bytes, None);
    db.compact().unwrap();
    let stats = db.stats();
    assert_eq!((stats.tables(), stats.families[0].levels[0].score), (1, 0.0));
    assert!(stats.latency.compaction.count() <= stats.compaction.count && stats.compaction.count > 0);
    let (read, written) = (stats.compaction.read_bytes, stats.compaction.written_bytes);
    assert!(read > 0 && written > 0 && stats.compaction.write_amplification > 1.0, "{:?}", stats.compaction);
    assert_eq!((stats.compaction.running, stats.compaction.debt_bytes), (0, 0));
}

#[test]
fn what_snapshots_and_iterators_pin_is_seen() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine, options());
    put(&db, b"a", &[1; 500], Durability::Buffered);
    let reads = || db.stats().reads;
    assert_eq!((reads().open, reads().pinned_states), (0, 0));
    let snapshot = db.snapshot();
    let scan =
        snapshot.scan(Family::DEFAULT, crate::Range::all(), crate::Direction::Forward, ReadOptions::default()).unwrap();
    assert_eq!((reads().open, reads().pinned_states), (2, 0), "the present pins nothing");
    db.flush().unwrap();
    machine.clock.time().advance_to(machine.clock.time().now() + Duration::from_secs(9));
    let pinned = reads();
    assert!(pinned.pinned_states > 0 && pinned.pinned_memtable_bytes >= 500, "{pinned:?}");
    assert!(pinned.open >= 2 && pinned.oldest_pinned_age_ms >= 9000, "{pinned:?}");
    drop((snapshot, scan));
    let freed = reads();
    assert_eq!((freed.open, freed.pinned_states, freed.pinned_memtable_bytes), (0, 0, 0));
    assert_eq!(freed.oldest_pinned_age_ms, 0);
}

#[test]
fn a_database_that_has_stopped_says_why() {
    let machine = SimMachine::from_seed(6);
    let db = open(&machine, options());
    assert_eq!(db.stats().health, HealthStats::default());
    db.core().write.stop(&crate::Error::Bug("a test".into()));
    assert!(db.stats().health.stopped.is_some_and(|why| why.contains("a test")));
}

#[test]
fn nothing_is_measured_where_sampling_is_off() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine, Options { stats_sample_one_in: 0, ..Options::default() });
    put(&db, b"a", b"", Durability::Sync);
    db.get(b"a").unwrap();
    let stats = db.stats();
    assert_eq!((stats.latency.get.count(), stats.latency.write.count(), stats.reads.gets), (0, 0, 0));
    assert!(stats.latency.log_sync.count() > 0, "few and slow: always");
}
