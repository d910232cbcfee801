//! Commands that clients repeat when the records of their transactions are collected: they are refused, or find
//! nothing, and are never executed a second time.

use super::several_nodes_test::{DATA, Nodes, context, scheduler};
use super::transactions_test::prewrite;
use super::*;
use kontiki_engine::{Family, Range};
use kontiki_placement::{Command as Ask, UpdateGcSafePoint};
use kontiki_txn::planted::{self, Bug};
use kontiki_txn::{
    Commit, Failure, KeyError, MutationOp, Prewrite, Prewritten, ReadOptions, Replicated, TXN_LOCK, TXN_WRITE,
    TimeStamp,
};

type Outcome<T> = Result<T, Failure<NodeError>>;

fn timestamp(nodes: &mut Nodes) -> TimeStamp {
    let node = nodes.handle(1);
    nodes.run(async move { node.timestamp().await }).expect("the oracle answers")
}

fn begin(nodes: &mut Nodes, command: &Prewrite) -> Outcome<Prewritten> {
    let leader = nodes.leader(DATA);
    let node = nodes.handle(leader);
    let (scheduler, context, command) = (scheduler(&node), context(&node), command.clone());
    nodes.run(async move { scheduler.prewrite(&context, command).await })
}

fn commit(nodes: &mut Nodes, command: &Commit) -> Outcome<TimeStamp> {
    let leader = nodes.leader(DATA);
    let node = nodes.handle(leader);
    let (scheduler, context, command) = (scheduler(&node), context(&node), command.clone());
    nodes.run(async move { scheduler.commit(&context, command).await })
}

fn value(nodes: &mut Nodes, key: &'static str) -> Option<Bytes> {
    let leader = nodes.leader(DATA);
    let (node, now) = (nodes.handle(leader), timestamp(nodes));
    let (scheduler, context) = (scheduler(&node), context(&node));
    let found = nodes.run(async move { scheduler.get(&context, key.as_bytes(), &ReadOptions::at(now)).await });
    found.expect("readable").map(|version| version.value)
}

fn count(nodes: &Nodes, id: u64, family: Family) -> usize {
    nodes.handle(id).db().expect("built in").snapshot().range_in(family, Range::all()).expect("readable").count()
}

fn one_phase(key: &'static str, start_ts: TimeStamp) -> Prewrite {
    Prewrite { try_one_pc: true, use_async_commit: false, ..prewrite(key, start_ts) }
}

fn deletes(key: &'static str, start_ts: TimeStamp) -> Prewrite {
    let mut command = one_phase(key, start_ts);
    command.mutations[0].op = MutationOp::Delete;
    command
}

/// Three transactions, each committed in another way.
struct Transactions {
    whole: Prewrite,
    asynchronous: Prewrite,
    two_phases: Prewrite,
    commits: [Commit; 2],
}

/// Commits them, deletes what they wrote, and has it all collected: nothing is left of them.
fn collected(nodes: &mut Nodes) -> Transactions {
    let (whole, asynchronous, in_two) = (timestamp(nodes), timestamp(nodes), timestamp(nodes));
    let done = Transactions {
        whole: one_phase("whole", whole),
        asynchronous: prewrite("async", asynchronous),
        two_phases: Prewrite { use_async_commit: false, ..prewrite("two", in_two) },
        commits: [("async", asynchronous), ("two", in_two)].map(|(key, start_ts)| Commit {
            keys: vec![key.into()],
            start_ts,
            commit_ts: TimeStamp::ZERO,
        }),
    };
    begin(nodes, &done.whole).expect("commits");
    let min_commit_ts = begin(nodes, &done.asynchronous).expect("prewrites").min_commit_ts;
    begin(nodes, &done.two_phases).expect("prewrites");
    let commit_ts = timestamp(nodes).max(min_commit_ts);
    let commits = done.commits.map(|command| Commit { commit_ts, ..command });
    let done = Transactions { commits, ..done };
    for command in &done.commits {
        commit(nodes, command).expect("commits");
    }
    for key in ["whole", "async", "two"] {
        assert_eq!(value(nodes, key).as_deref(), Some(&b"v"[..]));
        let now = timestamp(nodes);
        begin(nodes, &deletes(key, now)).expect("deletes");
    }
    let safe_point = timestamp(nodes).0;
    let node = nodes.handle(1);
    let moved =
        nodes.run(async move { node.placement(Ask::UpdateGcSafePoint(UpdateGcSafePoint { safe_point }).into()).await });
    moved.expect("it is moved");
    nodes.until("the safe point in the region", |nodes| {
        (1..=3).all(|id| nodes.handle(id).region(DATA).is_some_and(|(region, _)| region.gc_safe_point == safe_point))
    });
    for id in 1..=3 {
        let node = nodes.handle(id);
        node.state().flush().expect("flushed");
        nodes.until("the records to be gone", |nodes| count(nodes, id, TXN_WRITE) == 0);
    }
    done
}

fn is_refused(outcome: Outcome<Prewritten>) -> bool {
    matches!(outcome, Err(Failure::Keys(errors)) if matches!(errors[..], [KeyError::BelowSafePoint { .. }]))
}

#[test]
fn gc_retry() {
    let mut nodes = Nodes::start(3, |_, _| {});
    let done = collected(&mut nodes);
    for command in [&done.whole, &done.asynchronous, &done.two_phases] {
        assert!(is_refused(begin(&mut nodes, command)), "{command:?}");
    }
    for command in &done.commits {
        let again = commit(&mut nodes, command);
        let is_not_found = |errors: &[KeyError]| matches!(errors, [KeyError::TxnLockNotFound { .. }]);
        assert!(matches!(&again, Err(Failure::Keys(errors)) if is_not_found(errors)), "{again:?}");
    }
    for key in ["whole", "async", "two"] {
        assert_eq!(value(&mut nodes, key), None, "what was deleted since does not come back");
    }
    nodes.run_for(Duration::from_secs(1));
    for id in 1..=3 {
        assert_eq!((count(&nodes, id, TXN_LOCK), count(&nodes, id, TXN_WRITE)), (0, 0), "nothing is written");
    }
    planted::set(Some(Bug::ReadBelowSafePoint));
    let again = begin(&mut nodes, &done.whole);
    let found = value(&mut nodes, "whole");
    planted::set(None);
    assert!(again.is_ok() && found.is_some(), "without the refusal it is executed twice");
}
