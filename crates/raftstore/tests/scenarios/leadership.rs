use crate::cluster::families;
use crate::cluster::{Cluster, EPOCH, REGION};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{Answer, Epoch, Event, Observation, RegionError, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn first_election() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.wait_leader();
        assert!(cluster.now < 6 * SECOND, "{:?}", cluster.now);
        cluster.run(3 * SECOND);
        assert_eq!(cluster.leader(), Some(leader), "a healthy cluster keeps its leader");
    }
}

#[test]
fn a_single_store_leads_at_once_and_serves_by_lease() {
    let mut cluster = Cluster::new(1, 1);
    cluster.wait_leader();
    assert!(cluster.now < SECOND / 2, "{:?}", cluster.now);
    cluster.put_surely(b"a", b"1");
    assert_eq!(cluster.lease_read(1, b"a").expect("leased").as_deref(), Some(&b"1"[..]));
    cluster.crash(1);
    cluster.start(1);
    cluster.wait_leader();
    assert_eq!(cluster.lease_read(1, b"a").expect("leased").as_deref(), Some(&b"1"[..]));
}

#[test]
fn prevote_isolated() {
    let mut cluster = Cluster::new(4, 3);
    let leader = cluster.wait_leader();
    let isolated = leader % 3 + 1;
    let term = cluster.status(leader).term;
    cluster.partition(&[isolated]);
    cluster.run(10 * SECOND);
    cluster.heal();
    cluster.run(3 * SECOND);
    assert_eq!((cluster.leader(), cluster.status(isolated).term), (Some(leader), term), "nothing changed");
}

#[test]
fn prevote_minority_leader() {
    let mut cluster = Cluster::new(5, 3);
    let old = cluster.wait_leader();
    cluster.partition(&[old]);
    cluster.until(20, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    cluster.until(20, "the old one steps down", |cluster| !cluster.status(old).leads);
    let node = cluster.node(old);
    assert!(matches!(node.observations.last(), Some(Observation::LeaderChanged { leader: None, .. })));
    assert!(node.observations.iter().any(|o| matches!(o, Observation::SteppedDown { .. })));
    cluster.settle();
}

#[test]
fn one_way_link() {
    let mut cluster = Cluster::new(7, 3);
    let old = cluster.wait_leader();
    // The leader's messages arrive but it receives none: it must not keep the others from electing.
    for other in 1..=3 {
        cluster.cut.insert((StoreId(other), StoreId(old)));
    }
    cluster.until(20, "it steps down", |cluster| !cluster.status(old).leads);
    cluster.until(20, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    cluster.settle();
}

#[test]
fn transfer_basic() {
    let mut cluster = Cluster::new(10, 3);
    let old = cluster.wait_leader();
    let target = old % 3 + 1;
    cluster.put_surely(b"k", b"v");
    cluster.node(old).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.until(3, "the target leads", |cluster| cluster.leader() == Some(target));
    assert_eq!(cluster.lease_read(target, b"k").expect("leased").as_deref(), Some(&b"v"[..]));
    cluster.settle();
}

#[test]
fn transfer_isolated_target() {
    let mut cluster = Cluster::new(15, 3);
    let leader = cluster.wait_leader();
    let target = leader % 3 + 1;
    cluster.partition(&[target]);
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.run(SECOND / 10);
    // During a transfer, clients are neither accepted here nor redirected to a particular store.
    let ticket = cluster.put(leader, b"k", b"v");
    cluster.run(SECOND / 10);
    let refusal = Answer::Refused(RegionError::NotLeader { region: REGION, leader: None });
    assert_eq!(cluster.answers[&ticket], refusal);
    cluster.until(5, "the old leader resumes", |cluster| {
        let ticket = cluster.put(leader, b"k", b"v");
        cluster.run(SECOND / 2);
        matches!(cluster.answers.get(&ticket), Some(Answer::Ok { .. }))
    });
    assert!(cluster.status(leader).leads);
    cluster.settle();
}

#[test]
fn forbid_forwarding() {
    let mut cluster = Cluster::new(16, 3);
    let leader = cluster.wait_leader();
    let follower = leader % 3 + 1;
    let (write, read) = (cluster.put(follower, b"k", b"v"), cluster.barrier(follower));
    cluster.run(SECOND / 2);
    for ticket in [write, read] {
        match &cluster.answers[&ticket] {
            Answer::Refused(RegionError::NotLeader { leader: Some(peer), .. }) => {
                assert_eq!(peer.store, StoreId(leader))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(cluster.status(leader).last_index, cluster.status(follower).last_index, "nothing was forwarded");
}

#[test]
fn a_message_for_another_store_or_peer_is_ignored() {
    let mut cluster = Cluster::new(37, 3);
    let leader = cluster.wait_leader();
    let other = leader % 3 + 1;
    let term = cluster.status(leader).term;
    cluster.node(leader).inbox.push_back(Event::Message(bytes::Bytes::from_static(b"\xff not a message")));
    // Everything a follower sends to store 4 - x is also delivered to the leader, by mistake.
    for _ in 0..50 {
        cluster.step();
        let misdelivered = cluster.node(other).outbound.clone();
        for (_, bytes) in misdelivered {
            cluster.node(leader).inbox.push_back(Event::Message(bytes));
        }
    }
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
}

#[test]
fn refusals_name_what_is_wrong() {
    let mut cluster = Cluster::new(3, 1);
    let leader = cluster.wait_leader();
    let batch = |family, key: &[u8], bytes: usize| {
        let mut batch = WriteBatch::new();
        batch.put(family, key, vec![0; bytes]);
        batch
    };
    let max = cluster.config.proposal_bytes_max;
    let old_epoch = Epoch { version: 0, ..EPOCH };
    let tickets = [
        cluster.propose(leader, old_epoch, batch(families::DEFAULT, b"a", 1)),
        cluster.propose(leader, EPOCH, batch(families::DEFAULT, b"z", 1)),
        cluster.propose(leader, EPOCH, batch(families::META, b"a", 1)),
        cluster.propose(leader, EPOCH, batch(families::DEFAULT, b"a", max)),
        cluster.propose(leader, EPOCH, batch(families::DEFAULT, b"a", 1)),
    ];
    cluster.run(SECOND / 2);
    let answer = |ticket| match &cluster.answers[ticket] {
        Answer::Refused(error) => error.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(answer(&tickets[0]), RegionError::EpochNotMatch { current } if current.len() == 1));
    assert!(matches!(answer(&tickets[1]), RegionError::KeyNotInRegion { key, .. } if key == "z"));
    assert!(matches!(answer(&tickets[2]), RegionError::KeyNotInRegion { .. }));
    assert!(matches!(answer(&tickets[3]), RegionError::EntryTooLarge { bytes_max, .. } if bytes_max == max as u64));
    assert!(matches!(cluster.answers[&tickets[4]], Answer::Ok { .. }), "the group works after refusals");
}
