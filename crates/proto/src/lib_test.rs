//! Field numbers against bytes written by hand: what a client of these public protocols puts on the wire.

use super::*;
use prost::Message;

/// `tag(field, wire type)` as one or two bytes.
fn tag(field: u32, wire: u32) -> Vec<u8> {
    varint(u64::from(field << 3 | wire))
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn number(field: u32, value: u64) -> Vec<u8> {
    [tag(field, 0), varint(value)].concat()
}

fn blob(field: u32, bytes: &[u8]) -> Vec<u8> {
    [tag(field, 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

#[test]
fn a_context_decodes_from_hand_made_bytes() {
    let epoch = [number(1, 3), number(2, 4)].concat();
    let peer = [number(1, 2001), number(2, 1)].concat();
    let bytes = [
        number(1, 2),
        blob(2, &epoch),
        blob(3, &peer),
        number(5, 6),
        blob(13, &[7, 8]),
        number(14, 1500),
        number(21, 2),
        blob(22, &[9]),
        number(35, 77),
    ]
    .concat();
    let context = kvrpcpb::Context::decode(&bytes[..]).unwrap();
    assert_eq!(context.region_id, 2);
    assert_eq!(context.region_epoch, Some(metapb::RegionEpoch { conf_ver: 3, version: 4 }));
    assert_eq!(context.peer.map(|p| (p.id, p.store_id)), Some((2001, 1)));
    assert_eq!(context.term, 6);
    assert_eq!(context.resolved_locks, [7, 8]);
    assert_eq!(context.max_execution_duration_ms, 1500);
    assert_eq!(context.api_version, kvrpcpb::ApiVersion::V2 as i32);
    assert_eq!(context.committed_locks, [9]);
    assert_eq!(context.cluster_id, 77);
}

#[test]
fn answers_encode_to_hand_made_bytes() {
    let get = kvrpcpb::GetResponse { value: "v".into(), not_found: true, commit_ts: 5, ..Default::default() };
    assert_eq!(get.encode_to_vec(), [blob(3, b"v"), number(4, 1), number(7, 5)].concat());

    let raw = kvrpcpb::RawGetResponse { error: "e".into(), value: "v".into(), not_found: true, ..Default::default() };
    assert_eq!(raw.encode_to_vec(), [blob(2, b"e"), blob(3, b"v"), number(4, 1)].concat());

    let pair = kvrpcpb::KvPair { key: "k".into(), value: "v".into(), ..Default::default() };
    let pair_bytes = [blob(2, b"k"), blob(3, b"v")].concat();
    let batch = kvrpcpb::BatchGetResponse { pairs: vec![pair.clone()], ..Default::default() };
    assert_eq!(batch.encode_to_vec(), blob(2, &pair_bytes));
    let scan = kvrpcpb::RawScanResponse { kvs: vec![pair], ..Default::default() };
    assert_eq!(scan.encode_to_vec(), blob(2, &pair_bytes));

    let lock = kvrpcpb::LockInfo {
        primary_lock: "p".into(),
        lock_version: 1,
        key: "k".into(),
        lock_ttl: 3000,
        txn_size: 4,
        lock_type: kvrpcpb::Op::Lock as i32,
        lock_for_update_ts: 5,
        use_async_commit: true,
        min_commit_ts: 6,
        secondaries: vec!["s".into()],
    };
    let lock_bytes = [
        blob(1, b"p"),
        number(2, 1),
        blob(3, b"k"),
        number(4, 3000),
        number(5, 4),
        number(6, 2),
        number(7, 5),
        number(8, 1),
        number(9, 6),
        blob(10, b"s"),
    ]
    .concat();
    assert_eq!(lock.encode_to_vec(), lock_bytes);
    let status = kvrpcpb::CheckTxnStatusResponse {
        lock_ttl: 1,
        commit_version: 2,
        action: kvrpcpb::Action::LockNotExistRollback as i32,
        lock_info: Some(lock),
        ..Default::default()
    };
    let status_bytes = [number(3, 1), number(4, 2), number(5, 2), blob(6, &lock_bytes)].concat();
    assert_eq!(status.encode_to_vec(), status_bytes);
}

#[test]
fn requests_decode_from_hand_made_bytes() {
    let mutation = [number(1, 4), blob(2, b"k"), blob(3, b"v"), number(4, 2)].concat();
    let bytes = [
        blob(2, &mutation),
        blob(3, b"p"),
        number(4, 10),
        number(5, 3000),
        blob(7, &[1, 0]),
        number(8, 1),
        number(9, 11),
        number(10, 12),
        number(11, 1),
        blob(12, b"s"),
        number(13, 1),
        number(14, 13),
        number(15, 2),
    ]
    .concat();
    let prewrite = kvrpcpb::PrewriteRequest::decode(&bytes[..]).unwrap();
    assert_eq!(prewrite.mutations[0].op, kvrpcpb::Op::Insert as i32);
    assert_eq!(prewrite.mutations[0].assertion, kvrpcpb::Assertion::NotExist as i32);
    assert_eq!(prewrite.primary_lock, &b"p"[..]);
    assert_eq!((prewrite.start_version, prewrite.lock_ttl, prewrite.txn_size), (10, 3000, 1));
    assert_eq!(prewrite.pessimistic_actions, [1, 0]);
    assert_eq!((prewrite.for_update_ts, prewrite.min_commit_ts, prewrite.max_commit_ts), (11, 12, 13));
    assert!(prewrite.use_async_commit && prewrite.try_one_pc);
    assert_eq!(prewrite.secondaries, [&b"s"[..]]);
    assert_eq!(prewrite.assertion_level, kvrpcpb::AssertionLevel::Strict as i32);

    let bytes = [blob(2, b"a"), number(3, 9), number(4, 1), number(6, 1), blob(7, b"z")].concat();
    let scan = kvrpcpb::RawScanRequest::decode(&bytes[..]).unwrap();
    assert_eq!((&scan.start_key[..], scan.limit, &scan.end_key[..]), (&b"a"[..], 9, &b"z"[..]));
    assert!(scan.key_only && scan.reverse);

    let bytes = [blob(2, b"a"), number(3, 9), number(4, 8), number(5, 1), number(6, 1), blob(7, b"z")].concat();
    let scan = kvrpcpb::ScanRequest::decode(&bytes[..]).unwrap();
    assert_eq!((scan.limit, scan.version, &scan.end_key[..]), (9, 8, &b"z"[..]));
    assert!(scan.key_only && scan.reverse);
}

#[test]
fn key_errors_and_region_errors_have_the_public_numbers() {
    let conflict = kvrpcpb::WriteConflict {
        start_ts: 1,
        conflict_ts: 2,
        key: "k".into(),
        primary: "p".into(),
        conflict_commit_ts: 3,
        reason: kvrpcpb::write_conflict::Reason::SelfRolledBack as i32,
    };
    let error = kvrpcpb::KeyError {
        conflict: Some(conflict),
        txn_lock_not_found: Some(kvrpcpb::TxnLockNotFound { key: "k".into() }),
        ..Default::default()
    };
    let conflict_bytes =
        [number(1, 1), number(2, 2), blob(3, b"k"), blob(4, b"p"), number(5, 3), number(6, 3)].concat();
    assert_eq!(error.encode_to_vec(), [blob(4, &conflict_bytes), blob(12, &blob(1, b"k"))].concat());

    let leader = metapb::Peer { id: 2001, store_id: 1, ..Default::default() };
    let error = errorpb::Error {
        message: "m".into(),
        not_leader: Some(errorpb::NotLeader { region_id: 2, leader: Some(leader) }),
        ..Default::default()
    };
    let peer = [number(1, 2001), number(2, 1)].concat();
    let not_leader = [number(1, 2), blob(2, &peer)].concat();
    assert_eq!(error.encode_to_vec(), [blob(1, b"m"), blob(2, &not_leader)].concat());
}

#[test]
fn placement_messages_have_the_public_numbers() {
    let answer = pdpb::TsoResponse {
        header: Some(pdpb::ResponseHeader { cluster_id: 9, error: None }),
        count: 3,
        timestamp: Some(pdpb::Timestamp { physical: 100, logical: 7, suffix_bits: 0 }),
    };
    let stamp = [number(1, 100), number(2, 7)].concat();
    assert_eq!(answer.encode_to_vec(), [blob(1, &number(1, 9)), number(2, 3), blob(3, &stamp)].concat());

    let store = metapb::Store {
        id: 1,
        address: "h:1".into(),
        version: "8.5.0".into(),
        peer_address: "h:1".into(),
        status_address: "h:2".into(),
        node_state: metapb::NodeState::Serving as i32,
        ..Default::default()
    };
    let bytes =
        [number(1, 1), blob(2, b"h:1"), blob(5, b"8.5.0"), blob(6, b"h:1"), blob(7, b"h:2"), number(13, 1)].concat();
    assert_eq!(store.encode_to_vec(), bytes);

    let member = pdpb::Member { name: "n".into(), member_id: 1, client_urls: vec!["u".into()], ..Default::default() };
    let bytes = [blob(1, b"n"), number(2, 1), blob(4, b"u")].concat();
    assert_eq!(member.encode_to_vec(), bytes);
}

#[test]
fn the_descriptors_name_the_services() {
    let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
    for name in ["PD", "Tikv", "Peer", "KvGet", "GetRegionByID"] {
        assert!(text.contains(name), "{name} is missing from the descriptor set");
    }
}

/// Messages whose names TiKV and TinyKV share and whose tags they do not.
#[test]
fn messages_of_tinykv_have_the_numbers_of_tinykv() {
    let context = || Some(kvrpcpb::Context { region_id: 2, ..Default::default() });
    let context_bytes = number(1, 2);

    let status = tinykvpb::CheckTxnStatusRequest {
        context: context(),
        primary_key: "p".into(),
        lock_ts: 7,
        current_ts: 1 << 40,
    };
    let bytes = [blob(1, &context_bytes), blob(2, b"p"), number(3, 7), number(4, 1 << 40)].concat();
    assert_eq!(status.encode_to_vec(), bytes);
    assert_eq!(tinykvpb::CheckTxnStatusRequest::decode(&bytes[..]).unwrap(), status);
    let in_tikv = kvrpcpb::CheckTxnStatusRequest::decode(&bytes[..]).unwrap();
    assert_eq!((in_tikv.caller_start_ts, in_tikv.current_ts), (1 << 40, 0), "that is why it has a type of its own");

    let answer = tinykvpb::CheckTxnStatusResponse {
        region_error: Some(errorpb::Error { message: "m".into(), ..Default::default() }),
        lock_ttl: 3000,
        commit_version: 9,
        action: kvrpcpb::Action::LockNotExistRollback as i32,
    };
    let bytes = [blob(1, &blob(1, b"m")), number(2, 3000), number(3, 9), number(4, 2)].concat();
    assert_eq!(answer.encode_to_vec(), bytes);
    assert!(kvrpcpb::CheckTxnStatusResponse::decode(&bytes[..]).is_err());

    let scan = tinykvpb::RawScanRequest { context: context(), start_key: "a".into(), limit: 9, cf: "default".into() };
    let bytes = [blob(1, &context_bytes), blob(2, b"a"), number(3, 9), blob(4, b"default")].concat();
    assert_eq!(scan.encode_to_vec(), bytes);
    assert!(kvrpcpb::RawScanRequest::decode(&bytes[..]).is_err());

    let pair = kvrpcpb::KvPair { key: "k".into(), value: "v".into(), ..Default::default() };
    let found = tinykvpb::RawScanResponse { region_error: None, error: "e".into(), kvs: vec![pair] };
    let bytes = [blob(2, b"e"), blob(3, &[blob(2, b"k"), blob(3, b"v")].concat())].concat();
    assert_eq!(found.encode_to_vec(), bytes);

    let mutation = |op: tinykvpb::Op| tinykvpb::Mutation { op: op as i32, key: "k".into(), value: "v".into() };
    let prewrite = tinykvpb::PrewriteRequest {
        context: context(),
        mutations: vec![mutation(tinykvpb::Op::Put), mutation(tinykvpb::Op::Lock)],
        primary_lock: "k".into(),
        start_version: 5,
        lock_ttl: 3000,
    };
    let (put, lock) = ([blob(2, b"k"), blob(3, b"v")].concat(), [number(1, 3), blob(2, b"k"), blob(3, b"v")].concat());
    let bytes =
        [blob(1, &context_bytes), blob(2, &put), blob(2, &lock), blob(3, b"k"), number(4, 5), number(5, 3000)].concat();
    assert_eq!(prewrite.encode_to_vec(), bytes);
    let in_tikv = kvrpcpb::PrewriteRequest::decode(&bytes[..]).unwrap();
    assert_eq!(in_tikv.mutations[1].op(), kvrpcpb::Op::Rollback, "TiKV would roll back what TinyKV locks");
    let numbers =
        [tinykvpb::Op::Put, tinykvpb::Op::Del, tinykvpb::Op::Rollback, tinykvpb::Op::Lock].map(|op| op as i32);
    assert_eq!(numbers, [0, 1, 2, 3]);
}

#[test]
fn messages_of_etcd_and_of_keyspaces_have_the_public_numbers() {
    let bytes = [blob(1, b"k"), blob(2, b"\0"), number(3, 9), number(8, 1), number(9, 1)].concat();
    let range = etcdserverpb::RangeRequest::decode(&bytes[..]).unwrap();
    assert_eq!((&range.key[..], &range.range_end[..], range.limit), (&b"k"[..], &b"\0"[..], 9));
    assert!(range.keys_only && range.count_only);

    let header = etcdserverpb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    let header_bytes = [number(1, 1), number(2, 2), number(3, 3), number(4, 4)].concat();
    let pair =
        etcdserverpb::KeyValue { key: "k".into(), create_revision: 5, mod_revision: 6, version: 7, value: "v".into() };
    let pair_bytes = [blob(1, b"k"), number(2, 5), number(3, 6), number(4, 7), blob(5, b"v")].concat();
    let answer = etcdserverpb::RangeResponse { header: Some(header), kvs: vec![pair], more: false, count: 1 };
    assert_eq!(answer.encode_to_vec(), [blob(1, &header_bytes), blob(2, &pair_bytes), number(4, 1)].concat());

    let member = etcdserverpb::Member {
        id: 1,
        name: "n".into(),
        peer_ur_ls: vec!["p".into()],
        client_ur_ls: vec!["c".into()],
        is_learner: false,
    };
    let member_bytes = [number(1, 1), blob(2, b"n"), blob(3, b"p"), blob(4, b"c")].concat();
    let list = etcdserverpb::MemberListResponse { header: None, members: vec![member] };
    assert_eq!(list.encode_to_vec(), blob(2, &member_bytes));

    let keyspace = keyspacepb::KeyspaceMeta {
        id: 3,
        name: "n".into(),
        state: keyspacepb::KeyspaceState::Archived as i32,
        created_at: 4,
        state_changed_at: 5,
    };
    let keyspace_bytes = [number(1, 3), blob(2, b"n"), number(3, 2), number(4, 4), number(5, 5)].concat();
    let answer = keyspacepb::LoadKeyspaceResponse { header: None, keyspace: Some(keyspace) };
    assert_eq!(answer.encode_to_vec(), blob(2, &keyspace_bytes));
}

#[test]
fn new_calls_of_placement_have_the_public_numbers() {
    let range = [blob(1, b"a"), blob(2, b"b")].concat();
    let bytes = [number(2, 1), blob(3, &range), number(4, 9), number(5, 1)].concat();
    let scan = pdpb::BatchScanRegionsRequest::decode(&bytes[..]).unwrap();
    assert_eq!((&scan.ranges[0].start_key[..], &scan.ranges[0].end_key[..], scan.limit), (&b"a"[..], &b"b"[..], 9));
    assert!(scan.need_buckets && scan.contain_all_key_range);
    let timestamp = Some(pdpb::Timestamp { physical: 1, logical: 2, suffix_bits: 0 });
    let answer = pdpb::GetMinTsResponse { header: None, timestamp };
    assert_eq!(answer.encode_to_vec(), blob(2, &[number(1, 1), number(2, 2)].concat()));
    let cluster = Some(metapb::Cluster { id: 7, max_peer_count: 3 });
    let answer = pdpb::GetClusterConfigResponse { header: None, cluster };
    assert_eq!(answer.encode_to_vec(), blob(2, &[number(1, 7), number(2, 3)].concat()));
    let set = pdpb::SetExternalTimestampRequest { header: None, timestamp: 9 };
    assert_eq!(set.encode_to_vec(), number(2, 9));
    assert_eq!(pdpb::GetExternalTimestampResponse { header: None, timestamp: 9 }.encode_to_vec(), number(2, 9));
    let types = [pdpb::ErrorType::DuplicatedEntry, pdpb::ErrorType::EntryNotFound, pdpb::ErrorType::InvalidValue];
    assert_eq!(types.map(|kind| kind as i32), [8, 9, 10]);
    let empty = tikvpb::batch_commands_request::request::Cmd::Empty(tikvpb::BatchCommandsEmptyRequest {
        test_id: 4,
        delay_time: 5,
    });
    let request = tikvpb::batch_commands_request::Request { cmd: Some(empty) };
    assert_eq!(request.encode_to_vec(), blob(255, &[number(1, 4), number(2, 5)].concat()));
}
