use super::*;
use crate::stats::Unit;
use crate::stats::metric::Subsystem;
use std::collections::BTreeSet;
use std::time::Duration;

fn stats() -> Stats {
    let mut stats = Stats::default();
    stats.log.appended_bytes = 7;
    stats.health.stopped = Some("a \"disk\" \\ died\n".to_string());
    stats.families.push(crate::FamilyStats { name: "it's \"mine\"".to_string(), ..Default::default() });
    stats.families[0].levels.push(Default::default());
    stats.latency.get = {
        let recording = crate::measure::Recording::new(1);
        recording.record(Duration::from_micros(3));
        recording.record(Duration::from_secs(1));
        recording.get()
    };
    stats
}

#[test]
fn every_metric_has_a_unique_name_and_is_in_its_subsystem() {
    let metrics = stats().metrics();
    let names: BTreeSet<String> = metrics.iter().map(Metric::name).collect();
    assert_eq!(names.len(), metrics.len());
    for metric in &metrics {
        let name = metric.name();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        assert!(metric.help.len() > 3 && !metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
        let histogram = metric.samples.iter().any(|sample| matches!(sample.value, Value::Histogram(_)));
        assert_eq!(histogram, metric.kind == MetricKind::Histogram, "{name}");
        assert!(!histogram || metric.unit == Unit::Seconds, "{name}");
    }
    let subsystems: Vec<&str> = metrics
        .chunk_by(|left, right| left.subsystem == right.subsystem)
        .map(|subsystem| subsystem[0].subsystem)
        .collect();
    assert_eq!(
        subsystems.iter().collect::<BTreeSet<_>>().len(),
        subsystems.len(),
        "a subsystem is one object of the JSON: {subsystems:?}"
    );
}

#[test]
fn prometheus_gets_each_metric_with_help_type_and_samples() {
    let text = stats().to_prometheus();
    for line in [
        "# HELP kontiki_log_appended_bytes_total Bytes appended",
        "# TYPE kontiki_log_appended_bytes_total counter",
        "kontiki_log_appended_bytes_total 7",
        "# TYPE kontiki_read_get_seconds histogram",
        "kontiki_read_get_seconds_bucket{le=\"0.000004096\"} 1",
        "kontiki_read_get_seconds_bucket{le=\"+Inf\"} 2",
        "kontiki_read_get_seconds_sum 1.000003",
        "kontiki_read_get_seconds_count 2",
        "kontiki_level_tables{family=\"it's \\\"mine\\\"\",level=\"0\"} 0",
        "kontiki_health_stopped{reason=\"a \\\"disk\\\" \\\\ died\\n\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("kontiki_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn json_says_what_prometheus_says() {
    let stats = stats();
    let json = stats.to_json();
    assert!(json.contains("\"appended_bytes\": 7"), "{json}");
    assert!(json.contains("{\"family\": \"it's \\\"mine\\\"\", \"level\": \"0\", \"value\": 0}"), "{json}");
    assert!(json.contains("\"get_seconds\": {\"count\": 2, \"sum_seconds\": 1.000003, "), "{json}");
    for metric in stats.metrics() {
        assert!(json.contains(&format!("\"{}\": ", metric.what_and_unit())), "{}", metric.name());
    }
}

#[test]
fn numbers_that_json_cannot_say_are_null() {
    let mut metrics = Vec::new();
    Subsystem::new(&mut metrics, "test").gauge("what", Unit::Ratio, "Help", f64::NAN);
    assert_eq!(json_value(&metrics[0]), "null");
}

#[test]
fn the_guide_knows_every_metric() {
    let guide = include_str!("../../../../docs/guide/statistics.md");
    let unknown: Vec<String> =
        stats().metrics().iter().map(Metric::name).filter(|name| !guide.contains(&format!("`{name}`"))).collect();
    assert_eq!(unknown, Vec::<String>::new(), "docs/guide/statistics.md does not mention them");
}
