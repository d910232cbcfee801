//! Two-phase commit.
//!
//! 1. Prewrite every key, in as many requests as there are regions. Locks of other transactions are resolved or waited
//!    for (only for a short time if the other transaction is older, so that two transactions do not wait for each
//!    other); any other refusal ends the transaction, and its locks are rolled back.
//! 2. Only now take the commit timestamp: every read that missed our locks has a smaller one.
//! 3. Commit the primary, together with the other keys of its region. This decides. After a lost answer the request is
//!    repeated until the outcome is known; if the time runs out first, the outcome is unknown and nothing is rolled
//!    back.
//! 4. Commit the rest. Failures here change nothing: a client that meets a lock asks the primary.

use super::Snapshot;
use crate::backoff::Backoff;
use crate::cluster::GROUP_KEYS_MAX;
use crate::keys::{Item, Mode};
use crate::reply::{error_of, locks_of};
use crate::transport::Transport;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_proto::calls::{KvBatchRollback, KvCommit, KvPrewrite};
use kontiki_proto::kvrpcpb::{self, LockInfo, Mutation, Op};
use std::time::Duration;

/// Time to live of locks, as other clients of the protocol choose it: 3 s, and 6 s times the square root of the size in
/// MiB for larger transactions, at most 20 s.
const TTL_MS_BASE: u64 = 3_000;
const TTL_MS_PER_SQRT_MIB: f64 = 6_000.0;
const TTL_MS_MAX: u64 = 20_000;
/// How long a transaction waits for the lock of an older one, in case that one fails. It is short, because the
/// transaction's own locks block others meanwhile.
const YOUNGER_WAIT: Duration = Duration::from_millis(20);
/// A rollback that is not done by then is left to the clients that meet the locks.
const ROLLBACK_BUDGET: Duration = Duration::from_secs(5);

pub(super) struct Committer<T: Transport> {
    snapshot: Snapshot<T>,
    start_ts: u64,
    mutations: Vec<Mutation>,
    /// The keys that get locks, in order; the first is the primary.
    keys: Vec<Bytes>,
    began: Duration,
}

impl<T: Transport> Committer<T> {
    pub(super) fn new(snapshot: Snapshot<T>, mutations: Vec<Mutation>, began: Duration) -> Committer<T> {
        let locking = mutations.iter().filter(|mutation| mutation.op != Op::CheckNotExists as i32);
        let keys = locking.map(|mutation| mutation.key.clone()).collect();
        Committer { start_ts: snapshot.timestamp(), snapshot, mutations, keys, began }
    }

    pub(super) async fn run(self) -> Result<u64> {
        let mut backoff = self.snapshot.cluster.backoff();
        if let Err(error) = self.prewrite(&mut backoff).await {
            self.roll_back().await;
            return Err(error);
        }
        if self.keys.is_empty() {
            return Ok(self.start_ts); // Only checks, and they hold.
        }
        match self.commit_primary(&mut backoff).await {
            Ok((commit_ts, rest)) => {
                self.commit_rest(commit_ts, rest).await;
                Ok(commit_ts)
            }
            Err(error @ Error::Undetermined { .. }) => Err(error),
            Err(error) => {
                self.roll_back().await;
                Err(error)
            }
        }
    }

    async fn prewrite(&self, backoff: &mut Backoff<T>) -> Result<()> {
        let primary = self.keys.first().or(self.mutations.first().map(Item::key)).cloned().unwrap_or_default();
        let mut pending = self.mutations.clone();
        let mut waiting = None;
        while !pending.is_empty() {
            let ttl = self.ttl_ms();
            let request = |mutations: &[Mutation]| kvrpcpb::PrewriteRequest {
                mutations: mutations.to_vec(),
                primary_lock: primary.clone(),
                start_version: self.start_ts,
                lock_ttl: ttl,
                txn_size: self.keys.len() as u64,
                // Not 0: readers may push it instead of waiting for us.
                min_commit_ts: self.start_ts + 1,
                ..Default::default()
            };
            let cluster = &self.snapshot.cluster;
            let replies =
                cluster.scatter::<KvPrewrite, _>(Mode::Txn, std::mem::take(&mut pending), request, backoff).await?;
            let mut locks = Vec::new();
            for (mutations, reply) in replies {
                if !reply.errors.is_empty() {
                    locks.extend(locks_of(reply.errors)?);
                    pending.extend(mutations);
                }
            }
            if !locks.is_empty() {
                // 0: pushing a lock does not help a writer, it has to wait for it.
                let resolved = self.snapshot.resolver.resolve_all(&locks, 0, backoff).await?;
                if let Some(lock) = resolved.alive() {
                    waiting = self.may_wait(lock, waiting)?;
                }
                resolved.wait(backoff).await?;
            }
        }
        Ok(())
    }

