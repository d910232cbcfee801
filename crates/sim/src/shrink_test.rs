use super::*;
use crate::cluster::PlantedBug;

/// A run in which the bug is found, some seconds long.
fn broken() -> Plan {
    let planted = Some(PlantedBug::AcknowledgeBeforeQuorum);
    let plans = (0..60).map(|seed| Plan { planted, safety: Duration::from_secs(8), ..Plan::new(seed) });
    let mut broken = plans.filter(|plan| {
        let report = run_caught(plan);
        !report.violations.is_empty() && report.actions > 4
    });
    broken.next().expect("the bug is found in some seeds")
}

#[test]
fn a_broken_run_becomes_smaller_and_stays_broken() {
    let plan = broken();
    let before = run_caught(&plan);
    let shrunk = shrink(&plan, 25).expect("it is broken");
    assert!(shrunk.runs <= 25);
    assert!(shrunk.actions() < before.actions, "{} of {} actions are left", shrunk.actions(), before.actions);
    let again = run_caught(&shrunk.plan);
    assert_eq!((&again.violations, again.trace_hash), (&shrunk.report.violations, shrunk.report.trace_hash));
    assert!(!again.violations.is_empty());
}

#[test]
fn a_good_run_is_not_made_smaller() {
    let plan = Plan { safety: Duration::from_secs(2), ..Plan::new(1) };
    assert!(shrink(&plan, 10).is_none());
}
