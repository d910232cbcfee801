use super::*;
use kontiki_env::codec::hash64;
use kontiki_env::rng::Rng;
use std::collections::HashMap;

const SECOND: Duration = Duration::from_secs(1);

fn touch(tracker: &Tracker, key: u64, now: Duration) -> bool {
    let key = key.to_be_bytes();
    tracker.touch(hash64(&key), 0, &key, 1, now)
}

fn keys(top: &[Tracked]) -> Vec<u64> {
    top.iter().map(|key| u64::from_be_bytes(key.start.as_slice().try_into().unwrap())).collect()
}

/// Draws from a zipfian distribution by its cumulated weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        let weight = |rank: u64| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Zipf((1..=keys).map(weight).collect())
    }

    fn draw(&self, rng: &mut Rng) -> u64 {
        let at = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * self.0.last().unwrap();
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

/// The part of the true top 16 since the last shift that is found, for a hot set that moves to other keys each 7 s.
fn recall(seed: u64, operations: u64, each_ns: u64, shifts: bool) -> f64 {
    let (zipf, mut rng) = (Zipf::new(100_000, 0.99), Rng::new(seed));
    let tracker = Tracker::new(2 * SECOND);
    let (mut counts, mut epoch): (HashMap<u64, u64>, _) = (HashMap::new(), 0);
    for i in 0..operations {
        let now = Duration::from_nanos(i * each_ns);
        if shifts && now.as_secs() / 7 != epoch {
            epoch = now.as_secs() / 7;
            counts.clear();
        }
        let key = zipf.draw(&mut rng) + epoch * 1_000_000;
        *counts.entry(key).or_default() += 1;
        touch(&tracker, key, now);
    }
    let mut truth: Vec<(u64, u64)> = counts.into_iter().map(|(key, count)| (count, key)).collect();
    truth.sort_unstable_by(|left, right| right.cmp(left));
    let found = keys(&tracker.top(16, Duration::from_nanos(operations * each_ns)));
    truth.iter().take(16).filter(|(_, key)| found.contains(key)).count() as f64 / 16.0
}

#[test]
fn the_hottest_keys_of_a_zipfian_stream_are_found() {
    for seed in 0..3 {
        let steady = recall(seed, 200_000, 50_000, false);
        let shifting = recall(seed, 200_000, 60_000, true);
        assert!(steady >= 0.8 && shifting >= 0.8, "seed {seed}: {steady} of the top 16, shifting {shifting}");
    }
}

#[test]
fn an_even_stream_has_no_hot_keys() {
    let (tracker, mut rng) = (Tracker::new(SECOND), Rng::new(1));
    for i in 0..200_000_u64 {
        assert!(!touch(&tracker, rng.below(1 << 40), Duration::from_micros(i * 50)));
    }
    assert_eq!(tracker.top(16, 10 * SECOND), Vec::new());
}

#[test]
fn counts_are_never_too_large_and_rates_come_near() {
    let (tracker, mut rng) = (Tracker::new(SECOND), Rng::new(2));
    // One in ten operations, at 20,000 a second, is on key 7.
    for i in 0..100_000_u64 {
        let key = if i % 10 == 0 { 7 } else { 1000 + rng.below(1 << 40) };
        touch(&tracker, key, Duration::from_micros(i * 50));
    }
    let top = tracker.top(16, Duration::from_micros(100_000 * 50));
    assert_eq!(keys(&top), vec![7]);
    assert!((1800.0..=2100.0).contains(&top[0].per_second), "{top:?}");
}

#[test]
fn a_key_that_stopped_is_forgotten() {
    let tracker = Tracker::new(SECOND);
    (0..100).for_each(|_| _ = touch(&tracker, 7, SECOND));
    assert!(touch(&tracker, 7, SECOND));
    assert_eq!(keys(&tracker.top(16, SECOND)), vec![7]);
    assert_eq!(tracker.top(16, 9 * SECOND), Vec::new());
    assert_eq!(tracker.top(16, Duration::MAX), Vec::new());
}

#[test]
fn few_operations_make_no_key_hot() {
    let tracker = Tracker::new(SECOND);
    assert!((1..HOT_SEEN_MIN).all(|_| !touch(&tracker, 7, SECOND)));
    assert!(touch(&tracker, 7, SECOND));
}

#[test]
fn long_keys_are_kept_in_part_and_distinguished() {
    let tracker = Tracker::new(SECOND);
    let (mut left, mut right) = (vec![b'k'; 1000], vec![b'k'; 1000]);
    (left[999], right[999]) = (1, 2);
    for _ in 0..20 {
        tracker.touch(hash64(&left), 3, &left, 1, SECOND);
        tracker.touch(hash64(&right), 3, &right, 1, SECOND);
    }
    let top = tracker.top(16, SECOND);
    assert_eq!(top.len(), 2);
    assert!(top.iter().all(|key| key.start == left[..KEY_BYTES_KEPT] && key.key_bytes == 1000 && key.family == 3));
}

#[test]
fn a_rate_is_kept_to_and_never_refuses_below_it() {
    let tracker = Tracker::new(SECOND);
    let rate = Rate { interval_ns: 10_000_000, burst_ns: 1_000_000_000 };
    let charge = |key: u64, now: Duration| tracker.charge(hash64(&key.to_be_bytes()), 0, &key.to_be_bytes(), rate, now);
    // 100 a second: a burst of 100 passes, then one each 10 ms.
    assert!((0..100).all(|_| charge(1, SECOND).is_ok()));
    assert_eq!(charge(1, SECOND), Err(10_000_000));
    assert_eq!(charge(1, SECOND + Duration::from_millis(5)), Err(5_000_000));
    assert_eq!(charge(1, SECOND + Duration::from_millis(10)), Ok(()));
    // Whatever else comes up: at the limit each write passes, and what was refused does not count.
    let mut rng = Rng::new(3);
    for i in 0..2000_u64 {
        assert_eq!(charge(2, SECOND + Duration::from_millis(10 * i)), Ok(()));
        (0..20).for_each(|_| _ = charge(1000 + rng.below(1 << 40), SECOND + Duration::from_millis(10 * i)));
    }
    let passed = (0..10_000_u64).filter(|i| charge(3, 100 * SECOND + Duration::from_millis(*i)).is_ok()).count();
    assert!((1000..=1101).contains(&passed), "10 s at 100 a second and a burst: {passed}");
}

#[test]
fn threads_touch_at_once() {
    let tracker = Tracker::new(SECOND);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let tracker = &tracker;
            scope.spawn(move || {
                (0..5000).for_each(|i| _ = touch(tracker, if i % 2 == 0 { 7 } else { thread * 10_000 + i }, SECOND))
            });
        }
    });
    assert_eq!(keys(&tracker.top(1, SECOND)), vec![7]);
}
