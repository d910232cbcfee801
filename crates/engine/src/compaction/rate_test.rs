use super::*;

#[test]
fn a_bucket_gives_its_rate_and_a_small_burst() {
    let mut bucket = Bucket::default();
    bucket.refill(Duration::from_secs(100), 1000);
    assert_eq!(bucket.bytes, 100, "a long rest saves up a tenth of a second");
    bucket.bytes -= 600;
    bucket.refill(Duration::from_millis(100_400), 1000);
    assert_eq!(bucket.bytes, -100);
    bucket.refill(Duration::from_millis(100_500), 1000);
    assert_eq!(bucket.bytes, 0);
}

#[test]
fn taking_waits_until_it_is_paid_for() {
    let env = Env::real();
    let limiter = RateLimiter::new(1 << 20);
    let stop = AtomicBool::new(false);
    let began = env.clock.monotonic();
    for _ in 0..4 {
        limiter.take(&env, 64 << 10, &stop);
    }
    // 256 KiB at 1 MiB a second, less a burst of a tenth.
    assert!(env.clock.monotonic() - began >= Duration::from_millis(140));
    assert!(limiter.waited() >= Duration::from_millis(100));
    assert_eq!(limiter.taken_bytes(), 256 << 10);
}

#[test]
fn no_writer_waits_without_a_limit_or_after_the_end() {
    let env = Env::real();
    RateLimiter::new(0).take(&env, u64::MAX, &AtomicBool::new(false));
    RateLimiter::new(1).take(&env, u64::MAX, &AtomicBool::new(true));
}
