//! A leader whose log cannot be written transfers its leadership, and does not take it back before the log can be
//! written.

use crate::cluster::{Cluster, REGION};
use kontiki_raftstore::{Answer, Event, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_leader_whose_disk_stalls_transfers_its_leadership_and_stays_a_follower_until_it_recovers() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let stalled = cluster.wait_leader();
        cluster.node(stalled).disk_stalled_until = cluster.now + 600 * SECOND;
        let stuck = cluster.put(stalled, b"k", b"stuck");
        cluster.until(8, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != stalled));
        cluster.until(5, "the old one knows", |cluster| !cluster.status(stalled).leads);
        cluster.put_surely(b"k", b"after");
        // Neither an order nor the silence of the others makes it lead.
        let leader = cluster.wait_leader();
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stalled) });
        cluster.run(5 * SECOND);
        cluster.partition(&[stalled]);
        for _ in 0..500 {
            cluster.step();
            assert!(
                !cluster.status(stalled).leads && cluster.status(stalled).leader.is_none_or(|l| l.store.0 != stalled)
            );
        }
        cluster.settle();
        assert!(cluster.answers.contains_key(&stuck));
        let leader = cluster.wait_leader();
        if leader != stalled {
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(stalled) });
            cluster.until(5, "it leads again", |cluster| cluster.leader() == Some(stalled));
        }
        cluster.settle();
    }
}

/// An election needs durable votes: without a quorum of them the leader stays, and serves reads.
#[test]
fn a_leader_among_stores_that_cannot_write_stays() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed, 3);
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let term = cluster.status(leader).term;
        for id in [leader, leader % 3 + 1] {
            cluster.node(id).disk_stalled_until = cluster.now + 20 * SECOND;
        }
        let stuck = cluster.put(leader, b"k", b"stuck");
        for _ in 0..1900 {
            cluster.step();
            assert!(cluster.lease_read(leader, b"k").is_ok(), "its lease needs no disk");
        }
        assert!(!cluster.answers.contains_key(&stuck));
        cluster.until(5, "the write continues when they can write", |cluster| cluster.answers.contains_key(&stuck));
        assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
        cluster.settle();
    }
}

#[test]
fn a_store_that_can_write_keeps_what_it_leads() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.wait_leader();
    let write = cluster.put(leader, b"k", b"v");
    cluster.node(leader).inbox.push_back(Event::LogWritable { writable: true });
    cluster.run(5 * SECOND);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(matches!(cluster.answers[&write], Answer::Ok { .. }));
}
