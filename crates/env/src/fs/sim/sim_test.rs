//! Tests of the fault model: what it must be able to lose, and what it never may.

use super::{CrashMode, Op, SimFs};
use crate::fs::{Fs, OpenMode, conformance, is_out_of_descriptors, read_all, replace_file};
use crate::rng::Rng;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

const POWER_LOSSES: [CrashMode; 5] =
    [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages, CrashMode::Random];

fn new_fs(seed: u64) -> SimFs {
    SimFs::new(Rng::new(seed))
}

fn path(name: &str) -> &Path {
    Path::new(name)
}

/// A file of `content` whose bytes and entry are durable.
fn durable_file(fs: &SimFs, name: &str, content: &[u8]) {
    let file = fs.open(path(name), OpenMode::CreateNew).unwrap();
    file.write_at(content, 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(path("/")).unwrap();
}

fn content(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    read_all(fs, path(name)).ok()
}

#[test]
fn it_does_what_every_file_system_must() {
    let fs = new_fs(1);
    fs.create_dir_all(path("/root")).unwrap();
    conformance::check_all(&fs, path("/root"));
}

#[test]
fn synced_bytes_are_never_lost_and_unsynced_ones_can_be() {
    for mode in POWER_LOSSES {
        let mut lengths = BTreeSet::new();
        for seed in 0..200 {
            let fs = new_fs(seed);
            durable_file(&fs, "file", b"synced");
            let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
            file.write_at(b"unsynced", 6).unwrap();
            fs.crash(mode);
            let survived = content(&fs, "file").expect("a synced entry stays");
            assert!(survived.starts_with(b"synced"), "{mode:?} seed {seed}: {survived:?}");
            lengths.insert(survived.len());
        }
        match mode {
            CrashMode::LoseUnsynced => assert_eq!(lengths, BTreeSet::from([6])),
            CrashMode::KeepUnsynced => assert_eq!(lengths, BTreeSet::from([14])),
            _ => assert!(lengths.contains(&6) && lengths.contains(&14), "{mode:?}: {lengths:?}"),
        }
    }
}

#[test]
fn pages_survive_out_of_order_and_torn() {
    let (mut second_without_first, mut torn) = (false, false);
    for seed in 0..300 {
        let fs = new_fs(seed);
        durable_file(&fs, "file", &[0; 8192]);
        let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.write_at(&[2; 4096], 4096).unwrap();
        fs.crash(CrashMode::Pages);
        let bytes = content(&fs, "file").unwrap();
        assert_eq!(bytes.len(), 8192);
        assert!(bytes[..4096].iter().all(|b| *b < 2) && bytes[4096..].iter().all(|b| [0, 2].contains(b)));
        second_without_first |= bytes[0] == 0 && bytes[8191] == 2;
        torn |= bytes[0] == 1 && bytes[4095] == 0;
    }
    assert!(second_without_first && torn);
}

#[test]
fn a_prefix_keeps_the_order_of_writes() {
    for seed in 0..300 {
        let fs = new_fs(seed);
        durable_file(&fs, "file", &[0; 100]);
        let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
        (0..10u64).for_each(|i| file.write_at(&[1; 10], i * 10).unwrap());
        fs.crash(CrashMode::Prefix);
        let bytes = content(&fs, "file").unwrap();
        let ones = bytes.iter().take_while(|b| **b == 1).count();
        assert!(bytes[ones..].iter().all(|b| *b == 0), "seed {seed}: a hole");
    }
}

#[test]
fn an_extended_tail_can_hold_zeros_or_garbage_but_reserved_blocks_only_zeros() {
    let tails = |reserve: bool| {
        let (mut zeros, mut garbage) = (false, false);
        for seed in 0..500 {
            let fs = new_fs(seed);
            durable_file(&fs, "file", b"x");
            let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
            if reserve {
                file.allocate(100).unwrap();
                file.sync().unwrap();
            }
            file.write_at(&[7; 50], 1).unwrap();
            fs.crash(CrashMode::Random);
            let bytes = content(&fs, "file").unwrap();
            zeros |= bytes.len() > 1 && bytes[50.min(bytes.len() - 1)] == 0;
            garbage |= bytes[1..].iter().any(|b| ![0, 7].contains(b));
        }
        (zeros, garbage)
    };
    assert_eq!(tails(false), (true, true));
    assert_eq!(tails(true), (true, false));
}

#[test]
fn an_unsynced_entry_can_be_lost_though_its_file_was_synced() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let fs = new_fs(seed);
        let file = fs.open(path("file"), OpenMode::CreateNew).unwrap();
        file.write_at(b"synced", 0).unwrap();
        file.sync().unwrap();
        fs.crash(CrashMode::Random);
        outcomes.insert(content(&fs, "file"));
    }
    assert_eq!(outcomes, BTreeSet::from([None, Some(b"synced".to_vec())]));
}

