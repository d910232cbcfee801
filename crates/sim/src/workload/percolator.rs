//! The client's half of the transaction protocol, with the messages of the real protocol: optimistic two-phase commit
//! with the commit timestamp after prewrite, resolution of locks that others left, and clients that die in between.

use super::{CallOutcome, Records, Router};
use crate::check::timestamps::Grant;
use crate::cluster::wire::{Ask, Response, txn_region};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use kontiki_placement::{Command, Outcome, Timestamps};
use kontiki_proto::kvrpcpb::{self, KeyError, LockInfo, Mutation};
use kontiki_raftstore::RegionId;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one call is tried.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to live of locks: short, so that slow owners are rolled back by others.
pub const LOCK_TTL_MS: u64 = 800;
/// How many locks one read may meet before it gives up.
const LOCKS_MET_MAX: u64 = 40;
/// How often a commit is tried with a newer timestamp.
const COMMITS_MAX: u64 = 4;
/// Wait after a live lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Acknowledged.
    Yes,
    /// Certainly not committed.
    No,
    /// The outcome is unknown.
    Unknown,
}

/// How a client writes, each in percent.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// It dies between prewrite and commit.
    pub dies_before_commit: u64,
    /// It dies when the primary is committed.
    pub dies_after_primary: u64,
    /// It is slow between prewrite and commit, with or without heartbeats for its lock.
    pub dawdles: u64,
    /// Its locks allow readers to push the minimum commit timestamp.
    pub is_pushable: u64,
    /// It resolves by `Cleanup` instead of `CheckTxnStatus`, or a whole region instead of a key.
    pub resolves_otherwise: u64,
}

impl Habits {
    /// Draws habits: most clients do not die.
    pub fn draw(rng: &mut Rng) -> Habits {
        let mut sometimes = |max: u64| if rng.chance(1, 2) { rng.below(max) } else { 0 };
        Habits {
            dies_before_commit: sometimes(20),
            dies_after_primary: sometimes(20),
            dawdles: sometimes(20),
            is_pushable: sometimes(150),
            resolves_otherwise: sometimes(60),
        }
    }
}

/// What a transaction does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets it.
    Put(Bytes),
    /// Sets it, if it is absent.
    Insert(Bytes),
    /// Deletes it.
    Delete,
    /// Locks it only.
    Lock,
}

impl Change {
    fn mutation(&self, key: &Bytes) -> Mutation {
        let (op, value) = match self {
            Change::Put(value) => (kvrpcpb::Op::Put, value.clone()),
            Change::Insert(value) => (kvrpcpb::Op::Insert, value.clone()),
            Change::Delete => (kvrpcpb::Op::Del, Bytes::new()),
            Change::Lock => (kvrpcpb::Op::Lock, Bytes::new()),
        };
        Mutation { op: op as i32, key: key.clone(), value, ..Default::default() }
    }

    /// What the key holds afterwards, if it is changed.
    pub fn written(&self) -> Option<Option<Bytes>> {
        match self {
            Change::Put(value) | Change::Insert(value) => Some(Some(value.clone())),
            Change::Delete => Some(None),
            Change::Lock => None,
        }
    }
}

/// A transactional client.
pub struct Percolator {
    /// Its router to the cluster.
    pub router: Router,
    /// The records of the timestamps that it gets.
    pub records: Records,
    /// How it writes.
    pub habits: Habits,
    /// The random generator of its habits.
    pub rng: Rng,
}

fn by_region<T: Clone>(items: &[T], key: impl Fn(&T) -> &Bytes) -> BTreeMap<RegionId, Vec<T>> {
    let mut regions: BTreeMap<RegionId, Vec<T>> = BTreeMap::new();
    for item in items {
        regions.entry(txn_region(key(item))).or_default().push(item.clone());
    }
    regions
}

impl Percolator {
    fn has_habit(&mut self, percent: u64) -> bool {
        self.rng.chance(percent.min(100), 100)
    }

