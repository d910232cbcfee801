//! What nodes tell each other about transactions: reads at replicas that do not lead, timestamps of new leaders, waits.

use super::several_nodes_test::{DATA, Nodes, context, scheduler};
use super::*;
use crate::planted::{self, Bug};
use futures::FutureExt;
use futures::future::BoxFuture;
use kontiki_engine::View;
use kontiki_txn::{
    Assertion, AssertionLevel, Mutation, MutationOp, PessimisticAction, Prewrite, Prewritten, Replicated, TXN_LOCK,
    TimeStamp, WaitFor, lock_key,
};

pub(super) fn prewrite(key: &'static str, start_ts: TimeStamp) -> Prewrite {
    let mutation = Mutation {
        key: key.into(),
        op: MutationOp::Put("v".into()),
        assertion: Assertion::None,
        pessimistic: PessimisticAction::Skip,
        expected_for_update_ts: None,
    };
    Prewrite {
        mutations: vec![mutation],
        primary: key.into(),
        start_ts,
        ttl_ms: 3000,
        txn_size: 1,
        min_commit_ts: TimeStamp::ZERO,
        for_update_ts: TimeStamp::ZERO,
        assertion_level: AssertionLevel::Off,
        use_async_commit: true,
        secondaries: Vec::new(),
        try_one_pc: false,
        max_commit_ts: TimeStamp::ZERO,
    }
}

fn begin(node: &NodeHandle, key: &'static str, start_ts: TimeStamp) -> BoxFuture<'static, Prewritten> {
    let (scheduler, context) = (scheduler(node), context(node));
    async move { scheduler.prewrite(&context, prewrite(key, start_ts)).await.expect("prewrites") }.boxed()
}

/// A cluster with a leader whose timestamps are synchronised.
fn cluster() -> (Nodes, NodeHandle, NodeHandle) {
    let mut nodes = Nodes::start(3, |_, _| {});
    let leader = nodes.leader(DATA);
    let follower = (1..=3).find(|id| *id != leader).expect("three nodes");
    let (leader, follower) = (nodes.handle(leader), nodes.handle(follower));
    nodes.until("the follower knows the leader", |_| follower.region(DATA).is_some_and(|(_, leader)| leader.is_some()));
    let answer = nodes.run(begin(&leader, "first", TimeStamp(1)));
    let from_oracle = leader.concurrency().max_ts();
    assert!(from_oracle.physical_ms() > 0, "a timestamp of the oracle was fetched");
    assert_eq!(answer.min_commit_ts, from_oracle.next());
    (nodes, leader, follower)
}

#[test]
fn a_read_at_a_follower_is_taken_into_account_by_the_leader() {
    let (mut nodes, leader, follower) = cluster();
    let read_at = TimeStamp(leader.concurrency().max_ts().0 + 1000);
    let reading = context(&follower).at_any_replica();
    nodes.run(follower.view_at(&reading, read_at)).expect("a follower serves it");
    assert_eq!(leader.concurrency().max_ts(), read_at);
    let answer = nodes.run(begin(&leader, "second", TimeStamp(2)));
    assert_eq!(answer.min_commit_ts, read_at.next());
    // A read of the newest version has no timestamp.
    nodes.run(follower.view_at(&reading, TimeStamp::MAX)).expect("a follower serves it");
    assert_eq!(leader.concurrency().max_ts(), read_at);
}

fn follower_sees_the_lock_on_its_way() -> bool {
    let (mut nodes, leader, follower) = cluster();
    let read_at = TimeStamp(leader.concurrency().max_ts().0 + 1000);
    let mut prewriting = begin(&leader, "second", TimeStamp(2));
    nodes.until("the lock is in memory", |_| {
        let is_done = prewriting.as_mut().now_or_never().is_some();
        assert!(!is_done, "it takes some messages");
        !leader.concurrency().memory_locks().is_empty()
    });
    let reading = context(&follower).at_any_replica();
    let (view, answer) = nodes.run(async { futures::join!(follower.view_at(&reading, read_at), prewriting) });
    let view = view.expect("a follower serves it");
    assert!(answer.min_commit_ts <= read_at, "the read has to see it");
    view.get(TXN_LOCK, &lock_key(b"second")).expect("readable").is_some()
}

#[test]
fn a_read_at_a_follower_sees_a_lock_that_was_on_its_way() {
    assert!(follower_sees_the_lock_on_its_way());
    planted::set(Some(Bug::ForgetReplicaReads));
    let sees_it = follower_sees_the_lock_on_its_way();
    planted::set(None);
    assert!(!sees_it, "without the leader's gate it is missed");
}

#[test]
fn the_first_commit_of_each_leadership_fetches_a_timestamp() {
    let (mut nodes, leader, _) = cluster();
    let before = leader.concurrency().max_ts();
    nodes.run(begin(&leader, "second", TimeStamp(2)));
    assert_eq!(leader.concurrency().max_ts(), before, "once is enough");
    nodes.split_at(b"x");
    nodes.run(begin(&leader, "third", TimeStamp(3)));
    let after_split = leader.concurrency().max_ts();
    assert!(after_split > before, "the range has changed");
    let to = (1..=3).map(StoreId).find(|store| *store != leader.store_id()).expect("three nodes");
    leader.transfer_leader(DATA, to);
    nodes.until("another leader", |nodes| nodes.handle(to.0).leading_term(DATA).is_some());
    let next = nodes.handle(to.0);
    assert_eq!(next.concurrency().max_ts(), TimeStamp::ZERO, "it has served no read");
    nodes.run(begin(&next, "fourth", TimeStamp(4)));
    assert!(next.concurrency().max_ts() > after_split);
}

#[test]
fn waits_of_several_stores_close_a_circle() {
    let mut nodes = Nodes::start(3, |_, _| {});
    nodes.leader(PLACEMENT_REGION);
    nodes.run_for(Duration::from_secs(1)); // Until all know it.
    let wait = |waiter: u64, holder: u64| WaitFor {
        waiter: TimeStamp(waiter),
        holder: TimeStamp(holder),
        key: format!("key of {holder}").into(),
    };
    for (first, second) in [(1, 2), (2, 3), (3, 1)] {
        let (first, second) = (nodes.handle(first).detector(), nodes.handle(second).detector());
        let mut quiet = first.detect(wait(10, 11));
        nodes.run_for(Duration::from_millis(100));
        assert!(!matches!(quiet.as_mut().now_or_never(), Some(Some(_))), "no circle yet");
        let circle = second.detect(wait(11, 10));
        assert_eq!(nodes.run(circle), Some(vec![wait(10, 11)]));
        first.forget(wait(10, 11));
        nodes.run_for(Duration::from_millis(100));
        let mut again = second.detect(wait(11, 10));
        nodes.run_for(Duration::from_millis(100));
        assert!(!matches!(again.as_mut().now_or_never(), Some(Some(_))), "the other wait has ended");
        second.forget(wait(11, 10));
        nodes.run_for(Duration::from_millis(100));
    }
}
