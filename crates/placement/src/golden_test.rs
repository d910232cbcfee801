//! One file for each request to placement and each answer: what today's encoder writes, and that it is read as before.

use crate::*;
use bytes::Bytes;
use kontiki_env::testing::{check_golden, read_golden};
use prost::Message;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

fn check<M: Message + Default + PartialEq + Debug>(name: &str, message: M) {
    check_golden(&golden(name), &message.encode_to_vec());
    let read = M::decode(read_golden(&golden(name)).as_slice()).expect("a message of this version");
    assert_eq!(read, message, "{name}");
}

fn peer(id: u64) -> Peer {
    Peer { id, store_id: id + 10, role: PeerRole::Learner as i32 }
}

fn region() -> Region {
    Region {
        id: 2,
        start_key: Bytes::from_static(b"a"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_ver: 3, version: 4 },
        peers: vec![Peer { id: 5, store_id: 1, role: PeerRole::Voter as i32 }, peer(6)],
        system: true,
    }
}

fn region_info() -> RegionInfo {
    RegionInfo {
        region: region(),
        leader: Some(peer(6)),
        term: 7,
        approximate_bytes: 1 << 20,
        approximate_keys: 1000,
        down_peers: vec![peer(5)],
        pending_peers: vec![peer(6)],
    }
}

fn store() -> Store {
    Store {
        id: 1,
        address: "127.0.0.1:20160".into(),
        status_address: "127.0.0.1:20180".into(),
        version: "0.1.0".into(),
    }
}

fn stats() -> StoreStats {
    StoreStats {
        capacity_bytes: 1 << 40,
        used_bytes: 1 << 30,
        available_bytes: 1 << 39,
        region_count: 3,
        leader_count: 2,
    }
}

fn store_info() -> StoreInfo {
    StoreInfo { store: store(), stats: Some(stats()), silent_ms: Some(1500) }
}

fn keyspace() -> Keyspace {
    let state = KeyspaceState::Disabled as i32;
    let state_changed_ms = (1 << 40) + 1;
    Keyspace { id: 300, name: "raft".into(), state, created_ms: 1 << 40, state_changed_ms, nonce: 7 << 40 }
}

fn barrier() -> GcBarrier {
    GcBarrier { name: "backup".into(), ts: 1 << 40, ttl_seconds: GC_BARRIER_TTL_FOREVER }
}

/// A new command needs a file: the match is complete.
fn name_of_command(command: &Command) -> &'static str {
    match command {
        Command::Timestamps(_) => "request-timestamps",
        Command::AllocateIds(_) => "request-allocate-ids",
        Command::StoreHeartbeat(_) => "request-store-heartbeat",
        Command::RegionHeartbeat(_) => "request-region-heartbeat",
        Command::RegionByKey(_) => "request-region-by-key",
        Command::PreviousRegion(_) => "request-previous-region",
        Command::RegionById(_) => "request-region-by-id",
        Command::ScanRegions(_) => "request-scan-regions",
        Command::StoreById(_) => "request-store-by-id",
        Command::AllStores(_) => "request-all-stores",
        Command::GcSafePoint(_) => "request-gc-safe-point",
        Command::UpdateGcSafePoint(_) => "request-update-gc-safe-point",
        Command::Cluster(_) => "request-cluster",
        Command::KeyspaceByName(_) => "request-keyspace-by-name",
        Command::Keyspaces(_) => "request-keyspaces",
        Command::CreateKeyspace(_) => "request-create-keyspace",
        Command::SetKeyspaceState(_) => "request-set-keyspace-state",
        Command::ExternalTimestamp(_) => "request-external-timestamp",
        Command::SetExternalTimestamp(_) => "request-set-external-timestamp",
        Command::GcState(_) => "request-gc-state",
        Command::UpdateServiceSafePoint(_) => "request-update-service-safe-point",
        Command::AdvanceTxnSafePoint(_) => "request-advance-txn-safe-point",
        Command::AdvanceGcSafePoint(_) => "request-advance-gc-safe-point",
        Command::SetGcBarrier(_) => "request-set-gc-barrier",
        Command::DeleteGcBarrier(_) => "request-delete-gc-barrier",
    }
}