    /// A timestamp, recorded in the records.
    pub async fn timestamp(&mut self) -> Option<u64> {
        let client = self.router.caller().client();
        let invoked = self.records.history.borrow_mut().event();
        let ask = Ask::Placement(Command::Timestamps(Timestamps { count: 1 }).into());
        let CallOutcome::Answered(response) = self.router.ask(ask, CALL_TIMEOUT).await else { return None };
        let Response::Placement(response) = *response else { return None };
        let Ok(Outcome::Timestamps(granted)) = response.into_result() else { return None };
        let completed = self.records.history.borrow_mut().event();
        self.records.grants.borrow_mut().push(Grant { client, invoked, completed, first: granted.first(), count: 1 });
        Some(granted.last())
    }

    /// Reads a key as of `version`; `Err` if there is no answer.
    pub async fn get(&mut self, key: &Bytes, version: u64) -> Result<Option<Bytes>, ()> {
        let mut harmless = Vec::new();
        for _ in 0..LOCKS_MET_MAX {
            let context = Some(kvrpcpb::Context { resolved_locks: harmless.clone(), ..Default::default() });
            let request = kvrpcpb::GetRequest { context, key: key.clone(), version, ..Default::default() };
            let CallOutcome::Answered(response) = self.router.ask(Ask::Get(request), CALL_TIMEOUT).await else {
                return Err(());
            };
            let Response::Get(answer) = *response else { return Err(()) };
            match answer.error {
                None => return Ok((!answer.not_found).then_some(answer.value)),
                Some(KeyError { locked: Some(lock), .. }) => harmless.extend(self.resolve(&lock, version).await),
                Some(_) => return Err(()),
            }
        }
        Err(())
    }

    /// Reads keys of one region as of `version`, all of them or, with a range around them, by a scan in either
    /// direction. Returns the values found, by key.
    pub async fn read_many(
        &mut self,
        keys: &[Bytes],
        range: Option<(Bytes, Bytes, bool)>,
        version: u64,
    ) -> Result<BTreeMap<Bytes, Bytes>, ()> {
        let mut harmless = Vec::new();
        for _ in 0..LOCKS_MET_MAX {
            let context = Some(kvrpcpb::Context { resolved_locks: harmless.clone(), ..Default::default() });
            let ask = match range.clone() {
                None => Ask::BatchGet(kvrpcpb::BatchGetRequest { context, keys: keys.to_vec(), version }),
                Some((lower, upper, reverse)) => {
                    let (start_key, end_key) = if reverse { (upper, lower) } else { (lower, upper) };
                    // One more than there can be: a scan that ends early is detected.
                    let limit = keys.len() as u32 + 1;
                    let request = kvrpcpb::ScanRequest {
                        context,
                        start_key,
                        end_key,
                        limit,
                        version,
                        reverse,
                        ..Default::default()
                    };
                    Ask::Scan(request)
                }
            };
            let CallOutcome::Answered(response) = self.router.ask(ask, CALL_TIMEOUT).await else { return Err(()) };
            let (error, pairs) = match *response {
                Response::BatchGet(answer) => (answer.error, answer.pairs),
                Response::Scan(answer) => (answer.error, answer.pairs),
                _ => return Err(()),
            };
            if error.is_some() {
                return Err(());
            }
            if pairs.iter().filter_map(|pair| pair.error.as_ref()).any(|error| error.locked.is_none()) {
                return Err(());
            }
            let locks: Vec<LockInfo> = pairs.iter().filter_map(|pair| pair.error.as_ref()?.locked.clone()).collect();
            if locks.is_empty() {
                return Ok(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect());
            }
            for lock in locks {
                harmless.extend(self.resolve(&lock, version).await);
            }
        }
        Err(())
    }

