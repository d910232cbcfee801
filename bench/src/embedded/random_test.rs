use super::*;

#[test]
fn the_first_ranks_have_their_share() {
    let (zipf, mut random) = (Zipf::new(1000), Random::new(1));
    let mut counts = [0u32; 1000];
    (0..200_000).for_each(|_| counts[zipf.rank(&mut random) as usize] += 1);
    let share = |rank: usize| f64::from(counts[rank]) / 200_000.0 * zipf.zeta;
    assert!((share(0) - 1.0).abs() < 0.05, "{}", share(0));
    assert!((share(1) - 0.5f64.powf(THETA)).abs() < 0.05, "{}", share(1));
    assert!(counts[0] > counts[10] && counts[10] > counts[500]);
}
