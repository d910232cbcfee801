//! Between the wire's transactional messages and the commands and answers of `txn`.

use super::Refusal;
use kontiki_proto::kvrpcpb::{self, Op};
use kontiki_txn::{
    Assertion, AssertionLevel, ConflictReason, KeyError, LockInfo, LockKind, Mutation, MutationOp, Pair, Prewrite,
    StatusAction, TimeStamp, TxnStatus,
};

/// A prewrite command; the text of the refusal names what is not supported.
pub(super) fn prewrite(request: kvrpcpb::PrewriteRequest) -> Result<Prewrite, Refusal> {
    // The protocol permits declining these by returning no timestamp. But a known client treats the decline of an async
    // commit as success, and reports a commit that never happens: an error is the only answer that it understands.
    if request.use_async_commit || request.try_one_pc {
        let text = "async commit and one-phase commit are not supported yet; commit in two phases";
        return Err(Refusal::Text(text.into()));
    }
    let assertion_level = match request.assertion_level() {
        kvrpcpb::AssertionLevel::Off => AssertionLevel::Off,
        kvrpcpb::AssertionLevel::Fast => AssertionLevel::Fast,
        kvrpcpb::AssertionLevel::Strict => AssertionLevel::Strict,
    };
    let mutations = request.mutations.into_iter().map(mutation).collect::<Result<_, _>>()?;
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
        try_one_pc: request.try_one_pc,
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
    Ok(Mutation { key: wire.key, op, assertion })
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
        // Everything else ends the transaction.
        other => wire.abort = other.to_string(),
    }
    wire
}
