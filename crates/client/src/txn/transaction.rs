//! A transaction: a snapshot with the transaction's own writes on top.

use super::Snapshot;
use super::commit::Committer;
use crate::transport::{Grpc, Transport};
use crate::{Error, KeyPair, Result, TransactionOptions};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{Mutation, Op};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

/// What the transaction does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put(Bytes),
    /// A put of a key that must be absent.
    Insert(Bytes),
    Delete,
    /// A deleted insert: the key must still be absent.
    MustBeAbsent,
}

impl Change {
    pub(super) fn value(&self) -> Option<&Bytes> {
        match self {
            Change::Put(value) | Change::Insert(value) => Some(value),
            Change::Delete | Change::MustBeAbsent => None,
        }
    }

    pub(super) fn mutation(self, key: Bytes) -> Mutation {
        let op = match self {
            Change::Put(_) => Op::Put,
            Change::Insert(_) => Op::Insert,
            Change::Delete => Op::Del,
            Change::MustBeAbsent => Op::CheckNotExists,
        };
        Mutation { op: op as i32, value: self.value().cloned().unwrap_or_default(), key, ..Default::default() }
    }
}

/// An optimistic transaction. Reads see the state at its beginning and its own writes. Writes stay in memory until
/// [`Transaction::commit`], which fails with [`crate::Error::Conflict`] if another transaction has committed one of the
/// written keys since the beginning. Dropping it has no effect on the cluster.
pub struct Transaction<T: Transport = Grpc> {
    pub(super) snapshot: Snapshot<T>,
    pub(super) changes: BTreeMap<Bytes, Change>,
    /// On the transport's clock.
    pub(super) began: Duration,
    pub(super) options: TransactionOptions,
}

impl<T: Transport> Transaction<T> {
    pub(crate) fn new(snapshot: Snapshot<T>, options: TransactionOptions) -> Transaction<T> {
        let began = snapshot.cluster.transport.now();
        Transaction { snapshot, changes: BTreeMap::new(), began, options }
    }

    /// The timestamp of its reads.
    pub fn start_timestamp(&self) -> u64 {
        self.snapshot.timestamp()
    }

    /// The value of a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        match self.changes.get(&key) {
            Some(change) => Ok(change.value().cloned()),
            None => self.snapshot.get(key).await,
        }
    }

    /// The pairs of those keys that have a value, in key order.
    pub async fn batch_get<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<KeyPair>> {
        let (mut pairs, mut unknown) = (BTreeMap::new(), Vec::new());
        for key in keys.into_iter().map(Into::into) {
            match self.changes.get(&key) {
                Some(change) => pairs.extend(change.value().map(|value| (key, value.clone()))),
                None => unknown.push(key),
            }
        }
        let found = self.snapshot.batch_get(unknown).await?;
        pairs.extend(found.into_iter().map(|pair| (pair.key, pair.value)));
        Ok(pairs.into_iter().map(|(key, value)| KeyPair { key, value }).collect())
    }

    /// The first `limit` pairs with `start <= key < end` in key order; an empty `end` is unbounded.
    pub async fn scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<KeyPair>> {
        let (start, end) = (start.into(), end.into());
        let found = self.snapshot.scan(start.clone(), end.clone(), self.fetch_limit(&start, &end, limit)).await?;
        let mut pairs = self.overlay(&start, &end, found);
        pairs.truncate(limit);
        Ok(pairs)
    }

    /// The last `limit` pairs with `start <= key < end`, from the end down; an empty `end` is unbounded.
    pub async fn scan_reverse(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KeyPair>> {
        let (start, end) = (start.into(), end.into());
        let fetch = self.fetch_limit(&start, &end, limit);
        let found = self.snapshot.scan_reverse(start.clone(), end.clone(), fetch).await?;
        let mut pairs = self.overlay(&start, &end, found);
        pairs.reverse();
        pairs.truncate(limit);
        Ok(pairs)
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        let change = match self.changes.get(&key) {
            Some(Change::Insert(_) | Change::MustBeAbsent) => Change::Insert(value),
            _ => Change::Put(value),
        };
        self.changes.insert(key, change);
    }

    /// Sets a key that must not have a value; this is checked at the commit ([`Error::AlreadyExists`]), except for this
    /// transaction's own writes.
    pub fn insert(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let (key, value) = (key.into(), value.into());
        let change = match self.changes.get(&key) {
            Some(Change::Put(_) | Change::Insert(_)) => return Err(Error::AlreadyExists { key }),
            Some(Change::Delete) => Change::Put(value),
            Some(Change::MustBeAbsent) | None => Change::Insert(value),
        };
        self.changes.insert(key, change);
        Ok(())
    }

    /// Removes a key; it need not exist.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        let key = key.into();
        let change = match self.changes.get(&key) {
            Some(Change::Insert(_) | Change::MustBeAbsent) => Change::MustBeAbsent,
            _ => Change::Delete,
        };
        self.changes.insert(key, change);
    }

    /// Makes all writes visible at one timestamp, or none. Returns that timestamp, or `None` if nothing was written.
    ///
    /// [`Error::Conflict`] and [`Error::RolledBack`]: begin again. [`Error::Undetermined`]: it may be committed. Any
    /// other error: it is not committed and will not be.
    pub async fn commit(self) -> Result<Option<u64>> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        let mutations = self.changes.into_iter().map(|(key, change)| change.mutation(key)).collect();
        let committer = Committer::new(self.snapshot, mutations, self.began, self.options);
        committer.run().await.map(Some)
    }

    /// The number of stored pairs to fetch for `limit` visible ones: each of the transaction's own deletes can hide
    /// one. If that many are returned, at least `limit` of them stay visible, so nothing beyond the last one is needed.
    fn fetch_limit(&self, start: &Bytes, end: &Bytes, limit: usize) -> usize {
        limit.saturating_add(self.own(start, end).filter(|(_, change)| change.value().is_none()).count())
    }

    fn own(&self, start: &Bytes, end: &Bytes) -> impl Iterator<Item = (&Bytes, &Change)> {
        let empty = !end.is_empty() && start >= end;
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.clone()) };
        let range = (!empty).then(|| self.changes.range((Bound::Included(start.clone()), upper)));
        range.into_iter().flatten()
    }

    /// Stored pairs with this transaction's writes on top, in key order.
    fn overlay(&self, start: &Bytes, end: &Bytes, found: Vec<KeyPair>) -> Vec<KeyPair> {
        let mut merged: BTreeMap<Bytes, Bytes> = found.into_iter().map(|pair| (pair.key, pair.value)).collect();
        for (key, change) in self.own(start, end) {
            match change.value() {
                Some(value) => drop(merged.insert(key.clone(), value.clone())),
                None => drop(merged.remove(key)),
            }
        }
        merged.into_iter().map(|(key, value)| KeyPair { key, value }).collect()
    }
}
