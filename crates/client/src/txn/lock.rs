//! Resolving the lock of another transaction: ask its primary, and carry out the outcome.

use crate::Result;
use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::keys::Mode;
use crate::reply::error_of;
use crate::transport::Transport;
use crate::tso::LOGICAL_BITS;
use bytes::Bytes;
use kontiki_env::KeyText;
use kontiki_proto::calls::{KvCheckSecondaryLocks, KvCheckTxnStatus, KvPessimisticRollback, KvResolveLock};
use kontiki_proto::kvrpcpb::{self, Action, CheckTxnStatusRequest, CheckTxnStatusResponse, LockInfo, Op};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of decided transactions that are cached: enough that the primary of one crashed writer is asked once.
const DECIDED_MAX: usize = 2048;
/// From this number of keys on, all of a transaction's locks in a region are resolved at once.
const LARGE_TXN_KEYS: u64 = 16;

/// The state of a lock after it was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockState {
    /// It is resolved: the key can be tried again at once.
    Resolved,
    /// Its transaction is alive, but will commit above the timestamp of the read: the read may ignore the lock.
    Pushed,
    /// Its transaction is alive: wait.
    Alive,
}

/// Resolves locks. Caches the outcomes of decided transactions (start timestamp to commit timestamp, 0 rolled back).
pub(crate) struct LockResolver<T: Transport> {
    cluster: Arc<Cluster<T>>,
    decided: Mutex<BTreeMap<u64, u64>>,
}

impl<T: Transport> LockResolver<T> {
    pub(crate) fn new(cluster: Arc<Cluster<T>>) -> LockResolver<T> {
        LockResolver { cluster, decided: Mutex::default() }
    }

    /// Resolves a lock on behalf of a read or write at `caller_start_ts`.
    async fn resolve(&self, lock: &LockInfo, caller_start_ts: u64, backoff: &mut Backoff<T>) -> Result<LockState> {
        let counters = &self.cluster.counters;
        counters.locks_met.count();
        let known = self.decided.lock().get(&lock.lock_version).copied();
        let answer = match known {
            Some(commit_version) => Answer::Decided(commit_version),
            None => self.ask(lock, caller_start_ts, backoff).await?,
        };
        match answer {
            Answer::Undecided(state) => return Ok(state),
            // It holds no value: whatever came of its transaction, nothing was prewritten here.
            Answer::Decided(_) | Answer::Stale if is_pessimistic(lock) => self.drop_pessimistic(lock, backoff).await?,
            Answer::Decided(commit_version) => self.finish(lock, commit_version, backoff).await?,
            Answer::Stale => return Ok(LockState::Alive),
        }
        counters.locks_resolved.count();
        Ok(LockState::Resolved)
    }

    /// Gives a lock its transaction's outcome.
    async fn finish(&self, lock: &LockInfo, commit_version: u64, backoff: &mut Backoff<T>) -> Result<()> {
        let keys = if lock.txn_size < LARGE_TXN_KEYS { vec![lock.key.clone()] } else { Vec::new() };
        let request = kvrpcpb::ResolveLockRequest {
            start_version: lock.lock_version,
            commit_version,
            keys,
            ..Default::default()
        };
        let reply = self.cluster.call::<KvResolveLock>(Mode::Txn, &lock.key, request, backoff).await?;
        reply.error.map_or(Ok(()), |error| Err(error_of(error)))
    }

