//! The client's half of the transaction protocol, over the real wire's messages: optimistic two-phase commit with the
//! commit timestamp after prewrite, and resolution of locks that others left behind.

use super::{Asked, Records, Router};
use crate::check::timestamps::Grant;
use crate::cluster::wire::{Ask, Told};
use bytes::Bytes;
use kontiki_placement::{Command, Outcome, Timestamps};
use kontiki_proto::kvrpcpb::{self, KeyError, LockInfo, Mutation};
use std::time::Duration;

/// How long one call is tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time to live of locks: short, so that slow owners are rolled back by others.
const LOCK_TTL_MS: u64 = 800;
/// How often one read meets a lock before it gives up.
const LOCKS_MET_MAX: u64 = 40;
/// Pause after a lock that is alive.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Acknowledged.
    Yes,
    /// For certain not.
    No,
    /// Nobody said.
    Unknown,
}

/// A transactional client.
pub struct Percolator {
    /// Its way to the cluster.
    pub router: Router,
    /// Where it notes the timestamps it gets.
    pub records: Records,
}

impl Percolator {
    /// A timestamp, noted in the records.
    pub async fn timestamp(&mut self) -> Option<u64> {
        let client = self.router.caller().client();
        let invoked = self.records.history.borrow_mut().event();
        let ask = Ask::Placement(Command::Timestamps(Timestamps { count: 1 }).into());
        let Asked::Told(told) = self.router.ask(ask, PATIENCE).await else { return None };
        let Told::Placement(response) = *told else { return None };
        let Ok(Outcome::Timestamps(granted)) = response.into_result() else { return None };
        let completed = self.records.history.borrow_mut().event();
        self.records.grants.borrow_mut().push(Grant { client, invoked, completed, first: granted.first(), count: 1 });
        Some(granted.last())
    }

    /// Reads a key as of `version`; `Err` if there is no answer.
    pub async fn get(&mut self, key: &Bytes, version: u64) -> Result<Option<Bytes>, ()> {
        for _ in 0..LOCKS_MET_MAX {
            let request = kvrpcpb::GetRequest { key: key.clone(), version, ..Default::default() };
            let Asked::Told(told) = self.router.ask(Ask::Get(request), PATIENCE).await else { return Err(()) };
            let Told::Get(answer) = *told else { return Err(()) };
            match answer.error {
                None => return Ok((!answer.not_found).then_some(answer.value)),
                Some(KeyError { locked: Some(lock), .. }) => self.resolve(&lock, version).await,
                Some(_) => return Err(()),
            }
        }
        Err(())
    }

    /// Writes all or nothing. Returns the commit timestamp that was tried, if it came that far, and the end.
    pub async fn write(&mut self, start_ts: u64, writes: &[(Bytes, Option<Bytes>)]) -> (Option<u64>, Committed) {
        let keys: Vec<Bytes> = writes.iter().map(|(key, _)| key.clone()).collect();
        if !self.prewrite(start_ts, writes).await {
            self.roll_back(start_ts, keys).await;
            return (None, Committed::No);
        }
        let Some(commit_ts) = self.timestamp().await else {
            self.roll_back(start_ts, keys).await;
            return (None, Committed::No);
        };
        let committed = self.commit(start_ts, commit_ts, vec![keys[0].clone()]).await;
        if committed == Committed::Yes {
            // The fate is sealed by the primary; whoever finds the others' locks first cleans up.
            self.commit(start_ts, commit_ts, keys[1..].to_vec()).await;
        }
        (Some(commit_ts), committed)
    }

    async fn prewrite(&mut self, start_ts: u64, writes: &[(Bytes, Option<Bytes>)]) -> bool {
        let mutations = writes.iter().map(|(key, value)| Mutation {
            op: if value.is_some() { kvrpcpb::Op::Put } else { kvrpcpb::Op::Del } as i32,
            key: key.clone(),
            value: value.clone().unwrap_or_default(),
            ..Default::default()
        });
        let request = kvrpcpb::PrewriteRequest {
            mutations: mutations.collect(),
            primary_lock: writes[0].0.clone(),
            start_version: start_ts,
            lock_ttl: LOCK_TTL_MS,
            txn_size: writes.len() as u64,
            ..Default::default()
        };
        for _ in 0..LOCKS_MET_MAX {
            let Asked::Told(told) = self.router.ask(Ask::Prewrite(request.clone()), PATIENCE).await else {
                return false;
            };
            let Told::Prewrite(answer) = *told else { return false };
            if answer.errors.is_empty() {
                return true;
            }
            for error in answer.errors {
                let Some(lock) = error.locked else { return false };
                self.resolve(&lock, start_ts).await;
            }
        }
        false
    }

    async fn commit(&mut self, start_version: u64, commit_version: u64, keys: Vec<Bytes>) -> Committed {
        if keys.is_empty() {
            return Committed::Yes;
        }
        let request = kvrpcpb::CommitRequest { start_version, commit_version, keys, ..Default::default() };
        // A commit may be repeated, so the answer to the last try is the answer.
        match self.router.ask(Ask::Commit(request), PATIENCE).await {
            Asked::Told(told) => match *told {
                Told::Commit(answer) if answer.error.is_none() => Committed::Yes,
                _ => Committed::No,
            },
            Asked::Failed | Asked::Unknown => Committed::Unknown,
        }
    }

    async fn roll_back(&mut self, start_version: u64, keys: Vec<Bytes>) {
        let request = kvrpcpb::BatchRollbackRequest { start_version, keys, ..Default::default() };
        // If it does not get through, the locks' time to live does the same.
        let _ = self.router.ask(Ask::BatchRollback(request), PATIENCE).await;
    }

    /// Finds out what became of a lock's transaction, and finishes it; waits a little if it is alive.
    async fn resolve(&mut self, lock: &LockInfo, caller_start_ts: u64) {
        let Some(current_ts) = self.timestamp().await else { return };
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts,
            current_ts,
            rollback_if_not_exist: true,
            ..Default::default()
        };
        let Asked::Told(told) = self.router.ask(Ask::CheckTxnStatus(request), PATIENCE).await else { return };
        let Told::CheckTxnStatus(status) = *told else { return };
        if status.error.is_some() || status.lock_ttl > 0 {
            self.router.caller().executor().clone().sleep(LOCK_PAUSE).await;
            return;
        }
        let request = kvrpcpb::ResolveLockRequest {
            start_version: lock.lock_version,
            commit_version: status.commit_version,
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        let _ = self.router.ask(Ask::ResolveLock(request), PATIENCE).await;
    }
}
