//! A simulated cluster: three nodes (or one or five) of the real driver, engine, raftstore and placement, clients, a
//! nemesis, and the checks of what happened.
//!
//! A run has five phases, all from one seed:
//!
//! 1. *safety*: clients work while the nemesis injects faults;
//! 2. *heal*: the network is whole, every node runs, the nemesis is off;
//! 3. *liveness*: within a bounded time every client ends with its operation answered, and every key can be read;
//! 4. *power*: in some worlds all nodes lose power once more, at the same time, and come back;
//! 5. *final checks*: replicas are equal byte by byte, no acknowledged write is lost, every key's history is
//!    linearizable, timestamps are unique and go forward, transactions see consistent snapshots.

mod changes;
mod client_mix;
mod commands;
mod digest;
mod final_checks;
mod leaks;
mod lost_majority;
mod node;
mod planted;
mod scenario;
mod serve;
mod watch;

pub use client_mix::ClientMix;
pub use commands::Commands;
pub use digest::Digests;
pub use lost_majority::Recovered;
pub use node::{Checks, ClusterNode, Remains, Sizes};
pub use planted::PlantedBug;
pub use scenario::Scenario;
pub use watch::{REGIONS, Watch};

use crate::workload::{
    BankSettings, Behaviour, BehaviourState, Connection, Direct, RawSettings, RawTarget, RawWorkload, Records,
    StaleReader, Teller, TimestampClient, connect, options,
};
use crate::world::{Fault, NodeId, Settings, World};
use kontiki_client::Client;
use kontiki_env::SimMachine;
use kontiki_env::clock::VirtualTime;
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use kontiki_raftstore::RegionId;
use kontiki_server::config::NodeConfig;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// How far clocks may drift: what raftstore's leases allow by default.
const DRIFT_PPM_MAX: u64 = 50_000;
/// The greatest value of a monotonic clock when a world begins.
const CLOCK_ORIGIN_MS_MAX: u64 = 1_000_000;
/// Numbers of clients that use one node only begin here; those of the next kind of client follow at this distance.
const PINNED_CLIENTS: u64 = 100;
const PINNED_KIND: u64 = 200;
/// The same, for clients of placement.
const PINNED_TIMESTAMP_CLIENTS: u64 = 400;
/// Numbers of the bank's tellers begin here.
const BANK_CLIENTS: u64 = 200;
/// Numbers of the clients that read the bank as it was begin here.
const STALE_CLIENTS: u64 = 260;
/// How long a client tries an operation.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the clients of situations that are set up by hand.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(20);
/// The number of that client.
const PATIENT_CLIENT: u64 = 900;
/// How long after healing everything must have been answered.
const LIVENESS: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Determines the whole run.
    pub seed: u64,
    /// Number of nodes: 1, 3 or 5.
    pub nodes: u64,
    /// Length of the first phase.
    pub safety: Duration,
    /// The world's scenario; `None`: drawn from the seed.
    pub scenario: Option<Scenario>,
    /// Keep a readable trace.
    pub keep_lines: bool,
    /// A bug that the run should find.
    pub planted: Option<PlantedBug>,
    /// The nemesis stops after so many actions; absent: it acts to the end of the first phase.
    pub actions_max: Option<u64>,
    /// Actions of the nemesis that do not happen, by their numbers from 0 on.
    pub actions_left_out: BTreeSet<u64>,
    /// A majority of the nodes is lost for good at some moment of the first phase, and the rest is recovered.
    pub loses_majority: bool,
}

