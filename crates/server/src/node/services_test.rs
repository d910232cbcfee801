//! The services beside TiKV's own, over sockets: what clients of TinyKV, of etcd and of keyspaces call, and what all
//! services have in common.

use super::cluster_test::{DEADLINE, free_addresses, start};
use super::tests::{Client, try_page, with_node};
use super::*;
use kontiki_proto::etcdserverpb::cluster_client::ClusterClient;
use kontiki_proto::etcdserverpb::kv_client::KvClient;
use kontiki_proto::etcdserverpb::{MemberListRequest, RangeRequest};
use kontiki_proto::keyspacepb::keyspace_client::KeyspaceClient;
use kontiki_proto::keyspacepb::{CreateKeyspaceRequest, KeyspaceMeta, LoadKeyspaceRequest};
use kontiki_proto::kvrpcpb::*;
use kontiki_proto::schedulerpb::scheduler_client::SchedulerClient;
use kontiki_proto::tinykvpb::tiny_kv_client::TinyKvClient;
use kontiki_proto::{pdpb, tinykvpb};
use std::time::Duration;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};

async fn timestamp(scheduler: &mut SchedulerClient<Channel>) -> u64 {
    let request = pdpb::TsoRequest { count: 1, ..Default::default() };
    let mut answers = scheduler.tso(futures::stream::iter([request])).await.unwrap().into_inner();
    let found = answers.message().await.unwrap().unwrap().timestamp.unwrap();
    ((found.physical as u64) << 18) + found.logical as u64
}

/// As a program does that was written for TinyKV: the scheduler's calls first, then a transaction.
#[test]
fn a_client_of_tinykv_finds_a_region_and_commits() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut scheduler = SchedulerClient::new(client.channel.clone());
        let mut kv = TinyKvClient::new(client.channel);
        let members = scheduler.get_members(pdpb::GetMembersRequest::default()).await.unwrap().into_inner();
        let header = Some(pdpb::RequestHeader { cluster_id: members.header.unwrap().cluster_id, sender_id: 0 });
        let find = pdpb::GetRegionRequest { header, region_key: "k".into(), need_buckets: false };
        let found = scheduler.get_region(find).await.unwrap().into_inner();
        let (region, leader) = (found.region.unwrap(), found.leader.unwrap());
        let by_id = pdpb::GetRegionByIdRequest { header, region_id: region.id, need_buckets: false };
        assert_eq!(scheduler.get_region_by_id(by_id).await.unwrap().into_inner().region.as_ref(), Some(&region));
        let store = pdpb::GetStoreRequest { header, store_id: leader.store_id };
        let store = scheduler.get_store(store).await.unwrap().into_inner().store.unwrap();
        assert_eq!(store.address, client.address.to_string());

        let context = Some(Context {
            region_id: region.id,
            region_epoch: region.region_epoch,
            peer: Some(leader),
            ..Default::default()
        });
        let start_version = timestamp(&mut scheduler).await;
        let mutation = |op: tinykvpb::Op, key: &'static str| tinykvpb::Mutation {
            op: op as i32,
            key: key.into(),
            value: "v".into(),
        };
        let prewrite = tinykvpb::PrewriteRequest {
            context: context.clone(),
            mutations: vec![mutation(tinykvpb::Op::Put, "k"), mutation(tinykvpb::Op::Lock, "l")],
            primary_lock: "k".into(),
            start_version,
            lock_ttl: 3_000,
        };
        assert_eq!(kv.kv_prewrite(prewrite).await.unwrap().into_inner(), PrewriteResponse::default());
        let status = tinykvpb::CheckTxnStatusRequest {
            context: context.clone(),
            primary_key: "k".into(),
            lock_ts: start_version,
            current_ts: timestamp(&mut scheduler).await,
        };
        let answer = kv.kv_check_txn_status(status.clone()).await.unwrap().into_inner();
        assert_eq!((answer.lock_ttl, answer.commit_version, answer.region_error), (3_000, 0, None));
        let mut wrong = status.clone();
        wrong.context.as_mut().unwrap().api_version = 9;
        assert_eq!(kv.kv_check_txn_status(wrong).await.unwrap_err().code(), Code::InvalidArgument);
        let commit_version = timestamp(&mut scheduler).await;
        let keys = vec!["k".into(), "l".into()];
        let commit = CommitRequest { context: context.clone(), start_version, keys, commit_version };
        assert_eq!(kv.kv_commit(commit).await.unwrap().into_inner().error, None);
        let answer = kv.kv_check_txn_status(status).await.unwrap().into_inner();
        assert_eq!((answer.lock_ttl, answer.commit_version), (0, commit_version));
        let version = timestamp(&mut scheduler).await;
        let get = GetRequest { context: context.clone(), key: "k".into(), version, ..Default::default() };
        assert_eq!(kv.kv_get(get).await.unwrap().into_inner().value, "v");

        let put =
            RawPutRequest { context: context.clone(), key: "raw".into(), value: "w".into(), ..Default::default() };
        assert_eq!(kv.raw_put(put).await.unwrap().into_inner(), RawPutResponse::default());
        let scan = tinykvpb::RawScanRequest { context, start_key: "r".into(), limit: 9, cf: "default".into() };
        let found = kv.raw_scan(scan).await.unwrap().into_inner();
        assert_eq!((found.kvs.len(), found.error.as_str()), (1, ""));
        assert_eq!(found.kvs[0].value, "w");
    });
}