    async fn drop_pessimistic(&self, lock: &LockInfo, backoff: &mut Backoff<T>) -> Result<()> {
        let request = kvrpcpb::PessimisticRollbackRequest {
            start_version: lock.lock_version,
            // One that its owner takes later stays.
            for_update_ts: lock.lock_for_update_ts,
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        let mut reply = self.cluster.call::<KvPessimisticRollback>(Mode::Txn, &lock.key, request, backoff).await?;
        reply.errors.pop().map_or(Ok(()), |error| Err(error_of(error)))
    }

    /// Asks the primary.
    async fn ask(&self, lock: &LockInfo, caller_start_ts: u64, backoff: &mut Backoff<T>) -> Result<Answer> {
        let now = self.cluster.timestamp(backoff).await?;
        let expired = lock.lock_ttl == 0 || is_expired(lock, now);
        let request = CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts,
            // A time to live of 0 means: resolve regardless of the primary's lock.
            current_ts: if lock.lock_ttl == 0 { u64::MAX } else { now },
            // A young transaction may be about to lock its primary: it must not be stopped.
            rollback_if_not_exist: expired,
            resolving_pessimistic_lock: is_pessimistic(lock),
            // A transaction whose first lock failed may have chosen another primary since.
            verify_is_primary: true,
            ..Default::default()
        };
        let reply = self.cluster.call::<KvCheckTxnStatus>(Mode::Txn, &lock.primary_lock, request, backoff).await?;
        if let Some(error) = &reply.error {
            if error.txn_not_found.is_some() {
                return Ok(Answer::Undecided(LockState::Alive));
            }
            if error.primary_mismatch.is_some() {
                // A prewritten lock names the primary that decides: what was read of this one is outdated.
                let outdated = Answer::Undecided(LockState::Alive);
                return Ok(if is_pessimistic(lock) { Answer::Stale } else { outdated });
            }
        }
        if let Some(primary) = reply.lock_info.as_ref().filter(|lock| lock.use_async_commit && is_expired(lock, now)) {
            let outcome = self.ask_secondaries(primary, now, backoff).await?;
            return Ok(match outcome {
                Some(commit_version) => Answer::Decided(self.remember(lock.lock_version, commit_version)),
                None => Answer::Undecided(LockState::Alive),
            });
        }
        self.answer_of(lock, reply)
    }

    fn answer_of(&self, lock: &LockInfo, reply: CheckTxnStatusResponse) -> Result<Answer> {
        if let Some(error) = reply.error {
            return Err(error_of(error));
        }
        if reply.lock_ttl > 0 || reply.lock_info.is_some() {
            let pushed = reply.action == Action::MinCommitTsPushed as i32;
            return Ok(Answer::Undecided(if pushed { LockState::Pushed } else { LockState::Alive }));
        }
        // Without a record the transaction may still commit: only this lock is known to be in vain.
        let without_record = [Action::TtlExpirePessimisticRollback as i32, Action::LockNotExistDoNothing as i32];
        if without_record.contains(&reply.action) {
            return Ok(Answer::Stale);
        }
        Ok(Answer::Decided(self.remember(lock.lock_version, reply.commit_version)))
    }

    /// Decides one of this client's own transactions, whose answers were lost, in the way in which others decide it
    /// after its time to live: all of them come to the same outcome. Returns the commit timestamp, 0 for
    /// rolled back.
    pub(crate) async fn decide(&self, primary: &Bytes, start_ts: u64, backoff: &mut Backoff<T>) -> Result<u64> {
        loop {
            let request = CheckTxnStatusRequest {
                primary_key: primary.clone(),
                lock_ts: start_ts,
                current_ts: u64::MAX,
                rollback_if_not_exist: true,
                ..Default::default()
            };
            let reply = self.cluster.call::<KvCheckTxnStatus>(Mode::Txn, primary, request, backoff).await?;
            if let Some(error) = reply.error {
                return Err(error_of(error));
            }
            match &reply.lock_info {
                None => return Ok(self.remember(start_ts, reply.commit_version)),
                Some(lock) if lock.use_async_commit => {
                    if let Some(commit_version) = self.ask_secondaries(lock, u64::MAX, backoff).await? {
                        return Ok(self.remember(start_ts, commit_version));
                    }
                }
                Some(_) => {}
            }
            backoff.pause(format!("transaction {start_ts} is still undecided")).await?;
        }
    }

    /// Notes the outcome of a transaction, for locks of it that are met.
    pub(crate) fn remember(&self, start_ts: u64, commit_version: u64) -> u64 {
        let mut decided = self.decided.lock();
        decided.insert(start_ts, commit_version);
        if decided.len() > DECIDED_MAX {
            decided.pop_first(); // The oldest transaction's locks are the least likely to be met again.
        }
        commit_version
    }

