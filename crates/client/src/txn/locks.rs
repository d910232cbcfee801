//! The locks of a pessimistic transaction.
//!
//! 1. The first key that is locked is the primary, alone, so that no lock ever names a primary that is not there.
//! 2. A request carries the *for-update timestamp*: it finds the newest value of the key, and fails if there is a
//!    commit above. Then a newer timestamp is taken. A key that was locked at an earlier one keeps its value: no other
//!    transaction can have written it since.
//! 3. Servers wait for locks of others, and detect deadlocks; a request waits for a part of its time limit, and is then
//!    sent again.
//! 4. A call locks all of its keys, or releases those that it has locked before it fails. What it could not release, or
//!    has no answer about, is released with the transaction.
//! 5. A new primary is chosen only after locks that may name an earlier one are released: no heartbeats keep those
//!    alive.
//! 6. A lock that is lost (its transaction was silent for longer than its time to live) is noticed at the commit: the
//!    prewrite fails if another transaction has written or locked the key since.

use super::Snapshot;
use super::keeper::{Keeper, Kept, release, release_within};
use crate::backoff::Backoff;
use crate::keys::Mode;
use crate::reply::error_of;
use crate::transport::Transport;
use crate::{Error, Result, TransactionOptions};
use bytes::Bytes;
use kontiki_proto::calls::KvPessimisticLock;
use kontiki_proto::kvrpcpb::write_conflict::Reason;
use kontiki_proto::kvrpcpb::{
    Assertion, KeyError, LockInfo, Mutation, Op, PessimisticLockRequest, PessimisticLockResponse,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From then on it counts that the server has waited: the request is sent again at once, to stand in the queue for the
/// lock.
const HAS_WAITED: Duration = Duration::from_millis(50);

/// What a locked key is known to hold: no other transaction changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its value was not asked for.
    Unread,
    Value(Option<Bytes>),
}

/// What a call wants of the keys that it locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Lock,
    Value,
    /// It fails if the key has a value.
    Absence,
}

/// The locks.
pub(super) struct Locks<T: Transport> {
    snapshot: Snapshot<T>,
    options: TransactionOptions,
    /// On the transport's clock.
    began: Duration,
    primary: Option<Bytes>,
    held: BTreeMap<Bytes, Known>,
    /// Keys that may be locked: requests for them had no answer, or they could not be released.
    doubtful: BTreeSet<Bytes>,
    for_update_ts: u64,
    keeper: Option<Keeper>,
}

/// What a transaction with locks has to commit, besides its changes.
pub(super) struct LocksHeld {
    pub(super) keys: Vec<Bytes>,
    pub(super) primary: Bytes,
    pub(super) for_update_ts: u64,
    pub(super) keeper: Option<Keeper>,
}

impl<T: Transport> Locks<T> {
    pub(super) fn new(snapshot: Snapshot<T>, began: Duration, options: TransactionOptions) -> Locks<T> {
        let for_update_ts = snapshot.timestamp();
        let (primary, held, doubtful, keeper) = Default::default();
        Locks { snapshot, options, began, primary, held, doubtful, for_update_ts, keeper }
    }

    /// What a locked key holds; `None` if it is not locked.
    pub(super) fn known(&self, key: &Bytes) -> Option<&Known> {
        self.held.get(key)
    }

    /// Locks keys, all or none of those that are not locked yet.
    pub(super) async fn acquire(&mut self, keys: impl IntoIterator<Item = Bytes>, want: Want) -> Result<()> {
        let is_new = |key: &Bytes| match (self.held.get(key), want) {
            (None, _) => true,
            (Some(_), Want::Lock) => false,
            (Some(known), Want::Value | Want::Absence) => *known == Known::Unread,
        };
        let wanted: BTreeSet<Bytes> = keys.into_iter().filter(is_new).collect();
        let unlocked: Vec<Bytes> = wanted.iter().filter(|key| !self.held.contains_key(*key)).cloned().collect();
        let mut backoff = self.snapshot.cluster.backoff();
        if !wanted.is_empty() && !self.has_primary() {
            self.release_doubtful(&mut backoff).await?;
        }
        let outcome = self.acquire_all(wanted.into_iter().collect(), want, &mut backoff).await;
        if let Err(error) = outcome {
            if matches!(error, Error::Deadlock { .. }) {
                self.snapshot.cluster.counters.deadlocks.count();
            }
            self.give_back(unlocked).await;
            return Err(error);
        }
        Ok(())
    }

