//! Reads at replicas that do not lead (docs/internals/replica-reads.md).

use super::members::old_replica;
use super::snapshots::leave_behind;
use crate::cluster::families;
use crate::cluster::node::Job;
use crate::cluster::{Cluster, EPOCH, NetworkFaults, REGION, small_config};
use kontiki_raftstore::{
    Answer, Config, Event, MemberChange, Peer, Region, RegionError, StoreId, Ticket, meta, replica_id,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn ask_read(cluster: &mut Cluster, at: u64) -> Ticket {
    let ticket = cluster.new_read();
    cluster.node(at).ask(ticket, Event::ReplicaRead { region: REGION, epoch: EPOCH, read_at: 0, ticket });
    ticket
}

fn ask_to_show(cluster: &mut Cluster, at: u64, index: u64) -> Ticket {
    let ticket = cluster.new_ticket();
    cluster.node(at).ask(ticket, Event::ReplicaShows { region: REGION, index, ticket });
    ticket
}

fn is_ok(cluster: &Cluster, ticket: Ticket) -> bool {
    matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. }))
}

/// A whole read, as the server does it: what it saw of the key, and the index that it showed.
pub fn read(cluster: &mut Cluster, at: u64, key: &[u8]) -> Option<(Option<Vec<u8>>, u64)> {
    let ticket = ask_read(cluster, at);
    cluster.until(20, "an answer to the read", |cluster| cluster.answers.contains_key(&ticket));
    let Answer::Ok { index } = cluster.answers[&ticket] else { return None };
    let visible = &cluster.node(at).visible;
    let shown = meta::applied_index(families::META, visible, REGION).expect("readable").expect("it has data");
    let value = visible.0.get(&(families::DEFAULT.0, key.to_vec())).map(|value| value.to_vec());
    assert!(shown >= index, "what the leader has applied is applied here");
    if shown > index {
        let ticket = ask_to_show(cluster, at, shown);
        cluster.until(20, "an answer to the second question", |cluster| cluster.answers.contains_key(&ticket));
        if !is_ok(cluster, ticket) {
            return None;
        }
    }
    if let Some(leader) = cluster.leader() {
        assert!(cluster.status(leader).applied_index >= shown, "the leader's readers see as much");
    }
    Some((value, shown))
}

#[test]
fn followers_and_learners_serve_fresh_reads() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_members(seed, 4, 3, small_config());
        cluster.checker.members_change = true;
        let learner = Peer { id: replica_id(4, REGION), store: StoreId(4) };
        cluster.change_surely(MemberChange::AddLearner(learner));
        cluster.settle();
        let mut served = 0;
        for i in 0..40u32 {
            let at = 1 + cluster.rng.below(4);
            cluster.put_surely(b"k", &i.to_le_bytes());
            let leader = cluster.wait_leader();
            cluster.put(leader, b"k", &(1000 + i).to_le_bytes());
            if let Some((value, _)) = read(&mut cluster, at, b"k") {
                let value = value.expect("it was written");
                let value = u32::from_le_bytes(value.try_into().expect("four bytes"));
                assert!(value == i || value == 1000 + i, "{value} after {i} was acknowledged");
                served += 1;
            }
        }
        assert!(served > 35, "nothing is in the way: {served}");
        cluster.settle();
    }
}

#[test]
fn reads_beside_faults_are_fresh_or_refused() {
    let mut served = 0;
    for seed in 0..30 {
        // In half of all runs proposals wait for others.
        let gather_round_max = if seed % 2 == 0 { Duration::ZERO } else { Duration::MAX };
        let mut cluster = Cluster::with_config(100 + seed, 3, Config { gather_round_max, ..small_config() });
        cluster.network_faults =
            NetworkFaults { loss: 10, duplication: 10, delay_ms_max: 60, ..NetworkFaults::default() };
        let mut tickets = Vec::new();
        while cluster.now < 20 * SECOND {
            let id = 1 + cluster.rng.below(3);
            match cluster.rng.below(100) {
                0 => cluster.partition(&[id]),
                1 | 2 => cluster.heal(),
                3 if cluster.node(id).is_up() && cluster.nodes.values().filter(|node| node.is_up()).count() == 3 => {
                    cluster.crash(id);
                    cluster.start(id);
                }
                4 => {
                    let to = StoreId(1 + cluster.rng.below(3));
                    cluster.node(id).inbox.push_back(Event::TransferLeader { region: REGION, to });
                }
                5..=14 => tickets.push(ask_read(&mut cluster, id)),
                15..=30 => {
                    if let Some(leader) = cluster.leader() {
                        cluster.put(leader, b"k", b"v");
                    }
                }
                _ => {}
            }
            cluster.step();
        }
        cluster.settle();
        // The checker has compared each index with what was acknowledged before the read.
        served += tickets.iter().filter(|ticket| is_ok(&cluster, **ticket)).count();
    }
    assert!(served > 1000, "reads are served: {served}");
}

