use super::*;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Op, SimFs, read_all};

const BYTES: u64 = 4096;

fn segments(fs: &SimFs, recycled_max: usize, next_number: u64) -> NextSegments {
    fs.create_dir_all(Path::new("/wal")).expect("created");
    fs.sync_dir(Path::new("/")).expect("synced");
    NextSegments::new(Arc::new(fs.clone()), Path::new("/wal"), BYTES, recycled_max, next_number)
}

fn take(next: &NextSegments, bytes: u64) -> NextSegment {
    match next.take(bytes) {
        Ok(taken) => taken,
        Err(NoSegment::NotNow(error) | NoSegment::Final(error)) => panic!("{error}"),
    }
}

#[test]
fn a_segment_made_ahead_costs_the_writer_nothing() {
    let fs = SimMachine::from_seed(1).fs;
    let next = segments(&fs, 2, 7);
    assert!(next.prepare(|| true).expect("made"), "there was none");
    assert!(!next.prepare(|| true).expect("healthy"), "one is enough");
    fs.start_trace();
    let taken = take(&next, 100);
    assert_eq!((taken.number, taken.capacity), (7, BYTES));
    assert!(fs.trace().is_empty(), "no file is touched: {:?}", fs.trace());
    assert_eq!(take(&next, 10_000).capacity, SEGMENT_HEADER_BYTES + 10_000 + SEAL_BYTES, "a large record has its own");
}

#[test]
fn files_are_used_again_only_when_their_old_name_is_durably_removed() {
    let fs = SimMachine::from_seed(2).fs;
    let next = segments(&fs, 1, 1);
    let (old, other) = (take(&next, 1), take(&next, 1));
    let [file, ..] = &old.handles;
    file.write_at(b"of an earlier life", 1000).expect("written");
    let free = next.retire(1, &**file).expect("renamed").expect("there is use for it");
    assert_eq!(next.free_count(), 0, "not before the directory is synced");
    fs.sync_dir(Path::new("/wal")).expect("synced");
    next.put_free(free);
    let [file, ..] = &other.handles;
    assert_eq!(next.retire(2, &**file).expect("healthy"), None, "one is enough");
    let again = take(&next, 1);
    assert_eq!((again.number, again.capacity), (3, BYTES));
    fs.crash(CrashMode::LoseUnsynced);
    let bytes = read_all(&fs, Path::new("/wal/000003.wal")).expect("its name is durable");
    let found = super::super::format::check_segment_header(Path::new("x"), 3, &bytes).expect("its header is durable");
    assert_eq!(found, BYTES);
    assert_eq!(fs.list(Path::new("/wal")).expect("listed"), ["000002.wal", "000003.wal"]);
}

#[test]
fn what_an_earlier_run_has_left_is_adopted_up_to_the_bound() {
    let fs = SimMachine::from_seed(3).fs;
    let next = segments(&fs, 1, 9);
    let names = ["000001.wal.free", "000002.wal.free", "000003.wal.free"].map(String::from);
    for (name, bytes) in names.iter().zip([100, BYTES, BYTES]) {
        fs.open(&Path::new("/wal").join(name), OpenMode::CreateNew).expect("created").allocate(bytes).expect("written");
    }
    next.adopt(&names).expect("adopted");
    assert_eq!((next.free_count(), fs.list(Path::new("/wal")).expect("listed")), (1, vec![names[1].clone()]));
    next.release();
    assert_eq!((next.free_count(), fs.list(Path::new("/wal")).expect("listed").len()), (0, 0));
}

#[test]
fn a_failure_while_a_segment_is_made_is_reported_and_tried_again() {
    for op in [Op::Create, Op::Allocate, Op::Write, Op::Sync] {
        let fs = SimMachine::from_seed(4).fs;
        let next = segments(&fs, 1, 1);
        fs.fail_next(op, 1, |_| true);
        assert!(next.prepare(|| true).is_err(), "{op:?}");
        assert!(next.prepare(|| true).expect("healthy again"), "{op:?}");
        assert_eq!(take(&next, 1).number, 1);
        next.close();
    }
}

#[test]
fn what_is_made_ahead_grows_with_what_was_used() {
    let fs = SimMachine::from_seed(5).fs;
    fs.create_dir_all(Path::new("/wal")).expect("created");
    let next = NextSegments::new(Arc::new(fs.clone()), Path::new("/wal"), 32 << 20, 1, 1);
    let mut capacities = Vec::new();
    for _ in 0..4 {
        assert!(next.prepare(|| false).expect("made"));
        capacities.push(take(&next, 1).capacity);
    }
    assert_eq!(capacities, [4 << 20, 16 << 20, 32 << 20, 32 << 20]);
}

#[test]
fn a_writer_does_not_wait_for_what_is_made_ahead() {
    let fs = SimMachine::from_seed(6).fs;
    let next = segments(&fs, 1, 5);
    // The question whether to fill comes in the middle of the making.
    let fill = || {
        assert_eq!(take(&next, 100).number, 5, "made at once");
        true
    };
    assert!(next.prepare(fill).expect("made"));
    let taken = take(&next, 100);
    assert_eq!(taken.number, 6, "it got its number last");
    let bytes = read_all(&fs, Path::new("/wal/000006.wal")).expect("there");
    super::super::format::check_segment_header(Path::new("x"), 6, &bytes).expect("its header has the number");
    assert_eq!(fs.list(Path::new("/wal")).expect("listed"), ["000005.wal", "000006.wal"]);
}