    /// Writes all or nothing. Returns the commit timestamp that was tried last, if any, and the outcome.
    pub async fn write(&mut self, start_ts: u64, writes: &[(Bytes, Change)]) -> (Option<u64>, Committed) {
        let keys: Vec<Bytes> = writes.iter().map(|(key, _)| key.clone()).collect();
        if !self.prewrite(start_ts, writes).await {
            self.roll_back(start_ts, &keys).await;
            return (None, Committed::No);
        }
        if self.has_habit(self.habits.dies_before_commit) {
            return (None, Committed::No);
        }
        if self.has_habit(self.habits.dawdles) {
            self.dawdle(start_ts, &keys[0]).await;
        }
        for _ in 0..COMMITS_MAX {
            let Some(commit_ts) = self.timestamp().await else { break };
            match self.commit(start_ts, commit_ts, vec![keys[0].clone()]).await {
                // A reader has pushed the lock beyond it.
                None => continue,
                Some(Committed::Yes) => {
                    if !self.has_habit(self.habits.dies_after_primary) {
                        // The primary has decided; the first client that meets the other locks resolves them.
                        for rest in by_region(&keys[1..], |key| key).into_values() {
                            self.commit(start_ts, commit_ts, rest).await;
                        }
                    }
                    return (Some(commit_ts), Committed::Yes);
                }
                Some(other) => return (Some(commit_ts), other),
            }
        }
        self.roll_back(start_ts, &keys).await;
        (None, Committed::No)
    }

    async fn prewrite(&mut self, start_ts: u64, writes: &[(Bytes, Change)]) -> bool {
        let primary_lock = writes[0].0.clone();
        let min_commit_ts = if self.has_habit(self.habits.is_pushable) { start_ts + 1 } else { 0 };
        for part in by_region(writes, |(key, _)| key).into_values() {
            let request = kvrpcpb::PrewriteRequest {
                mutations: part.iter().map(|(key, change)| change.mutation(key)).collect(),
                primary_lock: primary_lock.clone(),
                start_version: start_ts,
                lock_ttl: LOCK_TTL_MS,
                txn_size: writes.len() as u64,
                min_commit_ts,
                ..Default::default()
            };
            if !self.prewrite_part(request).await {
                return false;
            }
        }
        true
    }

    async fn prewrite_part(&mut self, request: kvrpcpb::PrewriteRequest) -> bool {
        for _ in 0..LOCKS_MET_MAX {
            let CallOutcome::Answered(response) = self.router.ask(Ask::Prewrite(request.clone()), CALL_TIMEOUT).await
            else {
                return false;
            };
            let Response::Prewrite(answer) = *response else { return false };
            if answer.errors.is_empty() {
                return true;
            }
            for error in answer.errors {
                let Some(lock) = error.locked else { return false };
                // 0: pushing the other transaction does not help a writer.
                self.resolve(&lock, 0).await;
            }
        }
        false
    }

    /// Delays, with or without heartbeats.
    async fn dawdle(&mut self, start_version: u64, primary: &Bytes) {
        let executor = self.router.caller().executor().clone();
        let beats = self.rng.chance(1, 2);
        for round in 1..=1 + self.rng.below(4) {
            executor.sleep(Duration::from_millis(100 + self.rng.below(500))).await;
            if beats {
                let request = kvrpcpb::TxnHeartBeatRequest {
                    primary_lock: primary.clone(),
                    start_version,
                    advise_lock_ttl: LOCK_TTL_MS * (1 + round),
                    ..Default::default()
                };
                let _ = self.router.ask(Ask::TxnHeartBeat(request), CALL_TIMEOUT).await;
            }
        }
    }