#[test]
fn an_unsynced_rename_can_be_lost_but_is_atomic() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let fs = new_fs(seed);
        durable_file(&fs, "old", b"1");
        durable_file(&fs, "new", b"2");
        fs.rename(path("new"), path("old")).unwrap();
        fs.crash(CrashMode::Random);
        outcomes.insert((content(&fs, "old"), content(&fs, "new")));
    }
    let lost = (Some(b"1".to_vec()), Some(b"2".to_vec()));
    let done = (Some(b"2".to_vec()), None);
    assert_eq!(outcomes, BTreeSet::from([lost, done]));
}

#[test]
fn operations_of_a_directory_survive_in_order() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let fs = new_fs(seed);
        durable_file(&fs, "a", b"");
        fs.link(path("a"), path("b")).unwrap();
        fs.remove(path("a")).unwrap();
        fs.rename(path("b"), path("c")).unwrap();
        fs.crash(CrashMode::Random);
        outcomes.insert(fs.list(path("/")).unwrap().join(" "));
    }
    assert_eq!(outcomes, ["a", "a b", "b", "c"].map(String::from).into());
}

#[test]
fn a_synced_rename_and_a_replaced_file_stay() {
    for seed in 0..50 {
        let fs = new_fs(seed);
        fs.create_dir_all(path("/db/inner")).unwrap();
        replace_file(&fs, path("/db/inner"), "CURRENT", b"one").unwrap();
        replace_file(&fs, path("/db/inner"), "CURRENT", b"two").unwrap();
        fs.crash(CrashMode::Random);
        assert_eq!(content(&fs, "/db/inner/CURRENT"), Some(b"two".to_vec()));
    }
}

#[test]
fn replacing_a_file_is_atomic_whenever_the_power_goes() {
    for at in 0.. {
        let mut finished = false;
        for seed in 0..20 {
            let fs = new_fs(seed);
            fs.create_dir_all(path("/db")).unwrap();
            replace_file(&fs, path("/db"), "CURRENT", b"one").unwrap();
            fs.power_off_after(at);
            finished = replace_file(&fs, path("/db"), "CURRENT", b"second").is_ok();
            assert_eq!(fs.is_off(), !finished);
            fs.crash(CrashMode::Random);
            let survived = content(&fs, "/db/CURRENT").unwrap();
            assert!(survived == b"second" || survived == b"one" && !finished, "at {at}: {survived:?}");
        }
        if finished {
            assert_eq!(at, 5, "create, write, sync, rename, sync of the directory");
            return;
        }
    }
}

#[test]
fn with_the_power_off_everything_fails_until_the_crash() {
    let fs = new_fs(1);
    durable_file(&fs, "file", b"abc");
    let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
    fs.power_off_after(1);
    file.write_at(b"A", 0).unwrap();
    assert!(file.write_at(b"B", 1).is_err());
    assert!(file.read_at(&mut [0], 0).is_err() && file.len().is_err() && file.sync().is_err());
    assert!(fs.open(path("file"), OpenMode::Read).is_err() && fs.list(path("/")).is_err());
    assert!(!fs.exists(path("file")) && fs.rename(path("file"), path("x")).is_err());
    fs.crash(CrashMode::LoseUnsynced);
    assert!(file.read_at(&mut [0], 0).is_err(), "a handle of the ended process stays void");
    assert_eq!(content(&fs, "file"), Some(b"abc".to_vec()));
    durable_file(&fs, "next", b"more writes");
}

#[test]
fn a_process_taken_apart_with_the_power_off_changes_nothing() {
    let fs = new_fs(1);
    durable_file(&fs, "file", b"abc");
    fs.power_off();
    assert!(fs.is_off() && fs.remove(path("file")).is_err());
    fs.crash(CrashMode::KeepUnsynced);
    assert!(!fs.is_off());
    assert_eq!(content(&fs, "file"), Some(b"abc".to_vec()));
}

