//! The API of the database, without faults.

use super::*;
use crate::{Error, StreamContents, StreamId};
use kontiki_env::fs::CrashMode;
use parking_lot::Mutex;
use std::sync::Arc;

#[test]
fn what_is_put_is_there_until_it_is_deleted() {
    let machine = SimMachine::from_seed(1);
    let db = open(&machine);
    db.put(b"k", b"1").expect("put");
    db.put(b"k", b"2").expect("put");
    assert_eq!(db.get(b"k").expect("get").as_deref(), Some(&b"2"[..]));
    let snapshot = db.snapshot();
    db.delete(b"k").expect("delete");
    assert_eq!(db.get(b"k").expect("get"), None);
    assert_eq!(snapshot.get_in(Family::DEFAULT, b"k").expect("get").as_deref(), Some(&b"2"[..]));
    db.flush().expect("flush");
    db.compact().expect("compact");
    assert_eq!(db.get(b"k").expect("get"), None);
    assert_eq!(snapshot.get_in(Family::DEFAULT, b"k").expect("get").as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_clean_close_and_a_kill_both_lose_nothing() {
    let machine = SimMachine::from_seed(2);
    let db = open(&machine);
    for i in 0..300 {
        db.put(format!("{i:04}").as_bytes(), format!("value {i}").as_bytes()).expect("put");
    }
    db.flush().expect("flush");
    machine.tasks.run_until_idle(1000);
    assert!(db.stats().memtables.flushes > 0 && db.stats().log.segments_deleted > 0, "{:?}", db.stats());
    let before = dump(&db.snapshot(), Family::DEFAULT);
    assert_eq!(before.len(), 300);
    db.close().expect("close");
    let machine = restarted(&machine, 3);
    let db = open(&machine);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), before);
    db.write(put("after", "x"), Durability::Buffered).expect("buffered");
    machine.fs.crash(CrashMode::Kill);
    drop(db);
    let machine = restarted(&machine, 4);
    let db = open(&machine);
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 301);
}

#[test]
fn streams_keep_entries_state_and_marks_across_restarts() {
    let machine = SimMachine::from_seed(5);
    let db = open(&machine);
    let id = StreamId(3);
    let state = StreamOp::State { stream: id, state: Bytes::from_static(b"term 1") };
    db.commit(streams(vec![append(3, 1, &["a", "b", "c"]), state], Durability::Sync)).expect("append");
    db.commit(streams(vec![append(3, 3, &["C", "D"])], Durability::Sync)).expect("overwrite");
    db.commit(streams(vec![StreamOp::Truncate { stream: id, through_index: 1 }], Durability::Sync)).expect("truncate");
    let expected = StreamContents {
        truncated_through: 1,
        state: Bytes::from_static(b"term 1"),
        entries: ["b", "C", "D"].iter().map(|entry| Bytes::from_static(entry.as_bytes())).collect(),
    };
    assert_eq!(db.stream(id).expect("read"), expected);
    db.close().expect("close");
    let db = open(&restarted(&machine, 6));
    assert_eq!(db.streams(), [id]);
    assert_eq!(db.stream(id).expect("read"), expected);
    assert_eq!((db.stream_last_index(id), db.stream_last_index(StreamId(99))), (4, 0));
    let gap = db.commit(streams(vec![append(3, 6, &["gap"])], Durability::Sync)).expect_err("a gap");
    assert!(matches!(&gap, Error::InvalidArgument(what) if what.contains("2..=5")), "{gap}");
    db.commit(streams(vec![StreamOp::Truncate { stream: id, through_index: 4 }], Durability::Sync)).expect("truncate");
    assert_eq!(db.stream_last_index(id), 4, "what it is truncated through");
    db.commit(streams(vec![StreamOp::Remove { stream: id }], Durability::Sync)).expect("remove");
    assert!(db.streams().is_empty());
    assert_eq!(db.stream(id).expect("read"), StreamContents::default());
}

