use super::Rng;

#[test]
fn equal_seeds_give_equal_sequences() {
    let (mut a, mut b) = (Rng::new(7), Rng::new(7));
    assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
    assert_ne!(Rng::new(7).next_u64(), Rng::new(8).next_u64());
}

#[test]
fn children_do_not_depend_on_draws() {
    let mut parent = Rng::new(7);
    let before = parent.child("disk").next_u64();
    parent.next_u64();
    assert_eq!(parent.child("disk").next_u64(), before);
    assert_ne!(parent.child("net").next_u64(), before);
    assert_ne!(parent.child("disk").child("disk").next_u64(), before);
}

#[test]
fn bounds_hold_and_are_reached() {
    let mut rng = Rng::new(1);
    let mut seen = [false; 5];
    for _ in 0..1000 {
        seen[rng.below(5) as usize] = true;
        assert!((10..12).contains(&rng.range(10..12)));
    }
    assert_eq!(seen, [true; 5]);
    assert!(rng.chance(1, 1) && !rng.chance(0, 1));
    assert_eq!(rng.pick::<u8>(&[]), None);
}

#[test]
fn shuffle_keeps_the_elements() {
    let mut items: Vec<u32> = (0..50).collect();
    Rng::new(3).shuffle(&mut items);
    assert_ne!(items, (0..50).collect::<Vec<_>>());
    items.sort_unstable();
    assert_eq!(items, (0..50).collect::<Vec<_>>());
}
