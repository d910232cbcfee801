//! Raw keys.

use crate::cluster::{Cluster, fewer, too_large};
use crate::keys::{KeyPair, Mode};
use crate::scan::{RawScan, Remainder, lesser_end};
use crate::txn::error_of;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{self, KvPair};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Raw keys: each operation on one key is atomic and linearizable; batches are not atomic. Cheap to clone.
#[derive(Clone)]
pub struct RawClient {
    cluster: Arc<Cluster>,
}

fn check(error: String) -> Result<()> {
    if error.is_empty() { Ok(()) } else { Err(Error::Server(error)) }
}

/// The pairs of an answer; `None` if it would have been too large, so that the client has to ask for fewer. Such
/// answers can contain an error in their first pair only.
pub(crate) fn answered(mut pairs: Vec<KvPair>) -> Result<Option<Vec<KvPair>>> {
    match pairs.first_mut().and_then(|pair| pair.error.take()) {
        None => Ok(Some(pairs)),
        Some(error) if too_large(&error) => Ok(None),
        Some(error) => Err(error_of(*error)),
    }
}

impl RawClient {
    pub(crate) fn new(cluster: Arc<Cluster>) -> RawClient {
        RawClient { cluster }
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        let request = kvrpcpb::RawGetRequest { key: key.clone(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call(Mode::Raw, &key, request, &mut backoff).await?;
        check(reply.error)?;
        Ok((!reply.not_found).then_some(reply.value))
    }

    /// Sets a key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        let request = kvrpcpb::RawPutRequest { key: key.clone(), value, ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call(Mode::Raw, &key, request, &mut backoff).await?;
        check(reply.error)
    }

    /// Removes a key; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        let request = kvrpcpb::RawDeleteRequest { key: key.clone(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call(Mode::Raw, &key, request, &mut backoff).await?;
        check(reply.error)
    }

    /// The pairs of those keys that exist, in key order.
    pub async fn batch_get<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<KeyPair>> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let request = |keys: &[Bytes]| kvrpcpb::RawBatchGetRequest { keys: keys.to_vec(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let mut found = BTreeMap::new();
        let mut todo = vec![keys];
        while let Some(keys) = todo.pop() {
            for (mut group, reply) in self.cluster.scatter(Mode::Raw, keys, request, &mut backoff).await? {
                match answered(reply.pairs)? {
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
        let replies = self.cluster.scatter(Mode::Raw, pairs, request, &mut backoff).await?;
        replies.into_iter().try_for_each(|(_, reply)| check(reply.error))
    }

    /// Removes keys. Not atomic.
    pub async fn batch_delete<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let request = |keys: &[Bytes]| kvrpcpb::RawBatchDeleteRequest { keys: keys.to_vec(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let replies = self.cluster.scatter(Mode::Raw, keys, request, &mut backoff).await?;
        replies.into_iter().try_for_each(|(_, reply)| check(reply.error))
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
    pub fn scan_pages(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize, reverse: bool) -> RawScan {
        RawScan::new(self.cluster.clone(), Remainder::new(start.into(), end.into(), limit, reverse))
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
            let Some(reply) = self.cluster.call_region(&region, request, &mut backoff).await? else { continue };
            check(reply.error)?;
            if upper == end {
                break;
            }
            from = upper;
        }
        Ok(())
    }
}
