//! The metrics of the transport.

use kontiki_raftstore::StoreId;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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
    /// Snapshot bytes sent and received.
    pub snapshot_bytes: Counter,
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
        registry.register("snapshot_bytes", "Snapshot bytes sent and received", self.snapshot_bytes.clone());
    }
}
