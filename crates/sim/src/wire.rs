//! The messages between clients and nodes of a simulated cluster: those of the real protocol, in a frame that stands
//! for that of gRPC.

use bytes::Bytes;
use kontiki_proto::{Code, Status};
use kontiki_txn::memcomparable_encode;
use prost::Message;

/// The prefix of every user key of the last region: the first bytes of the region's start, unchanged for raw keys and
/// before their encoding for transactional ones.
pub const TAIL_RAW: &[u8] = &[0xFF; 18];
/// See [`TAIL_RAW`].
pub const TAIL_TXN: &[u8] = &[0xFF; 16];

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// gRPC's path of the call.
    #[prost(string, tag = "1")]
    pub path: String,
    /// The encoded request.
    #[prost(bytes = "bytes", tag = "2")]
    pub message: Bytes,
}

/// An answer: a reply, or a status.
#[derive(Clone, PartialEq, Message)]
pub struct Answer {
    /// The encoded reply.
    #[prost(bytes = "bytes", tag = "1")]
    pub message: Bytes,
    /// gRPC's status code; 0 for a reply.
    #[prost(int32, tag = "2")]
    pub code: i32,
    /// The text of a status.
    #[prost(string, tag = "3")]
    pub text: String,
}

impl From<Result<Bytes, Status>> for Answer {
    fn from(outcome: Result<Bytes, Status>) -> Answer {
        match outcome {
            Ok(message) => Answer { message, ..Default::default() },
            Err(status) => {
                let (code, text) = (status.code() as i32, status.message().to_owned());
                Answer { code, text, ..Default::default() }
            }
        }
    }
}

impl Answer {
    /// The encoded reply, or the status.
    pub fn into_result(self) -> Result<Bytes, Status> {
        match Code::from_i32(self.code) {
            Code::Ok => Ok(self.message),
            code => Err(Status::new(code, self.text)),
        }
    }
}

/// The place of a transactional key in the region table; a raw key is its own.
pub fn txn_position(key: &[u8]) -> Vec<u8> {
    memcomparable_encode(key)
}