#[test]
fn requests() {
    let RegionInfo { region, term, approximate_bytes, approximate_keys, down_peers, pending_peers, .. } = region_info();
    let key = || Bytes::from_static(b"key");
    let leader = peer(6);
    let commands = [
        Command::Timestamps(Timestamps { count: 64 }),
        Command::AllocateIds(AllocateIds { count: 3 }),
        Command::StoreHeartbeat(StoreHeartbeat { store: store(), stats: stats() }),
        Command::RegionHeartbeat(RegionHeartbeat {
            region,
            leader,
            term,
            approximate_bytes,
            approximate_keys,
            down_peers,
            pending_peers,
        }),
        Command::RegionByKey(RegionByKey { key: key() }),
        Command::PreviousRegion(PreviousRegion { key: key() }),
        Command::RegionById(RegionById { id: 300 }),
        Command::ScanRegions(ScanRegions { start_key: key(), end_key: Bytes::from_static(b"z"), limit: 10 }),
        Command::StoreById(StoreById { id: 300 }),
        Command::AllStores(AllStores {}),
        Command::GcSafePoint(GcSafePoint {}),
        Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point: 1 << 40 }),
        Command::Cluster(Cluster {}),
        Command::KeyspaceByName(KeyspaceByName { name: "raft".into() }),
        Command::Keyspaces(Keyspaces { first_id: 3, limit: 10 }),
        Command::CreateKeyspace(CreateKeyspace { name: "raft".into(), nonce: 7 << 40 }),
        Command::SetKeyspaceState(SetKeyspaceState { id: 3, state: KeyspaceState::Archived as i32 }),
        Command::ExternalTimestamp(ExternalTimestamp {}),
        Command::SetExternalTimestamp(SetExternalTimestamp { timestamp: 1 << 40 }),
        Command::GcState(GcState {}),
        Command::UpdateServiceSafePoint(UpdateServiceSafePoint {
            service: "backup".into(),
            ttl_seconds: 300,
            safe_point: 1 << 40,
        }),
        Command::AdvanceTxnSafePoint(AdvanceSafePoint { target: 1 << 40 }),
        Command::AdvanceGcSafePoint(AdvanceSafePoint { target: 1 << 40 }),
        Command::SetGcBarrier(barrier()),
        Command::DeleteGcBarrier(DeleteGcBarrier { name: "backup".into() }),
    ];
    for command in commands {
        check(name_of_command(&command), Request::from(command));
    }
}

fn name_of_outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Refused(_) => "answer-refused",
        Outcome::Timestamps(_) => "answer-timestamps",
        Outcome::Ids(_) => "answer-ids",
        Outcome::Accepted(_) => "answer-accepted",
        Outcome::Region(_) => "answer-region",
        Outcome::Regions(_) => "answer-regions",
        Outcome::Store(_) => "answer-store",
        Outcome::Stores(_) => "answer-stores",
        Outcome::SafePoint(_) => "answer-safe-point",
        Outcome::Cluster(_) => "answer-cluster",
        Outcome::Keyspace(_) => "answer-keyspace",
        Outcome::Keyspaces(_) => "answer-keyspaces",
        Outcome::ExternalTimestamp(_) => "answer-external-timestamp",
        Outcome::GcPoints(_) => "answer-gc-points",
        Outcome::SafePointMoved(_) => "answer-safe-point-moved",
        Outcome::ServiceSafePoint(_) => "answer-service-safe-point",
        Outcome::GcBarrier(_) => "answer-gc-barrier",
    }
}

