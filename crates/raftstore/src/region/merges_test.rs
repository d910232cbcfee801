use super::*;
use crate::model::region_of_three;

fn region(id: u64, version: u64) -> Region {
    let mut region = region_of_three();
    region.id = RegionId(id);
    region.epoch.version = version;
    region
}

/// `target` takes `source` over.
fn absorb(target: &mut Region, source: &Region) {
    target.epoch.version = target.epoch.version.max(source.epoch.version) + 1;
    target.merges = target.absorbing(source, target.epoch.version);
}

#[test]
fn a_region_remembers_what_it_took_over_and_what_those_had_taken_over() {
    let (mut target, mut neighbour) = (region(1, 1), region(2, 4));
    absorb(&mut neighbour, &region(3, 3));
    absorb(&mut target, &neighbour);
    let all: Vec<_> = target.merges.absorbed.iter().map(|a| (a.region.0, a.version, a.by.0)).collect();
    assert_eq!(all, [(3, 5, 2), (2, 6, 1)]);
    assert!(target.has_absorbed(RegionId(2)) && target.has_absorbed(RegionId(3)));
    assert!(!target.has_not_absorbed(RegionId(3), RegionId(2), 4));
    assert!(target.has_not_absorbed(RegionId(4), RegionId(1), 1), "it has forgotten nothing");
    assert!(target.has_not_absorbed(RegionId(4), RegionId(2), 4), "nor has the one that it took over");
}

#[test]
fn what_may_be_forgotten_is_not_certain() {
    let mut target = region(1, 9);
    for id in 0..=ABSORBED_MAX as u64 {
        absorb(&mut target, &region(100 + id, 1));
    }
    assert_eq!(target.merges.absorbed.len(), ABSORBED_MAX);
    assert!(!target.has_absorbed(RegionId(100)), "the first one is forgotten");
    assert!(!target.has_not_absorbed(RegionId(100), RegionId(1), 9), "and so it is not certain");
    assert!(target.has_not_absorbed(RegionId(99), RegionId(1), 11), "all since that version are remembered");
    let mut heir = region(2, 1);
    absorb(&mut heir, &target);
    assert!(!heir.has_not_absorbed(RegionId(100), RegionId(1), 9), "nor is it where the list was inherited");
}

/// The versions of what a neighbour had taken over say nothing of the target.
#[test]
fn a_long_list_of_a_neighbour_makes_nothing_uncertain() {
    let (mut neighbour, mut target) = (region(2, 1), region(1, 1));
    for id in 0..2 * ABSORBED_MAX as u64 {
        absorb(&mut neighbour, &region(100 + id, 1));
    }
    absorb(&mut target, &neighbour);
    assert!(target.has_not_absorbed(RegionId(3), RegionId(1), 1));
}
