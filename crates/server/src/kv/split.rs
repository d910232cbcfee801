//! SplitRegion: a region becomes several, at keys of the request.
//!
//! Every boundary is a user key in its memcomparable encoding: clients of transactions decode the boundaries, and the
//! versions of one key stay in one region. A raw key of API version 1 is not encoded, so the boundary for it lies
//! behind all raw keys that begin with its first eight bytes ([`kontiki_txn::boundary_behind`]).

use super::answer::wire_region;
use super::api_version::is_v2;
use super::route::{Purpose, Route, refused};
use super::{Kv, Refusal};
use crate::api::Node;
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_proto::kvrpcpb;
use kontiki_raftstore::command::{SPLIT_CHILDREN_MAX, SPLIT_KEY_BYTES_MAX};
use kontiki_raftstore::{Region, RegionError};
use kontiki_txn::{Failure, boundary_behind, memcomparable_encode};
use std::collections::BTreeSet;

impl<N: Node> Kv<N> {
    /// SplitRegion. Repeating it changes nothing more.
    pub async fn split_region(&self, request: kvrpcpb::SplitRegionRequest) -> kvrpcpb::SplitRegionResponse {
        self.try_split_region(request).await.map_or_else(Into::into, |regions| {
            let regions: Vec<_> = regions.iter().map(wire_region).collect();
            let (left, right) = (regions.first().cloned(), regions.get(1).cloned());
            kvrpcpb::SplitRegionResponse { left, right, regions, ..Default::default() }
        })
    }

    async fn try_split_region(&self, request: kvrpcpb::SplitRegionRequest) -> Result<Vec<Region>, Refusal> {
        let kvrpcpb::SplitRegionRequest { context, split_key, split_keys, is_raw_kv } = request;
        let keys = split_keys.into_iter().chain([split_key]).filter(|key| !key.is_empty());
        // Raw keys of API version 2 are stored encoded.
        let is_plain = is_raw_kv && !is_v2(&context).map_err(Refusal::Text)?;
        let boundary = |key: Bytes| if is_plain { boundary_behind(&key) } else { memcomparable_encode(&key) };
        let boundaries: BTreeSet<Bytes> = keys.map(|key| Bytes::from(boundary(key))).collect();
        check(&boundaries)?;
        self.routed(Purpose::Write, &context, |route| {
            let boundaries = &boundaries;
            async move { self.split_at(&route, boundaries).await }
        })
        .await
    }

    async fn split_at(&self, route: &Route, boundaries: &BTreeSet<Bytes>) -> Result<Vec<Region>, Failure<NodeError>> {
        for boundary in boundaries {
            RegionError::check_key(&route.region, boundary).map_err(refused)?;
        }
        let keys: Vec<Bytes> = boundaries.iter().filter(|key| **key != route.region.start_key).cloned().collect();
        if keys.is_empty() {
            return Ok(vec![Region::clone(&route.region)]);
        }
        self.node.split(&route.context, keys).await.map_err(Failure::Replicated)
    }
}

fn check(boundaries: &BTreeSet<Bytes>) -> Result<(), Refusal> {
    if boundaries.is_empty() || boundaries.len() > SPLIT_CHILDREN_MAX {
        let text = format!("a split needs 1 to {SPLIT_CHILDREN_MAX} keys, not {}", boundaries.len());
        return Err(Refusal::Text(text));
    }
    match boundaries.iter().find(|boundary| boundary.len() > SPLIT_KEY_BYTES_MAX) {
        Some(boundary) => Err(Refusal::Text(format!(
            "a split key has at most {SPLIT_KEY_BYTES_MAX} bytes in its encoding, not {}",
            boundary.len()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "split_test.rs"]
mod tests;
