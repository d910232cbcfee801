//! One file for each record of transactions: what today's encoder writes, and that it is read as before.

use crate::*;
use ::bytes::Bytes;
use kontiki_env::testing::{check_golden, read_golden};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

fn lock(kind: LockKind) -> Lock {
    Lock {
        kind,
        start_ts: TimeStamp(0x0102_0304_0506_0708),
        primary: Bytes::from_static(b"primary"),
        ttl_ms: 3000,
        short_value: (kind == LockKind::Put).then(|| Bytes::from_static(b"value")),
        for_update_ts: TimeStamp(0),
        min_commit_ts: TimeStamp(0x0102_0304_0506_0709),
        txn_size: 3,
        use_async_commit: false,
        secondaries: Vec::new(),
    }
}

#[test]
fn lock_records() {
    let mut long = lock(LockKind::Put);
    long.short_value = None;
    let mut async_commit = lock(LockKind::Put);
    async_commit.use_async_commit = true;
    async_commit.secondaries = vec![Bytes::from_static(b"second"), Bytes::new()];
    let mut pessimistic = lock(LockKind::Pessimistic);
    pessimistic.for_update_ts = TimeStamp(77);
    let records = [
        ("lock-put", lock(LockKind::Put)),
        ("lock-put-long", long),
        ("lock-delete", lock(LockKind::Delete)),
        ("lock-lock", lock(LockKind::Lock)),
        ("lock-pessimistic", pessimistic),
        ("lock-async-commit", async_commit),
    ];
    for (name, record) in records {
        check_golden(&golden(name), &record.encode());
        assert_eq!(Lock::decode(&read_golden(&golden(name))), Ok(record), "{name}");
    }
}

#[test]
fn write_records() {
    let start_ts = TimeStamp(0x0102_0304_0506_0708);
    let write = |kind, short_value, overlapped_rollback| Write { kind, start_ts, short_value, overlapped_rollback };
    let short = || Some(Bytes::from_static(b"value"));
    let records = [
        ("write-put", write(WriteKind::Put, short(), false)),
        ("write-put-long", write(WriteKind::Put, None, false)),
        ("write-put-overlapped-rollback", write(WriteKind::Put, short(), true)),
        ("write-delete", write(WriteKind::Delete, None, false)),
        ("write-lock", write(WriteKind::Lock, None, false)),
        ("write-rollback", write(WriteKind::Rollback, None, false)),
    ];
    for (name, record) in records {
        check_golden(&golden(name), &record.encode());
        assert_eq!(Write::decode(&read_golden(&golden(name))), Ok(record), "{name}");
    }
}

#[test]
fn keys_of_the_families() {
    let (key, ts) = (b"a key of more than eight bytes\0".as_slice(), TimeStamp(0x0102_0304_0506_0708));
    check_golden(&golden("key-lock"), &lock_key(key));
    check_golden(&golden("key-write"), &write_key(key, ts));
    check_golden(&golden("key-default"), &default_key(key, ts));
    assert_eq!(keys::split_lock_key(&read_golden(&golden("key-lock"))).as_deref(), Ok(key));
    for name in ["key-write", "key-default"] {
        let physical = read_golden(&golden(name));
        let (encoded, found) = keys::split_versioned(&physical).unwrap();
        assert_eq!((memcomparable_decode(encoded).as_deref(), found), (Ok(key), ts), "{name}");
    }
}
