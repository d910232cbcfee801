//! Text formats of metrics.

use super::Stats;
use super::metric::{Metric, MetricKind, Sample, Value};
use crate::measure::Histogram;
use std::fmt::Write;

/// What all names of metrics begin with.
const PREFIX: &str = "kontiki";

impl Stats {
    /// All numbers in the text format of Prometheus (version 0.0.4).
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for metric in self.metrics() {
            let mut name = format!("{PREFIX}_{}", metric.name());
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            if metric.kind == MetricKind::Counter {
                name.push_str("_total");
            }
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
            for sample in &metric.samples {
                let labels: Vec<String> =
                    sample.labels.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
                write_sample(&mut text, &name, &labels, &sample.value);
            }
        }
        text
    }

    /// All numbers as a JSON object with an object for each subsystem. Histograms are shown by count, sum and
    /// percentiles; metrics with labels as arrays.
    pub fn to_json(&self) -> String {
        let metrics = self.metrics();
        let mut subsystems: Vec<(&str, Vec<String>)> = Vec::new();
        for metric in &metrics {
            if subsystems.last().is_none_or(|(subsystem, _)| *subsystem != metric.subsystem) {
                subsystems.push((metric.subsystem, Vec::new()));
            }
            if let Some((_, members)) = subsystems.last_mut() {
                members.push(format!("{}: {}", quoted(&metric.what_and_unit()), json_value(metric)));
            }
        }
        let object = |(subsystem, members): (&str, Vec<String>)| {
            format!("  {}: {{\n    {}\n  }}", quoted(subsystem), members.join(",\n    "))
        };
        format!("{{\n{}\n}}", subsystems.into_iter().map(object).collect::<Vec<_>>().join(",\n"))
    }
}

fn write_sample(text: &mut String, name: &str, labels: &[String], value: &Value) {
    let set = |more: Option<String>| {
        let all: Vec<&str> = labels.iter().chain(&more).map(String::as_str).collect();
        if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
    };
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Whole(value) => writeln!(text, "{name}{} {value}", set(None)),
        Value::Float(value) => writeln!(text, "{name}{} {value}", set(None)),
        Value::Histogram(histogram) => {
            let mut below = 0;
            for (bound, count) in histogram.buckets_seconds() {
                below += count;
                let bound = if bound == f64::MAX { "+Inf".to_string() } else { bound.to_string() };
                let _ = writeln!(text, "{name}_bucket{} {below}", set(Some(format!("le=\"{bound}\""))));
            }
            let _ = writeln!(text, "{name}_sum{} {}", set(None), histogram.sum().as_secs_f64());
            writeln!(text, "{name}_count{} {below}", set(None))
        }
    };
}

fn json_value(metric: &Metric) -> String {
    match metric.samples.as_slice() {
        [Sample { labels, value }] if labels.is_empty() => json_number(value),
        samples => {
            let object = |sample: &Sample| {
                let labels = sample.labels.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)));
                let value = std::iter::once(format!("\"value\": {}", json_number(&sample.value)));
                format!("{{{}}}", labels.chain(value).collect::<Vec<_>>().join(", "))
            };
            format!("[{}]", samples.iter().map(object).collect::<Vec<_>>().join(", "))
        }
    }
}

fn json_number(value: &Value) -> String {
    match value {
        Value::Whole(value) => value.to_string(),
        // JSON has no infinity.
        Value::Float(value) if value.is_finite() => value.to_string(),
        Value::Float(_) => "null".to_string(),
        Value::Histogram(histogram) => json_histogram(histogram),
    }
}

fn json_histogram(histogram: &Histogram) -> String {
    let seconds = [
        ("sum", histogram.sum()),
        ("mean", histogram.mean()),
        ("p50", histogram.percentile(50.0)),
        ("p90", histogram.percentile(90.0)),
        ("p99", histogram.percentile(99.0)),
        ("p999", histogram.percentile(99.9)),
        ("max", histogram.max()),
    ];
    let seconds = seconds.map(|(name, duration)| format!("\"{name}_seconds\": {}", duration.as_secs_f64()));
    format!("{{\"count\": {}, {}}}", histogram.count(), seconds.join(", "))
}

/// A string in quotation marks, as in JSON; for the characters in names of families and messages, Prometheus reads
/// the same.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
#[path = "text_test.rs"]
mod tests;
