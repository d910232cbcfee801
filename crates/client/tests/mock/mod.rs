//! A small cluster in this process: a few tonic servers that share one state. Faults are queued by call name.
#![allow(dead_code)] // each test file uses a part
#![allow(clippy::unwrap_used, clippy::result_large_err, clippy::large_enum_variant)] // test support

mod pd;
mod service;
mod store;

pub use store::MockLock;

use bytes::Bytes;
use kontiki_client::{Client, Options, TransactionOptions};
use kontiki_proto::kvrpcpb::{KeyError, KvPair, PessimisticLockRequest, PrewriteRequest};
use kontiki_proto::{errorpb, metapb, pdpb::pd_server::PdServer, tikvpb::tikv_server::TikvServer};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::Version;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

pub const STORES: u64 = 3;

/// A fault of one call.
#[derive(Clone)]
pub enum Fault {
    Region(errorpb::Error),
    /// Refused before anything is done.
    Status(tonic::Code),
    /// Done, but the answer is lost.
    LoseAnswer,
    /// The same, and then the region is split at a position.
    LoseAnswerAndSplit(Bytes),
}

#[derive(Clone)]
pub struct MockRegion {
    pub id: u64,
    pub start: Bytes,
    pub end: Bytes,
    pub version: u64,
    /// Store id.
    pub leader: u64,
}

impl MockRegion {
    pub fn meta(&self) -> metapb::Region {
        metapb::Region {
            id: self.id,
            start_key: self.start.clone(),
            end_key: self.end.clone(),
            region_epoch: Some(metapb::RegionEpoch { conf_ver: 1, version: self.version }),
            peers: (1..=STORES).map(|store| self.peer(store)).collect(),
        }
    }

    pub fn peer(&self, store: u64) -> metapb::Peer {
        metapb::Peer { id: self.id * 100 + store, store_id: store, ..Default::default() }
    }

    pub fn contains(&self, position: &[u8]) -> bool {
        self.start <= position && (self.end.is_empty() || position < self.end)
    }
}

#[derive(Default)]
pub struct State {
    /// Of store i + 1.
    pub addresses: Vec<String>,
    pub regions: Vec<MockRegion>,
    pub raw: BTreeMap<Bytes, Bytes>,
    /// The times to live of puts, in seconds.
    pub ttls: BTreeMap<Bytes, u64>,
    /// Raw writes that were marked as atomic.
    pub atomic_writes: usize,
    pub versions: BTreeMap<Bytes, Vec<Version>>,
    pub locks: BTreeMap<Bytes, MockLock>,
    pub rollbacks: BTreeSet<(Bytes, u64)>,
    pub clock: u64,
    /// At which regions were to be split.
    pub split_keys: Vec<Bytes>,
    /// The leaders that the placement driver reports, if they are outdated.
    pub reported_leader: Option<u64>,
    /// The regions that the placement driver reports for some calls, one list for each: outdated ones.
    pub reported_regions: VecDeque<Vec<MockRegion>>,
    pub faults: VecDeque<(&'static str, Fault)>,
    /// The text with which a commit or a raw put fails that is repeated: the disk failed, before anything was checked.
    pub fails_if_done: Option<String>,
    /// An answer of more pairs than this is too large.
    pub pairs_max: Option<usize>,
    /// Up to where each store serves stale reads; absent: not at all.
    pub safe_ts: BTreeMap<u64, u64>,
    /// Of each store: its zone.
    pub zones: BTreeMap<u64, String>,
    /// The regions that decline async commit and one-phase commit.
    pub declines: BTreeSet<u64>,
    /// How far above the clock the commit timestamps are that a region computes.
    pub computed_ahead: u64,
    /// Errors of commits, one for each.
    pub commit_errors: VecDeque<KeyError>,
    /// Errors of requests for pessimistic locks, one for each.
    pub lock_errors: VecDeque<KeyError>,
    /// Requests for pessimistic locks, and prewrites.
    pub lock_requests: Vec<PessimisticLockRequest>,
    pub prewrites: Vec<PrewriteRequest>,
    /// Every call that arrived, in order.
    pub calls: Vec<(&'static str, u64)>,
}

impl State {
    pub fn fault(&mut self, call: &'static str, fault: Fault) {
        self.faults.push_back((call, fault));
    }

    /// The pairs, or the refusal to return so many.
    fn fitting(&self, pairs: Vec<KvPair>) -> Result<Vec<KvPair>, KeyError> {
        let abort = format!("{} the bound", kontiki_proto::ANSWER_TOO_LARGE);
        if self.pairs_max.is_none_or(|max| pairs.len() <= max) {
            Ok(pairs)
        } else {
            Err(KeyError { abort, ..Default::default() })
        }
    }

    /// The stores that got a call, in order; they are forgotten.
    pub fn take_calls(&mut self, call: &str) -> Vec<u64> {
        let (own, others) = std::mem::take(&mut self.calls).into_iter().partition(|(name, _)| *name == call);
        self.calls = others;
        let own: Vec<(&str, u64)> = own;
        own.into_iter().map(|(_, store)| store).collect()
    }

    pub fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|(name, _)| *name == call).count()
    }

