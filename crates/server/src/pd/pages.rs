//! PD's read-only pages, as JSON with PD's names. No HTTP here.
//!
//! Sizes are texts with a unit, as in PD; keys are hexadecimal in capitals. What this store does not measure is absent,
//! and not 0.

use super::{Pd, PdError, member, wire_store};
use crate::api::Node;
use bytes::Bytes;
use kontiki_placement::{
    AllStores, Command, Outcome, Peer, PeerRole, RegionById, RegionInfo, ScanRegions, StoreById, StoreInfo,
};
use kontiki_proto::metapb;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The maximum number of regions on a page: some 40 MB of text. Larger clusters are asked by ScanRegions.
const REGIONS_SHOWN_MAX: u32 = 100_000;
/// The maximum number of pages of regions that are made or sent at a time: each may be large.
pub(super) const REGION_PAGES_AT_ONCE_MAX: usize = 1;
/// A member is healthy if it has reported within this time, four times the interval of its reports.
const SILENCE_MS_MAX: u64 = 20_000;

/// Why there is no page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// There is nothing of that id.
    #[error("{0}")]
    NotFound(String),
    /// The page would be too large.
    #[error("{0}")]
    TooLarge(String),
    /// Another such page is made or sent at the moment. Try again.
    #[error("{0}")]
    Busy(String),
    /// Placement does not answer.
    #[error(transparent)]
    Pd(#[from] PdError),
}