    async fn acquire_all(&mut self, mut keys: Vec<Bytes>, want: Want, backoff: &mut Backoff<T>) -> Result<()> {
        if !self.has_primary() && !keys.is_empty() {
            let primary = keys.remove(0);
            let start_ts = self.snapshot.timestamp();
            let kept = Kept { primary: primary.clone(), start_ts, began: self.began, ttl: self.options.lock_ttl };
            self.keeper = Some(Keeper::start(&self.snapshot.cluster, kept));
            self.primary = Some(primary.clone());
            self.lock(vec![primary], want, backoff).await?;
        }
        self.lock(keys, want, backoff).await
    }

    /// A primary that is in doubt was chosen by a call that was dropped.
    fn has_primary(&self) -> bool {
        self.primary.as_ref().is_some_and(|primary| self.held.contains_key(primary))
    }

    /// Releases the locks that a call which failed, or was dropped, may have left. They stay in doubt until the
    /// transaction's end: a request of that call may still arrive.
    async fn release_doubtful(&self, backoff: &mut Backoff<T>) -> Result<()> {
        let (cluster, start_ts) = (&self.snapshot.cluster, self.snapshot.timestamp());
        let doubtful = self.doubtful.iter().cloned().collect();
        release_within(cluster, start_ts, self.for_update_ts, doubtful, &mut backoff.aside()).await
    }

    async fn lock(&mut self, keys: Vec<Bytes>, want: Want, backoff: &mut Backoff<T>) -> Result<()> {
        // Before anything is sent: this call may be dropped.
        self.doubtful.extend(keys.iter().filter(|key| !self.held.contains_key(*key)).cloned());
        let (mut pending, mut waiting) = (keys, None);
        while !pending.is_empty() {
            let request = self.request(want, waiting);
            let (cluster, sent) = (self.snapshot.cluster.clone(), self.now());
            let replies =
                cluster.scatter::<KvPessimisticLock, _>(Mode::Txn, std::mem::take(&mut pending), request, backoff);
            let mut obstacles = Obstacles::default();
            for (keys, reply) in replies.await? {
                if reply.errors.is_empty() {
                    self.note(keys, reply, want)?;
                } else {
                    obstacles.sort(reply.errors);
                    pending.extend(keys);
                }
            }
            if let Some(error) = obstacles.fatal {
                return Err(error);
            }
            if obstacles.is_outdated {
                cluster.counters.lock_conflicts.count();
                self.for_update_ts = cluster.timestamp(backoff).await?;
                backoff.hinted("other transactions commit the key again and again").await?;
            }
            if !obstacles.locks.is_empty() {
                let since = *waiting.get_or_insert(sent);
                let has_waited = self.now().saturating_sub(sent) >= HAS_WAITED;
                self.clear(&obstacles.locks, since, has_waited, backoff).await?;
            }
        }
        Ok(())
    }

    /// The request for some keys; `waiting` is since when this call waits for others.
    fn request(&self, want: Want, waiting: Option<Duration>) -> impl Fn(&[Bytes]) -> PessimisticLockRequest + use<T> {
        let waited = waiting.map_or(Duration::ZERO, |since| self.now().saturating_sub(since));
        let (left, half) =
            (self.options.lock_wait.saturating_sub(waited), self.snapshot.cluster.options.request_timeout / 2);
        // 0 is the server's default, below 0 does not wait at all.
        let wait_timeout = if left.is_zero() { -1 } else { left.min(half).as_millis().max(1) as i64 };
        let assertion = if want == Want::Absence { Assertion::NotExist } else { Assertion::None } as i32;
        let (primary, start_version) = (self.primary.clone().unwrap_or_default(), self.snapshot.timestamp());
        let (for_update_ts, is_first_lock) = (self.for_update_ts, self.held.is_empty());
        let lock_ttl = (self.now().saturating_sub(self.began) + self.options.lock_ttl).as_millis() as u64;
        move |keys| PessimisticLockRequest {
            mutations: keys
                .iter()
                .map(|key| Mutation {
                    op: Op::PessimisticLock as i32,
                    key: key.clone(),
                    assertion,
                    ..Default::default()
                })
                .collect(),
            primary_lock: primary.clone(),
            start_version,
            lock_ttl,
            for_update_ts,
            is_first_lock,
            wait_timeout,
            return_values: want == Want::Value,
            min_commit_ts: for_update_ts + 1,
            ..Default::default()
        }
    }

