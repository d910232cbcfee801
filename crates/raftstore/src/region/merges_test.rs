use super::*;
use crate::model::region_of_three;

fn source(id: u64, version: u64) -> Region {
    let mut source = region_of_three();
    source.id = RegionId(id);
    source.epoch.version = version;
    source
}

#[test]
fn a_region_remembers_what_it_took_over_and_what_those_had_taken_over() {
    let mut target = source(1, 1);
    let mut neighbour = source(2, 4);
    neighbour.merges = neighbour.absorbing(&source(3, 3), 5);
    neighbour.epoch.version = 5;
    target.merges = target.absorbing(&neighbour, 6);
    let all = |region: &Region| region.merges.absorbed.iter().map(|a| (a.region.0, a.version)).collect::<Vec<_>>();
    assert_eq!(all(&target), [(3, 5), (2, 6)]);
    assert!(target.has_absorbed(RegionId(2)) && target.has_absorbed(RegionId(3)));
    assert!(!target.has_not_absorbed(RegionId(3), 1));
    assert!(target.has_not_absorbed(RegionId(4), 1), "it has forgotten nothing");
}

#[test]
fn what_may_be_forgotten_is_not_certain() {
    let mut target = source(1, 1);
    for id in 0..=ABSORBED_MAX as u64 {
        target.merges = target.absorbing(&source(100 + id, 1), 10 + id);
    }
    assert_eq!(target.merges.absorbed.len(), ABSORBED_MAX);
    assert!(!target.has_absorbed(RegionId(100)), "the first one is forgotten");
    assert!(!target.has_not_absorbed(RegionId(100), 9), "and so it is not certain");
    assert!(target.has_not_absorbed(RegionId(99), 11), "all since that version are remembered");
}
