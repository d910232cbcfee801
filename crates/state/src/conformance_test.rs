//! One suite for every engine, against a model: what is written and read, in every view; what a killed process leaves.
//!
//! A check answers what it has found wrong, so that planted bugs ([`crate::planted`]) can be looked for.

use crate::planted::{self, Bug};
use crate::{BuiltIn, StateEngine};
use kontiki_engine::{BatchOp, Direction, Durability, Family, FamilySpec, Options, Range, View, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs};
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Tasks;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod crashes;
mod reads;
mod tables;

const META: Family = Family::NODE_STATE[0];
const OTHER: Family = Family(7);
const FAMILIES: [Family; 3] = [Family::DEFAULT, META, OTHER];

type Found = Result<(), String>;

/// A value, and when it ends.
type Held = (Vec<u8>, Option<u64>);

/// What families should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<(Family, Vec<u8>), Held>);

impl Model {
    fn apply(&mut self, batch: &WriteBatch) {
        for op in batch.ops() {
            match op {
                BatchOp::Put { family, key, value } => {
                    self.0.insert((family, key.to_vec()), (value.to_vec(), None));
                }
                BatchOp::PutExpiring { family, key, value, expires_at_ms } => {
                    self.0.insert((family, key.to_vec()), (value.to_vec(), Some(expires_at_ms)));
                }
                BatchOp::Delete { family, key } => drop(self.0.remove(&(family, key.to_vec()))),
                BatchOp::DeleteRange { family, start, end } => {
                    let range = Range::region(start, end);
                    self.0.retain(|(of, key), _| *of != family || !range.contains(key));
                }
            }
        }
    }

    /// What a reader finds of a range: entries that have ended are not there.
    fn read(&self, family: Family, range: &Range) -> Vec<(Vec<u8>, Vec<u8>, Option<u64>)> {
        let is_live = |end: Option<u64>| end != Some(ENDED_MS);
        let of = self.0.iter().filter(|((of, key), (_, end))| *of == family && range.contains(key) && is_live(*end));
        of.map(|((_, key), (value, end))| (key.clone(), value.clone(), *end)).collect()
    }
}

/// A time that is past on every clock, and one that no clock of a test reaches.
const ENDED_MS: u64 = 1;
const LATER_MS: u64 = 1 << 60;

/// Opens an engine on a machine.
type Open = fn(&SimMachine) -> Arc<dyn StateEngine>;

/// Every engine.
const ENGINES: [Open; 1] = [|machine| {
    let opened = BuiltIn::open(&machine.env(), Path::new("/data"), options());
    Arc::new(opened.expect("it opens"))
}];

/// An engine, while its process runs.
struct Node {
    open: Open,
    machine: SimMachine,
    up: Option<Arc<dyn StateEngine>>,
    starts: u64,
}

fn options() -> Options {
    let families = [(Family::DEFAULT, "default"), (META, "kontiki.meta"), (OTHER, "other")];
    Options {
        families: families.map(|(family, name)| FamilySpec::new(family, name)).to_vec(),
        memtable_bytes: 16 << 10,
        log_segment_bytes: 16 << 10,
        log_bytes_max: 256 << 10,
        ..Options::default()
    }
}

impl Node {
    fn new(open: Open, seed: u64) -> Node {
        let mut node = Node { open, machine: SimMachine::from_seed(seed), up: None, starts: seed };
        node.start();
        node
    }

    fn start(&mut self) {
        self.starts += 1;
        self.machine = self.machine.restarted(Rng::new(self.starts));
        self.up = Some((self.open)(&self.machine));
    }

    fn engine(&self) -> &dyn StateEngine {
        &**self.up.as_ref().expect("it is up")
    }

    /// The process is killed, or, every other time, the machine loses its power.
    fn kill(&mut self) {
        let power = self.starts.is_multiple_of(2);
        if power {
            self.machine.fs.power_off();
        }
        // No engine flushes when it is dropped.
        self.up = None;
        self.machine.fs.crash(if power { CrashMode::LoseUnsynced } else { CrashMode::Kill });
    }

    fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// An empty folder.
    fn folder(&self) -> PathBuf {
        let folder = PathBuf::from("/data/tables-beside");
        self.machine.fs.create_dir_all(&folder).expect("made");
        folder
    }

