//! Reads at timestamps, at any replica and without its leader (docs/internals/stale-reads.md): against transactions of
//! one key each, which lock it, get their commit timestamp, and commit.

use super::{merge, split};
use crate::cluster::{Cluster, EPOCH, REGION, families, small_config};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{Answer, Config, Epoch, Event, Region, RegionError, RegionId, StoreId, Ticket};
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

type Key = [u8; 2];

/// Of a transaction of one key. What is not answered with `Ok` is proposed again, until it is; only a prewrite is given
/// up, and rolled back.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Prewriting(Ticket),
    Prewritten,
    Committing(Ticket),
    RollingBack(Ticket),
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    stage: Stage,
    /// 0: it has none yet.
    commit_ts: u64,
}

/// Clients that write, and what clients that read have found.
#[derive(Default)]
struct Clients {
    running: BTreeMap<Key, Transaction>,
    /// Key, timestamp, and the commit timestamp of what was found.
    reads: Vec<(Key, u64, Option<u64>)>,
    refused: usize,
}

fn put_lock(key: Key, start_ts: u64) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(families::TXN_LOCK, key, start_ts.to_be_bytes());
    batch
}

fn remove_lock(key: Key, commit_ts: Option<u64>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.delete(families::TXN_LOCK, key);
    if let Some(ts) = commit_ts {
        batch.put(families::TXN_WRITE, [&key[..], &ts.to_be_bytes()].concat(), b"v");
    }
    batch
}

/// The newest commit of a key at or below a timestamp.
fn newest(view: &crate::cluster::view::Table, key: Key, ts: u64) -> Option<u64> {
    let own = view.0.keys().filter(|(family, physical)| *family == families::TXN_WRITE.0 && physical.starts_with(&key));
    let commits = own.map(|(_, physical)| u64::from_be_bytes(physical[2..].try_into().expect("a timestamp")));
    commits.filter(|commit_ts| *commit_ts <= ts).max()
}

/// Proposes at the leader of the key's region, if there is one.
fn propose(cluster: &mut Cluster, key: Key, batch: WriteBatch) -> Option<Ticket> {
    let region = cluster.region_at(&key);
    let leader = cluster.leader_of(region.id)?;
    cluster.node(leader).is_up().then(|| cluster.propose_in(leader, region.id, region.epoch, batch))
}

impl Clients {
    /// The next step of some client.
    fn work(&mut self, cluster: &mut Cluster) {
        let key = [b'a' + 3 * cluster.rng.below(8) as u8, b'm'];
        if cluster.rng.chance(1, 20) {
            let id = 1 + cluster.rng.below(3);
            if cluster.node(id).is_up() {
                cluster.node(id).flush();
            }
        }
        if cluster.rng.chance(1, 2) { self.read(cluster, key) } else { self.write(cluster, key) }
    }

    fn write(&mut self, cluster: &mut Cluster, key: Key) {
        let Some(mut running) = self.running.get(&key).copied() else {
            let start_ts = cluster.next_ts();
            if let Some(ticket) = propose(cluster, key, put_lock(key, start_ts)) {
                self.running.insert(key, Transaction { stage: Stage::Prewriting(ticket), commit_ts: 0 });
            }
            return;
        };
        let answer = match running.stage {
            Stage::Prewritten => None,
            Stage::Prewriting(ticket) | Stage::Committing(ticket) | Stage::RollingBack(ticket) => {
                let Some(answer) = cluster.answers.get(&ticket) else { return };
                Some(matches!(answer, Answer::Ok { .. }))
            }
        };
        match (running.stage, answer) {
            (Stage::Committing(_) | Stage::RollingBack(_), Some(true)) => {
                self.running.remove(&key);
                return;
            }
            (Stage::Prewriting(_), Some(true)) => running.stage = Stage::Prewritten,
            (Stage::Prewritten, _) | (Stage::Committing(_), _) => {
                if running.commit_ts == 0 {
                    running.commit_ts = cluster.next_ts();
                }
                // A slow client: others read meanwhile.
                if !cluster.rng.chance(1, 3) {
                    self.running.insert(key, running);
                    return;
                }
                let commit = remove_lock(key, Some(running.commit_ts));
                if let Some(ticket) = propose(cluster, key, commit) {
                    running.stage = Stage::Committing(ticket);
                }
            }
            (Stage::Prewriting(_) | Stage::RollingBack(_), _) => {
                // Its entry, if it takes effect, comes before one that another leader appends.
                if let Some(ticket) = propose(cluster, key, remove_lock(key, None)) {
                    running.stage = Stage::RollingBack(ticket);
                }
            }
        }
        self.running.insert(key, running);
    }

