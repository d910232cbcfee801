//! Linearizability, key by key (it is a local property): is there an order of the operations that respects real time
//! and in which every answer is that of a register?
//!
//! Keys that only see puts of distinct values and gets go to the zone checker: exact and O(n log n). Others (deletes,
//! compare-and-swap) go to a search with a limit in steps; a key that exceeds it counts as *not checked* and is
//! reported, never as correct.

use super::{Violation, wgl, zones};
use crate::history::{History, Record};
use bytes::Bytes;

/// The result of one key's check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Violated(Violation),
    /// The search ran out of steps.
    OutOfSteps,
}

/// The result of a history's check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Keys with an answer.
    pub keys_checked: usize,
    /// Keys whose search ran out of steps.
    pub keys_not_checked: Vec<Bytes>,
    /// Violations, by key.
    pub violations: Vec<(Bytes, Violation)>,
}

/// Checks every key of a history. All keys begin absent. `steps_max` limits each key's search, if it needs one.
pub fn check(history: &History, steps_max: u64) -> Report {
    let mut report = Report::default();
    for (key, records) in history.by_key() {
        match check_key(&records, steps_max) {
            CheckResult::Linearizable => report.keys_checked += 1,
            CheckResult::Violated(violation) => {
                report.keys_checked += 1;
                report.violations.push((key, violation));
            }
            CheckResult::OutOfSteps => report.keys_not_checked.push(key),
        }
    }
    report
}

/// Checks the operations of one key.
pub fn check_key(records: &[Record], steps_max: u64) -> CheckResult {
    if zones::applies(records) { zones::check(records) } else { wgl::check(records, steps_max) }
}

#[cfg(test)]
#[path = "linearizability_test.rs"]
mod tests;
