//! A pessimistic transaction.

use super::commit::Committer;
use super::locks::{Known, Locks, Want};
use super::transaction::Change;
use super::{Snapshot, Transaction};
use crate::transport::{Grpc, Transport};
use crate::{Error, KeyPair, Result, TransactionOptions};
use bytes::Bytes;
use kontiki_proto::kvrpcpb::{Mutation, Op};

/// A transaction that locks each key when it writes it, or reads it for update: it waits for other writers then,
/// instead of conflicting with them at its commit. Plain reads see the state at its beginning, and its own writes;
/// reads for update see the newest state, which cannot change before the transaction ends.
///
/// Transactions whose reads are all for update are serializable; with plain reads they have snapshot isolation for the
/// keys that they write.
///
/// Dropping it rolls it back: its locks are released in the background. Other clients wait for a client that died until
/// the locks' time to live is over ([`TransactionOptions::lock_ttl`]).
///
/// ```no_run
/// # async fn example(client: kontiki_client::Client) -> Result<(), kontiki_client::Error> {
/// let mut transaction = client.begin_pessimistic().await?;
/// let stock = transaction.get_for_update("stock").await?; // others wait from here on
/// if stock.as_deref() != Some(b"0") {
///     transaction.put("stock", "0").await?;
///     transaction.commit().await?;
/// } else {
///     transaction.rollback().await?;
/// }
/// # Ok(()) }
/// ```
pub struct PessimisticTransaction<T: Transport = Grpc> {
    buffer: Transaction<T>,
    locks: Locks<T>,
}

impl<T: Transport> PessimisticTransaction<T> {
    pub(crate) fn new(snapshot: Snapshot<T>, options: TransactionOptions) -> PessimisticTransaction<T> {
        let buffer = Transaction::new(snapshot.clone(), options.clone());
        let locks = Locks::new(snapshot, buffer.began, options);
        PessimisticTransaction { buffer, locks }
    }

    /// The timestamp of its plain reads.
    pub fn start_timestamp(&self) -> u64 {
        self.buffer.start_timestamp()
    }

    /// The value of a key at the beginning of the transaction, or as it wrote it.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        self.buffer.get(key).await
    }

    /// The pairs of those keys that have a value, in key order, as [`PessimisticTransaction::get`] reads them.
    pub async fn batch_get<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<KeyPair>> {
        self.buffer.batch_get(keys).await
    }

    /// The first `limit` pairs with `start <= key < end` in key order, as [`PessimisticTransaction::get`] reads them;
    /// an empty `end` is unbounded.
    pub async fn scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: usize) -> Result<Vec<KeyPair>> {
        self.buffer.scan(start, end, limit).await
    }

    /// The last `limit` pairs with `start <= key < end`, from the end down.
    pub async fn scan_reverse(
        &self,
        start: impl Into<Bytes>,
        end: impl Into<Bytes>,
        limit: usize,
    ) -> Result<Vec<KeyPair>> {
        self.buffer.scan_reverse(start, end, limit).await
    }

    /// Locks a key, and returns its newest value. What it returns stays true until the transaction ends.
    pub async fn get_for_update(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>> {
        let key = key.into();
        self.acquire([key.clone()], Want::Value).await?;
        Ok(self.newest(&key))
    }

    /// Locks keys, and returns the newest pairs of those that have a value, in key order.
    pub async fn batch_get_for_update<K: Into<Bytes>>(
        &mut self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<KeyPair>> {
        let mut keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        keys.sort();
        keys.dedup();
        self.acquire(keys.iter().cloned(), Want::Value).await?;
        let pair = |key: Bytes| self.newest(&key).map(|value| KeyPair { key, value });
        Ok(keys.into_iter().filter_map(pair).collect())
    }

    /// Locks keys. The commit conflicts with nothing on them, and keeps others from writing them before it.
    pub async fn lock_keys<K: Into<Bytes>>(&mut self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        self.acquire(keys.into_iter().map(Into::into), Want::Lock).await
    }

    /// Locks a key, and sets it.
    ///
    /// This and all calls that lock fail with [`Error::LockWaitTimeout`] or [`Error::Deadlock`], and then have locked
    /// nothing more.
    pub async fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        self.acquire([key.clone()], Want::Lock).await?;
        self.buffer.put(key, value);
        Ok(())
    }

    /// Locks a key that must not have a value, and sets it. Fails with [`Error::AlreadyExists`] if it has one.
    pub async fn insert(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        if !self.buffer.changes.contains_key(&key) {
            self.acquire([key.clone()], Want::Absence).await?;
            if let Some(Known::Value(Some(_))) = self.locks.known(&key) {
                return Err(Error::AlreadyExists { key });
            }
        }
        self.buffer.insert(key, value)
    }

    /// Locks a key, and removes it; it need not exist.
    pub async fn delete(&mut self, key: impl Into<Bytes>) -> Result<()> {
        let key = key.into();
        self.acquire([key.clone()], Want::Lock).await?;
        self.buffer.delete(key);
        Ok(())
    }

    /// Makes all writes visible at one timestamp, or none, and releases the locks. Returns that timestamp, or `None` if
    /// the transaction has locked nothing.
    ///
    /// [`Error::RolledBack`]: begin again. [`Error::Undetermined`]: it may be committed. Any other error: it is not
    /// committed and will not be.
    pub async fn commit(mut self) -> Result<Option<u64>> {
        let mut changes = std::mem::take(&mut self.buffer.changes);
        let Some(held) = self.locks.take() else {
            assert!(changes.is_empty(), "each write has locked its key");
            return Ok(None);
        };
        let mutation = |key: Bytes| match changes.remove(&key) {
            // Its absence was checked when it was locked.
            None | Some(Change::MustBeAbsent) => Mutation { op: Op::Lock as i32, key, ..Default::default() },
            Some(change) => change.mutation(key),
        };
        let mutations = held.keys.into_iter().map(mutation).collect();
        let (snapshot, options) = (self.buffer.snapshot.clone(), self.buffer.options.clone());
        let committer = Committer::new(snapshot, mutations, self.buffer.began, options);
        committer.of_locked(held.primary, held.for_update_ts, held.keeper).run().await.map(Some)
    }

    /// Releases the locks; the writes are forgotten. After an error some locks are released in the background, or
    /// expire.
    pub async fn rollback(mut self) -> Result<()> {
        self.locks.release().await
    }

    async fn acquire(&mut self, keys: impl IntoIterator<Item = Bytes>, want: Want) -> Result<()> {
        let own = |key: &Bytes| want != Want::Value || !self.buffer.changes.contains_key(key);
        // The value of a key that it wrote is known, and the key is locked.
        let keys: Vec<Bytes> = keys.into_iter().filter(own).collect();
        self.locks.acquire(keys, want).await
    }

    /// The value of a locked key.
    fn newest(&self, key: &Bytes) -> Option<Bytes> {
        if let Some(change) = self.buffer.changes.get(key) {
            return change.value().cloned();
        }
        match self.locks.known(key) {
            Some(Known::Value(value)) => value.clone(),
            Some(Known::Unread) | None => unreachable!("it was locked with its value"),
        }
    }
}

impl<T: Transport> Drop for PessimisticTransaction<T> {
    fn drop(&mut self) {
        self.locks.abandon();
    }
}
