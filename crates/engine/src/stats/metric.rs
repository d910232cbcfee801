//! A described number.

use crate::measure::Histogram;

/// A number with its full description, wherever it is shown.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// The subsystem that it is about: `log`, `compaction`.
    pub subsystem: &'static str,
    /// What it measures, without the unit.
    pub what: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// One line of help.
    pub help: &'static str,
    /// Its values, distinguished by their labels.
    pub samples: Vec<Sample>,
}

impl Metric {
    /// `what` and the unit: `appended_bytes`.
    pub fn what_and_unit(&self) -> String {
        match self.unit {
            Unit::None => self.what.to_string(),
            unit => format!("{}_{}", self.what, unit.name()),
        }
    }

    /// Subsystem, `what` and unit: `log_appended_bytes`. Prometheus shows it behind `kontiki_`, and counters with
    /// `_total`.
    pub fn name(&self) -> String {
        format!("{}_{}", self.subsystem, self.what_and_unit())
    }
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count.
    None,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A part of a whole or a multiple of it.
    Ratio,
}

impl Unit {
    /// As at the end of names.
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
            Unit::Ratio => "ratio",
        }
    }
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, from open on.
    Counter,
    /// The present value.
    Gauge,
    /// Observations by size, from open on.
    Histogram,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The label that distinguishes it from others of the same metric.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Whole(u64),
    /// Another number.
    Float(f64),
    /// Observations, in seconds.
    Histogram(Histogram),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Float(value)
    }
}

impl From<&Histogram> for Value {
    fn from(value: &Histogram) -> Value {
        Value::Histogram(value.clone())
    }
}

/// Builds the metrics of one subsystem.
pub(super) struct Subsystem<'a> {
    subsystem: &'static str,
    metrics: &'a mut Vec<Metric>,
}

impl Subsystem<'_> {
    pub(super) fn new<'a>(metrics: &'a mut Vec<Metric>, subsystem: &'static str) -> Subsystem<'a> {
        Subsystem { subsystem, metrics }
    }

    pub(super) fn counter(&mut self, what: &'static str, unit: Unit, help: &'static str, value: impl Into<Value>) {
        self.labelled(MetricKind::Counter, what, unit, help, vec![Sample { labels: Vec::new(), value: value.into() }]);
    }

    pub(super) fn gauge(&mut self, what: &'static str, unit: Unit, help: &'static str, value: impl Into<Value>) {
        self.labelled(MetricKind::Gauge, what, unit, help, vec![Sample { labels: Vec::new(), value: value.into() }]);
    }

    pub(super) fn histogram(&mut self, what: &'static str, help: &'static str, value: &Histogram) {
        let samples = vec![Sample { labels: Vec::new(), value: value.into() }];
        self.labelled(MetricKind::Histogram, what, Unit::Seconds, help, samples);
    }

    pub(super) fn labelled(
        &mut self,
        kind: MetricKind,
        what: &'static str,
        unit: Unit,
        help: &'static str,
        samples: Vec<Sample>,
    ) {
        self.metrics.push(Metric { subsystem: self.subsystem, what, unit, kind, help, samples });
    }
}