async fn load(keyspaces: &mut KeyspaceClient<Channel>, name: &str) -> Result<KeyspaceMeta, pdpb::Error> {
    let request = LoadKeyspaceRequest { name: name.into(), ..Default::default() };
    let answer = keyspaces.load_keyspace(request).await.unwrap().into_inner();
    let header = answer.header.unwrap();
    assert_ne!(header.cluster_id, 0);
    match header.error {
        Some(error) => Err(error),
        None => Ok(answer.keyspace.unwrap()),
    }
}

#[test]
fn keyspaces_exist_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut keyspaces = KeyspaceClient::new(client.channel);
        assert_eq!(load(&mut keyspaces, "DEFAULT").await.unwrap().id, 0);
        let error = load(&mut keyspaces, "raft").await.unwrap_err();
        assert_eq!(error.r#type(), pdpb::ErrorType::EntryNotFound);
        assert!(error.message.contains("\"raft\" does not exist"), "{error:?}");
        let create = CreateKeyspaceRequest { name: "raft".into(), ..Default::default() };
        let created = keyspaces.create_keyspace(create.clone()).await.unwrap().into_inner().keyspace.unwrap();
        assert_eq!((created.id, created.name.as_str()), (1, "raft"));
        let again = keyspaces.create_keyspace(create).await.unwrap().into_inner();
        assert_eq!(again.header.unwrap().error.unwrap().r#type(), pdpb::ErrorType::DuplicatedEntry);
    });
    with_node(directory.path(), async |client, _| {
        let mut keyspaces = KeyspaceClient::new(client.channel);
        assert_eq!(load(&mut keyspaces, "raft").await.unwrap().id, 1);
        assert_eq!(load(&mut keyspaces, "DEFAULT").await.unwrap().id, 0);
    });
}

#[test]
fn go_clients_find_the_safe_point_and_the_members_as_in_an_etcd() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |mut client, _| {
        let mut kv = KvClient::new(client.channel.clone());
        let key = bytes::Bytes::from_static(b"/tidb/store/gcworker/saved_safe_point");
        let range = || RangeRequest { key: key.clone(), ..Default::default() };
        let answer = kv.range(range()).await.unwrap().into_inner();
        let header = answer.header.unwrap();
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.revision != 0);
        assert_eq!((answer.kvs.len(), answer.count), (0, 0));
        let update = pdpb::UpdateGcSafePointRequest { safe_point: 1 << 40, ..Default::default() };
        client.pd.update_gc_safe_point(update).await.unwrap();
        let answer = kv.range(range()).await.unwrap().into_inner();
        assert_eq!((answer.count, &answer.kvs[0].value[..]), (1, (1u64 << 40).to_string().as_bytes()));

        let members = ClusterClient::new(client.channel).member_list(MemberListRequest::default()).await;
        let members = members.unwrap().into_inner().members;
        assert_eq!(members[0].client_ur_ls, [format!("http://{}", client.address)]);
        assert!(!members[0].name.is_empty());
    });
}

