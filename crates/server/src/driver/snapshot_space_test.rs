use super::*;
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;
use kontiki_raftstore::RegionId;
use kontiki_raftstore::snapshot::SnapshotId;

fn file(number: u64) -> FileId {
    FileId { snapshot: SnapshotId { region: RegionId(3), term: 6, index: 40 }, number }
}

#[test]
fn what_is_promised_to_one_file_is_not_promised_to_another() {
    let machine = SimMachine::from_seed(1);
    machine.fs.create_dir_all(Path::new("/data")).expect("written");
    machine.fs.set_quota(Some(machine.fs.used_bytes() + 1000));
    let space = SnapshotSpace::new(Arc::new(machine.fs.clone()), Path::new("/data"), 100);
    space.promise(file(1), 600).expect("there is space");
    let refused = space.promise(file(2), 301).expect_err("no space beside the first");
    let expected = NoSpace { needed_bytes: 301, free_bytes: 1000, promised_bytes: 600, reserve_bytes: 100 };
    assert_eq!(refused, expected);
    assert_eq!(space.promised_bytes(), 600, "a refusal leaves nothing");
    space.promise(file(2), 300).expect("the rest");

    // What a file has taken is not promised any more.
    let taken = machine.fs.open(Path::new("/data/1"), OpenMode::CreateNew).expect("written");
    taken.allocate(300).expect("there is space");
    assert!(space.promise(file(3), 1).is_err(), "it counts twice until that is known");
    space.set(file(1), 300);
    assert!(space.promise(file(3), 1).is_err());
    // A file may need more than was thought; it keeps what it had if there is no more.
    assert!(space.promise(file(2), 301).is_err());
    assert_eq!(space.promised_bytes(), 600);

    space.release(file(1));
    space.promise(file(2), 600).expect("there is space again");
    space.release(file(1));
    assert_eq!(space.promised_bytes(), 600);
}