#[test]
fn answers() {
    let outcomes = [
        Outcome::Refused(Refusal::new(RefusalCode::UnknownStore, "no such store")),
        Outcome::Timestamps(TimestampsGranted { physical_ms: 1 << 40, logical: 63, count: 64 }),
        Outcome::Ids(IdsGranted { first: 1001, count: 3 }),
        Outcome::Accepted(Accepted {}),
        Outcome::Region(region_info()),
        Outcome::Regions(RegionList { regions: vec![region_info()] }),
        Outcome::Store(store_info()),
        Outcome::Stores(StoreList { stores: vec![store_info()] }),
        Outcome::SafePoint(SafePoint { safe_point: 1 << 40 }),
        Outcome::Cluster(ClusterInfo {
            cluster_id: 9,
            leader_store_id: 1,
            members: vec![store_info()],
            region_count: 3,
            store_count: 2,
        }),
        Outcome::Keyspace(keyspace()),
        Outcome::Keyspaces(KeyspaceList { keyspaces: vec![keyspace()] }),
        Outcome::ExternalTimestamp(ExternalTimestampSet { timestamp: 1 << 40 }),
        Outcome::GcPoints(GcPoints { gc_safe_point: 1 << 40, txn_safe_point: 1 << 41, barriers: vec![barrier()] }),
        Outcome::SafePointMoved(SafePointMoved { old: 1 << 40, new: 1 << 41, blocker: "barrier".into() }),
        Outcome::ServiceSafePoint(ServiceSafePoint {
            service: GC_WORKER.into(),
            ttl_seconds: GC_BARRIER_TTL_FOREVER,
            min_safe_point: 1 << 40,
        }),
        Outcome::GcBarrier(GcBarrierChanged { barrier: Some(barrier()) }),
    ];
    for outcome in outcomes {
        check(name_of_outcome(&outcome), Response::from(outcome));
    }
}

/// All that placement persists, as one batch: the engine's encoding of batches has files of its own.
#[test]
fn state() {
    let written = bootstrap(&[store()], &[region()]);
    check_golden(&golden("state"), written.as_bytes());
    let bytes = read_golden(&golden("state"));
    let read = kontiki_engine::WriteBatch::decode(&bytes).expect("a batch");
    assert_eq!(read.as_bytes(), written.as_bytes());
    let mut view = test_view::MapView::default();
    view.apply(&read);
    let loaded = state::load(&view).expect("a state of this version");
    assert_eq!((loaded.stores, loaded.regions), (vec![store()], vec![region()]));
}

/// What clients store is not part of the first state.
#[test]
fn records() {
    let mut written = kontiki_engine::WriteBatch::new();
    let without_nonce = Keyspace { id: 301, nonce: 0, ..keyspace() };
    state::put_keyspace(&mut written, &keyspace());
    state::put_keyspace(&mut written, &without_nonce);
    state::put_external_timestamp(&mut written, 1 << 40);
    check_golden(&golden("state-records"), written.as_bytes());
    let read = kontiki_engine::WriteBatch::decode(&read_golden(&golden("state-records"))).expect("a batch");
    let mut view = test_view::MapView::default();
    view.apply(&bootstrap(&[store()], &[region()]));
    view.apply(&read);
    let loaded = state::load(&view).expect("a state of this version");
    assert_eq!((loaded.keyspaces, loaded.external_timestamp), (vec![keyspace(), without_nonce], 1 << 40));
}

/// What garbage collection persists.
#[test]
fn state_of_gc() {
    let mut record = gc_record::GcRecord { safe_point: 1 << 40, txn_safe_point: 1 << 41, ..Default::default() };
    record.barriers.insert("backup".into(), gc_record::Barrier { ts: 1 << 42, expires_at_ms: 1_800_000_000_000 });
    record.barriers.insert("feed".into(), gc_record::Barrier { ts: 1 << 43, expires_at_ms: gc_record::NEVER_MS });
    let mut written = kontiki_engine::WriteBatch::new();
    state::put_gc(&mut written, &record);
    check_golden(&golden("state-gc"), written.as_bytes());
    let read = kontiki_engine::WriteBatch::decode(&read_golden(&golden("state-gc"))).expect("a batch");
    let mut view = test_view::MapView::default();
    view.apply(&bootstrap(&[store()], &[region()]));
    view.apply(&read);
    assert_eq!(state::load(&view).expect("a state of this version").gc, record);
}
