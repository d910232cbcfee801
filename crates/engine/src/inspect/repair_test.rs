use super::*;
use crate::types::KeyRef;
use crate::{Db, Direction, Durability, Options, Range, View, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::fs::read_all;
use kontiki_env::rng::Rng;

const FROM: &str = "/db";
const TO: &str = "/saved";

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> Options {
    let mut options = Options { memtable_bytes: 8 << 10, ..Options::default() };
    options.compaction.table_bytes = 8 << 10;
    options
}

/// A closed database with tables, values outside of them, and a log; and what is in it.
fn sample(machine: &SimMachine) -> Contents {
    let db = Db::open_in(&machine.env(), Path::new(FROM), options()).expect("opens");
    let mut expected = Contents::new();
    for i in 0..600usize {
        let mut batch = WriteBatch::new();
        let (key, value) = (format!("key{:03}", i % 200), format!("{i}").repeat(if i % 20 == 0 { 2100 } else { 10 }));
        batch.put(Family::DEFAULT, key.as_bytes(), value.as_bytes());
        db.write(batch, Durability::Sync).expect("written");
        expected.insert(key.into_bytes(), value.into_bytes());
        if i == 400 {
            db.compact().expect("written");
        }
        if i == 550 {
            db.flush().expect("written");
        }
    }
    db.close().expect("closes");
    expected
}

fn contents(machine: &SimMachine, dir: &str) -> Contents {
    let db = Db::open_in(&machine.env(), Path::new(dir), options()).expect("a repaired directory opens");
    let mut entries = db.snapshot().entries(Family::DEFAULT, Range::all(), Direction::Forward).expect("whole");
    let mut out = Contents::new();
    while let Some((key, value)) = entries.next().transpose().expect("whole") {
        out.insert(key.to_vec(), value.to_vec());
    }
    out
}

fn run(machine: &SimMachine) -> RepairReport {
    repair(&machine.env(), Path::new(FROM), Path::new(TO)).expect("repairs")
}

fn a_table(machine: &SimMachine) -> PathBuf {
    let summary = crate::inspect::summarize(&machine.env(), Path::new(FROM)).expect("whole");
    let tables = summary.families[0].levels.iter().flatten();
    let largest = tables.max_by_key(|meta| meta.file_bytes).expect("there are tables");
    table_path(&Path::new(FROM).join(TABLES_DIR), largest.number)
}

#[test]
fn a_sound_directory_is_saved_whole_and_left_as_it_is() {
    let machine = SimMachine::from_seed(1);
    let expected = sample(&machine);
    let report = run(&machine);
    assert!(report.manifest_read && report.problems.is_empty(), "{report:?}");
    assert!(report.tables_sound > 0 && report.commits > 0 && report.value_files > 0, "{report:?}");
    assert_eq!((report.tables_mended, report.tables_lost), (0, 0));
    assert_eq!(contents(&machine, TO), expected);
    assert_eq!(contents(&machine, FROM), expected, "neither touches the other");
    let error = repair(&machine.env(), Path::new(FROM), Path::new(TO)).expect_err("not empty").to_string();
    assert!(error.contains(TO), "{error}");
    assert!(matches!(repair(&machine.env(), Path::new("/none"), Path::new("/x")), Err(Error::InvalidArgument(_))));
}

#[test]
fn without_a_manifest_the_newest_versions_still_win() {
    let machine = SimMachine::from_seed(2);
    let expected = sample(&machine);
    let current = Path::new(FROM).join("CURRENT");
    machine.fs.flip_bit(&current, 12, 1).expect("there");
    let report = run(&machine);
    assert!(!report.manifest_read && report.problems.len() == 1, "{report:?}");
    assert_eq!(contents(&machine, TO), expected, "nothing was deleted, so nothing comes back");
}

#[test]
fn of_a_damaged_table_only_the_damaged_block_is_lost() {
    let machine = SimMachine::from_seed(3);
    let expected = sample(&machine);
    let table = a_table(&machine);
    machine.fs.flip_bit(&table, 100, 2).expect("there");
    let report = run(&machine);
    assert_eq!((report.tables_mended, report.tables_lost), (1, 0), "{report:?}");
    assert!(report.problems.iter().any(|problem| problem.file == table), "{report:?}");
    let found = contents(&machine, TO);
    assert!(found.len() > expected.len() / 2, "{} of {}", found.len(), expected.len());
    let written = |value: &[u8]| String::from_utf8_lossy(value).chars().all(|c| c.is_ascii_digit());
    assert!(found.iter().all(|(key, value)| expected.contains_key(key) && written(value)), "nothing is made up");
}

#[test]
fn a_missing_table_and_a_damaged_log_are_reported_and_the_rest_is_saved() {
    let machine = SimMachine::from_seed(4);
    let expected = sample(&machine);
    let (env, table) = (machine.env(), a_table(&machine));
    env.fs.remove(&table).expect("there");
    let wal = Path::new(FROM).join(WAL_DIR);
    let newest = env.fs.list(&wal).expect("listed").pop().expect("there is a log");
    machine.fs.flip_bit(&wal.join(&newest), 60, 0).expect("there");
    let report = run(&machine);
    assert_eq!(report.tables_lost, 1);
    assert!(report.problems.iter().any(|problem| problem.file == table), "{report:?}");
    assert!(report.problems.iter().any(|problem| problem.file.ends_with(&newest)), "{report:?}");
    let found = contents(&machine, TO);
    assert!(!found.is_empty() && found.keys().all(|key| expected.contains_key(key)));
}

/// Whatever bit flips, a repair ends, and what it makes opens and reads.
#[test]
fn any_flipped_bit_can_be_repaired() {
    let machine = SimMachine::from_seed(5);
    let expected = sample(&machine);
    let mut files = Vec::new();
    for directory in ["", TABLES_DIR, WAL_DIR, VALUES_DIR] {
        let directory = Path::new(FROM).join(directory);
        for name in machine.env().fs.list(&directory).expect("listed") {
            let path = directory.join(name);
            if let Ok(bytes) = read_all(&*machine.env().fs, &path) {
                files.push((path, bytes.len() as u64));
            }
        }
    }
    files.retain(|(path, bytes)| *bytes > 0 && !path.ends_with("LOCK"));
    let mut rng = Rng::new(5);
    for round in 0..60 {
        let mut other = machine.restarted(Rng::new(round));
        other.fs = machine.fs.fork(Rng::new(round));
        let (path, bytes) = &files[rng.below(files.len() as u64) as usize];
        other.fs.flip_bit(path, rng.below(*bytes), rng.below(8) as u8).expect("there");
        run(&other);
        let db = Db::open_in(&other.env(), Path::new(TO), options()).expect("a repaired directory opens");
        for key in expected.keys() {
            // A value may be lost; then that is what a read says.
            let value = db.get(key);
            assert!(value.is_ok() || matches!(value, Err(Error::Corruption { .. })), "{value:?}");
        }
    }
}

#[test]
fn positions_are_those_of_versions() {
    // The salvage gives versions in the order of the table.
    let machine = SimMachine::from_seed(6);
    sample(&machine);
    let path = a_table(&machine);
    let file = machine.env().fs.open(&path, OpenMode::Read).expect("there");
    let bytes = file.len().expect("there");
    let number = parse_table_name(&path.file_name().expect("named").to_string_lossy()).expect("a table");
    let reader = TableReader::open_file(path, number, file, bytes, Arc::new(BlockCache::new(0))).expect("whole");
    let mut seen: Vec<(Vec<u8>, u64)> = Vec::new();
    let mut visit = |key: KeyRef<'_>, _, _: &[u8]| {
        seen.push((key.user_key.to_vec(), key.sequence));
        Ok(())
    };
    reader.salvage(&mut visit, &mut |error| panic!("{error}")).expect("whole");
    assert_eq!(seen.len() as u64, reader.properties().entries);
    assert!(seen.windows(2).all(|pair| KeyRef::new(&pair[0].0, pair[0].1) < KeyRef::new(&pair[1].0, pair[1].1)));
}
