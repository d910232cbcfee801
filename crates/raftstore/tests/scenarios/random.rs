use crate::cluster::families;
use crate::cluster::{Cluster, EPOCH, NetworkFaults, small_config};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{Config, Event, ReadRefusal, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The only store whose snapshot files a crash may take or damage.
const LOSES_FILES: u64 = 2;

pub fn disturb(cluster: &mut Cluster, stores: u64) {
    let id = 1 + cluster.rng.below(stores);
    let up = cluster.nodes.values().filter(|node| node.is_up()).count() as u64;
    match cluster.rng.below(12) {
        0 | 1 if cluster.node(id).is_up() && (up > stores / 2 + 1 || cluster.rng.chance(1, 4)) => {
            if id == LOSES_FILES && cluster.rng.chance(1, 2) {
                cluster.crash_and_lose_files(id);
            } else {
                cluster.crash(id);
            }
        }
        0..=3 => {
            let down = (1..=stores).find(|id| !cluster.nodes[&StoreId(*id)].is_up());
            if let Some(id) = down {
                cluster.start(id);
            }
        }
        4 => cluster.partition(&[id]),
        5 => {
            let other = 1 + cluster.rng.below(stores);
            cluster.cut.insert((StoreId(id), StoreId(other)));
        }
        6 => cluster.heal(),
        7 => {
            let pause = Duration::from_millis(cluster.rng.below(3000));
            cluster.node(id).paused_until = cluster.now + pause;
        }
        8 => {
            let stall = Duration::from_millis(cluster.rng.below(2000));
            cluster.node(id).disk_stalled_until = cluster.now + stall;
        }
        9 => {
            let (loss, duplication) = (cluster.rng.below(20), cluster.rng.below(20));
            cluster.network_faults = NetworkFaults {
                loss,
                duplication,
                delay_ms_max: 1 + cluster.rng.below(300),
                ..NetworkFaults::default()
            };
        }
        10 => {
            cluster.node(id).apply_delay = Duration::from_millis(cluster.rng.below(100));
            cluster.node(id).job_delay_ms_max = 1 << cluster.rng.below(12);
        }
        _ => {
            let to = StoreId(1 + cluster.rng.below(stores));
            let breaks = cluster.rng.chance(1, 4);
            let transfer = Event::TransferLeader { region: crate::cluster::REGION, to };
            let event = if breaks { Event::Unreachable { store: to } } else { transfer };
            if cluster.node(id).is_up() {
                cluster.node(id).inbox.push_back(event);
            }
        }
    }
}

pub fn work(cluster: &mut Cluster, stores: u64) {
    let id = 1 + cluster.rng.below(stores);
    if !cluster.node(id).is_up() {
        return;
    }
    // A paused node is one whose store is stalled: its reader threads continue.
    let paused = cluster.nodes[&StoreId(id)].paused_until > cluster.now;
    let key = [b'a' + cluster.rng.below(8) as u8];
    match cluster.rng.below(10) {
        0..=4 if !paused => {
            let value = cluster.rng.next_u64().to_le_bytes();
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, key, value);
            batch.put(families::TXN_LOCK, key, value);
            cluster.propose(id, EPOCH, batch);
        }
        5 if !paused => {
            cluster.barrier(id);
        }
        6 if !paused && cluster.rng.chance(1, 20) => cluster.node(id).flush(),
        _ => {
            if cluster.lease_read(id, &key) == Err(ReadRefusal::NoLease) && !paused {
                cluster.barrier(id);
            }
        }
    }
}

pub fn run(seed: u64, config: Config) -> Cluster {
    let stores = if seed.is_multiple_of(5) { 5 } else { 3 };
    let mut cluster = Cluster::with_config(seed, stores, config);
    for id in 1..=stores {
        cluster.node(id).rate_percent = 95 + cluster.rng.clone().child(&format!("rate {id}")).below(11);
    }
    let end = 15 * SECOND;
    while cluster.now < end {
        if cluster.rng.chance(1, 60) {
            disturb(&mut cluster, stores);
        }
        for _ in 0..cluster.rng.below(4) {
            work(&mut cluster, stores);
        }
        cluster.step();
    }
    cluster
}

/// Small bounds, so that truncation and snapshots happen in seconds.
pub fn hasty() -> Config {
    Config { follower_dead_ticks: 15, ..small_config() }
}

#[test]
fn random_faults_from_200_seeds() {
    let (mut lease_reads, mut installs, mut entries_read) = (0, 0, 0);
    for seed in 0..200 {
        let memory_evict_percent = if seed % 2 == 0 { 0 } else { 75 };
        let mut cluster = run(seed, Config { memory_evict_percent, ..hasty() });
        cluster.settle();
        entries_read += cluster.nodes.values().map(|node| node.entries_read).sum::<usize>();
        lease_reads += cluster.checker.lease_reads;
        installs += cluster.nodes.values().map(|node| node.installs).sum::<usize>();
    }
    assert!(
        lease_reads > 10_000 && installs > 20 && entries_read > 1_000,
        "the runs cover enough lease reads, installs and entries read back: {lease_reads}, {installs}, {entries_read}"
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let cluster = run(seed, hasty());
        let terms: Vec<_> =
            cluster.nodes.values().map(|node| (node.visible.clone(), node.observations.clone())).collect();
        (format!("{terms:?}"), cluster.answers.clone())
    };
    for seed in [3, 5, 8] {
        assert!(trace(seed) == trace(seed), "seed {seed} repeats");
    }
}
