//! A node: configuration, the gRPC and HTTP services, the transport between nodes, and the driver that performs the
//! effects of the pure layers below.
//!
//! Requests go down, answers come back up. The modules that implement the protocol do not depend on tonic or threads,
//! so the simulator runs them unchanged. The design is in docs/internals/server.md.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod connections;
pub mod driver;
pub mod families;
pub mod grpc;
pub mod http;
pub mod kv;
pub mod node;
pub mod pd;
pub mod planted;
pub mod resolver;
pub mod stopped;
pub mod stopping;
pub mod telemetry;
pub mod transport;
