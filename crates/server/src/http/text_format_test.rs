use super::*;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[test]
fn the_older_format_names_counters_by_their_samples_and_has_no_units_and_no_end() {
    let mut registry = Registry::with_prefix("kontiki");
    let (counter, gauge, histogram) = (Counter::<u64>::default(), Gauge::<i64>::default(), Histogram::new([0.5]));
    registry.register("requests", "Requests", counter.clone());
    registry.register("regions", "Regions with a replica here", gauge.clone());
    registry.register_with_unit("took", "Time", Unit::Seconds, histogram.clone());
    counter.inc_by(3);
    gauge.set(-2);
    histogram.observe(0.25);
    let mut open_metrics = String::new();
    encode(&mut open_metrics, &registry).unwrap();
    assert!(open_metrics.ends_with("# EOF\n") && open_metrics.contains("# TYPE kontiki_requests counter"));
    assert_eq!(
        plain(&open_metrics),
        "# HELP kontiki_requests_total Requests.\n\
         # TYPE kontiki_requests_total counter\n\
         kontiki_requests_total 3\n\
         # HELP kontiki_regions Regions with a replica here.\n\
         # TYPE kontiki_regions gauge\n\
         kontiki_regions -2\n\
         # HELP kontiki_took_seconds Time.\n\
         # TYPE kontiki_took_seconds histogram\n\
         kontiki_took_seconds_sum 0.25\n\
         kontiki_took_seconds_count 1\n\
         kontiki_took_seconds_bucket{le=\"0.5\"} 1\n\
         kontiki_took_seconds_bucket{le=\"+Inf\"} 1\n"
    );
}

#[test]
fn open_metrics_is_for_those_who_ask_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    assert!(asks_for_open_metrics(prometheus));
    assert!(asks_for_open_metrics("Application/OpenMetrics-Text"));
    for other in
        ["", "*/*", "text/plain", "text/plain;version=0.0.4", "application/openmetrics-text;q=0", "text/html,*/*"]
    {
        assert!(!asks_for_open_metrics(other), "{other}");
    }
}
