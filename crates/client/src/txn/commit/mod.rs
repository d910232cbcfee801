//! The commit of a transaction, in one of three ways ([`crate::TransactionOptions`]).
//!
//! *Two phases.*
//! 1. Prewrite every key, in as many requests as there are regions ([`prewrite`]). Locks of other transactions are
//!    resolved or waited for; any other refusal ends the transaction, and its locks are rolled back.
//! 2. Only now take the commit timestamp: every read that missed our locks has a smaller one.
//! 3. Commit the primary, together with the other keys of its region. This decides. After a lost answer the request is
//!    repeated until the outcome is known; if the time runs out first, the outcome is unknown and nothing is rolled
//!    back.
//! 4. Commit the rest. Failures here change nothing: a client that meets a lock asks the primary.
//!
//! *Async commit.* Each prewrite returns the lowest commit timestamp that its region permits. Once all keys are
//! prewritten the transaction is decided, at the greatest of these; commit records are written in the background.
//!
//! *One phase.* The prewrite of a transaction whose keys are all in one region writes the commit records itself
//! ([`one_phase`]).
//!
//! With the latter two a prewrite decides. So when the answer to one is lost and the transaction then fails, for
//! whatever reason, it may be committed; what came of it is settled in the way in which other clients settle it after
//! its time to live ([`LockResolver::decide`](super::LockResolver::decide)), and the caller learns of a failure only if
//! that is certain.
//!
//! A server declines the faster ways by leaving out their timestamps; the locks are ordinary ones then, and the commit
//! continues in two phases. Regions that have not declined may have set a lowest commit timestamp ahead of the present:
//! the commit waits until the oracle has come there.

mod one_phase;
mod prewrite;
mod protocol;

use super::Snapshot;
use super::keeper::Keeper;
use crate::backoff::Backoff;
use crate::cluster::{Cluster, GROUP_KEYS_MAX};
use crate::keys::Mode;
use crate::reply::error_of;
use crate::transport::Transport;
use crate::{Error, Result, TransactionOptions};
use bytes::Bytes;
use kontiki_proto::calls::{KvBatchRollback, KvCommit};
use kontiki_proto::kvrpcpb::{self, KeyError, Mutation, Op};
use one_phase::OnePhase;
use std::time::Duration;

/// A rollback that is not done by then is left to the clients that meet the locks.
const ROLLBACK_BUDGET: Duration = Duration::from_secs(5);

/// What is to be committed.
pub(super) struct Committer<T: Transport> {
    pub(super) snapshot: Snapshot<T>,
    pub(super) mutations: Vec<Mutation>,
    /// It decides; the first key with a lock unless it is chosen.
    primary: Bytes,
    /// The keys that get locks, in order.
    keys: Vec<Bytes>,
    /// When the transaction began, on the transport's clock.
    began: Duration,
    options: TransactionOptions,
    /// Of a pessimistic transaction: the timestamp of its newest lock, and what keeps its locks alive.
    pessimistic: Option<(u64, Option<Keeper>)>,
    /// A commit timestamp that the caller has chosen.
    chosen_commit_ts: Option<u64>,
}

/// How far the prewrite has come.
enum Prewritten {
    /// Committed, without locks.
    Committed(u64),
    /// Decided: committed at this timestamp, with locks on all keys.
    Decided(u64),
    /// All keys are locked, nothing is decided; a commit timestamp below `least` is refused.
    Locked { least: u64 },
}

impl<T: Transport> Committer<T> {
    pub(super) fn new(
        snapshot: Snapshot<T>,
        mutations: Vec<Mutation>,
        began: Duration,
        options: TransactionOptions,
    ) -> Committer<T> {
        let locking = mutations.iter().filter(|mutation| mutation.op != Op::CheckNotExists as i32);
        let keys: Vec<Bytes> = locking.map(|mutation| mutation.key.clone()).collect();
        let first = keys.first().or(mutations.first().map(|mutation| &mutation.key));
        let primary = first.cloned().unwrap_or_default();
        Committer { snapshot, mutations, primary, keys, began, options, pessimistic: None, chosen_commit_ts: None }
    }