#[test]
fn a_killed_process_loses_its_handles_but_no_bytes() {
    let fs = new_fs(1);
    let file = fs.open(path("file"), OpenMode::CreateNew).unwrap();
    file.write_at(b"abc", 0).unwrap();
    let _lock = fs.lock(path("LOCK"), "process 1").unwrap();
    fs.crash(CrashMode::Kill);
    assert!(file.write_at(b"x", 0).is_err());
    assert_eq!(content(&fs, "file"), Some(b"abc".to_vec()));
    let next = fs.lock(path("LOCK"), "process 2").unwrap();
    drop(_lock);
    assert!(fs.lock(path("LOCK"), "process 3").is_err(), "a dead lock's drop does not release the living one");
    drop(next);
    fs.crash(CrashMode::LoseUnsynced);
    assert_eq!(content(&fs, "file"), None, "it was still unsynced");
}

#[test]
fn the_quota_stops_what_needs_space_and_nothing_else() {
    let fs = new_fs(1);
    let file = fs.open(path("file"), OpenMode::CreateNew).unwrap();
    fs.set_quota(Some(100));
    file.allocate(60).unwrap();
    assert_eq!((fs.used_bytes(), fs.free_bytes(path("/")).unwrap()), (60, 40));
    let full = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    full(file.allocate(101));
    full(file.write_at(&[1; 90], 20));
    assert!(fs.used_bytes() <= 100, "a part may have been written, within the quota");
    file.allocate(100).unwrap();
    file.write_at(&[2; 100], 0).unwrap();
    full(fs.open(path("other"), OpenMode::CreateNew).map(|_| ()));
    fs.remove(path("file")).unwrap();
    assert_eq!(fs.used_bytes(), 100, "an open file keeps its space");
    drop(file);
    assert_eq!(fs.used_bytes(), 0);
    durable_file(&fs, "other", &[3; 100]);
    fs.crash(CrashMode::Random);
    assert_eq!(fs.used_bytes(), 100, "the used bytes are recomputed after a crash");
}

#[test]
fn after_a_failed_sync_the_next_one_lies() {
    let (mut lost, mut still_visible, mut kept) = (false, false, false);
    for seed in 0..100 {
        let fs = new_fs(seed);
        durable_file(&fs, "file", b"old");
        let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
        file.write_at(b"new", 0).unwrap();
        fs.fail_next(Op::Sync, 1, |path| path.ends_with("file"));
        assert!(file.sync().is_err());
        file.sync().unwrap();
        let visible = content(&fs, "file").unwrap();
        fs.crash(CrashMode::KeepUnsynced);
        let survived = content(&fs, "file").unwrap();
        lost |= survived == b"old";
        kept |= survived == b"new";
        still_visible |= visible == b"new" && survived == b"old";
    }
    assert!(lost && kept && still_visible);
}

#[test]
fn errors_hit_the_chosen_operation_and_path_the_chosen_number_of_times() {
    let fs = new_fs(1);
    durable_file(&fs, "a", b"a");
    durable_file(&fs, "b", b"b");
    fs.fail_next(Op::Read, 2, |path| path.ends_with("a"));
    assert_eq!(content(&fs, "b"), Some(b"b".to_vec()));
    assert_eq!((content(&fs, "a"), content(&fs, "a")), (None, None));
    assert_eq!(content(&fs, "a"), Some(b"a".to_vec()));
    fs.fail_next(Op::Rename, 1, |_| true);
    assert!(fs.rename(path("a"), path("c")).is_err());
    assert!(fs.exists(path("a")) && !fs.exists(path("c")), "it had no effect");
    fs.fail_next(Op::Remove, 1, |_| true);
    fs.power_off_after(0);
    fs.clear_faults();
    fs.remove(path("a")).unwrap();
}

#[test]
fn rot_flips_one_bit_for_good() {
    let fs = new_fs(1);
    durable_file(&fs, "file", &[0; 10]);
    fs.flip_bit(path("file"), 4, 3).unwrap();
    fs.crash(CrashMode::Random);
    let mut expected = [0; 10];
    expected[4] = 8;
    assert_eq!(content(&fs, "file"), Some(expected.to_vec()));
}

#[test]
fn a_fork_shares_the_past_but_not_the_future() {
    let fs = new_fs(1);
    durable_file(&fs, "file", b"past");
    let file = fs.open(path("file"), OpenMode::ReadWrite).unwrap();
    file.write_at(b"unsynced", 0).unwrap();
    let fork = fs.fork(Rng::new(2));
    assert_eq!(fork.used_bytes(), fs.used_bytes());
    file.sync().unwrap();
    fork.crash(CrashMode::LoseUnsynced);
    fs.crash(CrashMode::LoseUnsynced);
    assert_eq!(content(&fork, "file"), Some(b"past".to_vec()));
    assert_eq!(content(&fs, "file"), Some(b"unsynced".to_vec()));
}

