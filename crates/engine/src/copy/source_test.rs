use super::*;
use crate::{Db, Durability, Family, FamilySpec, Options, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::tasks::Progress;
use std::path::Path;

/// Large values in segments that hold a few of them, and a copy that has looked at a version whose segment is still
/// open.
#[test]
fn a_segment_that_is_sealed_and_collected_between_two_looks_leads_to_a_newer_version() {
    let machine = SimMachine::from_seed(1);
    let mut default = FamilySpec::new(Family::DEFAULT, "default");
    default.options.value_threshold_bytes = 1000;
    let options = Options { families: vec![default], value_segment_bytes: 16 << 10, ..Options::default() };
    let db = Db::open_in(&machine.env(), Path::new("/db"), options).expect("opens");
    let put = |byte: u8| {
        for key in 0..4u8 {
            let mut batch = WriteBatch::new();
            batch.put(Family::DEFAULT, [key], [byte; 2000]);
            db.write(batch, Durability::Buffered).expect("written");
        }
    };
    put(1);
    db.flush().expect("flush");
    let core = db.core();
    let version = core.shared().context.versions.current();
    let open: Vec<u64> = version.values().files().keys().copied().collect();
    assert!(version.values().files().values().any(|state| state.sealed_bytes().is_none()), "it is written to");
    put(2);
    db.compact().expect("compact");
    db.collect_value_garbage().expect("collected");
    let later = core.shared().context.versions.current();
    assert!(open.iter().all(|number| !later.values().files().contains_key(number)), "still there: {open:?}");
    assert!(lost_a_segment(&version, &later) && !lost_a_segment(&later, &later));
    let before = version.flushed_sequence();
    let source = CopySource::of_version(core, version).expect("of the newer version");
    assert!(source.sequence > before);
    db.checkpoint(Path::new("/copy")).expect("a copy");
    let copy = Db::open_in(&machine.env(), Path::new("/copy"), Options::default()).expect("opens");
    assert_eq!(copy.get([3]).expect("readable").as_deref(), Some(&[2; 2000][..]));
}

/// A batch whose values are in their segment, and which is not in a memtable yet: the segment cannot be sealed. A task
/// of the simulated machine releases it after a while.
#[test]
fn a_copy_waits_for_a_batch_on_its_way_as_long_as_it_takes() {
    let machine = SimMachine::from_seed(2);
    let mut default = FamilySpec::new(Family::DEFAULT, "default");
    default.options.value_threshold_bytes = 1000;
    let options = Options { families: vec![default], value_segment_bytes: 1 << 20, ..Options::default() };
    let db = Db::open_in(&machine.env(), Path::new("/db"), options).expect("opens");
    let large = |key: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, [1; 2000]);
        batch
    };
    db.write(large(b"in the copy"), Durability::Buffered).expect("written");
    db.flush().expect("flush");
    let (_, pin) = db.core().write.separate_values(large(b"on its way")).expect("written");
    let mut pin = Some(pin.expect("its value is large"));
    let mut steps = 0;
    let _task = machine.env().tasks.spawn(
        "writer",
        Box::new(move || {
            steps += 1;
            if steps == 5000 {
                drop(pin.take());
            }
            if steps < 5000 { Progress::Worked } else { Progress::Idle }
        }),
    );
    db.checkpoint(Path::new("/copy")).expect("it is waited for");
    let copy = Db::open_in(&machine.env(), Path::new("/copy"), Options::default()).expect("opens");
    assert_eq!(copy.get(b"in the copy").expect("readable").as_deref(), Some(&[1; 2000][..]));
}

#[test]
fn a_copy_that_gives_up_is_busy_and_counted() {
    let machine = SimMachine::from_seed(3);
    let mut default = FamilySpec::new(Family::DEFAULT, "default");
    default.options.value_threshold_bytes = 1000;
    let options = Options { families: vec![default], ..Options::default() };
    let db = Db::open_in(&machine.env(), Path::new("/db"), options).expect("opens");
    let large = |key: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, [1; 2000]);
        batch
    };
    db.write(large(b"in the copy"), Durability::Buffered).expect("written");
    db.flush().expect("flush");
    let (_, pin) = db.core().write.separate_values(large(b"on its way for ever")).expect("written");
    // Nothing else happens in this world, so waiting is of no use.
    let refused = db.checkpoint(Path::new("/copy")).expect_err("the batch is not in memory");
    assert!(matches!(refused, crate::Error::Busy { .. }), "{refused}");
    assert_eq!(db.stats().health.copies_refused, 1);
    drop(pin);
    db.checkpoint(Path::new("/other")).expect("nothing is in the way");
    assert_eq!(db.stats().health.copies_refused, 1);
}