#[test]
fn derived_commits_are_visible_at_once_and_survive_only_a_flush() {
    let machine = SimMachine::from_seed(7);
    let db = open(&machine);
    db.write(put("flushed", "1"), Durability::Derived).expect("derived");
    assert!(dump(&*db.flushed_view(), Family::DEFAULT).is_empty());
    db.flush().expect("flush");
    db.write(put("lost", "1"), Durability::Derived).expect("derived");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 2);
    assert_eq!(dump(&*db.flushed_view(), Family::DEFAULT).len(), 1);
    assert_eq!(db.stats().log.appended_bytes, 0);
    machine.fs.crash(CrashMode::KeepUnsynced);
    drop(db);
    let db = open(&restarted(&machine, 8));
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT), [("flushed".to_string(), "1".to_string())]);
}

#[test]
fn submitted_commits_are_answered_once_and_in_order() {
    let machine = SimMachine::from_seed(9);
    let db = open(&machine);
    let answers: Arc<Mutex<Vec<(u32, bool)>>> = Arc::default();
    for i in 0..50 {
        let answers = answers.clone();
        let commit = match i % 3 {
            0 => streams(vec![append(1, i / 3 + 1, &["entry"])], Durability::Sync),
            1 => Commit { batch: put("k", "v"), streams: vec![], durability: Durability::Sync, unchanged: vec![] },
            _ => Commit {
                batch: put("k", "v"),
                streams: vec![append(9, 5, &["misfit"])],
                durability: Durability::Sync,
                unchanged: vec![],
            },
        };
        db.submit(commit, Box::new(move |result| answers.lock().push((i as u32, result.is_ok()))));
    }
    assert!(answers.lock().is_empty(), "no group was written yet");
    machine.tasks.run_until_idle(1000);
    let answers = answers.lock();
    assert_eq!(answers.len(), 50);
    let good: Vec<u32> = answers.iter().filter(|(_, ok)| *ok).map(|(i, _)| *i).collect();
    assert_eq!(good, (0..50).filter(|i| i % 3 != 2).collect::<Vec<_>>());
    assert_eq!(db.stats().log.syncs, 1, "they shared a write and a sync");
    assert_eq!(db.stats().latency.log_sync.count(), 1);
}

#[test]
fn bad_arguments_are_refused_before_anything_is_written() {
    let machine = SimMachine::from_seed(10);
    let db = open(&machine);
    let refused = |commit: Commit, expected: &str| {
        let error = db.commit(commit).expect_err("refused");
        assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(expected)), "{error}");
    };
    let mut unknown = WriteBatch::new();
    unknown.put(Family(99), b"k", b"v");
    refused(Commit { batch: unknown, streams: vec![], durability: Durability::Sync, unchanged: vec![] }, "family 99");
    let mut long = WriteBatch::new();
    long.put(Family::DEFAULT, vec![0; crate::KEY_BYTES_MAX + 1], b"v");
    refused(Commit { batch: long, streams: vec![], durability: Durability::Sync, unchanged: vec![] }, "65537");
    refused(streams(vec![append(1, 1, &["x"])], Durability::Derived), "derived");
    let state = StreamOp::State { stream: StreamId(1), state: vec![0; crate::STREAM_STATE_BYTES_MAX + 1].into() };
    refused(streams(vec![state], Durability::Sync), "65537");
    assert_eq!(db.stats().log.appended_bytes, 0);
}

#[test]
fn a_second_open_names_the_holder_and_close_lets_go() {
    let machine = SimMachine::from_seed(11);
    let db = open(&machine);
    let error = try_open(&machine).expect_err("in use");
    assert!(matches!(&error, Error::InUse { holder, .. } if holder.contains("process")), "{error}");
    let clone = db.clone();
    db.close().expect("close");
    assert!(matches!(clone.put(b"k", b"v"), Err(Error::Closed)));
    assert!(matches!(clone.get(b"k"), Err(Error::Closed)));
    open(&restarted(&machine, 12)).close().expect("close");
}

#[test]
fn large_commits_get_a_segment_of_their_own() {
    let machine = SimMachine::from_seed(13);
    let db = open(&machine);
    db.put(b"small", b"1").expect("put");
    let large = "x".repeat(20_000);
    db.put(b"large", large.as_bytes()).expect("put");
    db.commit(streams(vec![append(1, 1, &[&large])], Durability::Sync)).expect("append");
    db.put(b"small", b"2").expect("put");
    drop(db);
    let db = open(&restarted(&machine, 14));
    assert_eq!(db.get(b"large").expect("get").map(|value| value.len()), Some(20_000));
    assert_eq!(db.get(b"small").expect("get").as_deref(), Some(&b"2"[..]));
    assert_eq!(db.stream(StreamId(1)).expect("read").entries[0].len(), 20_000);
}

