//! Installs one snapshot key by key and as tables, in turns, into new databases (docs/benchmarks.md). Every entry is
//! compared afterwards.
//!
//! ```text
//! cargo run --release -p kontiki-server --example install_snapshot -- DIR MIB VALUE_BYTES ROUNDS [over]
//! ```
//!
//! With `over`, the region has older values of the same keys, flushed, before the install.
//!
//! Times: *install* until the data is visible; *flushed* until the file is not needed; *compacted* until all tables are
//! in the last level, which shows what an install leaves to compactions. *Written* is what the process has written to
//! files until then, and *processor* the time of all its threads. *Disk* is the time to read the file and to write and
//! sync as many bytes, without an engine.

use kontiki_engine::{Db, Direction, Family, Options, Range, View, WriteBatch};
use kontiki_env::Env;
use kontiki_env::fs::{OpenMode, read_all};
use kontiki_raftstore::snapshot::{Content, FileId, SnapshotId, write};
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, SnapshotTables, Space, Store, StoreId, StoreIdentity};
use kontiki_server::driver::Installer;
use kontiki_server::families::{FAMILIES, served_families};
use kontiki_state::{BuiltIn, StateEngine};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

const REGION: RegionId = RegionId(3);
const BATCH: u64 = 1_000;

fn key(number: u64) -> Vec<u8> {
    format!("k{number:015x}").into_bytes()
}

/// Half of it cannot be compressed.
fn value(number: u64, version: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version;
    let mut value = vec![b'x'; bytes];
    for byte in &mut value[..bytes / 2] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    value
}

fn options() -> Options {
    Options { families: served_families(), memtable_bytes: 64 << 20, ..Options::default() }
}

fn fill(db: &Db, count: u64, version: u64, value_bytes: usize) -> Outcome<()> {
    for first in (0..count).step_by(BATCH as usize) {
        let mut batch = WriteBatch::new();
        for number in first..count.min(first + BATCH) {
            batch.put(Family::DEFAULT, key(number), value(number, version, value_bytes));
        }
        db.write(batch, kontiki_engine::Durability::Buffered)?;
    }
    Ok(db.flush()?)
}

