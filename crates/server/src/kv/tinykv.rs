//! TinyKV's calls, by way of TiKV's: requests and answers are converted where they differ.
//!
//! TinyKV's key errors have four kinds: locked, retryable, abort and conflict. Its clients would read an error of
//! another kind as none, so those become one of the four, with the text of the original.

use super::{Kv, answer};
use crate::api::Node;
use kontiki_proto::{errorpb, kvrpcpb, tinykvpb};

/// A request failed, and would fail again; the text says why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Final(pub String);

impl<N: Node> Kv<N> {
    /// KvGet.
    pub async fn tinykv_get(&self, request: kvrpcpb::GetRequest) -> kvrpcpb::GetResponse {
        let mut reply = self.get(request).await;
        reply.error = reply.error.map(key_error);
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// KvScan. There the answer has no error but those of pairs.
    pub async fn tinykv_scan(&self, request: kvrpcpb::ScanRequest) -> kvrpcpb::ScanResponse {
        let mut reply = self.scan(request).await;
        reply.region_error = reply.region_error.map(region_error);
        if let Some(error) = reply.error.take() {
            reply.pairs = vec![kvrpcpb::KvPair { error: Some(Box::new(error)), ..Default::default() }];
        }
        for pair in &mut reply.pairs {
            pair.error = pair.error.take().map(|error| Box::new(key_error(*error)));
        }
        reply
    }

    /// KvPrewrite.
    pub async fn tinykv_prewrite(&self, request: tinykvpb::PrewriteRequest) -> kvrpcpb::PrewriteResponse {
        let mut reply = match prewrite(request) {
            Ok(request) => self.prewrite(request).await,
            Err(abort) => {
                let errors = vec![kvrpcpb::KeyError { abort, ..Default::default() }];
                kvrpcpb::PrewriteResponse { errors, ..Default::default() }
            }
        };
        reply.errors = reply.errors.into_iter().map(key_error).collect();
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// KvCommit.
    pub async fn tinykv_commit(&self, request: kvrpcpb::CommitRequest) -> kvrpcpb::CommitResponse {
        let mut reply = self.commit(request).await;
        reply.error = reply.error.map(key_error);
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// KvBatchRollback.
    pub async fn tinykv_batch_rollback(
        &self,
        request: kvrpcpb::BatchRollbackRequest,
    ) -> kvrpcpb::BatchRollbackResponse {
        let mut reply = self.batch_rollback(request).await;
        reply.error = reply.error.map(key_error);
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// KvResolveLock.
    pub async fn tinykv_resolve_lock(&self, request: kvrpcpb::ResolveLockRequest) -> kvrpcpb::ResolveLockResponse {
        let mut reply = self.resolve_lock(request).await;
        reply.error = reply.error.map(key_error);
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// KvCheckTxnStatus: without a lock or a record of the transaction, it is rolled back. There the answer has no
    /// place for an error about the key: one that passes goes to the region error, whose clients try again; one that
    /// stays is the error of the call, since they would try again for ever.
    pub async fn tinykv_check_txn_status(
        &self,
        request: tinykvpb::CheckTxnStatusRequest,
    ) -> Result<tinykvpb::CheckTxnStatusResponse, Final> {
        let tinykvpb::CheckTxnStatusRequest { context, primary_key, lock_ts, current_ts } = request;
        let request = kvrpcpb::CheckTxnStatusRequest {
            context,
            primary_key,
            lock_ts,
            current_ts,
            rollback_if_not_exist: true,
            ..Default::default()
        };
        let kvrpcpb::CheckTxnStatusResponse {
            region_error: at_region, error, lock_ttl, commit_version, action, ..
        } = self.check_txn_status(request).await;
        let of_key = error.map(passing).transpose()?;
        let region_error = at_region.map(region_error).or(of_key);
        Ok(tinykvpb::CheckTxnStatusResponse { region_error, lock_ttl, commit_version, action })
    }

    /// RawGet.
    pub async fn tinykv_raw_get(&self, request: kvrpcpb::RawGetRequest) -> kvrpcpb::RawGetResponse {
        let mut reply = self.raw_get(request).await;
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// RawPut.
    pub async fn tinykv_raw_put(&self, request: kvrpcpb::RawPutRequest) -> kvrpcpb::RawPutResponse {
        let mut reply = self.raw_put(request).await;
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// RawDelete.
    pub async fn tinykv_raw_delete(&self, request: kvrpcpb::RawDeleteRequest) -> kvrpcpb::RawDeleteResponse {
        let mut reply = self.raw_delete(request).await;
        reply.region_error = reply.region_error.map(region_error);
        reply
    }

    /// RawScan.
    pub async fn tinykv_raw_scan(&self, request: tinykvpb::RawScanRequest) -> tinykvpb::RawScanResponse {
        let tinykvpb::RawScanRequest { context, start_key, limit, cf } = request;
        let request = kvrpcpb::RawScanRequest { context, start_key, limit, cf, ..Default::default() };
        let kvrpcpb::RawScanResponse { region_error: at_region, mut kvs } = self.raw_scan(request).await;
        let refused = kvs.iter().find_map(|pair| pair.error.as_deref());
        let error = refused.map(in_words).unwrap_or_default();
        if !error.is_empty() {
            kvs.clear();
        }
        tinykvpb::RawScanResponse { region_error: at_region.map(region_error), error, kvs }
    }
}

/// The same request with TiKV's numbers of operations; the text of the refusal names an unknown one.
fn prewrite(request: tinykvpb::PrewriteRequest) -> Result<kvrpcpb::PrewriteRequest, String> {
    let tinykvpb::PrewriteRequest { context, mutations, primary_lock, start_version, lock_ttl } = request;
    let mutation = |mutation: tinykvpb::Mutation| {
        let op = match tinykvpb::Op::try_from(mutation.op) {
            Ok(tinykvpb::Op::Put) => kvrpcpb::Op::Put,
            Ok(tinykvpb::Op::Del) => kvrpcpb::Op::Del,
            Ok(tinykvpb::Op::Lock) => kvrpcpb::Op::Lock,
            Ok(tinykvpb::Op::Rollback) | Err(_) => {
                return Err(format!("a prewrite cannot hold a mutation of kind {}", mutation.op));
            }
        };
        let (key, value) = (mutation.key, mutation.value);
        Ok(kvrpcpb::Mutation { op: op as i32, key, value, ..Default::default() })
    };
    let mutations = mutations.into_iter().map(mutation).collect::<Result<_, _>>()?;
    Ok(kvrpcpb::PrewriteRequest { context, mutations, primary_lock, start_version, lock_ttl, ..Default::default() })
}

/// The error of a region with the text of an error about a key, if the same request may succeed later.
fn passing(error: kvrpcpb::KeyError) -> Result<errorpb::Error, Final> {
    let text = in_words(&error);
    match key_error(error).abort.is_empty() {
        true => Ok(answer::with(text)),
        false => Err(Final(text)),
    }
}

/// One of the four kinds. A transaction that was rolled back, or that needs a higher commit timestamp, can be repeated;
/// anything else is its end.
fn key_error(error: kvrpcpb::KeyError) -> kvrpcpb::KeyError {
    let kvrpcpb::KeyError { locked, retryable, abort, conflict, .. } = &error;
    let (locked, conflict) = (locked.clone(), conflict.clone());
    if locked.is_some() || conflict.is_some() {
        return kvrpcpb::KeyError { locked, conflict, ..Default::default() };
    }
    if !abort.is_empty() {
        return kvrpcpb::KeyError { abort: abort.clone(), ..Default::default() };
    }
    let is_retryable = !retryable.is_empty()
        || error.commit_ts_expired.is_some()
        || error.txn_not_found.is_some()
        || error.txn_lock_not_found.is_some();
    match is_retryable {
        // Applications match its text.
        true if !retryable.is_empty() => kvrpcpb::KeyError { retryable: retryable.clone(), ..Default::default() },
        true => kvrpcpb::KeyError { retryable: in_words(&error), ..Default::default() },
        false => kvrpcpb::KeyError { abort: in_words(&error), ..Default::default() },
    }
}

/// What an error says, for people.
fn in_words(error: &kvrpcpb::KeyError) -> String {
    if let Some(error) = &error.commit_ts_expired {
        let (at, least) = (error.attempted_commit_ts, error.min_commit_ts);
        return format!("commit timestamp {at} is below the lowest that is possible now, {least}");
    }
    if let Some(error) = &error.txn_not_found {
        return format!("transaction {} has neither a lock nor a record on its primary key", error.start_ts);
    }
    if let Some(error) = &error.already_exist {
        return format!("the key {} exists already", error.key.escape_ascii());
    }
    if let Some(error) = &error.txn_lock_not_found {
        return format!("the key {} is not locked by the transaction any more", error.key.escape_ascii());
    }
    if let Some(error) = &error.deadlock {
        return format!("a deadlock on the key {} with transaction {}", error.lock_key.escape_ascii(), error.lock_ts);
    }
    if let Some(error) = &error.assertion_failed {
        return format!("an assertion about the key {} failed", error.key.escape_ascii());
    }
    if let Some(lock) = error.primary_mismatch.as_ref().and_then(|error| error.lock_info.as_ref()) {
        return format!("the primary key of the transaction is {}", lock.primary_lock.escape_ascii());
    }
    if let Some(lock) = &error.locked {
        return format!("the key {} is locked by transaction {}", lock.key.escape_ascii(), lock.lock_version);
    }
    let texts = [&error.abort, &error.retryable];
    let text = texts.into_iter().find(|text| !text.is_empty());
    text.cloned().unwrap_or_else(|| "the transaction cannot go on".into())
}

/// Kinds that TinyKV does not know are ignored there: the text says what it is about.
fn region_error(mut error: errorpb::Error) -> errorpb::Error {
    if let Some(busy) = error.server_is_busy.take()
        && error.message.is_empty()
    {
        error.message = busy.reason;
    }
    if error.message.is_empty() {
        error.message = "the region cannot serve the request at the moment".into();
    }
    error
}

#[cfg(test)]
#[path = "tinykv_test.rs"]
mod tests;