    fn take_fault(&mut self, call: &str, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.faults.iter().position(|(name, fault)| *name == call && fits(fault))?;
        self.faults.remove(at).map(|(_, fault)| fault)
    }

    /// Splits the region that holds the position; the right half gets a new id.
    pub fn split(&mut self, position: impl Into<Bytes>) {
        let position = position.into();
        let id = self.regions.iter().map(|region| region.id).max().unwrap() + 1;
        let region = self.regions.iter_mut().find(|region| region.contains(&position)).unwrap();
        region.version += 1;
        let right = MockRegion { id, start: position.clone(), ..region.clone() };
        region.end = position;
        self.regions.push(right);
    }

    pub fn lead(&mut self, region: u64, store: u64) {
        self.regions.iter_mut().find(|known| known.id == region).unwrap().leader = store;
    }
}

pub type Shared = Arc<Mutex<State>>;

pub struct Mock {
    pub state: Shared,
    pub endpoints: Vec<String>,
    stops: Vec<watch::Sender<bool>>,
    servers: Vec<JoinHandle<()>>,
}

/// memcomparable(key).
pub fn encode(key: &str) -> Bytes {
    let mut out = Vec::new();
    for group in key.as_bytes().chunks_exact(8) {
        out.extend_from_slice(group);
        out.push(0xff);
    }
    let rest = key.as_bytes().chunks_exact(8).remainder();
    out.extend_from_slice(rest);
    out.resize(out.len() + 8 - rest.len(), 0);
    out.push(0xff - (8 - rest.len()) as u8);
    out.into()
}

/// An address without a listener: its port stays bound as long as the socket lives.
pub fn dead_address() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

/// For operations that are to time out: everything before must fit into it on a busy machine.
pub const SHORT: Duration = Duration::from_secs(2);

impl Mock {
    /// Three stores and one region that holds everything, led by store 1.
    pub async fn start() -> Mock {
        let state = Shared::default();
        let (mut stops, mut servers) = (Vec::new(), Vec::new());
        for store in 1..=STORES {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            state.lock().addresses.push(listener.local_addr().unwrap().to_string());
            let (stop, mut stopped) = watch::channel(false);
            let node = service::Node { store, state: state.clone() };
            let server = tonic::transport::Server::builder()
                .add_service(PdServer::new(node.clone()))
                .add_service(TikvServer::new(node).max_decoding_message_size(usize::MAX))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                });
            servers.push(tokio::spawn(async move { server.await.unwrap() }));
            stops.push(stop);
        }
        let region = MockRegion { id: 2, start: Bytes::new(), end: Bytes::new(), version: 1, leader: 1 };
        state.lock().regions.push(region);
        state.lock().clock = 1_000_000 << 18;
        let endpoints = state.lock().addresses.clone();
        Mock { state, endpoints, stops, servers }
    }

    /// Ends a store as a node that stops: no new connections, and each one ends after its last answer.
    pub async fn stop(&mut self, store: u64) {
        self.stops[store as usize - 1].send_replace(true);
        (&mut self.servers[store as usize - 1]).await.unwrap();
    }

    /// A client without background work, which commits in two phases.
    pub async fn client(&self) -> Client {
        self.client_within(Duration::from_secs(60)).await
    }

    pub async fn client_within(&self, operation_timeout: Duration) -> Client {
        self.client_with(operation_timeout, TransactionOptions::two_phases()).await
    }

    pub async fn client_with(&self, operation_timeout: Duration, transactions: TransactionOptions) -> Client {
        let options = Options { operation_timeout, background_secondaries: false, transactions, ..Options::default() };
        Client::connect_with(&self.endpoints[..1], options).await.unwrap()
    }
}
