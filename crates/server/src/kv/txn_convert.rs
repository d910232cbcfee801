//! Between the wire's transactional messages and the commands and answers of `txn`.

use super::Refusal;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::prewrite_request::PessimisticAction as WireAction;
use kontiki_proto::kvrpcpb::{self, Op, PessimisticLockWakeUpMode as WakeUpMode};
use kontiki_txn::{
    Assertion, AssertionLevel, ConflictReason, KeyError, KeyToLock, LOCK_WAIT_MAX, LockInfo, LockKind, LockedKey,
    Mutation, MutationOp, Pair, PessimisticAction, PessimisticLock, Prewrite, SecondaryStatus, StatusAction, TimeStamp,
    TxnStatus, WaitFor,
};
use std::time::Duration;

/// A prewrite command; the text of the refusal names what is not supported.
pub(super) fn prewrite(request: kvrpcpb::PrewriteRequest) -> Result<Prewrite, Refusal> {
    let assertion_level = match request.assertion_level() {
        kvrpcpb::AssertionLevel::Off => AssertionLevel::Off,
        kvrpcpb::AssertionLevel::Fast => AssertionLevel::Fast,
        kvrpcpb::AssertionLevel::Strict => AssertionLevel::Strict,
    };
    let mut mutations = request.mutations.into_iter().map(mutation).collect::<Result<Vec<_>, _>>()?;
    for (mutation, action) in mutations.iter_mut().zip(&request.pessimistic_actions) {
        mutation.pessimistic = match WireAction::try_from(*action) {
            Ok(WireAction::SkipPessimisticCheck) => PessimisticAction::Skip,
            Ok(WireAction::DoPessimisticCheck) => PessimisticAction::CheckLock,
            Ok(WireAction::DoConstraintCheck) => PessimisticAction::CheckConflict,
            Err(_) => return Err(Refusal::Text(format!("there is no pessimistic action {action}"))),
        };
    }
    let count = mutations.len();
    for constraint in &request.for_update_ts_constraints {
        let Some(mutation) = mutations.get_mut(constraint.index as usize) else {
            let text = format!("a for_update_ts constraint of mutation {}; there are {count}", constraint.index);
            return Err(Refusal::Text(text));
        };
        mutation.expected_for_update_ts = Some(TimeStamp(constraint.expected_for_update_ts));
    }
    Ok(Prewrite {
        mutations,
        primary: request.primary_lock,
        start_ts: TimeStamp(request.start_version),
        ttl_ms: request.lock_ttl,
        txn_size: request.txn_size,
        min_commit_ts: TimeStamp(request.min_commit_ts),
        for_update_ts: TimeStamp(request.for_update_ts),
        assertion_level,
        use_async_commit: request.use_async_commit,
        secondaries: request.secondaries,
        try_one_pc: request.try_one_pc,
        max_commit_ts: TimeStamp(request.max_commit_ts),
    })
}

fn mutation(wire: kvrpcpb::Mutation) -> Result<Mutation, Refusal> {
    let assertion = match wire.assertion() {
        kvrpcpb::Assertion::None => Assertion::None,
        kvrpcpb::Assertion::Exist => Assertion::Exist,
        kvrpcpb::Assertion::NotExist => Assertion::NotExist,
    };
    let op = match Op::try_from(wire.op) {
        Ok(Op::Put) => MutationOp::Put(wire.value),
        Ok(Op::Del) => MutationOp::Delete,
        Ok(Op::Lock) => MutationOp::Lock,
        Ok(Op::Insert) => MutationOp::Insert(wire.value),
        Ok(Op::CheckNotExists) => MutationOp::CheckNotExists,
        _ => return Err(Refusal::Text(format!("a prewrite cannot hold a mutation of kind {}", wire.op))),
    };
    let (pessimistic, expected_for_update_ts) = (PessimisticAction::Skip, None);
    Ok(Mutation { key: wire.key, op, assertion, pessimistic, expected_for_update_ts })
}

/// A request for pessimistic locks.
pub(super) fn pessimistic_lock(request: kvrpcpb::PessimisticLockRequest) -> Result<PessimisticLock, Refusal> {
    let allow_conflict = request.wake_up_mode() == WakeUpMode::WakeUpModeForceLock;
    let key = |mutation: kvrpcpb::Mutation| match Op::try_from(mutation.op) {
        // Clients set no operation that means anything here, but one kind of them is not served.
        Ok(Op::SharedLock | Op::SharedPessimisticLock) => {
            Err(Refusal::Text("shared locks are not supported; lock the key exclusively".into()))
        }
        _ => {
            let must_not_exist = mutation.assertion() == kvrpcpb::Assertion::NotExist;
            Ok(KeyToLock { key: mutation.key, must_not_exist })
        }
    };
    Ok(PessimisticLock {
        keys: request.mutations.into_iter().map(key).collect::<Result<_, _>>()?,
        primary: request.primary_lock,
        start_ts: TimeStamp(request.start_version),
        ttl_ms: request.lock_ttl,
        for_update_ts: TimeStamp(request.for_update_ts),
        min_commit_ts: TimeStamp(request.min_commit_ts),
        return_values: request.return_values,
        check_existence: request.check_existence,
        lock_only_if_exists: request.lock_only_if_exists,
        allow_conflict,
    })
}

