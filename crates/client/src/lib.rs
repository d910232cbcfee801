//! The Rust client of a Kontiki cluster: raw keys and transactions over the wire that TiKV's clients use.
//!
//! ```no_run
//! # async fn example() -> Result<(), kontiki_client::Error> {
//! use kontiki_client::Client;
//! let client = Client::connect(["127.0.0.1:20160"]).await?;
//! client.raw().put("k", "v").await?;
//! assert_eq!(client.raw().get("k").await?.as_deref(), Some(&b"v"[..]));
//!
//! let mut transaction = client.begin().await?;
//! transaction.put("account", "100");
//! transaction.commit().await?;
//! # Ok(()) }
//! ```
//!
//! A pessimistic transaction locks keys while it runs, so that writers of the same keys wait for each other instead of
//! starting again:
//!
//! ```no_run
//! # async fn example(client: kontiki_client::Client) -> Result<(), kontiki_client::Error> {
//! let mut transaction = client.begin_pessimistic().await?;
//! let balance = transaction.get_for_update("account").await?; // the newest value, and it stays that
//! transaction.put("account", [&balance.unwrap_or_default()[..], b"0"].concat()).await?;
//! transaction.commit().await?;
//! # Ok(()) }
//! ```
//!
//! Commits take as few round trips as their keys permit: [`TransactionOptions`]. [`Client::metrics`] counts what
//! happens below.
//!
//! Reads may be spread over the replicas of a region. [`ReadFrom::Replica`] costs them a question to the leader; a read
//! of the past needs none:
//!
//! ```no_run
//! # use kontiki_client::{Client, ReadFrom};
//! # use std::time::Duration;
//! # async fn example(client: Client) -> Result<(), kontiki_client::Error> {
//! let fresh = client.raw().read_from(ReadFrom::Replica).get("k").await?;
//!
//! let snapshot = client.stale_snapshot(Duration::from_secs(5)).await?;
//! let account = snapshot.get("account").await?; // as it was five seconds ago
//! # Ok(()) }
//! ```
//!
//! Raw and transactional keys are separate spaces: what is written in one is not seen in the other. Every operation
//! ends within [`Options::operation_timeout`]; inside it, moved regions, lost leaders and unreachable nodes are tried
//! again. An [`Error`] says what to do next.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod backoff;
mod client;
mod cluster;
mod error;
mod keys;
mod metrics;
mod options;
mod placement;
mod raw;
mod region;
mod replicas;
mod reply;
mod scan;
mod split;
pub mod transport;
mod tso;
mod txn;

pub use client::{Client, RegionInfo, StoreInfo};
pub use error::{Error, LockWait};
pub use keys::KeyPair;
pub use kontiki_tls::TlsFiles;
pub use metrics::ClientMetrics;
pub use options::{Options, TransactionOptions};
pub use raw::{RawClient, Swap};
pub use replicas::ReadFrom;
pub use scan::RawScan;
pub use txn::{Mutation, PessimisticTransaction, Snapshot, SnapshotScan, Transaction};

/// Result with the client's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
