//! Installs into the real engine, on a simulated machine.

use super::*;
use crate::driver::lane::derived;
use crate::families::{DATA_FAMILIES, DEFAULT, META, TXN_LOCK, TXN_WRITE, served_families};
use kontiki_engine::{Db, Direction, Options, Range, View};
use kontiki_env::SimMachine;
use kontiki_env::clock::Clock;
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::rng::Rng;
use kontiki_raftstore::snapshot::{Content, FileId, write};
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, Space, Store, StoreId, StoreIdentity, meta};
use kontiki_state::BuiltIn;
use std::collections::BTreeMap;

const DATA: &str = "/data";
const REGION: RegionId = RegionId(3);
/// In `meta`, beside what installs write.
const MARK: &[u8] = b"\xffmark";

type Contents = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

fn sizes() -> SnapshotTables {
    SnapshotTables { file_bytes_min: 0, family_bytes_min: 40, table_bytes: 600 }
}

/// From `b` to `x`.
fn region() -> Region {
    Region {
        id: REGION,
        start_key: (&b"b"[..]).into(),
        end_key: (&b"x"[..]).into(),
        epoch: Epoch { conf_version: 1, version: 2 },
        peers: vec![Peer { id: PeerId(31), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn options() -> Options {
    let mut families = served_families();
    families.iter_mut().for_each(|spec| spec.options.value_threshold_bytes = 300);
    let (memtable_bytes, log_segment_bytes, log_bytes_max) = (16 << 10, 16 << 10, 256 << 10);
    Options { families, memtable_bytes, log_segment_bytes, log_bytes_max, ..Options::default() }
}

fn try_open(machine: &SimMachine, directory: &str) -> EngineResult<Db> {
    Db::open_in(&machine.env(), Path::new(directory), options())
}

fn open(machine: &SimMachine, directory: &str) -> Db {
    try_open(machine, directory).expect("a database")
}

fn installer(machine: &SimMachine, db: &Db) -> Installer {
    installer_with(machine, db, sizes())
}

fn installer_with(machine: &SimMachine, db: &Db, sizes: SnapshotTables) -> Installer {
    let state: Arc<dyn StateEngine> = Arc::new(BuiltIn::new(db.clone(), &machine.env(), options().table));
    Installer::new(&machine.env(), Path::new(DATA), &state, sizes)
}

fn put(db: &Db, contents: &Contents) {
    let mut batch = WriteBatch::new();
    contents.iter().for_each(|((family, key), value)| batch.put(*family, key, value));
    db.commit(derived(batch)).expect("written");
}

/// The region's data.
fn contents_of(db: &Db) -> Contents {
    let view = db.snapshot();
    let mut found = Contents::new();
    for family in DATA_FAMILIES {
        let range = Range::region(b"b", b"x");
        for entry in view.entries(family, range, Direction::Forward).expect("there") {
            let (key, value) = entry.expect("readable");
            found.insert((family, key.to_vec()), value.to_vec());
        }
    }
    found
}

fn applied(db: &Db) -> Option<u64> {
    meta::applied_index(META, &db.snapshot(), REGION).expect("readable")
}

/// A snapshot's file of a region with these contents.
fn snapshot_of(machine: &SimMachine, contents: &Contents) -> (PathBuf, SnapshotId) {
    snapshot_with(machine, contents, WriteBatch::new())
}

/// The same, with more that was written.
fn snapshot_with(machine: &SimMachine, contents: &Contents, more: WriteBatch) -> (PathBuf, SnapshotId) {
    let db = open(machine, "/source");
    let first = Store::bootstrap(&FAMILIES, &StoreIdentity { cluster: 7, store: StoreId(1) }, &[region()]);
    db.commit(first).expect("written");
    put(&db, contents);
    db.commit(derived(more)).expect("written");
    let mut bytes = Vec::new();
    let written = write(&FAMILIES, &db.snapshot(), REGION, Content::default(), &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    let id = written.expect("readable").id;
    let directory = Path::new("/snapshots/3");
    machine.fs.create_dir_all(directory).expect("written");
    let path = Path::new("/snapshots").join(FileId { snapshot: id, number: 1 }.file_name());
    let file = machine.fs.open(&path, OpenMode::CreateNew).expect("written");
    file.write_at(&bytes, 0).expect("written");
    file.sync().expect("written");
    machine.fs.sync_dir(directory).expect("written");
    (path, id)
}

/// Some families are large enough for tables, one is not, one is empty; one value belongs into the value log.
fn sample() -> Contents {
    let mut contents = Contents::new();
    for i in 0..60 {
        contents.insert((DEFAULT, format!("key{i:03}").into_bytes()), format!("value {i}").into_bytes());
        contents.insert((TXN_WRITE, format!("w{i:03}").into_bytes()), vec![i; 20]);
    }
    contents.insert((DEFAULT, b"key030".to_vec()), vec![7; 400]);
    contents.insert((TXN_LOCK, b"lock".to_vec()), b"small".to_vec());
    contents
}

fn old() -> Contents {
    let mut contents = Contents::new();
    for i in 0..40 {
        for family in DATA_FAMILIES {
            contents.insert((family, format!("key{:03}", i * 2).into_bytes()), b"old".to_vec());
        }
    }
    contents
}

/// A database with old data of the region, some of it in memory alone, and beside it.
fn prepare(db: &Db) {
    put(db, &old());
    db.flush().expect("written");
    put(db, &old().into_iter().take(30).collect());
    put(db, &Contents::from([((DEFAULT, b"a".to_vec()), b"stays".to_vec())]));
    put(db, &Contents::from([((META, MARK.to_vec()), b"split".to_vec())]));
}

fn tables_left(machine: &SimMachine) -> Vec<String> {
    list_if_there(&machine.fs, &Path::new(DATA).join(TABLES_DIRECTORY)).expect("readable")
}

#[test]
fn a_snapshot_replaces_the_region_by_tables_as_key_by_key() {
    let machine = SimMachine::from_seed(1);
    let (path, id) = snapshot_of(&machine, &sample());
    for (as_tables, crash) in [(false, false), (true, false), (true, true)] {
        let machine = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..machine.restarted(Rng::new(2)) };
        let db = open(&machine, DATA);
        prepare(&db);
        let before = db.snapshot();
        let installed = installer(&machine, &db).install(&path, id, as_tables).expect("installed");
        assert_eq!(installed.table_bytes > 0, as_tables);
        assert_eq!((contents_of(&db), applied(&db)), (sample(), Some(1)));
        assert_eq!(db.stats().ingest.ingests, u64::from(as_tables));
        assert!(db.stats().ingest.tables > 2 || !as_tables, "a family has several tables");
        let kept = before.get_in(DEFAULT, b"key002").expect("readable");
        assert_eq!(kept.as_deref(), Some(&b"old"[..]), "an older view does not change");
        drop(before);
        assert_eq!(tables_left(&machine), [""; 0]);
        db.flush().expect("written");
        db.compact().expect("written");
        assert!(db.stats().values.referred_bytes >= 400, "the large value is in the value log");
        if crash {
            machine.fs.power_off();
        }
        drop(db);
        machine.fs.crash(CrashMode::LoseUnsynced);
        let db = open(&machine.restarted(Rng::new(3)), DATA);
        assert_eq!((contents_of(&db), applied(&db)), (sample(), Some(1)));
        assert_eq!(db.get(b"a").expect("readable").as_deref(), Some(&b"stays"[..]), "not of the region");
    }
}

/// In tables, in batches and in the value log: what expires at the sender expires at the same time here.
#[test]
fn keys_expire_when_they_would_have_at_the_sender() {
    let machine = SimMachine::from_seed(8);
    let now = machine.clock.wall_ms();
    let mut expiring = WriteBatch::new();
    let mut expected = sample();
    for (family, key, bytes, seconds) in [
        (DEFAULT, "key031x", 10, 60),
        (DEFAULT, "key032x", 400, 60),
        (DEFAULT, "key033x", 10, 90),
        (TXN_LOCK, "lock2", 5, 60),
        (TXN_WRITE, "w010x", 20, 0),
    ] {
        expiring.put_expiring(family, key, vec![1; bytes], now + 1000 * seconds);
        expected.insert((family, key.as_bytes().to_vec()), vec![1; bytes]);
    }
    expected.remove(&(TXN_WRITE, b"w010x".to_vec()));
    let (path, id) = snapshot_with(&machine, &sample(), expiring);
    for as_tables in [false, true] {
        let machine = SimMachine { fs: machine.fs.fork(Rng::new(1)), ..machine.restarted(Rng::new(2)) };
        let db = open(&machine, DATA);
        installer(&machine, &db).install(&path, id, as_tables).expect("installed");
        assert_eq!(db.stats().ingest.ingests, u64::from(as_tables));
        assert_eq!(contents_of(&db), expected, "as tables: {as_tables}");
        let wait = i64::try_from(now + 60_000 - machine.clock.wall_ms()).expect("it is now");
        machine.clock.set_wall_offset_ms(wait);
        let mut left = sample();
        left.insert((DEFAULT, b"key033x".to_vec()), vec![1; 10]);
        assert_eq!(contents_of(&db), left, "as tables: {as_tables}");
        db.compact().expect("written");
        assert_eq!(contents_of(&db), left, "as tables: {as_tables}");
        machine.clock.set_wall_offset_ms(0);
    }
}

/// After a crash at every operation of an install: a position that is there comes with the whole snapshot; ingested
/// data comes with everything that was committed before; and the next install completes it, without leaving files.
#[test]
fn an_install_that_is_cut_off_anywhere_is_repeated() {
    let source = SimMachine::from_seed(2);
    let (path, id) = snapshot_of(&source, &sample());
    let db = open(&source, DATA);
    put(&db, &old());
    db.close().expect("written");
    for ops in 0.. {
        let machine = SimMachine { fs: source.fs.fork(Rng::new(ops)), ..source.restarted(Rng::new(ops)) };
        let db = open(&machine, DATA);
        prepare(&db);
        machine.fs.power_off_after(ops);
        let finished = installer(&machine, &db).install(&path, id, true).is_ok() && db.flush().is_ok();
        drop(db);
        for mode in [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages] {
            let what = format!("power off at {ops}, {mode:?}");
            let after = SimMachine { fs: machine.fs.fork(Rng::new(ops)), ..machine.restarted(Rng::new(ops)) };
            after.fs.crash(mode);
            let db = try_open(&after, DATA).unwrap_or_else(|error| panic!("{what}: {error}"));
            let (found, position) = (contents_of(&db), applied(&db));
            assert!(position == Some(1) || !finished, "{what}: flushed");
            assert!(position.is_none() || found == sample(), "{what}: a position without its data");
            let is_new = |((family, key), value): (&(Family, Vec<u8>), &Vec<u8>)| {
                sample().get(&(*family, key.clone())) == Some(value)
            };
            let mark = db.get_in(META, MARK).expect("readable");
            assert!(mark.is_some() || !found.iter().any(is_new), "{what}: tables before what was committed earlier");
            let installer = installer(&after, &db);
            installer.remove_tables().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(tables_left(&after), [""; 0], "{what}");
            let again = installer.install(&path, id, ops % 3 > 0);
            again.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((contents_of(&db), applied(&db)), (sample(), Some(1)), "{what}");
            assert_eq!(tables_left(&after), [""; 0], "{what}");
        }
        if finished {
            assert!(ops > 60, "an install does more than {ops} operations");
            return;
        }
    }
}

/// An operation that fails does not leave a part of a snapshot that counts: the install reports the error, or has
/// continued without tables.
#[test]
fn an_operation_that_fails_is_reported_and_the_next_install_completes_it() {
    let source = SimMachine::from_seed(3);
    let (path, id) = snapshot_of(&source, &sample());
    for op in [Op::Read, Op::Write, Op::Sync, Op::Create, Op::Rename, Op::Link, Op::SyncDir, Op::Remove] {
        for nth in 0..12_u64 {
            let machine = SimMachine { fs: source.fs.fork(Rng::new(nth)), ..source.restarted(Rng::new(nth)) };
            let db = open(&machine, DATA);
            prepare(&db);
            let counter = std::sync::atomic::AtomicU64::new(0);
            machine.fs.fail_next(op, 1, move |_| counter.fetch_add(1, Ordering::Relaxed) == nth);
            let result = installer(&machine, &db).install(&path, id, true);
            machine.fs.clear_faults();
            let what = format!("{op:?} {nth}: {result:?}");
            assert_eq!(result.is_ok(), applied(&db) == Some(1), "{what}");
            assert!(result.is_err() || contents_of(&db) == sample(), "{what}");
            machine.fs.power_off();
            drop(db);
            machine.fs.crash(CrashMode::LoseUnsynced);
            let machine = machine.restarted(Rng::new(nth));
            let db = try_open(&machine, DATA).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(applied(&db).is_none() || contents_of(&db) == sample(), "{what}");
            let again = installer(&machine, &db).install(&path, id, true);
            again.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((contents_of(&db), applied(&db)), (sample(), Some(1)), "{what}");
            assert_eq!(tables_left(&machine), [""; 0], "{what}");
        }
    }
}

#[test]
fn without_space_for_tables_the_entries_are_written_one_by_one() {
    let machine = SimMachine::from_seed(4);
    let (path, id) = snapshot_of(&machine, &sample());
    let db = open(&machine, DATA);
    prepare(&db);
    machine.fs.set_quota(Some(machine.fs.used_bytes() + 100));
    let installed = installer(&machine, &db).install(&path, id, true).expect("the memtable takes it");
    assert_eq!(installed.table_bytes, 0);
    machine.fs.set_quota(None);
    assert_eq!((contents_of(&db), applied(&db)), (sample(), Some(1)));
    assert_eq!(tables_left(&machine), [""; 0]);
}

#[test]
fn an_installer_that_was_stopped_writes_nothing() {
    let machine = SimMachine::from_seed(5);
    let (path, id) = snapshot_of(&machine, &sample());
    let db = open(&machine, DATA);
    prepare(&db);
    let before = contents_of(&db);
    let installer = installer(&machine, &db);
    installer.stop();
    for as_tables in [false, true] {
        assert!(matches!(installer.install(&path, id, as_tables), Err(InstallError::Store(_))));
    }
    assert_eq!((contents_of(&db), applied(&db)), (before, None));
}

#[test]
fn tables_of_a_process_that_ended_are_removed() {
    let machine = SimMachine::from_seed(6);
    let (path, id) = snapshot_of(&machine, &sample());
    let db = open(&machine, DATA);
    let installer = installer(&machine, &db);
    installer.remove_tables().expect("there is no folder yet");
    let folder = Path::new(DATA).join(TABLES_DIRECTORY);
    machine.fs.create_dir_all(&folder).expect("written");
    for name in ["1.sst", "2.sst.tmp"] {
        machine.fs.open(&folder.join(name), OpenMode::CreateNew).expect("written");
    }
    installer.install(&path, id, true).expect("installed");
    assert_eq!((contents_of(&db), tables_left(&machine)), (sample(), vec![]));
}

fn any_contents(rng: &mut Rng) -> Contents {
    let mut contents = Contents::new();
    for _ in 0..rng.below(80) {
        let family = *rng.pick(&DATA_FAMILIES).expect("there are some");
        let mut key = vec![b'b' + rng.below(22) as u8];
        key.extend((0..rng.below(3)).map(|_| rng.below(256) as u8));
        let bytes = if rng.chance(1, 9) { 300 + rng.below(400) } else { rng.below(60) };
        contents.insert((family, key), (0..bytes).map(|_| rng.below(256) as u8).collect());
    }
    contents
}

#[test]
fn any_contents_replace_any_others() {
    for seed in 0..100 {
        let rng = &mut Rng::new(seed);
        let machine = SimMachine::from_seed(seed);
        let (new, old) = (any_contents(rng), any_contents(rng));
        let (path, id) = snapshot_of(&machine, &new);
        let db = open(&machine, DATA);
        put(&db, &old);
        if rng.chance(1, 2) {
            db.flush().expect("written");
        }
        let (family_bytes_min, table_bytes) = (rng.below(400), rng.below(2000));
        let sizes = SnapshotTables { file_bytes_min: 0, family_bytes_min, table_bytes };
        let installer = installer_with(&machine, &db, sizes);
        installer.install(&path, id, true).expect("installed");
        assert_eq!(contents_of(&db), new, "seed {seed}");
        db.compact().expect("written");
        assert_eq!((contents_of(&db), applied(&db)), (new, Some(1)), "seed {seed}");
        drop((installer, db));
        let report = kontiki_engine::inspect::check(&machine.env(), Path::new(DATA)).expect("readable");
        assert_eq!(report.problems, [], "seed {seed}");
    }
}
