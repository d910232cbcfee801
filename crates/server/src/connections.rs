//! Incoming connections, of both ports together: bounded in number, so that they cannot use up the descriptors that the
//! engine needs for its files.
//!
//! At the bound a new connection replaces the one that has been idle for the longest time, if that is at least
//! [`IDLE_MIN`]: connections that are opened and then idle block others for no longer than that. If all are busy, the
//! new connection is closed at once, which clients treat like a refused connection.
//!
//! *Rejected:* leaving new connections in the listener's queue at the bound. Idle connections would then block other
//! nodes and clients without a visible error.
//!
//! Bytes in either direction count as activity, also HTTP/2's probes (every 30 s).
//!
//! With certificates (docs/internals/transport.md) a connection begins with a handshake, in its own task.

mod connection;
mod refusals;
mod stream;

pub use connection::{Connection, ConnectionInfo};

use futures::task::AtomicWaker;
use kontiki_env::clock::Clock;
use kontiki_tls::Credentials;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use refusals::RefusalLog;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use stream::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A connection is replaced by another only after it has been idle for this long: longer than a client waits for an
/// answer (2 s), and than the interval of a peer's probes.
pub const IDLE_MIN: Duration = Duration::from_secs(5);
/// The wait after a failed accept: the usual cause is a lack of descriptors, which does not end sooner.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections get one in this many of the process's descriptors; the engine gets the rest.
const DESCRIPTORS_SHARE: u64 = 4;
/// A cluster cannot work with fewer connections than this.
const CONNECTIONS_MIN: usize = 16;

/// The maximum number of connections: `asked`, or a part of the descriptors of this process if that is less.
pub fn connections_max(asked: usize, descriptors: Option<u64>) -> usize {
    let share = descriptors.map_or(u64::MAX, |descriptors| descriptors / DESCRIPTORS_SHARE);
    asked.min(usize::try_from(share).unwrap_or(usize::MAX)).max(CONNECTIONS_MIN)
}

/// Metrics of connections.
#[derive(Clone, Default)]
pub struct ConnectionMetrics {
    /// Open now.
    pub open: Gauge,
    /// The bound.
    pub max: Gauge,
    /// Closed at once, since all others were busy.
    pub refused: Counter,
    /// Idle, and closed for a new connection.
    pub displaced: Counter,
    /// Failed accepts.
    pub failures: Counter,
    /// Handshakes of TLS that succeeded.
    pub handshakes: Counter,
    /// Connections refused before their first request: without TLS where it is required, or without a certificate that
    /// is accepted.
    pub handshakes_failed: Counter,
}

impl ConnectionMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections_open", "Open incoming connections, both ports", self.open.clone());
        registry.register("connections_max", "Maximum number of open connections", self.max.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once because all others were busy",
            self.refused.clone(),
        );
        registry.register("connections_displaced", "Idle connections closed for a new one", self.displaced.clone());
        registry.register("connections_failed", "Failed accepts of connections", self.failures.clone());
        registry.register("tls_handshakes", "Handshakes of TLS that succeeded", self.handshakes.clone());
        registry.register(
            "tls_handshakes_failed",
            "Connections refused for lack of TLS or of an accepted certificate, or with TLS where there is none",
            self.handshakes_failed.clone(),
        );
    }
}

/// The connections of a node.
pub struct Connections {
    max: usize,
    clock: Arc<dyn Clock>,
    metrics: ConnectionMetrics,
    open: Mutex<Table>,
    refusals: RefusalLog,
    /// Notified when a connection closes, or turns out to be another node's.
    fewer_clients: Notify,
}

#[derive(Default)]
struct Table {
    by_id: BTreeMap<u64, Arc<State>>,
    last_id: u64,
}

/// The state shared by a connection and the table.
struct State {
    opened_at_ms: u64,
    moved_at_ms: AtomicU64,
    displaced: AtomicBool,
    /// A client of the store uses it: not another node, nor a reader of the status pages.
    client: AtomicBool,
    /// It proved its identity by a certificate, or none is needed.
    is_identified: AtomicBool,
    reader: AtomicWaker,
}

impl State {
    fn is_client(&self) -> bool {
        self.client.load(Ordering::Acquire)
    }
}

impl Connections {
    /// At most `max` at once.
    pub fn new(max: usize, clock: Arc<dyn Clock>, metrics: ConnectionMetrics) -> Arc<Connections> {
        metrics.max.set(i64::try_from(max).unwrap_or(i64::MAX));
        let (open, refusals) = (Mutex::default(), RefusalLog::default());
        Arc::new(Connections { max, clock, metrics, open, refusals, fewer_clients: Notify::new() })
    }