    /// Submits, and waits for the answer.
    fn submit(&self, batch: WriteBatch, durability: Durability) -> kontiki_engine::Result<()> {
        let answer: Arc<Mutex<Option<kontiki_engine::Result<()>>>> = Arc::default();
        let given = answer.clone();
        let done = move |result| assert!(given.lock().replace(result).is_none(), "a commit is answered once");
        self.engine().submit(batch, durability, Box::new(done));
        self.wait(|| answer.lock().is_some());
        let result = answer.lock().take();
        result.expect("just seen")
    }

    /// Does what other threads do on a real machine.
    fn wait(&self, is_done: impl Fn() -> bool) {
        while !is_done() {
            assert!(self.machine.tasks.step(), "a commit that nothing answers");
        }
    }
}

/// Compares a view with the model: all of it, and parts, in both directions, and each key.
fn compare(view: &dyn View, model: &Model, rng: &mut Rng) -> Found {
    for family in FAMILIES {
        let mut ranges = vec![Range::all()];
        ranges.extend((0..2).map(|_| draw_range(rng)));
        for range in ranges {
            let expected = model.read(family, &range);
            for direction in [Direction::Forward, Direction::Backward] {
                let mut found = read(view, family, &range, direction);
                if direction == Direction::Backward {
                    found.reverse();
                }
                if found != expected {
                    return Err(format!("{family:?} {range:?} {direction:?}: {found:?}, not {expected:?}"));
                }
            }
        }
        for key in (0..KEYS).map(key) {
            let expected = model.0.get(&(family, key.clone())).filter(|(_, end)| *end != Some(ENDED_MS));
            let found = view.get(family, &key).expect("readable");
            if found.as_deref() != expected.map(|(value, _)| &value[..]) {
                return Err(format!("{family:?} {key:?}: {found:?}, not {expected:?}"));
            }
        }
    }
    Ok(())
}

fn read(view: &dyn View, family: Family, range: &Range, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>, Option<u64>)> {
    let mut entries = view.entries(family, range.clone(), direction).expect("there");
    let mut found = Vec::new();
    while let Some((key, value)) = entries.next().transpose().expect("readable") {
        found.push((key.to_vec(), value.to_vec(), entries.expires_at_ms()));
    }
    found
}

const KEYS: u64 = 24;

fn key(number: u64) -> Vec<u8> {
    // With bytes at both ends of their order, and keys that are the beginnings of others.
    match number % 4 {
        0 => vec![number as u8],
        1 => vec![number as u8 - 1, 0],
        2 => vec![0xff; 1 + number as usize % 3],
        _ => format!("key {number:03}").into_bytes(),
    }
}

fn draw_range(rng: &mut Rng) -> Range {
    let (mut one, mut other) = (key(rng.below(KEYS)), key(rng.below(KEYS)));
    if one > other {
        std::mem::swap(&mut one, &mut other);
    }
    Range { start: rng.chance(3, 4).then(|| one.into()), end: rng.chance(3, 4).then(|| other.into()) }
}

fn draw_batch(rng: &mut Rng, families: &[Family], number: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..1 + rng.below(6) {
        let (family, key) = (families[rng.below(families.len() as u64) as usize], key(rng.below(KEYS)));
        let value = format!("{number} ").repeat(rng.below(40) as usize);
        match rng.below(12) {
            0 => batch.put_expiring(family, key, value, ENDED_MS),
            1 => batch.put_expiring(family, key, value, LATER_MS),
            2 | 3 => batch.delete(family, key),
            4 => batch.delete_range(family, draw_range(rng)),
            _ => batch.put(family, key, value),
        }
    }
    batch
}

/// A check, as it is of every engine.
fn every_engine(check: impl Fn(&mut Node, u64) -> Found) {
    for (open, seed) in ENGINES.into_iter().flat_map(|open| (0..6).map(move |seed| (open, seed))) {
        let mut node = Node::new(open, seed);
        let choice = node.engine().choice();
        if let Err(what) = check(&mut node, seed) {
            panic!("{choice}, seed {seed}: {what}");
        }
    }
}

/// The same with a bug in the built-in engine: some seed has to find it.
fn is_found(bug: Bug, check: impl Fn(&mut Node, u64) -> Found) {
    let found = (0..6).any(|seed| {
        let mut node = Node::new(ENGINES[0], seed);
        planted::set(Some(bug));
        let found = check(&mut node, seed).is_err();
        planted::set(None);
        found
    });
    assert!(found, "{bug:?} is not found");
}
