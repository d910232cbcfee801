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
use std::time::Duration;

/// Raw keys: each operation on one key is atomic and linearizable; batches are not atomic. Cheap to clone.
pub struct RawClient<T: Transport = Grpc> {
    pub(crate) cluster: Arc<Cluster<T>>,
    read_from: ReadFrom,
    is_atomic: bool,
}

impl<T: Transport> Clone for RawClient<T> {
    fn clone(&self) -> RawClient<T> {
        RawClient { cluster: self.cluster.clone(), read_from: self.read_from, is_atomic: self.is_atomic }
    }
}

/// What a compare-and-swap found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Whether the value was the expected one, and was replaced.
    pub swapped: bool,
    /// The value before; `None`: the key was absent.
    pub previous: Option<Bytes>,
}

impl<T: Transport> RawClient<T> {
    pub(crate) fn new(cluster: Arc<Cluster<T>>) -> RawClient<T> {
        RawClient { cluster, read_from: ReadFrom::Leader, is_atomic: false }
    }

    /// The same client, whose writes never come between the two halves of a [`RawClient::compare_and_swap`] of the key.
    /// Where some client swaps a key, all have to write it like this. Range deletes do come between.
    pub fn atomic(self) -> RawClient<T> {
        RawClient { is_atomic: true, ..self }
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

    /// How long a key is still there, in whole seconds, rounded up. `None`: it is absent; `Some(None)`: it does not
    /// expire.
    pub async fn time_to_live(&self, key: impl Into<Bytes>) -> Result<Option<Option<Duration>>> {
        let key = key.into();
        let request = kvrpcpb::RawGetKeyTtlRequest { context: self.context(), key: key.clone(), ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawGetKeyTtl>(Mode::Raw, &key, request, &mut backoff).await?;
        check(reply.error)?;
        let rest = (reply.ttl != 0).then(|| Duration::from_secs(reply.ttl));
        Ok((!reply.not_found).then_some(rest))
    }

    /// Sets a key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.put_for(key.into(), value.into(), 0).await
    }

    /// Sets a key, which expires after this time; a part of a second counts as a whole one.
    pub async fn put_with_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        time_to_live: Duration,
    ) -> Result<()> {
        self.put_for(key.into(), value.into(), seconds(time_to_live)).await
    }

    /// 0 seconds: for ever.
    async fn put_for(&self, key: Bytes, value: Bytes, ttl: u64) -> Result<()> {
        let for_cas = self.is_atomic;
        let request = kvrpcpb::RawPutRequest { key: key.clone(), value, ttl, for_cas, ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawPut>(Mode::Raw, &key, request, &mut backoff).await?;
        backoff.check_write(reply.error)
    }

    /// Sets a key to `value` if it is `expected` (`None`: absent), in one step that no other swap and no write of an
    /// [atomic](RawClient::atomic) client comes between.
    ///
    /// Errors: with [`Error::Undetermined`](crate::Error::Undetermined) it may or may not have been swapped; read the
    /// key to find out, if values are unique.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expected: Option<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Swap> {
        let key = key.into();
        let request = kvrpcpb::RawCasRequest {
            key: key.clone(),
            value: value.into(),
            previous_not_exist: expected.is_none(),
            previous_value: expected.unwrap_or_default(),
            ..Default::default()
        };
        let mut backoff = self.cluster.backoff();
        let reply = self.cluster.call::<calls::RawCompareAndSwap>(Mode::Raw, &key, request, &mut backoff).await?;
        backoff.check_write(reply.error)?;
        if backoff.is_uncertain() && !reply.succeed {
            return Err(backoff.give_up("an earlier try, whose answer was lost, may have swapped it"));
        }
        let previous = (!reply.previous_not_exist).then_some(reply.previous_value);
        Ok(Swap { swapped: reply.succeed, previous })
    }

    /// Removes a key; it need not exist.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        let request = kvrpcpb::RawDeleteRequest { key: key.clone(), for_cas: self.is_atomic, ..Default::default() };
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
        let for_cas = self.is_atomic;
        let request =
            |pairs: &[KvPair]| kvrpcpb::RawBatchPutRequest { pairs: pairs.to_vec(), for_cas, ..Default::default() };
        let mut backoff = self.cluster.backoff();
        let replies = self.cluster.scatter::<calls::RawBatchPut, _>(Mode::Raw, pairs, request, &mut backoff).await?;
        replies.into_iter().try_for_each(|(_, reply)| backoff.check_write(reply.error))
    }

    /// Removes keys. Not atomic.
    pub async fn batch_delete<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let for_cas = self.is_atomic;
        let request =
            |keys: &[Bytes]| kvrpcpb::RawBatchDeleteRequest { keys: keys.to_vec(), for_cas, ..Default::default() };
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

/// At least one: 0 would mean that it does not expire.
fn seconds(time_to_live: Duration) -> u64 {
    let part = u64::from(time_to_live.subsec_nanos() > 0);
    time_to_live.as_secs().saturating_add(part).max(1)
}
