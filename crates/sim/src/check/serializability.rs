//! Serializability of those transactions that lock all that they read: a search for cycles of dependencies.
//!
//! Nodes are the committed pessimistic transactions whose reads all locked their keys. On each key there is an edge
//! from a writer to the next writer, from a writer to those that read its value, and from those to the next writer. If
//! there is a cycle, no order of the transactions explains what they saw. Transactions outside of the set may come
//! between two of a key: the next writer is the next one in the set, which has to be later for the same reason.
//!
//! The order of a key's versions is that of their commit timestamps; nothing else depends on timestamps, so this finds
//! what a check by timestamps, such as [`super::snapshot_isolation`], presumes.

use super::Violation;
use super::snapshot_isolation::{End, Transaction, versions};
use std::collections::{BTreeMap, BTreeSet};

/// Checks them; returns how many there are.
pub fn check(transactions: &[Transaction]) -> Result<usize, Violation> {
    let is_member = |transaction: &Transaction| {
        transaction.is_pessimistic && transaction.end == End::Committed && transaction.reads.is_empty()
    };
    // Each has a start timestamp of its own.
    let members: BTreeMap<u64, &Transaction> =
        transactions.iter().filter(|one| is_member(one)).map(|one| (one.start_ts, one)).collect();
    let edges = edges(transactions, &members);
    match cycle(&edges, members.keys().copied()) {
        None => Ok(members.len()),
        Some(cycle) => {
            let evidence = cycle.iter().filter_map(|start_ts| members.get(start_ts).copied());
            Err(Violation::new("transactions that lock all they read are not serializable", evidence))
        }
    }
}

type Edges = BTreeMap<u64, BTreeSet<u64>>;

fn edges(transactions: &[Transaction], members: &BTreeMap<u64, &Transaction>) -> Edges {
    let versions = versions(transactions);
    let mut edges = Edges::new();
    let mut edge = |from: u64, to: u64| {
        if from != to {
            edges.entry(from).or_default().insert(to);
        }
    };
    for versions in versions.values() {
        let writers = versions.iter().map(|version| version.writer.start_ts).filter(|ts| members.contains_key(ts));
        let writers: Vec<u64> = writers.collect();
        writers.windows(2).for_each(|pair| edge(pair[0], pair[1]));
    }
    for (reader, transaction) in members {
        for (key, found) in &transaction.locked_reads {
            let all = versions.get(key).map_or(&[][..], Vec::as_slice);
            // A value names its writer; absence does not.
            let Some(found) = found else { continue };
            let Some(at) = all.iter().position(|version| version.value == Some(found)) else { continue };
            let is_in = |ts: &u64| members.contains_key(ts);
            Some(all[at].writer.start_ts).filter(is_in).into_iter().for_each(|writer| edge(writer, *reader));
            let later = all[at + 1..].iter().map(|version| version.writer.start_ts);
            if let Some(next) = later.filter(is_in).find(|next| next != reader) {
                edge(*reader, next);
            }
        }
    }
    edges
}

/// A cycle, if there is one: depth first, without recursion.
fn cycle(edges: &Edges, nodes: impl Iterator<Item = u64>) -> Option<Vec<u64>> {
    let none = BTreeSet::new();
    let mut done = BTreeSet::new();
    for root in nodes {
        let mut path: Vec<(u64, Vec<u64>)> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(node) = next.take() {
                if let Some(at) = path.iter().position(|(on_path, _)| *on_path == node) {
                    return Some(path[at..].iter().map(|(on_path, _)| *on_path).collect());
                }
                if !done.contains(&node) {
                    path.push((node, edges.get(&node).unwrap_or(&none).iter().copied().collect()));
                }
            }
            let Some((node, left)) = path.last_mut() else { break };
            match left.pop() {
                Some(successor) => next = Some(successor),
                None => {
                    done.insert(*node);
                    path.pop();
                }
            }
        }
    }
    None
}

#[cfg(test)]
#[path = "serializability_test.rs"]
mod tests;
