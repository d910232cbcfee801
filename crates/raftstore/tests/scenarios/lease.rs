use crate::cluster::{Cluster, REGION, STEP};
use kontiki_raftstore::{Answer, Event, ReadRefusal, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn lease_renew() {
    let mut cluster = Cluster::new(91, 3);
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"v");
    cluster.settle();
    let last = cluster.status(leader).last_index;
    for _ in 0..500 {
        cluster.step();
        assert_eq!(cluster.lease_read(leader, b"k").expect("leased").as_deref(), Some(&b"v"[..]));
    }
    assert_eq!(cluster.status(leader).last_index, last, "renewal proposes nothing");
}

#[test]
fn lease_expire_and_leader_behind_partition_read() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let old = cluster.wait_leader();
        cluster.put_surely(b"k", b"old");
        cluster.partition(&[old]);
        let barrier = cluster.barrier(old);
        let lease = cluster.config.lease_duration();
        let cut_at = cluster.now;
        while cluster.lease_read(old, b"k").is_ok() {
            cluster.step();
            assert!(cluster.now < cut_at + lease + 2 * STEP, "the lease outlives its quorum by its duration at most");
        }
        assert_eq!(cluster.lease_read(old, b"k"), Err(ReadRefusal::NoLease));
        cluster.until(20, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        cluster.put_surely(b"k", b"new");
        assert!(cluster.lease_read(old, b"k").is_err());
        cluster.until(20, "the barrier is answered", |cluster| cluster.answers.contains_key(&barrier));
        assert!(matches!(cluster.answers[&barrier], Answer::Refused(_)));
        cluster.settle();
    }
}

#[test]
fn a_read_barrier_waits_for_what_was_committed_before_it() {
    let mut cluster = Cluster::new(2, 3);
    let leader = cluster.wait_leader();
    cluster.node(leader).apply_delay = SECOND;
    let write = cluster.put(leader, b"k", b"v");
    cluster.until(2, "committed", |c| c.status(leader).committed_index > c.status(leader).applied_index);
    let read = cluster.barrier(leader);
    cluster.until(5, "both are answered", |c| c.answers.contains_key(&write) && c.answers.contains_key(&read));
    let (Answer::Ok { index: written }, Answer::Ok { index: read }) =
        (&cluster.answers[&write], &cluster.answers[&read])
    else {
        panic!("both succeed")
    };
    assert!(read >= written);
}

#[test]
fn suspect_transfer() {
    let mut cluster = Cluster::new(93, 3);
    let leader = cluster.wait_leader();
    let target = leader % 3 + 1;
    cluster.settle();
    // The target never gets the request, so the leader stays; but it cannot know that at once.
    cluster.cut.insert((StoreId(leader), StoreId(target)));
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.step();
    assert_eq!(cluster.lease_read(leader, b"k"), Err(ReadRefusal::NoLease));
    let read = cluster.barrier(leader);
    cluster.run(SECOND / 2);
    assert!(matches!(cluster.answers[&read], Answer::Ok { .. }), "a quorum decides meanwhile");
    assert_eq!(cluster.lease_read(leader, b"k"), Err(ReadRefusal::NoLease), "the target could still be elected");
    // When the transfer is given up, the third store promises not to vote for it: that is a quorum.
    cluster.until(2, "the transfer is void", |c| c.lease_read(leader, b"k").is_ok());
    cluster.settle();
}

#[test]
fn a_transfers_request_that_arrives_late_does_no_harm() {
    let mut cluster = Cluster::new(94, 3);
    let leader = cluster.wait_leader();
    let target = leader % 3 + 1;
    cluster.settle();
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(target) });
    cluster.step();
    let late = cluster.take_messages(leader, target);
    assert!(!late.is_empty(), "the request is in flight");
    cluster.until(5, "the transfer is given up", |cluster| cluster.lease_read(leader, b"k").is_ok());
    // Same term, and the target would campaign at once, with votes that no lease stops.
    let term = cluster.status(leader).term;
    cluster.node(target).inbox.extend(late.into_iter().map(Event::Message));
    cluster.run(2 * SECOND);
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
}

#[test]
fn pause_process() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let old = cluster.wait_leader();
        cluster.put_surely(b"k", b"old");
        cluster.node(old).paused_until = cluster.now + 10 * SECOND;
        cluster.until(9, "another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
        cluster.put_surely(b"k", b"new");
        // It resumes and believes that it leads; a reader thread is faster than the first message.
        assert!(cluster.status(old).leads);
        assert_eq!(cluster.lease_read(old, b"k"), Err(ReadRefusal::NoLease));
        cluster.settle();
    }
}

#[test]
fn clock_drift() {
    for seed in 0..30 {
        let mut cluster = Cluster::new(seed, 3);
        for id in 1..=3 {
            // Within the configured bound of 5 percent; `Checker` looks for a second lease after each step.
            cluster.node(id).rate_percent = 95 + 5 * ((seed + id) % 3);
        }
        for _ in 0..3 {
            let leader = cluster.wait_leader();
            cluster.partition(&[leader]);
            for _ in 0..300 {
                cluster.step();
                let _ = cluster.lease_read(leader, b"k");
            }
            cluster.heal();
        }
        cluster.settle();
    }
}

#[test]
fn read_before_own_term_apply() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, 3);
        let old = cluster.wait_leader();
        for id in 1..=3 {
            if id != old {
                cluster.node(id).apply_delay = 3 * SECOND;
            }
        }
        cluster.put_surely(b"k", b"v");
        cluster.crash(old);
        cluster.until(20, "a leader that has not applied", |cluster| {
            (1..=3).any(|id| id != old && cluster.status(id).leads)
        });
        let new = (1..=3).find(|id| *id != old && cluster.status(*id).leads).expect("just seen");
        for _ in 0..20 {
            cluster.step();
            if cluster.status(new).leads {
                assert!(cluster.lease_read(new, b"k").is_err(), "its state is not complete");
            }
        }
        cluster.settle();
    }
}

#[test]
fn a_restarted_follower_gives_no_vote_that_its_leader_relies_on() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3);
        let leader = cluster.wait_leader();
        let (near, far) = (leader % 3 + 1, (leader + 1) % 3 + 1);
        // The far one receives nothing for long and campaigns; the near one confirms the lease and then restarts.
        cluster.partition(&[far]);
        cluster.run(5 * SECOND);
        cluster.heal();
        cluster.cut.insert((StoreId(leader), StoreId(far)));
        cluster.cut.insert((StoreId(far), StoreId(leader)));
        cluster.crash(near);
        cluster.start(near);
        cluster.cut.insert((StoreId(leader), StoreId(near)));
        cluster.cut.insert((StoreId(near), StoreId(leader)));
        // `Checker` checks that two leases never overlap.
        cluster.until(20, "the other two elect", |cluster| cluster.leader().is_some_and(|id| id != leader));
        cluster.settle();
    }
}