    fn read(&mut self, cluster: &mut Cluster, key: Key) {
        let id = 1 + cluster.rng.below(3);
        if !cluster.node(id).is_up() {
            return;
        }
        let ts = (cluster.last_ts + 3).saturating_sub(cluster.rng.below(40));
        let known = cluster.nodes[&StoreId(id)].readers.regions().into_iter().map(|(region, _)| region);
        let known: Vec<_> = known.filter(|region| region.contains(&key)).collect();
        let Some(region) = cluster.rng.pick(&known).cloned() else { return };
        match read_at(cluster, id, (region.id, region.epoch), key, ts) {
            Ok(found) => self.reads.push((key, ts, found)),
            Err(_) => self.refused += 1,
        }
    }

    /// Everything that was read is what is committed now, at those timestamps.
    fn check(&self, cluster: &Cluster) {
        for (key, ts, found) in &self.reads {
            let tables: Vec<_> = cluster.nodes.values().map(|node| newest(&node.visible, *key, *ts)).collect();
            assert!(
                tables.iter().all(|committed| committed == found),
                "a stale read of {key:?} at {ts} found {found:?}, but {tables:?} is committed"
            );
        }
    }
}

/// A read of a key at a timestamp, at a store: the commit timestamp of what it finds.
fn read_at(
    cluster: &mut Cluster,
    at: u64,
    (region, epoch): (RegionId, Epoch),
    key: Key,
    ts: u64,
) -> Result<Option<u64>, RegionError> {
    let node = cluster.node(at);
    let visible = node.visible.clone();
    let (view, region) = node.readers.read_at(StoreId(at), region, epoch, ts, || visible)?;
    assert!(region.contains(&key));
    Ok(newest(&view, key, ts))
}

/// The safe timestamp, as a read beyond all timestamps reports it.
fn safe_ts(cluster: &mut Cluster, at: u64) -> u64 {
    match read_at(cluster, at, (REGION, EPOCH), *b"aa", u64::MAX) {
        Err(RegionError::DataIsNotReady { region: REGION, safe_ts, peer }) => {
            assert_eq!(peer.0, 2000 + at);
            safe_ts
        }
        other => panic!("{other:?}"),
    }
}

/// Splits, merges and faults beside the clients; returns how many reads were served and refused.
pub fn run(seed: u64, config: Config) -> (usize, usize) {
    let mut clients = Clients::default();
    let mut work = |cluster: &mut Cluster| clients.work(cluster);
    let cluster = split::run_working(9_000 + seed, config, 14 * SECOND, 40, merge::disturb, &mut work);
    clients.check(&cluster);
    (clients.reads.len(), clients.refused)
}

pub fn config() -> Config {
    Config { safe_ts_ticks: 2, ..split::config() }
}

#[test]
fn stale_reads_find_exactly_what_is_committed() {
    let (mut served, mut refused) = (0, 0);
    for seed in 0..60 {
        let hibernate_ticks = if seed % 2 == 0 { 5 } else { 0 };
        let (some, others) = run(seed, Config { hibernate_ticks, ..config() });
        served += some;
        refused += others;
    }
    assert!(served > 6_000, "{served} were served, and {refused} refused");
}

/// For long runs: `STALE_SEEDS=1000..2000`.
#[test]
#[ignore = "takes the seeds from the environment, and as long as they say"]
fn random_seeds() {
    let seeds = std::env::var("STALE_SEEDS").expect("set");
    let (a, b) = seeds.split_once("..").expect("a range");
    for seed in a.parse::<u64>().expect("number")..b.parse().expect("number") {
        eprintln!("seed {seed}");
        run(seed, config());
    }
}

/// Under every leader, and whatever is locked later: what was served once is served again.
#[test]
fn safe_ts_monotone() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(seed, 3, config());
        cluster.put_surely(b"aa", b"v");
        let mut before = [0; 3];
        let mut slow = None;
        let mut leaders = std::collections::BTreeSet::new();
        for round in 0..12 {
            let start_ts = cluster.next_ts();
            cluster.run(SECOND);
            for at in 1..=3 {
                let now = safe_ts(&mut cluster, at);
                let highest = &mut before[at as usize - 1];
                assert!(now >= *highest, "store {at}: {now} after {highest}");
                *highest = now;
                if now > 0 {
                    read_at(&mut cluster, at, (REGION, EPOCH), *b"aa", now).expect("what is safe is served");
                }
            }
            let leader = cluster.wait_leader();
            leaders.insert(leader);
            match slow.take() {
                // A transaction that began before, and locks only now: the new leader knows the lock alone.
                None => {
                    let ticket = cluster.propose(leader, EPOCH, put_lock(*b"bb", start_ts));
                    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
                    slow = matches!(cluster.answers[&ticket], Answer::Ok { .. }).then_some(start_ts);
                }
                Some(_) => {
                    let commit_ts = cluster.next_ts();
                    let ticket = cluster.propose(leader, EPOCH, remove_lock(*b"bb", Some(commit_ts)));
                    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
                }
            }
            let to = StoreId(1 + (leader + round) % 3);
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to });
        }
        assert!(before.iter().all(|safe_ts| *safe_ts > 0) && leaders.len() > 1, "{before:?} under {leaders:?}");
        cluster.settle();
    }
}

