//! The tonic services of a node on one port. The meaning of requests is in `kv` and `pd`.

mod batch;
mod debug;
mod encoded;
mod etcd;
mod keyspace;
mod metrics;
mod pages;
mod pd;
mod tikv;
mod tinykv;
mod unimplemented;

pub use debug::DebugService;
pub use encoded::{EncodedCalls, TSO_PATH};
pub use metrics::RequestMetrics;
pub use pd::PdService;
pub use tikv::TikvService;

use crate::api::{Node, RetryBudget};
use crate::connections::Listener;
use crate::kv::Kv;
use crate::pd::Pd;
use crate::stopping::{Stage, Stopping};
use crate::transport::{HEADER_LIST_BYTES_MAX, Inbound, PeerService};
use etcd::EtcdService;
use futures::future::BoxFuture;
use keyspace::KeyspaceService;
use kontiki_proto::FILE_DESCRIPTOR_SET;
use kontiki_proto::pdpb::pd_server::{self, PdServer};
use kontiki_proto::tikvpb::tikv_server::{self, TikvServer};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tinykv::TinyKvService;
use tokio::runtime::Handle;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

/// HTTP/2 windows. Clients send all of a store's traffic over a few connections, so the default of 64 KiB would limit
/// throughput.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// The interval of probes on idle connections, so that those of unreachable machines do not accumulate.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of requests in flight on one connection; further ones wait. Clients send all of a store's traffic
/// over a few connections.
const STREAMS_MAX: u32 = 1_024;
/// Maximum bytes of a request besides its data: its context and the framing of its fields.
const REQUEST_FRAME_BYTES_MAX: u64 = 1 << 20;

/// The largest request that is decoded, compressed or not, where proposals have at most `entry_bytes_max` bytes. It is
/// twice that, so that a write that is somewhat too large is refused with the proposal's own limit, by a region error
/// that clients understand; lists of keys to read may have the same size.
pub fn request_bytes_max(entry_bytes_max: u64) -> usize {
    usize::try_from(2 * entry_bytes_max + REQUEST_FRAME_BYTES_MAX).unwrap_or(usize::MAX)
}

/// The largest message of a stream of batches, in requests of the largest size: clients count the requests that they
/// put into a message, not its bytes.
const BATCH_REQUESTS_FULL: usize = 8;
const BATCHES_PATH: &str = "/tikvpb.Tikv/BatchCommands";

/// The names under which the health service reports; the empty one is the node's.
pub const HEALTH_SERVICES: [&str; 3] = ["", tikv_server::SERVICE_NAME, pd_server::SERVICE_NAME];

/// A retry budget on tokio's clock.
pub fn retry_budget(wait_max: Duration) -> RetryBudget {
    let pause = |pause| -> BoxFuture<'static, ()> { Box::pin(tokio::time::sleep(pause)) };
    RetryBudget::new(wait_max, Arc::new(pause))
}

/// The services on the gRPC port.
pub struct Services<N: Node, I: Inbound> {
    /// Placement calls.
    pub pd: Pd<N>,
    /// Key-value calls.
    pub kv: Kv<N>,
    /// What tools ask.
    pub debug: DebugService<N>,
    /// Messages of other nodes.
    pub peers: PeerService<I>,
    /// Counts and measures requests.
    pub metrics: RequestMetrics,
    /// The runtime of requests.
    pub requests: Handle,
    /// See [`request_bytes_max`].
    pub request_bytes_max: usize,
}

impl<N: Node, I: Inbound> Services<N, I> {
    /// Serves on `listener` until clients' connections have to end, and then until all connections have ended: those of
    /// other nodes end later. Also returns the handle of the health service, which reports "serving" from the start.
    pub async fn serve(
        self,
        listener: Listener,
        stopping: Stopping,
    ) -> (HealthReporter, impl Future<Output = Result<(), tonic::transport::Error>> + Send) {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<TikvServer<TikvService<N>>>().await;
        reporter.set_serving::<PdServer<PdService<N>>>().await;
        let tikv = || TikvService::new(self.kv.clone(), self.metrics.clone(), self.requests.clone(), stopping.clone());
        let kv = tikv().into_server(self.request_bytes_max);
        let batches = tikv().into_server(BATCH_REQUESTS_FULL * self.request_bytes_max);
        let (metrics, bytes_max) = (self.metrics.clone(), self.request_bytes_max);
        let pd = || PdService::new(self.pd.clone(), metrics.clone(), stopping.clone());
        let etcd = || EtcdService::new(self.pd.clone(), metrics.clone());
        let keyspaces = KeyspaceService::new(self.pd.clone(), metrics.clone(), stopping.clone());
        let tinykv = TinyKvService::new(self.kv.clone(), metrics.clone(), self.requests.clone());
        let mut routes = Routes::new(kv)
            .add_service(pd().into_server())
            .add_service(pd().into_scheduler_server())
            .add_service(etcd().into_kv_server())
            .add_service(etcd().into_cluster_server())
            .add_service(keyspaces.into_server())
            .add_service(tinykv.into_server(bytes_max))
            .add_service(self.peers.into_server())
            .add_service(self.debug.into_server())
            .add_service(health.accept_compressed(CompressionEncoding::Gzip));
        if let Ok(reflection) = reflection().build_v1() {
            routes = routes.add_service(reflection.accept_compressed(CompressionEncoding::Gzip));
        }
        if let Ok(reflection) = reflection().build_v1alpha() {
            routes = routes.add_service(reflection.accept_compressed(CompressionEncoding::Gzip));
        }
        // A limit is one of a service, so the stream has a service of its own.
        let router =
            routes.into_axum_router().route_service(BATCHES_PATH, batches).merge(pages::pages(self.pd.clone()));
        let routes = unimplemented::named(router);
        let server = Server::builder()
            .accept_http1(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(routes);
        let stop = stopping.reached(Stage::Clients);
        (reporter, server.serve_with_incoming_shutdown(listener.into_stream(), stop))
    }
}

/// Server reflection, for tools such as grpcurl without the .proto files.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
