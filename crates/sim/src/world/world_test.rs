//! The world with toy nodes that each keep a log of puts on their disk and gossip about its length.

use super::{CallError, Fault, NodeId, Reply, Settings, SimNode, World};
use crate::check::{durability, linearizability};
use crate::executor::{Executor, Group};
use crate::history::{Answer, History, Operation, Outcome};
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::clock::{Clock, VirtualTime};
use kontiki_env::codec::{checksum32, get_slice, get_u32, put_slice, put_u32};
use kontiki_env::fs::{CrashMode, File, Fs, OpenMode, read_all};
use kontiki_env::rng::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const NODES: u64 = 3;
const LOG: &str = "log";

/// The planted bugs of a toy node.
#[derive(Clone, Copy, PartialEq)]
enum Bug {
    None,
    NoSync,
    NoDirectorySync,
}

struct Toy {
    id: NodeId,
    machine: SimMachine,
    bug: Bug,
    process: Option<Process>,
    heard: u64,
}

struct Process {
    executor: Executor,
    file: Arc<dyn File>,
    length: u64,
    state: Rc<RefCell<BTreeMap<Bytes, Bytes>>>,
    inbox: Vec<(Bytes, Reply)>,
}

/// A record: checksum of the rest (4 bytes), key and value (length-prefixed).
fn encode(key: &Bytes, value: &Bytes) -> Vec<u8> {
    let mut body = Vec::new();
    put_slice(&mut body, key);
    put_slice(&mut body, value);
    let mut record = Vec::new();
    put_u32(&mut record, checksum32(&[&body]));
    record.extend(body);
    record
}

fn decode(rest: &mut &[u8]) -> Option<(Bytes, Bytes)> {
    let mut input = *rest;
    let sum = get_u32(&mut input).ok()?;
    let body = input;
    let (key, value) = (get_slice(&mut input).ok()?, get_slice(&mut input).ok()?);
    if sum != checksum32(&[&body[..body.len() - input.len()]]) {
        return None;
    }
    *rest = input;
    Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
}

impl Toy {
    fn open(&self, executor: &Executor) -> std::io::Result<Process> {
        let fs = &self.machine.fs;
        if !fs.exists(Path::new(LOG)) {
            fs.open(Path::new(LOG), OpenMode::CreateNew)?;
        }
        // Also for an existing file: an earlier start may have failed between its creation and this.
        if self.bug != Bug::NoDirectorySync {
            fs.sync_dir(Path::new("/"))?;
        }
        let bytes = read_all(fs, Path::new(LOG))?;
        let mut rest = &bytes[..];
        let state = std::iter::from_fn(|| decode(&mut rest)).collect();
        let length = (bytes.len() - rest.len()) as u64;
        let file = fs.open(Path::new(LOG), OpenMode::ReadWrite)?;
        file.set_len(length)?;
        file.sync()?;
        let state = Rc::new(RefCell::new(state));
        Ok(Process { executor: executor.clone(), file, length, state, inbox: Vec::new() })
    }
}

impl Process {
    fn serve(&mut self, request: &Bytes, bug: Bug) -> std::io::Result<Bytes> {
        let mut rest = &request[..];
        let Some((key, value)) = decode(&mut rest) else {
            return Ok(self.state.borrow().get(request).cloned().unwrap_or_default());
        };
        self.file.write_at(request, self.length)?;
        self.length += request.len() as u64;
        if bug != Bug::NoSync {
            self.file.sync()?;
        }
        self.state.borrow_mut().insert(key, value);
        Ok(Bytes::from_static(b"done"))
    }
}