    /// The outcome of a transaction with async commit whose client has stopped: it is committed if all its keys are
    /// prewritten, and one that is not refuses to be from now on. `None`: some key was prewritten without async commit,
    /// so the primary alone decides, and it is not decided yet.
    async fn ask_secondaries(
        &self,
        primary: &LockInfo,
        current_ts: u64,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<u64>> {
        let start_version = primary.lock_version;
        let request = |keys: &[Bytes]| kvrpcpb::CheckSecondaryLocksRequest {
            keys: keys.to_vec(),
            start_version,
            ..Default::default()
        };
        let secondaries = primary.secondaries.clone();
        let replies =
            self.cluster.scatter::<KvCheckSecondaryLocks, _>(Mode::Txn, secondaries, request, backoff).await?;
        let mut commit_version = primary.min_commit_ts;
        for (keys, reply) in replies {
            if let Some(error) = reply.error {
                return Err(error_of(error));
            }
            if reply.locks.len() < keys.len() {
                commit_version = reply.commit_ts; // Committed, or, with 0, rolled back.
                break;
            }
            if reply.locks.iter().any(|lock| !lock.use_async_commit) {
                return self.ask_primary_alone(primary, current_ts, backoff).await;
            }
            commit_version = reply.locks.iter().map(|lock| lock.min_commit_ts).fold(commit_version, u64::max);
        }
        let keys = vec![primary.key.clone()];
        let request = kvrpcpb::ResolveLockRequest { start_version, commit_version, keys, ..Default::default() };
        let reply = self.cluster.call::<KvResolveLock>(Mode::Txn, &primary.key, request, backoff).await?;
        reply.error.map_or(Ok(Some(commit_version)), |error| Err(error_of(error)))
    }

    async fn ask_primary_alone(
        &self,
        primary: &LockInfo,
        current_ts: u64,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<u64>> {
        let request = CheckTxnStatusRequest {
            primary_key: primary.key.clone(),
            lock_ts: primary.lock_version,
            current_ts,
            rollback_if_not_exist: true,
            force_sync_commit: true,
            ..Default::default()
        };
        let reply = self.cluster.call::<KvCheckTxnStatus>(Mode::Txn, &primary.key, request, backoff).await?;
        match reply.error {
            Some(error) => Err(error_of(error)),
            None if reply.lock_info.is_some() => Ok(None),
            None => Ok(Some(reply.commit_version)),
        }
    }

    /// Resolves several locks.
    pub(crate) async fn resolve_all(
        &self,
        locks: &[LockInfo],
        caller_start_ts: u64,
        backoff: &mut Backoff<T>,
    ) -> Result<Resolved> {
        let mut resolved = Resolved::default();
        for lock in locks {
            match self.resolve(lock, caller_start_ts, backoff).await? {
                LockState::Resolved => {}
                LockState::Pushed => resolved.pushed.push(lock.lock_version),
                LockState::Alive => resolved.alive = Some(lock.clone()),
            }
        }
        Ok(resolved)
    }
}

/// What the primary says.
enum Answer {
    /// The commit timestamp; 0 for rolled back.
    Decided(u64),
    Undecided(LockState),
    /// A pessimistic lock is in vain, and nothing is decided: its transaction has lost its primary lock, or has another
    /// primary.
    Stale,
}

fn is_pessimistic(lock: &LockInfo) -> bool {
    lock.lock_type == Op::PessimisticLock as i32
}

/// Whether others may decide the lock's transaction at `now`.
fn is_expired(lock: &LockInfo, now: u64) -> bool {
    (lock.lock_version >> LOGICAL_BITS).saturating_add(lock.lock_ttl) < now >> LOGICAL_BITS
}

/// The state of several locks after they were resolved.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Transactions whose locks may be ignored.
    pushed: Vec<u64>,
    /// One of those that have to be waited for.
    alive: Option<LockInfo>,
}

impl Resolved {
    /// The lock of a live transaction, if any.
    pub(crate) fn alive(&self) -> Option<&LockInfo> {
        self.alive.as_ref()
    }

    /// Waits if any transaction is undecided. Returns those whose locks may be ignored.
    pub(crate) async fn wait<T: Transport>(self, backoff: &mut Backoff<T>) -> Result<Vec<u64>> {
        match self.alive {
            None => backoff.check("new locks were found after each resolution")?,
            Some(lock) => {
                backoff
                    .pause(format!("key {} is locked by transaction {}", KeyText(&lock.key), lock.lock_version))
                    .await?;
            }
        }
        Ok(self.pushed)
    }
}
