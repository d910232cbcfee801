//! `kontiki status`: what the cluster looks like, as placement tells it.

use super::{Failure, block_on, remote, text};
use clap::Args;
use kontiki_proto::metapb::StoreState;
use kontiki_proto::pdpb::{GetAllStoresRequest, GetMembersRequest, Region, ScanRegionsRequest, pd_client::PdClient};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;

/// Regions asked for at a time, and shown to a person.
const REGIONS_PAGE: usize = 1_000;

/// Longest key in the table, in characters; JSON shows all of it.
const KEY_CHARS_MAX: usize = 40;

/// Arguments of `kontiki status`.
#[derive(Args, Debug)]
pub struct Status {
    #[command(flatten)]
    endpoint: remote::Endpoint,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    /// Show keys as hexadecimal digits
    #[arg(long)]
    hex: bool,
}

/// What was asked together.
struct Picture {
    cluster_id: u64,
    placement_leader: String,
    stores: Vec<kontiki_proto::metapb::Store>,
    regions: Vec<Region>,
}

impl Status {
    /// Asks and prints.
    pub fn run(self) -> Result<(), Failure> {
        let picture = block_on(ask(&self.endpoint))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", self.to_json(&picture))?;
            return Ok(());
        }
        writeln!(out, "cluster {}, placement led by {}\n", picture.cluster_id, picture.placement_leader)?;
        writeln!(out, "{}\n", stores_table(&picture))?;
        writeln!(out, "{}", self.regions_table(&picture))?;
        if picture.regions.len() > REGIONS_PAGE {
            let more = picture.regions.len() - REGIONS_PAGE;
            writeln!(out, "... and {more} more regions (--json shows all)")?;
        }
        Ok(())
    }

    fn regions_table(&self, picture: &Picture) -> String {
        let show = |bytes: &[u8]| text::shorten(&text::show(bytes, self.hex), KEY_CHARS_MAX);
        let row = |region: &Region| {
            let descriptor = region.region.clone().unwrap_or_default();
            let epoch = descriptor.region_epoch.unwrap_or_default();
            let stores: Vec<String> = descriptor.peers.iter().map(|peer| peer.store_id.to_string()).collect();
            let leader = leader_store(region).map_or_else(|| "-".into(), |store| store.to_string());
            vec![
                descriptor.id.to_string(),
                leader,
                stores.join(","),
                format!("{}.{}", epoch.conf_ver, epoch.version),
                show(&descriptor.start_key),
                if descriptor.end_key.is_empty() { "(end)".into() } else { show(&descriptor.end_key) },
            ]
        };
        let rows: Vec<Vec<String>> = picture.regions.iter().take(REGIONS_PAGE).map(row).collect();
        text::table(&["REGION", "LEADER", "STORES", "EPOCH", "START", "END"], rows)
    }

    fn to_json(&self, picture: &Picture) -> Value {
        let (held, led) = counts(picture);
        let store = |store: &kontiki_proto::metapb::Store| {
            json!({
                "id": store.id, "address": store.address, "status_address": store.status_address,
                "version": store.version, "state": state_name(store.state),
                "regions": held.get(&store.id).unwrap_or(&0), "leaders": led.get(&store.id).unwrap_or(&0),
            })
        };
        let region = |region: &Region| {
            let descriptor = region.region.clone().unwrap_or_default();
            let epoch = descriptor.region_epoch.unwrap_or_default();
            let peers = descriptor.peers.iter().map(|peer| json!({ "id": peer.id, "store": peer.store_id }));
            json!({
                "id": descriptor.id, "leader_store": leader_store(region),
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
            "regions": picture.regions.iter().map(region).collect::<Vec<_>>(),
        })
    }
}

fn stores_table(picture: &Picture) -> String {
    let (held, led) = counts(picture);
    let count = |counts: &BTreeMap<u64, u64>, id: u64| counts.get(&id).unwrap_or(&0).to_string();
    let row = |store: &kontiki_proto::metapb::Store| {
        vec![
            store.id.to_string(),
            store.address.clone(),
            store.status_address.clone(),
            state_name(store.state).to_string(),
            store.version.clone(),
            count(&held, store.id),
            count(&led, store.id),
        ]
    };
    let header = ["STORE", "ADDRESS", "STATUS PORT", "STATE", "VERSION", "REGIONS", "LEADERS"];
    text::table(&header, picture.stores.iter().map(row))
}

fn state_name(state: i32) -> &'static str {
    match StoreState::try_from(state) {
        Ok(StoreState::Up) => "up",
        Ok(StoreState::Offline) => "offline",
        Ok(StoreState::Tombstone) => "removed",
        Err(_) => "unknown",
    }
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

async fn ask(endpoint: &remote::Endpoint) -> Result<Picture, Failure> {
    let node = endpoint.find().await?;
    tokio::time::timeout(remote::TIMEOUT, ask_node(node)).await.unwrap_or_else(|_| Err(remote::too_slow(node)))
}

async fn ask_node(node: &str) -> Result<Picture, Failure> {
    let failed = |error: &dyn std::fmt::Display| remote::refused(node, error);
    let mut client = PdClient::connect(format!("http://{node}")).await.map_err(|error| failed(&error))?;
    let members =
        client.get_members(GetMembersRequest::default()).await.map_err(|e| failed(&e.message()))?.into_inner();
    let stores = client.get_all_stores(GetAllStoresRequest::default()).await.map_err(|e| failed(&e.message()))?;
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
        let page = client.scan_regions(page).await.map_err(|e| failed(&e.message()))?.into_inner();
        if page.regions.is_empty() {
            break;
        }
        regions.extend(page.regions);
    }
    Ok(Picture {
        cluster_id: members.header.map_or(0, |header| header.cluster_id),
        placement_leader: members.leader.map_or_else(|| "nobody".into(), |leader| leader.name),
        stores: stores.into_inner().stores,
        regions,
    })
}
