use super::*;
use crate::log::recovery::recover;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs, Op, SimFs};
use std::path::Path;
use std::path::PathBuf;

const SEGMENT_BYTES: u64 = 4096;

fn segments(fs: &SimFs) -> Arc<Segments> {
    fs.create_dir_all(Path::new("/wal")).expect("created");
    fs.sync_dir(Path::new("/")).expect("synced");
    Arc::new(Segments::new(Arc::new(fs.clone()), PathBuf::from("/wal")))
}

/// A writer with the part of the write path that syncs.
struct Log {
    writer: LogWriter,
    tail: Arc<Tail>,
    next: Arc<NextSegments>,
    durable: u64,
}

impl Log {
    fn append(&mut self, payload: &[u8]) -> Result<RecordPosition> {
        let record = Outgoing::new(RecordKind::Commit, [payload, &[]]);
        self.writer.append(&record, 0, self.durable, Need::Written).map(|appended| appended.position)
    }

    fn sync(&mut self) -> Result<()> {
        self.tail.sync(0, self.durable)?;
        self.durable = self.writer.end();
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.sync()?;
        self.writer.close(self.durable)
    }
}

/// The payloads that recovery finds, and a writer that continues.
fn reopen(fs: &SimFs) -> (Vec<Vec<u8>>, Log, Arc<Segments>) {
    let segments = segments(fs);
    let mut found = Vec::new();
    let recovered = recover(&segments, &(), &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    });
    let recovered = recovered.expect("recovers");
    let next = NextSegments::new(Arc::new(fs.clone()), segments.directory(), SEGMENT_BYTES, 2, recovered.next_number);
    next.adopt(&recovered.free).expect("adopted");
    let (next, tail) = (Arc::new(next), Arc::new(Tail::default()));
    let writer = LogWriter::new(segments.clone(), next.clone(), tail.clone());
    (found, Log { writer, tail, next, durable: FIRST_POSITION }, segments)
}

#[test]
fn what_waits_for_a_sync_is_staged_and_reaches_the_file_without_gaps() {
    let fs = SimMachine::from_seed(11).fs;
    let (_, mut log, _) = reopen(&fs);
    let append = |log: &mut Log, payload: &[u8], need| {
        let record = Outgoing::new(RecordKind::Commit, [payload, &[]]);
        log.writer.append(&record, 0, FIRST_POSITION, need).expect("appended")
    };
    append(&mut log, b"first", Need::Written);
    fs.start_trace();
    append(&mut log, b"second", Need::Synced);
    append(&mut log, b"third", Need::Synced);
    assert!(fs.trace().is_empty(), "no sync yet: {:?}", fs.trace());
    append(&mut log, b"fourth", Need::SyncedAndRead);
    assert_eq!(fs.trace().len(), 1, "one write for all three");
    append(&mut log, b"fifth", Need::Synced);
    append(&mut log, b"sixth", Need::Written);
    append(&mut log, b"seventh", Need::Synced);
    log.writer.write_out().expect("written");
    append(&mut log, b"of a killed process that was not answered", Need::Synced);
    fs.crash(CrashMode::Kill);
    let (found, ..) = reopen(&fs);
    let expected = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"];
    assert_eq!(found, expected.map(|payload| payload.as_bytes().to_vec()));
}

#[test]
fn a_failure_to_write_what_was_staged_is_final() {
    let fs = SimMachine::from_seed(12).fs;
    let (_, mut log, _) = reopen(&fs);
    let record = Outgoing::new(RecordKind::Commit, [b"staged", &[]]);
    log.writer.append(&record, 0, FIRST_POSITION, Need::Synced).expect("staged");
    fs.fail_next(Op::Write, 1, |_| true);
    assert!(matches!(log.writer.write_out(), Err(Error::Io { .. })));
    assert!(matches!(log.writer.append(&record, 0, FIRST_POSITION, Need::Synced), Err(Error::Stopped(_))));
}

#[test]
fn records_stay_in_one_segment_and_large_ones_get_their_own() {
    let fs = SimMachine::from_seed(1).fs;
    let (_, mut log, segments) = reopen(&fs);
    let half = vec![1; 2000];
    let positions = [&half[..], b"x", &half, &half].map(|payload| log.append(payload).expect("appended"));
    assert_eq!(positions.map(|position| position.segment), [1, 1, 2, 3]);
    let large = vec![2; 10_000];
    let position = log.append(&large).expect("appended");
    assert_eq!((position.segment, position.offset), (4, SEGMENT_HEADER_BYTES));
    log.sync().expect("synced");
    let file = segments.file(4).expect("there");
    assert_eq!(segments.read(&*file, position).expect("whole"), large);
    fs.crash(CrashMode::LoseUnsynced);
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [half.clone(), b"x".to_vec(), half.clone(), half, large]);
}

