//! Single calls to one node, whether it leads or not: a client that follows the leader never asks a deposed one.

use super::Connection;
use super::connection::LOGICAL_BITS;
use crate::wire::{TAIL_TXN, txn_position};
use crate::world::NodeId;
use bytes::Bytes;
use futures::future::{Either, select};
use kontiki_client::transport::{Timestamps, Transport};
use kontiki_proto::calls::{Call, GetRegion, KvCall};
use kontiki_proto::metapb;
use kontiki_proto::pdpb::{GetRegionRequest, TsoRequest};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Bound;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a call waits: it must not miss the moment at which its node answers again.
const ANSWER_WAIT: Duration = Duration::from_millis(300);
/// The same for a hasty client.
const HASTY_ANSWER_WAIT: Duration = Duration::from_millis(60);

/// The largest cluster.
const NODES_MAX: u64 = 5;

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It certainly had no effect.
    Refused,
    /// It may have had one.
    Unknown,
}

/// Calls to one node.
#[derive(Clone)]
pub struct Direct {
    connection: Connection,
    node: NodeId,
    answer_wait: Duration,
    /// The regions that it knows, by their start.
    regions: Arc<Mutex<BTreeMap<Bytes, metapb::Region>>>,
}

impl Direct {
    /// Calls to `node`.
    pub fn new(connection: Connection, node: NodeId) -> Direct {
        let regions = Arc::new(Mutex::new(regions_at_first()));
        Direct { connection, node, answer_wait: ANSWER_WAIT, regions }
    }

    /// The same client's calls to another node: what it knows of the regions is shared.
    pub fn at(&self, node: NodeId) -> Direct {
        Direct { node, ..self.clone() }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Gives up soon.
    pub fn hasty(self) -> Direct {
        Direct { answer_wait: HASTY_ANSWER_WAIT, ..self }
    }

    /// The connection below.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The result of `work`, unless it takes longer than the client waits.
    async fn within<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        match select(pin!(work), self.connection.executor().sleep(self.answer_wait)).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }

    /// Makes a call.
    pub async fn ask<C: Call>(&self, request: C::Request) -> Result<C::Reply, NoAnswer> {
        let answer = self.connection.exchange(self.node, C::PATH, request.encode_to_vec().into());
        match self.within(answer).await {
            Some(Ok(reply)) => Ok(C::Reply::decode(reply).expect("nodes' replies decode")),
            Some(Err(failure)) if failure.is_unsent => Err(NoAnswer::Refused),
            Some(Err(_)) | None => Err(NoAnswer::Unknown),
        }
    }

    /// The last of `count` timestamps, which the connection records.
    pub async fn timestamps(&self, count: u32) -> Option<u64> {
        let asked = async {
            let mut stream = self.connection.timestamps(&self.node).await.ok()?;
            stream.ask(TsoRequest { count, ..Default::default() }).await.ok()?.timestamp
        };
        let last = self.within(asked).await.flatten()?;
        Some((last.physical as u64) << LOGICAL_BITS | last.logical as u64)
    }

    /// Makes a call to the node's replica of the region that holds `position`, as far as this client knows the regions:
    /// it learns of others from the answers.
    pub async fn call<C: KvCall>(&self, position: &[u8], mut request: C::Request) -> Result<C::Reply, NoAnswer> {
        let region = self.region_at(position).await?;
        let peer = region.peers.iter().find(|peer| peer.store_id == self.node).cloned();
        let context = C::context(&mut request);
        context.region_id = region.id;
        context.region_epoch = region.region_epoch;
        context.peer = peer;
        let mut reply = self.ask::<C>(request).await?;
        match C::take_region_error(&mut reply) {
            None => Ok(reply),
            // Also returned for a write whose outcome is unknown.
            Some(error) if error.stale_command.is_some() => Err(NoAnswer::Unknown),
            Some(error) => {
                if error.region_not_found.is_some() {
                    // It may have been merged: placement knows what has its range.
                    self.regions.lock().retain(|_, known| known.id != region.id);
                }
                let current = error.epoch_not_match.map(|mismatch| mismatch.current_regions);
                current.unwrap_or_default().into_iter().for_each(|region| self.learn(region));
                Err(NoAnswer::Refused)
            }
        }
    }

    /// The region that holds a position: as it is known, or else as placement says.
    pub async fn region_at(&self, position: &[u8]) -> Result<metapb::Region, NoAnswer> {
        if let Some(known) = self.known(position) {
            return Ok(known);
        }
        let request = GetRegionRequest { region_key: Bytes::copy_from_slice(position), ..Default::default() };
        let reply = self.ask::<GetRegion>(request).await?;
        reply.region.into_iter().for_each(|region| self.learn(region));
        self.known(position).ok_or(NoAnswer::Refused)
    }

    fn known(&self, position: &[u8]) -> Option<metapb::Region> {
        let regions = self.regions.lock();
        let (_, region) = regions.range::<[u8], _>((Bound::Unbounded, Bound::Included(position))).next_back()?;
        let holds = region.end_key.is_empty() || position < region.end_key.as_ref();
        holds.then(|| region.clone())
    }

    fn learn(&self, region: metapb::Region) {
        let version = |region: &metapb::Region| region.region_epoch.as_ref().map_or(0, |epoch| epoch.version);
        let is_before = |end: &Bytes, start: &Bytes| !end.is_empty() && end <= start;
        let overlaps = |known: &metapb::Region| {
            !is_before(&known.end_key, &region.start_key) && !is_before(&region.end_key, &known.start_key)
        };
        let mut regions = self.regions.lock();
        // Of two that have a key, the one with the newer version is right.
        if regions.values().any(|known| overlaps(known) && version(known) > version(&region)) {
            return;
        }
        regions.retain(|_, known| known.id != region.id && !overlaps(known));
        regions.insert(region.start_key.clone(), region);
    }
}

/// The regions of a cluster that begins.
fn regions_at_first() -> BTreeMap<Bytes, metapb::Region> {
    let region = |id: u64, start_key: Bytes, end_key: Bytes| metapb::Region {
        id,
        start_key,
        end_key,
        region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: 1 }),
        peers: (1..=NODES_MAX)
            .map(|store_id| metapb::Peer { id: id * 1_000 + store_id, store_id, ..Default::default() })
            .collect(),
    };
    let tail = Bytes::from(txn_position(TAIL_TXN));
    let regions = [region(2, Bytes::new(), tail.clone()), region(3, tail, Bytes::new())];
    regions.into_iter().map(|region| (region.start_key.clone(), region)).collect()
}
