//! A node's state as JSON and as text.

use crate::driver::{MembershipState, NodeStatus, Refusal, RegionStatus, SnapshotsStatus};
use kontiki_raftstore::{PeerRole, Recovery, Space, StoreId};
use kontiki_state::StateStats;
use serde_json::{Value, json};
use std::fmt::Write;

/// The JSON of `/status`. Keys are hexadecimal.
pub(super) fn describe(status: &NodeStatus, engine: &StateStats, address: &str) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cluster_id": status.cluster_id,
        "store_id": status.store_id.0,
        "address": address,
        "state_engine": status.state_engine.to_string(),
        "raft_log": status.raft_log.to_string(),
        "disk_full": status.disk_full,
        "log_is_slow": status.log_is_slow,
        "stops_leading": status.stops_leading,
        "unsafe_recovery": recovery(&status.recovery),
        "damage": status.damage,
        "stopped": status.stopped,
        "ready": not_ready(status).is_none(),
        "not_ready": not_ready(status),
        "snapshots": snapshots(&status.snapshots),
        "regions": status.regions.iter().map(region).collect::<Vec<_>>(),
        "engine": engine_json(engine),
    })
}

/// What is sent, received and installed of whole regions.
fn snapshots(status: &SnapshotsStatus) -> Value {
    let SnapshotsStatus { views, views_waiting, arriving, waiting, installing, promised_bytes } = status;
    json!({
        "views": views,
        "views_waiting": views_waiting,
        "arriving": arriving,
        "waiting": waiting,
        "installing": installing,
        "promised_bytes": promised_bytes,
    })
}

/// What the directory says of lost stores, if anything.
fn recovery(recovery: &Recovery) -> Value {
    let lost: Vec<u64> = recovery.lost.iter().map(|store| store.0).collect();
    if recovery.number == 0 { Value::Null } else { json!({ "number": recovery.number, "lost_stores": lost }) }
}

/// The engine's statistics, one object per part.
fn engine_json(engine: &StateStats) -> Value {
    let Some(built_in) = &engine.built_in else { return Value::Null };
    serde_json::from_str(&built_in.to_json()).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

fn region(status: &RegionStatus) -> Value {
    let region = &status.region;
    json!({
        "id": region.id.0,
        "space": match region.space { Space::System => "system", Space::Data => "data" },
        "start_key": hex(&region.start_key),
        "end_key": hex(&region.end_key),
        "conf_version": region.epoch.conf_version,
        "version": region.epoch.version,
        "peers": region.peers.iter().map(|peer| json!({
            "id": peer.id.0, "store": peer.store.0, "role": role(region.role(peer.id)),
        })).collect::<Vec<_>>(),
        "leader_store": status.leader.map(|leader| leader.store.0),
        "leading_term": status.leading_term,
        "applied_index": status.applied_index,
        "refusal": status.refusal.as_ref().map(|refusal| json!({
            "from_store": refusal.from.0, "why": refusal.why, "count": refusal.count,
        })),
    })
}

fn role(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Voter => "voter",
        PeerRole::Learner => "learner",
        PeerRole::IncomingVoter => "incoming voter",
        PeerRole::DemotingVoter => "demoting voter",
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().fold(String::with_capacity(2 * key.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Why the node cannot serve all its regions now; `None` when it can, or knows the leaders.
pub(super) fn not_ready(status: &NodeStatus) -> Option<String> {
    if let Some(reason) = &status.stopped {
        return Some(format!("the node has stopped: {reason}"));
    }
    if status.stops_leading {
        return Some("the node is about to end: it has transferred its leadership, or is transferring it".into());
    }
    if let Some(damage) = &status.damage {
        let what = "other nodes lead instead, where they can; replace the directory: see docs/guide/replace-a-disk.md";
        return Some(format!("a read met damaged data: {damage}; {what}"));
    }
    if let Some(why) = takes_no_part(status) {
        return Some(why);
    }
    if status.disk_full {
        return Some(
            "the disk is full: this node refuses writes, and leads only what no other node can; reads go on. Free some \
             space on the volume of its data directory, and writes resume by themselves"
                .into(),
        );
    }
    if let Some((region, refusal)) = status.regions.iter().find_map(|s| Some((s.region.id, s.refusal.as_ref()?))) {
        let Refusal { from, why, .. } = refusal;
        return Some(format!("region {region} refuses messages of store {from}: {why}"));
    }
    if let Some(missing) = status.missing.first() {
        return Some(format!("{missing}: no replica here yet; the leader of the region adds one and sends its data"));
    }
    if let Some(waiting) = status.regions.iter().find(|status| status.applied_index.is_none()) {
        return Some(format!("region {} waits for its data: a snapshot is being installed", waiting.region.id));
    }
    if status.regions.is_empty() {
        return (!status.is_spare).then(|| "this store holds no region yet".into());
    }
    let leaderless = status.regions.iter().find(|status| status.leader.is_none())?;
    Some(format!("region {} has no leader{}", leaderless.region.id, unconnected(status, |_| true)))
}

/// Why it takes no part in consensus.
fn takes_no_part(status: &NodeStatus) -> Option<String> {
    Some(match &status.membership {
        MembershipState::Member => return None,
        MembershipState::Forming { waiting_for } => {
            let stores: Vec<String> = waiting_for.iter().map(ToString::to_string).collect();
            let why = unconnected(status, |store| waiting_for.contains(&store));
            format!("the cluster is not formed; stores not heard from: {}{why}", stores.join(", "))
        }
        MembershipState::Confirming => {
            let why = unconnected(status, |_| true);
            format!("no majority has confirmed yet that the data directory is not an older copy{why}")
        }
        MembershipState::Replaced { .. } if status.replaces_lost_directory => {
            let what = "it waits for a majority of the members that have their data; start those that are down";
            format!("this directory is to replace a lost one, as requested: {what}")
        }
        MembershipState::Replaced { reported_by } => format!(
            "the data directory is empty, but store {reported_by} knows another directory of this store: its data are \
             lost; if that directory will not come back, start this node with --replace-lost-directory; see \
             docs/guide/replace-a-disk.md"
        ),
    })
}

/// The stores of that kind to which there is no connection, and why.
fn unconnected(status: &NodeStatus, is_relevant: impl Fn(StoreId) -> bool) -> String {
    let failures = status.peer_failures.iter().filter(|(store, _)| is_relevant(**store));
    failures.map(|(store, why)| format!("; no connection to store {store} at {why}")).collect()
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
