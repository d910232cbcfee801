//! The mock's key-value calls: checks as a store makes them, then the data.

use super::{Fault, Shared, State, encode};
use bytes::Bytes;
use kontiki_proto::errorpb;
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::tikvpb::tikv_server::Tikv;
use kontiki_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub struct Node {
    pub store: u64,
    pub state: Shared,
}

/// The positions of a request's keys in the region table. The last one may be an exclusive end.
enum Positions {
    Keys(Vec<Bytes>),
    Range { lower: Bytes, upper: Bytes },
}

fn raw(keys: impl IntoIterator<Item = Bytes>) -> Positions {
    Positions::Keys(keys.into_iter().collect())
}

fn txn(keys: impl IntoIterator<Item = Bytes>) -> Positions {
    Positions::Keys(keys.into_iter().map(encoded).collect())
}

fn encoded(key: Bytes) -> Bytes {
    encode(std::str::from_utf8(&key).unwrap())
}

fn bound(key: Bytes) -> Bytes {
    if key.is_empty() { key } else { encoded(key) }
}

impl Node {
    fn check(&self, state: &State, context: &Context, positions: &Positions) -> Result<(), errorpb::Error> {
        let error = |message: &str| errorpb::Error { message: message.to_string(), ..Default::default() };
        let Some(region) = state.regions.iter().find(|region| region.id == context.region_id) else {
            let missing = errorpb::RegionNotFound { region_id: context.region_id };
            return Err(errorpb::Error { region_not_found: Some(missing), ..error("region not found") });
        };
        if region.leader != self.store && !context.replica_read && !context.stale_read {
            let not_leader = errorpb::NotLeader { region_id: region.id, leader: Some(region.peer(region.leader)) };
            return Err(errorpb::Error { not_leader: Some(not_leader), ..error("not leader") });
        }
        if context.region_epoch != region.meta().region_epoch {
            let current_regions = state.regions.iter().map(super::MockRegion::meta).collect();
            let mismatch = errorpb::EpochNotMatch { current_regions };
            return Err(errorpb::Error { epoch_not_match: Some(mismatch), ..error("epoch not match") });
        }
        let inside = match positions {
            Positions::Keys(keys) => keys.iter().all(|key| region.contains(key)),
            Positions::Range { lower, upper } => {
                let upper_fits = region.end.is_empty() || (!upper.is_empty() && *upper <= region.end);
                region.contains(lower) && upper_fits
            }
        };
        if inside { Ok(()) } else { Err(error("the request reaches beyond its region")) }
    }

    fn handle<A>(
        &self,
        call: &'static str,
        (context, version): (Option<Context>, u64),
        positions: Positions,
        refuse: impl FnOnce(errorpb::Error) -> A,
        work: impl FnOnce(&mut State) -> A,
    ) -> Result<Response<A>, Status> {
        let mut state = self.state.lock();
        state.calls.push((call, self.store));
        match state.take_fault(call, |fault| !loses_answer(fault)) {
            Some(Fault::Region(error)) => return Ok(Response::new(refuse(error))),
            Some(Fault::Status(code)) => return Err(Status::new(code, "planned")),
            _ => {}
        }
        let context = context.unwrap_or_default();
        if let Err(error) = self.check(&state, &context, &positions) {
            return Ok(Response::new(refuse(error)));
        }
        let safe_ts = state.safe_ts.get(&self.store).copied().unwrap_or(0);
        if context.stale_read && version > safe_ts {
            let not_ready = errorpb::DataIsNotReady { region_id: context.region_id, safe_ts, ..Default::default() };
            return Ok(Response::new(refuse(errorpb::Error {
                data_is_not_ready: Some(not_ready),
                ..Default::default()
            })));
        }
        // Only the answer of an executed request can be lost.
        let lost = state.take_fault(call, loses_answer);
        let answer = work(&mut state);
        if let Some(Fault::LoseAnswerAndSplit(position)) = &lost {
            state.split(position.clone());
        }
        match lost {
            Some(_) => Err(Status::unavailable("the answer is lost")),
            None => Ok(Response::new(answer)),
        }
    }
}

fn loses_answer(fault: &Fault) -> bool {
    matches!(fault, Fault::LoseAnswer | Fault::LoseAnswerAndSplit(_))
}

/// Raw answers carry an error in a pair only.
fn raw_pairs(state: &State, pairs: Vec<KvPair>) -> Vec<KvPair> {
    let refused = |error| vec![KvPair { error: Some(Box::new(error)), ..Default::default() }];
    state.fitting(pairs).unwrap_or_else(refused)
}

