//! A node: configuration, the gRPC and HTTP faces, the transport between nodes, and the driver that performs what
//! the pure floors below ask for.
//!
//! Requests go down, answers come back up. The layers that hold the wire's meaning know nothing of tonic or
//! threads, so the simulator runs them as they are. docs/internals/server.md tells the whole story.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod connections;
pub mod driver;
pub mod grpc;
pub mod http;
pub mod kv;
pub mod node;
pub mod pd;
pub mod planted;
pub mod stopped;
pub mod telemetry;
pub mod transport;
