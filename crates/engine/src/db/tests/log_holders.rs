//! What holds the log, as a database reports it.

use super::values::text;
use super::*;
use crate::{LogHolder, LogSegmentStatus, StreamId};

/// Memtables that hold many segments, in a log with space for them.
fn large_log() -> Options {
    Options {
        memtable_bytes: 1 << 20,
        log_bytes_max: 64 << 10,
        log_holder_warn_bytes: 20 << 10,
        feed_retention_bytes: 12 << 10,
        ..small_options()
    }
}

fn fill(db: &Db, kib: usize) {
    for i in 0..kib {
        db.write(put(&format!("{i:04}"), &text(990, i)), Durability::Buffered).expect("written");
    }
}

fn held_by(status: &LogSegmentStatus, is: fn(&LogHolder) -> bool) -> bool {
    status.holders.iter().any(is)
}

fn by_memtable(holder: &LogHolder) -> bool {
    matches!(holder, LogHolder::Memtable { families, frozen: false, .. } if families[..] == [Family::DEFAULT])
}

#[test]
fn every_segment_has_a_holder_and_a_flush_leaves_those_for_the_feed() {
    open_with(large_log);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    let reader = db.changes(0).expect("open");
    fill(&db, 12);
    machine.tasks.run_until_idle(1000);
    let held = db.log_retention();
    assert!(held.len() > 3 && held.iter().all(|status| held_by(status, by_memtable)), "{held:?}");
    assert!(held.last().is_some_and(|newest| newest.held_since_ms.is_none() && newest.holders[0] == LogHolder::Newest));
    assert!(held.windows(2).all(|w| w[0].sequences < w[1].sequences && w[0].held_since_ms.is_some()), "{held:?}");
    let stats = db.stats().log;
    assert_eq!((stats.held_by_memtables_bytes, stats.held_by_streams_bytes), (stats.bytes, 0));
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    let held = db.log_retention();
    let (newest, older) = held.split_last().expect("some");
    assert_eq!(newest.holders, [LogHolder::Newest]);
    assert!(!older.is_empty(), "the feed keeps some");
    let subscribers = vec![reader.id()];
    assert!(older.iter().all(|status| status.holders == [LogHolder::ChangeFeed { subscribers: subscribers.clone() }]));
    let stats = db.stats().log;
    assert_eq!((stats.held_by_memtables_bytes, stats.held_for_feed_bytes), (0, stats.bytes - newest.bytes));
    assert!(stats.held_for_feed_bytes <= large_log().feed_retention_bytes);
    assert_eq!(stats.holder_warnings, 0);
}

#[test]
fn streams_are_named_and_what_is_behind_them_waits() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    db.commit(streams(vec![append(7, 1, &["entry"])], Durability::Sync)).expect("streams");
    for _ in 0..3 {
        fill(&db, 3);
        db.flush().expect("flush");
    }
    machine.tasks.run_until_idle(1000);
    let held = db.log_retention();
    assert_eq!(held[0].holders, [LogHolder::Stream { stream: StreamId(7), items: 1 }]);
    let behind = LogHolder::Older { segment: held[0].segment };
    assert!(held.len() > 2 && held[1..held.len() - 1].iter().all(|status| status.holders == [behind.clone()]));
    let stats = db.stats().log;
    assert_eq!((stats.held_by_memtables_bytes, stats.held_by_streams_bytes), (0, stats.bytes));
    let ops = vec![StreamOp::Truncate { stream: StreamId(7), through_index: 1 }];
    db.commit(streams(ops, Durability::Sync)).expect("truncated");
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    assert!(db.log_retention().len() < held.len());
}

#[test]
fn a_holder_that_keeps_too_much_is_warned_of_and_the_log_makes_memtables_flush() {
    open_with(large_log);
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    fill(&db, 18);
    machine.tasks.run_until_idle(1000);
    assert_eq!(db.stats().log.holder_warnings, 0);
    fill(&db, 6);
    machine.tasks.run_until_idle(1000);
    assert_eq!(db.stats().log.holder_warnings, 1);
    fill(&db, 10);
    machine.tasks.run_until_idle(1000);
    assert_eq!((db.stats().log.holder_warnings, db.stats().memtables.flushes), (1, 0), "once, until it has doubled");
    // Beyond the log's budget the memtable is flushed, although it is not full.
    fill(&db, 40);
    machine.tasks.run_until_idle(1000);
    let stats = db.stats();
    assert!(stats.memtables.flushes >= 1 && stats.log.holder_warnings >= 2, "{:?}", stats.log);
    assert!(stats.log.bytes < 64 << 10);
    // Streams hold more than that, if their owner does not truncate them.
    for i in 0..40 {
        db.commit(streams(vec![append(1, i + 1, &[&text(900, 1)])], Durability::Buffered)).expect("streams");
    }
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    let stats = db.stats().log;
    assert!(stats.held_by_streams_bytes > 20 << 10 && stats.holder_warnings >= 3, "{stats:?}");
}