macro_rules! calls {
    ($($method:ident($name:literal, $request:ident -> $reply:ident, |$state:ident, $q:ident| $positions:expr $(; $version:expr)?, $work:expr))*) => {
        #[tonic::async_trait]
        impl Tikv for Node {
            type BatchCommandsStream = futures::stream::Empty<Result<BatchCommandsResponse, Status>>;

            async fn batch_commands(
                &self,
                _: Request<Streaming<BatchCommandsRequest>>,
            ) -> Result<Response<Self::BatchCommandsStream>, Status> {
                Err(Status::unimplemented("the client sends each call alone"))
            }

            async fn get_store_safe_ts(
                &self,
                _: Request<StoreSafeTsRequest>,
            ) -> Result<Response<StoreSafeTsResponse>, Status> {
                Err(Status::unimplemented("the client asks for reads, not for timestamps"))
            }

            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
                let $q = request.into_inner();
                let refuse = |error| $reply { region_error: Some(error), ..Default::default() };
                let version = 0 $(+ $version)?;
                #[allow(unused_variables)] // not every call looks at the state
                self.handle($name, ($q.context.clone(), version), $positions, refuse, |$state| $work)
            })*
        }
    };
}

calls! {
    raw_get("RawGet", RawGetRequest -> RawGetResponse, |state, q| raw([q.key.clone()]), {
        let value = state.raw.get(&q.key).cloned();
        RawGetResponse { not_found: value.is_none(), value: value.unwrap_or_default(), ..Default::default() }
    })
    raw_put("RawPut", RawPutRequest -> RawPutResponse, |state, q| raw([q.key.clone()]), {
        let error = state.fails_if_done.clone().filter(|_| state.raw.get(&q.key) == Some(&q.value));
        state.ttls.insert(q.key.clone(), q.ttl);
        state.atomic_writes += usize::from(q.for_cas);
        state.raw.insert(q.key, q.value);
        RawPutResponse { error: error.unwrap_or_default(), ..Default::default() }
    })
    raw_delete("RawDelete", RawDeleteRequest -> RawDeleteResponse, |state, q| raw([q.key.clone()]), {
        state.atomic_writes += usize::from(q.for_cas);
        state.raw.remove(&q.key);
        RawDeleteResponse::default()
    })
    raw_batch_get("RawBatchGet", RawBatchGetRequest -> RawBatchGetResponse, |state, q| raw(q.keys.clone()), {
        let pair = |key: Bytes| Some(KvPair { value: state.raw.get(&key)?.clone(), key, ..Default::default() });
        RawBatchGetResponse { pairs: raw_pairs(state, q.keys.into_iter().filter_map(pair).collect()), ..Default::default() }
    })
    raw_batch_put("RawBatchPut", RawBatchPutRequest -> RawBatchPutResponse,
        |state, q| raw(q.pairs.iter().map(|pair| pair.key.clone())), {
        state.atomic_writes += usize::from(q.for_cas);
        state.raw.extend(q.pairs.into_iter().map(|pair| (pair.key, pair.value)));
        RawBatchPutResponse::default()
    })
    raw_batch_delete("RawBatchDelete", RawBatchDeleteRequest -> RawBatchDeleteResponse, |state, q| raw(q.keys.clone()), {
        state.atomic_writes += usize::from(q.for_cas);
        state.raw.retain(|key, _| !q.keys.contains(key));
        RawBatchDeleteResponse::default()
    })
    raw_scan("RawScan", RawScanRequest -> RawScanResponse, |state, q| match q.reverse {
        false => Positions::Range { lower: q.start_key.clone(), upper: q.end_key.clone() },
        true => Positions::Range { lower: q.end_key.clone(), upper: q.start_key.clone() },
    }, RawScanResponse { kvs: raw_pairs(state, state.raw_scan(&q)), ..Default::default() })
    raw_delete_range("RawDeleteRange", RawDeleteRangeRequest -> RawDeleteRangeResponse,
        |state, q| Positions::Range { lower: q.start_key.clone(), upper: q.end_key.clone() }, {
        state.raw.retain(|key, _| *key < q.start_key || (!q.end_key.is_empty() && *key >= q.end_key));
        RawDeleteRangeResponse::default()
    })
    raw_batch_scan("RawBatchScan", RawBatchScanRequest -> RawBatchScanResponse, |state, q| raw([]), {
        RawBatchScanResponse::default()
    })
    raw_get_key_ttl("RawGetKeyTTL", RawGetKeyTtlRequest -> RawGetKeyTtlResponse, |state, q| raw([q.key.clone()]), {
        let ttl = state.ttls.get(&q.key).copied().unwrap_or(0);
        RawGetKeyTtlResponse { not_found: !state.raw.contains_key(&q.key), ttl, ..Default::default() }
    })
    raw_compare_and_swap("RawCompareAndSwap", RawCasRequest -> RawCasResponse, |state, q| raw([q.key.clone()]), {
        let previous = state.raw.get(&q.key).cloned();
        let succeed = previous == (!q.previous_not_exist).then_some(q.previous_value);
        if succeed {
            state.raw.insert(q.key, q.value);
        }
        let (previous_not_exist, previous_value) = (previous.is_none(), previous.unwrap_or_default());
        RawCasResponse { succeed, previous_not_exist, previous_value, ..Default::default() }
    })
    raw_checksum("RawChecksum", RawChecksumRequest -> RawChecksumResponse, |state, q| raw([]), {
        RawChecksumResponse::default()
    })
    raw_coprocessor("RawCoprocessor", RawCoprocessorRequest -> RawCoprocessorResponse, |state, q| raw([]), {
        RawCoprocessorResponse::default()
    })
    kv_delete_range("KvDeleteRange", DeleteRangeRequest -> DeleteRangeResponse, |state, q| txn([]), {
        DeleteRangeResponse::default()
    })
    unsafe_destroy_range("UnsafeDestroyRange", UnsafeDestroyRangeRequest -> UnsafeDestroyRangeResponse,
        |state, q| txn([]), UnsafeDestroyRangeResponse::default())
    kv_get("KvGet", GetRequest -> GetResponse, |state, q| txn([q.key.clone()]); q.version, {
        match state.read(&q.key, q.version, &q.context.clone().unwrap_or_default()) {
            Ok(Some(value)) => GetResponse { value, ..Default::default() },
            Ok(None) => GetResponse { not_found: true, ..Default::default() },
            Err(error) => GetResponse { error: Some(error), ..Default::default() },
        }
    })
    kv_batch_get("KvBatchGet", BatchGetRequest -> BatchGetResponse, |state, q| txn(q.keys.clone()); q.version, {
        let context = q.context.clone().unwrap_or_default();
        let pair = |key: Bytes| match state.read(&key, q.version, &context) {
            Ok(value) => value.map(|value| KvPair { key, value, ..Default::default() }),
            Err(error) => Some(KvPair { error: Some(Box::new(error)), ..Default::default() }),
        };
        match state.fitting(q.keys.into_iter().filter_map(pair).collect()) {
            Ok(pairs) => BatchGetResponse { pairs, ..Default::default() },
            Err(error) => BatchGetResponse { error: Some(error), ..Default::default() },
        }
    })
    kv_scan("KvScan", ScanRequest -> ScanResponse, |state, q| match q.reverse {
        false => Positions::Range { lower: bound(q.start_key.clone()), upper: bound(q.end_key.clone()) },
        true => Positions::Range { lower: bound(q.end_key.clone()), upper: bound(q.start_key.clone()) },
    }; q.version, match state.fitting(state.scan(&q)) {
        Ok(pairs) => ScanResponse { pairs, ..Default::default() },
        Err(error) => ScanResponse { error: Some(error), ..Default::default() },
    })
    kv_prewrite("KvPrewrite", PrewriteRequest -> PrewriteResponse,
        |state, q| txn(q.mutations.iter().map(|mutation| mutation.key.clone())),
        state.prewrite(&q))
    kv_commit("KvCommit", CommitRequest -> CommitResponse, |state, q| txn(q.keys.clone()),
        CommitResponse { error: state.commit(&q), commit_version: q.commit_version, ..Default::default() })
    kv_batch_rollback("KvBatchRollback", BatchRollbackRequest -> BatchRollbackResponse, |state, q| txn(q.keys.clone()),
        BatchRollbackResponse { error: state.rollback(&q), ..Default::default() })
    kv_check_txn_status("KvCheckTxnStatus", CheckTxnStatusRequest -> CheckTxnStatusResponse,
        |state, q| txn([q.primary_key.clone()]), state.check_txn_status(&q))
    kv_resolve_lock("KvResolveLock", ResolveLockRequest -> ResolveLockResponse, |state, q| txn(q.keys.clone()), {
        state.resolve(&q);
        ResolveLockResponse::default()
    })
    kv_check_secondary_locks("KvCheckSecondaryLocks", CheckSecondaryLocksRequest -> CheckSecondaryLocksResponse,
        |state, q| txn(q.keys.clone()), state.check_secondary_locks(&q))
    kv_pessimistic_lock("KvPessimisticLock", PessimisticLockRequest -> PessimisticLockResponse,
        |state, q| txn(q.mutations.iter().map(|mutation| mutation.key.clone())), state.pessimistic_lock(&q))
    kv_pessimistic_rollback("KVPessimisticRollback", PessimisticRollbackRequest -> PessimisticRollbackResponse,
        |state, q| txn(q.keys.clone()), {
        state.pessimistic_rollback(&q);
        PessimisticRollbackResponse::default()
    })
    kv_cleanup("KvCleanup", CleanupRequest -> CleanupResponse, |state, q| txn([]), CleanupResponse::default())
    kv_txn_heart_beat("KvTxnHeartBeat", TxnHeartBeatRequest -> TxnHeartBeatResponse,
        |state, q| txn([q.primary_lock.clone()]), state.heart_beat(&q))
    kv_scan_lock("KvScanLock", ScanLockRequest -> ScanLockResponse, |state, q| txn([]), ScanLockResponse::default())
    split_region("SplitRegion", SplitRegionRequest -> SplitRegionResponse, |state, q| txn(q.split_keys.clone()), {
        state.split_keys.extend(q.split_keys);
        SplitRegionResponse::default()
    })
}