impl Plan {
    /// The usual run of a seed.
    pub fn new(seed: u64) -> Plan {
        let nodes = match seed % 8 {
            7 => 1,
            3 => 5,
            _ => 3,
        };
        let safety = Duration::from_secs(20);
        let (actions_max, actions_left_out) = (None, BTreeSet::new());
        Plan {
            seed,
            nodes,
            safety,
            scenario: None,
            keep_lines: false,
            planted: None,
            actions_max,
            actions_left_out,
            loses_majority: false,
        }
    }
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The scenario of its world.
    pub scenario: Option<Scenario>,
    /// How the loss of a majority ended.
    pub recovered: Option<Recovered>,
    /// Violations; empty for a successful run.
    pub violations: Vec<String>,
    /// Events of the trace and the hash over them.
    pub events: u64,
    /// Equal seeds give equal hashes.
    pub trace_hash: u64,
    /// Operations that got an answer.
    pub answered: u64,
    /// Keys whose history was checked.
    pub keys_checked: usize,
    /// Keys whose history was too long to be searched.
    pub keys_not_checked: usize,
    /// The faults that the nemesis injected.
    pub faults: BTreeMap<Fault, u64>,
    /// Actions of the nemesis, with those that were left out or not possible.
    pub actions: u64,
    /// Transactions that committed, snapshots of the bank among them.
    pub transactions: u64,
    /// Of these, pessimistic ones.
    pub pessimistic: u64,
    /// Commits in one phase, async commits, and commits in two phases.
    pub commits: [u64; 3],
    /// Times that the whole bank was read at single replicas, as it was.
    pub stale_reads: u64,
    /// Leaderships seen.
    pub terms: u64,
    /// Times that the leader of a region began to hibernate.
    pub hibernations: u64,
    /// Comparisons of replicas that ended.
    pub checks: u64,
    /// States of regions in which replicas were compared.
    pub states: usize,
    /// Data regions at the end.
    pub regions: usize,
    /// Regions that these have taken over, as far as their descriptors remember.
    pub merges: usize,
    /// Changes of their replicas, as their epochs say.
    pub member_changes: u64,
    /// Snapshots that were installed.
    pub snapshots: u64,
    /// Of these, those that were taken in as tables.
    pub snapshots_as_tables: u64,
    /// Splits of regions because of their load.
    pub splits_by_load: u64,
    /// Starts at which the raft logs of a node moved to another place.
    pub log_moves: u64,
    /// Entries that were read back from logs for followers.
    pub entries_read: u64,
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// The readable trace, if it was requested.
    pub lines: String,
}

/// A run in progress.
pub struct Cluster {
    /// The world.
    pub world: World<ClusterNode>,
    /// What clients recorded.
    pub records: Records,
    /// Observes the nodes.
    pub checks: Checks,
    nodes: Vec<NodeId>,
    scenario: Scenario,
    rng: Rng,
    bank: Option<BankSettings>,
    client: Option<Client<Connection>>,
    violations: Vec<String>,
    keys_checked: usize,
    keys_not_checked: usize,
    regions: usize,
    merges: usize,
    member_changes: u64,
}

impl Cluster {
    /// A cluster that is about to start, in a world with these settings.
    pub fn new(rng: Rng, node_count: u64, settings: Settings) -> Cluster {
        let sizes = Sizes::draw(&mut rng.child("sizes"));
        Cluster::with_sizes(rng, node_count, settings, sizes, Scenario::Plain)
    }

    /// The same; regions hibernate, and stores give signs of life.
    pub fn with_signs_of_life(rng: Rng, node_count: u64, settings: Settings) -> Cluster {
        let sizes = Sizes { hibernate_ticks: 100, ..Sizes::draw(&mut rng.child("sizes")) };
        Cluster::with_sizes(rng, node_count, settings, sizes, Scenario::Plain)
    }

    fn with_sizes(rng: Rng, node_count: u64, settings: Settings, sizes: Sizes, scenario: Scenario) -> Cluster {
        let time = VirtualTime::default();
        let checks = Checks::default();
        let nodes: Vec<NodeId> = (1..=node_count).collect();
        let members: BTreeMap<u64, String> = nodes.iter().map(|id| (*id, format!("node-{id}:20160"))).collect();
        let world_nodes: Vec<_> = nodes
            .iter()
            .map(|id| {
                let machine_rng = rng.child(&format!("machine {id}"));
                let origin = Duration::from_millis(machine_rng.child("origin").below(CLOCK_ORIGIN_MS_MAX));
                let machine = SimMachine::new(&machine_rng, time.clone()).with_clock_origin(origin);
                let mut config = NodeConfig::single("/data", "node:1");
                (config.store_id, config.cluster_id, config.members) = (*id, 77, members.clone());
                config.replicas = if sizes.replicas == 0 { nodes.len() } else { sizes.replicas.min(nodes.len()) };
                let node_rng = rng.child(&format!("node {id}"));
                let node = ClusterNode::new(*id, machine, config, sizes, node_rng, checks.clone());
                (*id, node.with_focus(scenario.focus()))
            })
            .collect();
        let world = World::new(&rng.child("world"), time, settings, world_nodes);
        Cluster {
            world,
            records: Records::default(),
            checks,
            nodes,
            scenario,
            rng,
            bank: None,
            client: None,
            violations: Vec::new(),
            keys_checked: 0,
            keys_not_checked: 0,
            regions: 0,
            merges: 0,
            member_changes: 0,
        }
    }