/// How long a request may wait for locks, and not longer than the whole request may take; `None`: not at all.
pub(super) fn lock_wait(wait_timeout_ms: i64, context: &Option<kvrpcpb::Context>) -> Option<Duration> {
    let wait = match u64::try_from(wait_timeout_ms) {
        Err(_) => return None,
        Ok(0) => LOCK_WAIT_MAX,
        Ok(timeout_ms) => Duration::from_millis(timeout_ms),
    };
    let limit_ms = context.as_ref().map_or(0, |context| context.max_execution_duration_ms);
    Some(if limit_ms == 0 { wait } else { wait.min(Duration::from_millis(limit_ms)) })
}

/// The answer for locked keys: lists in the order of the request, or empty ones.
pub(super) fn locked(command: &PessimisticLock, locked: Vec<LockedKey>) -> kvrpcpb::PessimisticLockResponse {
    let mut reply = kvrpcpb::PessimisticLockResponse::default();
    if command.allow_conflict {
        let result = |key: LockedKey| kvrpcpb::PessimisticLockKeyResult {
            r#type: match key.conflict_ts.0 {
                0 => kvrpcpb::PessimisticLockKeyResultType::LockResultNormal,
                _ => kvrpcpb::PessimisticLockKeyResultType::LockResultLockedWithConflict,
            } as i32,
            value: key.value.unwrap_or_default(),
            existence: key.exists,
            locked_with_conflict_ts: key.conflict_ts.0,
        };
        reply.results = locked.into_iter().map(result).collect();
        return reply;
    }
    if command.return_values || command.check_existence {
        reply.not_founds = locked.iter().map(|key| !key.exists).collect();
    }
    if command.return_values {
        reply.values = locked.into_iter().map(|key| key.value.unwrap_or_default()).collect();
    }
    reply
}

/// The answer about the keys of an async commit.
pub(super) fn secondaries(status: SecondaryStatus) -> kvrpcpb::CheckSecondaryLocksResponse {
    let mut reply = kvrpcpb::CheckSecondaryLocksResponse::default();
    match status {
        SecondaryStatus::Locked(locks) => reply.locks = locks.iter().map(lock_info).collect(),
        SecondaryStatus::Committed(commit_ts) => reply.commit_ts = commit_ts.0,
        SecondaryStatus::RolledBack => {}
    }
    reply
}

/// A pair of a read: the value, or the lock that blocks the read, with its key in either case.
pub(super) fn pair(pair: Pair) -> kvrpcpb::KvPair {
    let Pair { key, outcome } = pair;
    match outcome {
        Ok(version) => kvrpcpb::KvPair { key, value: version.value, commit_ts: version.commit_ts.0, error: None },
        Err(lock) => {
            let error = kvrpcpb::KeyError { locked: Some(lock_info(&lock)), ..Default::default() };
            kvrpcpb::KvPair { key, error: Some(Box::new(error)), ..Default::default() }
        }
    }
}

/// A lock, with every field: clients resolve it from this alone.
pub(super) fn lock_info(lock: &LockInfo) -> kvrpcpb::LockInfo {
    let lock_type = match lock.kind {
        LockKind::Put => Op::Put,
        LockKind::Delete => Op::Del,
        LockKind::Lock => Op::Lock,
        LockKind::Pessimistic => Op::PessimisticLock,
    };
    kvrpcpb::LockInfo {
        primary_lock: lock.primary.clone(),
        lock_version: lock.start_ts.0,
        key: lock.key.clone(),
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock_type as i32,
        lock_for_update_ts: lock.for_update_ts.0,
        use_async_commit: lock.use_async_commit,
        min_commit_ts: lock.min_commit_ts.0,
        secondaries: lock.secondaries.clone(),
    }
}

