//! Drivers on simulated machines, in one thread, for tests of this folder.

use super::*;
use crate::config::NodeConfig;
use crate::transport::{Inbound, IncomingFile, NodeInbound};
use futures::FutureExt;
use kontiki_engine::{Family, Options, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::clock::{Clock, VirtualTime};
use kontiki_env::fs::{CrashMode, Fs};
use kontiki_env::rng::Rng;
use kontiki_env::tasks::Tasks;
use kontiki_raftlog::{FileOptions, LogChoice};
use kontiki_raftstore::Config;
use kontiki_raftstore::snapshot::SnapshotId;
use kontiki_txn::{Scheduler, Surroundings};
use std::future::Future;

pub(super) const DATA: RegionId = RegionId(2);
const STEP: Duration = Duration::from_millis(1);

pub(super) type Tune = fn(&mut Config, &mut Options);

/// A scheduler at a node, for requests whose callers wait.
pub(super) fn scheduler(node: &NodeHandle) -> Scheduler<NodeHandle> {
    let surroundings = Surroundings {
        detach: Arc::new(|_| panic!("no caller gives up")),
        sleep: Arc::new(|_| Box::pin(std::future::pending())),
        detector: node.detector(),
        concurrency: node.concurrency(),
    };
    Scheduler::new(node.clone(), surroundings)
}

/// A request to the data region, as the node knows it.
pub(super) fn context(node: &NodeHandle) -> RegionContext {
    context_of(node, DATA)
}

/// A request to a region, as the node knows it.
pub(super) fn context_of(node: &NodeHandle, region: RegionId) -> RegionContext {
    RegionContext::new(region, node.region(region).expect("it has a replica").0.epoch)
}

/// One machine, with the driver on it while it runs.
pub(super) struct Node {
    pub(super) machine: SimMachine,
    driver: Option<Driver>,
    starts: u64,
}

/// The members of a cluster, and the network between them.
pub(super) struct Nodes {
    time: VirtualTime,
    pub(super) nodes: BTreeMap<u64, Node>,
    tune: Tune,
    /// Cut off from the others.
    pub(super) away: Option<u64>,
    /// Snapshots arrive; otherwise all sends fail.
    pub(super) delivers_snapshots: bool,
    /// Where their next starts keep raft logs.
    pub(super) log_choice: Option<LogChoice>,
}

/// Receives a snapshot as the transport does.
fn receive(fs: Arc<dyn Fs>, handle: &NodeHandle, id: SnapshotId, message: Bytes, source: &SnapshotSource) -> bool {
    let inbound = NodeInbound::new(handle.clone(), fs);
    let Ok(mut file) = inbound.begin_snapshot(id, source.estimated_bytes()) else { return false };
    source.write(&mut |part| file.append(part)).is_ok() && file.finish(message).is_ok()
}

impl Nodes {
    pub(super) fn start(count: u64, tune: Tune) -> Nodes {
        Nodes::start_with(count, tune, None)
    }

    pub(super) fn start_with(count: u64, tune: Tune, log_choice: Option<LogChoice>) -> Nodes {
        let time = VirtualTime::default();
        let node = |id: u64| {
            let machine = SimMachine::new(&Rng::new(id), time.clone());
            (id, Node { machine, driver: None, starts: 0 })
        };
        let mut nodes = Nodes {
            nodes: (1..=count).map(node).collect(),
            time,
            tune,
            away: None,
            delivers_snapshots: false,
            log_choice,
        };
        (1..=count).for_each(|id| nodes.start_node(id));
        nodes
    }

    pub(super) fn start_node(&mut self, id: u64) {
        let members = self.nodes.keys().map(|id| (*id, format!("node:{id}"))).collect();
        let mut config = NodeConfig { store_id: id, members, ..NodeConfig::single("/data", "node:1") };
        config.raft.log_choice = self.log_choice;
        config.raft.log_files = FileOptions { open_files_max: 2, rewrite_bytes_min: 2 << 10 };
        let (tune, node) = (self.tune, self.nodes.get_mut(&id).expect("a member"));
        node.starts += 1;
        let seed = 100 * id + node.starts;
        let driver = Driver::open_tuned(&node.machine.env(), config, seed, |raft, options, _| tune(raft, options));
        node.driver = Some(driver.expect("it starts"));
    }

    /// Ends a node as a power loss does, and starts it again.
    pub(super) fn restart(&mut self, id: u64, mode: CrashMode) {
        self.crash(id, mode);
        self.start_node(id);
    }

    /// Ends a node as a power loss does.
    pub(super) fn crash(&mut self, id: u64, mode: CrashMode) {
        let node = self.nodes.get_mut(&id).expect("a member");
        node.machine.fs.power_off();
        node.driver = None;
        node.machine.fs.crash(mode);
        node.machine = node.machine.restarted(Rng::new(node.starts));
    }

    pub(super) fn driver(&self, id: u64) -> &Driver {
        self.nodes[&id].driver.as_ref().expect("started")
    }

    pub(super) fn handle(&self, id: u64) -> NodeHandle {
        self.driver(id).handle()
    }

    /// All nodes work for a millisecond.
    pub(super) fn step(&mut self) {
        self.time.advance_to(self.time.now() + STEP);
        let mut sent = Vec::new();
        for (id, node) in &mut self.nodes {
            let Node { machine, driver: Some(driver), .. } = node else { continue };
            let now = Now { monotonic: machine.clock.monotonic(), wall_ms: machine.clock.wall_ms() };
            sent.extend(driver.step(now).into_iter().map(|outbound| (*id, outbound)));
            while machine.tasks.step() {}
        }
        for (from, outbound) in sent {
            match outbound {
                Outbound::Message { to, bytes } if ![Some(from), Some(to.0)].contains(&self.away) => {
                    self.handle(to.0).deliver(StoreId(from), bytes);
                }
                Outbound::Message { .. } => {}
                Outbound::Snapshot { to, snapshot, view, message, source } => {
                    let is_cut = [Some(from), Some(to.0)].contains(&self.away);
                    let fs = Arc::new(self.nodes[&to.0].machine.fs.clone());
                    let arrives = || receive(fs, &self.handle(to.0), snapshot, message, &source);
                    let ok = self.delivers_snapshots && !is_cut && arrives();
                    self.handle(from).snapshot_sent(snapshot.region, to, view, ok);
                }
            }
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.time.now() + time;
        while self.time.now() < until {
            self.step();
        }
    }

    pub(super) fn until(&mut self, what: &str, mut condition: impl FnMut(&Nodes) -> bool) {
        for _ in 0..60_000 {
            if condition(self) {
                return;
            }
            self.step();
        }
        panic!("not within a virtual minute: {what}");
    }

    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        for _ in 0..60_000 {
            if let Some(value) = future.as_mut().now_or_never() {
                return value;
            }
            self.step();
        }
        panic!("the future does not resolve within a virtual minute");
    }

    /// A node that leads the region.
    pub(super) fn leader(&mut self, region: RegionId) -> u64 {
        let find = |nodes: &Nodes| {
            let mut ids = nodes.nodes.keys().copied().filter(|id| nodes.away != Some(*id));
            ids.find(|id| nodes.handle(*id).leading_term(region).is_some())
        };
        self.until("a leader", |nodes| find(nodes).is_some());
        find(self).expect("just seen")
    }

    pub(super) fn put(&mut self, region: RegionId, key: &[u8], value: &[u8]) -> Result<u64, NodeError> {
        let handle = {
            let leader = self.leader(region);
            self.handle(leader)
        };
        let (descriptor, _) = handle.region(region).expect("it leads");
        let context = RegionContext::new(region, descriptor.epoch);
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, value);
        self.run(async move { handle.propose(&context, batch).await })
    }

    /// What a replica holds, without the consensus that a read of a client needs.
    pub(super) fn stored(&self, id: u64, key: &[u8]) -> Option<Vec<u8>> {
        self.handle(id).db().expect("built in").get(key).expect("readable").map(|value| value.to_vec())
    }

    /// Regions with data, each beginning with one of these bytes.
    pub(super) fn split_at(&mut self, starts: &[u8]) -> Vec<RegionId> {
        let leader = self.leader(DATA);
        let handle = self.handle(leader);
        let (descriptor, _) = handle.region(DATA).expect("it leads");
        let context = RegionContext::new(DATA, descriptor.epoch);
        let keys = starts.iter().map(|start| Bytes::copy_from_slice(&[*start])).collect();
        let made = self.run(async move { handle.split(&context, keys).await }).expect("split");
        made.into_iter().skip(1).map(|region| region.id).collect()
    }

    pub(super) fn log_bytes(&self, id: u64) -> u64 {
        self.handle(id).db().expect("built in").stats().log.bytes
    }
}
