use super::*;
use std::sync::Arc;

#[test]
fn each_may_have_what_the_other_leaves() {
    let budget = Budget::shared(1000);
    let capacities = || (budget.capacity_bytes(Part::Blocks), budget.capacity_bytes(Part::Values));
    assert_eq!(capacities(), (1000, 1000));
    budget.add(Part::Values, 900);
    assert_eq!(capacities(), (750, 1000), "the share of blocks");
    budget.add(Part::Blocks, 700);
    assert_eq!(capacities(), (750, 300));
    assert!(budget.is_over(Part::Values) && !budget.is_over(Part::Blocks));
    budget.remove(Part::Values, 800);
    assert_eq!(capacities(), (900, 300));
}

#[test]
fn the_borrowing_cache_gives_back() {
    let budget = Arc::new(Budget::shared(1000));
    let weak = Arc::downgrade(&budget);
    budget.on_give_way(Part::Blocks, move || weak.upgrade().expect("there").remove(Part::Blocks, 100));
    budget.add(Part::Blocks, 1000);
    budget.reclaim_for(Part::Blocks);
    budget.add(Part::Values, 150);
    for blocks in [900, 800, 800] {
        budget.reclaim_for(Part::Values);
        assert_eq!(budget.blocks.used_bytes.load(Relaxed), blocks);
    }
}

#[test]
fn blocks_alone_have_all_of_it() {
    let budget = Budget::of_blocks(1000);
    assert_eq!((budget.capacity_bytes(Part::Blocks), budget.capacity_bytes(Part::Values)), (1000, 1000));
    budget.add(Part::Blocks, 1000);
    budget.reclaim_for(Part::Blocks);
    assert!(!budget.is_over(Part::Blocks));
}
