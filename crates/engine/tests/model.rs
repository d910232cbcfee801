//! The whole database against a model, through its public API.
//!
//! A script of random operations is drawn from a seed, independently of the options; every read is compared with the
//! model, and the history of all reads must be the same under every set of options. With power losses, what is
//! recovered must be the state after some number of commits, at least all those that were to survive.

use bytes::Bytes;
use kontiki_engine::CompactionOptions;
use kontiki_engine::inspect::check;
use kontiki_engine::{Compression, TableOptions};
use kontiki_engine::{
    Db, Direction, Durability, Entries, Error, Family, FamilySpec, Options, Range, Result, Snapshot, View, WriteBatch,
};
use kontiki_env::SimMachine;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Tasks;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

const DIR: &str = "/db";
const FAMILIES: [Family; 3] = [Family::DEFAULT, Family(1), Family(40)];
/// In each batch: the number of the commit, so that a recovered database shows how far it got.
const COUNTER: &[u8] = b"\xffcounter";

type Rows = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

fn options(set: usize) -> Options {
    let tiny = Options {
        memtable_bytes: 4 << 10,
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        group_bytes_max: 4 << 10,
        cache_bytes: 0,
        table_cache_bytes: 1 << 20,
        open_tables_max: 16,
        table: TableOptions {
            block_bytes: 64,
            filter_bits_per_key: 10,
            compression: Compression::Lz4,
            ..TableOptions::default()
        },
        compaction: CompactionOptions {
            level0_tables: 2,
            level1_bytes: 4000,
            level_factor: 2,
            table_bytes: 1500,
            ..CompactionOptions::default()
        },
        ..Options::default()
    };
    let options = match set {
        0 => tiny,
        1 => Options::default(),
        2 => Options {
            memtable_bytes: 16 << 10,
            log_segment_bytes: 16 << 10,
            log_bytes_max: 1 << 20,
            cache_bytes: 10_000,
            table: TableOptions {
                block_bytes: 1 << 10,
                filter_bits_per_key: 0,
                compression: Compression::None,
                ..TableOptions::default()
            },
            compaction: CompactionOptions {
                level0_tables: 8,
                level1_bytes: 20_000,
                level_factor: 4,
                table_bytes: 9000,
                ..CompactionOptions::default()
            },
            ..tiny
        },
        3 => Options {
            memtables_max: 2,
            level0_tables_max: 4,
            cache_bytes: 1 << 20,
            table: TableOptions { block_bytes: 1, ..TableOptions::default() },
            ..tiny
        },
        _ => unreachable!("there are {OPTION_SETS} sets"),
    };
    let families = FAMILIES[1..].iter().map(|&family| FamilySpec::new(family, format!("f{}", family.0))).collect();
    Options { families, ..options }
}

const OPTION_SETS: usize = 4;

struct World {
    machine: SimMachine,
    options: Options,
    db: Option<Db>,
    /// `states[i]`: after `i` commits.
    states: Vec<Rc<Rows>>,
    /// That many commits must survive a power loss.
    durable: usize,
    snapshots: Vec<(Snapshot, Rc<Rows>)>,
    /// What reads returned, each folded into a number.
    history: Vec<u64>,
    restarts: u64,
}

impl World {
    fn new(seed: u64, options: Options) -> World {
        let machine = SimMachine::from_seed(seed);
        let mut world = World {
            machine,
            options,
            db: None,
            states: vec![Rc::default()],
            durable: 0,
            snapshots: Vec::new(),
            history: Vec::new(),
            restarts: 0,
        };
        world.open().expect("a healthy disk");
        world
    }

