//! The messages between nodes: raft traffic and forwarded placement calls.
//!
//! Encoding (protobuf): `NodeMessage` holds one of `raft` #1 (an encoded `StoreMessage` of raftstore, opaque here),
//! `call` #2 { `id` #1 u64, `timeout_ms` #2 u64, `request` #3 }, `reply` #4 { `id` #1 u64, `response` #2, absent when
//! the asked node does not lead placement }, `hello` #5 (see `membership`), `wait` #6 and `circle_found` #7 (see
//! `deadlocks`; an older node ignores them). The transport reports which store a message came from.

use super::membership::Hello;
use bytes::Bytes;
use kontiki_placement::{Request, Response};
use prost::Message;

/// One message between nodes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeMessage {
    #[prost(oneof = "Body", tags = "1, 2, 4, 5, 6, 7")]
    pub body: Option<Body>,
}

/// What a message carries.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Body {
    /// One encoded `StoreMessage`.
    #[prost(bytes = "bytes", tag = "1")]
    Raft(Bytes),
    /// A placement call for the leader of the placement group.
    #[prost(message, tag = "2")]
    Call(PlacementCall),
    /// The answer to one.
    #[prost(message, tag = "4")]
    Reply(PlacementReply),
    /// A node's report of its directory.
    #[prost(message, tag = "5")]
    Hello(Hello),
    /// A transaction waits for another one, or has ended to.
    #[prost(message, tag = "6")]
    Wait(Wait),
    /// A wait closes a circle.
    #[prost(message, tag = "7")]
    CircleFound(CircleFound),
}

/// For the leader of the placement group, which detects deadlocks; and one wait of a circle.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Wait {
    /// Chosen by the node of the wait; 0 if it ends.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// That node.
    #[prost(uint64, tag = "2")]
    pub store: u64,
    /// The transaction that waits, by its start timestamp.
    #[prost(uint64, tag = "3")]
    pub waiter: u64,
    /// The one that holds the key.
    #[prost(uint64, tag = "4")]
    pub holder: u64,
    /// The user key.
    #[prost(bytes = "bytes", tag = "5")]
    pub key: Bytes,
    /// It waits no more.
    #[prost(bool, tag = "6")]
    pub has_ended: bool,
    /// How often it was forwarded.
    #[prost(uint32, tag = "7")]
    pub hops: u32,
}

/// A wait closes a circle.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CircleFound {
    /// Of the wait.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The other waits of the circle, from the holder of the key to the transaction that waits.
    #[prost(message, repeated, tag = "2")]
    pub chain: Vec<Wait>,
}

/// A placement call from another node.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PlacementCall {
    /// Chosen by the asking node, unique there; echoed.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// How long the asking node still waits.
    #[prost(uint64, tag = "2")]
    pub timeout_ms: u64,
    /// The call.
    #[prost(message, optional, tag = "3")]
    pub request: Option<Request>,
}

/// The answer to a forwarded placement call.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PlacementReply {
    /// The call's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Absent: the asked node does not lead placement (any more); ask the leader.
    #[prost(message, optional, tag = "2")]
    pub response: Option<Response>,
}

/// Encodes a message with this body.
pub(super) fn encode(body: Body) -> Bytes {
    Bytes::from(NodeMessage { body: Some(body) }.encode_to_vec())
}

/// Decodes a message; `None` if it is malformed or of a kind this version does not know.
pub(super) fn decode(bytes: Bytes) -> Option<Body> {
    NodeMessage::decode(bytes).ok()?.body
}
