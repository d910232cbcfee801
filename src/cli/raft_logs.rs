//! How far raft logs are behind, as each node reports it: for `kontiki status`.

use super::text;
use super::tls;
use kontiki_proto::Code;
use kontiki_proto::debugpb::debug_client::DebugClient;
use kontiki_proto::debugpb::{FollowerLog, RaftLogsRequest, RaftLogsResponse, ReplicaLog};
use kontiki_tls::Credentials;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// A node that runs answers well within this time; the others are not waited for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);

/// What each store that was asked has answered, or why it has not.
pub type RaftLogs = BTreeMap<u64, Result<RaftLogsResponse, String>>;

/// Asks the nodes of these stores, all at the same time; also for the replica of `region`, if it is not 0.
pub async fn ask_all(
    stores: impl IntoIterator<Item = (u64, String)>,
    credentials: Option<&Arc<Credentials>>,
    region: u64,
) -> RaftLogs {
    let asked = stores.into_iter().map(|(id, address)| async move {
        let answer = tokio::time::timeout(ANSWER_WAIT_MAX, ask(&address, credentials, region)).await;
        (id, answer.unwrap_or_else(|_| Err(format!("no answer from {address} within {ANSWER_WAIT_MAX:?}"))))
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

async fn ask(
    address: &str,
    credentials: Option<&Arc<Credentials>>,
    region_id: u64,
) -> Result<RaftLogsResponse, String> {
    let channel = tls::connect(address, credentials).await.map_err(|error| error.to_string())?;
    let answer = DebugClient::new(channel).raft_logs(RaftLogsRequest { region_id }).await;
    answer.map(|answer| answer.into_inner()).map_err(|status| match status.code() {
        Code::Unimplemented => "its version does not report them".to_owned(),
        _ => status.message().to_owned(),
    })
}

/// What stands out, in text; empty if nothing does.
pub fn outstanding(logs: &RaftLogs) -> String {
    let mut out = String::new();
    let lagging: Vec<(u64, &FollowerLog)> = logs
        .iter()
        .filter_map(|(store, answer)| Some((*store, answer.as_ref().ok()?)))
        .flat_map(|(store, answer)| answer.lagging.iter().map(move |follower| (store, follower)))
        .collect();
    let count: u64 = logs.values().flatten().map(|answer| answer.followers_lagging).sum();
    if count > 0 {
        let shown = lagging.len();
        let _ = writeln!(out, "\nfollowers that lag: {count}; the worst {shown}, by what they lack:");
        let rows = lagging.into_iter().map(|(leader, follower)| {
            let FollowerLog { region_id, store_id, seconds, .. } = follower;
            let [entries, bytes] = lacks(follower);
            let columns = [region_id.to_string(), leader.to_string(), store_id.to_string()];
            columns.into_iter().chain([entries, bytes, format!("{seconds} s")]).collect()
        });
        let _ = writeln!(out, "{}", text::table(&["REGION", "LEADER", "FOLLOWER", "ENTRIES", "BYTES", "FOR"], rows));
    }
    for (store, answer) in logs {
        match answer {
            Ok(logs) if logs.replay_bytes > logs.replay_bytes_max && logs.replay_bytes_max > 0 => {
                let RaftLogsResponse { replay_bytes, replay_bytes_max, .. } = logs;
                let _ = writeln!(
                    out,
                    "\nstore {store}: a restart reads {replay_bytes} bytes of log, more than the bound of \
                     {replay_bytes_max}: see kontiki_log_held_bytes and the log of its node"
                );
            }
            Ok(_) => {}
            Err(why) => {
                let _ = writeln!(out, "\nstore {store}: the state of its raft logs is not known: {why}");
            }
        }
    }
    out
}

/// One that needs a snapshot lacks more than its entries.
fn lacks(follower: &FollowerLog) -> [String; 2] {
    if follower.needs_snapshot {
        return ["snapshot".to_owned(), "snapshot".to_owned()];
    }
    [follower.entries.to_string(), follower.bytes.to_string()]
}

/// The replicas of one region, in text.
pub fn region_table(logs: &RaftLogs) -> String {
    let replicas = replicas(logs);
    let rows = replicas.iter().map(|(store, replica)| {
        let role = if replica.leads { "leader" } else { "follower" };
        let known = replicas.values().flat_map(|replica| &replica.followers);
        let lag = known.filter(|follower| follower.store_id == *store).map(lacks).next();
        let [lacks_entries, lacks_bytes] = lag.unwrap_or_else(|| ["-".to_owned(), "-".to_owned()]);
        let ReplicaLog { entries, bytes, unapplied_entries, unflushed_entries, .. } = replica;
        let numbers = [entries, bytes, unapplied_entries, unflushed_entries].map(u64::to_string);
        let columns = [store.to_string(), role.to_owned()].into_iter().chain(numbers);
        columns.chain([lacks_entries, lacks_bytes]).collect()
    });
    let header = ["STORE", "ROLE", "ENTRIES", "BYTES", "UNAPPLIED", "UNFLUSHED", "LACKS ENTRIES", "LACKS BYTES"];
    text::table(&header, rows)
}

fn replicas(logs: &RaftLogs) -> BTreeMap<u64, &ReplicaLog> {
    let answers = logs.iter().filter_map(|(store, answer)| Some((*store, answer.as_ref().ok()?)));
    answers.filter_map(|(store, answer)| Some((store, answer.replica.as_ref()?))).collect()
}

fn follower_json(follower: &FollowerLog) -> Value {
    json!({
        "region": follower.region_id, "store": follower.store_id, "entries": follower.entries,
        "bytes": follower.bytes, "needs_snapshot": follower.needs_snapshot, "seconds": follower.seconds,
    })
}

/// One object for each store.
pub fn to_json(logs: &RaftLogs) -> Value {
    let store = |(store, answer): (&u64, &Result<RaftLogsResponse, String>)| match answer {
        Err(why) => json!({ "store": store, "error": why }),
        Ok(logs) => json!({
            "store": store, "entries": logs.entries, "bytes": logs.bytes,
            "unapplied_entries": logs.unapplied_entries, "unflushed_entries": logs.unflushed_entries,
            "replay_bytes": logs.replay_bytes, "replay_bytes_max": logs.replay_bytes_max,
            "followers_lagging": logs.followers_lagging,
            "lagging": logs.lagging.iter().map(follower_json).collect::<Vec<_>>(),
            "replica": logs.replica.as_ref().map(replica_json),
        }),
    };
    logs.iter().map(store).collect()
}

fn replica_json(replica: &ReplicaLog) -> Value {
    json!({
        "region": replica.region_id, "leads": replica.leads, "entries": replica.entries, "bytes": replica.bytes,
        "unapplied_entries": replica.unapplied_entries, "unflushed_entries": replica.unflushed_entries,
        "followers": replica.followers.iter().map(|follower| json!({
            "store": follower.store_id, "entries": follower.entries, "bytes": follower.bytes,
            "needs_snapshot": follower.needs_snapshot,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
#[path = "raft_logs_test.rs"]
mod tests;