#[test]
fn an_answer_to_an_earlier_process_is_no_answer() {
    let mut refused = 0;
    for seed in 0..20 {
        let mut cluster = Cluster::new(400 + seed, 3);
        cluster.put_surely(b"k", b"0");
        cluster.settle();
        let leader = cluster.wait_leader();
        let at = leader % 3 + 1;
        cluster.network_faults = NetworkFaults { delay_ms_max: 400, ..NetworkFaults::default() };
        ask_read(&mut cluster, at);
        cluster.run(Duration::from_millis(100));
        cluster.crash(at);
        cluster.start(at);
        // The checker compares the answers with what is acknowledged when their reads begin.
        for value in 0..8u8 {
            cluster.put(leader, b"k", &[value]);
            cluster.run(Duration::from_millis(100));
            let ticket = ask_read(&mut cluster, at);
            cluster.run(Duration::from_millis(100));
            refused += u64::from(!is_ok(&cluster, ticket));
        }
        cluster.settle();
    }
    assert!(refused > 0, "some reads wait for an answer");
}

#[test]
fn a_read_of_a_replica_that_is_cut_off_is_refused_in_time() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(200 + seed, 5);
        cluster.put_surely(b"k", b"0");
        cluster.settle();
        let leader = cluster.wait_leader();
        let at = leader % 5 + 1;
        // Cut off alone, or with the old leader, which does not know that it was deposed.
        let side = if seed % 2 == 0 { vec![at] } else { vec![at, leader] };
        cluster.partition(&side);
        cluster.until(20, "another leader", |cluster| {
            (1..=5).any(|id| !side.contains(&id) && cluster.replica(id).is_some_and(|replica| replica.leads))
        });
        cluster.run(SECOND);
        cluster.put_surely(b"k", b"1");
        let ticket = ask_read(&mut cluster, at);
        cluster.until(10, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        assert!(!is_ok(&cluster, ticket), "seed {seed}: a stale read");
        cluster.settle();
    }
}

#[test]
fn a_state_is_shown_when_the_leader_has_applied_it() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(300 + seed, 3);
        cluster.put_surely(b"k", b"0");
        cluster.settle();
        let leader = cluster.wait_leader();
        let at = leader % 3 + 1;
        cluster.node(leader).apply_delay = 2 * SECOND;
        cluster.put(leader, b"k", b"1");
        let before = cluster.status(leader).applied_index;
        cluster.until(5, "the follower is ahead", |cluster| cluster.status(at).applied_index > before);
        let shown = cluster.status(at).applied_index;
        assert!(cluster.status(leader).applied_index < shown);
        let ticket = ask_to_show(&mut cluster, at, shown);
        cluster.run(SECOND / 2);
        assert!(!cluster.answers.contains_key(&ticket), "a reader at the leader does not see it yet");
        cluster.until(10, "it may be shown", |cluster| is_ok(cluster, ticket));
        assert!(cluster.status(leader).applied_index >= shown);
        cluster.settle();
    }
}

#[test]
fn a_region_that_hibernates_serves_reads_of_its_followers() {
    for seed in 0..10 {
        let mut cluster = Cluster::with_config(400 + seed, 3, Config { hibernate_ticks: 20, ..small_config() });
        cluster.put_surely(b"k", b"0");
        let all_hibernate = |cluster: &mut Cluster| (1..=3).all(|id| cluster.status(id).hibernates);
        cluster.until(30, "all replicas hibernate", all_hibernate);
        let leader = cluster.leader().expect("one leads");
        let at = leader % 3 + 1;
        assert!(read(&mut cluster, at, b"k").is_some_and(|(value, _)| value.as_deref() == Some(b"0")));
        cluster.until(30, "all replicas hibernate again", all_hibernate);
    }
}

#[test]
fn a_replica_that_is_removed_answers_its_reads() {
    let mut cluster = Cluster::new(500, 3);
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"0");
    let leader = cluster.wait_leader();
    let at = leader % 3 + 1;
    cluster.separate(leader, at);
    let ticket = ask_read(&mut cluster, at);
    let old = old_replica(&cluster, leader, at);
    cluster.run(SECOND / 10);
    cluster.join(leader, at);
    cluster.change_surely(MemberChange::Remove(old));
    cluster.until(30, "it is gone", |cluster| cluster.replica(at).is_none());
    assert!(cluster.answers.contains_key(&ticket), "no ticket is lost");
}

