//! Injects one fault after the other, and requires progress after each.

use super::disks::Disks;
use super::load::Shared;
use super::proxy::{Fault, Network, Party};
use super::support::{Cluster, DATA_REGION, WAIT_MAX};
use kontiki_env::rng::Rng;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What happens to nodes, or between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillLeader,
    KillAny,
    /// As a power cut of the whole site, without the loss of what the system had not written.
    KillAll,
    /// SIGSTOP: nothing is closed, and the clock goes on.
    Pause,
    RestartInOrder,
    /// Nothing arrives at a node and nothing leaves it.
    CutOff,
    /// Nothing arrives at a node; what it sends arrives.
    CutInbound,
    /// Nothing that a node sends arrives.
    CutOutbound,
    /// Two nodes do not hear each other; others and clients reach both.
    CutBetween,
    /// Everything to and from a node arrives late.
    Slow,
    FullDisk,
}

const KINDS: [Kind; 10] = [
    Kind::KillLeader,
    Kind::KillAny,
    Kind::KillAll,
    Kind::Pause,
    Kind::RestartInOrder,
    Kind::CutOff,
    Kind::CutInbound,
    Kind::CutOutbound,
    Kind::CutBetween,
    Kind::Slow,
];

/// A fault lasts about this long, and at most twice.
const FAULT_MS: u64 = 2_500;
/// Between two faults, at most.
const CALM_MS_MAX: u64 = 2_000;
/// Answers that are waited for after a fault.
const PROGRESS: u64 = 20;

pub struct Nemesis {
    pub cluster: Cluster,
    pub counts: BTreeMap<Kind, u64>,
    network: Arc<Network>,
    disks: Disks,
    rng: Rng,
}

impl Nemesis {
    /// Starts the nodes of `cluster`.
    pub fn new(cluster: Cluster, network: Arc<Network>, disks: Disks, rng: Rng) -> Nemesis {
        let mut nemesis = Nemesis { cluster, counts: BTreeMap::new(), network, disks, rng };
        for index in 0..nemesis.cluster.nodes.len() {
            nemesis.start(index);
        }
        tokio::task::block_in_place(|| nemesis.cluster.wait_ready());
        nemesis
    }

    fn start(&mut self, index: usize) {
        self.cluster.nodes[index].start();
        self.network.set_process(index, self.cluster.nodes[index].process_id());
    }

    /// Injects faults for `duration`; afterwards all nodes run and reach each other.
    pub async fn torment(mut self, shared: &Shared, duration: Duration) -> Nemesis {
        let began = Instant::now();
        while began.elapsed() < duration {
            let kind = self.draw();
            let node = match kind {
                Kind::KillLeader => tokio::task::block_in_place(|| self.cluster.leader_of(DATA_REGION)),
                _ => self.rng.below(self.cluster.nodes.len() as u64) as usize,
            };
            println!("{:>8.1} s: {kind:?}, store {}", began.elapsed().as_secs_f64(), node + 1);
            *self.counts.entry(kind).or_default() += 1;
            self.inject(kind, node).await;
            self.cluster.nodes.iter_mut().for_each(|node| node.check_running());
            wait_for_progress(shared, kind).await;
            tokio::time::sleep(Duration::from_millis(self.rng.below(CALM_MS_MAX))).await;
        }
        tokio::task::block_in_place(|| self.cluster.wait_ready());
        let count = self.cluster.nodes.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(a, b)| a != b) {
            assert!(self.network.has_called(Party::Node(from), to), "node {from} calls node {to} through the proxy");
        }
        assert!(self.network.has_called(Party::Client, 0), "clients call through the proxy");
        self
    }

    fn draw(&mut self) -> Kind {
        match self.rng.below(KINDS.len() as u64 + u64::from(self.disks.can_fill())) {
            full if full == KINDS.len() as u64 => Kind::FullDisk,
            index => KINDS[index as usize],
        }
    }

    async fn last(&mut self) {
        tokio::time::sleep(Duration::from_millis(FAULT_MS / 5 + self.rng.below(FAULT_MS * 9 / 5))).await;
    }

    async fn inject(&mut self, kind: Kind, node: usize) {
        match kind {
            Kind::KillLeader | Kind::KillAny => self.kill_and_restart(vec![node]).await,
            Kind::KillAll => self.kill_and_restart((0..self.cluster.nodes.len()).collect()).await,
            Kind::RestartInOrder => {
                tokio::task::block_in_place(|| self.cluster.wait_ready());
                let status = tokio::task::block_in_place(|| self.cluster.nodes[node].stop());
                assert!(status.success(), "it stops in good order: {status}: {}", self.cluster.nodes[node].log_text());
                self.last().await;
                self.start(node);
            }
            Kind::Pause => {
                self.cluster.nodes[node].signal(Signal::STOP);
                self.last().await;
                self.cluster.nodes[node].signal(Signal::CONT);
            }
            Kind::FullDisk => {
                self.disks.fill(node);
                self.last().await;
                self.disks.free(node);
            }
            Kind::CutOff | Kind::CutInbound | Kind::CutOutbound | Kind::CutBetween | Kind::Slow => {
                self.disturb(kind, node);
                self.last().await;
                self.network.heal();
            }
        }
    }

    async fn kill_and_restart(&mut self, nodes: Vec<usize>) {
        for &node in &nodes {
            self.cluster.nodes[node].kill();
            self.network.set_process(node, None);
        }
        self.last().await;
        for node in nodes {
            self.start(node);
        }
    }

    fn disturb(&mut self, kind: Kind, node: usize) {
        let count = self.cluster.nodes.len();
        let this = Party::Node(node);
        if kind == Kind::CutBetween {
            let other = Party::Node((node + 1 + self.rng.below(count as u64 - 1) as usize) % count);
            self.network.disturb(this, other, Fault::Hold);
            self.network.disturb(other, this, Fault::Hold);
            return;
        }
        let fault = match kind {
            Kind::Slow => Fault::Delay(Duration::from_millis(5 + self.rng.below(200))),
            _ => Fault::Hold,
        };
        let others = (0..count).filter(|other| *other != node).map(Party::Node);
        for other in others.chain([Party::Client]) {
            if kind != Kind::CutOutbound {
                self.network.disturb(other, this, fault);
            }
            if kind != Kind::CutInbound {
                self.network.disturb(this, other, fault);
            }
        }
    }
}

async fn wait_for_progress(shared: &Shared, kind: Kind) {
    for counter in [&shared.answered, &shared.transfers, &shared.snapshots] {
        let goal = counter.load(Ordering::Acquire) + if std::ptr::eq(counter, &shared.answered) { PROGRESS } else { 1 };
        let deadline = Instant::now() + WAIT_MAX;
        while counter.load(Ordering::Acquire) < goal {
            assert!(Instant::now() < deadline, "no progress for {WAIT_MAX:?} after {kind:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
