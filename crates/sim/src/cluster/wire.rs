//! What clients of a simulated cluster say to a node, as bytes: the shape of the real wire's raw and placement calls,
//! with errors reduced to what a client does about them.

use bytes::Bytes;
use prost::Message;

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What is asked.
    #[prost(oneof = "Ask", tags = "1, 2, 3, 4")]
    pub ask: Option<Ask>,
}

/// What can be asked.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// Raw get of a key.
    #[prost(bytes = "bytes", tag = "1")]
    Get(Bytes),
    /// Raw put.
    #[prost(message, tag = "2")]
    Put(Pair),
    /// Raw delete of a key.
    #[prost(bytes = "bytes", tag = "3")]
    Delete(Bytes),
    /// A placement call.
    #[prost(message, tag = "4")]
    Placement(kontiki_placement::Request),
}

/// A key and a value.
#[derive(Clone, PartialEq, Message)]
pub struct Pair {
    /// Key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// An answer.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// What came of it.
    #[prost(oneof = "Told", tags = "1, 2, 3, 4, 5, 6")]
    pub told: Option<Told>,
}

/// What can come of a request.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Told {
    /// A write is done.
    #[prost(message, tag = "1")]
    Done(()),
    /// A get found a value.
    #[prost(bytes = "bytes", tag = "2")]
    Value(Bytes),
    /// A get found nothing.
    #[prost(message, tag = "3")]
    Nothing(()),
    /// Nothing was done; ask this store next (0: unknown).
    #[prost(uint64, tag = "4")]
    Elsewhere(u64),
    /// The outcome of a write is unknown.
    #[prost(string, tag = "5")]
    Unknown(String),
    /// Placement answered.
    #[prost(message, tag = "6")]
    Placement(kontiki_placement::Response),
}

impl Request {
    /// The bytes of a request.
    pub fn encode(ask: Ask) -> Bytes {
        Request { ask: Some(ask) }.encode_to_vec().into()
    }
}

impl Answer {
    /// The bytes of an answer.
    pub fn encode(told: Told) -> Bytes {
        Answer { told: Some(told) }.encode_to_vec().into()
    }
}