    /// Two transactions that each hold a key that the other one needs must not wait for each other: the younger one
    /// soon gives up. It loses little: if the other one commits, its commit timestamp is above this transaction's
    /// start, which is a conflict.
    fn may_wait(&self, lock: &LockInfo, since: Option<Duration>) -> Result<Option<Duration>> {
        let now = self.now();
        let since = since.unwrap_or(now);
        if lock.lock_version < self.start_ts && now.saturating_sub(since) >= YOUNGER_WAIT {
            return Err(Error::Conflict { key: lock.key.clone(), conflict_commit_ts: 0 });
        }
        Ok(Some(since))
    }

    /// Decides the outcome. Returns the commit timestamp and the keys that are still locked.
    async fn commit_primary(&self, backoff: &mut Backoff<T>) -> Result<(u64, Vec<Bytes>)> {
        let cluster = &self.snapshot.cluster;
        let primary = self.keys.first().expect("a transaction without keys does not commit");
        let mut commit_version = cluster.timestamp(backoff).await?;
        backoff.begin_decision();
        // Pushed repeatedly by readers, or sent repeatedly: bounded by the deadline.
        loop {
            let region = cluster.locate(&Mode::Txn.position(primary), backoff).await?;
            let (here, rest): (Vec<Bytes>, Vec<Bytes>) =
                self.keys.iter().cloned().partition(|key| region.contains(&Mode::Txn.position(key)));
            let (keys, more) = here.split_at(here.len().min(GROUP_KEYS_MAX));
            let request = kvrpcpb::CommitRequest {
                start_version: self.start_ts,
                keys: keys.to_vec(),
                commit_version,
                ..Default::default()
            };
            let answer = cluster.call_region::<KvCommit>(&region, request, backoff).await;
            let reply = match answer {
                Ok(Some(reply)) => reply,
                Ok(None) => continue,
                Err(error) if backoff.is_uncertain() => return Err(backoff.give_up(error)),
                Err(error) => return Err(error),
            };
            match reply.error {
                None => return Ok((commit_version, more.iter().cloned().chain(rest).collect())),
                // The lock still exists, so no earlier try has committed: a new timestamp is safe.
                Some(error) if error.commit_ts_expired.is_some() => {
                    commit_version = cluster.timestamp(backoff).await?;
                    backoff.check("readers push the commit")?;
                }
                Some(error) => {
                    return Err(match error_of(error) {
                        Error::Server(text) => backoff.failed(text),
                        // About the key, and so certain for earlier tries, too: records are not removed.
                        error => error,
                    });
                }
            }
        }
    }

    async fn commit_rest(&self, commit_version: u64, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        let (cluster, start_version) = (self.snapshot.cluster.clone(), self.start_ts);
        let work = async move {
            let request = |keys: &[Bytes]| kvrpcpb::CommitRequest {
                start_version,
                keys: keys.to_vec(),
                commit_version,
                ..Default::default()
            };
            let mut backoff = cluster.backoff();
            if let Err(error) = cluster.scatter::<KvCommit, _>(Mode::Txn, keys, request, &mut backoff).await {
                tracing::debug!(start_version, %error, "committed, but some locks are left to be resolved by readers");
            }
        };
        self.finish(work).await;
    }

    /// Releases the locks as far as possible: clients that meet the rest release them when their time to live has
    /// ended.
    async fn roll_back(&self) {
        let (cluster, keys, start_version) = (self.snapshot.cluster.clone(), self.keys.clone(), self.start_ts);
        let work = async move {
            let request = |keys: &[Bytes]| kvrpcpb::BatchRollbackRequest {
                start_version,
                keys: keys.to_vec(),
                ..Default::default()
            };
            let mut backoff = cluster.backoff_of(ROLLBACK_BUDGET);
            if let Err(error) = cluster.scatter::<KvBatchRollback, _>(Mode::Txn, keys, request, &mut backoff).await {
                tracing::debug!(start_version, %error, "some locks of a failed transaction are left");
            }
        };
        self.finish(work).await;
    }

    /// Does work that no caller has to wait for.
    async fn finish(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.snapshot.cluster.options.background_secondaries {
            self.snapshot.cluster.transport.spawn(work);
        } else {
            work.await;
        }
    }

    /// It counts from the start timestamp, so the time since then is added.
    fn ttl_ms(&self) -> u64 {
        let bytes: usize = self.mutations.iter().map(Item::bytes).sum();
        let by_size = (TTL_MS_PER_SQRT_MIB * (bytes as f64 / f64::from(1 << 20)).sqrt()) as u64;
        by_size.clamp(TTL_MS_BASE, TTL_MS_MAX) + self.now().saturating_sub(self.began).as_millis() as u64
    }

    fn now(&self) -> Duration {
        self.snapshot.cluster.transport.now()
    }
}
