//! Descriptors run out, and come back: nothing stops, and nothing is lost.

use super::*;
use crate::Error;

/// Pairs that there are from the beginning.
const FILLED: u64 = 2000;

/// Many tables, all of them open.
fn filled(machine: &SimMachine) -> Db {
    let db = open(machine);
    write(&db, 0..FILLED).expect("there is no limit yet");
    db.flush().expect("flushed");
    machine.tasks.run_until_idle(1000);
    assert!((0..FILLED).all(|number| get(&db, number).expect("readable").is_some()));
    db
}

fn write(db: &Db, numbers: std::ops::Range<u64>) -> std::result::Result<(), (u64, Error)> {
    for number in numbers {
        // Not to be compressed: small tables would become few.
        let part = |part: u64| format!("{:016x}", (number * 10 + part + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let batch = put(&format!("{number:06}"), &(0..10).map(part).collect::<String>());
        db.write(batch, Durability::Buffered).map_err(|error| (number, error))?;
    }
    Ok(())
}

fn get(db: &Db, number: u64) -> crate::Result<Option<Bytes>> {
    db.get(format!("{number:06}").as_bytes())
}

#[test]
fn a_lack_of_descriptors_is_waited_out() {
    let machine = SimMachine::from_seed(1);
    let db = filled(&machine);
    // Whatever is closed from now on, another part of the process takes.
    let mut next = FILLED;
    let error = loop {
        machine.fs.set_descriptors_max(Some(machine.fs.open_files() + 1));
        match write(&db, next..next + 1) {
            Ok(()) => next += 1,
            Err((_, error)) => break error,
        }
        assert!(next < 100_000, "writes need new files some day");
    };
    assert!(matches!(error, Error::NoDescriptors { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    assert_eq!(db.stats().health.stopped, None, "nothing has stopped");
    machine.fs.set_descriptors_max(None);
    write(&db, next..next + 500).expect("writes go on");
    db.flush().expect("so do flushes");
    db.compact().expect("and compactions");
    assert!((0..next + 500).all(|number| get(&db, number).expect("readable").is_some()));
    assert!(db.stats().health.descriptors_refused > 0);
    db.close().expect("closed");
    let db = open(&machine);
    assert!((0..next + 500).all(|number| get(&db, number).expect("readable").is_some()));
}

#[test]
fn open_tables_are_closed_for_what_must_be_opened() {
    let machine = SimMachine::from_seed(2);
    let db = filled(&machine);
    let tables = db.stats().table_cache.tables;
    assert!(tables > 10, "{tables} are open");
    // No descriptor is left but those of tables that are only kept open.
    machine.fs.set_descriptors_max(Some(machine.fs.open_files() + 1));
    write(&db, FILLED..FILLED + 300).expect("space is freed");
    db.flush().expect("space is freed");
    assert!((0..FILLED + 300).all(|number| get(&db, number).expect("readable").is_some()));
    assert!(db.stats().health.descriptors_refused > 0);
}

#[test]
fn a_directory_is_synced_by_the_reserve() {
    let machine = SimMachine::from_seed(3);
    let db = filled(&machine);
    // From here to the end of the edit nothing but the reserve has a descriptor.
    machine.fs.set_descriptors_max(Some(0));
    let fs = &db.core().shared().env.fs;
    assert!(fs.open(Path::new("/db/CURRENT"), kontiki_env::fs::OpenMode::Read).is_err());
    machine.fs.set_descriptors_max(Some(machine.fs.open_files() + 1));
    assert!(fs.sync_dir(Path::new("/db/wal")).is_ok(), "without a descriptor to spare");
}

/// Whatever the database is doing when descriptors run out, it must not stop, and nothing acknowledged may be lost.
#[test]
fn descriptors_may_run_out_at_any_moment() {
    for seed in 0..30 {
        let machine = SimMachine::from_seed(seed);
        let db = filled(&machine);
        let mut rng = Rng::new(seed);
        let mut written = FILLED;
        for _ in 0..20 {
            let spare = rng.below(8);
            // The lock has one, too.
            machine.fs.set_descriptors_max(rng.chance(2, 3).then(|| machine.fs.open_files() + 1 + spare));
            for _ in 0..rng.below(60) {
                match write(&db, written..written + 1) {
                    Ok(()) => written += 1,
                    Err((_, error)) => assert!(matches!(error, Error::NoDescriptors { .. }), "seed {seed}: {error}"),
                }
            }
            let outcome = if rng.chance(1, 4) { db.flush() } else { Ok(()) };
            let outcome = outcome.and_then(|()| if rng.chance(1, 4) { db.compact() } else { Ok(()) });
            let waited_out = |error: &Error| matches!(error, Error::NoDescriptors { .. });
            assert!(outcome.as_ref().err().is_none_or(waited_out), "seed {seed}: {outcome:?}");
            let found = get(&db, rng.below(written));
            assert!(
                found.as_ref().is_ok_and(Option::is_some) || found.as_ref().err().is_some_and(waited_out),
                "{found:?}"
            );
        }
        machine.fs.set_descriptors_max(None);
        write(&db, written..written + 10).unwrap_or_else(|(_, error)| panic!("seed {seed}: {error}"));
        db.flush().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!((0..written + 10).all(|number| get(&db, number).expect("readable").is_some()), "seed {seed}");
        db.close().expect("closed");
        let db = open(&machine);
        assert!((0..written + 10).all(|number| get(&db, number).expect("readable").is_some()), "seed {seed}");
    }
}