#[test]
fn operations_are_counted_and_traced() {
    let fs = new_fs(1);
    fs.start_trace();
    durable_file(&fs, "file", b"abc");
    content(&fs, "file").unwrap();
    let ops: Vec<Op> = fs.trace().iter().map(|entry| entry.op).collect();
    assert_eq!(ops, [Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::Read]);
    assert_eq!(fs.ops(), 4);
    assert_eq!(fs.trace()[1].length, 3);
}

#[test]
fn equal_seeds_crash_equally() {
    let run = |seed| {
        let fs = new_fs(seed);
        let mut rng = Rng::new(9);
        for i in 0..20 {
            let file = fs.open(path(&format!("{i}")), OpenMode::CreateNew).unwrap();
            (0..5).for_each(|_| file.write_at(&[rng.next_u64() as u8; 3000], rng.below(9000)).unwrap());
            if rng.chance(1, 3) {
                file.sync().unwrap();
            }
        }
        fs.crash(CrashMode::Random);
        fs.list(path("/")).unwrap().iter().map(|name| (name.clone(), content(&fs, name))).collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn descriptors_run_out_and_come_back() {
    let fs = new_fs(1);
    fs.set_descriptors_max(Some(2));
    let first = fs.open(Path::new("/a"), OpenMode::CreateNew).unwrap();
    let second = fs.open(Path::new("/a"), OpenMode::Read).unwrap();
    let refused = |error: Option<std::io::Error>| is_out_of_descriptors(&error.expect("there are no more"));
    assert!(refused(fs.open(Path::new("/a"), OpenMode::Read).err()));
    assert!(refused(fs.open(Path::new("/b"), OpenMode::CreateNew).err()) && !fs.exists(Path::new("/b")));
    assert!(refused(fs.list(Path::new("/")).err()) && refused(fs.sync_dir(Path::new("/")).err()));
    assert!(refused(fs.lock(Path::new("/LOCK"), "me").err()));
    first.write_at(b"x", 0).expect("what is open works on");
    drop(second);
    let lock = fs.lock(Path::new("/LOCK"), "me").expect("there is one now");
    assert!(refused(fs.open(Path::new("/a"), OpenMode::Read).err()));
    drop(lock);
    fs.sync_dir(Path::new("/")).expect("there is one again");
    fs.crash(CrashMode::Kill);
    assert_eq!(fs.open_files(), 0, "a killed process has none");
}

#[test]
fn what_is_written_through_a_mapping_is_lost_until_a_sync() {
    for (seed, mode) in (0..).zip(POWER_LOSSES) {
        let fs = new_fs(seed);
        let file = fs.open(path("/a"), OpenMode::CreateNew).unwrap();
        file.allocate(3 * 4096).unwrap();
        assert!(file.map(4096).unwrap().is_none(), "not unless it is enabled");
        fs.set_maps(true);
        let mut map = file.map(3 * 4096).unwrap().expect("it is mapped");
        map.write_at(b"synced", 0).unwrap();
        file.sync().unwrap();
        fs.sync_dir(path("/")).unwrap();
        map.write_at(b"unsynced", 4096).unwrap();
        fs.fail_next(Op::MappedWrite, 1, |_| true);
        map.write_at(b"refused", 8192).expect_err("the next one fails");
        assert!(read_all(&fs, path("/a")).unwrap()[4096..].starts_with(b"unsynced"), "readers see it at once");
        let ops = fs.ops();
        fs.power_off_after(1);
        map.write_at(b"one", 100).unwrap();
        map.write_at(b"two", 200).expect_err("the power went off in the middle of it");
        assert_eq!(fs.ops(), ops + 2);
        fs.crash(mode);
        drop((map, file));
        let bytes = read_all(&fs, path("/a")).unwrap();
        assert!(bytes.starts_with(b"synced"));
        match mode {
            CrashMode::LoseUnsynced => assert!(bytes[4096..].iter().all(|byte| *byte == 0)),
            CrashMode::KeepUnsynced => {
                assert!(bytes[4096..].starts_with(b"unsynced") && bytes[200..].starts_with(b"two"))
            }
            _ => {}
        }
    }
}
