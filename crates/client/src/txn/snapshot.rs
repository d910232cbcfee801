//! Reads at a timestamp.

use super::lock::LockResolver;
use super::scan::SnapshotScan;
use crate::Result;
use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::keys::{KeyPair, Mode};
use crate::replicas::ReadFrom;
use crate::reply::{fewer, locks_of, too_large};
use crate::scan::Remainder;
use crate::transport::{Grpc, Transport};
use bytes::Bytes;
use kontiki_proto::calls::{KvBatchGet, KvGet};
use kontiki_proto::kvrpcpb::{self, Context, LockInfo};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which replicas serve a snapshot's reads, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    From(ReadFrom),
    /// Any replica that is known to have all that is ever committed at or below the timestamp.
    Stale,
}

/// The transactional keys as they were at one timestamp: every read sees the same state. Locks that block a read are
/// resolved; a read waits for transactions that might still commit below the timestamp.
pub struct Snapshot<T: Transport = Grpc> {
    pub(super) cluster: Arc<Cluster<T>>,
    pub(super) resolver: Arc<LockResolver<T>>,
    ts: u64,
    reading: Reading,
    /// Transactions known to commit above the timestamp: their locks do not block reads.
    resolved_locks: Arc<Mutex<BTreeSet<u64>>>,
}

impl<T: Transport> Clone for Snapshot<T> {
    fn clone(&self) -> Snapshot<T> {
        let Snapshot { cluster, resolver, ts, reading, resolved_locks } = self;
        Snapshot {
            reading: *reading,
            cluster: cluster.clone(),
            resolver: resolver.clone(),
            ts: *ts,
            resolved_locks: resolved_locks.clone(),
        }
    }
}

impl<T: Transport> Snapshot<T> {
    pub(crate) fn new(cluster: Arc<Cluster<T>>, resolver: Arc<LockResolver<T>>, ts: u64) -> Snapshot<T> {
        Snapshot { cluster, resolver, ts, reading: Reading::From(ReadFrom::Leader), resolved_locks: Arc::default() }
    }

    /// Reads that any replica serves without asking its leader, if it can.
    pub(crate) fn stale(self) -> Snapshot<T> {
        Snapshot { reading: Reading::Stale, ..self }
    }

    /// The same snapshot, read from these replicas.
    pub fn read_from(self, replicas: ReadFrom) -> Snapshot<T> {
        Snapshot { reading: Reading::From(replicas), ..self }
    }

    /// Its timestamp.
    pub fn timestamp(&self) -> u64 {
        self.ts
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        let mut backoff = self.cluster.backoff();
        loop {
            let request = kvrpcpb::GetRequest {
                context: Some(self.context()),
                key: key.clone(),
                version: self.ts,
                ..Default::default()
            };
            let reply = self.cluster.call::<KvGet>(Mode::Txn, &key, request, &mut backoff).await?;
            match reply.error {
                None => return Ok((!reply.not_found).then_some(reply.value)),
                Some(error) => self.clear(&locks_of(vec![error])?, &mut backoff).await?,
            }
        }
    }

    /// The pairs of those keys that have a value, in key order.
    pub async fn batch_get<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<KeyPair>> {
        let mut wanted: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let (mut found, mut batch) = (BTreeMap::new(), usize::MAX);
        let mut backoff = self.cluster.backoff();
        while !wanted.is_empty() {
            let context = self.context();
            let request = |keys: &[Bytes]| kvrpcpb::BatchGetRequest {
                context: Some(context.clone()),
                keys: keys.to_vec(),
                version: self.ts,
            };
            let asked = wanted.split_off(wanted.len() - wanted.len().min(batch));
            let replies = self.cluster.scatter::<KvBatchGet, _>(Mode::Txn, asked, request, &mut backoff).await?;
            let mut locks = Vec::new();
            for (keys, reply) in replies {
                if let Some(error) = reply.error {
                    if too_large(&error) {
                        batch = fewer(keys.len())?;
                        wanted.extend(keys);
                        continue;
                    }
                    locks.extend(locks_of(vec![error])?);
                    wanted.extend(keys);
                    continue;
                }
                for mut pair in reply.pairs {
                    match pair.error.take() {
                        None => drop(found.insert(pair.key, pair.value)),
                        Some(error) => {
                            let held = locks_of(vec![*error])?;
                            wanted.extend(held.iter().map(|lock| lock.key.clone()));
                            locks.extend(held);
                        }
                    }
                }
            }
            if !locks.is_empty() {
                self.clear(&locks, &mut backoff).await?;
            }
        }
        Ok(found.into_iter().map(|(key, value)| KeyPair { key, value }).collect())
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

    /// The pairs with `start <= key < end`, at most `limit` of them, in pages of a bounded size: for ranges that are
    /// too large for memory. An empty `end` is unbounded; with `reverse` from the end down. No request is sent before
    /// [`SnapshotScan::next_page`].
    pub fn scan_pages(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
        reverse: bool,
    ) -> SnapshotScan<T> {
        SnapshotScan::new(self.clone(), Remainder::new(start.into(), end.into(), limit, reverse))
    }

    pub(super) fn context(&self) -> Context {
        Context {
            resolved_locks: self.resolved_locks.lock().iter().copied().collect(),
            replica_read: self.reading == Reading::From(ReadFrom::Replica),
            stale_read: self.reading == Reading::Stale,
            ..Default::default()
        }
    }

    /// Resolves locks, or waits for them.
    pub(super) async fn clear(&self, locks: &[LockInfo], backoff: &mut Backoff<T>) -> Result<()> {
        let pushed = self.resolver.resolve_all(locks, self.ts, backoff).await?.wait(backoff).await?;
        self.resolved_locks.lock().extend(pushed);
        Ok(())
    }
}