    /// A client's connection to the nodes.
    pub fn connection(&self, client: u64) -> Connection {
        let rng = self.rng.child(&format!("connection {client}"));
        Connection::new(self.world.caller(client), rng, &self.records)
    }

    /// A client of the whole cluster, which must be available when it is first asked for.
    pub fn client(&mut self) -> Client<Connection> {
        if self.client.is_none() {
            let (connection, nodes) = (self.connection(PATIENT_CLIENT), self.nodes.clone());
            self.client = Some(self.wait(connect(connection, nodes, options(PATIENT_TIMEOUT, false))));
        }
        self.client.clone().expect("it was just connected")
    }

    /// Single calls to one node.
    pub fn direct(&self, client: u64, node: NodeId) -> Direct {
        Direct::new(self.connection(client), node)
    }

    /// Runs until `region` has a leader other than `not`; panics if it gets none in a virtual minute.
    pub fn await_leader(&mut self, region: RegionId, not: Option<NodeId>) -> NodeId {
        let deadline = self.world.now() + Duration::from_secs(60);
        loop {
            // A deposed leader may not know it yet, so every node is asked.
            if let Some(leader) = self.leaders(region).into_iter().find(|leader| Some(*leader) != not) {
                return leader;
            }
            assert!(self.world.now() < deadline, "region {region} gets no leader");
            self.world.run_until(self.world.now() + Duration::from_millis(10));
        }
    }

    /// Every running node that believes it leads `region`.
    pub fn leaders(&self, region: RegionId) -> Vec<NodeId> {
        let believes = |id: &NodeId| {
            let status = self.world.node(*id).and_then(ClusterNode::handle).map(|handle| handle.status());
            status
                .into_iter()
                .flat_map(|status| status.regions)
                .any(|status| status.region.id == region && status.leading_term.is_some())
        };
        self.nodes.iter().copied().filter(|id| self.world.is_up(*id)).filter(believes).collect()
    }