    /// Commits keys of one region; `None` if the timestamp has become too low.
    async fn commit(&mut self, start_version: u64, commit_version: u64, keys: Vec<Bytes>) -> Option<Committed> {
        let request = kvrpcpb::CommitRequest { start_version, commit_version, keys, ..Default::default() };
        // A commit may be repeated, so the answer to the last try is the answer.
        let CallOutcome::Answered(response) = self.router.ask(Ask::Commit(request), CALL_TIMEOUT).await else {
            return Some(Committed::Unknown);
        };
        let Response::Commit(answer) = *response else { return Some(Committed::Unknown) };
        match answer.error {
            None => Some(Committed::Yes),
            Some(KeyError { commit_ts_expired: Some(_), .. }) => None,
            Some(KeyError { txn_lock_not_found: Some(_), .. }) => Some(Committed::No),
            // Of this try; an earlier one may have done it.
            Some(_) => Some(Committed::Unknown),
        }
    }

    async fn roll_back(&mut self, start_version: u64, keys: &[Bytes]) {
        for keys in by_region(keys, |key| key).into_values() {
            let request = kvrpcpb::BatchRollbackRequest { start_version, keys, ..Default::default() };
            // If it fails, the end of the locks' time to live has the same effect.
            let _ = self.router.ask(Ask::BatchRollback(request), CALL_TIMEOUT).await;
        }
    }

    /// Asks for the outcome of a lock's transaction, and resolves the lock; waits a little if it is alive. Returns the
    /// transaction if it is alive and cannot commit at or below `caller_start_ts` any more.
    pub async fn resolve(&mut self, lock: &LockInfo, caller_start_ts: u64) -> Option<u64> {
        let current_ts = self.timestamp().await?;
        let otherwise = self.has_habit(self.habits.resolves_otherwise);
        let commit_version = if otherwise && self.rng.chance(1, 2) {
            self.clean_up(lock, current_ts).await
        } else {
            match self.check_status(lock, caller_start_ts, current_ts).await {
                Ok(commit_version) => Some(commit_version),
                Err(pushed) if pushed => return Some(lock.lock_version),
                Err(_) => None,
            }
        };
        let Some(commit_version) = commit_version else {
            self.router.caller().executor().clone().sleep(LOCK_PAUSE).await;
            return None;
        };
        let request = kvrpcpb::ResolveLockRequest {
            start_version: lock.lock_version,
            commit_version,
            keys: vec![lock.key.clone()],
            ..Default::default()
        };
        let _ = self.router.ask(Ask::ResolveLock(request), CALL_TIMEOUT).await;
        None
    }

    /// The commit timestamp (0: rolled back) of a decided transaction, or whether a live one was pushed.
    async fn check_status(&mut self, lock: &LockInfo, caller_start_ts: u64, current_ts: u64) -> Result<u64, bool> {
        let request = kvrpcpb::CheckTxnStatusRequest {
            primary_key: lock.primary_lock.clone(),
            lock_ts: lock.lock_version,
            caller_start_ts,
            current_ts,
            rollback_if_not_exist: true,
            ..Default::default()
        };
        let CallOutcome::Answered(response) = self.router.ask(Ask::CheckTxnStatus(request), CALL_TIMEOUT).await else {
            return Err(false);
        };
        let Response::CheckTxnStatus(status) = *response else { return Err(false) };
        if status.error.is_some() {
            return Err(false);
        }
        if status.lock_ttl > 0 {
            return Err(status.action() == kvrpcpb::Action::MinCommitTsPushed);
        }
        Ok(status.commit_version)
    }

    /// The commit timestamp (0: rolled back) of a transaction whose time to live has ended.
    async fn clean_up(&mut self, lock: &LockInfo, current_ts: u64) -> Option<u64> {
        let (key, start_version) = (lock.primary_lock.clone(), lock.lock_version);
        let request = kvrpcpb::CleanupRequest { key, start_version, current_ts, ..Default::default() };
        let CallOutcome::Answered(response) = self.router.ask(Ask::Cleanup(request), CALL_TIMEOUT).await else {
            return None;
        };
        match *response {
            Response::Cleanup(answer) if answer.error.is_none() => Some(answer.commit_version),
            _ => None,
        }
    }
}