    /// These keys are locked.
    fn note(&mut self, keys: Vec<Bytes>, reply: PessimisticLockResponse, want: Want) -> Result<()> {
        if want == Want::Value && reply.values.len() != keys.len() {
            let (got, asked) = (reply.values.len(), keys.len());
            return Err(Error::Server(format!("{got} values of {asked} keys that were locked")));
        }
        for (at, key) in keys.into_iter().enumerate() {
            let is_absent = |value: &Bytes| reply.not_founds.get(at).copied().unwrap_or(value.is_empty());
            let known = match want {
                Want::Lock => self.held.get(&key).cloned().unwrap_or(Known::Unread),
                Want::Value => Known::Value(reply.values.get(at).filter(|value| !is_absent(value)).cloned()),
                Want::Absence => Known::Value(None),
            };
            self.doubtful.remove(&key);
            self.held.insert(key, known);
        }
        Ok(())
    }

    /// Resolves the locks of others, or waits for them; `since`: since when this call does.
    async fn clear(
        &self,
        locks: &[LockInfo],
        since: Duration,
        has_waited: bool,
        backoff: &mut Backoff<T>,
    ) -> Result<()> {
        let resolved = self.snapshot.resolver.resolve_all(locks, 0, backoff).await?;
        let waited = self.now().saturating_sub(since);
        match resolved.alive() {
            Some(lock) if waited >= self.options.lock_wait => {
                Err(Error::LockWaitTimeout { key: lock.key.clone(), holder: lock.lock_version, waited })
            }
            Some(_) if has_waited => backoff.check("other transactions hold the key"),
            _ => resolved.wait(backoff).await.map(drop),
        }
    }

    /// A call has failed: releases what it has locked, or may have.
    async fn give_back(&mut self, keys: Vec<Bytes>) {
        let start_ts = self.snapshot.timestamp();
        keys.iter().for_each(|key| _ = self.held.remove(key));
        self.doubtful.extend(keys.iter().cloned());
        match release(&self.snapshot.cluster, start_ts, self.for_update_ts, keys.clone()).await {
            Ok(()) => keys.iter().for_each(|key| _ = self.doubtful.remove(key)),
            Err(error) => tracing::debug!(start_ts, %error, "locks of a failed call stay until its transaction ends"),
        }
        if self.held.is_empty() {
            // The next lock is the primary. The task may have locks to release.
            self.primary = None;
            self.keeper = self.keeper.take().filter(|_| !self.doubtful.is_empty());
        }
    }

    /// All keys that are or may be locked.
    fn touched(&self) -> Vec<Bytes> {
        self.held.keys().chain(&self.doubtful).cloned().collect()
    }

    /// For the commit; `None` if no key is locked. Keys that may be locked, and are not needed, are released.
    pub(super) fn take(&mut self) -> Option<LocksHeld> {
        let (start_ts, for_update_ts) = (self.snapshot.timestamp(), self.for_update_ts);
        let doubtful = std::mem::take(&mut self.doubtful);
        if !doubtful.is_empty() {
            let cluster = self.snapshot.cluster.clone();
            self.snapshot.cluster.transport.spawn(async move {
                if let Err(error) = release(&cluster, start_ts, for_update_ts, doubtful.into_iter().collect()).await {
                    tracing::debug!(start_ts, %error, "some locks are left until they expire");
                }
            });
        }
        let (held, keeper) = (std::mem::take(&mut self.held), self.keeper.take());
        let primary = self.primary.take().filter(|_| !held.is_empty())?;
        Some(LocksHeld { keys: held.into_keys().collect(), primary, for_update_ts, keeper })
    }

    /// Releases everything.
    pub(super) async fn release(&mut self) -> Result<()> {
        release(&self.snapshot.cluster, self.snapshot.timestamp(), self.for_update_ts, self.touched()).await?;
        self.held.clear();
        self.doubtful.clear();
        self.keeper = None;
        Ok(())
    }

    /// The same, in the background.
    pub(super) fn abandon(&mut self) {
        let keys = self.touched();
        if let Some(keeper) = self.keeper.take().filter(|_| !keys.is_empty()) {
            keeper.release(keys, self.for_update_ts);
        }
    }

    fn now(&self) -> Duration {
        self.snapshot.cluster.transport.now()
    }
}

/// Why keys are not locked yet.
#[derive(Default)]
struct Obstacles {
    locks: Vec<LockInfo>,
    /// There is a commit above the for-update timestamp.
    is_outdated: bool,
    /// A repetition does not help.
    fatal: Option<Error>,
}

impl Obstacles {
    fn sort(&mut self, errors: Vec<KeyError>) {
        for mut error in errors {
            let conflict = error.conflict.as_ref().filter(|conflict| conflict.reason != Reason::SelfRolledBack as i32);
            if let Some(lock) = error.locked.take() {
                self.locks.push(lock);
            } else if conflict.is_some() {
                self.is_outdated = true;
            } else {
                self.fatal = Some(error_of(error));
            }
        }
    }
}