    /// Runs the world until the client's future is done; panics if it takes more than two virtual minutes.
    pub fn wait<T: 'static>(&mut self, client: impl Future<Output = T> + 'static) -> T {
        let done: Rc<RefCell<Option<T>>> = Rc::default();
        let result = done.clone();
        self.world.spawn_client(async move { *result.borrow_mut() = Some(client.await) });
        let deadline = self.world.now() + Duration::from_secs(120);
        self.world.run_until_done(deadline, |_| done.borrow().is_some());
        done.take().expect("every client is answered")
    }

    /// Starts the clients of the usual workload.
    fn start_clients(&mut self) {
        let client_mix = ClientMix::draw(self.scenario, &mut self.rng.child("workload"));
        for node in self.nodes.clone() {
            for (number, settings) in (0..).zip(&client_mix.pinned) {
                self.start_raw(PINNED_CLIENTS + number * PINNED_KIND + node, Some(node), settings);
            }
            if client_mix.pinned_timestamps {
                self.start_timestamps(PINNED_TIMESTAMP_CLIENTS + node, Some(node), client_mix.timestamp_pause_ms_max);
            }
        }
        for client in 1..=client_mix.raw_clients {
            self.start_raw(client, None, &client_mix.raw);
        }
        for client in client_mix.raw_clients + 1..=client_mix.raw_clients + client_mix.timestamp_clients {
            self.start_timestamps(client, None, client_mix.timestamp_pause_ms_max);
        }
        if let Some((settings, tellers)) = client_mix.bank {
            self.start_stale_readers(&settings, client_mix.stale_readers);
            self.start_bank(settings, tellers);
        }
    }

    /// Whether a client gives up requests soon. Some wait longer: a late answer of a deposed leader must reach one.
    fn is_hasty(&self, rng: &Rng) -> bool {
        self.scenario == Scenario::Leases && rng.child("haste").chance(3, 4)
    }

    fn begin_client(&self) -> Records {
        self.records.running.set(self.records.running.get() + 1);
        self.records.clone()
    }

    /// A raw client that follows the leaders, or one that uses one node only.
    fn start_raw(&self, client: u64, node: Option<NodeId>, settings: &RawSettings) {
        let rng = self.rng.child(&format!("client {client}"));
        let (is_hasty, records) = (self.is_hasty(&rng), self.begin_client());
        let (connection, nodes, settings) = (self.connection(client), self.nodes.clone(), settings.clone());
        let executor = connection.executor().clone();
        self.world.spawn_client(async move {
            let target = match node {
                None => {
                    let client = connect(connection, nodes, options(OPERATION_TIMEOUT, is_hasty)).await;
                    let raw = client.raw();
                    RawTarget::Cluster(if settings.is_atomic { raw.atomic() } else { raw })
                }
                Some(node) if is_hasty => RawTarget::Node(Direct::new(connection, node).hasty()),
                Some(node) => RawTarget::Node(Direct::new(connection, node)),
            };
            RawWorkload { client, target, settings, records, executor, rng, count: 0 }.work().await;
        });
    }

    fn start_timestamps(&self, client: u64, node: Option<NodeId>, pause_ms_max: u64) {
        let rng = self.rng.child(&format!("client {client}"));
        let (is_hasty, records) = (self.is_hasty(&rng), self.begin_client());
        let nodes = node.map_or_else(|| self.nodes.clone(), |node| vec![node]);
        let connection = self.connection(client);
        let client = TimestampClient { connection, nodes, is_hasty, pause_ms_max, records, rng };
        self.world.spawn_client(client.work());
    }

    fn start_bank(&mut self, settings: BankSettings, tellers: u64) {
        for client in BANK_CLIENTS..BANK_CLIENTS + tellers {
            let client_rng = self.rng.child(&format!("client {client}"));
            let teller = self.teller(client, settings.clone(), settings.behaviour.clone());
            self.begin_client();
            self.world.spawn_client(async move { teller.await.work(client == BANK_CLIENTS, client_rng).await });
        }
        self.bank = Some(settings);
    }

    fn start_stale_readers(&self, settings: &BankSettings, count: u64) {
        for number in STALE_CLIENTS..STALE_CLIENTS + count {
            let (rng, records) = (self.rng.child(&format!("client {number}")), self.begin_client());
            let (connection, nodes, settings) = (self.connection(number), self.nodes.clone(), settings.clone());
            let executor = connection.executor().clone();
            self.world.spawn_client(async move {
                let direct = Direct::new(connection.clone(), nodes[0]);
                let client = connect(connection, nodes.clone(), options(OPERATION_TIMEOUT, false)).await;
                StaleReader { client, direct, nodes, number, settings, records, executor, rng }.work().await;
            });
        }
    }

    /// A transactional client, when it has connected.
    fn teller(
        &self,
        number: u64,
        settings: BankSettings,
        behaviour: Behaviour,
    ) -> impl Future<Output = Teller> + 'static {
        let rng = self.rng.child(&format!("teller {number}"));
        let behaviour = BehaviourState::new(behaviour, rng.child("habits"));
        let connection = self.connection(number).with_behaviour(behaviour.clone());
        let (executor, records) = (connection.executor().clone(), self.records.clone());
        let connecting = connect(connection, self.nodes.clone(), options(OPERATION_TIMEOUT, false));
        async move { Teller { client: connecting.await, number, behaviour, settings, records, executor, rng, count: 0 } }
    }

    /// Heals and waits for every client to end.
    fn heal(&mut self) {
        self.world.heal();
        self.world.run_until(self.world.now() + Duration::from_secs(2));
        self.records.stop.set(true);
        let running = self.records.running.clone();
        let deadline = self.world.now() + LIVENESS;
        if !self.world.run_until_done(deadline, |_| running.get() == 0) {
            self.violations.push(format!("{} clients wait forever", running.get()));
        }
    }

    /// All nodes lose power at once and come back.
    fn lose_power(&mut self) {
        for id in self.nodes.clone() {
            self.world.crash(id, CrashMode::Random);
            self.world.start_after(id, Duration::from_millis(100));
        }
        self.world.run_until(self.world.now() + Duration::from_millis(200));
    }
}