    fn open(&mut self) -> Result<()> {
        self.snapshots.clear();
        self.restarts += 1;
        self.machine = self.machine.restarted(Rng::new(self.restarts));
        self.db = Some(Db::open_in(&self.machine.env(), Path::new(DIR), self.options.clone())?);
        Ok(())
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn now(&self) -> Rc<Rows> {
        self.states.last().expect("there is a first state").clone()
    }

    fn write(&mut self, rng: &mut Rng) -> Result<()> {
        let (mut batch, mut rows) = random_batch(rng, &self.now());
        let number = self.states.len().to_string().into_bytes();
        batch.put(FAMILIES[0], COUNTER, &number);
        rows.insert((FAMILIES[0], COUNTER.to_vec()), number);
        let durability = if rng.chance(1, 3) { Durability::Sync } else { Durability::Buffered };
        // Recorded first: a commit that fails in the middle of a power loss may survive all the same.
        self.states.push(Rc::new(rows));
        match self.db().write(batch, durability) {
            Ok(_) => {}
            Err(error) => {
                if matches!(error, Error::NoSpace { .. } | Error::Stopped(_)) {
                    self.states.pop();
                }
                return Err(error);
            }
        }
        if durability == Durability::Sync {
            self.durable = self.states.len() - 1;
        }
        Ok(())
    }

    /// One random operation that changes no data.
    fn look(&mut self, rng: &mut Rng) -> Result<()> {
        match rng.below(5) {
            0 => {
                let family = *rng.pick(&FAMILIES).expect("not empty");
                let key = random_key(rng);
                let found = self.db().snapshot().get_in(family, &key)?;
                let now = self.now();
                assert_eq!(found.as_deref(), now.get(&(family, key.clone())).map(Vec::as_slice), "{family:?} {key:?}");
                if family == Family::DEFAULT {
                    assert_eq!(self.db().get(&key)?, found);
                }
                self.note(found.as_deref().unwrap_or(b"none"));
            }
            1 | 2 => {
                let snapshot = self.db().snapshot();
                let now = self.now();
                self.check_scan(&snapshot, &now, rng)?;
            }
            3 => {
                if let Some((snapshot, rows)) = rng.pick(&self.snapshots).cloned() {
                    self.check_scan(&snapshot, &rows, rng)?;
                }
            }
            _ => {
                if self.snapshots.len() < 5 {
                    self.snapshots.push((self.db().snapshot(), self.now()));
                } else {
                    let at = rng.below(self.snapshots.len() as u64) as usize;
                    self.snapshots.swap_remove(at);
                }
            }
        }
        Ok(())
    }

    /// A bounded scan with seeks in it.
    fn check_scan(&mut self, view: &dyn View, rows: &Rows, rng: &mut Rng) -> Result<()> {
        let family = *rng.pick(&FAMILIES).expect("not empty");
        let direction = if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward };
        let mut bounds = [random_key(rng), random_key(rng)].map(Bytes::from);
        bounds.sort();
        let [start, end] = bounds;
        let range = Range { start: rng.chance(1, 2).then_some(start), end: rng.chance(1, 2).then_some(end) };
        let inside = |key: &[u8]| {
            range.start.as_ref().is_none_or(|start| key >= start) && range.end.as_ref().is_none_or(|end| key < end)
        };
        let mut expected: Vec<(&[u8], &[u8])> = rows
            .iter()
            .filter(|((of, key), _)| *of == family && inside(key))
            .map(|((_, key), value)| (key.as_slice(), value.as_slice()))
            .collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        let mut entries = view.entries(family, range.clone(), direction)?;
        self.check_entries(&mut *entries, &expected, usize::MAX)?;
        for _ in 0..2 {
            let target = random_key(rng);
            entries.seek(&target)?;
            let first = expected.iter().position(|(key, _)| match direction {
                Direction::Forward => *key >= target.as_slice(),
                Direction::Backward => *key <= target.as_slice(),
            });
            let rest = expected.get(first.unwrap_or(expected.len())..).unwrap_or_default();
            self.check_entries(&mut *entries, rest, 5)?;
        }
        Ok(())
    }

    fn check_entries(&mut self, entries: &mut dyn Entries, expected: &[(&[u8], &[u8])], limit: usize) -> Result<()> {
        for at in 0..limit {
            let found = entries.next().transpose()?;
            let found = found.as_ref().map(|(key, value)| (&key[..], &value[..]));
            assert_eq!(found, expected.get(at).copied());
            let Some((key, value)) = found else { break };
            self.note(key);
            self.note(value);
        }
        Ok(())
    }

    fn note(&mut self, bytes: &[u8]) {
        self.history.push(kontiki_env::codec::hash64(bytes));
    }

