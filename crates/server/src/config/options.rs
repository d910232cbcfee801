//! The options: flags of `kontiki serve` and keys of its file, and their conversion to a [`ServeConfig`].

use super::*;
use kontiki_env::fs::{Fs, read_all};

/// Flags of `kontiki serve`, and with the same names the keys of its TOML file. All optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeOptions {
    /// Directory of the data; created if missing [default: ./kontiki-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Where gRPC listens: clients of TiKV and the other nodes connect here
    /// [default: this node's entry of --initial-cluster, or else --advertise-address, if that is an IP address; it has
    /// to be given if that is a host name; 127.0.0.1:20160 without either]
    #[arg(long, value_name = "IP:PORT")]
    pub grpc_address: Option<String>,

    /// The host:port that is advertised to clients and other nodes [default: this node's entry of --initial-cluster, or
    /// else --grpc-address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_address: Option<String>,

    /// Where HTTP listens: /metrics, /status, /healthz, /readyz [default: 127.0.0.1:20180]
    #[arg(long, value_name = "IP:PORT")]
    pub status_address: Option<String>,

    /// This node's number, 1 or greater, unique in the cluster, the same at every start [default: 1]
    #[arg(long, value_name = "ID")]
    pub store_id: Option<u64>,

    /// Every node of the cluster as ID=HOST:PORT,..., the same text on every node; absent: a single node
    #[arg(long, value_name = "LIST")]
    pub initial_cluster: Option<String>,

    /// Number that identifies the cluster, the same on every node [default: derived from the list of nodes]
    #[arg(long, value_name = "ID")]
    pub cluster_id: Option<u64>,

    /// Lets an empty data directory of a store that was a member before replace the lost directory: the store gets new
    /// replicas, and the lost directory is refused from then on. Has no effect on a directory that is not empty
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub replace_lost_directory: Option<bool>,

    /// error, warn, info, debug, trace, or a filter such as warn,kontiki_server=debug [default: warn]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Unit of raft time, in milliseconds, 5 to 10000 [default: 50]
    #[arg(long, value_name = "MS")]
    pub tick_ms: Option<u64>,

    /// Ticks without a leader before a node stands for election, 4 to 1000, above twice --heartbeat-ticks [default: 12]
    #[arg(long, value_name = "TICKS")]
    pub election_ticks: Option<u64>,

    /// Ticks between heartbeats of a leader, 1 to 100 [default: 2]
    #[arg(long, value_name = "TICKS")]
    pub heartbeat_ticks: Option<u64>,

    /// Largest proposal, and so the largest value or batch, in bytes, 1 MiB to 64 MiB [default: 8 MiB]
    #[arg(long, value_name = "BYTES")]
    pub raft_entry_bytes_max: Option<u64>,

    /// Size above which a region's log is no longer retained for a slow follower, in bytes, at least 1 MiB [default:
    /// 128 MiB]
    #[arg(long, value_name = "BYTES")]
    pub raft_log_bytes_max: Option<u64>,

    /// Where raft logs are kept: shared (in the node's log, one sync for all regions) or per-group (a file and a sync
    /// for each region). Another value than before moves them at the start, which takes their space twice [default: as
    /// the data directory has them; shared in a new one]
    #[arg(long, value_name = "WHERE")]
    pub raft_log: Option<String>,

    /// Size above which a region is split, in bytes of tables and values, 1 MiB to 1 TiB; 0: never [default: 256 MiB]
    #[arg(long, value_name = "BYTES")]
    pub region_bytes_max: Option<u64>,

    /// Number of stored keys (each version counts) above which a region is split, at least 1000; 0: never [default:
    /// 4000000]
    #[arg(long, value_name = "COUNT")]
    pub region_keys_max: Option<u64>,

    /// Requests per second to a region's leader (each key of a batch counts) above which the region is split, if a
    /// boundary divides them well, at least 100; 0: never [default: 5000]
    #[arg(long, value_name = "COUNT")]
    pub region_requests_per_second_max: Option<u64>,

    /// Bytes of keys and values per second, read and written at a region's leader, above which the region is split, if
    /// a boundary divides them well, at least 64 KiB; 0: never [default: 32 MiB]
    #[arg(long, value_name = "BYTES")]
    pub region_served_bytes_per_second_max: Option<u64>,

    /// Bytes per second of all snapshots (whole regions, for replicas that are new or lag) that this node sends, and
    /// of all that it receives, at least 1 MiB; 0: no limit [default: 120 MiB]
    #[arg(long, value_name = "BYTES")]
    pub snapshot_bytes_per_second_max: Option<u64>,

    /// Leaders move to the node with the highest priority among those that can lead, -100 to 100 [default: 0]
    #[arg(long, value_name = "PRIORITY", allow_negative_numbers = true)]
    pub leader_priority: Option<i32>,

    /// Time between two comparisons of the replicas of a region, in seconds, 10 to 31536000 (a year); 0: only by
    /// request [default: 86400, a day]
    #[arg(long, value_name = "SECONDS")]
    pub consistency_check_seconds: Option<u64>,

    /// Time between two advances of the timestamps up to which replicas serve stale reads, in milliseconds, 50 to
    /// 60000: only of regions with such reads in the last minute; 0: never, stale reads are refused [default: 1000]
    #[arg(long, value_name = "MS")]
    pub safe_ts_interval_ms: Option<u64>,

    /// Size at which a memtable is flushed, in bytes, 1 MiB to 4 GiB [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    pub memtable_bytes_max: Option<u64>,

    /// Memory for blocks of tables and for large values, in bytes, up to 1 TiB [default: 256 MiB]
    #[arg(long, value_name = "BYTES")]
    pub cache_bytes_max: Option<u64>,

    /// Size of the log that a start may have to replay, in bytes, 64 MiB to 64 GiB; while raft logs are retained for
    /// followers that lag, up to four times that, but then at most some 2 GiB [default: 512 MiB]
    #[arg(long, value_name = "BYTES")]
    pub log_bytes_max: Option<u64>,

    /// Longest wait of a request for a leader, in milliseconds, up to 1900: some clients give up at 2 s
    /// [default: 1500]
    #[arg(long, value_name = "MS")]
    pub park_ms_max: Option<u64>,

    /// Maximum number of connections, of both ports, 16 to 1000000; a quarter of the process's file descriptor limit if
    /// that is less. At the maximum a new connection replaces one that was idle for 5 s, or is closed [default: 2000]
    #[arg(long, value_name = "COUNT")]
    pub connections_max: Option<u64>,

    /// PEM file with the certificates of the authorities that sign those of nodes and clients. With --cert-file and
    /// --key-file every connection uses TLS; the files are read again when they change [default: no TLS]
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// PEM file with this node's certificate, valid for its advertised address as a server and as a client, and after
    /// it those of its issuers
    #[arg(long, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,

    /// PEM file with the private key of --cert-file, without a passphrase
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// required: clients need a certificate of --ca-file; optional: they may connect without one, other nodes may not
    /// [default: required]
    #[arg(long, value_name = "WHICH")]
    pub client_certificates: Option<String>,

    /// Whether the status port uses TLS, too (HTTPS, without certificates of clients) [default: false]
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub status_tls: Option<bool>,
}

