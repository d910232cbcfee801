//! Snapshots and scans that are kept longer than their database is open, while another one works in the directory.

use super::threads::threaded;
use super::*;
use crate::{Error, ReadOptions, Scan};
use std::sync::atomic::{AtomicBool, Ordering};

/// So few open tables that reads open files again and again.
fn options() -> Options {
    let mut options = Options { open_tables_max: 16, table_cache_bytes: 1 << 20, ..small_options() };
    options.families[1].options.value_threshold_bytes = 100;
    options
}

fn key(number: u32) -> String {
    format!("{number:04}")
}

fn fill(db: &Db, generation: u64) {
    for number in 0..120 {
        let mut batch = put(&key(number), &format!("{generation}"));
        batch.put(OTHER, key(number).as_bytes(), format!("{generation} {}", "x".repeat(200)).as_bytes());
        db.write(batch, Durability::Buffered).expect("written");
    }
    db.flush().expect("written");
    db.compact().expect("written");
    db.collect_value_garbage().expect("written");
}

/// Reads all until the database is closed; everything that is read is of the generation.
fn read(snapshot: &crate::Snapshot, scan: &mut Scan, generation: u64) {
    let wanted = generation.to_string();
    for number in (0..120).cycle() {
        for family in [Family::DEFAULT, OTHER] {
            match snapshot.get_in(family, key(number).as_bytes()) {
                Ok(Some(value)) => assert!(value.starts_with(wanted.as_bytes()), "of generation {generation}"),
                Ok(None) => panic!("{number} is there"),
                Err(Error::Closed) => return read_on(scan, &wanted),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A scan that was begun before continues with what it has open.
fn read_on(scan: &mut Scan, wanted: &str) {
    loop {
        match scan.advance().and_then(|there| Ok(there && scan.value()?.starts_with(wanted.as_bytes()))) {
            Ok(true) => {}
            Ok(false) => return,
            Err(Error::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_snapshot_whose_database_is_closed_answers_so_and_never_with_anothers_data() {
    let machine = SimMachine::from_seed(1);
    for generation in 1..8 {
        let db = Db::open_in(&threaded(&machine), Path::new(DIR), options()).expect("opens");
        fill(&db, generation);
        let ready = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (snapshot, ready) = (db.snapshot(), &ready);
                let scan = snapshot.scan(OTHER, Range::all(), Direction::Forward, ReadOptions::default());
                let mut scan = scan.expect("open");
                scope.spawn(move || {
                    ready.store(true, Ordering::SeqCst);
                    read(&snapshot, &mut scan, generation);
                });
            }
            while !ready.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let kept = db.snapshot();
            db.close().expect("closed");
            let next = Db::open_in(&threaded(&machine), Path::new(DIR), options()).expect("opens again");
            fill(&next, generation + 100);
            assert!(matches!(kept.get_in(Family::DEFAULT, b"0001"), Err(Error::Closed)));
            assert!(matches!(kept.multi_get(OTHER, &[b"0001"]), Err(Error::Closed)));
            let scan = kept.scan(OTHER, Range::all(), Direction::Forward, ReadOptions::default());
            assert!(matches!(scan.map(drop), Err(Error::Closed)));
            drop(kept);
            let left = dump(&next.snapshot(), Family::DEFAULT);
            assert!(left.iter().all(|(_, value)| *value == (generation + 100).to_string()), "nothing went with it");
        });
    }
}

/// A scan holds the files of its first block; what it has to open after the close is not opened.
#[test]
fn a_scan_goes_on_with_what_is_open_and_opens_nothing_after_the_close() {
    let machine = SimMachine::from_seed(2);
    let db = Db::open_in(&machine.env(), Path::new(DIR), options()).expect("opens");
    fill(&db, 1);
    let mut scan = db.scan(OTHER, Range::all(), Direction::Forward, ReadOptions::default()).expect("open");
    assert!(scan.advance().expect("open"));
    db.close().expect("closed");
    let next = Db::open_in(&machine.env(), Path::new(DIR), options()).expect("opens again");
    fill(&next, 2);
    read_on(&mut scan, "1");
}
