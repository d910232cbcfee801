//! A world: nodes on simulated machines, a network between them, clients, and a nemesis, in one thread and one
//! virtual time, all drawn from one seed.
//!
//! The world is a heap of events ordered by (virtual time, sequence). One turn ([`World::turn`]): tasks of the executor
//! run until all wait; their packets are passed to the network, which plans arrivals; for nodes with pending work a
//! step is planned a little later, their background jobs likewise (so that a sync takes time and other events happen
//! meanwhile); then the time jumps to the next event or timer, which is handled.
//!
//! Everything that happens is added to the [`Trace`]; equal seeds give equal traces.

mod calls;
mod heap;
mod nemesis;
mod network;
mod node;
mod settings;
mod trace;

pub use calls::{Call, CallError, Caller, Reply};
pub use heap::EventHeap;
pub use network::{Address, Link, Network};
pub use node::{NodeId, SimNode};
pub use settings::{Fault, NetworkSettings, Settings};
pub use trace::{EVENTS_PER_MARK, Trace};

use crate::executor::{Executor, Group};
use bytes::Bytes;
use calls::{CallPacket, Parcel, SharedCalls};
use kontiki_env::clock::VirtualTime;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The group of the clients' tasks. Node `n`'s group is `Group(n)`.
pub const CLIENTS: Group = Group(u64::MAX);

enum Event {
    Message { from: NodeId, to: NodeId, bytes: Bytes },
    Call(CallPacket),
    Step { node: NodeId, life: u64 },
    StepEnd { node: NodeId, life: u64 },
    Background { node: NodeId, life: u64 },
    SlowJob { node: NodeId, life: u64 },
    Tick { node: NodeId, life: u64 },
    Start { node: NodeId },
    Resume { node: NodeId },
    Join(Vec<Link>),
    SpaceFreed { node: NodeId },
    FastApply { node: NodeId },
    Strike { node: NodeId, fault: Fault, length: Duration },
    Cut { links: Vec<Link>, length: Duration },
    Nemesis,
}

