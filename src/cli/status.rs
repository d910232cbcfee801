//! `kontiki status`: the state of the cluster, as placement reports it, and of the raft logs, as each node does.

use super::raft_logs::{self, RaftLogs};
use super::{Failure, block_on, remote, text, tls};
use clap::Args;
use kontiki_proto::metapb::{self, Store, StoreState};
use kontiki_proto::pdpb::{GetAllStoresRequest, GetMembersRequest, Region, ScanRegionsRequest, pd_client::PdClient};
use kontiki_server::driver::PLACEMENT_REGION;
use kontiki_tls::Credentials;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// Regions per request, and in the text output.
const REGIONS_PAGE: usize = 1_000;

/// A store that has been silent for longer is disconnected: it has missed at least three of its reports, which come
/// every 5 s.
const DISCONNECTED_AFTER: Duration = Duration::from_secs(20);
/// A store that has been silent for longer is down: no restart or upgrade takes as long.
const DOWN_AFTER: Duration = Duration::from_secs(30 * 60);

/// Longest key in the table, in characters; JSON shows all of it.
const KEY_CHARS_MAX: usize = 40;

/// Arguments of `kontiki status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Only this region, with the raft logs of its replicas: their entries and bytes, what is not applied or in no
    /// table yet, and what each follower lacks
    #[arg(long, value_name = "ID")]
    region: Option<u64>,
    #[command(flatten)]
    endpoint: remote::Endpoint,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Show keys as hexadecimal digits
    #[arg(long)]
    hex: bool,
}

/// The answers of one query.
struct Picture {
    cluster_id: u64,
    placement_leader: String,
    stores: Vec<Store>,
    /// The data regions in key order, after the placement region.
    regions: Vec<Region>,
    /// Of the stores that are up.
    logs: RaftLogs,
}

impl Status {
    /// Queries and prints.
    pub fn run(self) -> Result<(), Failure> {
        let picture = block_on(self.ask())?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", self.to_json(&picture))?;
            return Ok(());
        }
        writeln!(out, "cluster {}, placement led by {}\n", picture.cluster_id, picture.placement_leader)?;
        writeln!(out, "{}\n", stores_table(&picture))?;
        writeln!(out, "{}", self.regions_table(&picture))?;
        if self.region.is_some() {
            writeln!(out, "\n{}", raft_logs::region_table(&picture.logs))?;
        }
        if picture.regions.len() > REGIONS_PAGE && self.region.is_none() {
            let more = picture.regions.len() - REGIONS_PAGE;
            writeln!(out, "... and {more} more regions (--json shows all)")?;
        }
        write!(out, "{}", raft_logs::outstanding(&picture.logs))?;
        Ok(())
    }

    async fn ask(&self) -> Result<Picture, Failure> {
        let mut picture = ask(&self.endpoint).await?;
        if let Some(id) = self.region
            && !picture.regions.iter().any(|region| self.shows(region))
        {
            return Err(Failure::usage(format!("no region {id}: `kontiki status` shows all")));
        }
        // The others would only cause a wait.
        let up = picture.stores.iter().filter(|store| state_name(store) == "up");
        let addresses: Vec<(u64, String)> = up.map(|store| (store.id, store.address.clone())).collect();
        let credentials = self.endpoint.credentials()?;
        picture.logs = raft_logs::ask_all(addresses, credentials.as_ref(), self.region.unwrap_or(0)).await;
        Ok(picture)
    }

    /// Whether the region was asked for.
    fn shows(&self, region: &Region) -> bool {
        self.region.is_none() || region.region.as_ref().map(|region| region.id) == self.region
    }

    fn regions_table(&self, picture: &Picture) -> String {
        let show = |bytes: &[u8]| text::shorten(&text::show(bytes, self.hex), KEY_CHARS_MAX);
        let row = |region: &Region| {
            let descriptor = region.region.clone().unwrap_or_default();
            let epoch = descriptor.region_epoch.map_or_else(|| "-".into(), |e| format!("{}.{}", e.conf_ver, e.version));
            let (start, end) = match (is_placement(region), descriptor.end_key.is_empty()) {
                (true, _) => ("(placement)".into(), "(placement)".into()),
                (false, true) => (show(&descriptor.start_key), "(end)".into()),
                (false, false) => (show(&descriptor.start_key), show(&descriptor.end_key)),
            };
            let stores: Vec<String> = descriptor.peers.iter().map(|peer| peer.store_id.to_string()).collect();
            let leader = leader_store(region).map_or_else(|| "-".into(), |store| store.to_string());
            vec![descriptor.id.to_string(), leader, stores.join(","), epoch, start, end]
        };
        let rows: Vec<Vec<String>> =
            picture.regions.iter().filter(|region| self.shows(region)).take(REGIONS_PAGE).map(row).collect();
        text::table(&["REGION", "LEADER", "STORES", "EPOCH", "START", "END"], rows)
    }

    fn to_json(&self, picture: &Picture) -> Value {
        let (held, led) = counts(picture);
        let store = |store: &Store| {
            json!({
                "id": store.id, "address": store.address, "status_address": store.status_address,
                "version": version(store), "compatible_version": store.version,
                "state": state_name(store), "silent_ms": store.silent_ms,
                "regions": held.get(&store.id).unwrap_or(&0), "leaders": led.get(&store.id).unwrap_or(&0),
            })
        };
        let region = |region: &Region| {
            let descriptor = region.region.clone().unwrap_or_default();
            let epoch = descriptor.region_epoch.unwrap_or_default();
            let peers = descriptor.peers.iter().map(|peer| json!({ "id": peer.id, "store": peer.store_id }));
            json!({
                "id": descriptor.id, "leader_store": leader_store(region), "placement": is_placement(region),
                "peers": peers.collect::<Vec<_>>(),
                "epoch": { "conf_version": epoch.conf_ver, "version": epoch.version },
                "start_key": text::show(&descriptor.start_key, true),
                "end_key": text::show(&descriptor.end_key, true),
            })
        };
        json!({
            "cluster_id": picture.cluster_id,
            "placement_leader": picture.placement_leader,
            "stores": picture.stores.iter().map(store).collect::<Vec<_>>(),
            "regions": picture.regions.iter().filter(|found| self.shows(found)).map(region).collect::<Vec<_>>(),
            "raft_logs": raft_logs::to_json(&picture.logs),
        })
    }
}