#[test]
fn stale_read_future() {
    let mut cluster = Cluster::with_config(30, 3, config());
    cluster.put_surely(b"aa", b"v");
    for at in 1..=3 {
        safe_ts(&mut cluster, at);
    }
    cluster.run(2 * SECOND);
    let leader = cluster.wait_leader();
    for at in 1..=3 {
        // It leads or not: what is ahead is not ready, and no read waits for it.
        let now = safe_ts(&mut cluster, at);
        assert!(now > 0 && now <= cluster.last_ts, "store {at} of leader {leader}");
        let ahead = read_at(&mut cluster, at, (REGION, EPOCH), *b"aa", now + 1);
        assert!(matches!(ahead, Err(RegionError::DataIsNotReady { safe_ts, .. }) if safe_ts == now), "{ahead:?}");
        assert_eq!(read_at(&mut cluster, at, (REGION, EPOCH), *b"aa", now), Ok(None));
    }
    cluster.settle();
}

#[test]
fn a_lock_holds_the_safe_timestamp_back_until_its_end() {
    let mut cluster = Cluster::with_config(40, 3, config());
    let start_ts = cluster.next_ts();
    let leader = cluster.wait_leader();
    let ticket = cluster.propose(leader, EPOCH, put_lock(*b"bb", start_ts + 5));
    cluster.last_ts += 100;
    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    for _ in 0..30 {
        (1..=3).for_each(|at| _ = safe_ts(&mut cluster, at));
        cluster.run(SECOND / 10);
    }
    assert_eq!([1, 2, 3].map(|at| safe_ts(&mut cluster, at)), [start_ts + 4; 3]);
    let commit_ts = cluster.next_ts();
    let leader = cluster.wait_leader();
    cluster.propose(leader, EPOCH, remove_lock(*b"bb", Some(commit_ts)));
    cluster.until(20, "all go on", |cluster| (1..=3).all(|at| safe_ts(cluster, at) > commit_ts));
    for at in 1..=3 {
        assert_eq!(read_at(&mut cluster, at, (REGION, EPOCH), *b"bb", commit_ts), Ok(Some(commit_ts)));
        assert_eq!(read_at(&mut cluster, at, (REGION, EPOCH), *b"bb", commit_ts - 1), Ok(None));
    }
    cluster.settle();
}

/// Neither the reads nor the rounds end the hibernation, and a region that is not read causes no rounds.
#[test]
fn a_region_that_hibernates_is_read_and_hibernates_on() {
    for seed in 50..60 {
        let mut cluster = Cluster::with_config(seed, 3, Config { hibernate_ticks: 20, ..config() });
        cluster.put_surely(b"aa", b"v");
        let all_hibernate = |cluster: &mut Cluster| (1..=3).all(|id| cluster.status(id).hibernates);
        cluster.until(30, "all replicas hibernate", all_hibernate);
        cluster.run(3 * SECOND);
        assert_eq!(cluster.timestamps_asked, 0, "there was no read at a timestamp");
        for _ in 0..30 {
            (1..=3).for_each(|at| _ = safe_ts(&mut cluster, at));
            cluster.run(SECOND / 10);
            assert!(all_hibernate(&mut cluster), "seed {seed}: a replica woke up");
        }
        let behind = cluster.last_ts - (1..=3).map(|at| safe_ts(&mut cluster, at)).min().expect("three");
        assert!(cluster.timestamps_asked > 5 && behind < 5, "{behind} behind {}", cluster.last_ts);
        // After the last read the rounds end.
        cluster.run(cluster.config.tick_interval * (cluster.config.safe_ts_wanted_ticks as u32 + 10));
        let before = cluster.timestamps_asked;
        cluster.run(5 * SECOND);
        assert_eq!(cluster.timestamps_asked, before);
        cluster.settle();
    }
}

