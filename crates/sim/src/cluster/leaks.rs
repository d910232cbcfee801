//! Leaks after all clients have ended: expired locks, latches, requests without an answer, files that are not needed, a
//! raft log above its bound, damage on the disk.

use super::final_checks::FINAL_CLIENT;
use super::{Cluster, LIVENESS};
use crate::check::records;
use crate::workload::{Connection, Direct, connect, options};
use crate::world::{NodeId, SimNode};
use bytes::Bytes;
use kontiki_client::{Client, Error};
use kontiki_engine::inspect;
use kontiki_engine::internals::parse_table_name;
use kontiki_env::fs::{CrashMode, Fs};
use kontiki_proto::calls::{KvCall, KvScanLock};
use kontiki_proto::kvrpcpb::{LockInfo, ScanLockRequest};
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const DATA_DIR: &str = "/data";
/// How often an idle world is checked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Raft log that may stay in memory beyond its bound: the entries that an unflushed memtable needs for a restart.
const LOG_MEMTABLES: u64 = 3;

impl Cluster {
    /// Resolves every lock as clients would; a lock that stays is a leak.
    pub(super) fn resolve_locks(&mut self) {
        if self.bank.is_none() {
            return;
        }
        let connection = self.connection(FINAL_CLIENT + 2);
        let nodes = self.nodes.clone();
        let first = Direct::new(connection.clone(), nodes[0]);
        let direct: Vec<Direct> = nodes.iter().map(|node| first.at(*node)).collect();
        let left: Rc<Cell<Option<usize>>> = Rc::default();
        let found = left.clone();
        self.world.spawn_client(async move {
            let client = connect(connection, nodes, options(LIVENESS, false)).await;
            loop {
                let Ok(ts) = client.timestamp().await else { continue };
                let locks = all_locks(ts, &direct).await;
                found.set(locks.as_ref().map(Vec::len));
                match locks {
                    Some(locks) if locks.is_empty() => return,
                    Some(locks) => {
                        for lock in locks {
                            // A failure shows in the locks that are left.
                            let _ = resolve(&client, lock.key).await;
                        }
                    }
                    None => {}
                }
            }
        });
        let deadline = self.world.now() + LIVENESS;
        if !self.world.run_until_done(deadline, |_| left.get() == Some(0)) {
            self.violations.push(format!("locks stay although they have expired: {:?}", left.get()));
        }
    }

    /// Checks for leaks. This is the last step of a cluster's run: its processes are ended.
    pub(super) fn find_leaks(&mut self) {
        let deadline = self.world.now() + LIVENESS;
        let nodes = self.nodes.clone();
        // A snapshot's file stays until tables hold its data, and an idle memtable is never flushed.
        for handle in self.world.nodes().filter_map(|(_, node)| node.handle()) {
            if let Err(error) = handle.state().flush() {
                self.violations.push(format!("a node does not flush although everything is healed: {error}"));
            }
        }
        let remains = loop {
            // If no node runs any more, the time does not advance.
            let goes_on = self.world.run_until(self.world.now() + LOOK_EVERY);
            let remains: Vec<String> = self.world.nodes().flat_map(|(id, node)| node_remains(id, node)).collect();
            if remains.is_empty() || !goes_on || self.world.now() >= deadline {
                break remains;
            }
        };
        self.violations.extend(remains.into_iter().map(|what| format!("left in an idle cluster: {what}")));
        if let Some(snapshot) = self.snapshots().first() {
            match records::check(snapshot) {
                Ok(broken) => self.violations.extend(broken.into_iter().take(3)),
                Err(error) => self.violations.push(format!("a replica cannot be read: {error}")),
            }
        }
        for id in nodes {
            self.world.crash(id, CrashMode::Kill);
            let machine = self.world.node(id).expect("nodes stay").machine();
            match inspect::check(&machine.env(), Path::new(DATA_DIR)) {
                Ok(report) if report.is_sound() => {}
                Ok(report) => self.violations.push(format!("node {id}'s disk is damaged: {:?}", report.problems)),
                Err(error) => self.violations.push(format!("node {id}'s disk cannot be checked: {error}")),
            }
        }
    }
}

/// The answer of the node that leads the region at `position`, and the end of that region; `None` if none answers.
async fn at_leader<C: KvCall>(nodes: &[Direct], position: &[u8], request: C::Request) -> Option<(C::Reply, Bytes)> {
    for direct in nodes {
        // The region as it was named in the request, which the answer confirms.
        let Ok(region) = direct.region_at(position).await else { continue };
        if let Ok(reply) = direct.call::<C>(position, request.clone()).await {
            return Some((reply, region.end_key));
        }
    }
    None
}

/// Every lock of all data regions.
async fn all_locks(max_version: u64, nodes: &[Direct]) -> Option<Vec<LockInfo>> {
    let (mut locks, mut position) = (Vec::new(), Bytes::new());
    loop {
        let request = ScanLockRequest { max_version, limit: 1_000, ..Default::default() };
        let (answer, end) = at_leader::<KvScanLock>(nodes, &position, request).await?;
        locks.extend(answer.error.is_none().then_some(answer.locks)?);
        if end.is_empty() {
            return Some(locks);
        }
        position = end;
    }
}

/// Resolves a lock as a client does that needs the key: also one that blocks no reader.
async fn resolve(client: &Client<Connection>, key: Bytes) -> Result<(), Error> {
    let mut transaction = client.begin_pessimistic().await?;
    transaction.lock_keys([key]).await?;
    transaction.rollback().await
}

/// The resources that a node holds without any client.
fn node_remains(id: NodeId, node: &super::ClusterNode) -> Vec<String> {
    let (Some(remains), Some(handle)) = (node.remains(), node.handle()) else {
        return vec![format!("node {id} does not run")];
    };
    let mut found = Vec::new();
    let mut note = |count: usize, what: &str| {
        if count > 0 {
            found.push(format!("{count} {what} at node {id}"));
        }
    };
    note(remains.commands, "commands that hold latches");
    note(remains.requests, "requests without an answer");
    let fs = &node.machine().fs;
    let snapshots = Path::new(DATA_DIR).join("snapshots");
    let files = |folder: &Path| fs.list(folder).unwrap_or_default();
    let files_of_snapshots: usize = files(&snapshots).iter().map(|region| files(&snapshots.join(region)).len()).sum();
    note(files_of_snapshots, "files of snapshots");
    note(files(&Path::new(DATA_DIR).join("snapshot-tables")).len(), "tables of snapshots");
    let tables = files(&Path::new(DATA_DIR).join(kontiki_engine::internals::TABLES_DIR));
    let tables = tables.iter().filter(|name| parse_table_name(name).is_some()).count();
    let stats = handle.db().expect("built in").stats();
    note(tables.saturating_sub(stats.tables() as usize), "tables that no version names");
    for replica in &remains.replicas {
        let bound = node.sizes().raft_log_bytes as u64 + LOG_MEMTABLES * node.sizes().memtable_bytes;
        note(replica.log_bytes.saturating_sub(bound as usize), "bytes of raft log above its bound");
    }
    found
}
