//! Over one node that holds everything, called without a network.

use super::*;
use crate::kv::Kv;
use crate::kv::fake::{FakeNode, LEFT, RIGHT, SPLIT, context};
use kontiki_proto::calls::KvCall;
use kontiki_proto::kvrpcpb::{GetRequest, Mutation, Op, PessimisticLockRequest, PrewriteRequest};
use prost::Message;

const START: u64 = 100_000 << 18;
const LONG_AFTER: TimeStamp = TimeStamp(200_000 << 18);
/// Above every commit timestamp that is computed here.
const LATER: u64 = LONG_AFTER.0 + (1_000 << 18);
/// Before the time to live has ended.
const SOON: TimeStamp = TimeStamp(101_000 << 18);

#[derive(Clone)]
struct OneStore(Kv<FakeNode>);

fn region_of(key: &[u8]) -> u64 {
    if key < SPLIT { LEFT } else { RIGHT }
}

impl Stores for OneStore {
    async fn call<C: KvCall>(&self, key: &[u8], mut request: C::Request) -> Result<C::Reply, CallError> {
        *C::context(&mut request) = context(region_of(key)).expect("it is one");
        let bytes = request.encode_to_vec();
        let reply = match C::PATH {
            "/tikvpb.Tikv/KvCheckTxnStatus" => {
                let request = CheckTxnStatusRequest::decode(bytes.as_slice()).expect("of that type");
                self.0.check_txn_status(request).await.encode_to_vec()
            }
            "/tikvpb.Tikv/KvCheckSecondaryLocks" => {
                let request = CheckSecondaryLocksRequest::decode(bytes.as_slice()).expect("of that type");
                self.0.check_secondary_locks(request).await.encode_to_vec()
            }
            "/tikvpb.Tikv/KvResolveLock" => {
                let request = ResolveLockRequest::decode(bytes.as_slice()).expect("of that type");
                self.0.resolve_lock(request).await.encode_to_vec()
            }
            "/tikvpb.Tikv/KVPessimisticRollback" => {
                let request = PessimisticRollbackRequest::decode(bytes.as_slice()).expect("of that type");
                self.0.pessimistic_rollback(request).await.encode_to_vec()
            }
            other => panic!("the resolver has no use for {other}"),
        };
        let mut reply = C::Reply::decode(reply.as_slice()).expect("of that type");
        match C::take_region_error(&mut reply) {
            Some(error) => Err(CallError::Region { region: region_of(key), error: error.message }),
            None => Ok(reply),
        }
    }

    async fn by_region(&self, keys: &[Bytes]) -> Result<Vec<Vec<Bytes>>, CallError> {
        let (left, right): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| region_of(key) == LEFT);
        Ok([left, right].into_iter().filter(|keys| !keys.is_empty()).collect())
    }
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn store() -> OneStore {
    let node = FakeNode::new();
    node.state.lock().oracle = LONG_AFTER.0;
    OneStore(node.kv())
}

impl OneStore {
    /// What a client does before it stops: prewrites `key`; the transaction's primary is `a`.
    async fn prewrite(&self, key: &'static str, secondaries: &[&'static str], use_async_commit: bool) {
        let request = PrewriteRequest {
            context: context(region_of(key.as_bytes())),
            mutations: vec![Mutation { op: Op::Put as i32, key: b(key), value: b("v"), ..Default::default() }],
            primary_lock: b("a"),
            start_version: START,
            lock_ttl: 3_000,
            use_async_commit,
            secondaries: secondaries.iter().map(|key| b(key)).collect(),
            ..Default::default()
        };
        let reply = self.0.prewrite(request).await;
        assert!(reply.errors.is_empty() && reply.region_error.is_none(), "{reply:?}");
    }

    async fn resolve(&self, key: &'static str, now: TimeStamp) -> Resolution {
        self.resolve_of_kind(key, LockKind::Put, now).await
    }

    async fn resolve_of_kind(&self, key: &'static str, kind: LockKind, now: TimeStamp) -> Resolution {
        let lock = Lock {
            kind,
            start_ts: TimeStamp(START),
            primary: b("a"),
            ttl_ms: 3_000,
            short_value: None,
            for_update_ts: if kind == LockKind::Pessimistic { TimeStamp(START) } else { TimeStamp::ZERO },
            min_commit_ts: TimeStamp::ZERO,
            txn_size: 0,
            use_async_commit: false,
            secondaries: Vec::new(),
        };
        resolve(self, &b(key), &lock, now).await.unwrap()
    }

    /// `None`: it is locked.
    async fn read(&self, key: &'static str) -> Option<Bytes> {
        let context = context(region_of(key.as_bytes()));
        let request = GetRequest { context, key: b(key), version: LATER, ..Default::default() };
        let reply = self.0.get(request).await;
        assert!(reply.region_error.is_none(), "{reply:?}");
        reply.error.is_none().then_some(reply.value)
    }
}