    /// The same of a pessimistic transaction, which has locked all keys.
    pub(super) fn of_locked(self, primary: Bytes, for_update_ts: u64, keeper: Option<Keeper>) -> Committer<T> {
        assert!(self.keys.contains(&primary), "the primary is locked, and every locked key is prewritten");
        Committer { primary, pessimistic: Some((for_update_ts, keeper)), ..self }
    }

    /// The same with a primary and a commit timestamp that the caller has chosen: in two phases, because that is the
    /// only way that takes one.
    pub(super) fn at(self, primary: Bytes, commit_ts: u64) -> Committer<T> {
        assert!(self.keys.contains(&primary), "the primary is one of the keys");
        let options = TransactionOptions::two_phases();
        Committer { primary, chosen_commit_ts: Some(commit_ts), options, ..self }
    }

    fn start_ts(&self) -> u64 {
        self.snapshot.timestamp()
    }

    /// Commits; returns the commit timestamp.
    pub(super) async fn run(self) -> Result<u64> {
        let outcome = self.decide().await;
        let counters = &self.snapshot.cluster.counters;
        match &outcome {
            Ok(_) => {}
            Err(Error::Undetermined { .. }) => counters.commits_undetermined.count(),
            Err(_) => counters.commits_failed.count(),
        }
        outcome
    }

    async fn decide(&self) -> Result<u64> {
        let mut backoff = self.snapshot.cluster.backoff();
        let prewritten = match self.prewrite_all(&mut backoff).await {
            Ok(prewritten) => prewritten,
            Err(error) => return self.fail_or_settle(error, &mut backoff).await,
        };
        if self.keys.is_empty() {
            return Ok(self.start_ts()); // Only checks, and they hold.
        }
        let counters = &self.snapshot.cluster.counters;
        match prewritten {
            Prewritten::Committed(commit_ts) => {
                counters.commits_one_phase.count();
                Ok(commit_ts)
            }
            Prewritten::Decided(commit_ts) => {
                counters.commits_async.count();
                self.commit_rest(commit_ts, self.keys.clone()).await;
                Ok(commit_ts)
            }
            Prewritten::Locked { least } => match self.commit_primary(least, &mut backoff).await {
                Ok((commit_ts, rest)) => {
                    counters.commits_two_phases.count();
                    self.commit_rest(commit_ts, rest).await;
                    Ok(commit_ts)
                }
                Err(error @ Error::Undetermined { .. }) => Err(error),
                Err(error) => self.fail_or_settle(error, &mut backoff).await,
            },
        }
    }

    async fn prewrite_all(&self, backoff: &mut Backoff<T>) -> Result<Prewritten> {
        let mut protocol = self.protocol(backoff).await?;
        if protocol.decides() {
            backoff.begin_decision();
        }
        if protocol.one_phase {
            match self.one_phase(&protocol, backoff).await? {
                OnePhase::Committed(commit_ts) => return Ok(Prewritten::Committed(commit_ts)),
                OnePhase::Declined => {
                    self.snapshot.cluster.counters.commits_declined.count();
                    return Ok(Prewritten::Locked { least: 0 });
                }
                OnePhase::SeveralRegions => protocol.one_phase = false,
            }
        }
        self.prewrite(&protocol, backoff).await
    }

    /// The outcome after the prewrite, or the commit of the primary, failed.
    async fn fail_or_settle(&self, error: Error, backoff: &mut Backoff<T>) -> Result<u64> {
        if self.chosen_commit_ts.is_some() {
            // The caller may have made the same call before, and that one may have committed the primary.
            backoff.mark_uncertain();
        }
        if !backoff.is_uncertain() {
            self.roll_back().await;
            return Err(error);
        }
        let settled = self.snapshot.resolver.decide(&self.primary, self.start_ts(), &mut backoff.aside()).await;
        match settled {
            Ok(0) => {
                self.roll_back().await;
                Err(match error {
                    Error::Undetermined { last, .. } => Error::RolledBack(last),
                    error => error,
                })
            }
            Ok(commit_ts) => {
                self.commit_rest(commit_ts, self.keys.clone()).await;
                Ok(commit_ts)
            }
            Err(_) => Err(match error {
                error @ Error::Undetermined { .. } => error,
                error => backoff.give_up(error),
            }),
        }
    }

