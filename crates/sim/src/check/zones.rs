//! Gibbons and Korach's zones: linearizability of a register whose puts all write distinct values.
//!
//! The operations on one value (its put and the gets that returned it) form a *cluster*; in any legal order they are
//! adjacent. Let `f` be the first completion and `s` the last invocation in a cluster. If `f < s` the cluster must be
//! "on" during the whole of `[f, s]`, its *forward zone*; otherwise all its operations share `[s, f]`, its *backward
//! zone*, and can be placed together at any point of it. The history is linearizable exactly if no get completes before
//! its put begins, no two forward zones overlap, and no backward zone is inside a forward one (no point would be left
//! for it).
//!
//! A put with an unknown outcome completes at infinity; if no answer shows it, its zone reaches to infinity and
//! constrains nothing. The absent value was "put" before everything.

use super::Violation;
use super::linearizability::CheckResult;
use crate::history::{Operation, Outcome, Record};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Whether this checker applies: puts of distinct values, and gets.
pub(super) fn applies(records: &[Record]) -> bool {
    let mut values = BTreeSet::new();
    records.iter().all(|record| match &record.operation {
        Operation::Put(value) => values.insert(value),
        Operation::Get => true,
        Operation::Delete | Operation::CompareAndSwap { .. } => false,
    })
}

struct Cluster<'a> {
    records: Vec<&'a Record>,
    put_invoked: u64,
    first_completed: u64,
    last_invoked: u64,
}

impl<'a> Cluster<'a> {
    fn is_forward(&self) -> bool {
        self.first_completed < self.last_invoked
    }

    fn add_get(&mut self, get: &'a Record) {
        self.records.push(get);
        self.first_completed = self.first_completed.min(get.completed);
        self.last_invoked = self.last_invoked.max(get.invoked);
    }
}

pub(super) fn check(records: &[Record]) -> CheckResult {
    match clusters(records).and_then(|clusters| compare_zones(&clusters)) {
        Ok(()) => CheckResult::Linearizable,
        Err(violation) => CheckResult::Violated(violation),
    }
}

fn clusters(records: &[Record]) -> Result<Vec<Cluster<'_>>, Violation> {
    let absent = Cluster { records: Vec::new(), put_invoked: 0, first_completed: 0, last_invoked: 0 };
    let mut clusters: BTreeMap<Option<&Bytes>, Cluster<'_>> = BTreeMap::from([(None, absent)]);
    for put in records.iter().filter(|record| record.outcome != Outcome::Failed) {
        if let Some(value) = put.written() {
            assert!(put.invoked > 0, "event 0 is before every operation");
            let (put_invoked, first_completed) = (put.invoked, put.effective_by());
            let cluster = Cluster { records: vec![put], put_invoked, first_completed, last_invoked: put_invoked };
            let former = clusters.insert(value, cluster);
            assert!(former.is_none(), "the caller checked that values are distinct");
        }
    }
    for get in records {
        let Some(value) = get.observed() else { continue };
        let Some(cluster) = clusters.get_mut(&value) else {
            return Err(Violation::new("a get returned a value that no put wrote", [get]));
        };
        if get.completed < cluster.put_invoked {
            return Err(Violation::new("a get returned a value before it was put", [cluster.records[0], get]));
        }
        cluster.add_get(get);
    }
    Ok(clusters.into_values().collect())
}

fn compare_zones(clusters: &[Cluster<'_>]) -> Result<(), Violation> {
    let (mut forward, backward): (Vec<_>, Vec<_>) = clusters.iter().partition(|cluster| cluster.is_forward());
    forward.sort_unstable_by_key(|cluster| cluster.first_completed);
    for pair in forward.windows(2) {
        if pair[1].first_completed < pair[0].last_invoked {
            let what = "two values were each seen before and after the other";
            return Err(Violation::new(what, pair.iter().flat_map(|cluster| &cluster.records).copied()));
        }
    }
    for cluster in backward {
        // Forward zones are disjoint: only the last one that begins before this zone can hold it.
        let before = forward.partition_point(|zone| zone.first_completed < cluster.last_invoked);
        let Some(zone) = before.checked_sub(1).map(|last| forward[last]) else { continue };
        if cluster.first_completed < zone.last_invoked {
            let what = "a value was seen after another one had replaced it";
            return Err(Violation::new(what, zone.records.iter().chain(&cluster.records).copied()));
        }
    }
    Ok(())
}