fn stores_table(picture: &Picture) -> String {
    let (held, led) = counts(picture);
    let count = |counts: &BTreeMap<u64, u64>, id: u64| counts.get(&id).unwrap_or(&0).to_string();
    let row = |store: &Store| {
        vec![
            store.id.to_string(),
            store.address.clone(),
            store.status_address.clone(),
            state_name(store).to_string(),
            version(store).to_string(),
            count(&held, store.id),
            count(&led, store.id),
        ]
    };
    let header = ["STORE", "ADDRESS", "STATUS PORT", "STATE", "VERSION", "REGIONS", "LEADERS"];
    text::table(&header, picture.stores.iter().map(row))
}

/// The version of the store's program; a placement leader of an older version reports only the protocol version.
fn version(store: &Store) -> &str {
    if store.program_version.is_empty() { &store.version } else { &store.program_version }
}

fn state_name(store: &Store) -> &'static str {
    let silent = Duration::from_millis(store.silent_ms);
    match StoreState::try_from(store.state) {
        Ok(StoreState::Up) if store.lost => "lost",
        Ok(StoreState::Up) if silent > DOWN_AFTER => "down",
        Ok(StoreState::Up) if silent > DISCONNECTED_AFTER => "disconnected",
        Ok(StoreState::Up) => "up",
        Ok(StoreState::Offline) => "offline",
        Ok(StoreState::Tombstone) => "removed",
        Err(_) => "unknown",
    }
}

fn is_placement(region: &Region) -> bool {
    region.region.as_ref().is_some_and(|region| region.id == PLACEMENT_REGION.0)
}

/// Placement's own region, which clients cannot address: it is built from the list of its members.
fn placement_region(members: &[u64], leader: Option<u64>) -> Region {
    let peer = |store_id: u64| metapb::Peer { store_id, ..metapb::Peer::default() };
    let peers = members.iter().copied().map(peer).collect();
    let region = metapb::Region { id: PLACEMENT_REGION.0, peers, ..metapb::Region::default() };
    Region { region: Some(region), leader: leader.map(peer), ..Region::default() }
}

/// A region without a known leader has an absent or an empty one.
fn leader_store(region: &Region) -> Option<u64> {
    region.leader.as_ref().map(|peer| peer.store_id).filter(|store| *store != 0)
}

/// How many regions each store holds, and leads.
fn counts(picture: &Picture) -> (BTreeMap<u64, u64>, BTreeMap<u64, u64>) {
    let (mut held, mut led) = (BTreeMap::new(), BTreeMap::new());
    for region in &picture.regions {
        for peer in region.region.iter().flat_map(|region| &region.peers) {
            *held.entry(peer.store_id).or_default() += 1;
        }
        if let Some(store) = leader_store(region) {
            *led.entry(store).or_default() += 1;
        }
    }
    (held, led)
}

/// The answer of the first node that gives one.
async fn ask(endpoint: &remote::Endpoint) -> Result<Picture, Failure> {
    let nodes = endpoint.nodes().await?;
    let credentials = endpoint.credentials()?;
    let asked = futures::future::select_ok(nodes.iter().map(|node| Box::pin(ask_node(node, credentials.as_ref()))));
    let (picture, _) = tokio::time::timeout(remote::TIMEOUT, asked).await.map_err(|_| remote::too_slow(&nodes))??;
    Ok(picture)
}

async fn ask_node(node: &str, credentials: Option<&Arc<Credentials>>) -> Result<Picture, Failure> {
    let failed = |status: kontiki_proto::Status| remote::refused(node, &status);
    let mut client = PdClient::new(tls::connect(node, credentials).await?);
    let members = client.get_members(GetMembersRequest::default()).await.map_err(failed)?.into_inner();
    let stores = client.get_all_stores(GetAllStoresRequest::default()).await.map_err(failed)?;
    let mut regions: Vec<Region> = Vec::new();
    loop {
        let start_key = regions.last().and_then(|last| last.region.as_ref()).map(|r| r.end_key.clone());
        if start_key.as_ref().is_some_and(|end| end.is_empty()) {
            break;
        }
        let page = ScanRegionsRequest {
            start_key: start_key.unwrap_or_default(),
            limit: REGIONS_PAGE as i32,
            ..ScanRegionsRequest::default()
        };
        let page = client.scan_regions(page).await.map_err(failed)?.into_inner();
        if page.regions.is_empty() {
            break;
        }
        regions.extend(page.regions);
    }
    let ids: Vec<u64> = members.members.iter().map(|member| member.member_id).collect();
    regions.insert(0, placement_region(&ids, members.leader.as_ref().map(|leader| leader.member_id)));
    Ok(Picture {
        cluster_id: members.header.map_or(0, |header| header.cluster_id),
        placement_leader: members.leader.map_or_else(|| "no node".into(), |leader| leader.name),
        stores: stores.into_inner().stores,
        regions,
        logs: RaftLogs::new(),
    })
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
