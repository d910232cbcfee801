//! TLS between nodes, and between clients and nodes: certificates in files, which are read again when they change, and
//! the two ends of a connection.
//!
//! | module | what |
//! |---|---|
//! | `files` | the names of the files, their contents, and every check that is possible before a connection exists |
//! | `credentials` | what is in use at the moment; reads the files again |
//! | `accept`, `connect` | the node's end of a connection, and the end of the one that dials |
//! | `explain` | the errors of handshakes, with their remedies |
//!
//! A certificate is accepted if one of the cluster's own authorities has signed it; the authorities of the operating
//! system are not used. The library is rustls with the cryptography of `ring`: docs/internals/transport.md has the
//! reasons. A private key is in no error text and in no `Debug` output.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod accept;
mod connect;
mod credentials;
mod error;
mod explain;
mod files;
#[cfg(test)]
mod test_authority;

pub use accept::{Accepted, Acceptor, HANDSHAKE_TIME_MAX, HandshakeError, PlainAnswer, TLS_HANDSHAKE_RECORD};
pub use connect::{connect, connect_lazy, describe, refusal};
pub use credentials::{Credentials, RELOAD_INTERVAL, Reload};
pub use error::TlsError;
pub use files::{ClientCertificates, TlsFiles};
/// A connection that is made, for the clients of gRPC services.
pub use tonic::transport::Channel;
