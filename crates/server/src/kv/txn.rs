//! Transactional calls. The protocol itself is in `txn`; this module converts requests to its commands and results to
//! answers.
//!
//! A command that writes reads first, and its view binds its context to the present term of leadership: no other leader
//! can have written between the view and the proposal.

use super::api_version::{KeyMode, is_v2};
use super::load::bytes_of;
use super::route::{KeySpace, Purpose, Route, refused};
use super::txn_convert as convert;
use super::{Kv, Refusal};
use crate::api::Node;
use crate::driver::NodeError;
use bytes::Bytes;
use kontiki_engine::Range;
use kontiki_proto::kvrpcpb::{self, IsolationLevel};
use kontiki_txn::{
    BatchRollback, CheckSecondaryLocks, CheckTxnStatus, Cleanup, Commit, Failure, Isolation, KeyError,
    PessimisticRollback, ReadOptions, ResolveLock, Scan, ScanLock, SecondaryStatus, TimeStamp, TxnHeartBeat,
    user_range,
};
use std::collections::BTreeMap;

/// Refuses API versions whose keys would be misread. Keys of version 2 are longer keys to transactions.
fn check(context: &Option<kvrpcpb::Context>) -> Result<(), Refusal> {
    is_v2(context).map(drop).map_err(Refusal::Text)
}

/// The same, of a request for a range.
fn check_range(context: &Option<kvrpcpb::Context>, lower: &[u8], upper: &[u8]) -> Result<(), Refusal> {
    let is_v2 = is_v2(context).map_err(Refusal::Text)?;
    if is_v2 { KeyMode::Txn.check_range(lower, upper).map_err(Refusal::Text) } else { Ok(()) }
}

fn read_options(context: &Option<kvrpcpb::Context>, version: u64) -> ReadOptions {
    let mut options = ReadOptions::at(TimeStamp(version));
    let Some(context) = context else { return options };
    if context.stale_read {
        options.isolation = Isolation::Stale;
    } else if context.isolation_level() == IsolationLevel::Rc {
        options.isolation = Isolation::ReadCommitted;
    }
    options.resolved_locks = context.resolved_locks.iter().copied().map(TimeStamp).collect();
    options.committed_locks = context.committed_locks.iter().copied().map(TimeStamp).collect();
    options
}

/// The region's range, in encoded keys.
fn range_of(route: &Route) -> Range {
    Range::region(&route.region.start_key, &route.region.end_key)
}

/// Refuses keys that are not the region's, and, in API version 2, those of other calls.
fn in_region<'a>(route: &Route, keys: impl IntoIterator<Item = &'a Bytes>) -> Result<(), Failure<NodeError>> {
    for key in keys {
        route.check_keys(KeySpace::Txn, [key.as_ref()]).map_err(refused)?;
        if route.is_v2 {
            KeyMode::Txn.check_key(key).map_err(KeyError::Abort)?;
        }
    }
    Ok(())
}

