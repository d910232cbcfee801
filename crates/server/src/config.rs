//! Configuration of a node: the options of `kontiki serve`, their meaning, and their checks.
//!
//! One list of names serves both sources: [`ServeOptions`] is the set of flags and, with the same names, of keys in the
//! TOML file. A flag wins over the file, the file over the default. Everything is resolved and checked once, into a
//! [`ServeConfig`]; no other code depends on the source of a value.
//!
//! Errors name the field, the value and the accepted range. An unknown key in the file is an error, because a misspelt
//! option that is silently ignored is found only when it is needed.

mod options;

pub use options::{ServeArgs, ServeOptions};

use kontiki_raftlog::{FileOptions, LogChoice};
use kontiki_tls::{ClientCertificates, TlsFiles};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The default gRPC address.
pub const GRPC_ADDRESS_DEFAULT: &str = "127.0.0.1:20160";
/// The default address of the status port.
pub const STATUS_ADDRESS_DEFAULT: &str = "127.0.0.1:20180";
/// The default data directory.
pub const DATA_DIR_DEFAULT: &str = "./kontiki-data";

/// The maximum number of nodes of a cluster at bootstrap: enough for any replication factor that is tested, small
/// enough to print.
pub const CLUSTER_NODES_MAX: usize = 9;

/// Replicas of a region in a cluster's first state.
pub const REPLICAS_DEFAULT: usize = 3;
/// The largest proposal that a node may be configured for, in bytes: every node must be able to receive it.
pub const ENTRY_BYTES_LIMIT: u64 = 64 << 20;

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value outside what is accepted.
    #[error("{field} = {value}: accepted is {accepted}")]
    Invalid {
        /// The option's name, as a flag without its dashes and as a key of the file.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// What is accepted.
        accepted: String,
    },
    /// The file is invalid: bad syntax, an unknown key, or a value of the wrong type.
    #[error("configuration file {path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, column and error.
        message: String,
    },
    /// Options that go together.
    #[error("{0}")]
    Incomplete(String),
}

impl ConfigError {
    fn invalid(field: &'static str, value: impl Display, accepted: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { field, value: value.to_string(), accepted: accepted.into() }
    }
}

/// The complete configuration of a served node, resolved and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// The part that the driver needs. `node.members` holds the advertised addresses; the entry of a node that listens
    /// on port 0 is corrected by [`ServeConfig::bound_to`].
    pub node: NodeConfig,
    /// Where gRPC listens.
    pub grpc_address: SocketAddr,
    /// Where HTTP status listens.
    pub status_address: SocketAddr,
    /// Verbosity: error, warn, info, debug, trace, or a `tracing` filter such as `warn,kontiki_server=debug`.
    pub log_level: String,
    /// The longest time that a request waits for a leader, instead of an answer that some clients treat as fatal.
    pub park_time_max: Duration,
    /// Maximum number of incoming connections, of both ports; a quarter of the process's descriptors if that is less.
    pub connections_max: usize,
    /// Certificates; `None`: connections are in plain text.
    pub tls: Option<TlsConfig>,
    /// Whether the advertised address follows the listening one (it was not given).
    follow_listener: bool,
}

/// How a node uses TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificates of the authorities, the node's own one, and its key.
    pub files: TlsFiles,
    /// Whether clients need certificates; other nodes always do.
    pub clients: ClientCertificates,
    /// Whether the status port uses TLS, too.
    pub status: bool,
}

/// A node without its sockets: the part that the driver and the simulator need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// This store's id: 1 or greater, one of `members`.
    pub store_id: u64,
    /// Never 0. Derived from the members, or given.
    pub cluster_id: u64,
    /// Replicas of a region in the cluster's first state: on the first members of the list. Equal on every node.
    pub replicas: usize,
    /// Store id to advertised `host:port`, of every node of the first cluster; never empty.
    pub members: BTreeMap<u64, String>,
    /// `host:port` of the status port, as published for operators.
    pub status_address: String,
    /// If the data directory is empty and the cluster knows another one of this store: that one is permanently lost,
    /// and this one replaces it.
    pub replace_lost_directory: bool,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Timing and bounds of replication.
    pub raft: RaftOptions,
    /// Bounds of the storage engine.
    pub engine: EngineOptions,
}

