use super::{check, locks};
use bytes::Bytes;
use kontiki_engine::{Db, Durability, Options, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_server::families::served_families;
use kontiki_txn::{TXN_DEFAULT, TXN_WRITE, TimeStamp, Write, WriteKind, default_key, write_key};
use std::path::Path;

/// A store in which one transaction, of timestamp 5, has left on key `k` the records that `leave` writes.
fn store(leave: impl Fn(&mut WriteBatch)) -> Db {
    let options = Options { families: served_families(), ..Options::default() };
    let db = Db::open_in(&SimMachine::from_seed(1).env(), Path::new("/db"), options).unwrap();
    let mut batch = WriteBatch::new();
    leave(&mut batch);
    if !batch.is_empty() {
        db.write(batch, Durability::Sync).unwrap();
    }
    db
}

fn put_record(batch: &mut WriteBatch, kind: WriteKind, at: u64, is_short: bool) {
    let short_value = (kind == WriteKind::Put && is_short).then(|| Bytes::from("v"));
    let write = Write { kind, start_ts: TimeStamp(5), short_value, overlapped_rollback: false };
    batch.put(TXN_WRITE, write_key(b"k", TimeStamp(at)), write.encode());
}

fn broken(leave: impl Fn(&mut WriteBatch)) -> Vec<String> {
    check(&store(leave).snapshot()).unwrap()
}

#[test]
fn what_transactions_leave_behind_is_in_order() {
    assert!(broken(|_| {}).is_empty());
    assert!(broken(|batch| put_record(batch, WriteKind::Put, 7, true)).is_empty());
    assert!(broken(|batch| put_record(batch, WriteKind::Rollback, 5, true)).is_empty());
    let long = |batch: &mut WriteBatch| {
        put_record(batch, WriteKind::Put, 7, false);
        batch.put(TXN_DEFAULT, default_key(b"k", TimeStamp(5)), b"long");
    };
    assert!(broken(long).is_empty());
    assert!(locks(&store(long).snapshot()).unwrap().is_empty());
}

#[test]
fn two_fates_lost_values_and_left_values_are_found() {
    let twice = broken(|batch| {
        put_record(batch, WriteKind::Put, 7, true);
        put_record(batch, WriteKind::Rollback, 5, true);
    });
    assert!(twice.len() == 1 && twice[0].contains("committed and rolled back"), "{twice:?}");
    let lost = broken(|batch| put_record(batch, WriteKind::Put, 7, false));
    assert!(lost.len() == 1 && lost[0].contains("lost its value"), "{lost:?}");
    let left = broken(|batch| batch.put(TXN_DEFAULT, default_key(b"k", TimeStamp(5)), b"long"));
    assert!(left.len() == 1 && left[0].contains("nothing refers to"), "{left:?}");
}