/// Runs a plan from beginning to end.
pub fn run(plan: &Plan) -> Report {
    let rng = Rng::new(plan.seed);
    let scenario = plan.scenario.unwrap_or_else(|| Scenario::draw(&mut rng.child("theme"), plan.nodes));
    let mut scenario_rng = rng.child("shape");
    let sizes = scenario.sizes(Sizes::draw(&mut rng.child("cluster").child("sizes")), &mut scenario_rng);
    let mut sizes = sizes.with_hibernation(&mut rng.child("hibernation"));
    let settings = Settings::draw(&mut rng.child("knobs"), plan.nodes as usize, DRIFT_PPM_MAX);
    let mut settings = scenario.settings(settings, &sizes, &mut scenario_rng);
    sizes = sizes.with_priorities(&mut rng.child("priorities"), plan.nodes);
    sizes = sizes.with_checks(&mut rng.child("checks"));
    sizes = sizes.with_tables(&mut rng.child("tables"));
    sizes = sizes.with_eviction(&mut rng.child("eviction"));
    sizes = sizes.with_stale_reads(&mut rng.child("stale reads"));
    sizes = sizes.with_raft_logs(&mut rng.child("raft logs"));
    let mut splits = rng.child("splits");
    if scenario.splits(&mut splits) {
        sizes = sizes.with_splits(&mut splits);
        let some = settings.faults.len().div_ceil(3).max(1);
        settings.faults.extend(std::iter::repeat_n(Fault::Split, some));
    }
    if settings.faults.contains(&Fault::Split) && rng.child("merges").chance(2, 3) {
        let some = settings.faults.len().div_ceil(4).max(1);
        settings.faults.extend(std::iter::repeat_n(Fault::Merge, some));
    }
    let mut moves = rng.child("moves");
    if plan.nodes > 1 && moves.chance(1, 3) {
        sizes = sizes.with_moves(&mut moves);
        let some = settings.faults.len().div_ceil(3).max(1);
        settings.faults.extend(std::iter::repeat_n(Fault::ChangeMembers, some));
    }
    if rng.child("stops").chance(1, 2) {
        settings.faults.push(Fault::Stop);
    }
    let mut slow_disks = rng.child("slow disks");
    if slow_disks.chance(1, 3) {
        sizes = sizes.with_slow_logs(&mut slow_disks);
        let some = settings.faults.len().div_ceil(4).max(1);
        settings.faults.extend(std::iter::repeat_n(Fault::DiskSlow, some));
    }
    settings.actions_max = plan.actions_max;
    settings.actions_left_out.clone_from(&plan.actions_left_out);
    let mut cluster = Cluster::with_sizes(rng.child("cluster"), plan.nodes, settings, sizes, scenario);
    if plan.keep_lines {
        cluster.world.keep_trace_lines();
    }
    let _planted = plan.planted.map(|bug| bug.plant(&mut cluster));
    cluster.start_clients();
    cluster.world.start_nemesis();
    if plan.loses_majority && plan.nodes > 1 {
        return run_until_loss(cluster, plan, &mut rng.child("loss"));
    }
    cluster.world.run_until(plan.safety);
    cluster.heal();
    if rng.child("power").chance(1, 3) {
        cluster.lose_power();
    }
    cluster.run_final_checks();
    cluster.report(plan.seed)
}

/// Ends a run with the loss of a majority, at any moment of its first phase.
fn run_until_loss(mut cluster: Cluster, plan: &Plan, rng: &mut Rng) -> Report {
    let safety_ms = u64::try_from(plan.safety.as_millis()).unwrap_or(u64::MAX);
    cluster.world.run_until(Duration::from_millis(rng.range(safety_ms / 10..safety_ms)));
    let left = if plan.nodes > 3 { 1 + rng.below(2) } else { 1 };
    let recovered = cluster.lose_majority(left as usize);
    Report { recovered: Some(recovered), ..cluster.report(plan.seed) }
}

/// Runs a plan; a panic in it counts as a violation.
pub fn run_caught(plan: &Plan) -> Report {
    std::panic::catch_unwind(|| run(plan)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violations = vec![format!("panicked: {}", text.unwrap_or_default())];
        Report { seed: plan.seed, violations, ..Report::default() }
    })
}