/// Timing and bounds of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftOptions {
    /// The unit of raft time.
    pub tick_interval: Duration,
    /// A follower that receives nothing for this many ticks, up to twice as many, stands for election. With the default
    /// (12 ticks of 50 ms: 0.6 to 1.2 s) a failover fits in the 1.5 s that the Rust client retries a region.
    pub election_ticks: u32,
    /// Ticks between the heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// Largest proposal, in bytes: it bounds a served value, and what one batch may write.
    pub entry_bytes_max: u64,
    /// A region's log above this size is truncated without waiting for slow followers: they get a snapshot.
    pub log_bytes_max: u64,
    /// A region with more bytes in tables and in the value log is split; 0: none is.
    pub region_bytes_max: u64,
    /// A region with more versions of keys is split; 0: none is.
    pub region_keys_max: u64,
    /// A region whose leader serves more requests a second is split, each key of a batch being one; 0: none is.
    pub region_requests_per_second_max: u64,
    /// A region whose leader serves more bytes of keys and values a second is split; 0: none is.
    pub region_served_bytes_per_second_max: u64,
    /// How long these are averaged. Not an option: simulations have less time.
    pub region_load_window: Duration,
    /// Bytes a second of all snapshots that this node sends, and of all that it receives; 0: without a limit.
    pub snapshot_bytes_per_second_max: u64,
    /// Leaders move to the node with the highest priority among those that are able to lead.
    pub leader_priority: i32,
    /// Between two comparisons of a region's replicas; zero: only by request.
    pub consistency_check_interval: Duration,
    /// Between two advances of the safe timestamps of regions that are read at timestamps; zero: never.
    pub safe_ts_interval: Duration,
    /// Where raft logs are kept from now on; `None`: where the directory has them, and in a new one in the shared log.
    pub log_choice: Option<LogChoice>,
    /// Bounds of raft logs in files. Not an option: simulations have smaller ones.
    pub log_files: FileOptions,
}

impl Default for RaftOptions {
    fn default() -> RaftOptions {
        RaftOptions {
            tick_interval: Duration::from_millis(50),
            election_ticks: 12,
            heartbeat_ticks: 2,
            entry_bytes_max: 8 << 20,
            log_bytes_max: 128 << 20,
            region_bytes_max: 256 << 20,
            region_keys_max: 4_000_000,
            region_requests_per_second_max: 5_000,
            region_served_bytes_per_second_max: 32 << 20,
            region_load_window: Duration::from_secs(1),
            // What a network of 1 GBit/s carries.
            snapshot_bytes_per_second_max: 120 << 20,
            leader_priority: 0,
            consistency_check_interval: Duration::from_secs(24 * 60 * 60),
            safe_ts_interval: Duration::from_secs(1),
            log_choice: None,
            log_files: FileOptions::default(),
        }
    }
}

/// Bounds of the storage engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// A memtable of this size is flushed.
    pub memtable_bytes_max: u64,
    /// Memory for blocks of tables and for large values.
    pub cache_bytes_max: u64,
    /// The log's size above which the data that pin its oldest segment are flushed or rewritten: bounds replay.
    pub log_bytes_max: u64,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { memtable_bytes_max: 64 << 20, cache_bytes_max: 256 << 20, log_bytes_max: 512 << 20 }
    }
}

