//! Raw calls: plain keys in the default family, one version, last write wins.
//!
//! A batch within one region is one proposal: it takes effect as a whole. A range delete is not: it becomes bounded
//! batches of point deletes, so a failure in the middle leaves a part deleted, and repeating it completes it.

use super::answer::pair;
use super::load::bytes_of;
use super::route::{KeySpace, Purpose, refused};
use super::scan::{Scan, clip, entries};
use super::{Kv, Refusal};
use crate::api::Node;
use bytes::Bytes;
use kontiki_engine::{Direction, Family, View, WriteBatch};
use kontiki_proto::kvrpcpb::{self, ApiVersion};
use kontiki_txn::{Failure, ReadProgress};

/// Bytes of keys in one proposal of a range delete: some ten thousand keys, a fraction of a second of work.
const DELETE_RANGE_BYTES_MAX: usize = 256 << 10;

/// Refuses what raw calls do not support, before anything is done.
fn check(context: &Option<kvrpcpb::Context>, family: &str) -> Result<(), Refusal> {
    if !matches!(family, "" | "default") {
        let text = format!("column family `{family}` is not served to raw calls; use the default one");
        return Err(Refusal::Text(text));
    }
    let version = context.as_ref().map_or(0, |context| context.api_version);
    match ApiVersion::try_from(version) {
        // V1TTL differs in values that carry a time to live, which is refused in the requests that set one.
        Ok(ApiVersion::V1 | ApiVersion::V1ttl) => Ok(()),
        _ => Err(Refusal::Text(format!("raw calls are served for API version 1 only, not {version}"))),
    }
}

fn check_ttl(ttls: impl IntoIterator<Item = u64>) -> Result<(), Refusal> {
    match ttls.into_iter().find(|ttl| *ttl != 0) {
        None => Ok(()),
        Some(ttl) => Err(Refusal::Text(format!("a time to live ({ttl} s) is not supported yet; send 0 for none"))),
    }
}

impl<N: Node> Kv<N> {
    /// RawGet.
    pub async fn raw_get(&self, request: kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse {
        self.try_raw_get(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_raw_get(&self, request: &kvrpcpb::RawGetRequest) -> Result<kvrpcpb::RawGetResponse, Refusal> {
        check(&request.context, &request.cf)?;
        let key = &request.key;
        let value = self
            .routed(Purpose::Read, &request.context, |route| async move {
                route.check_keys(KeySpace::Raw, [key.as_ref()]).map_err(refused)?;
                let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
                Ok(view.get(Family::DEFAULT, key)?)
            })
            .await?;
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.served_keys(&request.context, KeySpace::Raw, &[key], |key| key, bytes);
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
        check(&request.context, &request.cf)?;
        let keys = &request.keys;
        let pairs = self
            .routed(Purpose::Read, &request.context, |route| async move {
                route.check_keys(KeySpace::Raw, keys.iter().map(AsRef::as_ref)).map_err(refused)?;
                let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
                let mut budget = self.large.budget();
                let mut progress = ReadProgress::new(&mut budget);
                let mut pairs = Vec::new();
                for key in keys {
                    let Some(value) = view.get(Family::DEFAULT, key)? else {
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
        self.served_keys(&request.context, KeySpace::Raw, keys, AsRef::as_ref, bytes_of(&pairs));
        Ok(kvrpcpb::RawBatchGetResponse { pairs, ..Default::default() })
    }

    /// RawPut.
    pub async fn raw_put(&self, request: kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse {
        let kvrpcpb::RawPutRequest { context, key, value, cf, ttl, .. } = request;
        let checked = check(&context, &cf).and_then(|()| check_ttl([ttl]));
        let done = self.raw_write(checked, &context, &[(key, Some(value))]).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// RawBatchPut.
    pub async fn raw_batch_put(&self, request: kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse {
        let kvrpcpb::RawBatchPutRequest { context, pairs, cf, ttl, ttls, .. } = request;
        let checked = check(&context, &cf).and_then(|()| check_ttl(ttls.into_iter().chain([ttl])));
        let writes: Vec<_> = pairs.into_iter().map(|pair| (pair.key, Some(pair.value))).collect();
        let done = self.raw_write(checked, &context, &writes).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// RawDelete.
    pub async fn raw_delete(&self, request: kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse {
        let checked = check(&request.context, &request.cf);
        let done = self.raw_write(checked, &request.context, &[(request.key, None)]).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// RawBatchDelete.
    pub async fn raw_batch_delete(&self, request: kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse {
        let checked = check(&request.context, &request.cf);
        let writes: Vec<_> = request.keys.into_iter().map(|key| (key, None)).collect();
        let done = self.raw_write(checked, &request.context, &writes).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// Puts (`Some`) and deletes (`None`), together, unless `checked` refuses them.
    async fn raw_write(
        &self,
        checked: Result<(), Refusal>,
        context: &Option<kvrpcpb::Context>,
        writes: &[(Bytes, Option<Bytes>)],
    ) -> Result<(), Refusal> {
        checked?;
        self.routed(Purpose::Write, context, |route| async move {
            route.check_keys(KeySpace::Raw, writes.iter().map(|(key, _)| key.as_ref())).map_err(refused)?;
            let mut batch = WriteBatch::new();
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put(Family::DEFAULT, key, value),
                    None => batch.delete(Family::DEFAULT, key),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.node.replicate(&route.context, batch).await.map_err(Failure::Replicated)
        })
        .await?;
        let bytes = writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        self.served_keys(context, KeySpace::Raw, writes, |(key, _)| key, bytes);
        Ok(())
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
        check(context, family)?;
        self.routed(Purpose::Read, context, |route| async move {
            let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
            let mut budget = self.large.budget();
            let mut progress = ReadProgress::new(&mut budget);
            let mut kvs = Vec::new();
            for scan in scans {
                let before = kvs.len();
                scan.run(&view, &route.region, &mut progress, &mut kvs).await?;
                let found = kvs.get(before..).unwrap_or_default();
                self.served_scan(context, KeySpace::Raw, scan.lower(), found);
            }
            Ok(kvs)
        })
        .await
    }

    /// RawDeleteRange, of that part of the range which lies in the region.
    pub async fn raw_delete_range(&self, request: kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse {
        self.try_raw_delete_range(&request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_raw_delete_range(&self, request: &kvrpcpb::RawDeleteRangeRequest) -> Result<(), Refusal> {
        check(&request.context, &request.cf)?;
        self.routed(Purpose::Write, &request.context, |route| async move {
            let view = self.node.view(&route.context).await.map_err(Failure::Replicated)?;
            let range = clip(&request.start_key, &request.end_key, &route.region);
            let mut found = entries(&view, Family::DEFAULT, range, Direction::Forward)?;
            let mut budget = self.large.budget();
            let mut progress = ReadProgress::new(&mut budget);
            loop {
                let mut batch = WriteBatch::new();
                while batch.as_bytes().len() < DELETE_RANGE_BYTES_MAX {
                    let Some((key, _)) = found.next().transpose()? else { break };
                    batch.delete(Family::DEFAULT, &key);
                    progress.passed().await?;
                }
                if batch.is_empty() {
                    return Ok(());
                }
                self.node.replicate(&route.context, batch).await.map_err(Failure::Replicated)?;
            }
        })
        .await
    }
}