/// Arguments of `kontiki serve`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArgs {
    /// TOML file with the options below under the same names; a flag wins over the file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The options.
    #[command(flatten)]
    pub options: ServeOptions,
}

impl ServeArgs {
    /// Reads the file, if one is given, applies the flags over it, and checks everything.
    pub fn resolve(self, fs: &dyn Fs) -> Result<ServeConfig, ConfigError> {
        let file = match self.config {
            None => ServeOptions::default(),
            Some(path) => ServeOptions::load(fs, path)?,
        };
        self.options.or(file).resolve()
    }
}

/// The struct literal makes a forgotten field a compile error.
macro_rules! first_given {
    ($flags:expr, $file:expr, { $($field:ident),+ $(,)? }) => {
        ServeOptions { $($field: $flags.$field.or($file.$field)),+ }
    };
}

impl ServeOptions {
    /// Parses a TOML file; unknown keys are refused by name.
    pub fn load(fs: &dyn Fs, path: PathBuf) -> Result<ServeOptions, ConfigError> {
        let fail = |message: String| ConfigError::File { path: path.clone(), message };
        let bytes = read_all(fs, &path).map_err(|error| fail(error.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| fail(error.to_string()))?;
        toml::from_str(text).map_err(|error| {
            let error = error.to_string();
            // "expected u64" is a word of programmers.
            let is_number = error.contains("invalid type: string") && ["expected u64", "expected i32"].iter().any(|kind| error.contains(kind));
            let remedy = if is_number {
                "; a whole number is expected, without quotes and unit: sizes are in bytes (64 MiB is 67108864), times in \
                 the unit that the option's name ends with"
            } else {
                ""
            };
            fail(format!("{}{remedy}", error.trim_end()))
        })
    }

    /// These options where given, else those of `file`.
    pub fn or(self, file: ServeOptions) -> ServeOptions {
        first_given!(self, file, {
            data_dir,
            grpc_address,
            advertise_address,
            status_address,
            store_id,
            initial_cluster,
            cluster_id,
            replace_lost_directory,
            log_level,
            tick_ms,
            election_ticks,
            heartbeat_ticks,
            raft_entry_bytes_max,
            raft_log_bytes_max,
            raft_log,
            region_bytes_max,
            region_keys_max,
            region_requests_per_second_max,
            region_served_bytes_per_second_max,
            snapshot_bytes_per_second_max,
            leader_priority,
            consistency_check_seconds,
            safe_ts_interval_ms,
            memtable_bytes_max,
            cache_bytes_max,
            log_bytes_max,
            park_ms_max,
            connections_max,
            ca_file,
            cert_file,
            key_file,
            client_certificates,
            status_tls,
        })
    }

    /// Fills in the defaults and checks everything.
    pub fn resolve(&self) -> Result<ServeConfig, ConfigError> {
        let store_id = in_range("store-id", self.store_id.unwrap_or(1), 1..=1_000_000)?;
        let cluster = self.initial_cluster.as_deref().map(parse_members).transpose()?;
        let own_entry = match &cluster {
            None => None,
            Some(members) => Some(members.get(&store_id).ok_or_else(|| {
                ConfigError::invalid(
                    "store-id",
                    store_id,
                    format!(
                        "one of initial-cluster: {}",
                        members.keys().map(u64::to_string).collect::<Vec<_>>().join(", ")
                    ),
                )
            })?),
        };

        let grpc_address = self.listening(own_entry)?;
        let status_text = self.status_address.as_deref().unwrap_or(STATUS_ADDRESS_DEFAULT);
        let status_address = parse_listen("status-address", status_text)?;
        if grpc_address == status_address && grpc_address.port() != 0 {
            return Err(ConfigError::invalid("status-address", status_text, "an address other than grpc-address"));
        }

        let advertised = self.advertised(own_entry, grpc_address)?;
        let derived_id = derive_cluster_id(store_id, cluster.as_ref());
        let cluster_id = in_range("cluster-id", self.cluster_id.unwrap_or(derived_id), 1..=u64::MAX)?;
        let mut members = cluster.unwrap_or_default();
        members.insert(store_id, advertised.clone().unwrap_or_else(|| grpc_address.to_string()));

        let node = NodeConfig {
            store_id,
            cluster_id,
            members,
            replicas: REPLICAS_DEFAULT,
            status_address: status_address.to_string(),
            replace_lost_directory: self.replace_lost_directory.unwrap_or(false),
            data_dir: self.data_dir.clone().unwrap_or_else(|| DATA_DIR_DEFAULT.into()),
            raft: self.raft()?,
            engine: self.engine()?,
        };
        Ok(ServeConfig {
            node,
            grpc_address,
            status_address,
            log_level: self.log_level.clone().unwrap_or_else(|| "warn".into()),
            park_time_max: Duration::from_millis(in_range("park-ms-max", self.park_ms_max.unwrap_or(1500), 0..=1900)?),
            connections_max: in_range("connections-max", self.connections_max.unwrap_or(2_000), 16..=1_000_000)?
                as usize,
            tls: self.tls()?,
            follow_listener: advertised.is_none(),
        })
    }

    /// Where gRPC listens. The advertised address is used only if it is an IP address: a host name may be that of a
    /// proxy, or of an interface that is reached through another one.
    fn listening(&self, own_entry: Option<&String>) -> Result<SocketAddr, ConfigError> {
        const FIELD: &str = "grpc-address";
        if let Some(given) = &self.grpc_address {
            return parse_listen(FIELD, given);
        }
        let Some(advertised) = own_entry.or(self.advertise_address.as_ref()) else {
            return parse_listen(FIELD, GRPC_ADDRESS_DEFAULT);
        };
        check_host_port("advertise-address", advertised)?;
        advertised.parse().map_err(|_| {
            let port = advertised.rsplit_once(':').map_or("20160", |(_, port)| port);
            let accepted = format!(
                "IP:PORT to listen on, such as 0.0.0.0:{port}; it has to be given, because {advertised}, by which others reach \
                 this node, is a host name"
            );
            ConfigError::invalid(FIELD, "(not given)", accepted)
        })
    }

    /// The advertised address; `None` when it is the address that the listener gets.
    fn advertised(&self, own_entry: Option<&String>, grpc_address: SocketAddr) -> Result<Option<String>, ConfigError> {
        if let Some(given) = &self.advertise_address {
            check_host_port("advertise-address", given)?;
            if own_entry.is_some_and(|entry| entry != given) {
                let accepted = "this node's entry of initial-cluster, when both are given";
                return Err(ConfigError::invalid("advertise-address", given, accepted));
            }
            return Ok(Some(given.clone()));
        }
        if own_entry.is_none() && grpc_address.ip().is_unspecified() {
            let accepted = "a host:port that clients can reach, since grpc-address listens on every interface";
            return Err(ConfigError::invalid("advertise-address", "(not given)", accepted));
        }
        Ok(own_entry.cloned())
    }

    fn tls(&self) -> Result<Option<TlsConfig>, ConfigError> {
        let files = TlsFiles::of_node(self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone());
        let files = files.map_err(|error| ConfigError::Incomplete(error.to_string()))?;
        let clients = match self.client_certificates.as_deref() {
            None | Some("required") => ClientCertificates::Required,
            Some("optional") => ClientCertificates::Optional,
            Some(other) => return Err(ConfigError::invalid("client-certificates", other, "required or optional")),
        };
        let status = self.status_tls.unwrap_or(false);
        if files.is_none() {
            let needs = "only together with ca-file, cert-file and key-file";
            if let Some(given) = &self.client_certificates {
                return Err(ConfigError::invalid("client-certificates", given, needs));
            }
            if status {
                return Err(ConfigError::invalid("status-tls", true, needs));
            }
        }
        Ok(files.map(|files| TlsConfig { files, clients, status }))
    }

    fn raft(&self) -> Result<RaftOptions, ConfigError> {
        let default = RaftOptions::default();
        let tick_ms =
            in_range("tick-ms", self.tick_ms.unwrap_or(default.tick_interval.as_millis() as u64), 5..=10_000)?;
        let beat = self.heartbeat_ticks.unwrap_or(u64::from(default.heartbeat_ticks));
        let heartbeat_ticks = in_range("heartbeat-ticks", beat, 1..=100)? as u32;
        let ticks =
            in_range("election-ticks", self.election_ticks.unwrap_or(u64::from(default.election_ticks)), 4..=1000)?;
        // One lost heartbeat must not depose a leader.
        if ticks <= 2 * u64::from(heartbeat_ticks) {
            let accepted = format!("more than twice heartbeat-ticks, which is {heartbeat_ticks}");
            return Err(ConfigError::invalid("election-ticks", ticks, accepted));
        }
        let entry = self.raft_entry_bytes_max.unwrap_or(default.entry_bytes_max);
        let log = self.raft_log_bytes_max.unwrap_or(default.log_bytes_max);
        let bytes = self.region_bytes_max.unwrap_or(default.region_bytes_max);
        let priority = self.leader_priority.unwrap_or(default.leader_priority);
        let keys = self.region_keys_max.unwrap_or(default.region_keys_max);
        let requests = self.region_requests_per_second_max.unwrap_or(default.region_requests_per_second_max);
        let served = self.region_served_bytes_per_second_max.unwrap_or(default.region_served_bytes_per_second_max);
        let check = self.consistency_check_seconds.unwrap_or(default.consistency_check_interval.as_secs());
        let snapshots = self.snapshot_bytes_per_second_max.unwrap_or(default.snapshot_bytes_per_second_max);
        let check = zero_or_in_range("consistency-check-seconds", check, 10..=365 * 24 * 60 * 60)?;
        let safe_ts = self.safe_ts_interval_ms.unwrap_or(default.safe_ts_interval.as_millis() as u64);
        let safe_ts = zero_or_in_range("safe-ts-interval-ms", safe_ts, 50..=60_000)?;
        Ok(RaftOptions {
            tick_interval: Duration::from_millis(tick_ms),
            election_ticks: ticks as u32,
            heartbeat_ticks,
            entry_bytes_max: in_range("raft-entry-bytes-max", entry, (1 << 20)..=ENTRY_BYTES_LIMIT)?,
            log_bytes_max: in_range("raft-log-bytes-max", log, (1 << 20)..=(1 << 40))?,
            region_bytes_max: zero_or_in_range("region-bytes-max", bytes, (1 << 20)..=(1 << 40))?,
            region_keys_max: zero_or_in_range("region-keys-max", keys, 1_000..=(1 << 40))?,
            region_requests_per_second_max: zero_or_in_range(
                "region-requests-per-second-max",
                requests,
                100..=(1 << 40),
            )?,
            region_served_bytes_per_second_max: zero_or_in_range(
                "region-served-bytes-per-second-max",
                served,
                (64 << 10)..=(1 << 40),
            )?,
            region_load_window: default.region_load_window,
            consistency_check_interval: Duration::from_secs(check),
            safe_ts_interval: Duration::from_millis(safe_ts),
            snapshot_bytes_per_second_max: zero_or_in_range(
                "snapshot-bytes-per-second-max",
                snapshots,
                (1 << 20)..=(1 << 40),
            )?,
            leader_priority: in_range("leader-priority", priority, -100..=100)?,
            log_choice: self.log_choice()?,
            log_files: default.log_files,
        })
    }

    fn log_choice(&self) -> Result<Option<LogChoice>, ConfigError> {
        let parse =
            |text: &String| text.parse().map_err(|_| ConfigError::invalid("raft-log", text, "shared or per-group"));
        self.raft_log.as_ref().map(parse).transpose()
    }

    fn engine(&self) -> Result<EngineOptions, ConfigError> {
        let default = EngineOptions::default();
        let memtable = self.memtable_bytes_max.unwrap_or(default.memtable_bytes_max);
        let cache = self.cache_bytes_max.unwrap_or(default.cache_bytes_max);
        let log = self.log_bytes_max.unwrap_or(default.log_bytes_max);
        Ok(EngineOptions {
            memtable_bytes_max: in_range("memtable-bytes-max", memtable, (1 << 20)..=(4 << 30))?,
            cache_bytes_max: in_range("cache-bytes-max", cache, 0..=(1 << 40))?,
            log_bytes_max: in_range("log-bytes-max", log, (64 << 20)..=(64 << 30))?,
        })
    }
}