impl<N: Node> Kv<N> {
    /// KvGet.
    pub async fn get(&self, request: kvrpcpb::GetRequest) -> kvrpcpb::GetResponse {
        self.try_get(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_get(&self, request: &kvrpcpb::GetRequest) -> Result<kvrpcpb::GetResponse, Refusal> {
        check(&request.context)?;
        let options = &read_options(&request.context, request.version);
        let found = self
            .routed(Purpose::ReadAt(request.version), &request.context, |route| async move {
                in_region(&route, [&request.key])?;
                self.scheduler.get(&route.context, &request.key, options).await
            })
            .await?;
        let bytes = request.key.len() + found.as_ref().map_or(0, |version| version.value.len());
        self.served_keys(&request.context, KeySpace::Txn, &[&request.key], |key| key, bytes);
        Ok(match found {
            None => kvrpcpb::GetResponse { not_found: true, ..Default::default() },
            Some(version) => {
                let commit_ts = if request.need_commit_ts { version.commit_ts.0 } else { 0 };
                kvrpcpb::GetResponse { value: version.value, commit_ts, ..Default::default() }
            }
        })
    }

    /// KvBatchGet: pairs of the keys found or locked.
    pub async fn batch_get(&self, request: kvrpcpb::BatchGetRequest) -> kvrpcpb::BatchGetResponse {
        self.try_batch_get(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_batch_get(&self, request: &kvrpcpb::BatchGetRequest) -> Result<kvrpcpb::BatchGetResponse, Refusal> {
        check(&request.context)?;
        let options = &read_options(&request.context, request.version);
        let pairs = self
            .routed(Purpose::ReadAt(request.version), &request.context, |route| async move {
                in_region(&route, &request.keys)?;
                self.scheduler.batch_get(&route.context, &request.keys, options, &mut self.large.budget()).await
            })
            .await?;
        let pairs: Vec<_> = pairs.into_iter().map(convert::pair).collect();
        self.served_keys(&request.context, KeySpace::Txn, &request.keys, AsRef::as_ref, bytes_of(&pairs));
        Ok(kvrpcpb::BatchGetResponse { pairs, ..Default::default() })
    }

    /// KvScan, in either direction, of that part of the range which lies in the region.
    pub async fn scan(&self, request: kvrpcpb::ScanRequest) -> kvrpcpb::ScanResponse {
        self.try_scan(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_scan(&self, request: &kvrpcpb::ScanRequest) -> Result<kvrpcpb::ScanResponse, Refusal> {
        check(&request.context)?;
        if request.sample_step > 1 {
            return Err(Refusal::Text("sample_step is not supported; send 0".into()));
        }
        let options = &read_options(&request.context, request.version);
        // A reverse scan names its exclusive upper bound first.
        let (lower, upper) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        check_range(&request.context, lower, upper)?;
        let pairs = self
            .routed(Purpose::ReadAt(request.version), &request.context, |route| async move {
                let scan = Scan {
                    range: user_range(&range_of(&route), lower, upper),
                    limit: request.limit as usize,
                    key_only: request.key_only,
                    reverse: request.reverse,
                };
                self.scheduler.scan(&route.context, &scan, options, &mut self.large.budget()).await
            })
            .await?;
        let pairs: Vec<_> = pairs.into_iter().map(convert::pair).collect();
        self.served_scan(&request.context, KeySpace::Txn, lower, &pairs);
        Ok(kvrpcpb::ScanResponse { pairs, ..Default::default() })
    }

    /// GetStoreSafeTS.
    pub fn store_safe_ts(&self, request: &kvrpcpb::StoreSafeTsRequest) -> kvrpcpb::StoreSafeTsResponse {
        let range = request.key_range.clone().unwrap_or_default();
        let safe_ts = self.node.safe_ts(&range.start_key, &range.end_key).unwrap_or(0);
        kvrpcpb::StoreSafeTsResponse { safe_ts }
    }

    /// KvPrewrite.
    pub async fn prewrite(&self, request: kvrpcpb::PrewriteRequest) -> kvrpcpb::PrewriteResponse {
        self.try_prewrite(request).await.unwrap_or_else(Into::into)
    }

    async fn try_prewrite(&self, request: kvrpcpb::PrewriteRequest) -> Result<kvrpcpb::PrewriteResponse, Refusal> {
        check(&request.context)?;
        let context = request.context.clone();
        let bytes = request.mutations.iter().map(|mutation| mutation.key.len() + mutation.value.len()).sum();
        let command = &convert::prewrite(request)?;
        let done = self
            .routed(Purpose::Write, &context, |route| async move {
                in_region(&route, command.mutations.iter().map(|mutation| &mutation.key))?;
                self.scheduler.prewrite(&route.context, command.clone()).await
            })
            .await?;
        self.served_keys(&context, KeySpace::Txn, &command.mutations, |mutation| &mutation.key, bytes);
        Ok(kvrpcpb::PrewriteResponse {
            min_commit_ts: done.min_commit_ts.0,
            one_pc_commit_ts: done.one_pc_commit_ts.0,
            ..Default::default()
        })
    }

    /// KvCommit.
    pub async fn commit(&self, request: kvrpcpb::CommitRequest) -> kvrpcpb::CommitResponse {
        self.try_commit(request).await.unwrap_or_else(Into::into)
    }

    async fn try_commit(&self, request: kvrpcpb::CommitRequest) -> Result<kvrpcpb::CommitResponse, Refusal> {
        check(&request.context)?;
        let (start_ts, commit_ts) = (request.start_version, request.commit_version);
        if commit_ts <= start_ts {
            return Err(Refusal::Text(format!("commit_version {commit_ts} must be above start_version {start_ts}")));
        }
        let command = &Commit { keys: request.keys, start_ts: TimeStamp(start_ts), commit_ts: TimeStamp(commit_ts) };
        let commit_ts = self
            .routed(Purpose::Write, &request.context, |route| async move {
                in_region(&route, &command.keys)?;
                self.scheduler.commit(&route.context, command.clone()).await
            })
            .await?;
        let bytes = command.keys.iter().map(Bytes::len).sum();
        self.served_keys(&request.context, KeySpace::Txn, &command.keys, AsRef::as_ref, bytes);
        Ok(kvrpcpb::CommitResponse { commit_version: commit_ts.0, ..Default::default() })
    }

    /// KvBatchRollback.
    pub async fn batch_rollback(&self, request: kvrpcpb::BatchRollbackRequest) -> kvrpcpb::BatchRollbackResponse {
        self.try_batch_rollback(request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_batch_rollback(&self, request: kvrpcpb::BatchRollbackRequest) -> Result<(), Refusal> {
        check(&request.context)?;
        let command = &BatchRollback { keys: request.keys, start_ts: TimeStamp(request.start_version) };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, &command.keys)?;
            self.scheduler.batch_rollback(&route.context, command.clone()).await
        })
        .await
    }

    /// KvCleanup: rolls one key back if its transaction's time to live has ended.
    pub async fn cleanup(&self, request: kvrpcpb::CleanupRequest) -> kvrpcpb::CleanupResponse {
        let commit_ts = self.try_cleanup(request).await;
        commit_ts.map_or_else(Into::into, |commit_ts| kvrpcpb::CleanupResponse {
            commit_version: commit_ts.0,
            ..Default::default()
        })
    }

    async fn try_cleanup(&self, request: kvrpcpb::CleanupRequest) -> Result<TimeStamp, Refusal> {
        check(&request.context)?;
        let command = &Cleanup {
            key: request.key,
            start_ts: TimeStamp(request.start_version),
            current_ts: TimeStamp(request.current_ts),
        };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, [&command.key])?;
            self.scheduler.cleanup(&route.context, command.clone()).await
        })
        .await
    }

    /// KvCheckTxnStatus.
    pub async fn check_txn_status(&self, request: kvrpcpb::CheckTxnStatusRequest) -> kvrpcpb::CheckTxnStatusResponse {
        self.try_check_txn_status(request).await.unwrap_or_else(Into::into)
    }

    async fn try_check_txn_status(
        &self,
        request: kvrpcpb::CheckTxnStatusRequest,
    ) -> Result<kvrpcpb::CheckTxnStatusResponse, Refusal> {
        check(&request.context)?;
        let command = &CheckTxnStatus {
            primary: request.primary_key,
            start_ts: TimeStamp(request.lock_ts),
            caller_start_ts: TimeStamp(request.caller_start_ts),
            current_ts: TimeStamp(request.current_ts),
            rollback_if_not_exist: request.rollback_if_not_exist,
            force_sync_commit: request.force_sync_commit,
            resolving_pessimistic_lock: request.resolving_pessimistic_lock,
            verify_is_primary: request.verify_is_primary,
        };
        let status = self
            .routed(Purpose::Write, &request.context, |route| async move {
                in_region(&route, [&command.primary])?;
                self.scheduler.check_txn_status(&route.context, command.clone()).await
            })
            .await?;
        Ok(convert::status(status))
    }

    /// KvTxnHeartBeat.
    pub async fn txn_heart_beat(&self, request: kvrpcpb::TxnHeartBeatRequest) -> kvrpcpb::TxnHeartBeatResponse {
        let ttl = self.try_txn_heart_beat(request).await;
        ttl.map_or_else(Into::into, |lock_ttl| kvrpcpb::TxnHeartBeatResponse { lock_ttl, ..Default::default() })
    }

    async fn try_txn_heart_beat(&self, request: kvrpcpb::TxnHeartBeatRequest) -> Result<u64, Refusal> {
        check(&request.context)?;
        let command = &TxnHeartBeat {
            primary: request.primary_lock,
            start_ts: TimeStamp(request.start_version),
            advise_ttl_ms: request.advise_lock_ttl,
        };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, [&command.primary])?;
            self.scheduler.txn_heart_beat(&route.context, command.clone()).await
        })
        .await
    }

    /// KvPessimisticLock: locks keys before it is known what the transaction writes; may wait for other transactions.
    pub async fn pessimistic_lock(&self, request: kvrpcpb::PessimisticLockRequest) -> kvrpcpb::PessimisticLockResponse {
        self.try_pessimistic_lock(request).await.unwrap_or_else(Into::into)
    }

    async fn try_pessimistic_lock(
        &self,
        request: kvrpcpb::PessimisticLockRequest,
    ) -> Result<kvrpcpb::PessimisticLockResponse, Refusal> {
        check(&request.context)?;
        let context = request.context.clone();
        let wait = convert::lock_wait(request.wait_timeout, &context);
        let command = &convert::pessimistic_lock(request)?;
        let locked = self
            .routed(Purpose::Write, &context, |route| async move {
                in_region(&route, command.keys.iter().map(|key| &key.key))?;
                self.scheduler.pessimistic_lock(&route.context, command.clone(), wait).await
            })
            .await?;
        let bytes = command.keys.iter().map(|key| key.key.len()).sum();
        self.served_keys(&context, KeySpace::Txn, &command.keys, |key| &key.key, bytes);
        Ok(convert::locked(command, locked))
    }

    /// KVPessimisticRollback: gives pessimistic locks back.
    pub async fn pessimistic_rollback(
        &self,
        request: kvrpcpb::PessimisticRollbackRequest,
    ) -> kvrpcpb::PessimisticRollbackResponse {
        self.try_pessimistic_rollback(request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_pessimistic_rollback(&self, request: kvrpcpb::PessimisticRollbackRequest) -> Result<(), Refusal> {
        check(&request.context)?;
        let command = &PessimisticRollback {
            keys: request.keys,
            start_ts: TimeStamp(request.start_version),
            for_update_ts: TimeStamp(request.for_update_ts),
        };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, &command.keys)?;
            self.scheduler.pessimistic_rollback(&route.context, command.clone()).await
        })
        .await
    }

    /// KvCheckSecondaryLocks: whether these keys of an async commit are all prewritten; decides it if not.
    pub async fn check_secondary_locks(
        &self,
        request: kvrpcpb::CheckSecondaryLocksRequest,
    ) -> kvrpcpb::CheckSecondaryLocksResponse {
        self.try_check_secondary_locks(request).await.map_or_else(Into::into, convert::secondaries)
    }

    async fn try_check_secondary_locks(
        &self,
        request: kvrpcpb::CheckSecondaryLocksRequest,
    ) -> Result<SecondaryStatus, Refusal> {
        check(&request.context)?;
        let command = &CheckSecondaryLocks { keys: request.keys, start_ts: TimeStamp(request.start_version) };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, &command.keys)?;
            self.scheduler.check_secondary_locks(&route.context, command.clone()).await
        })
        .await
    }

    /// KvResolveLock.
    pub async fn resolve_lock(&self, request: kvrpcpb::ResolveLockRequest) -> kvrpcpb::ResolveLockResponse {
        self.try_resolve_lock(request).await.map_or_else(Into::into, |()| Default::default())
    }

    async fn try_resolve_lock(&self, request: kvrpcpb::ResolveLockRequest) -> Result<(), Refusal> {
        check(&request.context)?;
        let mut txns: BTreeMap<_, _> =
            request.txn_infos.iter().map(|info| (TimeStamp(info.txn), TimeStamp(info.status))).collect();
        if txns.is_empty() {
            txns.insert(TimeStamp(request.start_version), TimeStamp(request.commit_version));
        }
        if let Some((start_ts, commit_ts)) = txns.iter().find(|(start, commit)| commit.0 != 0 && commit <= start) {
            return Err(Refusal::Text(format!(
                "commit_version {commit_ts} must be 0 or above start_version {start_ts}"
            )));
        }
        let command = &ResolveLock { txns, keys: request.keys };
        self.routed(Purpose::Write, &request.context, |route| async move {
            in_region(&route, &command.keys)?;
            let budget = &mut self.large.budget();
            self.scheduler.resolve_lock(&route.context, &range_of(&route), command.clone(), budget).await
        })
        .await
    }

    /// KvScanLock, of that part of the range which lies in the region.
    pub async fn scan_lock(&self, request: kvrpcpb::ScanLockRequest) -> kvrpcpb::ScanLockResponse {
        self.try_scan_lock(&request).await.unwrap_or_else(Into::into)
    }

    async fn try_scan_lock(&self, request: &kvrpcpb::ScanLockRequest) -> Result<kvrpcpb::ScanLockResponse, Refusal> {
        // Garbage collection asks for the locks of all keyspaces at once.
        let is_whole = request.start_key.is_empty() && request.end_key.is_empty();
        match is_whole {
            true => check(&request.context)?,
            false => check_range(&request.context, &request.start_key, &request.end_key)?,
        }
        let locks = self
            .routed(Purpose::Write, &request.context, |route| async move {
                let scan = ScanLock {
                    range: user_range(&range_of(&route), &request.start_key, &request.end_key),
                    max_version: TimeStamp(request.max_version),
                    limit: request.limit as usize,
                };
                self.scheduler.scan_lock(&route.context, &scan, &mut self.large.budget()).await
            })
            .await?;
        let locks = locks.iter().map(convert::lock_info).collect();
        Ok(kvrpcpb::ScanLockResponse { locks, ..Default::default() })
    }
}
