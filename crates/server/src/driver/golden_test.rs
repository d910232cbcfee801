//! One file for each message between nodes, and for the node's own records: what today's encoder writes, and that it is
//! read as before. The messages of raftstore and of placement, which these carry, have files in those crates.

use super::membership::{Hello, Incarnation};
use super::message::{Body, CircleFound, PlacementCall, PlacementReply, Wait, decode, encode};
use bytes::Bytes;
use kontiki_env::testing::{check_golden, read_golden};
use kontiki_placement::{Command, Outcome, Request, Response, SafePoint, StoreById};
use kontiki_proto::internal::{
    NegotiateReply, NegotiateRequest, PeerAck, PeerBatch, SnapshotAck, SnapshotChunk, SnapshotHead,
    SnapshotProgressReply, SnapshotProgressRequest,
};
use prost::Message;
use std::collections::BTreeMap;
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

fn incarnation() -> Incarnation {
    Incarnation { id: 0x0102_0304_0506_0708, generation: 5, mark: 0x1112_1314_1516_1718, replacement: 1 }
}

/// A new body needs a file: the match is complete.
fn name_of(body: &Body) -> &'static str {
    match body {
        Body::Raft(_) => "node-raft",
        Body::Call(_) => "node-call",
        Body::Reply(_) => "node-reply",
        Body::Hello(_) => "node-hello",
        Body::Wait(_) => "node-wait",
        Body::CircleFound(_) => "node-circle-found",
    }
}

#[test]
fn messages_of_nodes() {
    let hello = Hello {
        own: incarnation(),
        formed: true,
        members: BTreeMap::from([(1, 0x0102_0304_0506_0708), (2, 9)]),
        you: Some(incarnation()),
        wants_answer: true,
        has_data: true,
        recovery: None,
        lost: BTreeMap::new(),
    };
    let wait = Wait { number: 77, store: 2, waiter: 1 << 50, holder: 300, key: "key".into(), has_ended: true, hops: 1 };
    let request = Request::from(Command::StoreById(StoreById { id: 300 }));
    let response = Response::from(Outcome::SafePoint(SafePoint { safe_point: 1 << 40 }));
    let bodies = [
        Body::Raft(Bytes::from_static(b"a store message")),
        Body::Call(PlacementCall { id: 77, timeout_ms: 1500, request: Some(request) }),
        Body::Reply(PlacementReply { id: 77, response: Some(response) }),
        Body::Hello(hello),
        Body::Wait(wait.clone()),
        Body::CircleFound(CircleFound { number: 77, chain: vec![wait] }),
    ];
    for body in bodies {
        let path = golden(name_of(&body));
        check_golden(&path, &encode(body.clone()));
        assert_eq!(decode(read_golden(&path).into()), Some(body), "{}", path.display());
    }
}

#[test]
fn messages_of_calls_between_nodes() {
    let messages = vec![Bytes::from_static(b"first"), Bytes::from_static(b"second")];
    // Of version 1 of the protocol, which states none: what the release before sends and reads.
    let batch = PeerBatch { cluster_id: 7, from_store: 1, to_store: 2, messages, version: 0 };
    check("peer-batch", batch.clone());
    check("peer-batch-version-2", PeerBatch { version: 2, ..batch });
    let (version_min, version_max, program) = (1, 2, "0.1.0".to_owned());
    let request = NegotiateRequest {
        cluster_id: 7,
        from_store: 1,
        to_store: 2,
        version_min,
        version_max,
        program: program.clone(),
    };
    check("negotiate-request", request);
    check("negotiate-reply", NegotiateReply { version_min, version_max, program });
    check("peer-ack", PeerAck {});
    let head = SnapshotHead {
        cluster_id: 7,
        from_store: 1,
        to_store: 2,
        region_id: 3,
        term: 4,
        index: 500,
        estimated_bytes: 1 << 20,
        message: Bytes::from_static(b"message"),
        version: 0,
        transfer: 0,
    };
    let data = Bytes::from_static(b"data");
    let first = SnapshotChunk { head: Some(head), offset: 0, data: data.clone(), checksum: 0xadf3_f363, last: false };
    check("snapshot-chunk-first", first.clone());
    let head = first.head.clone().map(|head| SnapshotHead { version: 2, ..head });
    check("snapshot-chunk-first-version-2", SnapshotChunk { head, ..first.clone() });
    let head = first.head.clone().map(|head| SnapshotHead { version: 3, transfer: 99, ..head });
    check("snapshot-chunk-first-version-3", SnapshotChunk { head, ..first });
    let asked = SnapshotProgressRequest { cluster_id: 7, from_store: 1, to_store: 2, transfer: 99 };
    check("snapshot-progress-request", asked);
    check("snapshot-progress-reply", SnapshotProgressReply { is_known: true, received_bytes: 1 << 20 });
    check("snapshot-chunk-last", SnapshotChunk { head: None, offset: 4, data, checksum: 0xadf3_f363, last: true });
    check("snapshot-ack", SnapshotAck {});
}

#[test]
fn records_of_directories() {
    let mut batch = kontiki_engine::WriteBatch::new();
    super::formation::put_incarnation(&mut batch, b"key", &incarnation());
    let written = match batch.ops().next() {
        Some(kontiki_engine::BatchOp::Put { value, .. }) => value.to_vec(),
        other => panic!("a put, not {other:?}"),
    };
    check_golden(&golden("meta-incarnation"), &written);
    let read = super::formation::decode_incarnation(&read_golden(&golden("meta-incarnation")));
    assert_eq!(read.expect("a record of this version"), incarnation());
}
