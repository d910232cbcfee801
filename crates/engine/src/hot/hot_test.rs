use super::*;
use crate::{Commit, Db, Durability, Options, StreamId, StreamOp};
use kontiki_env::SimMachine;
use std::time::Duration;

fn open(machine: &SimMachine, hot_keys: HotKeyOptions) -> Db {
    let options = Options { stats_sample_one_in: 1, hot_keys, cache_bytes: 40 << 10, ..Options::default() };
    Db::open_in(&machine.env(), "/db".as_ref(), options).unwrap()
}

fn batch(keys: &[&[u8]]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    keys.iter().for_each(|key| batch.put(Family::DEFAULT, key, b"value"));
    batch
}

#[test]
fn keys_that_are_read_and_written_most_are_distinguished() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine, HotKeyOptions { window_ms: 10_000, ..HotKeyOptions::default() });
    machine.clock.time().advance_to(Duration::from_secs(10));
    for i in 0..1000_u32 {
        let cold = i.to_be_bytes();
        db.write(batch(&[b"written", &cold]), Durability::Buffered).unwrap();
        db.get(b"read").unwrap();
        db.get(cold).unwrap();
    }
    let hot = db.stats().hot_keys;
    let keys = |keys: &[HotKey]| keys.iter().map(|key| key.key.clone()).collect::<Vec<_>>();
    assert_eq!((keys(&hot.reads), keys(&hot.writes)), (vec![b"read".to_vec()], vec![b"written".to_vec()]));
    assert!((90.0..=100.0).contains(&hot.writes[0].per_second) && !hot.writes[0].truncated, "{hot:?}");
    let text = db.stats().to_prometheus();
    assert!(text.contains("kontiki_hot_key_reads_per_second{family=\"default\",key=\"read\"}"), "{text}");
}

#[test]
fn a_key_that_is_written_too_often_is_refused_for_a_while() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine, HotKeyOptions { write_limit_per_second: 10, ..HotKeyOptions::default() });
    for i in 0..10 {
        db.write(batch(&[b"hot", &[i]]), Durability::Buffered).unwrap();
    }
    let before = db.stats().log.appended_bytes;
    let refused = db.write(batch(&[b"hot", b"other"]), Durability::Sync);
    let Err(Error::Throttled { family, key, limit_per_second, retry_after_ms }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((family, &key[..], limit_per_second, retry_after_ms), (Family::DEFAULT, &b"hot"[..], 10, 100));
    assert_eq!((db.get(b"other").unwrap(), db.stats().log.appended_bytes), (None, before), "nothing was written");
    let mut transaction = db.transaction();
    transaction.put(b"hot", b"value").unwrap();
    assert!(matches!(transaction.commit(), Err(Error::Throttled { .. })), "transactions too");
    db.write(batch(&[b"other"]), Durability::Sync).unwrap();
    machine.clock.time().advance_to(Duration::from_millis(100));
    db.write(batch(&[b"hot"]), Durability::Sync).unwrap();
    assert_eq!(db.stats().hot_keys.throttled, 2);
}

#[test]
fn what_replication_logs_and_applies_is_never_refused() {
    let machine = SimMachine::from_seed(3);
    let db = open(&machine, HotKeyOptions { write_limit_per_second: 1, ..HotKeyOptions::default() });
    for i in 0..100 {
        db.write(batch(&[b"hot"]), Durability::Derived).unwrap();
        let mut commit = Commit::new(batch(&[b"hot"]), Durability::Buffered);
        commit.streams.push(StreamOp::State { stream: StreamId(1), state: vec![i].into() });
        db.commit(commit).unwrap();
    }
    assert_eq!(db.stats().hot_keys.throttled, 0);
}

#[test]
fn what_hot_keys_read_stays_in_memory() {
    let machine = SimMachine::from_seed(4);
    let db = open(&machine, HotKeyOptions::default());
    for i in 0..2000_u32 {
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, i.to_be_bytes(), [i as u8; 500]);
        db.write(batch, Durability::Buffered).unwrap();
    }
    db.compact().unwrap();
    for _ in 0..20 {
        db.get(7_u32.to_be_bytes()).unwrap();
    }
    assert!(db.stats().hot_keys.promoted > 0);
    // Many times what the cache holds.
    let mut scan = db
        .scan(Family::DEFAULT, crate::Range::all(), crate::Direction::Forward, crate::ReadOptions::default())
        .unwrap();
    while scan.advance().unwrap() {}
    let before = db.stats().block_cache;
    assert!(before.evictions > 0, "{before:?}");
    db.get(7_u32.to_be_bytes()).unwrap();
    let after = db.stats().block_cache;
    assert_eq!((after.misses, after.hits > before.hits), (before.misses, true));
}

#[test]
fn without_tracking_nothing_is_hot() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine, HotKeyOptions { tracked: false, ..HotKeyOptions::default() });
    for _ in 0..100 {
        db.write(batch(&[b"hot"]), Durability::Buffered).unwrap();
        db.get(b"hot").unwrap();
    }
    assert_eq!(db.stats().hot_keys, HotKeyStats::default());
}