    /// The age of the youngest connection of a client.
    pub fn youngest_client(&self) -> Option<Duration> {
        let table = self.open.lock();
        let opened_at = table.by_id.values().filter(|state| state.is_client()).map(|state| state.opened_at_ms);
        opened_at.max().map(|at| Duration::from_millis(self.now_ms().saturating_sub(at)))
    }

    /// How many connections of clients are open.
    pub fn clients(&self) -> usize {
        self.open.lock().by_id.values().filter(|state| state.is_client()).count()
    }

    /// Done when no client has a connection.
    pub async fn clients_closed(&self) {
        loop {
            let mut fewer = std::pin::pin!(self.fewer_clients.notified());
            fewer.as_mut().enable();
            if self.clients() == 0 {
                return;
            }
            fewer.await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// Reserves a slot for one more connection, if necessary that of an idle one.
    fn admit(self: &Arc<Connections>, client: bool, is_identified: bool) -> Option<Place> {
        let now_ms = self.now_ms();
        let mut table = self.open.lock();
        if table.by_id.len() >= self.max {
            let moved = |state: &Arc<State>| state.moved_at_ms.load(Ordering::Relaxed);
            let idlest = table.by_id.iter().min_by_key(|(_, state)| moved(state));
            let (id, state) = idlest.map(|(id, state)| (*id, state.clone()))?;
            if u128::from(now_ms.saturating_sub(moved(&state))) < IDLE_MIN.as_millis() {
                self.metrics.refused.inc();
                return None;
            }
            table.by_id.remove(&id);
            state.displaced.store(true, Ordering::Release);
            state.reader.wake();
            self.metrics.displaced.inc();
        }
        table.last_id += 1;
        let id = table.last_id;
        let state = Arc::new(State {
            opened_at_ms: now_ms,
            moved_at_ms: AtomicU64::new(now_ms),
            displaced: AtomicBool::new(false),
            client: AtomicBool::new(client),
            is_identified: AtomicBool::new(is_identified),
            reader: AtomicWaker::new(),
        });
        table.by_id.insert(id, state.clone());
        self.metrics.open.inc();
        Some(Place { id, state, connections: self.clone() })
    }
}

/// A connection's entry in the table, for its lifetime.
struct Place {
    id: u64,
    state: Arc<State>,
    connections: Arc<Connections>,
}

impl Place {
    fn moved(&self) {
        self.state.moved_at_ms.store(self.connections.now_ms(), Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.state.displaced.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed for a newer connection: it was idle")),
            false => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().by_id.remove(&self.id);
        self.connections.metrics.open.dec();
        self.connections.fewer_clients.notify_waiters();
    }
}

/// A listener whose connections are bounded.
pub struct Listener {
    listener: TcpListener,
    connections: Arc<Connections>,
    for_clients: bool,
    credentials: Option<Arc<Credentials>>,
}

impl Listener {
    /// Admits what arrives at `listener`.
    pub fn new(listener: TcpListener, connections: Arc<Connections>) -> Listener {
        Listener { listener, connections, for_clients: true, credentials: None }
    }

    /// Its connections use TLS, if there are credentials of a node.
    pub fn with_credentials(self, credentials: Option<Arc<Credentials>>) -> Listener {
        Listener { credentials, ..self }
    }

    /// Its connections do not count among those of clients: a stop waits for the answers to clients only.
    pub fn for_pages(self) -> Listener {
        Listener { for_clients: false, ..self }
    }

    /// The next connection. Errors are transient, so it waits and tries again.
    pub async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let is_identified = self.credentials.is_none();
                    let Some(place) = self.connections.admit(self.for_clients, is_identified) else { continue };
                    // An answer of several small frames would wait 40 ms for the client's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return (Connection { stream: self.begin(stream), place, from }, from);
                }
                Err(error) => {
                    if self.connections.metrics.failures.inc() == 0 {
                        tracing::warn!(%error, "a connection could not be accepted; connections_failed counts these");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin(&self, stream: TcpStream) -> Stream {
        let acceptor = self.credentials.as_ref().and_then(|credentials| match self.for_clients {
            true => credentials.grpc_acceptor(),
            false => credentials.status_acceptor(),
        });
        match acceptor {
            Some(acceptor) => Stream::Tls(Box::new(acceptor.accept(stream))),
            None => Stream::plain(stream),
        }
    }

    /// All connections, in the form that tonic takes.
    pub fn into_stream(self) -> impl futures::Stream<Item = io::Result<Connection>> + Send {
        futures::stream::unfold(self, |mut listener| async move {
            let (connection, _) = listener.next().await;
            Some((Ok(connection), listener))
        })
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
#[path = "connections_test.rs"]
mod tests;