/// A leader that was deposed claims nothing about what it does not know.
#[test]
fn a_leader_that_is_cut_off_claims_nothing() {
    (70..80).for_each(|seed| is_cut_off(seed, config()));
}

/// It stands still while another one is elected, and goes on without any news of that.
pub fn is_cut_off(seed: u64, config: Config) {
    let mut cluster = Cluster::with_config(seed, 3, config);
    cluster.put_surely(b"aa", b"v");
    let leader = cluster.wait_leader();
    (1..=3).for_each(|at| _ = safe_ts(&mut cluster, at));
    cluster.run(SECOND);
    cluster.partition(&[leader]);
    cluster.node(leader).paused_until = cluster.now + 6 * SECOND;
    cluster.until(20, "another leader", |cluster| {
        (1..=3).any(|id| id != leader && cluster.status(id).leads && cluster.status(id).has_first_of_term)
    });
    cluster.put_surely(b"aa", b"newer");
    cluster.until(10, "it goes on", |cluster| cluster.nodes[&StoreId(leader)].paused_until <= cluster.now);
    assert!(cluster.status(leader).leads, "it does not know it yet");
    let (before, ts) = (safe_ts(&mut cluster, leader), cluster.next_ts());
    cluster.node(leader).inbox.push_back(Event::Timestamp { ts });
    cluster.run(SECOND / 2);
    assert_eq!(safe_ts(&mut cluster, leader), before, "seed {seed}: it claims what it does not know");
    cluster.settle();
}

#[test]
fn after_a_split_and_a_merge_replicas_begin_anew() {
    for seed in 90..95 {
        let mut cluster = split::with_keys(seed);
        let read_all = |cluster: &mut Cluster, key: Key| -> Vec<Result<Option<u64>, RegionError>> {
            let region: Region = cluster.region_at(&key);
            let ts = cluster.last_ts;
            (1..=3).map(|at| read_at(cluster, at, (region.id, region.epoch), key, ts)).collect()
        };
        let is_served = |cluster: &mut Cluster, key: Key, ts: u64| {
            let region: Region = cluster.region_at(&key);
            (1..=3).all(|at| read_at(cluster, at, (region.id, region.epoch), key, ts).is_ok())
        };
        let ts = cluster.next_ts();
        cluster.until(20, "all serve it", |cluster| is_served(cluster, *b"k1", ts));
        cluster.split_surely(&[(RegionId(9), b"k10")]);
        let ts = cluster.next_ts();
        assert!(read_all(&mut cluster, *b"k2").iter().all(Result::is_err), "of another range nothing is known");
        for key in [*b"k0", *b"k2"] {
            cluster.until(20, "all serve it", |cluster| is_served(cluster, key, ts));
        }
        cluster.merge_surely(b"k2", b"k0");
        let ts = cluster.next_ts();
        for key in [*b"k0", *b"k2"] {
            cluster.until(20, "all serve it", |cluster| is_served(cluster, key, ts));
        }
        cluster.settle();
    }
}

/// A replica that has not applied as much does not serve it, and an install serves nothing.
#[test]
fn a_replica_that_lags_serves_what_it_has() {
    for seed in 100..105 {
        let mut cluster = Cluster::with_config(seed, 3, Config { follower_dead_ticks: 15, ..small_config() });
        cluster.put_surely(b"aa", b"v");
        cluster.settle();
        let leader = cluster.wait_leader();
        let at = leader % 3 + 1;
        let early = cluster.next_ts();
        cluster.until(20, "it serves", |cluster| safe_ts(cluster, at) > early);
        cluster.node(at).apply_delay = 100 * SECOND;
        let start_ts = cluster.next_ts();
        let ticket = cluster.propose(leader, EPOCH, put_lock(*b"bb", start_ts));
        cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        let commit_ts = cluster.next_ts();
        let ticket = cluster.propose(leader, EPOCH, remove_lock(*b"bb", Some(commit_ts)));
        cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        let late = cluster.next_ts();
        cluster.until(20, "the leader serves", |cluster| safe_ts(cluster, leader) > late);
        cluster.run(SECOND);
        assert!(safe_ts(&mut cluster, at) < commit_ts, "it has not applied the commit");
        assert_eq!(read_at(&mut cluster, at, (REGION, EPOCH), *b"bb", early), Ok(None));
        cluster.node(at).release_applies();
        cluster.until(20, "it serves as much", |cluster| safe_ts(cluster, at) > late);
        assert_eq!(read_at(&mut cluster, at, (REGION, EPOCH), *b"bb", late), Ok(Some(commit_ts)));
        cluster.settle();
    }
}