/// Clients show the text; without the name of the method it says nothing.
#[test]
fn what_is_not_served_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let mut grpc = tonic::client::Grpc::new(client.channel);
        for path in [
            "/tikvpb.Tikv/CoprocessorStream",
            "/tikvpb.Tikv/DispatchMPPTask",
            "/tikvpb.Tikv/IsAlive",
            "/tikvpb.Tikv/GetLockWaitInfo",
            "/tikvpb.Tikv/GetHealthFeedback",
            "/tikvpb.Tikv/MvccGetByKey",
            "/tikvpb.Tikv/KvFlush",
            "/tikvpb.Tikv/KvBufferBatchGet",
            "/tikvpb.Tikv/KvFlashbackToVersion",
            "/tikvpb.Tikv/BroadcastTxnStatus",
            "/tikvpb.Tikv/ReadIndex",
            "/tikvpb.Tikv/CheckLeader",
            "/pdpb.PD/ScatterRegion",
            "/pdpb.PD/SplitRegions",
            "/pdpb.PD/GetOperator",
            "/pdpb.PD/LoadGlobalConfig",
            "/pdpb.PD/StoreGlobalConfig",
            "/pdpb.PD/WatchGlobalConfig",
            "/pdpb.PD/QueryRegion",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/Txn",
            "/etcdserverpb.Lease/LeaseGrant",
            "/resource_manager.ResourceManager/AcquireTokenBuckets",
            "/tinykvpb.TinyKv/Coprocessor",
            "/schedulerpb.Scheduler/PutStore",
            "/tsopb.TSO/Tso",
        ] {
            grpc.ready().await.unwrap();
            let codec = tonic_prost::ProstCodec::<GetRequest, GetResponse>::default();
            let path = PathAndQuery::from_static(path);
            let answer = grpc.unary(Request::new(GetRequest::default()), path.clone(), codec).await;
            let status = answer.expect_err(path.as_str());
            assert_eq!(status.code(), Code::Unimplemented, "{path}");
            assert!(status.message().contains(path.as_str()), "{path}: {status:?}");
        }
    });
}

#[test]
fn every_service_takes_compressed_requests_and_is_listed() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |client, _| {
        let channel = || client.channel.clone();
        let context = || client.context.clone();
        let get = RawGetRequest { context: context(), key: "a".into(), ..Default::default() };
        client.kv.clone().send_compressed(Gzip).raw_get(get.clone()).await.unwrap();
        TinyKvClient::new(channel()).send_compressed(Gzip).raw_get(get).await.unwrap();
        client.pd.clone().send_compressed(Gzip).get_all_stores(pdpb::GetAllStoresRequest::default()).await.unwrap();
        let stores = pdpb::GetAllStoresRequest::default();
        SchedulerClient::new(channel()).send_compressed(Gzip).get_all_stores(stores).await.unwrap();
        let load = LoadKeyspaceRequest { name: "DEFAULT".into(), ..Default::default() };
        KeyspaceClient::new(channel()).send_compressed(Gzip).load_keyspace(load).await.unwrap();
        KvClient::new(channel()).send_compressed(Gzip).range(RangeRequest::default()).await.unwrap();
        let members = MemberListRequest::default();
        ClusterClient::new(channel()).send_compressed(Gzip).member_list(members).await.unwrap();
        let health = tonic_health::pb::HealthCheckRequest { service: "pdpb.PD".into() };
        HealthClient::new(channel()).send_compressed(Gzip).check(health).await.unwrap();

        let list = MessageRequest::ListServices(String::new());
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
        let mut reflection = ServerReflectionClient::new(channel()).send_compressed(Gzip);
        let answers = reflection.server_reflection_info(futures::stream::iter([request])).await;
        let answer = answers.unwrap().into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("not a list of services: {answer:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        for expected in [
            "tikvpb.Tikv",
            "pdpb.PD",
            "tinykvpb.TinyKv",
            "schedulerpb.Scheduler",
            "keyspacepb.Keyspace",
            "etcdserverpb.KV",
            "etcdserverpb.Cluster",
        ] {
            assert!(names.contains(&expected), "{expected} is missing in {names:?}");
        }
    });
}

fn lock(context: &Option<Context>, start_version: u64, wait_timeout: i64) -> PessimisticLockRequest {
    let mutation = Mutation { op: Op::PessimisticLock as i32, key: "k".into(), ..Default::default() };
    PessimisticLockRequest {
        context: context.clone(),
        mutations: vec![mutation],
        primary_lock: "k".into(),
        start_version,
        lock_ttl: 60_000,
        for_update_ts: start_version,
        wait_timeout,
        ..Default::default()
    }
}

async fn owner(client: &mut Client) -> Vec<u64> {
    let scan =
        ScanLockRequest { context: client.context.clone(), max_version: u64::MAX, limit: 9, ..Default::default() };
    client.kv.kv_scan_lock(scan).await.unwrap().into_inner().locks.iter().map(|lock| lock.lock_version).collect()
}

