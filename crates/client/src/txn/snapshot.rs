//! Reads at a timestamp.

use super::lock::{LockResolver, locks_of};
use crate::backoff::Backoff;
use crate::cluster::{Cluster, fewer, too_large};
use crate::keys::{KeyPair, Mode, after};
use crate::raw::lesser_end;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{self, Context, KvPair, LockInfo};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Pairs asked of one region at a time.
const SCAN_BATCH: usize = 1024;

/// The transactional keys as they were at one timestamp: every read sees the same state. Locks in the way are
/// resolved; a read waits for transactions that might still commit below the timestamp.
#[derive(Clone)]
pub struct Snapshot {
    cluster: Arc<Cluster>,
    resolver: Arc<LockResolver>,
    ts: u64,
    /// Transactions known to commit above the timestamp: their locks do not stop reads.
    passed_over: Arc<Mutex<BTreeSet<u64>>>,
}

impl Snapshot {
    pub(crate) fn new(cluster: Arc<Cluster>, resolver: Arc<LockResolver>, ts: u64) -> Snapshot {
        Snapshot { cluster, resolver, ts, passed_over: Arc::default() }
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
            let reply = self.cluster.call(Mode::Txn, &key, request, &mut backoff).await?;
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
            let replies = self.cluster.scatter(Mode::Txn, asked, request, &mut backoff).await?;
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
        let (mut from, end) = (start.into(), end.into());
        let (mut pairs, mut batch) = (Vec::new(), SCAN_BATCH);
        let mut backoff = self.cluster.backoff();
        while pairs.len() < limit && (end.is_empty() || from < end) {
            let region = self.cluster.locate(&Mode::Txn.position(&from), &mut backoff).await?;
            let upper = lesser_end(&boundary(&region.meta.end_key)?, &end);
            let wanted = (limit - pairs.len()).min(batch);
            let request = self.scan_request(from.clone(), upper.clone(), wanted, false);
            let Some(reply) = self.cluster.call_region(&region, request, &mut backoff).await? else { continue };
            if reply.error.as_ref().is_some_and(too_large) {
                batch = fewer(wanted)?;
                continue;
            }
            let answered = reply.pairs.len();
            let locks = take_until_locked(reply.pairs, reply.error, &mut pairs)?;
            if !locks.is_empty() {
                if let Some(last) = pairs.last() {
                    from = from.max(after(&last.key));
                }
                self.clear(&locks, &mut backoff).await?;
                continue;
            }
            if answered > 0 {
                backoff = self.cluster.backoff(); // A long scan is many operations.
            }
            match pairs.last().filter(|_| answered == wanted) {
                Some(last) => from = after(&last.key),
                None if upper == end => break,
                None => from = upper,
            }
        }
        Ok(pairs)
    }

    /// The last `limit` pairs with `start <= key < end`, from the end down; an empty `end` is unbounded.
    pub async fn scan_reverse(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KeyPair>> {
        let (start, mut below) = (start.into(), end.into());
        let (mut pairs, mut batch) = (Vec::new(), SCAN_BATCH);
        let mut backoff = self.cluster.backoff();
        while pairs.len() < limit && (below.is_empty() || start < below) {
            let position = if below.is_empty() { Bytes::new() } else { Mode::Txn.position(&below) };
            let region = self.cluster.locate_below(&position, &mut backoff).await?;
            let lower = boundary(&region.meta.start_key)?.max(start.clone());
            let wanted = (limit - pairs.len()).min(batch);
            let request = self.scan_request(below.clone(), lower.clone(), wanted, true);
            let Some(reply) = self.cluster.call_region(&region, request, &mut backoff).await? else { continue };
            if reply.error.as_ref().is_some_and(too_large) {
                batch = fewer(wanted)?;
                continue;
            }
            let answered = reply.pairs.len();
            let before = pairs.len();
            let locks = take_until_locked(reply.pairs, reply.error, &mut pairs)?;
            if !locks.is_empty() {
                if let Some(last) = pairs.get(before..).and_then(<[KeyPair]>::last) {
                    below = last.key.clone();
                }
                self.clear(&locks, &mut backoff).await?;
                continue;
            }
            if answered > 0 {
                backoff = self.cluster.backoff(); // A long scan is many operations.
            }
            match pairs.last().filter(|_| answered == wanted) {
                Some(last) => below = last.key.clone(),
                None if lower <= start || lower.is_empty() => break,
                None => below = lower,
            }
        }
        Ok(pairs)
    }

    fn scan_request(&self, start_key: Bytes, end_key: Bytes, limit: usize, reverse: bool) -> kvrpcpb::ScanRequest {
        kvrpcpb::ScanRequest {
            context: Some(self.context()),
            start_key,
            end_key,
            limit: limit as u32,
            version: self.ts,
            reverse,
            ..Default::default()
        }
    }

    fn context(&self) -> Context {
        Context { resolved_locks: self.passed_over.lock().iter().copied().collect(), ..Default::default() }
    }

    /// Gets locks out of the way, or waits for them.
    async fn clear(&self, locks: &[LockInfo], backoff: &mut Backoff) -> Result<()> {
        let pushed = self.resolver.resolve_all(locks, self.ts, backoff).await?.wait(backoff).await?;
        self.passed_over.lock().extend(pushed);
        Ok(())
    }
}

/// The user key at a region's boundary.
fn boundary(position: &Bytes) -> Result<Bytes> {
    let malformed = || {
        let position = position.escape_ascii();
        Error::Server(format!("a region ends at {position}, which is no encoded key"))
    };
    Mode::Txn.user_key(position).ok_or_else(malformed)
}

/// Moves the pairs before the first locked key over; answers all locks.
fn take_until_locked(
    answered: Vec<KvPair>,
    error: Option<kvrpcpb::KeyError>,
    pairs: &mut Vec<KeyPair>,
) -> Result<Vec<LockInfo>> {
    let mut errors: Vec<kvrpcpb::KeyError> = error.into_iter().collect();
    for pair in answered {
        match pair.error {
            Some(error) => errors.push(*error),
            None if errors.is_empty() => pairs.push(KeyPair { key: pair.key, value: pair.value }),
            None => {}
        }
    }
    locks_of(errors)
}