    fn maintain(&mut self, rng: &mut Rng) -> Result<()> {
        match rng.below(12) {
            0 => self.flush(),
            1 => self.db().compact(),
            _ => {
                let mut steps = rng.below(10);
                while steps > 0 && self.machine.tasks.step() {
                    steps -= 1;
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.db().flush()?;
        self.durable = self.states.len() - 1;
        Ok(())
    }

    fn close_and_reopen(&mut self) {
        self.snapshots.clear();
        self.db.take().expect("open").close().expect("a healthy disk");
        self.open().expect("a healthy disk");
    }

    fn kill_and_reopen(&mut self) {
        self.machine.fs.crash(CrashMode::Kill);
        self.db = None;
        self.open().expect("a killed process loses nothing");
    }

    /// Takes the power away and checks what is left; the model continues from there.
    fn lose_power_and_reopen(&mut self, mode: CrashMode, what: &str) {
        self.machine.fs.crash(mode);
        self.db = None;
        self.open().unwrap_or_else(|error| panic!("{what}: {error}"));
        let counter = self.db().get(COUNTER).expect("a healthy disk");
        let count: usize =
            counter.map_or(0, |text| String::from_utf8_lossy(&text).parse().expect("numbers were written"));
        let (least, most) = (self.durable, self.states.len() - 1);
        assert!((least..=most).contains(&count), "{what}: {count} commits are left of {least} to {most}");
        self.states.truncate(count + 1);
        // What was recovered is durable.
        self.durable = count;
        let found = dump(&self.db().snapshot()).expect("a healthy disk");
        assert_eq!(found, *self.now(), "{what}: the state after {count} commits");
    }

    fn check_directory(&mut self) {
        self.snapshots.clear();
        self.db.take().expect("open").close().expect("a healthy disk");
        let report = check(&self.machine.env(), Path::new(DIR)).expect("readable");
        assert!(report.is_sound(), "{:?}", report.problems);
        self.open().expect("a healthy disk");
    }
}

fn dump(view: &dyn View) -> Result<Rows> {
    let mut rows = Rows::new();
    for family in FAMILIES {
        let mut entries = view.entries(family, Range::all(), Direction::Backward)?;
        while let Some((key, value)) = entries.next().transpose()? {
            rows.insert((family, key.to_vec()), value.to_vec());
        }
    }
    Ok(rows)
}

fn random_key(rng: &mut Rng) -> Vec<u8> {
    let number = rng.below(300);
    let mut key = format!("{:0width$}", number, width = (number % 4 + 1) as usize).into_bytes();
    if number.is_multiple_of(5) {
        key.extend_from_slice(&[0, 0xff]);
    }
    if number == 1 { Vec::new() } else { key }
}

fn random_batch(rng: &mut Rng, rows: &Rows) -> (WriteBatch, Rows) {
    let (mut batch, mut rows) = (WriteBatch::new(), rows.clone());
    for _ in 0..rng.range(1..7) {
        let family = *rng.pick(&FAMILIES).expect("not empty");
        let key = random_key(rng);
        if rng.chance(1, 4) {
            batch.delete(family, &key);
            rows.remove(&(family, key));
        } else {
            let length = if rng.chance(1, 50) { 5000 } else { rng.below(120) };
            let value: Vec<u8> = (0..length).map(|_| (rng.next_u64() as u8) >> (rng.below(2) * 4)).collect();
            batch.put(family, &key, &value);
            rows.insert((family, key), value);
        }
    }
    (batch, rows)
}

/// A run without power losses; returns its history.
fn play(seed: u64, options: Options, steps: u64) -> Vec<u64> {
    let mut world = World::new(seed, options);
    let mut rng = Rng::new(seed).child("script");
    for _ in 0..steps {
        // Each step has a separate generator, so that a set of options cannot shift the script.
        let mut step = Rng::new(rng.next_u64());
        let done = match rng.below(100) {
            0..70 => world.write(&mut step),
            70..90 => world.look(&mut step),
            90..98 => world.maintain(&mut step),
            98 => {
                if step.chance(1, 2) {
                    world.close_and_reopen()
                } else {
                    world.kill_and_reopen()
                }
                Ok(())
            }
            _ => {
                world.check_directory();
                Ok(())
            }
        };
        done.expect("a healthy disk");
    }
    assert_eq!(dump(&world.db().snapshot()).expect("a healthy disk"), *world.now());
    world.history
}

#[test]
fn every_set_of_options_gives_the_same_history() {
    for seed in 0..3 {
        let histories: Vec<_> = (0..OPTION_SETS).map(|set| play(seed, options(set), 900)).collect();
        assert!(histories[0].len() > 1000);
        for (set, history) in histories.iter().enumerate() {
            assert!(*history == histories[0], "seed {seed}: options {set} differ from options 0");
        }
    }
}

#[test]
fn power_losses_leave_a_state_that_once_was_with_all_that_had_to_survive() {
    let modes =
        [CrashMode::LoseUnsynced, CrashMode::KeepUnsynced, CrashMode::Prefix, CrashMode::Pages, CrashMode::Random];
    for seed in 0..24u64 {
        let mut world = World::new(seed, options(if seed % 4 == 1 { 2 } else { (seed % 4) as usize }));
        let mut rng = Rng::new(seed).child("script");
        for round in 0..6 {
            // Somewhere within the next few hundred operations of the disk.
            world.machine.fs.power_off_after(rng.below(400));
            let mut steps = 0;
            while steps < 400 && !world.machine.fs.is_off() {
                steps += 1;
                let done = match rng.below(100) {
                    0..75 => world.write(&mut rng),
                    75..85 => world.look(&mut rng),
                    _ => world.maintain(&mut rng),
                };
                if done.is_err() {
                    break;
                }
            }
            let mode = *rng.pick(&modes).expect("not empty");
            world.lose_power_and_reopen(mode, &format!("seed {seed}, round {round}, {mode:?}, {steps} steps"));
        }
        world.check_directory();
    }
}

#[test]
fn a_full_disk_stops_writes_only_while_it_is_full() {
    for seed in 0..8u64 {
        let mut world = World::new(seed, options((seed % 4) as usize));
        let mut rng = Rng::new(seed).child("script");
        let mut refused = 0;
        for _ in 0..5 {
            let fs = world.machine.fs.clone();
            fs.set_quota(Some(fs.used_bytes() + rng.below(30_000)));
            for _ in 0..150 {
                let done = match rng.below(100) {
                    0..80 => world.write(&mut rng),
                    80..95 => {
                        world.look(&mut rng).expect("reads go on");
                        Ok(())
                    }
                    _ => world.maintain(&mut rng),
                };
                if let Err(error) = done {
                    assert!(error.is_retryable(), "seed {seed}: {error}");
                    refused += 1;
                }
            }
            fs.set_quota(None);
            // The first write may meet what background work last said; it wakes it.
            let mut tries = 0;
            while let Err(error) = world.write(&mut rng) {
                assert!(error.is_retryable() && tries < 3, "seed {seed}: there is space again, but: {error}");
                tries += 1;
                world.machine.tasks.run_until_idle(1000);
            }
            world.flush().expect("there is space again");
            assert_eq!(dump(&world.db().snapshot()).expect("a healthy disk"), *world.now());
        }
        // The default options preallocate far more than the script writes.
        assert!(refused > 0 || seed % 4 == 1, "seed {seed} never filled the disk");
        world.lose_power_and_reopen(CrashMode::LoseUnsynced, "after the disk was full");
        world.check_directory();
    }
}

/// On the real machine with real threads: batches over two families stay whole in every snapshot while memtables
/// turn over, tables are merged and files removed.
#[test]
fn snapshots_see_whole_batches_under_concurrent_writes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(directory.path(), options(0)).expect("opens");
    const WRITERS: u8 = 3;
    const ROUNDS: u32 = 400;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let db = db.clone();
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    let mut batch = WriteBatch::new();
                    for family in FAMILIES {
                        let value = [round.to_be_bytes().as_slice(), &[writer; 60]].concat();
                        batch.put(family, [writer], &value);
                    }
                    let durability = if round % 16 == 0 { Durability::Sync } else { Durability::Buffered };
                    db.write(batch, durability).expect("a healthy disk");
                    if round % 100 == 0 {
                        db.compact().expect("a healthy disk");
                    }
                }
            });
        }
        let reader = db.clone();
        scope.spawn(move || {
            let mut last = [0u32; WRITERS as usize];
            while last != [ROUNDS; WRITERS as usize] {
                let snapshot = reader.snapshot();
                for writer in 0..WRITERS {
                    let rounds = FAMILIES.map(|family| round_of(&snapshot, family, writer));
                    assert_eq!(rounds, [rounds[0]; 3], "a batch is visible in part");
                    assert!(rounds[0] >= last[usize::from(writer)], "a snapshot went back");
                    last[usize::from(writer)] = rounds[0];
                }
                let mut entries =
                    snapshot.entries(FAMILIES[1], Range::all(), Direction::Backward).expect("a known family");
                let mut count = 0;
                while entries.next().transpose().expect("readable").is_some() {
                    count += 1;
                }
                assert!(count <= usize::from(WRITERS));
            }
        });
    });
    let stats = db.stats();
    assert!(stats.memtables.flushes > 3 && stats.compaction.count > 3, "{stats:?}");
    db.close().expect("a healthy disk");
    let report = check(&kontiki_env::Env::real(), directory.path()).expect("readable");
    assert!(report.is_sound(), "{:?}", report.problems);
    let db = Db::open(directory.path(), options(2)).expect("reopens with other options");
    let snapshot = db.snapshot();
    assert!((0..WRITERS).all(|writer| round_of(&snapshot, FAMILIES[2], writer) == ROUNDS));
}

fn round_of(view: &dyn View, family: Family, writer: u8) -> u32 {
    let value = view.get(family, &[writer]).expect("readable");
    value.map_or(0, |value| u32::from_be_bytes(*value.first_chunk().expect("a round")))
}
