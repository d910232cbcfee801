//! Requests by kind, with their latencies.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::future::Future;
use std::sync::Arc;

use kontiki_env::clock::Clock;

/// Upper bounds of latency buckets, in seconds: from a read in memory to a client's retry budget.
const BOUNDS_SECONDS: [f64; 15] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Measures requests; clones share the metrics.
#[derive(Clone)]
pub struct RequestMetrics {
    seconds: Family<Kind, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    clock: Arc<dyn Clock>,
}

impl RequestMetrics {
    /// Nothing counted yet; times are read from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> RequestMetrics {
        let histogram: fn() -> Histogram = || Histogram::new(BOUNDS_SECONDS);
        RequestMetrics { seconds: Family::new_with_constructor(histogram), in_flight: Gauge::default(), clock }
    }

    /// Registers them; the histogram's `_count` is the number of requests answered.
    pub fn register(&self, registry: &mut Registry) {
        let seconds = self.seconds.clone();
        registry.register("request_seconds", "Time from a request's arrival to its answer, by kind", seconds);
        registry.register("requests_in_flight", "Requests that are not answered yet", self.in_flight.clone());
    }

    /// Measures one request. A request whose client disconnected is not counted.
    pub async fn time<T>(&self, kind: &'static str, request: impl Future<Output = T>) -> T {
        let start = self.clock.monotonic();
        let _in_flight = InFlight::enter(&self.in_flight);
        let answer = request.await;
        let seconds = self.clock.monotonic().saturating_sub(start).as_secs_f64();
        self.seconds.get_or_create(&Kind { kind }).observe(seconds);
        answer
    }
}

/// Counts down even when the request's future is dropped.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a Gauge) -> InFlight<'a> {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
