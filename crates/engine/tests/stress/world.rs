//! The database under stress, and what is always true of it.

use kontiki_engine::inspect::check;
use kontiki_engine::{
    Db, Direction, Family, FamilySpec, IngestOptions, IngestWriter, Options, Range, Snapshot, View, WriteBatch,
};
use kontiki_env::Env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Between these money is transferred; each begins with [`BALANCE`].
pub const ACCOUNTS: u64 = 12;
const BALANCE: u64 = 1_000;
/// Keys that an ingest sets to one generation.
pub const GENERATION_KEYS: u64 = 8;
/// What a transaction has read of the generation.
pub const ECHO: &[u8] = b"echo";

pub fn account(number: u64) -> Vec<u8> {
    format!("account/{number:02}").into_bytes()
}

fn generation_key(number: u64) -> Vec<u8> {
    format!("generation/{number:02}").into_bytes()
}

pub fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(*value.first_chunk().expect("eight bytes"))
}

fn options() -> Options {
    let mut default = FamilySpec::new(Family::DEFAULT, "default");
    default.options.value_threshold_bytes = 256;
    let mut options = Options {
        families: vec![default],
        memtable_bytes: 32 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 512 << 10,
        value_segment_bytes: 64 << 10,
        feed_retention_bytes: 256 << 10,
        cache_bytes: 64 << 10,
        sync_value_bytes_max: 128,
        ..Options::default()
    };
    options.compaction.level0_tables = 2;
    options.compaction.level1_bytes = 64 << 10;
    options.compaction.table_bytes = 16 << 10;
    options
}

#[derive(Clone)]
pub struct World {
    pub db: Db,
    pub dir: PathBuf,
    pub round: u64,
    /// The last generation that an ingest was begun for.
    pub generation: Arc<AtomicU64>,
}

impl World {
    pub fn open(dir: &Path, round: u64) -> World {
        let db = Db::open(dir.join("db"), options()).expect("opens");
        let generation = db.get(generation_key(0)).expect("readable").map_or(0, |value| number(&value));
        let world = World { db, dir: dir.to_path_buf(), round, generation: Arc::new(AtomicU64::new(generation)) };
        if world.db.get(account(0)).expect("readable").is_none() {
            let mut batch = WriteBatch::new();
            for i in 0..ACCOUNTS {
                batch.put(Family::DEFAULT, account(i), BALANCE.to_le_bytes());
            }
            world.db.write(batch, kontiki_engine::Durability::Sync).expect("healthy");
        }
        world
    }

    /// Builds the table of the next generation and takes it in.
    pub fn ingest_generation(&self, move_file: bool) -> kontiki_engine::Result<()> {
        let generation = self.generation.fetch_add(1, SeqCst) + 1;
        let path = self.dir.join(format!("generation-{generation}.sst"));
        let mut writer = IngestWriter::create(&path, Family::DEFAULT, options().table)?;
        for key in 0..GENERATION_KEYS {
            writer.put(generation_key(key), generation.to_le_bytes())?;
        }
        writer.finish()?;
        let outcome = self.db.ingest(std::slice::from_ref(&path), IngestOptions { move_file });
        let _ = std::fs::remove_file(&path);
        outcome.map(drop)
    }

    pub fn check(&self, what: &str) {
        check_snapshot(&self.db.snapshot(), what).expect("readable");
    }

    /// Closes it and reads every file.
    pub fn check_files(self, dir: &Path) {
        self.check("what is left");
        self.db.close().expect("healthy");
        let report = check(&Env::real(), &dir.join("db")).expect("readable");
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

/// What is true of every moment.
pub fn check_snapshot(snapshot: &Snapshot, what: &str) -> kontiki_engine::Result<()> {
    let range = Range { start: Some(account(0).into()), end: Some(account(ACCOUNTS).into()) };
    let mut entries = snapshot.entries(Family::DEFAULT, range, Direction::Forward)?;
    let (mut count, mut sum) = (0, 0);
    while let Some((_, value)) = entries.next().transpose()? {
        count += 1;
        sum += number(&value);
    }
    assert_eq!((count, sum), (ACCOUNTS, ACCOUNTS * BALANCE), "{what}: the sum is constant");
    let mut generations = Vec::new();
    for key in 0..GENERATION_KEYS {
        generations.push(snapshot.get_in(Family::DEFAULT, generation_key(key))?.map(|value| number(&value)));
    }
    assert!(generations.windows(2).all(|pair| pair[0] == pair[1]), "{what}: an ingest is there whole: {generations:?}");
    let echo = snapshot.get_in(Family::DEFAULT, ECHO)?.map(|value| number(&value));
    assert!(echo <= generations[0], "{what}: {echo:?} was read when {:?} was not there", generations[0]);
    Ok(())
}

/// One thread.
#[derive(Clone)]
pub struct Worker {
    pub world: World,
    state: Arc<State>,
}

struct State {
    name: &'static str,
    steps: AtomicU64,
    ended: AtomicBool,
}

impl Worker {
    pub fn new(world: &World, name: &'static str) -> Worker {
        let state = State { name, steps: AtomicU64::new(0), ended: AtomicBool::new(false) };
        Worker { world: world.clone(), state: Arc::new(state) }
    }

    pub fn name(&self) -> &'static str {
        self.state.name
    }

    pub fn steps(&self) -> u64 {
        self.state.steps.load(SeqCst)
    }

    pub fn has_ended(&self) -> bool {
        self.state.ended.load(SeqCst)
    }

    /// Does it again and again, with a number that counts up, until the database is closed.
    pub fn repeat(&self, step: impl Fn(&World, u64) -> kontiki_engine::Result<()>) {
        for turn in 0.. {
            match step(&self.world, turn) {
                Ok(()) => _ = self.state.steps.fetch_add(1, SeqCst),
                Err(kontiki_engine::Error::Closed) => break,
                Err(error) => panic!("{}, step {turn}: {error}", self.name()),
            }
        }
        self.state.ended.store(true, SeqCst);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at step {}{}", self.name(), self.steps(), if self.has_ended() { ", ended" } else { "" })
    }
}
