use super::*;
use crate::compaction::harness::{DIR, FAMILIES, Layer, Sizes, drain, open, random_batch};
use crate::read::ReadState;
use crate::vlog::VALUES_DIR;
use crate::{Direction, Range};
use kontiki_env::SimMachine;
use kontiki_env::fs::read_all;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

type Contents = BTreeMap<Family, Vec<(Vec<u8>, Vec<u8>)>>;

/// A small database with several levels, and everything in it.
fn sample() -> (Layer, Contents) {
    let mut rng = Rng::new(21);
    let mut layer = Layer::new(21, Sizes { block_cache_bytes: 0, ..Sizes::tiny() });
    for _ in 0..4 {
        for _ in 0..8 {
            layer.write(&random_batch(&mut rng));
        }
        layer.flush().expect("a healthy disk");
        layer.compact_step().expect("a healthy disk");
    }
    let contents = (0..FAMILIES)
        .map(Family)
        .map(|family| (family, layer.expected(family, &Range::all(), Direction::Forward, layer.sequence)));
    let contents = contents.collect();
    (layer, contents)
}

/// Opens the directory and reads everything in both directions and by key.
fn read_everything(machine: &SimMachine, like: &Contents) -> Result<Contents> {
    let context = open(machine, &Sizes { block_cache_bytes: 0, ..Sizes::tiny() })?;
    let version = context.versions.current();
    let sequence = version.flushed_sequence();
    let state = ReadState {
        dead: None,
        memtables: Vec::new(),
        version,
        tables: context.tables.clone(),
        clock: context.env.clock.clone(),
        recorder: crate::measure::Recorder::off(context.env.clock.clone()),
    };
    let mut contents = Contents::new();
    for (&family, entries) in like {
        let mut forward = state.entries(family, Range::all(), Direction::Forward, sequence)?;
        let forward = drain(&mut *forward, usize::MAX)?;
        let mut backward = state.entries(family, Range::all(), Direction::Backward, sequence)?;
        let mut backward = drain(&mut *backward, usize::MAX)?;
        backward.reverse();
        assert_eq!(forward, backward);
        for (key, value) in entries {
            assert_eq!(state.get(family, key, sequence)?.as_deref(), Some(value.as_slice()));
        }
        contents.insert(family, forward);
    }
    Ok(contents)
}

fn files(machine: &SimMachine) -> Vec<PathBuf> {
    let fs = machine.env().fs;
    let dir = Path::new(DIR);
    let tables_dir = dir.join(TABLES_DIR);
    let mut files: Vec<_> = fs.list(&tables_dir).expect("listed").iter().map(|name| tables_dir.join(name)).collect();
    files.extend(
        fs.list(dir)
            .expect("listed")
            .iter()
            .filter(|name| ![TABLES_DIR, VALUES_DIR, crate::extent::EXTENT].contains(&name.as_str()))
            .map(|name| dir.join(name)),
    );
    files
}

fn fork(machine: &SimMachine) -> SimMachine {
    SimMachine { fs: machine.fs.fork(Rng::new(1)), ..machine.restarted(Rng::new(2)) }
}

#[test]
fn a_sound_directory_passes() {
    let (layer, contents) = sample();
    let report = check(&layer.machine.env(), Path::new(DIR)).expect("readable");
    assert_eq!(report.problems, Vec::new());
    assert!(report.tables > 2 && report.blocks > report.tables && report.versions > 50, "{report:?}");
    assert_eq!(read_everything(&layer.machine, &contents).expect("sound"), contents);
}

#[test]
fn every_flipped_bit_gives_the_right_data_or_an_error_that_names_the_file() {
    let (layer, contents) = sample();
    layer.context.versions.remove_obsolete(&layer.context.tables).expect("a healthy disk");
    let mut rng = Rng::new(4);
    for file in files(&layer.machine) {
        let bytes = read_all(&*layer.machine.env().fs, &file).expect("readable").len() as u64;
        let is_table = file.extension().is_some_and(|extension| extension == "sst");
        for offset in 0..bytes {
            let machine = fork(&layer.machine);
            machine.fs.flip_bit(&file, offset, rng.below(8) as u8).expect("within the file");
            let report = check(&machine.env(), Path::new(DIR)).expect("damage is reported, not an error");
            if is_table {
                assert!(!report.is_sound(), "a flip at {offset} of {} goes unnoticed", file.display());
            }
            assert!(report.problems.iter().all(|problem| problem.file == file && problem.offset <= bytes));
            match read_everything(&machine, &contents) {
                Ok(found) => assert_eq!(found, contents, "a flip at {offset} of {}", file.display()),
                Err(Error::Corruption { file: named, offset: place, .. }) => {
                    assert_eq!(named, file);
                    assert!(place <= bytes);
                }
                Err(other) => panic!("a flip at {offset} of {} gives {other:?}", file.display()),
            }
        }
    }
}