/// A page in JSON. Its place among those that are made or sent is free when the text is dropped.
struct HeldPage {
    text: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldPage {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl<N: Node> Pd<N> {
    /// `/pd/api/v1/version`.
    pub fn version_page(&self) -> Value {
        json!({ "version": format!("v{}", super::COMPATIBLE_VERSION), "kontiki_version": env!("CARGO_PKG_VERSION") })
    }

    /// `/pd/api/v1/members`.
    pub async fn members_page(&self) -> std::result::Result<Value, PageError> {
        let cluster = self.cluster_info().await?;
        let member = |info: &StoreInfo| {
            let wire = member(self.scheme, info);
            json!({
                "name": wire.name,
                "member_id": wire.member_id,
                "peer_urls": wire.peer_urls,
                "client_urls": wire.client_urls,
                "binary_version": format!("v{}", super::COMPATIBLE_VERSION),
            })
        };
        let leader = cluster.members.iter().find(|info| info.store.id == cluster.leader_store_id).map(member);
        Ok(json!({
            "header": { "cluster_id": self.node.cluster_id() },
            "members": cluster.members.iter().map(member).collect::<Vec<_>>(),
            "leader": leader,
            "etcd_leader": leader,
        }))
    }

    /// `/pd/api/v1/health`.
    pub async fn health_page(&self) -> std::result::Result<Value, PageError> {
        let cluster = self.cluster_info().await?;
        let health = |info: &StoreInfo| {
            let wire = member(self.scheme, info);
            let health = info.silent_ms.is_some_and(|ms| ms <= SILENCE_MS_MAX);
            let (name, id, urls) = (wire.name, wire.member_id, wire.client_urls);
            json!({ "name": name, "member_id": id, "client_urls": urls, "health": health })
        };
        Ok(cluster.members.iter().map(health).collect())
    }

    /// `/pd/api/v1/stores`.
    pub async fn stores_page(&self) -> std::result::Result<Value, PageError> {
        let list = expect!(self.demand(Command::AllStores(AllStores {})).await?, Stores)?;
        let stores: Vec<Value> = list.stores.iter().map(|info| self.store_json(info)).collect();
        Ok(json!({ "count": stores.len(), "stores": stores }))
    }

    /// `/pd/api/v1/store/ID`.
    pub async fn store_page(&self, id: u64) -> std::result::Result<Value, PageError> {
        match self.ask(Command::StoreById(StoreById { id })).await? {
            Ok(outcome) => Ok(self.store_json(&expect!(outcome, Store)?)),
            Err(refusal) if refusal.code() == kontiki_placement::RefusalCode::UnknownStore => {
                Err(PageError::NotFound(refusal.message))
            }
            Err(refusal) => Err(self.refused(&refusal).into()),
        }
    }

    /// `/pd/api/v1/regions`, in JSON: at most one at a time, each until its bytes are dropped.
    pub async fn regions_page(&self) -> std::result::Result<Bytes, PageError> {
        let busy = "another page of regions is made or sent at the moment; try again, or use the call ScanRegions";
        let place = Arc::clone(&self.region_pages).try_acquire_owned();
        let _place = place.map_err(|_| PageError::Busy(busy.into()))?;
        let text = self.regions_text(REGIONS_SHOWN_MAX).await?;
        Ok(Bytes::from_owner(HeldPage { text, _place }))
    }

    /// Each region is converted as it comes, since a tree of all is many times as large as the text.
    async fn regions_text(&self, shown_max: u32) -> std::result::Result<Vec<u8>, PageError> {
        let (mut text, mut count) = (br#"{"regions":["#.to_vec(), 0);
        let mut start_key = Bytes::new();
        while count < shown_max {
            let scan = ScanRegions { start_key, limit: shown_max - count, ..ScanRegions::default() };
            let mut end_key = Bytes::new();
            for info in self.find_regions(scan).await? {
                let separator: &[u8] = if count == 0 { b"" } else { b"," };
                text.extend_from_slice(separator);
                serde_json::to_writer(&mut text, &self.region_json(&info)).map_err(unwritten)?;
                count += 1;
                end_key = info.region.end_key;
            }
            // The last region has no end.
            if end_key.is_empty() {
                text.extend_from_slice(format!(r#"],"count":{count}}}"#).as_bytes());
                return Ok(text);
            }
            start_key = end_key;
        }
        let what = format!("this page shows at most {shown_max} regions; use the call ScanRegions");
        Err(PageError::TooLarge(what))
    }

    /// `/pd/api/v1/region/id/ID`.
    pub async fn region_page(&self, id: u64) -> std::result::Result<Value, PageError> {
        let found = self.ask_for_region(Command::RegionById(RegionById { id })).await?;
        let found = found.filter(|info| !info.region.system);
        let info = found.ok_or_else(|| PageError::NotFound(format!("region {id} not found")))?;
        Ok(self.region_json(&info))
    }

    fn store_json(&self, info: &StoreInfo) -> Value {
        let store = wire_store(info, &self.node.lost_stores());
        let mut status = json!({ "leader_weight": 1, "region_weight": 1 });
        if let Some(stats) = &info.stats {
            status["capacity"] = size(stats.capacity_bytes).into();
            status["available"] = size(stats.available_bytes).into();
            status["used_size"] = size(stats.used_bytes).into();
            status["leader_count"] = stats.leader_count.into();
            status["region_count"] = stats.region_count.into();
        }
        json!({
            "store": {
                "id": store.id,
                "address": store.address,
                "version": store.version,
                "peer_address": store.peer_address,
                "status_address": store.status_address,
                "state_name": if store.lost { "Tombstone" } else { "Up" },
                "node_state": store.node_state,
                "kontiki_version": store.program_version,
                "kontiki_silent_ms": store.silent_ms,
            },
            "status": status,
        })
    }

    fn region_json(&self, info: &RegionInfo) -> Value {
        let peer = |peer: &Peer| json!({ "role_name": role(peer.role()), "id": peer.id, "store_id": peer.store_id });
        let mut page = json!({
            "id": info.region.id,
            "start_key": hex(&info.region.start_key),
            "end_key": hex(&info.region.end_key),
            "epoch": { "conf_ver": info.region.epoch.conf_ver, "version": info.region.epoch.version },
            "peers": info.region.peers.iter().map(peer).collect::<Vec<_>>(),
            "approximate_size": info.approximate_bytes >> 20,
            "approximate_keys": info.approximate_keys,
        });
        let as_reported = || info.leader.as_ref().map(super::regions::wire_placement_peer);
        if let Some(leader) = self.settled_leader(info).or_else(as_reported) {
            let role = role(PeerRole::try_from(leader.role).unwrap_or(PeerRole::Voter));
            let metapb::Peer { id, store_id, .. } = leader;
            page["leader"] = json!({ "role_name": role, "id": id, "store_id": store_id });
        }
        if !info.down_peers.is_empty() {
            page["down_peers"] = info.down_peers.iter().map(|down| json!({ "peer": peer(down) })).collect();
        }
        if !info.pending_peers.is_empty() {
            page["pending_peers"] = info.pending_peers.iter().map(peer).collect();
        }
        page
    }
}

fn unwritten(error: serde_json::Error) -> PdError {
    PdError::Internal(format!("the page cannot be written as JSON: {error}"))
}

fn role(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Voter => "Voter",
        PeerRole::Learner => "Learner",
        PeerRole::IncomingVoter => "IncomingVoter",
        PeerRole::DemotingVoter => "DemotingVoter",
    }
}

fn hex(key: &[u8]) -> String {
    key.iter().fold(String::with_capacity(2 * key.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// A number of bytes with four digits at most and a unit, such as `1.953GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut number, mut units) = (bytes as f64, UNITS.iter());
    let mut unit = units.next();
    while number >= 1024.0
        && let Some(next) = units.next()
    {
        number /= 1024.0;
        unit = Some(next);
    }
    let digits = if number < 10.0 {
        3
    } else if number < 100.0 {
        2
    } else if number < 1000.0 {
        1
    } else {
        0
    };
    let text = format!("{number:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", unit.copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "pages_test.rs"]
mod tests;
