use super::*;

#[test]
fn every_value_lies_in_its_bucket() {
    let values = (0..64).flat_map(|shift| [1u64 << shift, (1u64 << shift) | (1 << (shift / 2))]);
    for value in values.chain([0, u64::MAX - 1, 12_345]) {
        let bucket = Histogram::bucket(value);
        assert!(bucket < BUCKETS);
        assert!(Histogram::upper(bucket) >= value, "{value}");
        assert!(bucket == 0 || Histogram::upper(bucket - 1) < value, "{value}");
    }
}

#[test]
fn quantiles_are_within_a_bucket_of_the_truth() {
    let mut histogram = Histogram::new();
    (1..=10_000).for_each(|value| histogram.record(value));
    for (part, truth) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
        let found = histogram.quantile(part) as f64;
        assert!((found / truth - 1.0).abs() < 0.04, "{part}: {found}");
    }
    assert_eq!((histogram.count, histogram.max(), histogram.quantile(1.0)), (10_000, 10_000, 10_000));
}
