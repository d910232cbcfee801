//! Range deletes of transactional data, and of everything in a range: each region's part is one command with a range
//! tombstone for each family, so its cost does not depend on what is there.
//!
//! **UnsafeDestroyRange** is for a store: clients send it to every one. TiKV's stores remove the range from their own
//! files, each at its own time. Here replicas of a region are compared, restored from each other's snapshots and made
//! again from the log, so data that only some of them have removed would be a difference, or would come back: a store
//! instead proposes the removal to each region that it leads, and so the replicas remove it at the same place of the
//! log. A store answers success only if it has done so in every region that it was seen to lead during the call; a
//! region whose leader moved meanwhile is an error that asks to repeat the call.

use super::answer::is_transient;
use super::api_version::{KeyMode, is_v2};
use super::raw_space::RawSpace;
use super::route::Purpose;
use super::{Kv, Refusal};
use crate::api::Node;
use crate::driver::{NodeError, RegionContext};
use crate::families::{RAW_V2, TXN_DEFAULT, TXN_LOCK, TXN_WRITE};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use kontiki_engine::{Range, WriteBatch};
use kontiki_proto::kvrpcpb;
use kontiki_raftstore::{Region, RegionId, Space};
use kontiki_txn::{Failure, user_range};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Regions in which a range is destroyed at the same time.
const REGIONS_AT_A_TIME: usize = 16;

/// What UnsafeDestroyRange removes.
#[derive(Clone, Debug)]
struct Destroyed {
    start_key: Bytes,
    end_key: Bytes,
    /// `None`: transactional keys.
    raw: Option<RawSpace>,
}

impl Destroyed {
    /// Of version 1, transactional keys: only their clients send it, and raw keys of the same range may be another
    /// application's.
    fn of(request: &kvrpcpb::UnsafeDestroyRangeRequest) -> Result<Destroyed, Refusal> {
        let (start_key, end_key) = (request.start_key.clone(), request.end_key.clone());
        if !is_v2(&request.context).map_err(Refusal::Text)? {
            return Ok(Destroyed { start_key, end_key, raw: None });
        }
        let mode = KeyMode::of(&start_key).unwrap_or(KeyMode::Txn);
        mode.check_range(&start_key, &end_key).map_err(Refusal::Text)?;
        let raw = match mode {
            KeyMode::Raw => Some(RawSpace::of(&request.context, "")?),
            KeyMode::Txn => None,
        };
        debug_assert!(raw.is_none_or(|space| space.family == RAW_V2));
        Ok(Destroyed { start_key, end_key, raw })
    }

    /// The command for a region; empty if it has nothing of the range.
    fn batch(&self, region: &Region) -> WriteBatch {
        let mut batch = WriteBatch::new();
        let Some(space) = self.raw else {
            delete_versions(&mut batch, region, &self.start_key, &self.end_key);
            return batch;
        };
        let range = space.range(region, &self.start_key, &self.end_key);
        if !range.is_empty() {
            batch.delete_range(space.family, range);
        }
        batch
    }
}

/// Removes the versions and locks of the user keys `start <= key < end` that the region owns; an empty end is
/// unbounded.
fn delete_versions(batch: &mut WriteBatch, region: &Region, start: &[u8], end: &[u8]) {
    let range = user_range(&Range::region(&region.start_key, &region.end_key), start, end);
    if !range.is_empty() {
        [TXN_DEFAULT, TXN_LOCK, TXN_WRITE].into_iter().for_each(|family| batch.delete_range(family, range.clone()));
    }
}

