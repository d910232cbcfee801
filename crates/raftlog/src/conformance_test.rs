//! One suite for every place of raft logs, against a model: what is written and read, what a crash at any operation of
//! the disk leaves, full disks, failed syncs, and moves from one place to another.

use super::*;
use crate::planted::Bug;
use kontiki_engine::{Durability, Error, ErrorKind, Family, FamilySpec, Options, StreamOp, View, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::fs::{CrashMode, Fs, Op};
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Tasks;
use kontiki_state::{BuiltIn, StateEngine};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod crashes;
mod damage;
mod faults;
mod moves;
mod usual;

const DATA: &str = "/data";
const META: Family = Family::NODE_STATE[0];
const PLACE: Place = Place { family: META, choice_key: &[0x14], intent_key: &[0x15] };
const DURABLE: [LogChoice; 2] = [LogChoice::Shared, LogChoice::PerGroup];

/// What the logs, and the data, should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    logs: BTreeMap<StreamId, StreamContents>,
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn apply(&mut self, commit: &TestCommit) {
        commit.streams.iter().for_each(|op| self.apply_op(op));
        self.keys.extend(commit.put.clone());
    }

    fn apply_op(&mut self, op: &StreamOp) {
        let log = self.logs.entry(op.stream()).or_default();
        let first = log.truncated_through + 1;
        match op {
            StreamOp::Append { first_index, entries, .. } => {
                log.entries.drain((first_index - first) as usize..);
                log.entries.extend(entries.iter().cloned());
            }
            StreamOp::State { state, .. } => log.state = state.clone(),
            StreamOp::Truncate { through_index, .. } => {
                let gone = (through_index + 1).saturating_sub(first).min(log.entries.len() as u64);
                log.entries.drain(..gone as usize);
                log.truncated_through = log.truncated_through.max(*through_index);
            }
            StreamOp::Remove { stream } => drop(self.logs.remove(stream)),
        }
    }

    /// The first index of a log, and the one after its last.
    fn ends(&self, id: StreamId) -> (u64, u64) {
        self.logs.get(&id).map_or((1, 1), |log| {
            let first = log.truncated_through + 1;
            (first, first + log.entries.len() as u64)
        })
    }
}

/// A commit, and the key that it puts into the state machine.
#[derive(Clone, Debug, Default)]
struct TestCommit {
    streams: Vec<StreamOp>,
    put: Option<(Vec<u8>, Vec<u8>)>,
}

impl TestCommit {
    fn of(streams: Vec<StreamOp>) -> TestCommit {
        TestCommit { streams, put: None }
    }

    /// Whether all of it has to happen at once, or nothing.
    fn is_atomic(&self) -> bool {
        self.put.is_some() || self.streams.iter().any(|op| matches!(op, StreamOp::Remove { .. }))
    }

    fn to_commit(&self) -> Commit {
        let mut batch = WriteBatch::new();
        self.put.iter().for_each(|(key, value)| batch.put(Family::DEFAULT, key, value));
        Commit { streams: self.streams.clone(), ..Commit::new(batch, Durability::Sync) }
    }

    /// A commit that fits to the model: operations of some of six regions.
    fn draw(rng: &mut Rng, number: u64, model: &Model) -> TestCommit {
        let (mut streams, mut after) = (Vec::new(), model.clone());
        for _ in 0..1 + rng.below(4) {
            let op = draw_op(rng, number, &after);
            after.apply_op(&op);
            streams.push(op);
        }
        let removes = streams.iter().any(|op| matches!(op, StreamOp::Remove { .. }));
        let puts = removes || rng.chance(1, 8);
        let put = puts.then(|| (format!("key {}", rng.below(4)).into_bytes(), number.to_string().into_bytes()));
        TestCommit { streams, put }
    }
}

fn append(id: u64, first_index: u64, entries: Vec<Bytes>) -> StreamOp {
    StreamOp::Append { stream: StreamId(id), first_index, entries }
}

fn draw_op(rng: &mut Rng, number: u64, model: &Model) -> StreamOp {
    let stream = StreamId(rng.below(6));
    let (low, high) = model.ends(stream);
    match rng.below(12) {
        0 | 1 => StreamOp::State { stream, state: format!("state {number}").into() },
        2 | 3 => StreamOp::Truncate { stream, through_index: rng.range(low..high + 3) - 1 },
        4 if rng.chance(1, 2) => StreamOp::Remove { stream },
        5 => append(stream.0, rng.range(low..high + 1), vec![]),
        other => {
            let first = if other == 6 { rng.range(low..high + 1) } else { high };
            let entry = |i: u64| Bytes::from(format!("{number}.{i} ").repeat(1 + 7 * (i as usize)));
            append(stream.0, first, (0..rng.below(5)).map(entry).collect())
        }
    }
}

