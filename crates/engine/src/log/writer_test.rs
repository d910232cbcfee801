use super::*;
use crate::log::recovery::recover;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs, Op, SimFs};
use std::path::PathBuf;

const SEGMENT_BYTES: u64 = 4096;

fn segments(fs: &SimFs) -> Arc<Segments> {
    fs.create_dir_all(Path::new("/wal")).expect("created");
    fs.sync_dir(Path::new("/")).expect("synced");
    Arc::new(Segments::new(Arc::new(fs.clone()), PathBuf::from("/wal")))
}

fn commit(payload: &[u8]) -> Outgoing<'_> {
    Outgoing { kind: RecordKind::Commit, payload }
}

/// The payloads that recovery finds, and a writer that goes on.
fn reopen(fs: &SimFs) -> (Vec<Vec<u8>>, LogWriter, Arc<Segments>) {
    let segments = segments(fs);
    let mut found = Vec::new();
    let recovered = recover(&segments, &(), &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    });
    let next = recovered.expect("recovers").next_number;
    (found, LogWriter::new(segments.clone(), SEGMENT_BYTES, next), segments)
}

#[test]
fn groups_stay_in_one_segment_and_large_records_get_their_own() {
    let fs = SimMachine::from_seed(1).fs;
    let (_, mut log, segments) = reopen(&fs);
    let half = vec![1; 2000];
    let first = log.append(&[commit(&half), commit(b"x")]).expect("appended");
    let second = log.append(&[commit(&half), commit(&half)]).expect("appended");
    assert_eq!(first.iter().map(|p| p.segment).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(second.iter().map(|p| p.segment).collect::<Vec<_>>(), [2, 2]);
    let large = vec![2; 10_000];
    let third = log.append(&[commit(&large)]).expect("appended");
    assert_eq!((third[0].segment, third[0].offset), (3, SEGMENT_HEADER_BYTES));
    log.sync().expect("synced");
    let file = segments.file(3).expect("there");
    assert_eq!(segments.read(&*file, third[0]).expect("whole"), large);
    fs.crash(CrashMode::LoseUnsynced);
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [half.clone(), b"x".to_vec(), half.clone(), half, large]);
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let fs = SimMachine::from_seed(2).fs;
    let (_, mut log, segments) = reopen(&fs);
    fs.set_quota(Some(0));
    assert!(matches!(log.append(&[commit(b"early")]), Err(Error::NoSpace { .. })));
    fs.set_quota(Some(SEGMENT_BYTES + 100));
    let payload = vec![7; 1500];
    log.append(&[commit(&payload)]).expect("the first segment fits");
    log.append(&[commit(&payload)]).expect("it was allocated whole");
    for _ in 0..3 {
        assert!(matches!(log.append(&[commit(&payload)]), Err(Error::NoSpace { .. })));
        log.sync().expect("the log is healthy");
    }
    assert_eq!(segments.list().len(), 1);
    fs.set_quota(None);
    log.append(&[commit(b"late")]).expect("room again");
    log.close().expect("closed");
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [payload.clone(), payload, b"late".to_vec()]);
}

#[test]
fn a_failed_sync_is_final() {
    let fs = SimMachine::from_seed(3).fs;
    let (_, mut log, _) = reopen(&fs);
    log.append(&[commit(b"one")]).expect("appended");
    fs.fail_next(Op::Sync, 1, |_| true);
    assert!(matches!(log.sync(), Err(Error::Io { .. })));
    assert!(matches!(log.sync(), Err(Error::Stopped(_))), "a sync is never tried again");
    assert!(matches!(log.append(&[commit(b"two")]), Err(Error::Stopped(_))));
    assert!(matches!(log.close(), Err(Error::Stopped(_))));
}

#[test]
fn nothing_is_appended_after_a_close() {
    let fs = SimMachine::from_seed(4).fs;
    let (_, mut log, _) = reopen(&fs);
    log.append(&[commit(b"one")]).expect("appended");
    log.close().expect("closed");
    assert!(matches!(log.append(&[commit(b"two")]), Err(Error::Stopped(_))));
}

#[test]
fn bytes_behind_a_cut_never_come_back() {
    // Whole records behind a torn one, of the same lengths as what comes after the recovery: if recovery went on in the
    // same segment, and the power went off after the first new record, the third old one would follow it.
    let fs = SimMachine::from_seed(5).fs;
    let (_, mut log, _) = reopen(&fs);
    log.append(&[commit(b"kept")]).expect("appended");
    log.sync().expect("synced");
    let old = log.append(&[commit(b"old 1"), commit(b"old 2"), commit(b"old 3")]).expect("appended");
    drop(log);
    fs.crash(CrashMode::KeepUnsynced);
    fs.flip_bit(Path::new("/wal/000001.wal"), old[0].offset + 20, 0).expect("torn");
    let (found, mut log, _) = reopen(&fs);
    assert_eq!(found, [b"kept"]);
    log.append(&[commit(b"new 1")]).expect("appended");
    drop(log);
    fs.crash(CrashMode::KeepUnsynced);
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [b"kept".to_vec(), b"new 1".to_vec()]);
}
