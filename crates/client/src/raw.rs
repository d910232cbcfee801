//! Raw keys.

use crate::Result;
use crate::cluster::Cluster;
use crate::keys::{KeyPair, Mode};
use crate::replicas::ReadFrom;
use crate::reply::{check, fewer, pairs_of};
use crate::scan::{RawScan, Remainder, lesser_end};
use crate::transport::{Grpc, Transport};
use bytes::Bytes;
use kontiki_proto::calls;
use kontiki_proto::kvrpcpb::{self, Context, KvPair};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Raw keys: each operation on one key is atomic and linearizable; batches are not atomic. Cheap to clone.
pub struct RawClient<T: Transport = Grpc> {
    pub(crate) cluster: Arc<Cluster<T>>,
    read_from: ReadFrom,
}

impl<T: Transport> Clone for RawClient<T> {
    fn clone(&self) -> RawClient<T> {
        RawClient { cluster: self.cluster.clone(), read_from: self.read_from }
    }
}

impl<T: Transport> RawClient<T> {
    pub(crate) fn new(cluster: Arc<Cluster<T>>) -> RawClient<T> {
        RawClient { cluster, read_from: ReadFrom::Leader }
    }

    /// The same client, whose reads these replicas serve.
    pub fn read_from(self, replicas: ReadFrom) -> RawClient<T> {
        RawClient { read_from: replicas, ..self }
    }

    /// Of a read.
    fn context(&self) -> Option<Context> {
        Some(Context { replica_read: self.read_from == ReadFrom::Replica, ..Default::default() })
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        let request = kvrpcpb::RawGetRequest { context: self.context(), key: key.clone(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawGet>(Mode::Raw, &key, request, &mut backoff).await?;
        check(reply.error)?;
        Ok((!reply.not_found).then_some(reply.value))
    }

    /// Sets a key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        let request = kvrpcpb::RawPutRequest { key: key.clone(), value, ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawPut>(Mode::Raw, &key, request, &mut backoff).await?;
        backoff.check_write(reply.error)
    }

    /// Removes a key; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        let request = kvrpcpb::RawDeleteRequest { key: key.clone(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawDelete>(Mode::Raw, &key, request, &mut backoff).await?;
        backoff.check_write(reply.error)
    }

    /// The pairs of those keys that exist, in key order.
    pub async fn batch_get<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<KeyPair>> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let context = self.context();
        let request = |keys: &[Bytes]| kvrpcpb::RawBatchGetRequest {
            context: context.clone(),
            keys: keys.to_vec(),
            ..Default::default()
        };
        let mut backoff = self.cluster.backoff();
        let mut found = BTreeMap::new();
        let mut todo = vec![keys];
        while let Some(keys) = todo.pop() {
            for (mut group, reply) in
                self.cluster.scatter::<calls::RawBatchGet, _>(Mode::Raw, keys, request, &mut backoff).await?
            {
                match pairs_of(reply.pairs)? {
                    Some(pairs) => found.extend(pairs.into_iter().map(|pair| (pair.key, pair.value))),
                    None => {
                        todo.push(group.split_off(fewer(group.len())?));
                        todo.push(group);
                    }
                }
            }
        }
        Ok(found.into_iter().map(|(key, value)| KeyPair { key, value }).collect())
    }

    /// Sets keys. Not atomic: an error may leave some of them set.
    pub async fn batch_put<K: Into<Bytes>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        // The last value of a key counts, for any distribution over requests.
        let pairs: BTreeMap<Bytes, Bytes> = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        let pairs: Vec<KvPair> =
            pairs.into_iter().map(|(key, value)| KvPair { key, value, ..Default::default() }).collect();
        let request = |pairs: &[KvPair]| kvrpcpb::RawBatchPutRequest { pairs: pairs.to_vec(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let replies = self.cluster.scatter::<calls::RawBatchPut, _>(Mode::Raw, pairs, request, &mut backoff).await?;
        replies.into_iter().try_for_each(|(_, reply)| backoff.check_write(reply.error))
    }

    /// Removes keys. Not atomic.
    pub async fn batch_delete<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let request = |keys: &[Bytes]| kvrpcpb::RawBatchDeleteRequest { keys: keys.to_vec(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let replies = self.cluster.scatter::<calls::RawBatchDelete, _>(Mode::Raw, keys, request, &mut backoff).await?;
        replies.into_iter().try_for_each(|(_, reply)| backoff.check_write(reply.error))
    }

    /// The first `limit` pairs with `start <= key < end` in key order; an empty `end` is unbounded.
    pub async fn scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<KeyPair>> {
        self.scan_pages(start, end, limit, false).all().await
    }

    /// The last `limit` pairs with `start <= key < end`, from the end down; an empty `end` is unbounded.
    pub async fn scan_reverse(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KeyPair>> {
        self.scan_pages(start, end, limit, true).all().await
    }

    /// Like [`RawClient::scan`], keys only.
    pub async fn scan_keys(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<Bytes>> {
        let pairs = self.scan_pages(start, end, limit, false).keys_only().all().await?;
        Ok(pairs.into_iter().map(|pair| pair.key).collect())
    }

    /// The pairs with `start <= key < end`, at most `limit` of them, in pages of a bounded size: for ranges that are
    /// too large for memory. An empty `end` is unbounded; with `reverse` from the end down. No request is sent before
    /// [`RawScan::next_page`].
    pub fn scan_pages(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
        reverse: bool,
    ) -> RawScan<T> {
        let remainder = Remainder::new(start.into(), end.into(), limit, reverse);
        RawScan::new(self.cluster.clone(), remainder, self.read_from)
    }

    /// Removes every key with `start <= key < end`; an empty `end` is unbounded. Not atomic over regions.
    pub async fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) -> Result<()> {
        let (mut from, end) = (start.into(), end.into());
        let mut backoff = self.cluster.backoff();
        while end.is_empty() || from < end {
            let region = self.cluster.locate(&from, &mut backoff).await?;
            let upper = lesser_end(&region.meta.end_key, &end);
            let request = kvrpcpb::RawDeleteRangeRequest {
                start_key: from.clone(),
                end_key: upper.clone(),
                ..Default::default()
            };
            let Some(reply) = self.cluster.call_region::<calls::RawDeleteRange>(&region, request, &mut backoff).await?
            else {
                continue;
            };
            backoff.check_write(reply.error)?;
            if upper == end {
                break;
            }
            from = upper;
        }
        Ok(())
    }
}
