//! Raw calls that write. A request is one proposal: what it writes within its region takes effect as a whole.
//!
//! *Atomic writes* (compare-and-swap, and what clients mark with `for_cas`) hold the latches of their keys from their
//! view to the end of their replication. The view binds them to a term of leadership, so no other leader can have
//! written between view and write. Writes without the mark take no latch: they can come between, as in TiKV, whose
//! clients mark all writes of keys that they also compare.

use super::raw_space::{RawSpace, expires_at_ms};
use super::route::{Purpose, refused};
use super::{Kv, Refusal};
use crate::api::Node;
use crate::driver::NodeError;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{Either, select};
use kontiki_engine::WriteBatch;
use kontiki_proto::kvrpcpb::{self, Context};
use kontiki_txn::{Failure, KeyError, LatchGuard};
use std::time::Duration;

/// What becomes of a key.
#[derive(Clone, Debug)]
struct Write {
    key: Bytes,
    /// `None`: it is deleted.
    value: Option<Bytes>,
    /// Seconds; 0: it does not expire.
    ttl_s: u64,
}

impl Write {
    fn delete(key: Bytes) -> Write {
        Write { key, value: None, ttl_s: 0 }
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// Adds it to a batch that is proposed at `now_ms`.
    fn put_into(&self, batch: &mut WriteBatch, space: RawSpace, now_ms: u64) -> Result<(), String> {
        let stored = space.stored(&self.key);
        match (&self.value, expires_at_ms(now_ms, self.ttl_s)?) {
            (Some(value), None) => batch.put(space.family, stored, value),
            (Some(value), Some(at)) => batch.put_expiring(space.family, stored, value, at),
            (None, _) => batch.delete(space.family, stored),
        }
        Ok(())
    }
}

fn batch_of(writes: &[Write], space: RawSpace, now_ms: u64) -> Result<WriteBatch, String> {
    let mut batch = WriteBatch::new();
    writes.iter().try_for_each(|write| write.put_into(&mut batch, space, now_ms))?;
    Ok(batch)
}

/// The pairs of a batch with their times to live: one for all, or one for each, in the order of the pairs. Clients from
/// before there were several send one in `ttl`.
fn writes_of(pairs: Vec<kvrpcpb::KvPair>, ttl: u64, ttls: Vec<u64>) -> Result<Vec<Write>, Refusal> {
    let ttls = match (ttls.len(), pairs.len()) {
        (0, count) => vec![ttl; count],
        (1, count) => ttls.repeat(count),
        (given, count) if given == count => ttls,
        (given, count) => {
            let text = format!("{given} times to live for {count} pairs: send none, one for all, or one for each");
            return Err(Refusal::Text(text));
        }
    };
    let write = |(pair, ttl_s): (kvrpcpb::KvPair, u64)| Write { key: pair.key, value: Some(pair.value), ttl_s };
    Ok(pairs.into_iter().zip(ttls).map(write).collect())
}

impl<N: Node> Kv<N> {
    /// RawPut.
    pub async fn raw_put(&self, request: kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse {
        let kvrpcpb::RawPutRequest { context, key, value, cf, ttl, for_cas } = request;
        let write = Write { key, value: Some(value), ttl_s: ttl };
        self.raw_write(&context, &cf, for_cas, &[write]).await.map_or_else(Into::into, |()| Default::default())
    }

    /// RawBatchPut.
    pub async fn raw_batch_put(&self, request: kvrpcpb::RawBatchPutRequest) -> kvrpcpb::RawBatchPutResponse {
        let kvrpcpb::RawBatchPutRequest { context, pairs, cf, ttl, for_cas, ttls } = request;
        let done = match writes_of(pairs, ttl, ttls) {
            Ok(writes) => self.raw_write(&context, &cf, for_cas, &writes).await,
            Err(refusal) => Err(refusal),
        };
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// RawDelete.
    pub async fn raw_delete(&self, request: kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse {
        let kvrpcpb::RawDeleteRequest { context, key, cf, for_cas } = request;
        let done = self.raw_write(&context, &cf, for_cas, &[Write::delete(key)]).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    /// RawBatchDelete.
    pub async fn raw_batch_delete(&self, request: kvrpcpb::RawBatchDeleteRequest) -> kvrpcpb::RawBatchDeleteResponse {
        let kvrpcpb::RawBatchDeleteRequest { context, keys, cf, for_cas } = request;
        let writes: Vec<_> = keys.into_iter().map(Write::delete).collect();
        let done = self.raw_write(&context, &cf, for_cas, &writes).await;
        done.map_or_else(Into::into, |()| Default::default())
    }

    async fn raw_write(
        &self,
        context: &Option<Context>,
        column_family: &str,
        is_atomic: bool,
        writes: &[Write],
    ) -> Result<(), Refusal> {
        let space = RawSpace::of(context, column_family)?;
        space.check_keys(writes.iter().map(|write| &write.key))?;
        let until = self.latched_until(context);
        self.routed(Purpose::Write, context, |route| async move {
            route.check_keys(space.keys, writes.iter().map(|write| write.key.as_ref())).map_err(refused)?;
            if writes.is_empty() {
                return Ok(());
            }
            if !is_atomic {
                let batch = batch_of(writes, space, self.node.wall_ms()).map_err(KeyError::Abort)?;
                return self.node.replicate(&route.context, batch).await.map_err(Failure::Replicated);
            }
            let latches = self.latch(writes.iter().map(|write| space.latch(&write.key)), until).await?;
            let batch = batch_of(writes, space, self.node.wall_ms()).map_err(KeyError::Abort)?;
            self.scheduler.run_exclusive(&route.context, latches, |_| Ok(((), batch))).await
        })
        .await?;
        let bytes = writes.iter().map(Write::bytes).sum();
        self.served_keys(context, space.keys, writes, |write| &write.key, bytes);
        Ok(())
    }

    /// RawCompareAndSwap.
    pub async fn raw_compare_and_swap(&self, request: kvrpcpb::RawCasRequest) -> kvrpcpb::RawCasResponse {
        let (succeed, previous) = match self.try_raw_compare_and_swap(&request).await {
            Ok(answer) => answer,
            Err(refusal) => return refusal.into(),
        };
        let previous_not_exist = previous.is_none();
        let previous_value = previous.unwrap_or_default();
        kvrpcpb::RawCasResponse { succeed, previous_not_exist, previous_value, ..Default::default() }
    }

    /// Whether it was as expected, and what it was.
    async fn try_raw_compare_and_swap(
        &self,
        request: &kvrpcpb::RawCasRequest,
    ) -> Result<(bool, Option<Bytes>), Refusal> {
        let kvrpcpb::RawCasRequest { context, key, value, cf, ttl, .. } = request;
        let space = RawSpace::of(context, cf)?;
        space.check_keys([key])?;
        let expected = (!request.previous_not_exist).then_some(&request.previous_value);
        let value = (!request.delete).then(|| value.clone());
        let write = &Write { key: key.clone(), value, ttl_s: *ttl };
        let until = self.latched_until(context);
        let answer = self
            .routed(Purpose::Write, context, |route| async move {
                route.check_keys(space.keys, [key.as_ref()]).map_err(refused)?;
                let latches = self.latch([space.latch(key)], until).await?;
                let mut batch = WriteBatch::new();
                write.put_into(&mut batch, space, self.node.wall_ms()).map_err(KeyError::Abort)?;
                let swap = self.scheduler.run_exclusive(&route.context, latches, |view| {
                    let previous = view.get(space.family, &space.stored(key))?;
                    let is_expected = previous.as_ref() == expected;
                    Ok(((is_expected, previous), if is_expected { batch } else { WriteBatch::new() }))
                });
                swap.await
            })
            .await?;
        let bytes = write.bytes() + answer.1.as_ref().map_or(0, Bytes::len);
        self.served_keys(context, space.keys, &[key], |key| key, bytes);
        Ok(answer)
    }

    /// When a request that begins now waits for latches no longer.
    fn latched_until(&self, context: &Option<Context>) -> Duration {
        let limit_ms = context.as_ref().map_or(0, |context| context.max_execution_duration_ms);
        self.retry_budget.until(&self.node, limit_ms)
    }

    /// Latches of this name. Refused as busy, with nothing done, if others hold them for too long: a client would send
    /// the request again when its own time is over, and not know whether the first one was executed.
    async fn latch(
        &self,
        names: impl IntoIterator<Item = Bytes>,
        until: Duration,
    ) -> Result<LatchGuard, Failure<NodeError>> {
        let mut acquire = self.scheduler.latches().acquire(names);
        if let Some(guard) = (&mut acquire).now_or_never() {
            return Ok(guard);
        }
        let left = until.saturating_sub(self.node.monotonic());
        match select(acquire, (self.retry_budget.pause)(left)).await {
            Either::Left((guard, _)) => Ok(guard),
            Either::Right(_) => {
                Err(Failure::Replicated(NodeError::Busy("other atomic writes of the key have not ended")))
            }
        }
    }

    /// RawDeleteRange, of that part of the range which lies in the region, at the cost of one range tombstone.
    pub async fn raw_delete_range(&self, request: kvrpcpb::RawDeleteRangeRequest) -> kvrpcpb::RawDeleteRangeResponse {
        self.try_raw_delete_range(&request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_raw_delete_range(&self, request: &kvrpcpb::RawDeleteRangeRequest) -> Result<(), Refusal> {
        let kvrpcpb::RawDeleteRangeRequest { context, start_key, end_key, cf } = request;
        let space = RawSpace::of(context, cf)?;
        space.check_range(start_key, end_key)?;
        self.routed(Purpose::Write, context, |route| async move {
            let range = space.range(&route.region, start_key, end_key);
            if range.is_empty() {
                return Ok(());
            }
            let mut batch = WriteBatch::new();
            batch.delete_range(space.family, range);
            self.node.replicate(&route.context, batch).await.map_err(Failure::Replicated)
        })
        .await
    }
}