fn region() -> Region {
    Region {
        id: REGION,
        start_key: Default::default(),
        end_key: (&b"l"[..]).into(),
        epoch: Epoch { conf_version: 1, version: 2 },
        peers: vec![Peer { id: PeerId(31), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

/// The snapshot's file of a region with `count` entries.
fn make_file(env: &Env, dir: &Path, count: u64, value_bytes: usize) -> Outcome<(PathBuf, SnapshotId, u64)> {
    let source = tempfile::tempdir_in(dir)?;
    let db = Db::open(source.path(), options())?;
    db.commit(Store::bootstrap(&FAMILIES, &StoreIdentity { cluster: 7, store: StoreId(1) }, &[region()]))?;
    fill(&db, count, 1, value_bytes)?;
    let view = db.snapshot();
    let path = dir.join("file.snap");
    let file = env.fs.open(&path, OpenMode::CreateNew)?;
    let mut at = 0;
    let written = write(&FAMILIES, &view, REGION, Content::default(), &mut |part| {
        file.write_at(part, at)?;
        at += part.len() as u64;
        Ok(())
    })?;
    file.sync()?;
    db.close()?;
    assert_eq!(FileId { snapshot: written.id, number: 0 }, written.name());
    Ok((path, written.id, written.bytes))
}

/// A file of the system about this process. It has no length, so it is read in one call.
fn about_process(env: &Env, name: &str) -> Outcome<String> {
    let mut bytes = vec![0; 4096];
    let count = env.fs.open(&Path::new("/proc/self").join(name), OpenMode::Read)?.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Bytes that this process has written to files.
fn written_bytes(env: &Env) -> Outcome<u64> {
    let text = about_process(env, "io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("no wchar")?;
    Ok(line.trim().parse()?)
}

/// Processor time of all threads, in seconds: the 14th and 15th field, in hundredths.
fn processor_seconds(env: &Env) -> Outcome<f64> {
    let text = about_process(env, "stat")?;
    let (_, fields) = text.rsplit_once(')').ok_or("no name")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn expect_contents(db: &Db, count: u64, value_bytes: usize) -> Outcome<()> {
    let mut found = 0;
    for entry in db.snapshot().entries(Family::DEFAULT, Range::all(), Direction::Forward)? {
        let (found_key, found_value) = entry?;
        assert!(found_key == key(found) && found_value == value(found, 1, value_bytes), "a wrong entry {found}");
        found += 1;
    }
    assert_eq!(found, count, "every entry is there");
    Ok(())
}

struct Figures {
    install: Duration,
    flushed: Duration,
    compacted: Duration,
    written: u64,
    /// Of the processor, until then.
    processor: f64,
}

struct Work<'a> {
    dir: &'a Path,
    file: &'a Path,
    id: SnapshotId,
    count: u64,
    value_bytes: usize,
    over: bool,
}

fn measure(env: &Env, work: &Work<'_>, as_tables: bool) -> Outcome<Figures> {
    let target = tempfile::tempdir_in(work.dir)?;
    let db = Db::open(target.path(), options())?;
    if work.over {
        fill(&db, work.count, 0, work.value_bytes)?;
    }
    let state: Arc<dyn StateEngine> = Arc::new(BuiltIn::new(db.clone(), env, options().table));
    let installer = Installer::new(env, target.path(), &state, SnapshotTables::default());
    let (began, before, busy) = (env.clock.monotonic(), written_bytes(env)?, processor_seconds(env)?);
    let passed = || env.clock.monotonic() - began;
    let installed = installer.install(work.file, work.id, as_tables)?;
    assert_eq!(installed.table_bytes > 0, as_tables);
    let install = passed();
    db.flush()?;
    let flushed = passed();
    db.compact()?;
    let (compacted, written, processor) = (passed(), written_bytes(env)? - before, processor_seconds(env)? - busy);
    expect_contents(&db, work.count, work.value_bytes)?;
    db.close()?;
    Ok(Figures { install, flushed, compacted, written, processor })
}

/// Reads the file, and writes its bytes to another one.
fn bare_disk(env: &Env, work: &Work<'_>) -> Outcome<Duration> {
    let target = tempfile::tempdir_in(work.dir)?;
    let began = env.clock.monotonic();
    let bytes = read_all(&*env.fs, work.file)?;
    let file = env.fs.open(&target.path().join("copy"), OpenMode::CreateNew)?;
    for (number, part) in bytes.chunks(1 << 20).enumerate() {
        file.write_at(part, (number as u64) << 20)?;
    }
    file.sync()?;
    Ok(env.clock.monotonic() - began)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, mib, value_bytes, rounds, rest @ ..] = arguments.as_slice() else {
        return Err("usage: install_snapshot DIR MIB VALUE_BYTES ROUNDS [over]".into());
    };
    let (mib, value_bytes, rounds): (u64, usize, u64) = (mib.parse()?, value_bytes.parse()?, rounds.parse()?);
    let env = Env::real();
    let dir = tempfile::tempdir_in(dir)?;
    let count = (mib << 20) / (key(0).len() + value_bytes) as u64;
    let (file, id, bytes) = make_file(&env, dir.path(), count, value_bytes)?;
    let over = rest.iter().any(|word| word == "over");
    let work = Work { dir: dir.path(), file: &file, id, count, value_bytes, over };
    println!("{count} entries, values of {value_bytes} bytes, a file of {} MiB", bytes >> 20);
    for round in 0..rounds {
        println!("disk: {:.2} s", bare_disk(&env, &work)?.as_secs_f64());
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for as_tables in order {
            let Figures { install, flushed, compacted, written, processor } = measure(&env, &work, as_tables)?;
            println!(
                "{}: install {:.2} s, flushed {:.2} s, compacted {:.2} s, processor {processor:.2} s, written {} MiB",
                if as_tables { "tables" } else { "keys  " },
                install.as_secs_f64(),
                flushed.as_secs_f64(),
                compacted.as_secs_f64(),
                written >> 20
            );
        }
    }
    Ok(())
}
