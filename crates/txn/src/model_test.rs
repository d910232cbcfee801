//! Many transactions, interleaved at random, over an unreliable replicated store whose leader changes: is it snapshot
//! isolation?
//!
//! Coordinators behave as clients do, in all six kinds of transactions: optimistic ones read at the start timestamp,
//! pessimistic ones under locks; they prewrite in two groups as if the keys lay in two regions, and commit in two
//! phases, asynchronously, or in one phase. They crash at any point, repeat commands, and resolve the locks of others.
//! At the end all locks are resolved and the history in the write family is checked against everything that the clients
//! saw.

use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, split_versioned};
use crate::model_clients_test::{How, World};
use crate::planted::{self, Bug};
use crate::testing::{Executor, Yields};
use crate::*;
use bytes::Bytes;
use futures::FutureExt;
use kontiki_env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Commits and rollbacks of a key, oldest first.
type Versions = BTreeMap<Bytes, Vec<(TimeStamp, Write)>>;

fn versions(world: &World) -> Versions {
    let store = world.cluster.store();
    let mut versions = Versions::new();
    for (physical, bytes) in store.family(TXN_WRITE).into_iter().rev() {
        let (encoded, commit_ts) = split_versioned(&physical).unwrap();
        let key = Bytes::from(memcomparable_decode(encoded).unwrap());
        versions.entry(key).or_default().push((commit_ts, Write::decode(&bytes).unwrap()));
    }
    versions
}

fn check(world: &World) {
    let versions = versions(world);
    let history = world.history.lock();
    let mut outcomes: BTreeMap<TimeStamp, BTreeSet<TimeStamp>> = BTreeMap::new();
    for (key, versions) in &versions {
        let mut newest_commit = TimeStamp::ZERO;
        let mut rolled_back = BTreeSet::new();
        let mut committed = BTreeSet::new();
        for (commit_ts, write) in versions {
            if write.overlapped_rollback {
                rolled_back.insert(*commit_ts);
            }
            if write.kind == WriteKind::Rollback {
                rolled_back.insert(write.start_ts);
                continue;
            }
            let seen_until = history.locked_at.get(&(write.start_ts, key.clone())).copied().unwrap_or(write.start_ts);
            assert!(seen_until >= newest_commit, "{key:?}: {} overlaps the commit before it", write.start_ts);
            newest_commit = *commit_ts;
            assert!(committed.insert(write.start_ts), "{key:?}: {} committed twice", write.start_ts);
            outcomes.entry(write.start_ts).or_default().insert(*commit_ts);
        }
        assert!(committed.is_disjoint(&rolled_back), "{key:?}: two outcomes of one transaction");
    }
    for (start_ts, intent) in &history.intents {
        let on = |key: &Bytes| {
            let records = versions.get(key).into_iter().flatten();
            records.clone().find(|(_, write)| write.start_ts == *start_ts && write.kind != WriteKind::Rollback)
        };
        let commits: BTreeSet<Option<TimeStamp>> = intent.keys().map(|key| on(key).map(|(ts, _)| *ts)).collect();
        assert_eq!(commits.len(), 1, "{start_ts} is half committed: {commits:?}");
        let commit_ts = commits.into_iter().next().flatten();
        if let Some(acknowledged) = history.acknowledged.get(start_ts) {
            assert_eq!(commit_ts, Some(*acknowledged), "{start_ts} was acknowledged");
        }
        assert!(commit_ts.is_none() || !history.given_up.contains(start_ts), "{start_ts} was given up");
    }
    assert!(outcomes.values().all(|commits| commits.len() == 1), "one commit timestamp for each transaction");
    for (ts, key, seen) in &history.reads {
        let visible = versions
            .get(key)
            .into_iter()
            .flatten()
            .rev()
            .find(|(commit_ts, write)| commit_ts <= ts && matches!(write.kind, WriteKind::Put | WriteKind::Delete));
        let expected = visible.and_then(|(_, write)| history.intents[&write.start_ts][key].clone());
        assert_eq!(seen, &expected, "the read of {key:?} at {ts}");
    }
}

/// What a run did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Done {
    kinds: BTreeMap<(bool, How), usize>,
    long_values: usize,
    deadlocks: usize,
}

fn run(seed: u64) -> Done {
    let mut executor = Executor::new(Rng::new(seed).child("executor"));
    let world = World::new(seed, &executor);
    executor.spawner().spawn(world.clone().open());
    executor.run();
    for _ in 0..60 {
        let polls = world.below(60);
        let later = Yields(world.below(1_500)); // Few enough at once that many succeed.
        let (transfer, audit) = (world.clone().transfer(), world.clone().audit());
        match world.below(8) {
            0 | 1 => executor.spawner().spawn(later.then(|()| audit)),
            2 | 3 => executor.spawner().spawn(later.then(move |()| World::crash_after(polls, transfer))),
            _ => executor.spawner().spawn(later.then(|()| transfer)),
        }
    }
    for _ in 0..seed % 8 {
        let (later, world) = (Yields(world.below(1_500)), world.clone());
        executor.spawner().spawn(later.map(move |()| world.move_leadership()));
    }
    executor.run();
    let last = world.clone();
    executor.spawner().spawn(async move {
        last.settle().await;
        last.audit().await;
    });
    executor.run();
    assert!(world.is_quiet(), "seed {seed}: a latch, a lock in memory or a waiting request is left");
    let store = world.cluster.store();
    assert!(store.family(TXN_LOCK).is_empty());
    check(&world);
    let history = world.history.lock();
    let long_values = store.family(TXN_DEFAULT).len();
    Done { kinds: history.kinds.clone(), long_values, deadlocks: history.deadlocks }
}

#[test]
fn random_interleavings_are_snapshot_isolation() {
    let mut all = Done::default();
    for seed in 0..160 {
        println!("seed {seed}");
        let done = run(seed);
        all.long_values += done.long_values;
        all.deadlocks += done.deadlocks;
        for (kind, count) in done.kinds {
            *all.kinds.entry(kind).or_default() += count;
        }
    }
    assert!(all.kinds.len() == 6 && all.kinds.values().all(|count| *count > 100), "too few of a kind: {all:?}");
    assert!(all.long_values > 100 && all.deadlocks > 5, "the test did little: {all:?}");
}

/// Each bug breaks a promise in some run.
#[test]
fn the_model_finds_planted_bugs() {
    let bugs = [
        Bug::IgnoreMaxTs,
        Bug::LeadWithoutTimestamp,
        Bug::OnePhaseSkipsConflicts,
        Bug::RollBackAsyncCommit,
        Bug::MissMemoryLocks,
        Bug::RollBackWithoutRecord,
        Bug::CommitBelowMinimum,
        Bug::PrewriteAfterRollback,
    ];
    for bug in bugs {
        planted::set(Some(bug));
        let found = (0..600).find(|seed| std::panic::catch_unwind(|| run(*seed)).is_err());
        planted::set(None);
        println!("{bug:?}: seed {found:?}");
        assert!(found.is_some(), "no run finds {bug:?}");
    }
}

#[test]
fn a_seed_repeats_exactly() {
    assert_eq!(run(3), run(3));
}
