//! A served node: directory, driver, transport, gRPC and HTTP, and their clean shutdown.
//!
//! A start binds the ports first: an error in an address is reported before a directory is changed, and early
//! connections wait in the listener's queue. Then the driver recovers; only then the node accepts requests.
//!
//! A stop happens in reverse order: the health service reports "not serving", leaderships are transferred, clients are
//! sent elsewhere and what they asked is answered (`stop.rs`), the driver completes what it has begun, memtables are
//! flushed so that the next start is short, and the directory is closed.

mod idle_memory;
mod runner;
mod stop;
mod tls;

use crate::config::{ConfigError, ServeConfig};
use crate::connections::{ConnectionMetrics, Connections, Listener, connections_max};
use crate::driver::{Driver, NodeHandle, OpenError};
use crate::grpc::{DebugService, RequestMetrics, Services, request_bytes_max, retry_budget};
use crate::http::{NodeCollector, StatusPages};
use crate::kv::Kv;
use crate::pd::Pd;
use crate::resolver::{Connections as StoreConnections, Resolver};
use crate::stopping::{Stage, StopControl, Stopping};
use crate::transport::{
    Identity, Links, NodeInbound, PeerService, Transport, TransportMetrics, TransportOptions, Versions,
};
use kontiki_env::Env;
use kontiki_env::machine::descriptors_max;
use kontiki_env::rng::Rng;
use kontiki_tls::{Credentials, TlsError};
use prometheus_client::registry::Registry;
use runner::Runner;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic_health::server::HealthReporter;

/// The minimum number of threads for requests: reads run on them and may wait for the disk.
const REQUEST_WORKERS_MIN: usize = 4;
/// The number of threads for connections, including those of other nodes: no work on them takes long.
const IO_WORKERS_MAX: usize = 4;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process listens there.
    #[error("the address {address} is in use by another process; stop that one, or choose another with --{flag}")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        flag: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}; choose another address with --{flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        flag: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operating system refused threads or timers.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

impl StartError {
    /// Whether the options, or the directory they name, have to change before it can start.
    pub fn is_asked_wrongly(&self) -> bool {
        if let StartError::Open(OpenError::Engine(error)) = self
            && error.is_about_the_path()
        {
            return true;
        }
        matches!(
            self,
            StartError::Config(_)
                | StartError::Tls(_)
                | StartError::Open(
                    OpenError::Config(_)
                        | OpenError::Identity { .. }
                        | OpenError::EmbeddedData { .. }
                        | OpenError::OtherMembers { .. }
                        | OpenError::NoAddress { .. }
                        | OpenError::Inconsistent { .. }
                        | OpenError::Engine(kontiki_engine::Error::InvalidArgument(_))
                )
        )
    }
}

/// Why a running node failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It stopped by itself: the disk failed, or continuing could have made replicas differ.
    #[error("the node stopped: {0}")]
    Stopped(String),
    /// The directory could not be closed cleanly. What was acknowledged is in the log in any case.
    #[error("closing the data directory: {0}")]
    Close(String),
}

/// A running node. Dropping it stops it abruptly, as a killed process; prefer [`Server::run_until`].
pub struct Server {
    config: ServeConfig,
    node: NodeHandle,
    runner: Runner,
    health: HealthReporter,
    connections: Arc<Connections>,
    links: Links,
    stop: StopControl,
    listeners: Vec<JoinHandle<()>>,
    /// For connections and messages between nodes.
    runtime: Runtime,
    /// For requests, which may wait for the disk or compute for a long time.
    requests: Runtime,
}