impl<N: Node> Kv<N> {
    /// KvDeleteRange, of that part of the range which lies in the region.
    pub async fn delete_range(&self, request: kvrpcpb::DeleteRangeRequest) -> kvrpcpb::DeleteRangeResponse {
        self.try_delete_range(&request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_delete_range(&self, request: &kvrpcpb::DeleteRangeRequest) -> Result<(), Refusal> {
        let kvrpcpb::DeleteRangeRequest { context, start_key, end_key, notify_only } = request;
        if is_v2(context).map_err(Refusal::Text)? {
            KeyMode::Txn.check_range(start_key, end_key).map_err(Refusal::Text)?;
        }
        self.routed(Purpose::Write, context, |route| async move {
            let mut batch = WriteBatch::new();
            delete_versions(&mut batch, &route.region, start_key, end_key);
            // To notify is to put the range into the log for readers of the log, of which there are none.
            if batch.is_empty() || *notify_only {
                return Ok(());
            }
            self.node.replicate(&route.context, batch).await.map_err(Failure::Replicated)
        })
        .await
    }

    /// UnsafeDestroyRange: everything in the range, in the regions that this store leads.
    pub async fn unsafe_destroy_range(
        &self,
        request: kvrpcpb::UnsafeDestroyRangeRequest,
    ) -> kvrpcpb::UnsafeDestroyRangeResponse {
        match self.try_unsafe_destroy_range(&request).await {
            Ok(()) => Default::default(),
            // Clients do not read region errors here: the request names no region.
            Err(refusal) => Refusal::Text(refusal.into_text()).into(),
        }
    }

    async fn try_unsafe_destroy_range(&self, request: &kvrpcpb::UnsafeDestroyRangeRequest) -> Result<(), Refusal> {
        let context = request.context.clone().unwrap_or_default();
        self.check_cluster(&context)?;
        let destroyed = &Destroyed::of(request)?;
        let mut waiting = self.retry_budget.begin(&self.node, context.max_execution_duration_ms);
        let mut done = BTreeSet::new();
        let mut failed: BTreeMap<RegionId, NodeError> = BTreeMap::new();
        loop {
            let mut led = self.led_regions(destroyed);
            led.retain(|region| !done.contains(&(region.id, region.epoch.version)));
            let attempts: Vec<_> = led.into_iter().map(|region| self.destroy(destroyed, region)).collect();
            let ended: Vec<_> = stream::iter(attempts).buffer_unordered(REGIONS_AT_A_TIME).collect().await;
            let is_complete = ended.is_empty();
            for (region, result) in ended {
                match result {
                    Ok(()) => {
                        failed.remove(&region.id);
                        done.insert((region.id, region.epoch.version));
                    }
                    Err(error) => {
                        failed.insert(region.id, error);
                    }
                }
            }
            if is_complete && failed.is_empty() {
                return Ok(());
            }
            let may_end = failed.values().all(may_end_soon);
            if !failed.is_empty() && (!may_end || !waiting.pause().await) {
                return Err(not_destroyed(&failed));
            }
        }
    }

    /// The regions with a part of the range that this store leads now.
    fn led_regions(&self, destroyed: &Destroyed) -> Vec<Arc<Region>> {
        let own = self.node.store_id();
        let data = self.node.regions().into_iter().filter(|region| region.space == Space::Data);
        let concerned = data.filter(|region| !destroyed.batch(region).is_empty());
        let here = concerned.filter_map(|region| self.node.requested_region(region.id));
        here.filter(|(_, leader)| leader.is_some_and(|leader| leader.store == own)).map(|(region, _)| region).collect()
    }

    async fn destroy(&self, destroyed: &Destroyed, region: Arc<Region>) -> (Arc<Region>, Result<(), NodeError>) {
        let context = RegionContext::new(region.id, region.epoch);
        let result = self.node.replicate(&context, destroyed.batch(&region)).await;
        (region, result)
    }
}

/// Whether another attempt may succeed. An unknown outcome is one of them: to remove the range again does no harm.
fn may_end_soon(error: &NodeError) -> bool {
    is_transient(error) || matches!(error, NodeError::Region(_) | NodeError::Undetermined)
}

fn not_destroyed(failed: &BTreeMap<RegionId, NodeError>) -> Refusal {
    let (region, why) = match failed.first_key_value() {
        Some((region, error)) => (region.0, error.to_string()),
        None => (0, String::new()),
    };
    let count = failed.len();
    Refusal::Text(format!(
        "the range is not destroyed in {count} regions, {region} among them ({why}): repeat the call"
    ))
}

#[cfg(test)]
#[path = "delete_range_test.rs"]
mod tests;