#[tokio::test]
async fn an_async_commit_with_all_keys_is_committed() {
    let store = store();
    store.prewrite("a", &["b", "z"], true).await;
    store.prewrite("b", &[], true).await;
    store.prewrite("z", &[], true).await;
    assert_eq!(store.resolve("z", SOON).await, Resolution::Lives);
    assert_eq!(store.read("z").await, None);
    assert_eq!(store.resolve("z", LONG_AFTER).await, Resolution::Finished);
    for key in ["a", "b", "z"] {
        assert_eq!(store.read(key).await, Some(b("v")), "{key}");
    }
}

#[tokio::test]
async fn an_async_commit_that_lacks_a_key_is_rolled_back() {
    let store = store();
    store.prewrite("a", &["b", "z"], true).await;
    store.prewrite("b", &[], true).await;
    assert_eq!(store.resolve("a", LONG_AFTER).await, Resolution::Finished);
    for key in ["a", "b", "z"] {
        assert_eq!(store.read(key).await, Some(Bytes::new()), "{key}");
    }
}

#[tokio::test]
async fn one_with_an_ordinary_lock_is_decided_by_its_primary() {
    let store = store();
    store.prewrite("a", &["b"], true).await;
    store.prewrite("b", &[], false).await;
    assert_eq!(store.resolve("b", LONG_AFTER).await, Resolution::Finished);
    assert_eq!(store.resolve("a", LONG_AFTER).await, Resolution::Finished);
    assert_eq!((store.read("a").await, store.read("b").await), (Some(Bytes::new()), Some(Bytes::new())));
}

#[tokio::test]
async fn a_lock_follows_its_primary() {
    let store = store();
    store.prewrite("b", &[], false).await;
    assert_eq!(store.resolve("b", SOON).await, Resolution::Finished, "there never was a primary");
    assert_eq!(store.read("b").await, Some(Bytes::new()));
    let store = self::store();
    store.prewrite("a", &[], false).await;
    store.prewrite("z", &[], false).await;
    assert_eq!(store.resolve("z", SOON).await, Resolution::Lives);
    assert_eq!(store.resolve("z", LONG_AFTER).await, Resolution::Finished);
    assert_eq!(store.read("z").await, Some(Bytes::new()));
}

#[tokio::test]
async fn a_pessimistic_lock_whose_transaction_is_gone_is_dropped() {
    let store = store();
    let request = |start_version| PessimisticLockRequest {
        context: context(LEFT),
        mutations: vec![Mutation { op: Op::PessimisticLock as i32, key: b("b"), ..Default::default() }],
        primary_lock: b("a"),
        start_version,
        for_update_ts: start_version,
        lock_ttl: 3_000,
        wait_timeout: -1,
        ..Default::default()
    };
    assert!(store.0.pessimistic_lock(request(START)).await.errors.is_empty());
    assert!(!store.0.pessimistic_lock(request(START + 1)).await.errors.is_empty(), "it is locked");
    let resolution = store.resolve_of_kind("b", LockKind::Pessimistic, LONG_AFTER).await;
    assert_eq!(resolution, Resolution::Finished);
    store.prewrite("b", &[], false).await;
    assert_eq!(store.resolve("b", LONG_AFTER).await, Resolution::Finished);
    assert!(store.0.pessimistic_lock(request(START + 1)).await.errors.is_empty());
}