#[test]
fn a_file_cut_short_or_removed_is_named() {
    let (layer, contents) = sample();
    layer.context.versions.remove_obsolete(&layer.context.tables).expect("a healthy disk");
    for file in files(&layer.machine) {
        let is_table = file.extension().is_some_and(|extension| extension == "sst");
        let bytes = read_all(&*layer.machine.env().fs, &file).expect("readable").len() as u64;
        for length in (0..bytes).step_by(7) {
            let machine = fork(&layer.machine);
            let mode = kontiki_env::fs::OpenMode::ReadWrite;
            machine.env().fs.open(&file, mode).and_then(|file| file.set_len(length)).expect("shorter");
            if is_table {
                match read_everything(&machine, &contents) {
                    Err(Error::Corruption { file: named, .. }) => assert_eq!(named, file),
                    other => panic!("{} cut to {length} gives {other:?}", file.display()),
                }
                continue;
            }
            // Behind the last record of a manifest is its mark, which was never acknowledged.
            match open(&machine, &Sizes::tiny()) {
                Ok(_) => assert!(file.to_string_lossy().contains("MANIFEST") && length + 8 >= bytes),
                Err(error) => assert!(matches!(error, Error::Corruption { .. }), "{error}"),
            }
        }
        let machine = fork(&layer.machine);
        machine.env().fs.remove(&file).expect("there");
        match read_everything(&machine, &contents) {
            Err(Error::Corruption { file: named, .. }) => assert_eq!(named, file),
            other => panic!("without {}: {other:?}", file.display()),
        }
    }
}

#[test]
fn a_directory_without_a_database_is_the_callers_mistake() {
    let machine = SimMachine::from_seed(1);
    machine.env().fs.create_dir_all(Path::new("/empty")).expect("a healthy disk");
    let error = check(&machine.env(), Path::new("/empty")).expect_err("there is nothing to check");
    assert!(matches!(&error, Error::InvalidArgument(what) if what.contains("/empty")), "{error}");
}

fn database() -> (SimMachine, crate::Db) {
    let machine = SimMachine::from_seed(31);
    let db = crate::Db::open_in(&machine.env(), Path::new(DIR), crate::Options::default()).expect("opens");
    for i in 0..20u32 {
        db.put(i.to_be_bytes(), b"value").expect("a healthy disk");
    }
    (machine, db)
}

#[test]
fn a_database_in_use_is_not_checked() {
    let (machine, db) = database();
    assert!(matches!(check(&machine.env(), Path::new(DIR)), Err(Error::InUse { .. })));
    db.close().expect("a healthy disk");
    assert!(check(&machine.env(), Path::new(DIR)).expect("readable").is_sound());
}

#[test]
fn the_log_is_read_and_left_as_it_is() {
    let (machine, db) = database();
    machine.fs.crash(kontiki_env::fs::CrashMode::Kill);
    drop(db);
    let before: Vec<_> = log_files(&machine);
    let report = check(&machine.env(), Path::new(DIR)).expect("readable");
    assert_eq!((report.log_segments, report.log_records, report.log_unclean), (1, 20, true), "{report:?}");
    assert!(report.is_sound(), "a crash is no damage: {:?}", report.problems);
    assert_eq!(log_files(&machine), before, "a check repairs nothing");
}

#[test]
fn damage_in_the_middle_of_the_log_is_found() {
    let (machine, db) = database();
    db.close().expect("a healthy disk");
    let (file, bytes) = log_files(&machine).remove(0);
    let mut found = 0;
    for offset in 0..bytes.len() as u64 {
        let machine = fork(&machine);
        machine.fs.flip_bit(&file, offset, 3).expect("within the file");
        let report = check(&machine.env(), Path::new(DIR)).expect("readable");
        for problem in &report.problems {
            assert_eq!(problem.file, file);
        }
        found += usize::from(!report.is_sound());
    }
    // All but the last record, which looks torn without its seal.
    assert!(found > bytes.len() * 8 / 10, "{found} of {} flips", bytes.len());
}

fn log_files(machine: &SimMachine) -> Vec<(PathBuf, Vec<u8>)> {
    let fs = machine.env().fs;
    let wal = Path::new(DIR).join("wal");
    let names = fs.list(&wal).expect("listed");
    names.iter().map(|name| (wal.join(name), read_all(&*fs, &wal.join(name)).expect("readable"))).collect()
}
