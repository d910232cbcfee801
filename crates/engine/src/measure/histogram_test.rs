use super::*;

#[test]
fn buckets_follow_each_other_without_gaps_and_are_narrow() {
    let mut first = 0;
    for bucket in 0..BUCKETS - 1 {
        let last = upper_ns(bucket);
        assert_eq!((bucket_of(first), bucket_of(last)), (bucket, bucket));
        assert!(last - first <= first / 4, "bucket {bucket} is from {first} to {last}");
        first = last + 1;
    }
    assert_eq!(first, 1 << OCTAVES);
    assert_eq!(bucket_of(first), BUCKETS - 1);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn percentiles_are_right_within_a_quarter() {
    let recording = Recording::new(4);
    for us in 1..=1000 {
        recording.record(Duration::from_micros(us));
    }
    let histogram = recording.get();
    assert_eq!(histogram.count(), 1000);
    assert_eq!(histogram.max(), Duration::from_micros(1000));
    assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
    for percent in [1.0, 50.0, 90.0, 99.0] {
        let exact = Duration::from_micros((percent * 10.0) as u64);
        let found = histogram.percentile(percent);
        assert!(found >= exact && found <= exact * 5 / 4, "{percent} %: {found:?}");
    }
    assert_eq!(histogram.percentile(100.0), histogram.max());
}

#[test]
fn an_empty_histogram_answers_zero() {
    for histogram in [Histogram::default(), Recording::new(1).get()] {
        assert_eq!((histogram.count(), histogram.mean()), (0, Duration::ZERO));
        assert_eq!(histogram.percentile(99.0), Duration::ZERO);
        assert_eq!(histogram.buckets_seconds().iter().map(|(_, count)| count).sum::<u64>(), 0);
    }
}

#[test]
fn what_is_shown_adds_up_whatever_the_size() {
    let recording = Recording::new(2);
    let durations = [0, 1, 255, 256, 1000, 1 << 34, 1 << 40, u64::MAX];
    durations.into_iter().for_each(|ns| recording.record(Duration::from_nanos(ns)));
    let histogram = recording.get();
    let shown = histogram.buckets_seconds();
    assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), durations.len() as u64);
    assert_eq!(shown[0], (256e-9, 3));
    assert_eq!(shown[1], (512e-9, 1));
    assert_eq!(shown.last(), Some(&(f64::MAX, 2)));
    assert!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0), "{shown:?}");
}

#[test]
fn threads_record_at_once_and_nothing_is_lost() {
    let recording = Recording::new(4);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..1000).for_each(|ns| recording.record(Duration::from_nanos(ns))));
        }
    });
    assert_eq!(recording.get().count(), 8000);
    assert_eq!(recording.get().sum(), Duration::from_nanos(8 * 499_500));
}