#[test]
fn it_runs_on_the_real_machine_with_threads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("a/b");
    let db = Db::open(&path, small_options()).expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let db = db.clone();
            scope.spawn(move || {
                for i in 0..200 {
                    let key = format!("{thread}-{i:03}");
                    let durability = if i % 4 == 0 { Durability::Sync } else { Durability::Buffered };
                    db.write(put(&key, "value of some length, so that memtables fill up"), durability).expect("write");
                    assert!(db.get(key.as_bytes()).expect("get").is_some(), "its own write is visible");
                }
            });
        }
    });
    db.compact().expect("compact");
    assert!(matches!(Db::open(&path, small_options()), Err(Error::InUse { .. })));
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 800);
    db.close().expect("close");
    let db = Db::open(&path, small_options()).expect("opens again");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 800);
}

#[test]
fn a_log_larger_than_memory_is_flushed_while_it_is_replayed() {
    let machine = SimMachine::from_seed(15);
    let roomy = Options { memtable_bytes: 1 << 20, log_bytes_max: 1 << 20, ..small_options() };
    let db = Db::open_in(&machine.env(), Path::new(DIR), roomy).expect("opens");
    for i in 0..300 {
        db.write(put(&format!("{i:04}"), "value"), Durability::Buffered).expect("write");
    }
    assert_eq!(db.stats().memtables.flushes, 0);
    drop(db);
    let db = open(&restarted(&machine, 16));
    assert!(db.stats().memtables.bytes < 8 << 10 && db.stats().tables() > 5, "{:?}", db.stats());
    db.flush().expect("flush");
    db.put(b"more", b"1").expect("put");
    db.flush().expect("flush again");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 301);
}

#[test]
fn a_range_delete_survives_flush_compaction_and_restart() {
    let machine = SimMachine::from_seed(77);
    let db = open(&machine);
    for i in 0..100 {
        db.write(put(&format!("key{i:02}"), "old"), Durability::Sync).expect("written");
    }
    db.flush().expect("written");
    let mut batch = put("key15", "before, in the same batch");
    batch.delete_range(Family::DEFAULT, b"key10"..b"key90");
    batch.put(Family::DEFAULT, b"key20", b"after, in the same batch");
    let before = db.snapshot();
    db.write(batch, Durability::Sync).expect("written");
    db.write(put("key30", "later"), Durability::Sync).expect("written");
    let expected: Vec<String> =
        (0..100).filter(|i| *i < 10 || *i >= 90 || [20, 30].contains(i)).map(|i| format!("key{i:02}")).collect();
    let keys = |db: &Db| dump(&db.snapshot(), Family::DEFAULT).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(&db), expected, "in memory");
    assert_eq!(db.get(b"key15").expect("readable"), None);
    db.flush().expect("written");
    assert_eq!(keys(&db), expected, "in tables");
    db.compact().expect("written");
    assert_eq!(keys(&db), expected, "merged");
    assert_eq!(dump(&before, Family::DEFAULT).len(), 100, "an older snapshot does not change");
    drop((db, before));
    let machine = restarted(&machine, 3);
    assert_eq!(keys(&open(&machine)), expected, "after a restart");
}

#[test]
fn a_familys_own_compression_counts_level_by_level() {
    let machine = SimMachine::from_seed(78);
    let mut options = small_options();
    options.families[0].options.compression = vec![crate::types::Compression::None, crate::types::Compression::Lz4];
    options.memtable_bytes = 1 << 20;
    let db = Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens");
    for i in 0..200 {
        db.write(put(&format!("key{i:03}"), &"abcdefgh".repeat(12)), Durability::Buffered).expect("written");
    }
    db.flush().expect("written");
    let flushed = db.stats().table_bytes();
    assert!(flushed > 200 * 96, "level 0 is not compressed: {flushed} bytes");
    db.compact().expect("written");
    let compacted = db.stats().table_bytes();
    assert!(compacted < flushed / 3, "deeper levels are: {compacted} of {flushed} bytes");
}