#[test]
fn a_segment_made_ahead_that_is_too_small_is_passed_over() {
    let fs = SimMachine::from_seed(7).fs;
    let (_, mut log, segments) = reopen(&fs);
    log.append(b"first").expect("appended");
    log.next.prepare(|| true).expect("made");
    let large = vec![2; 10_000];
    assert_eq!(log.append(&large).expect("appended").segment, 3);
    log.next.prepare(|| true).expect("made");
    log.close().expect("closed");
    assert_eq!(segments.list().len(), 3);
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [b"first".to_vec(), large]);
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let fs = SimMachine::from_seed(2).fs;
    let (_, mut log, segments) = reopen(&fs);
    fs.set_quota(Some(0));
    assert!(matches!(log.append(b"early"), Err(Error::NoSpace { .. })));
    fs.set_quota(Some(SEGMENT_BYTES + 100));
    let payload = vec![7; 1500];
    log.append(&payload).expect("the first segment fits");
    log.append(&payload).expect("it was allocated whole");
    for _ in 0..3 {
        assert!(matches!(log.append(&payload), Err(Error::NoSpace { .. })));
        log.sync().expect("the log is healthy");
    }
    assert_eq!(segments.list().len(), 1);
    fs.set_quota(None);
    log.append(b"late").expect("there is space again");
    log.close().expect("closed");
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [payload.clone(), payload, b"late".to_vec()]);
}

#[test]
fn a_failed_append_and_a_close_are_final() {
    let fs = SimMachine::from_seed(3).fs;
    let (_, mut log, _) = reopen(&fs);
    log.append(b"one").expect("appended");
    fs.fail_next(Op::Write, 1, |_| true);
    assert!(matches!(log.append(b"two"), Err(Error::Io { .. })));
    assert!(matches!(log.append(b"three"), Err(Error::Stopped(_))));
    assert!(matches!(log.close(), Err(Error::Stopped(_))));
    let (_, mut log, _) = reopen(&fs);
    log.append(b"one").expect("appended");
    log.close().expect("closed");
    assert!(matches!(log.append(b"two"), Err(Error::Closed)));
}

#[test]
fn bytes_behind_a_cut_never_come_back() {
    // Whole records behind a torn one, of the same lengths as what comes after the recovery: if recovery went on in the
    // same segment, and the power went off after the first new record, the third old one would follow it.
    let fs = SimMachine::from_seed(5).fs;
    let (_, mut log, _) = reopen(&fs);
    log.append(b"kept").expect("appended");
    log.sync().expect("synced");
    let old = log.append(b"old 1").expect("appended");
    log.append(b"old 2").expect("appended");
    log.append(b"old 3").expect("appended");
    drop(log);
    fs.crash(CrashMode::KeepUnsynced);
    fs.flip_bit(Path::new("/wal/000001.wal"), old.offset + 20, 0).expect("torn");
    let (found, mut log, _) = reopen(&fs);
    assert_eq!(found, [b"kept"]);
    log.append(b"new 1").expect("appended");
    drop(log);
    fs.crash(CrashMode::KeepUnsynced);
    let (found, _, _) = reopen(&fs);
    assert_eq!(found, [b"kept".to_vec(), b"new 1".to_vec()]);
}

/// Segments are used before their predecessors are synced: whatever of them survives a power loss, what is found is a
/// beginning of what was written, with all that was synced.
#[test]
fn a_tear_ends_the_log_however_many_segments_follow() {
    for seed in 0..200 {
        let machine = SimMachine::from_seed(seed);
        let fs = &machine.fs;
        let mut rng = kontiki_env::rng::Rng::new(seed);
        let (mut expected, mut least): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
        for round in 0..3u8 {
            let (found, mut log, segments) = reopen(fs);
            assert!(found.len() >= least && expected.starts_with(&found), "seed {seed}, round {round}");
            expected = found;
            for i in 0..rng.range(1..60) as u8 {
                let payload = vec![i ^ round; rng.below(900) as usize];
                log.append(&payload).expect("appended");
                expected.push(payload);
                match rng.below(20) {
                    0 => {
                        log.sync().expect("synced");
                        least = expected.len();
                    }
                    1..=4 => _ = log.next.prepare(|| true).expect("made"),
                    // Everything in the oldest segment is flushed, say.
                    5 if segments.list().len() > 2 && log.durable == log.writer.end() => {
                        let dead = segments.list()[0].0;
                        let mut gone = 0;
                        let bytes = kontiki_env::fs::read_all(fs, &segments.path(dead)).expect("readable");
                        while let Some(record) = crate::log::format::decode_record(
                            dead,
                            &bytes,
                            (SEGMENT_HEADER_BYTES + gone) as usize,
                            SEGMENT_HEADER_BYTES + gone,
                        ) {
                            if record.kind == RecordKind::Seal {
                                break;
                            }
                            gone += record.bytes();
                            expected.remove(0);
                            least -= 1;
                        }
                        segments.delete_oldest(dead, &log.next).expect("deleted");
                    }
                    _ => {}
                }
            }
            drop((log, segments));
            fs.crash(
                *rng.pick(&[CrashMode::LoseUnsynced, CrashMode::Pages, CrashMode::Random, CrashMode::Kill])
                    .expect("some"),
            );
        }
    }
}