impl SimNode for Toy {
    fn start(&mut self, executor: &Executor) -> Result<(), String> {
        self.process = Some(self.open(executor).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn stop(&mut self) {
        self.process = None;
    }

    fn machine(&self) -> &SimMachine {
        &self.machine
    }

    fn deliver(&mut self, from: NodeId, bytes: Bytes) {
        assert_ne!(from, self.id);
        self.heard += bytes.len() as u64;
    }

    fn request(&mut self, bytes: Bytes, reply: Reply) {
        self.process.as_mut().unwrap().inbox.push((bytes, reply));
    }

    fn wants_step(&self) -> bool {
        !self.process.as_ref().unwrap().inbox.is_empty()
    }

    fn step(&mut self) -> Result<Vec<(NodeId, Bytes)>, String> {
        let process = self.process.as_mut().unwrap();
        for (request, reply) in std::mem::take(&mut process.inbox) {
            let answer = process.serve(&request, self.bug).map_err(|error| error.to_string())?;
            let executor = process.executor.clone();
            // The answer is sent a little later, from a task: if the node dies meanwhile, the answer is dropped.
            process.executor.spawn(Group(self.id), async move {
                executor.sleep(Duration::from_micros(100)).await;
                reply.send(answer);
            });
        }
        let gossip = Bytes::from(vec![1; (process.length % 50) as usize]);
        Ok((1..=NODES).filter(|id| *id != self.id).map(|id| (id, gossip.clone())).collect())
    }
}

type SharedHistory = Rc<RefCell<History>>;

/// Puts distinct values and gets, on a few keys; each key is on one node.
async fn client(caller: super::Caller, history: SharedHistory, mut rng: Rng, operations: u64) {
    let executor = caller.executor().clone();
    for number in 0..operations {
        let id = rng.below(2 * NODES);
        let (node, key) = (1 + id % NODES, Bytes::from(format!("key {id}")));
        let value = Bytes::from(format!("{}.{number}", caller.client()));
        let (operation, request) = match rng.chance(1, 2) {
            true => (Operation::Put(value.clone()), Bytes::from(encode(&key, &value))),
            false => (Operation::Get, key.clone()),
        };
        let record = history.borrow_mut().invoke(caller.client(), key, operation.clone(), executor.now());
        let outcome = match caller.call(node, request, Duration::from_millis(50)).await {
            Ok(_) if operation != Operation::Get => Outcome::Ok(Answer::Done),
            Ok(found) => Outcome::Ok(Answer::Value((!found.is_empty()).then_some(found))),
            Err(CallError::Refused) => Outcome::Failed,
            Err(CallError::Reset | CallError::TimedOut) => Outcome::Unknown,
        };
        history.borrow_mut().complete(record, outcome, executor.now());
        executor.sleep(Duration::from_micros(rng.below(5000))).await;
    }
}

fn toy_world(seed: u64, settings: Settings, bug: Bug) -> World<Toy> {
    let (rng, time) = (Rng::new(seed), VirtualTime::default());
    let toy = |id: NodeId| {
        let machine = SimMachine::new(&rng.child(&format!("node {id}")), time.clone());
        (id, Toy { id, machine, bug, process: None, heard: 0 })
    };
    World::new(&rng, time.clone(), settings, (1..=NODES).map(toy))
}

struct Run {
    world: World<Toy>,
    history: History,
    problems: Vec<String>,
}

/// Safety phase, healing, then a check of the final state.
fn run(seed: u64, settings: Settings, bug: Bug) -> Run {
    let mut world = toy_world(seed, settings, bug);
    let history = SharedHistory::default();
    for number in 0..4 {
        let rng = Rng::new(seed).child(&format!("client {number}"));
        world.spawn_client(client(world.caller(number), Rc::clone(&history), rng, 60));
    }
    world.start_nemesis();
    assert!(world.run_until_done(Duration::from_secs(60), |world| world.clients_running() == 0), "clients hang");
    world.heal();
    let later = world.now() + Duration::from_secs(1);
    world.run_until(later);
    let history = history.take();
    let mut state = BTreeMap::new();
    for (id, toy) in world.nodes() {
        assert!(world.is_up(id));
        state.extend(toy.process.as_ref().unwrap().state.borrow().clone());
    }
    let mut problems: Vec<String> = world.failures().to_vec();
    problems.extend(durability::check(&history, &state).iter().map(ToString::to_string));
    let report = linearizability::check(&history, 100_000);
    assert!(report.keys_not_checked.is_empty());
    problems.extend(report.violations.iter().map(|(_, violation)| violation.to_string()));
    Run { world, history, problems }
}

fn draw(seed: u64) -> Settings {
    let mut rng = Rng::new(seed).child("knobs");
    let mut settings = Settings::draw(&mut rng, NODES as usize, 100_000);
    // The toy treats a full disk as a broken one; the real node does not (driver_test.rs, tests/seeds.rs). After a
    // failed sync it trusts what it reads; the real node does not (crates/engine, db/tests/faults.rs).
    settings.faults.retain(|fault| ![Fault::DiskFull, Fault::SyncError].contains(fault));
    Settings { fault_interval_ms: 5..50, fault_length_ms: 5..100, ..settings }
}

#[test]
fn a_calm_world_answers_everything() {
    let Run { world, history, problems } = run(1, Settings::calm(), Bug::None);
    assert_eq!(problems, [""; 0]);
    assert!(history.records().iter().all(|record| matches!(record.outcome, Outcome::Ok(_))));
    assert!(world.faults().is_empty() && world.nodes().all(|(_, toy)| toy.heard > 0));
}

#[test]
fn a_correct_toy_survives_hostile_worlds_and_every_fault_happens() {
    let mut faults = BTreeMap::new();
    let mut unknown = 0;
    for seed in 0..60 {
        let Run { world, history, problems } = run(seed, draw(seed), Bug::None);
        assert_eq!(problems, [""; 0], "seed {seed}\n{history}");
        world.faults().iter().for_each(|(fault, count)| *faults.entry(*fault).or_insert(0) += count);
        unknown += history.records().iter().filter(|record| record.outcome == Outcome::Unknown).count();
    }
    // And it has no leaders.
    let expected = |fault: &&Fault| ![Fault::DiskFull, Fault::SyncError, Fault::Transfer].contains(*fault);
    assert!(Fault::ALL.iter().filter(expected).all(|fault| faults.contains_key(fault)), "{faults:?}");
    assert!(unknown > 50);
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::NoSync, Bug::NoDirectorySync] {
        let found = (0..60).find(|seed| !run(*seed, draw(*seed), bug).problems.is_empty());
        assert!(found.is_some());
    }
}

#[test]
fn equal_seeds_give_equal_traces_and_others_do_not() {
    for seed in 0..10 {
        let (first, second) = (run(seed, draw(seed), Bug::None), run(seed, draw(seed), Bug::None));
        assert_eq!(first.world.trace().first_difference(second.world.trace()), None, "seed {seed}");
        assert_eq!(first.history.to_string(), second.history.to_string());
        let other = run(seed + 1000, draw(seed), Bug::None);
        assert!(first.world.trace().first_difference(other.world.trace()).is_some());
    }
}

#[test]
fn a_node_that_gives_up_after_a_fault_of_its_disk_is_noted_and_is_no_failure() {
    let mut world = toy_world(1, Settings::calm(), Bug::None);
    world.run_until(Duration::from_millis(100));
    world.node(2).unwrap().machine.fs.fail_next(kontiki_env::fs::Op::Sync, 1, |_| true);
    let caller = world.caller(1);
    world.spawn_client(async move {
        let put = Bytes::from(encode(&Bytes::from("k"), &Bytes::from("v")));
        let answer = caller.call(2, put, Duration::from_secs(1)).await;
        assert_eq!(answer, Err(CallError::Reset));
        assert_eq!(caller.call(2, Bytes::from("k"), Duration::from_secs(1)).await, Err(CallError::Refused));
    });
    assert!(world.run_until_done(Duration::from_secs(5), |world| world.clients_running() == 0));
    assert!(world.stops()[0].starts_with("node 2 at"), "{:?}", world.stops());
    assert!(world.failures().is_empty(), "{:?}", world.failures());
    assert!(!world.is_up(2));
}

#[test]
fn a_paused_node_answers_late_and_its_clock_goes_on() {
    let mut world = toy_world(1, Settings::calm(), Bug::None);
    world.keep_trace_lines();
    world.run_until(Duration::from_millis(10));
    world.pause(1);
    let caller = world.caller(7);
    world.spawn_client(async move {
        assert!(caller.call(1, Bytes::from("k"), Duration::from_millis(100)).await.is_err());
        assert!(caller.call(1, Bytes::from("k"), Duration::from_secs(10)).await.is_ok());
        assert!(caller.executor().now() > Duration::from_secs(1));
    });
    world.run_until(Duration::from_secs(1));
    world.resume(1);
    assert!(world.run_until_done(Duration::from_secs(5), |world| world.clients_running() == 0));
    assert!(world.node(1).unwrap().machine.clock.monotonic() > Duration::from_secs(1));
    let text = world.trace().to_string();
    assert!(text.contains("pause [1]") && text.contains("resume [1]"), "{text}");
    assert_eq!(world.trace().to_string().lines().count() as u64, world.trace().events());
    world.crash(1, CrashMode::Random);
    assert!(!world.is_up(1));
    world.start_after(1, Duration::ZERO);
    world.run_until(Duration::from_secs(6));
    assert!(world.is_up(1));
}
