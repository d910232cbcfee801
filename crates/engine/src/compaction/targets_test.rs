use super::*;

fn targets(largest: u64) -> Targets {
    let options = CompactionOptions { level1_bytes: 100, level_factor: 10, ..CompactionOptions::default() };
    Targets::of_bytes(largest, &options)
}

#[test]
fn levels_come_with_the_data() {
    let last = LEVEL_COUNT - 1;
    for (largest, base) in [(0, last), (1000, last), (1001, last - 1), (10_000, last - 1), (10_001, last - 2)] {
        let targets = targets(largest);
        assert_eq!(targets.base, base, "{largest}");
        assert_eq!(targets.bytes[last], u64::MAX);
        assert!(targets.bytes[..base].iter().all(|bytes| *bytes == 0));
    }
    assert_eq!(targets(10_000).bytes[last - 1], 1000);
    assert_eq!(targets(1200).bytes[last - 1], 200, "a small ratio would cost space");
    assert_eq!(targets(u64::MAX).base, 1);
}

#[test]
fn the_levels_above_the_last_hold_at_most_a_fifth() {
    for exponent in 0..40 {
        let largest = 1u64 << exponent;
        let targets = targets(largest);
        let above: u64 = targets.bytes[targets.base..LEVEL_COUNT - 1].iter().sum();
        assert!(above <= largest / 5 + LEVEL_COUNT as u64, "{above} above {largest}");
    }
}