/// Answers of the leader that were delayed, and come after later questions, and again and again.
#[test]
fn replica_read_order() {
    for seed in 600..610 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"0");
        cluster.settle();
        let leader = cluster.wait_leader();
        let at = leader % 3 + 1;
        // The questions arrive, and what the leader answers does not.
        cluster.cut.insert((StoreId(leader), StoreId(at)));
        cluster.record(at);
        let first = ask_read(&mut cluster, at);
        cluster.run(SECOND / 4);
        let delayed = cluster.recorded();
        assert!(!delayed.is_empty() && !cluster.answers.contains_key(&first));
        cluster.put_surely(b"k", b"1");
        cluster.heal();
        let second = ask_read(&mut cluster, at);
        // Its checker compares the index of each answer with what was acknowledged before the question.
        cluster.until(10, "both are answered", |cluster| {
            cluster.bring(leader, at, delayed.clone());
            [first, second].iter().all(|ticket| cluster.answers.contains_key(ticket))
        });
        let Answer::Ok { index } = cluster.answers[&second] else { panic!("{:?}", cluster.answers[&second]) };
        cluster.until(10, "it is applied", |cluster| cluster.status(at).applied_index >= index);
        assert_eq!(read(&mut cluster, at, b"k").expect("served").0.as_deref(), Some(&b"1"[..]));
        cluster.settle();
    }
}

/// A replica that takes a snapshot in serves nothing of it before it has all; clients go elsewhere meanwhile.
#[test]
fn replica_read_snapshot() {
    let mut seen = 0;
    for seed in 700..710 {
        let config = Config { follower_dead_ticks: 20, safe_ts_ticks: 2, ..small_config() };
        let mut cluster = Cluster::with_config(seed, 3, config);
        let at = cluster.wait_leader() % 3 + 1;
        leave_behind(&mut cluster, at);
        cluster.start(at);
        cluster.node(at).job_delay_ms_max = 1_000;
        let mut tickets = Vec::new();
        let installs = |cluster: &Cluster| {
            let jobs = &cluster.nodes[&StoreId(at)].jobs;
            jobs.iter().any(|(_, job)| matches!(job, Job::Install { .. }))
        };
        for _ in 0..3_000 {
            if installs(&cluster) {
                seen += 1;
                tickets.push(ask_read(&mut cluster, at));
                let readers = cluster.nodes[&StoreId(at)].readers.clone();
                assert!(readers.view_of_replica(REGION, || ()).is_none(), "a view would hold a part of it");
                let stale = readers.read_at(StoreId(at), REGION, EPOCH, 1, || ());
                assert!(matches!(stale, Err(RegionError::DataIsNotReady { .. })), "{stale:?}");
            }
            cluster.step();
        }
        assert!(cluster.node(at).installs > 0, "it caught up by a snapshot");
        for ticket in &tickets {
            assert!(matches!(cluster.answers[ticket], Answer::Refused(RegionError::NotLeader { .. })));
        }
        let (value, _) = read(&mut cluster, at, b"before").expect("served");
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
        assert_eq!(read(&mut cluster, at, b"deleted").expect("served").0, None);
        cluster.settle();
    }
    assert!(seen > 100, "installs were seen in {seen} steps");
}

#[test]
fn the_leaders_gate_holds_reads_back_and_learns_the_highest_position() {
    let mut cluster = Cluster::new(7, 3);
    cluster.put_surely(b"k", b"1");
    cluster.settle();
    let leader = cluster.leader().expect("it leads");
    let asked: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = asked.clone();
    let gate = move |region: &Region, read_at: u64| {
        assert_eq!(region.id, REGION);
        let mut seen = seen.lock().expect("not poisoned");
        seen.push(read_at);
        seen.len() > 2
    };
    cluster.node(leader).store.as_mut().expect("it runs").set_read_gate(Arc::new(gate));
    let follower = (1..=3).find(|id| *id != leader).expect("three stores");
    let tickets: Vec<Ticket> = [5, 9, 7, 0]
        .into_iter()
        .map(|read_at| {
            let ticket = cluster.new_read();
            let event = Event::ReplicaRead { region: REGION, epoch: EPOCH, read_at, ticket };
            cluster.node(follower).ask(ticket, event);
            ticket
        })
        .collect();
    let is_answered = |cluster: &Cluster| tickets.iter().all(|ticket| cluster.answers.contains_key(ticket));
    cluster.until(20, "the gate opens", |cluster| is_answered(cluster));
    assert!(tickets.iter().all(|ticket| is_ok(&cluster, *ticket)));
    let asked = asked.lock().expect("not poisoned").clone();
    assert!(asked.len() >= 3 && asked.iter().all(|read_at| *read_at == 9), "one question for all: {asked:?}");
    // A read without a position does not ask it.
    let ticket = ask_read(&mut cluster, follower);
    cluster.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(is_ok(&cluster, ticket));
}