    /// A timestamp of the oracle that is not below `least`: the locks refuse lower ones, those of the secondaries, too.
    async fn commit_timestamp(&self, least: u64, backoff: &mut Backoff<T>) -> Result<u64> {
        loop {
            let commit_ts = self.snapshot.cluster.timestamp(backoff).await?;
            if commit_ts >= least {
                return Ok(commit_ts);
            }
            backoff
                .pause(format!("the lowest commit timestamp, {least}, is ahead of the oracle's, {commit_ts}"))
                .await?;
        }
    }

    /// Decides the outcome. Returns the commit timestamp and the keys that are still locked.
    async fn commit_primary(&self, least: u64, backoff: &mut Backoff<T>) -> Result<(u64, Vec<Bytes>)> {
        let cluster = &self.snapshot.cluster;
        let mut commit_version = match self.chosen_commit_ts {
            Some(commit_ts) => commit_ts,
            None => self.commit_timestamp(least, backoff).await?,
        };
        backoff.begin_decision();
        // Pushed repeatedly by readers, or sent repeatedly: bounded by the deadline.
        loop {
            let region = cluster.locate(&Mode::Txn.position(&self.primary), backoff).await?;
            let others = self.keys.iter().filter(|key| **key != self.primary).cloned();
            let (here, rest): (Vec<Bytes>, Vec<Bytes>) =
                others.partition(|key| region.contains(&Mode::Txn.position(key)));
            let (beside, more) = here.split_at(here.len().min(GROUP_KEYS_MAX - 1));
            let request = kvrpcpb::CommitRequest {
                start_version: self.start_ts(),
                keys: std::iter::once(&self.primary).chain(beside).cloned().collect(),
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
                Some(KeyError { commit_ts_expired: Some(expired), .. }) if self.chosen_commit_ts.is_none() => {
                    commit_version = self.commit_timestamp(expired.min_commit_ts, backoff).await?;
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
        // This client's own reads do not wait for what follows.
        self.snapshot.resolver.remember(self.start_ts(), commit_version);
        let (cluster, start_version) = (self.snapshot.cluster.clone(), self.start_ts());
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
    /// ended. The primary's is the first: where it is not certain to be rolled back, the others follow what becomes of
    /// it.
    async fn roll_back(&self) {
        let (primary, others): (Vec<Bytes>, Vec<Bytes>) =
            self.keys.iter().cloned().partition(|key| *key == self.primary);
        let (cluster, start_version) = (self.snapshot.cluster.clone(), self.start_ts());
        let work = async move {
            let mut backoff = cluster.backoff_of(ROLLBACK_BUDGET);
            for keys in [primary, others] {
                if let Err(error) = roll_back_keys(&cluster, start_version, keys, &mut backoff).await {
                    tracing::debug!(start_version, %error, "some locks of a failed transaction are left");
                    return;
                }
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
}

async fn roll_back_keys<T: Transport>(
    cluster: &Cluster<T>,
    start_version: u64,
    keys: Vec<Bytes>,
    backoff: &mut Backoff<T>,
) -> Result<()> {
    let request =
        |keys: &[Bytes]| kvrpcpb::BatchRollbackRequest { start_version, keys: keys.to_vec(), ..Default::default() };
    let replies = cluster.scatter::<KvBatchRollback, _>(Mode::Txn, keys, request, backoff).await?;
    let mut errors = replies.into_iter().filter_map(|(_, reply)| reply.error);
    errors.next().map_or(Ok(()), |error| Err(error_of(error)))
}
