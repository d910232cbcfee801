use super::*;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Op};

const DIR: &str = "/db";

fn machine(seed: u64) -> SimMachine {
    let machine = SimMachine::from_seed(seed);
    machine.fs.create_dir_all(Path::new(DIR)).expect("makes");
    machine
}

fn extent(machine: &SimMachine) -> Extent {
    Extent::new(Arc::new(machine.fs.clone()), Path::new(DIR), 1, 100, true)
}

fn read(machine: &SimMachine) -> Option<Reach> {
    read_extent(&machine.fs, Path::new(DIR)).expect("readable")
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let reach = Reach { manifest: 7, manifest_bytes: 0x0102, first_segment: 3, last_segment: 5 };
    let bytes = encode(9, &reach);
    assert_eq!(bytes[..12], *b"KONTIEXT\x01\0\0\0");
    assert_eq!(bytes[12..52].chunks(8).map(|word| word[0]).collect::<Vec<_>>(), [9, 7, 2, 3, 5]);
    assert_eq!(decode(&bytes), Some((9, reach)));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert_eq!(decode(&damaged), None, "a flip at {at}");
        assert_eq!(decode(&bytes[..at]), None);
    }
}

#[test]
fn nothing_is_recorded_until_there_is_something() {
    let machine = machine(1);
    let extent = extent(&machine);
    extent.begin_log_at(3).expect("nothing requires less");
    assert_eq!(read(&machine), None);
    extent.note_log(3, 4).expect("it may be written to");
    extent.note_manifest(1, 200);
    extent.note_segment(5);
    let reach = Reach { manifest: 1, manifest_bytes: 200, first_segment: 3, last_segment: 5 };
    assert_eq!(read(&machine), Some(reach));
    extent.end_log_at(4).and_then(|()| extent.begin_log_at(4)).expect("written");
    assert_eq!(read(&machine), Some(Reach { first_segment: 4, last_segment: 4, ..reach }));
}

#[test]
fn a_manifest_of_an_earlier_format_has_no_record() {
    let machine = machine(2);
    let extent = Extent::new(Arc::new(machine.fs.clone()), Path::new(DIR), 1, 100, false);
    extent.note_log(1, 1).expect("it may be written to");
    extent.begin_log_at(2).and_then(|()| extent.end_log_at(1)).expect("there is none");
    assert_eq!(read(&machine), None);
    extent.note_manifest(2, 50);
    assert_eq!(read(&machine).expect("now").manifest, 2);
}

/// After a crash the record requires nothing that was not there at its time, and all that a call before the last
/// one had noted.
#[test]
fn a_crash_at_any_operation_leaves_the_last_record_or_the_one_before() {
    for ops in 0..60 {
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Pages, CrashMode::Random] {
            let machine = machine(ops);
            let extent = extent(&machine);
            extent.note_log(1, 0).expect("it may be written to");
            machine.fs.power_off_after(ops);
            let mut noted = 0;
            for number in 1..20 {
                extent.note_segment(number);
                if !machine.fs.is_off() {
                    noted = number;
                }
            }
            machine.fs.crash(mode);
            let last = read(&machine).expect("it was there").last_segment;
            assert!((noted..=noted + 1).contains(&last), "{mode:?} {ops}: {last} after {noted}");
        }
    }
}

#[test]
fn what_cannot_be_recorded_is_not_required() {
    for op in [Op::Write, Op::Sync] {
        let machine = machine(3);
        let extent = extent(&machine);
        extent.note_log(1, 9).expect("it may be written to");
        machine.fs.fail_next(op, 1, |_| true);
        extent.begin_log_at(4).expect("the file is removed instead");
        assert_eq!(read(&machine), None, "{op:?}");
        extent.note_segment(10);
        assert_eq!(read(&machine), None, "nor is it made again before the next open");
        machine.fs.crash(CrashMode::Random);
        assert_eq!(read(&machine), None);
    }
}

#[test]
fn what_can_neither_be_recorded_nor_removed_must_stay() {
    let machine = machine(4);
    let extent = extent(&machine);
    extent.note_log(1, 9).expect("it may be written to");
    machine.fs.fail_next(Op::Write, 1, |_| true);
    machine.fs.fail_next(Op::Remove, 1, |_| true);
    assert!(matches!(extent.begin_log_at(4), Err(Error::Io { .. })));
    assert!(extent.end_log_at(8).is_err(), "and so it is from then on");
    assert_eq!(read(&machine).expect("there").first_segment, 1);
}

/// Whichever slot is damaged, the other one requires nothing that was deleted.
#[test]
fn damage_in_one_slot_requires_nothing_that_was_deleted() {
    let machine = machine(5);
    let extent = extent(&machine);
    extent.note_log(1, 3).expect("it may be written to");
    for first in 2..6 {
        extent.note_segment(first + 2);
        extent.begin_log_at(first).and_then(|()| extent.end_log_at(first + 1)).expect("written");
        for slot in 0..SLOTS {
            let machine = SimMachine { fs: machine.fs.fork(kontiki_env::rng::Rng::new(1)), ..SimMachine::from_seed(6) };
            machine.fs.flip_bit(&Path::new(DIR).join(EXTENT), slot * SLOT_BYTES + 20, 1).expect("within the file");
            let reach = read(&machine).expect("the other one");
            assert!(reach.first_segment == first && reach.last_segment <= first + 1, "{reach:?}");
        }
    }
}