/// The header `grpc-timeout` ends a wait, and the one that waited does not get the key afterwards.
#[test]
fn a_call_ends_at_its_deadline_and_frees_what_it_held() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |mut client, status_address| {
        let mut scheduler = SchedulerClient::new(client.channel.clone());
        let ts = timestamp(&mut scheduler).await;
        let (first, second, third) = (ts, ts + 1, ts + 2);
        assert_eq!(
            client.kv.kv_pessimistic_lock(lock(&client.context, first, -1)).await.unwrap().into_inner().errors,
            []
        );
        let mut waiting = Request::new(lock(&client.context, second, 0));
        waiting.set_timeout(Duration::from_millis(50));
        let status = client.kv.kv_pessimistic_lock(waiting).await.unwrap_err();
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
        eventually(async || {
            let metrics = try_page(status_address, "/metrics").await.map_err(|error| error.to_string())?;
            let is_over = metrics.lines().any(|line| line == "kontiki_requests_in_flight 0");
            if is_over { Ok(()) } else { Err("the call goes on at the node".to_owned()) }
        })
        .await;
        let rollback = PessimisticRollbackRequest {
            context: client.context.clone(),
            start_version: first,
            for_update_ts: first,
            keys: vec!["k".into()],
        };
        client.kv.kv_pessimistic_rollback(rollback).await.unwrap();
        assert_eq!(
            client.kv.kv_pessimistic_lock(lock(&client.context, third, -1)).await.unwrap().into_inner().errors,
            []
        );
        assert_eq!(owner(&mut client).await, [third]);
    });
}

/// Old Go clients always name the leader to which their call is to be forwarded.
#[test]
fn a_call_is_answered_here_whatever_it_says_of_forwarding() {
    let directory = tempfile::tempdir().unwrap();
    with_node(directory.path(), async |mut client, _| {
        let mut request = Request::new(pdpb::GetMembersRequest::default());
        request.metadata_mut().insert("pd-forwarded-host", "http://192.0.2.1:2379".parse().unwrap());
        let members = client.pd.get_members(request).await.unwrap().into_inner();
        assert_eq!(members.leader.unwrap().client_urls, [format!("http://{}", client.address)]);
    });
}

/// Calls of every placement service reach the leader through any node, and what they store outlives it.
#[test]
fn every_node_answers_every_placement_service_and_keyspaces_outlive_a_leader() {
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3);
    let mut servers: Vec<_> = (1..=3).map(|store| start(store, &addresses, directory.path())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        for (address, number) in addresses.iter().zip(1..) {
            let created = eventually(async || create(address, &format!("by-{number}")).await).await;
            assert_eq!(created.id, number);
            let mut etcd = ClusterClient::connect(format!("http://{address}")).await.unwrap();
            let members = etcd.member_list(MemberListRequest::default()).await.unwrap().into_inner().members;
            assert_eq!(members.len(), 3);
            let mut scheduler = SchedulerClient::connect(format!("http://{address}")).await.unwrap();
            assert_ne!(timestamp(&mut scheduler).await, 0);
        }
    });
    let leads = |server: &Server| {
        server.node().status().regions.iter().any(|status| status.region.id.0 == 1 && status.leading_term.is_some())
    };
    let leader = servers.iter().position(leads).expect("one leads placement");
    servers.remove(leader).run_until(std::future::ready(())).unwrap();
    let other = &addresses[(leader + 1) % 3];
    runtime.block_on(async {
        for number in 1..=3 {
            let found = eventually(async || find(other, &format!("by-{number}")).await).await;
            assert_eq!(found.id, number);
        }
        let created = eventually(async || create(other, "after").await).await;
        assert_eq!(created.id, 4);
    });
    for server in servers {
        server.run_until(std::future::ready(())).unwrap();
    }
}

async fn eventually<T>(attempt: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create(address: &str, name: &str) -> Result<KeyspaceMeta, String> {
    let connected = KeyspaceClient::connect(format!("http://{address}")).await;
    let mut keyspaces = connected.map_err(|error| error.to_string())?;
    let request = CreateKeyspaceRequest { name: name.into(), ..Default::default() };
    let answer = keyspaces.create_keyspace(request).await.map_err(|status| status.to_string())?.into_inner();
    match answer.keyspace {
        Some(keyspace) => Ok(keyspace),
        // The answer to an earlier attempt was lost.
        None => find(address, name).await,
    }
}

async fn find(address: &str, name: &str) -> Result<KeyspaceMeta, String> {
    let connected = KeyspaceClient::connect(format!("http://{address}")).await;
    let mut keyspaces = connected.map_err(|error| error.to_string())?;
    let request = LoadKeyspaceRequest { name: name.into(), ..Default::default() };
    let answer = keyspaces.load_keyspace(request).await.map_err(|status| status.to_string())?.into_inner();
    answer.keyspace.ok_or_else(|| format!("{:?}", answer.header))
}
