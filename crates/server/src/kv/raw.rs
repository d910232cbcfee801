//! Raw calls that read: plain keys, one version, last write wins. docs/internals/raw.md has the design.

use super::answer::pair;
use super::crc64::crc64;
use super::load::bytes_of;
use super::raw_space::{RawSpace, ttl_s};
use super::route::{Purpose, refused};
use super::scan::{Scan, entries};
use super::{Kv, Refusal};
use crate::api::Node;
use bytes::Bytes;
use kontiki_engine::{Direction, Range, View};
use kontiki_proto::kvrpcpb::{self, ChecksumAlgorithm};
use kontiki_txn::{Failure, ReadProgress};

impl<N: Node> Kv<N> {
    /// RawGet.
    pub async fn raw_get(&self, request: kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse {
        self.try_raw_get(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_raw_get(&self, request: &kvrpcpb::RawGetRequest) -> Result<kvrpcpb::RawGetResponse, Refusal> {
        let space = RawSpace::of(&request.context, &request.cf)?;
        let key = &request.key;
        space.check_keys([key])?;
        let value = self
            .routed(Purpose::Read, &request.context, |route| async move {
                route.check_keys(space.keys, [key.as_ref()]).map_err(refused)?;
                let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
                Ok(view.get(space.family, &space.stored(key))?)
            })
            .await?;
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.served_keys(&request.context, space.keys, &[key], |key| key, bytes);
        let not_found = value.is_none();
        Ok(kvrpcpb::RawGetResponse { value: value.unwrap_or_default(), not_found, ..Default::default() })
    }

    /// RawBatchGet: pairs of the keys found, in the requested order.
    pub async fn raw_batch_get(&self, request: kvrpcpb::RawBatchGetRequest) -> kvrpcpb::RawBatchGetResponse {
        self.try_raw_batch_get(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_raw_batch_get(
        &self,
        request: &kvrpcpb::RawBatchGetRequest,
    ) -> Result<kvrpcpb::RawBatchGetResponse, Refusal> {
        let space = RawSpace::of(&request.context, &request.cf)?;
        let keys = &request.keys;
        space.check_keys(keys)?;
        let pairs = self
            .routed(Purpose::Read, &request.context, |route| async move {
                route.check_keys(space.keys, keys.iter().map(AsRef::as_ref)).map_err(refused)?;
                let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
                let mut budget = self.large.budget();
                let mut progress = ReadProgress::new(&mut budget);
                let mut pairs = Vec::new();
                for key in keys {
                    let Some(value) = view.get(space.family, &space.stored(key))? else {
                        progress.passed().await?;
                        continue;
                    };
                    let bytes = key.len() + value.len();
                    pairs.push(pair(key.clone(), value));
                    progress.added::<kvrpcpb::KvPair>(bytes).await?;
                }
                Ok(pairs)
            })
            .await?;
        self.served_keys(&request.context, space.keys, keys, AsRef::as_ref, bytes_of(&pairs));
        Ok(kvrpcpb::RawBatchGetResponse { pairs, ..Default::default() })
    }

    /// RawGetKeyTTL: how long a key is still there.
    pub async fn raw_get_key_ttl(&self, request: kvrpcpb::RawGetKeyTtlRequest) -> kvrpcpb::RawGetKeyTtlResponse {
        match self.try_raw_get_key_ttl(&request).await {
            Ok(Some(ttl)) => kvrpcpb::RawGetKeyTtlResponse { ttl, ..Default::default() },
            Ok(None) => kvrpcpb::RawGetKeyTtlResponse { not_found: true, ..Default::default() },
            Err(refusal) => refusal.into(),
        }
    }

    async fn try_raw_get_key_ttl(&self, request: &kvrpcpb::RawGetKeyTtlRequest) -> Result<Option<u64>, Refusal> {
        let space = RawSpace::of(&request.context, &request.cf)?;
        let key = &request.key;
        space.check_keys([key])?;
        let found = self
            .routed(Purpose::Read, &request.context, |route| async move {
                route.check_keys(space.keys, [key.as_ref()]).map_err(refused)?;
                let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
                // Only entries of a range say when they expire.
                let stored = space.stored(key);
                let mut found = view.entries(space.family, Range::from(&stored..=&stored), Direction::Forward)?;
                let is_there = found.next().transpose()?.is_some();
                Ok(is_there.then(|| found.expires_at_ms().map_or(0, |at| ttl_s(self.node.wall_ms(), at))))
            })
            .await?;
        self.served_keys(&request.context, space.keys, &[key], |key| key, key.len());
        Ok(found)
    }

    /// RawScan, in either direction, of that part of the range which lies in the region.
    pub async fn raw_scan(&self, request: kvrpcpb::RawScanRequest) -> kvrpcpb::RawScanResponse {
        let kvrpcpb::RawScanRequest { context, start_key, limit, key_only, cf, reverse, end_key } = request;
        let scan = Scan::new(start_key, end_key, limit, key_only, reverse);
        let kvs = self.try_raw_scans(&context, &cf, &[scan]).await;
        kvs.map_or_else(Into::into, |kvs| kvrpcpb::RawScanResponse { kvs, ..Default::default() })
    }

    /// RawBatchScan: each range up to the limit, one after the other.
    pub async fn raw_batch_scan(&self, request: kvrpcpb::RawBatchScanRequest) -> kvrpcpb::RawBatchScanResponse {
        let kvrpcpb::RawBatchScanRequest { context, ranges, each_limit, key_only, cf, reverse } = request;
        let scan = |range: kvrpcpb::KeyRange| Scan::new(range.start_key, range.end_key, each_limit, key_only, reverse);
        let scans: Vec<_> = ranges.into_iter().map(scan).collect();
        let kvs = self.try_raw_scans(&context, &cf, &scans).await;
        kvs.map_or_else(Into::into, |kvs| kvrpcpb::RawBatchScanResponse { kvs, ..Default::default() })
    }

    async fn try_raw_scans(
        &self,
        context: &Option<kvrpcpb::Context>,
        family: &str,
        scans: &[Scan],
    ) -> Result<Vec<kvrpcpb::KvPair>, Refusal> {
        let space = RawSpace::of(context, family)?;
        scans.iter().try_for_each(|scan| space.check_range(scan.lower(), scan.upper()))?;
        self.routed(Purpose::Read, context, |route| async move {
            let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
            let mut budget = self.large.budget();
            let mut progress = ReadProgress::new(&mut budget);
            let mut kvs = Vec::new();
            for scan in scans {
                let before = kvs.len();
                scan.run(space, &view, &route.region, &mut progress, &mut kvs).await?;
                let found = kvs.get(before..).unwrap_or_default();
                self.served_scan(context, space.keys, scan.lower(), found);
            }
            Ok(kvs)
        })
        .await
    }

    /// RawChecksum, of those parts of the ranges which lie in the region.
    pub async fn raw_checksum(&self, request: kvrpcpb::RawChecksumRequest) -> kvrpcpb::RawChecksumResponse {
        self.try_raw_checksum(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_raw_checksum(
        &self,
        request: &kvrpcpb::RawChecksumRequest,
    ) -> Result<kvrpcpb::RawChecksumResponse, Refusal> {
        if request.algorithm != ChecksumAlgorithm::Crc64Xor as i32 {
            let text = format!("checksum algorithm {} does not exist; Crc64_Xor (0) does", request.algorithm);
            return Err(Refusal::Text(text));
        }
        let space = RawSpace::of(&request.context, "")?;
        request.ranges.iter().try_for_each(|range| space.check_range(&range.start_key, &range.end_key))?;
        self.routed(Purpose::Read, &request.context, |route| async move {
            let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
            let mut budget = self.large.budget();
            let mut progress = ReadProgress::new(&mut budget);
            let mut answer = kvrpcpb::RawChecksumResponse::default();
            for kvrpcpb::KeyRange { start_key, end_key } in &request.ranges {
                let range = space.range(&route.region, start_key, end_key);
                let mut found = entries(&view, space.family, range, Direction::Forward)?;
                while let Some((stored, value)) = found.next().transpose()? {
                    let key = space.key_of(stored)?;
                    answer.checksum ^= crc64(&[&key, &value]);
                    answer.total_kvs += 1;
                    answer.total_bytes += (key.len() + value.len()) as u64;
                    progress.passed().await?;
                }
            }
            Ok(answer)
        })
        .await
    }

    /// RawCoprocessor: programs beside the data are not supported.
    pub async fn raw_coprocessor(&self, request: kvrpcpb::RawCoprocessorRequest) -> kvrpcpb::RawCoprocessorResponse {
        let text = format!(
            "raw coprocessors are not supported, so there is none with the name `{}`: scan the ranges instead",
            request.copr_name
        );
        Refusal::Text(text).into()
    }
}
