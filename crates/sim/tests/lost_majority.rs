//! A majority of the nodes is lost for good at a random moment: the rest goes on by the documented command.

use kontiki_sim::cluster::{Plan, Recovered, run_caught};
use std::collections::BTreeMap;

#[test]
fn the_rest_goes_on_after_the_loss_of_a_majority() {
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for seed in (0..30).filter(|seed| Plan::new(*seed).nodes > 1) {
        let report = run_caught(&Plan { loses_majority: true, ..Plan::new(seed) });
        let again = format!("cargo run -p kontiki-sim -- replay {seed} --lose-majority");
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}\n{again}", report.violations);
        *ends.entry(format!("{:?}", report.recovered)).or_default() += 1;
    }
    let checked = ends.get(&format!("{:?}", Some(Recovered::Checked))).copied().unwrap_or(0);
    assert!(checked >= 20, "too few runs were checked to the end: {ends:?}");
}