/// The answer to CheckTxnStatus. A live lock always comes with `lock_info`: one client fails without it.
pub(super) fn status(status: TxnStatus) -> kvrpcpb::CheckTxnStatusResponse {
    let action = match status.action {
        StatusAction::None => kvrpcpb::Action::NoAction,
        StatusAction::TtlExpireRollback => kvrpcpb::Action::TtlExpireRollback,
        StatusAction::LockNotExistRollback => kvrpcpb::Action::LockNotExistRollback,
        StatusAction::MinCommitTsPushed => kvrpcpb::Action::MinCommitTsPushed,
        StatusAction::TtlExpirePessimisticRollback => kvrpcpb::Action::TtlExpirePessimisticRollback,
        StatusAction::LockNotExistDoNothing => kvrpcpb::Action::LockNotExistDoNothing,
    };
    kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: status.lock_ttl_ms(),
        commit_version: status.commit_ts.0,
        action: action as i32,
        lock_info: status.lock.as_ref().map(lock_info),
        ..Default::default()
    }
}

/// A text that ends the transaction.
pub(super) fn plain_abort(text: String) -> kvrpcpb::KeyError {
    kvrpcpb::KeyError { abort: text, ..Default::default() }
}

/// A protocol error on the wire. Applications retry on the texts "write conflict" and "TxnLockNotFound", so these
/// go into `retryable` besides their own fields.
pub(super) fn key_error(error: &KeyError) -> kvrpcpb::KeyError {
    let mut wire = kvrpcpb::KeyError::default();
    match error {
        KeyError::Locked(lock) => wire.locked = Some(lock_info(lock)),
        KeyError::WriteConflict { start_ts, conflict_start_ts, conflict_commit_ts, key, primary, reason } => {
            let reason = match reason {
                ConflictReason::Optimistic => kvrpcpb::write_conflict::Reason::Optimistic,
                ConflictReason::PessimisticRetry => kvrpcpb::write_conflict::Reason::PessimisticRetry,
                ConflictReason::SelfRolledBack => kvrpcpb::write_conflict::Reason::SelfRolledBack,
            };
            wire.retryable = error.to_string();
            wire.conflict = Some(kvrpcpb::WriteConflict {
                start_ts: start_ts.0,
                conflict_ts: conflict_start_ts.0,
                key: key.clone(),
                primary: primary.clone(),
                conflict_commit_ts: conflict_commit_ts.0,
                reason: reason as i32,
            });
        }
        KeyError::AlreadyExist { key } => wire.already_exist = Some(kvrpcpb::AlreadyExist { key: key.clone() }),
        KeyError::TxnNotFound { start_ts, primary } => {
            wire.txn_not_found = Some(kvrpcpb::TxnNotFound { start_ts: start_ts.0, primary_key: primary.clone() });
        }
        KeyError::TxnLockNotFound { key, .. } => {
            wire.retryable = error.to_string();
            wire.txn_lock_not_found = Some(kvrpcpb::TxnLockNotFound { key: key.clone() });
        }
        KeyError::CommitTsExpired { start_ts, attempted_commit_ts, key, min_commit_ts } => {
            wire.commit_ts_expired = Some(kvrpcpb::CommitTsExpired {
                start_ts: start_ts.0,
                attempted_commit_ts: attempted_commit_ts.0,
                key: key.clone(),
                min_commit_ts: min_commit_ts.0,
            });
        }
        KeyError::PrimaryMismatch(lock) => {
            wire.primary_mismatch = Some(kvrpcpb::PrimaryMismatch { lock_info: Some(lock_info(lock)) });
        }
        KeyError::AssertionFailed { start_ts, key, assertion, existing_start_ts, existing_commit_ts } => {
            let assertion = match assertion {
                Assertion::None => kvrpcpb::Assertion::None,
                Assertion::Exist => kvrpcpb::Assertion::Exist,
                Assertion::NotExist => kvrpcpb::Assertion::NotExist,
            };
            wire.assertion_failed = Some(kvrpcpb::AssertionFailed {
                start_ts: start_ts.0,
                key: key.clone(),
                assertion: assertion as i32,
                existing_start_ts: existing_start_ts.0,
                existing_commit_ts: existing_commit_ts.0,
            });
        }
        KeyError::Deadlock { waits_for, key, wait_chain } => {
            wire.deadlock = Some(deadlock(*waits_for, key, wait_chain))
        }
        // Everything else ends the transaction.
        other => wire.abort = other.to_string(),
    }
    wire
}

fn deadlock(waits_for: TimeStamp, key: &Bytes, wait_chain: &[WaitFor]) -> kvrpcpb::Deadlock {
    let entry = |wait: &WaitFor| kvrpcpb::WaitForEntry {
        txn: wait.waiter.0,
        wait_for_txn: wait.holder.0,
        key: wait.key.clone(),
        ..Default::default()
    };
    kvrpcpb::Deadlock {
        lock_ts: waits_for.0,
        lock_key: key.clone(),
        wait_chain: wait_chain.iter().map(entry).collect(),
        ..Default::default()
    }
}
