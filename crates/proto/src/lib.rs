//! Wire messages and gRPC service interfaces, generated at build time from the project's own `.proto` files
//! (`crates/proto/proto`) by protox and tonic: only Rust is needed to build them. The crate contains no logic except
//! [`codec`].
//!
//! | module | what |
//! |---|---|
//! | [`metapb`] | stores, regions, peers, epochs |
//! | [`errorpb`] | region errors |
//! | [`kvrpcpb`] | raw and transactional requests and answers |
//! | [`pdpb`] | the placement service, `pdpb.PD` |
//! | [`tikvpb`] | the key-value service, `tikvpb.Tikv` |
//! | [`debugpb`] | what tools ask a node, `debugpb.Debug` |
//! | [`calls`] | the table of unary calls |
//! | [`codec`] | how messages are encoded; large ones without blocking other tasks |
//! | [`internal`] | node to node: message stream and snapshot stream, `kontiki.internal.Peer` |
//!
//! The first six follow public protocols (field numbers and names that TiKV's clients use), so a field is never
//! renumbered; a call that is not declared returns UNIMPLEMENTED. `bytes` fields are [`bytes::Bytes`]: decoding a
//! request copies no key and no value.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

// Before its users: macros are visible from here on.
include!(concat!(env!("OUT_DIR"), "/calls.rs"));

pub mod calls;
pub mod codec;

/// How a call fails that received no answer: for programs that make calls and do not know the transport.
pub use tonic::{Code, Status};

/// The beginning of the error text with which a server refuses an answer that is larger than allowed. It is in `abort`
/// of a pair's error or of the answer's error. The remedy is to ask for fewer keys at a time.
pub const ANSWER_TOO_LARGE: &str = "the answer would exceed";

/// Lints do not apply to generated code: its documentation is the comments of the .proto files.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, clippy::all, clippy::unwrap_used, rustdoc::all)] // generated
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated!(
    /// Stores, regions and their peers.
    metapb,
    "metapb"
);
generated!(
    /// Region errors.
    errorpb,
    "errorpb"
);
generated!(
    /// Raw and transactional requests and answers.
    kvrpcpb,
    "kvrpcpb"
);
generated!(
    /// The placement service.
    pdpb,
    "pdpb"
);
generated!(
    /// The key-value service.
    tikvpb,
    "tikvpb"
);
generated!(
    /// What tools ask a node.
    debugpb,
    "debugpb"
);
generated!(
    /// Keyspaces.
    keyspacepb,
    "keyspacepb"
);
generated!(
    /// What Go clients ask of etcd.
    etcdserverpb,
    "etcdserverpb"
);
generated!(
    /// TinyKV's key-value service.
    tinykvpb,
    "tinykvpb"
);
generated!(
    /// TinyKV's placement service.
    schedulerpb,
    "schedulerpb"
);
generated!(
    /// Node to node.
    internal,
    "kontiki.internal"
);

/// The encoded `FileDescriptorSet` of every file here, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