impl Server {
    /// Starts a node on the real machine. Blocks while the directory is recovered; not to be called from within an
    /// async runtime.
    pub fn start(config: ServeConfig) -> Result<Server, StartError> {
        let env = Env::real();
        let (runtime, requests) = (io_runtime()?, requests_runtime()?);
        let (grpc, status) = runtime.block_on(async {
            let grpc = listen(config.grpc_address, "grpc-address").await?;
            let status = listen(config.status_address, "status-address").await?;
            Ok::<_, StartError>((grpc, status))
        })?;
        let config = config.bound_to(local(&grpc)?, local(&status)?);
        let credentials = tls::credentials(&env, &config)?;

        let seed = election_seed(&env, config.node.store_id);
        let driver = Driver::open(&env, config.node.clone(), seed)?;
        let node = driver.handle();
        let identity = Identity { cluster_id: node.cluster_id(), store_id: node.store_id(), versions: Versions::OWN };

        let mut registry = Registry::with_prefix("kontiki");
        let transport_metrics = TransportMetrics::default();
        transport_metrics.register(&mut registry);
        let request_metrics = RequestMetrics::new(env.clock.clone());
        request_metrics.register(&mut registry);
        registry.register_collector(Box::new(NodeCollector(node.clone())));
        let connection_metrics = ConnectionMetrics::default();
        connection_metrics.register(&mut registry);
        let connections_max = connections_max(config.connections_max, descriptors_max());
        let connections = Connections::new(connections_max, env.clock.clone(), connection_metrics);

        let (members, io) = (&config.node.members, runtime.handle().clone());
        let handle = node.clone();
        let on_failure = Arc::new(move |store, why: &str| handle.store_unreachable(store, why));
        tls::watch(credentials.as_ref(), &mut registry, &io);
        let for_peers = credentials.clone();
        let (for_transport, links) = (transport_metrics.clone(), Links::default());
        let options = transport_options(&env, &config, for_peers, links.clone());
        let transport = Transport::start(identity, members, io, for_transport, on_failure, options);
        let is_reachable = transport.reachability();
        let runner = Runner::start(&env, driver, transport);

        let inbound = Arc::new(NodeInbound::new(node.clone(), env.fs.clone()));
        let retry_budget = retry_budget(config.park_time_max);
        let detach_on = requests.handle().clone();
        let detach = Arc::new(move |future| drop(detach_on.spawn(future)));
        let (rate, clock) = (config.node.raft.snapshot_bytes_per_second_max, env.clock.clone());
        let stop = StopControl::default();
        let services = Services {
            pd: Pd::new(node.clone(), retry_budget.clone(), is_reachable).with_tls(credentials.is_some()),
            kv: Kv::new(node.clone(), retry_budget, detach),
            debug: DebugService::new(node.clone()),
            peers: PeerService::new(identity, inbound, transport_metrics, stop.stopping(), links.clone(), rate, clock)
                .of_members(config.node.members.keys().copied()),
            metrics: request_metrics,
            requests: requests.handle().clone(),
            request_bytes_max: request_bytes_max(config.node.raft.entry_bytes_max),
        };
        let pages = StatusPages { node: node.clone(), address: config.node.address().to_owned(), registry };
        let stores = StoreConnections::new(node.clone(), credentials.clone());
        let rng = Rng::new(seed).child("resolver");
        let resolver = Resolver::new(node.clone(), stores, rng);
        requests.spawn(resolver.run(stop.stopping()));
        requests.spawn(idle_memory::return_when_idle(node.clone(), stop.stopping()));
        let (grpc, status) = protect([grpc, status], &connections, &config, credentials);
        let (health, listeners) = runtime.block_on(accept(services, grpc, pages, status, stop.stopping()));
        tracing::info!(store = identity.store_id.0, cluster = identity.cluster_id, "started");
        Ok(Server { config, node, runner, health, connections, links, stop, listeners, runtime, requests })
    }

    /// Its configuration; addresses are those on which it really listens.
    pub fn config(&self) -> &ServeConfig {
        &self.config
    }

    /// The node.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// The links to other nodes, which tests can cut.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The start message for the user: the addresses on which it listens, and what to try.
    pub fn banner(&self) -> String {
        let ServeConfig { node, grpc_address, status_address, .. } = &self.config;
        let endpoint = node.address();
        let others = match node.members.len() - 1 {
            0 => "alone".to_owned(),
            1 => "with 1 other node".to_owned(),
            count => format!("with {count} other nodes"),
        };
        let (tls, options) = tls::banner(&self.config);
        let scheme = if self.config.tls.as_ref().is_some_and(|tls| tls.status) { "https" } else { "http" };
        format!(
            "Kontiki {version}: store {store} of cluster {cluster}, {others}\n\
             \x20 gRPC    {grpc_address}  (TiKV clients: PD address {endpoint})\n\
             \x20 status  {scheme}://{status_address}/status  /metrics  /healthz  /readyz\n\
             {tls}\
             \x20 data    {directory}\n\
             Try:\n\
             \x20 kontiki put --endpoint {endpoint}{options} hello world\n\
             \x20 kontiki get --endpoint {endpoint}{options} hello\n\
             Ctrl-C stops it.",
            version = env!("CARGO_PKG_VERSION"),
            store = node.store_id,
            cluster = node.cluster_id,
            directory = node.data_dir.display(),
        )
    }