fn options() -> Options {
    let families = [(Family::DEFAULT, "default"), (META, "kontiki.meta")];
    Options {
        families: families.map(|(family, name)| FamilySpec::new(family, name)).to_vec(),
        memtable_bytes: 64 << 10,
        log_segment_bytes: 16 << 10,
        log_bytes_max: 128 << 10,
        ..Options::default()
    }
}

/// A machine with an engine and raft logs, while it is up.
struct Node {
    machine: SimMachine,
    up: Option<(Arc<dyn StateEngine>, Arc<dyn RaftLog>)>,
    starts: u64,
}

impl Node {
    fn new(seed: u64) -> Node {
        Node { machine: SimMachine::from_seed(seed), up: None, starts: 0 }
    }

    fn started(seed: u64, choice: LogChoice) -> Node {
        let mut node = Node::new(seed);
        node.start(Some(choice)).expect("an empty directory");
        node
    }

    fn start(&mut self, wanted: Option<LogChoice>) -> std::result::Result<(), OpenError> {
        self.starts += 1;
        self.machine = self.machine.restarted(Rng::new(self.starts));
        let env = self.machine.env();
        let state: Arc<dyn StateEngine> = Arc::new(BuiltIn::open(&env, Path::new(DATA), options())?);
        let files = FileOptions { open_files_max: 3, rewrite_bytes_min: 512 };
        let log = super::open(&env, Path::new(DATA), &state, PLACE, wanted, files)?;
        self.up = Some((state, log));
        Ok(())
    }

    fn log(&self) -> &Arc<dyn RaftLog> {
        &self.up.as_ref().expect("it is up").1
    }

    /// A clean end.
    fn close(&mut self) {
        let (state, log) = self.up.take().expect("it is up");
        log.close();
        state.close().expect("a clean close");
    }

    /// The process ends, or the machine.
    fn crash(&mut self, mode: CrashMode) {
        if mode != CrashMode::Kill {
            self.machine.fs.power_off();
        }
        if let Some((_, log)) = self.up.take() {
            log.stop();
        }
        self.machine.fs.crash(mode);
    }

    fn commit(&self, commit: &TestCommit) -> Result<()> {
        let answer: Arc<parking_lot::Mutex<Option<Result<()>>>> = Arc::default();
        let given = answer.clone();
        self.log().submit(
            commit.to_commit(),
            Box::new(move |result| {
                assert!(given.lock().replace(result).is_none(), "a commit is answered once");
            }),
        );
        while answer.lock().is_none() {
            assert!(self.machine.tasks.step(), "a commit that nothing answers");
        }
        let result = answer.lock().take();
        result.expect("just seen")
    }

    fn contents(&self) -> Model {
        let (state, log) = self.up.as_ref().expect("it is up");
        let logs = log.ids().into_iter().map(|id| (id, log.read(id).expect("readable"))).collect();
        let mut keys = BTreeMap::new();
        let view = state.snapshot();
        for key in (0..4).map(|number| format!("key {number}").into_bytes()) {
            if let Some(value) = view.get(Family::DEFAULT, &key).expect("readable") {
                keys.insert(key, value.to_vec());
            }
        }
        Model { logs, keys }
    }

    /// The files of regions.
    fn files(&self) -> Vec<PathBuf> {
        let directory = Path::new(DATA).join(DIRECTORY);
        let names = self.machine.fs.list(&directory).unwrap_or_default();
        names.into_iter().map(|name| directory.join(name)).collect()
    }
}

/// Commits until one fails: how many were acknowledged, and the model after each.
fn run_script(node: &Node, script: &[TestCommit]) -> usize {
    script.iter().take_while(|commit| node.commit(commit).is_ok()).count()
}

/// A script of commits, and the models before each and at the end.
fn draw_script(seed: u64, length: u64) -> (Vec<TestCommit>, Vec<Model>) {
    let mut rng = Rng::new(seed);
    let (mut script, mut models) = (Vec::new(), vec![Model::default()]);
    for number in 0..length {
        let mut model = models[number as usize].clone();
        let commit = TestCommit::draw(&mut rng, number, &model);
        model.apply(&commit);
        script.push(commit);
        models.push(model);
    }
    (script, models)
}