impl NodeConfig {
    /// One node with defaults in `data_dir`, at `address`: for tests and for embedding a served store.
    pub fn single(data_dir: impl Into<PathBuf>, address: impl Into<String>) -> NodeConfig {
        let members = BTreeMap::from([(1, address.into())]);
        NodeConfig {
            store_id: 1,
            cluster_id: derive_cluster_id(1, None),
            members,
            replicas: REPLICAS_DEFAULT,
            status_address: STATUS_ADDRESS_DEFAULT.into(),
            replace_lost_directory: false,
            data_dir: data_dir.into(),
            raft: RaftOptions::default(),
            engine: EngineOptions::default(),
        }
    }

    /// This node's advertised `host:port`.
    pub fn address(&self) -> &str {
        self.members.get(&self.store_id).map_or("", String::as_str)
    }
}

impl ServeConfig {
    /// Sets the addresses that the listeners really got (they differ from the configured ones for port 0). The
    /// advertised address follows if none was configured.
    pub fn bound_to(mut self, grpc: SocketAddr, status: SocketAddr) -> ServeConfig {
        self.grpc_address = grpc;
        self.status_address = status;
        self.node.status_address = status.to_string();
        if self.follow_listener {
            self.node.members.insert(self.node.store_id, grpc.to_string());
        }
        self
    }
}

/// A cluster's id from its first members: every node derives the same id, never 0. Without a list of members it depends
/// on the store's id alone, so that a one-node store may be started at another address.
fn derive_cluster_id(store_id: u64, members: Option<&BTreeMap<u64, String>>) -> u64 {
    let text = match members {
        None => format!("single {store_id}"),
        Some(members) => members.iter().map(|(id, address)| format!("{id}={address},")).collect(),
    };
    // FNV-1a: it never changes, and the id is not a secret.
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    // Some clients print ids as signed numbers; and 0 means "no cluster".
    (hash >> 1).max(1)
}

/// Parses `1=host:port,2=host:port,...`.
fn parse_members(text: &str) -> Result<BTreeMap<u64, String>, ConfigError> {
    const FIELD: &str = "initial-cluster";
    let accepted = "a list such as 1=127.0.0.1:20160,2=127.0.0.1:20161 with store ids of 1 or greater, each once";
    let mut members = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let member = item.split_once('=').and_then(|(id, address)| {
            let id: u64 = id.trim().parse().ok().filter(|id| *id > 0)?;
            Some((id, address.trim().to_owned()))
        });
        let (id, address) = member.ok_or_else(|| ConfigError::invalid(FIELD, item, accepted))?;
        check_host_port(FIELD, &address)?;
        if members.values().any(|other| *other == address) || members.insert(id, address).is_some() {
            return Err(ConfigError::invalid(FIELD, text, format!("{accepted}; and each address once")));
        }
    }
    if members.is_empty() || members.len() > CLUSTER_NODES_MAX {
        return Err(ConfigError::invalid(FIELD, text, format!("1 to {CLUSTER_NODES_MAX} nodes")));
    }
    Ok(members)
}

/// `host:port` with a port of 1 or greater and no scheme: clients use store addresses unchanged.
fn check_host_port(field: &'static str, text: &str) -> Result<(), ConfigError> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let port = port.parse::<u16>();
        !host.is_empty() && !host.contains(['/', ' ', '@']) && port.is_ok_and(|port| port > 0)
    });
    if good { Ok(()) } else { Err(ConfigError::invalid(field, text, "host:port without a scheme, port 1 to 65535")) }
}

fn parse_listen(field: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    let accepted = "IP:port such as 127.0.0.1:20160; port 0 picks a free one";
    text.parse().map_err(|_| ConfigError::invalid(field, text, accepted))
}

fn in_range<T>(field: &'static str, value: T, range: std::ops::RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: PartialOrd + std::fmt::Display,
{
    if range.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::invalid(field, value, format!("{} to {}", range.start(), range.end())))
}

/// For an option that 0 turns off.
fn zero_or_in_range(field: &'static str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, ConfigError> {
    if value == 0 || range.contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::invalid(field, value, format!("0, or {} to {}", range.start(), range.end())))
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