    /// Runs until `asked` is done, or until the node stops by itself, and then shuts down cleanly.
    pub fn run_until(self, asked: impl Future<Output = ()>) -> Result<(), ServeError> {
        self.run(asked, std::future::pending())
    }

    /// The same; when `hurried` is done, the stop does not wait any longer for other nodes and for clients.
    pub fn run(mut self, asked: impl Future<Output = ()>, hurried: impl Future<Output = ()>) -> Result<(), ServeError> {
        let runner = &mut self.runner;
        let ended = self.runtime.block_on(async {
            tokio::select! {
                () = asked => None,
                reason = runner.ended() => Some(reason),
            }
        });
        let closed = self.stop(hurried, ended.is_some());
        match ended {
            Some(reason) => Err(ServeError::Stopped(reason)),
            None => closed,
        }
    }

    /// Runs until the process is interrupted (Ctrl-C) or gets a termination signal. A second one means that the stop
    /// does not wait for other nodes and for clients.
    pub fn run_until_interrupted(self) -> Result<(), ServeError> {
        self.run(interrupted(), interrupted())
    }
}

/// The gRPC port and the status port, with their connections bounded, and by TLS as configured.
fn protect(
    ports: [TcpListener; 2],
    connections: &Arc<Connections>,
    config: &ServeConfig,
    credentials: Option<Arc<Credentials>>,
) -> (Listener, Listener) {
    let [grpc, status] = ports.map(|port| Listener::new(port, connections.clone()));
    let for_status = credentials.clone().filter(|_| config.tls.as_ref().is_some_and(|tls| tls.status));
    (grpc.with_credentials(credentials), status.for_pages().with_credentials(for_status))
}

/// Starts to accept requests on both listeners.
async fn accept(
    services: Services<NodeHandle, NodeInbound>,
    grpc: Listener,
    pages: StatusPages,
    status: Listener,
    stopping: Stopping,
) -> (HealthReporter, Vec<JoinHandle<()>>) {
    let (health, serving) = services.serve(grpc, stopping.clone()).await;
    let grpc_task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the gRPC listener failed");
        }
    });
    let http_task = tokio::spawn(async move {
        let serving = axum::serve(status, pages.into_router()).with_graceful_shutdown(stopping.reached(Stage::Clients));
        if let Err(error) = serving.await {
            tracing::error!(%error, "the status listener failed");
        }
    });
    (health, vec![grpc_task, http_task])
}

/// Done when the process has to end.
async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                tokio::select! {
                    _ = interrupt => {}
                    _ = terminate.recv() => {}
                }
            }
            Err(_) => drop(interrupt.await),
        }
    }
    #[cfg(not(unix))]
    drop(interrupt.await);
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address, flag },
        _ => StartError::Listen { address, flag, error },
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::Runtime)
}

fn io_runtime() -> Result<Runtime, StartError> {
    runtime("kontiki-io", cores().clamp(2, IO_WORKERS_MAX))
}

fn requests_runtime() -> Result<Runtime, StartError> {
    runtime("kontiki-request", cores().max(REQUEST_WORKERS_MIN))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn runtime(name: &str, workers: usize) -> Result<Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(name)
        .on_thread_start(|| kontiki_proto::codec::run_large_by(|work| tokio::task::block_in_place(work)))
        .enable_all()
        .build()
        .map_err(StartError::Runtime)
}

fn transport_options(
    env: &Env,
    config: &ServeConfig,
    credentials: Option<Arc<Credentials>>,
    links: Links,
) -> TransportOptions {
    TransportOptions {
        credentials,
        links,
        snapshot_bytes_per_second_max: config.node.raft.snapshot_bytes_per_second_max,
        process: Rng::new(election_seed(env, config.node.store_id)).child("transport").next_u64(),
        clock: env.clock.clone(),
    }
}

/// Differs between nodes and between starts, so that nodes do not stand for election at the same time.
fn election_seed(env: &Env, store_id: u64) -> u64 {
    let process = u64::from(std::process::id());
    env.clock.wall_ms().rotate_left(20) ^ store_id.rotate_left(48) ^ process
}

#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod pages_test;
#[cfg(test)]
mod services_test;
#[cfg(test)]
#[path = "node_test.rs"]
mod tests;
