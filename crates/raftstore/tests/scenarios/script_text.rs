//! How the scripts print stores, messages and answers.

use crate::cluster::node::{Job, Node};
use bytes::Bytes;
use kontiki_raftstore::{Answer, Observation, Peer, RegionError, RegionId, RegionStatus};
use prost::Message;
use std::time::Duration;

/// The parts of a store message that scripts show (docs/internals/raftstore.md; the numbers are the format's).
#[derive(Clone, PartialEq, Message)]
struct StoreMessage {
    #[prost(message, optional, tag = "8")]
    raft: Option<RaftMessage>,
    #[prost(bool, tag = "10")]
    unable_to_lead: bool,
    #[prost(bool, tag = "11")]
    full: bool,
}

#[derive(Clone, PartialEq, Message)]
struct RaftMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    log_term: u64,
    #[prost(uint64, tag = "4")]
    index: u64,
    #[prost(message, repeated, tag = "5")]
    entries: Vec<Entry>,
    #[prost(uint64, tag = "6")]
    commit: u64,
    #[prost(bool, tag = "10")]
    reject: bool,
    #[prost(uint64, tag = "11")]
    reject_hint: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

/// One line: what a message says.
pub fn message(bytes: &Bytes) -> String {
    let envelope = StoreMessage::decode(bytes.clone()).expect("a store message");
    let raft = envelope.raft.expect("every message of today has one");
    let RaftMessage { term, log_term, index, commit, reject_hint, .. } = raft;
    let granted = if raft.reject { "refused" } else { "granted" };
    let mut line = match raft.kind {
        3 => format!("append, term {term}, after {index} of term {log_term}:{}, commit {commit}", list(&raft.entries)),
        4 if raft.reject => format!("append refused, term {term}, at {index}, try {reject_hint}"),
        4 => format!("append accepted, term {term}, through {index}"),
        5 => format!("vote request, term {term}, log ends at {index} of term {log_term}"),
        6 => format!("vote {granted}, term {term}"),
        7 => format!("snapshot, term {term}"),
        8 => format!("heartbeat, term {term}, commit {commit}"),
        9 => format!("heartbeat answer, term {term}"),
        14 => format!("order to campaign, term {term}"),
        17 => format!("pre-vote request, term {term}, log ends at {index} of term {log_term}"),
        18 => format!("pre-vote {granted}, term {term}"),
        other => format!("message of kind {other}, term {term}"),
    };
    if envelope.unable_to_lead {
        line += ", unable to lead";
    }
    if envelope.full {
        line += ", full";
    }
    line
}

fn list(entries: &[Entry]) -> String {
    match entries {
        [] => " nothing".to_owned(),
        entries => entries.iter().map(|entry| format!(" {}/{}", entry.index, entry.term)).collect(),
    }
}

/// One line: the replica of a region.
pub fn status(node: &Node, region: RegionId, now: Duration) -> String {
    let Some(store) = &node.store else { return "down".to_owned() };
    let status = store.status().into_iter().find(|status| status.region.id == region);
    let Some(RegionStatus { region, leader, leads, term, vote, lease, .. }) = status.clone() else {
        return "no replica".to_owned();
    };
    let status = status.expect("just seen");
    let role = match (leads, leader) {
        (true, _) => "leader".to_owned(),
        (_, Some(leader)) => format!("follower of {}", leader.store),
        (_, None) => "no leader".to_owned(),
    };
    let on = |peer: Peer| peer.store.to_string();
    let vote = vote.and_then(|vote| region.peer(vote)).map_or("none".to_owned(), on);
    let lease = match lease.map(|lease| lease.until) {
        Some(Duration::MAX) => ", lease without end".to_owned(),
        Some(until) if until > now => format!(", lease for {} ms", (until - now).as_millis()),
        _ => String::new(),
    };
    let members: Vec<String> = region.peers.iter().map(|peer| peer.store.to_string()).collect();
    format!(
        "{role}, term {term}, vote {vote}, log {}..{} (durable {}, committed {}, applied {}){lease}, members {}",
        status.truncated_index,
        status.last_index,
        status.durable_index,
        status.committed_index,
        status.applied_index,
        members.join(" ")
    )
}

/// One line: what a store observed.
pub fn observation(observation: &Observation) -> String {
    match observation {
        Observation::BecameLeader { term, .. } => format!("leads in term {term}, and has applied an entry of it"),
        Observation::SteppedDown { term, .. } => format!("does not lead in term {term} any more"),
        Observation::LeaderChanged { leader: Some(leader), term, .. } => {
            format!("store {} leads in term {term}", leader.store)
        }
        Observation::LeaderChanged { leader: None, term, .. } => format!("no leader is known in term {term}"),
        Observation::RegionMerged { into, .. } => format!("its range is that of region {into} now"),
        Observation::RegionRemoved { .. } => "was removed from the region, and nothing of it is left".to_owned(),
        Observation::Refused { from, why, .. } => format!("refused a message of store {from}: {why}"),
        Observation::Checked { index, outcome, .. } => {
            let stores = |stores: &[kontiki_raftstore::StoreId]| format!("{stores:?}");
            let (agreeing, differing) = (stores(&outcome.agreeing), stores(&outcome.differing));
            format!("compared its replicas at {index}: {agreeing} agree, {differing} differ")
        }
        Observation::RegionChanged { region } => {
            let members: Vec<String> = region.peers.iter().map(|peer| peer.store.to_string()).collect();
            format!("members {}, conf version {}", members.join(" "), region.epoch.conf_version)
        }
    }
}

/// One line: the answer to a request.
pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Ok { index } => format!("ok, applied {index}"),
        Answer::Refused(RegionError::NotLeader { leader: Some(leader), .. }) => {
            format!("refused, store {} leads", leader.store)
        }
        Answer::Refused(error) => format!("refused, {error}"),
        Answer::Dropped => "the outcome is unknown".to_owned(),
    }
}

/// One line: work on a snapshot.
pub fn job(job: &Job, sends_fail: bool) -> String {
    match job {
        Job::Prepare { result: Ok(head), .. } => format!("takes a view at index {}", head.id.index),
        Job::Prepare { result: Err(why), .. } => format!("takes no view: {why}"),
        Job::Send { to, .. } if sends_fail => format!("fails to send its snapshot to store {to}"),
        Job::Send { to, .. } => format!("sends its snapshot to store {to}"),
        Job::Install { file, .. } => format!("installs the snapshot at index {}", file.snapshot.index),
        Job::SafeTs { claims } => format!("found the oldest locks of {} regions", claims.len()),
        Job::Checksum { index, .. } => format!("has the checksum at index {index}"),
        Job::Entries { task, .. } => format!("reads the entries {:?} of its stream", task.indices),
        Job::Remove { file } => format!("removes the file of the snapshot at index {}", file.snapshot.index),
    }
}
