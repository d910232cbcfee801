//! The metrics of the transport.

use kontiki_raftstore::StoreId;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Counters of one node's transport; clones share them.
#[derive(Clone, Debug, Default)]
pub struct TransportMetrics {
    /// Messages written to a stream.
    pub sent: Counter,
    /// Bytes of these.
    pub sent_bytes: Counter,
    /// Batches of these.
    pub batches: Counter,
    /// Messages dropped: the queue was full, the peer unreachable, or its address unknown.
    pub dropped: Counter,
    /// Streams opened.
    pub connects: Counter,
    /// Attempts to open one, or streams, that failed.
    pub failures: Counter,
    /// Messages received from other nodes.
    pub received: Counter,
    /// Streams of other nodes that were refused: another cluster, another store, bad bytes.
    pub refused: Counter,
    /// Messages dropped because a test has cut the link.
    pub blocked: Counter,
    /// By store: the version of the protocol that the last stream to it used.
    versions: Family<[(&'static str, u64); 1], Gauge>,
    /// Peers with a stream open now.
    pub connected: Gauge,
    /// Snapshots sent completely.
    pub snapshots_sent: Counter,
    /// Snapshots that could not be sent.
    pub snapshots_failed: Counter,
    /// Snapshots received completely.
    pub snapshots_received: Counter,
    /// Snapshots whose connection broke and that were resumed, at either end.
    pub snapshots_resumed: Counter,
    /// Snapshot bytes sent and received.
    pub snapshot_bytes: Counter,
    /// Milliseconds that snapshots, sent or received, have waited for the limit of their bytes per second.
    pub snapshot_paced_ms: Counter,
    /// Snapshots that are being sent.
    pub snapshots_sending: Gauge,
    /// Snapshots that are arriving.
    pub snapshots_receiving: Gauge,
    /// Those that were sent.
    pub snapshot_send: Transfers,
    /// Those that were received.
    pub snapshot_receive: Transfers,
}

/// How large completed transfers were, and how long they took.
#[derive(Clone, Debug)]
pub struct Transfers {
    bytes: Histogram,
    seconds: Histogram,
}

impl Default for Transfers {
    fn default() -> Transfers {
        // From 64 KiB to 256 GiB, and from 16 ms to about 9 hours.
        let bytes = Histogram::new(exponential_buckets((64 << 10) as f64, 4.0, 12));
        Transfers { bytes, seconds: Histogram::new(exponential_buckets(1.0 / 64.0, 2.0, 22)) }
    }
}

impl Transfers {
    pub(super) fn observe(&self, bytes: u64, took: Duration) {
        self.bytes.observe(bytes as f64);
        self.seconds.observe(took.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry, name: &str, what: &str) {
        registry.register(format!("snapshot_{name}_bytes"), format!("Sizes of snapshots {what}"), self.bytes.clone());
        registry.register(
            format!("snapshot_{name}_seconds"),
            format!("Times that snapshots {what} took"),
            self.seconds.clone(),
        );
    }
}

/// Counts in a gauge while it lives.
pub(super) struct Held<'a>(&'a Gauge);

impl Held<'_> {
    pub(super) fn new(gauge: &Gauge) -> Held<'_> {
        gauge.inc();
        Held(gauge)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl TransportMetrics {
    /// A stream to a store uses this version.
    pub(super) fn set_version(&self, store: StoreId, version: u32) {
        self.versions.get_or_create(&[("store", store.0)]).set(i64::from(version));
    }

    #[cfg(test)]
    pub(super) fn version_with(&self, store: StoreId) -> i64 {
        self.versions.get_or_create(&[("store", store.0)]).get()
    }

    /// Registers them under `kontiki_transport_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("transport");
        registry.register("messages_sent", "Messages written to a stream", self.sent.clone());
        registry.register("sent_bytes", "Bytes of messages written to a stream", self.sent_bytes.clone());
        registry.register("batches_sent", "Batches written to a stream", self.batches.clone());
        registry.register("messages_dropped", "Messages dropped before sending", self.dropped.clone());
        registry.register("connects", "Streams opened to other nodes", self.connects.clone());
        registry.register("failures", "Failed connection attempts and streams", self.failures.clone());
        registry.register("messages_received", "Messages received from other nodes", self.received.clone());
        registry.register("streams_refused", "Streams of other nodes refused", self.refused.clone());
        registry.register("messages_blocked", "Messages dropped on links that tests have cut", self.blocked.clone());
        registry.register(
            "protocol_version",
            "Version of the protocol between nodes on the last stream to a store",
            self.versions.clone(),
        );
        registry.register("peers_connected", "Peers with an open stream", self.connected.clone());
        registry.register("snapshots_sent", "Snapshots sent completely", self.snapshots_sent.clone());
        registry.register("snapshots_failed", "Snapshots that could not be sent", self.snapshots_failed.clone());
        registry.register("snapshots_received", "Snapshots received completely", self.snapshots_received.clone());
        let resumed = "Snapshots that went on over another connection";
        registry.register("snapshots_resumed", resumed, self.snapshots_resumed.clone());
        registry.register("snapshot_bytes", "Snapshot bytes sent and received", self.snapshot_bytes.clone());
        let paced = "Time that snapshots have waited for the limit of their bytes per second";
        registry.register("snapshot_paced_milliseconds", paced, self.snapshot_paced_ms.clone());
        registry.register("snapshots_sending", "Snapshots that are being sent", self.snapshots_sending.clone());
        registry.register("snapshots_receiving", "Snapshots that are arriving", self.snapshots_receiving.clone());
        self.snapshot_send.register(registry, "send", "sent");
        self.snapshot_receive.register(registry, "receive", "received");
    }
}
