use super::*;
use std::sync::Arc;

/// A budget of 1,000 bytes, of which values have a quarter, and what values were told last.
fn shared() -> (Budget, Arc<AtomicU64>) {
    let budget = Budget::shared(1000);
    let told = Arc::new(AtomicU64::new(0));
    let tell = told.clone();
    budget.attach_values(Box::new(move |bytes| tell.store(bytes, Relaxed)));
    (budget, told)
}

#[test]
fn each_may_have_what_the_other_leaves() {
    let (budget, told) = shared();
    assert_eq!((budget.block_capacity_bytes(), told.load(Relaxed)), (1000, 990), "in steps of 15");
    budget.note_values(900);
    assert_eq!(budget.block_capacity_bytes(), 750, "the share of blocks");
    budget.note_values(100);
    assert_eq!(budget.block_capacity_bytes(), 900);
    budget.add_block(700);
    budget.fit_values();
    assert_eq!(told.load(Relaxed), 300);
    assert!(!budget.blocks_must_shrink());
}

#[test]
fn who_has_borrowed_gives_back() {
    let (budget, told) = shared();
    budget.add_block(1000);
    budget.fit_values();
    assert_eq!(told.load(Relaxed), 250, "the share of values");
    budget.note_values(200);
    assert!(budget.blocks_must_shrink());
    budget.remove_blocks(200);
    assert!(!budget.blocks_must_shrink());
    budget.note_values(250);
    assert!(budget.blocks_must_shrink());
    budget.remove_blocks(800);
    budget.fit_values();
    assert_eq!(told.load(Relaxed), 990);
}

#[test]
fn blocks_alone_have_all_of_it() {
    let budget = Budget::of_blocks(1000);
    assert_eq!(budget.block_capacity_bytes(), 1000);
    budget.fit_values();
    assert_eq!(budget.block_capacity_bytes(), 1000);
}
