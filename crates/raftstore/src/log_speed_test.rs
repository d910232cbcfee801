use super::*;

const MS: Duration = Duration::from_millis(1);

fn bounds() -> SlowLog {
    SlowLog { window: 100 * MS, write_min: 20 * MS, factor: 5, slow_windows: 3, fast_windows: 4 }
}

/// A log with a clock.
struct Log {
    speed: LogSpeed,
    now: Duration,
}

impl Log {
    fn new() -> Log {
        let mut speed = LogSpeed::new(bounds());
        assert!(!speed.tick(Duration::ZERO, None, vec![]), "the first window begins");
        Log { speed, now: Duration::ZERO }
    }

    /// A window in which each write took so long; returns whether the log is slow then.
    fn window(&mut self, writes_ms: &[u32], others_ms: &[u32]) -> bool {
        writes_ms.iter().for_each(|ms| self.speed.written(*ms * MS));
        self.now += 100 * MS;
        let before = self.speed.is_slow();
        let changed = self.speed.tick(self.now, None, others_ms.iter().map(|ms| *ms * MS).collect());
        assert_eq!(changed, before != self.speed.is_slow());
        self.speed.is_slow()
    }
}

#[test]
fn some_slow_windows_in_a_row_make_it_slow_and_more_fast_ones_end_that() {
    let mut log = Log::new();
    assert!(!log.window(&[100], &[10, 10]) && !log.window(&[10, 300], &[10, 10]));
    assert!(!log.window(&[50], &[10, 10]), "at the limit, and the count begins again");
    assert!(!log.window(&[51], &[10, 10]) && !log.window(&[51, 51], &[10, 10]));
    assert!(log.window(&[60], &[10, 10]));
    // Half of the limit is fast; what is between that and the limit counts for nothing.
    assert!(log.window(&[25], &[10, 10]) && log.window(&[20], &[10, 10]) && log.window(&[20], &[10, 10]));
    assert!(log.window(&[51], &[10, 10]), "the count begins again");
    for _ in 0..3 {
        assert!(log.window(&[25], &[10, 10]) && log.window(&[26], &[10, 10]));
    }
    assert!(!log.window(&[25], &[10, 10]));
}

#[test]
fn what_was_measured_long_ago_is_not_reported() {
    let mut log = Log::new();
    log.window(&[90], &[10, 10]);
    assert!((0..3).all(|_| !log.window(&[], &[10, 10])));
    assert_eq!(log.speed.average(), Some(90 * MS));
    log.window(&[12], &[10, 10]);
    assert_eq!(log.speed.average(), Some(51 * MS), "a write begins the count again");
    assert!((0..4).all(|_| !log.window(&[], &[10, 10])));
    assert_eq!(log.speed.average(), None);
    log.window(&[8], &[10, 10]);
    assert_eq!(log.speed.average(), Some(8 * MS), "nothing of what was before");
}

#[test]
fn windows_without_a_write_do_not_count() {
    let mut log = Log::new();
    for _ in 0..2 {
        assert!(!log.window(&[90], &[10, 10]));
        assert!(!log.window(&[], &[10, 10]));
    }
    assert!(log.window(&[90], &[10, 10]));
    assert!((0..50).all(|_| log.window(&[], &[10, 10])), "an idle log stays as it was");
}

#[test]
fn it_is_compared_with_what_at_least_half_of_the_others_need() {
    let is_slow = |own_ms: u32, others_ms: &[u32]| {
        let mut log = Log::new();
        (0..10).any(|_| log.window(&[own_ms], others_ms))
    };
    assert!(!is_slow(20, &[1, 1]) && is_slow(21, &[1, 1]), "the minimum");
    assert!(!is_slow(90, &[10, 90]), "of two others one is as slow: nothing would be gained");
    assert!(is_slow(90, &[10, 10, 10, 90]) && is_slow(90, &[10, 10, 90]) && !is_slow(90, &[10, 90, 90]));
    assert!(!is_slow(1000, &[]), "nothing to compare with");
    assert!(is_slow(90, &[10]));
}

#[test]
fn a_write_that_does_not_end_counts() {
    let mut log = Log::new();
    for windows in 1..=3 {
        let waiting = Some(windows * 100 * MS);
        log.speed.tick(windows * 100 * MS, waiting, vec![MS, MS]);
        assert_eq!(log.speed.is_slow(), windows == 3);
    }
    assert!(log.speed.average().is_some_and(|average| average > 100 * MS));
}

#[test]
fn ticks_within_a_window_change_nothing() {
    let mut log = Log::new();
    log.speed.written(500 * MS);
    assert!((1..100).all(|ms| !log.speed.tick(ms * MS, None, vec![MS])) && log.speed.average().is_none());
    log.window(&[], &[1]);
    assert_eq!(log.speed.average(), Some(500 * MS));
    log.window(&[100], &[1]);
    assert_eq!(log.speed.average(), Some(300 * MS), "the newer one counts as much as all earlier ones");
}
