use super::*;
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs, Op};

const PATH: &str = "/outside/a.sst";

fn machine() -> SimMachine {
    let machine = SimMachine::from_seed(1);
    machine.fs.create_dir_all(Path::new("/outside")).expect("written");
    machine
}

fn begin(machine: &SimMachine) -> IngestWriter {
    let created = IngestWriter::create_in(&machine.env(), Path::new(PATH), Family(3), TableOptions::default());
    created.expect("written")
}

fn refused<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
    let error = result.expect_err("refused");
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains(expected)), "{error}");
}

#[test]
fn a_finished_table_survives_power_loss_and_an_unfinished_one_leaves_nothing() {
    let machine = machine();
    let mut writer = begin(&machine);
    writer.put(b"a", b"1").expect("written");
    writer.delete(b"b").expect("written");
    writer.put_expiring(b"c", b"3", 1000).expect("written");
    let file = writer.finish().expect("written");
    assert_eq!((file.entries, file.family), (3, Family(3)));
    assert_eq!((file.smallest_key.as_ref(), file.largest_key.as_ref()), (&b"a"[..], &b"c"[..]));
    machine.fs.crash(CrashMode::LoseUnsynced);
    let bytes = kontiki_env::fs::read_all(&machine.fs, Path::new(PATH)).expect("there");
    assert_eq!(bytes.len() as u64, file.bytes);
    refused(IngestWriter::create_in(&machine.env(), Path::new(PATH), Family(3), TableOptions::default()), "already");
    machine.fs.remove(Path::new(PATH)).expect("removed");
    let mut writer = begin(&machine);
    writer.put(b"a", b"1").expect("written");
    drop(writer);
    assert_eq!(machine.fs.list(Path::new("/outside")).expect("listed"), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_refused_and_not_added() {
    let machine = machine();
    let mut writer = begin(&machine);
    writer.put(b"b", b"1").expect("written");
    refused(writer.put(b"b", b"2"), "ascend");
    refused(writer.delete(b"a"), "ascend");
    refused(writer.put(vec![b'x'; KEY_BYTES_MAX + 1], b"v"), "65537");
    refused(writer.put(b"c", vec![0; VALUE_BYTES_MAX + 1]), "33554433");
    writer.put_expiring(b"c", b"v", 5).expect("written");
    assert_eq!(writer.finish().expect("written").entries, 2);
    machine.fs.remove(Path::new(PATH)).expect("removed");
    refused(begin(&machine).finish(), "without keys");
    assert_eq!(machine.fs.list(Path::new("/outside")).expect("listed"), Vec::<String>::new());
}

#[test]
fn a_full_disk_and_a_failed_sync_leave_no_table() {
    let machine = machine();
    for op in [Op::Write, Op::Sync, Op::Rename] {
        let mut writer = begin(&machine);
        writer.put(b"a", b"1").expect("in memory");
        machine.fs.fail_next(op, 1, |path| path.starts_with("/outside"));
        assert!(matches!(writer.finish(), Err(Error::Io { .. })), "{op:?}");
        machine.fs.clear_faults();
        assert_eq!(machine.fs.list(Path::new("/outside")).expect("listed"), Vec::<String>::new(), "{op:?}");
    }
    // What a process that was cut off has left is no obstacle.
    let mut writer = begin(&machine);
    writer.put(b"a", b"1").expect("in memory");
    std::mem::forget(writer);
    drop(begin(&machine));
}