impl Event {
    fn touched(&self) -> Touched {
        match self {
            Event::Call(CallPacket { parcel: Parcel::Answer(_), .. }) => Touched::None,
            Event::Call(CallPacket { node, .. })
            | Event::Message { to: node, .. }
            | Event::Step { node, .. }
            | Event::StepEnd { node, .. }
            | Event::Background { node, .. }
            | Event::SlowJob { node, .. }
            | Event::Tick { node, .. } => Touched::One(*node),
            _ => Touched::All,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Up,
    Paused,
}

/// The node or client of the last event.
#[derive(Clone, Copy, Debug)]
enum Touched {
    None,
    One(NodeId),
    All,
}

struct Slot<N> {
    node: N,
    state: State,
    /// Counts starts and crashes: events planned for an earlier process are void.
    life: u64,
    is_step_planned: bool,
    /// It has read its clocks, and acts a little later.
    is_stepping: bool,
    is_background_planned: bool,
    is_slow_job_planned: bool,
    /// Its disk is stalled until this time.
    stalled_until: Duration,
    /// Until when a unit of background work takes how much longer.
    slowed: (Duration, Duration),
    /// Its present process has been asked to hand its leadership over.
    stops: bool,
    /// Faults injected into its disk before its present process started.
    faults_before: u64,
    /// How far its wall clock is ahead without a fault.
    wall_skew_ms: i64,
    /// Events that arrived while it was paused.
    held: Vec<Event>,
}

/// The world. See the module.
pub struct World<N> {
    time: VirtualTime,
    settings: Settings,
    executor: Executor,
    calls: SharedCalls,
    network: Network,
    heap: EventHeap<Event>,
    touched: Touched,
    slots: BTreeMap<NodeId, Slot<N>>,
    /// Random generator of the delays of nodes' steps.
    rng: Rng,
    nemesis_rng: Rng,
    is_nemesis_awake: bool,
    /// Actions that the nemesis has drawn.
    actions: u64,
    faults: BTreeMap<Fault, u64>,
    failures: Vec<String>,
    stops: Vec<String>,
    /// Nodes that never start again.
    lost: BTreeSet<NodeId>,
    trace: Trace,
}

impl<N: SimNode> World<N> {
    /// A world whose nodes start at once. The machines of `nodes` must live in `time`.
    pub fn new(
        rng: &Rng,
        time: VirtualTime,
        settings: Settings,
        nodes: impl IntoIterator<Item = (NodeId, N)>,
    ) -> World<N> {
        let mut heap = EventHeap::default();
        let mut slots = BTreeMap::new();
        let mut skews = rng.child("wall skews");
        for (id, node) in nodes {
            assert!(Group(id) != CLIENTS, "the clients' group is not a node's group");
            let skew_max = settings.wall_skew_ms_max;
            let wall_skew_ms = skews.below(2 * skew_max + 1) as i64 - skew_max as i64;
            node.machine().clock.set_wall_offset_ms(wall_skew_ms);
            let slot = Slot {
                node,
                state: State::Down,
                life: 0,
                is_step_planned: false,
                is_stepping: false,
                is_background_planned: false,
                is_slow_job_planned: false,
                stalled_until: Duration::ZERO,
                slowed: Default::default(),
                stops: false,
                faults_before: 0,
                wall_skew_ms,
                held: Vec::new(),
            };
            slots.insert(id, slot);
            heap.push(time.now(), Event::Start { node: id });
        }
        World {
            executor: Executor::new(rng.child("executor"), time.clone()),
            calls: SharedCalls::default(),
            network: Network::new(rng.child("network"), settings.network.clone()),
            heap,
            touched: Touched::All,
            slots,
            rng: rng.child("turns"),
            nemesis_rng: rng.child("nemesis"),
            is_nemesis_awake: false,
            actions: 0,
            faults: BTreeMap::new(),
            failures: Vec::new(),
            stops: Vec::new(),
            lost: BTreeSet::new(),
            trace: Trace::default(),
            time,
            settings,
        }
    }

    /// The true time since the world began.
    pub fn now(&self) -> Duration {
        self.time.now()
    }

    /// The executor, for sleeping and for tasks of other groups.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// A connection to the nodes for client number `client`.
    pub fn caller(&self, client: u64) -> Caller {
        Caller { client, calls: Arc::clone(&self.calls), executor: self.executor.handle().clone() }
    }

    /// Starts a client.
    pub fn spawn_client(&self, client: impl Future<Output = ()> + 'static) {
        self.executor.spawn(CLIENTS, client);
    }

    /// Clients that have not ended.
    pub fn clients_running(&self) -> usize {
        self.executor.count(CLIENTS)
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&N> {
        self.slots.get(&id).map(|slot| &slot.node)
    }

    /// A node, for inspection and changes between turns.
    pub fn node_mut(&mut self, id: NodeId) -> Option<&mut N> {
        self.touched = Touched::All;
        self.slots.get_mut(&id).map(|slot| &mut slot.node)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &N)> {
        self.slots.iter().map(|(id, slot)| (*id, &slot.node))
    }

    /// Whether the node's process runs and is not paused.
    pub fn is_up(&self, id: NodeId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.state == State::Up)
    }

    /// The network, to cut and restore links by hand.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// What has happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Keeps a readable trace from now on.
    pub fn keep_trace_lines(&mut self) {
        self.trace.keep_lines();
    }

    /// Nodes that stopped, or did not start, although no fault explains it: each is a failed test.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Nodes that stopped after a fault of their disk, as they should, and their reasons.
    pub fn stops(&self) -> &[String] {
        &self.stops
    }

    /// The number of injected faults, by kind.
    pub fn faults(&self) -> &BTreeMap<Fault, u64> {
        &self.faults
    }

    /// The number of actions that the nemesis has drawn, possible or not.
    pub fn actions(&self) -> u64 {
        self.actions
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes turns until the time is `deadline` or later; false if there are no events before that.
    pub fn run_until(&mut self, deadline: Duration) -> bool {
        while self.now() < deadline {
            if !self.turn() {
                return false;
            }
        }
        true
    }

    /// Takes turns until `is_done`, or until the time is `deadline`; returns whether it is done.
    pub fn run_until_done(&mut self, deadline: Duration, mut is_done: impl FnMut(&mut World<N>) -> bool) -> bool {
        loop {
            if is_done(self) {
                return true;
            }
            if self.now() >= deadline || !self.turn() {
                return false;
            }
        }
    }

    /// One turn; false if nothing is planned.
    pub fn turn(&mut self) -> bool {
        self.settle();
        match (self.heap.next_time(), self.executor.next_timer()) {
            (None, None) => false,
            (at, Some(timer)) if at.is_none_or(|at| timer < at) => {
                self.time.advance_to(timer);
                self.trace.add(timer, "timer", &[], &[]);
                self.executor.fire_timers();
                true
            }
            _ => {
                let (at, event) = self.heap.pop().expect("its time was just read");
                self.time.advance_to(at);
                self.handle(event);
                true
            }
        }
    }

    /// Lets tasks run, passes their packets to the network, and plans a step of the node of the last event, if it has
    /// pending work. (Work that becomes due as time passes is found by its ticks.)
    fn settle(&mut self) {
        loop {
            self.executor.run_until_stalled();
            let packets = self.calls.lock().take_outbox();
            if packets.is_empty() {
                break;
            }
            packets.into_iter().for_each(|packet| self.send_call(packet));
        }
        match std::mem::replace(&mut self.touched, Touched::None) {
            Touched::None => {}
            Touched::One(id) => self.plan_turns(id),
            Touched::All => {
                for id in self.slots.keys().copied().collect::<Vec<_>>() {
                    self.crash_if_power_is_off(id);
                    self.plan_turns(id);
                }
            }
        }
    }

    fn send_call(&mut self, packet: CallPacket) {
        let (client, node) = (Address::Client(packet.client), Address::Node(packet.node));
        let link = if matches!(packet.parcel, Parcel::Request(_)) { (client, node) } else { (node, client) };
        // One connection delivers a request at most once: a repeated put would be a bug of the test.
        for at in self.network.arrivals(link, self.time.now(), false) {
            self.heap.push(at, Event::Call(packet.clone()));
        }
    }

    fn send_message(&mut self, from: NodeId, to: NodeId, bytes: &Bytes) {
        self.trace.add(self.time.now(), "send", &[from, to], bytes);
        for at in self.network.arrivals((Address::Node(from), Address::Node(to)), self.time.now(), true) {
            self.heap.push(at, Event::Message { from, to, bytes: bytes.clone() });
        }
    }

    fn plan_turns(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.state == State::Up) else { return };
        let (life, now) = (slot.life, self.time.now());
        if !slot.is_step_planned && !slot.is_stepping && slot.node.wants_step() {
            slot.is_step_planned = true;
            let delay = Duration::from_micros(self.rng.range(self.settings.step_us.clone()));
            self.heap.push(now + delay, Event::Step { node: id, life });
        }
        let tasks = &slot.node.machine().tasks;
        if slot.is_background_planned && slot.is_slow_job_planned {
            return;
        }
        let begin = now.max(slot.stalled_until);
        if !slot.is_background_planned && tasks.is_runnable_of(|job| !N::is_slow(job)) {
            slot.is_background_planned = true;
            let tail_one_in = self.settings.background_tail_one_in;
            let is_long = tail_one_in > 0 && self.rng.chance(1, tail_one_in);
            let range_us = if is_long { &self.settings.background_tail_us } else { &self.settings.background_us };
            let (slow_until, slow_by) = slot.slowed;
            let slow_by = if now < slow_until { slow_by } else { Duration::ZERO };
            let delay = Duration::from_micros(self.rng.range(range_us.clone())) + slow_by;
            self.heap.push(begin + delay, Event::Background { node: id, life });
        }
        if !slot.is_slow_job_planned && tasks.is_runnable_of(N::is_slow) {
            slot.is_slow_job_planned = true;
            let delay = Duration::from_micros(self.rng.range(self.settings.slow_job_us.clone()));
            self.heap.push(begin + delay, Event::SlowJob { node: id, life });
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.time.now();
        self.touched = event.touched();
        match event {
            Event::Start { node } => self.start(node),
            Event::Resume { node } => self.resume(node),
            Event::Join(links) => {
                self.trace.add(now, "join", &[links.len() as u64], &[]);
                links.into_iter().for_each(|(from, to)| self.network.join(from, to));
            }
            Event::SpaceFreed { node } => {
                self.trace.add(now, "space freed", &[node], &[]);
                self.slots[&node].node.machine().fs.set_quota(None);
            }
            Event::FastApply { node } => {
                self.trace.add(now, "fast apply", &[node], &[]);
                self.slots.get_mut(&node).expect("nodes stay").node.slow_applies(None);
            }
            Event::Nemesis => self.nemesis_acts(),
            Event::Strike { node, fault, length } => self.strike(node, fault, length),
            Event::Cut { links, length } => self.cut_for(length, links),
            Event::Call(CallPacket { call, parcel: Parcel::Answer(answer), client, node }) => {
                let bytes = answer.as_ref().map_or(&b"error"[..], |answer| answer);
                self.trace.add(now, "answer", &[node, client], bytes);
                self.calls.lock().answered(call, answer);
            }
            Event::Call(CallPacket { node, .. }) | Event::Message { to: node, .. } => self.at_node(node, None, event),
            Event::Step { node, life }
            | Event::StepEnd { node, life }
            | Event::Background { node, life }
            | Event::SlowJob { node, life }
            | Event::Tick { node, life } => self.at_node(node, Some(life), event),
        }
    }

    /// Passes an event to a node, depending on its state.
    fn at_node(&mut self, id: NodeId, life: Option<u64>, event: Event) {
        let now = self.time.now();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if life.is_some_and(|life| life != slot.life) {
            return;
        }
        match (slot.state, event) {
            (State::Paused, event) => slot.held.push(event),
            (State::Down, Event::Call(packet)) => {
                self.trace.add(now, "refused", &[id], &[]);
                self.send_call(CallPacket { parcel: Parcel::Answer(Err(CallError::Refused)), ..packet });
            }
            (State::Down, _) => {}
            (State::Up, Event::Message { from, bytes, .. }) => {
                self.trace.add(now, "deliver", &[from, id], &bytes);
                slot.node.deliver(from, bytes);
            }
            (State::Up, Event::Call(packet)) => {
                let Parcel::Request(bytes) = packet.parcel else { return };
                self.trace.add(now, "request", &[packet.client, id], &bytes);
                let calls = Arc::clone(&self.calls);
                let reply = Reply { call: packet.call, client: packet.client, node: id, calls, is_sent: false };
                slot.node.request(bytes, reply);
            }
            (State::Up, event @ (Event::Background { .. } | Event::SlowJob { .. })) if now < slot.stalled_until => {
                self.heap.push(slot.stalled_until, event);
            }
            (State::Up, Event::Background { .. }) => {
                slot.is_background_planned = false;
                let did = slot.node.machine().tasks.step_of(|job| !N::is_slow(job));
                self.trace.add(now, "background", &[id, u64::from(did)], &[]);
            }
            (State::Up, Event::SlowJob { .. }) => {
                slot.is_slow_job_planned = false;
                let did = slot.node.machine().tasks.step_of(N::is_slow);
                self.trace.add(now, "slow job", &[id, u64::from(did)], &[]);
            }
            (State::Up, Event::Tick { .. }) => {
                let delay = slot.node.machine().clock.true_duration(self.settings.tick);
                self.heap.push(now + delay, Event::Tick { node: id, life: slot.life });
                self.begin_step(id);
            }
            (State::Up, Event::Step { .. }) => {
                slot.is_step_planned = false;
                self.begin_step(id);
            }
            (State::Up, Event::StepEnd { .. }) => {
                slot.is_stepping = false;
                self.step_node(id);
            }
            (State::Up, _) => unreachable!("other events are not for nodes"),
        }
        self.crash_if_power_is_off(id);
    }

    /// The node reads its clocks; it acts at once or, because a thread may be delayed anywhere, later.
    fn begin_step(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| !slot.is_stepping) else { return };
        slot.node.look_at_clocks();
        let is_stale = self.settings.stale_one_in <= 1 || self.rng.chance(1, self.settings.stale_one_in);
        let stale_us = if is_stale { self.rng.range(self.settings.stale_us.clone()) } else { 0 };
        let delay = Duration::from_micros(stale_us);
        if delay.is_zero() {
            return self.step_node(id);
        }
        slot.is_stepping = true;
        self.heap.push(self.time.now() + delay, Event::StepEnd { node: id, life: slot.life });
    }

    fn step_node(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        self.trace.add(self.time.now(), "step", &[id], &[]);
        match slot.node.step() {
            Ok(messages) => messages.iter().for_each(|(to, bytes)| self.send_message(id, *to, bytes)),
            Err(error) => self.gave_up(id, &error),
        }
    }

    fn start(&mut self, id: NodeId) {
        if self.lost.contains(&id) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.state == State::Down) else { return };
        slot.life += 1;
        slot.state = State::Up;
        (slot.is_step_planned, slot.is_stepping) = (false, false);
        (slot.is_background_planned, slot.is_slow_job_planned) = (false, false);
        slot.faults_before = slot.node.machine().fs.faults_injected();
        self.trace.add(self.time.now(), "start", &[id, slot.life], &[]);
        match slot.node.start(&self.executor) {
            Ok(()) => self.heap.push(self.time.now(), Event::Tick { node: id, life: slot.life }),
            Err(error) => self.gave_up(id, &error),
        }
        self.crash_if_power_is_off(id);
    }

    /// A process ended itself. This is correct with the power off, or after a fault of its disk; after a fault it is
    /// started again.
    fn gave_up(&mut self, id: NodeId, error: &str) {
        if self.slots[&id].node.machine().fs.is_off() {
            return;
        }
        let text = format!("node {id} at {:.6}: {error}", self.now().as_secs_f64());
        if !self.has_met_faults(id) {
            self.failures.push(text);
            return self.crash(id, CrashMode::Random);
        }
        self.stops.push(text);
        let mode = if self.nemesis_rng.chance(1, 2) { CrashMode::Kill } else { CrashMode::Random };
        self.crash(id, mode);
        let outage = Duration::from_millis(self.nemesis_rng.range(self.settings.fault_length_ms.clone()));
        self.start_after(id, outage);
    }

    /// Whether a fault was injected into the node's disk since its process started.
    fn has_met_faults(&self, id: NodeId) -> bool {
        let slot = &self.slots[&id];
        slot.node.machine().fs.faults_injected() > slot.faults_before
    }

    fn crash_if_power_is_off(&mut self, id: NodeId) {
        let slot = &self.slots[&id];
        if slot.state != State::Down && slot.node.machine().fs.is_off() {
            self.crash(id, CrashMode::Random);
            let outage = Duration::from_millis(self.nemesis_rng.range(self.settings.fault_length_ms.clone()));
            self.start_after(id, outage);
        }
    }

    /// Ends a node's process now; its machine loses power or, with [`CrashMode::Kill`], does not.
    pub fn crash(&mut self, id: NodeId, mode: CrashMode) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.state != State::Down) else { return };
        self.trace.add(self.time.now(), "crash", &[id, mode as u64], &[]);
        // First the power, so that dropping the process cannot clean up its files.
        slot.node.machine().fs.power_off();
        slot.state = State::Down;
        slot.life += 1;
        slot.stops = false;
        slot.held.clear();
        self.executor.kill(Group(id));
        self.executor.resume(Group(id));
        slot.node.stop();
        slot.node.machine().fs.crash(mode);
    }

    /// Plans the start of a node that is down.
    pub fn start_after(&mut self, id: NodeId, delay: Duration) {
        self.heap.push(self.time.now() + delay, Event::Start { node: id });
    }

    /// A node is lost for good, with its disk.
    pub fn lose(&mut self, id: NodeId) {
        self.crash(id, CrashMode::Kill);
        self.lost.insert(id);
    }

    /// Pauses a node's process, as SIGSTOP does: its events wait.
    pub fn pause(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.state == State::Up) else { return };
        self.trace.add(self.time.now(), "pause", &[id], &[]);
        slot.state = State::Paused;
        self.executor.pause(Group(id));
    }

    /// Resumes a paused node.
    pub fn resume(&mut self, id: NodeId) {
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.state == State::Paused) else { return };
        self.trace.add(self.time.now(), "resume", &[id], &[]);
        slot.state = State::Up;
        self.executor.resume(Group(id));
        let now = self.time.now();
        std::mem::take(&mut slot.held).into_iter().for_each(|event| self.heap.push(now, event));
    }
}

#[cfg(test)]
#[path = "world_test.rs"]
mod tests;
