use super::*;

const WINDOW: Duration = Duration::from_secs(1);
const HOT: u64 = 2_000;

/// The windows of a region, and the time.
#[derive(Default)]
struct Rig {
    windows: Windows,
    now: Duration,
}

impl Rig {
    fn pass(&mut self, permille: u64) -> Next {
        self.now += WINDOW;
        self.windows.pass(Load { permille, measure: Measure::Requests }, self.now, WINDOW)
    }

    /// How many windows pass before it is time to decide, at most so many.
    fn until_due(&mut self, permille: u64, windows_max: u32) -> Option<u32> {
        (1..=windows_max).find(|_| self.pass(permille) == Next::Decide)
    }
}

#[test]
fn it_takes_ten_windows_in_a_row() {
    let mut rig = Rig::default();
    assert_eq!(rig.pass(HOT), Next::Sample);
    for _ in 0..8 {
        assert_eq!(rig.pass(HOT), Next::Wait);
    }
    assert_eq!(rig.pass(HOT), Next::Decide);
    assert_eq!(rig.pass(HOT), Next::Decide, "until a decision is made");
}

#[test]
fn a_calm_window_ends_a_streak_and_one_in_between_does_not() {
    let mut rig = Rig::default();
    assert!(rig.until_due(HOT, 9).is_none());
    assert_eq!(rig.pass(CALM), Next::Wait);
    assert_eq!(rig.pass(AT_LIMIT - 1), Next::Wait);
    assert!(rig.windows.is_above());
    assert_eq!(rig.pass(CALM - 1), Next::Calm);
    assert!(!rig.windows.is_above());
    assert_eq!(rig.pass(AT_LIMIT - 1), Next::Calm, "no streak begins below the limit");
    assert_eq!(rig.until_due(AT_LIMIT, 20), Some(WINDOWS));
}

#[test]
fn a_load_below_the_limit_causes_nothing_however_long() {
    assert_eq!(Rig::default().until_due(AT_LIMIT - 1, 10_000), None);
}

#[test]
fn decisions_that_change_nothing_become_rarer_up_to_a_bound() {
    let mut rig = Rig::default();
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(rig.until_due(HOT, 5_000).expect("it comes again"));
        rig.windows.rest(rig.now, WINDOW);
    }
    assert_eq!(waits[..4], [10, 30 + 9, 60 + 9, 120 + 9]);
    assert_eq!(waits[7], waits[8]);
    assert_eq!(waits[8], (30 << 6) + 9);
}

#[test]
fn what_was_in_vain_is_forgotten_after_a_long_calm() {
    let mut rig = Rig::default();
    for _ in 0..3 {
        rig.until_due(HOT, 5_000).expect("it comes");
        rig.windows.rest(rig.now, WINDOW);
    }
    for _ in 0..(30 << 6) + 200 {
        rig.pass(0);
    }
    assert_eq!(rig.until_due(HOT, 100), Some(10));
    rig.windows.rest(rig.now, WINDOW);
    assert_eq!(rig.until_due(HOT, 100), Some(30 + 9));
}

#[test]
fn a_part_of_a_split_settles_and_goes_on_if_the_split_has_helped() {
    let mut rig = Rig::default();
    rig.until_due(4 * HOT, 10).expect("due");
    let inherited = rig.windows.split();
    let mut part = Rig { now: rig.now, ..Rig::default() };
    part.windows.inherit(inherited, part.now, WINDOW);
    assert_eq!(part.until_due(2 * HOT, 100), Some(10 + 9));
    assert!(part.windows.split_helped(part.now, WINDOW), "it has half of the load");
}

#[test]
fn a_part_with_all_of_the_load_rests_longer_after_each_split() {
    let mut rig = Rig::default();
    rig.until_due(HOT, 10).expect("due");
    let mut rests = Vec::new();
    for _ in 0..3 {
        let inherited = rig.windows.split();
        rig.windows = Windows::default();
        rig.windows.inherit(inherited, rig.now, WINDOW);
        rig.until_due(HOT, 100).expect("it settles");
        assert!(!rig.windows.split_helped(rig.now, WINDOW), "it has all of the load");
        rests.push(rig.until_due(HOT, 5_000).expect("it rests"));
        assert!(rig.windows.split_helped(rig.now, WINDOW), "one rest for one split");
    }
    assert_eq!(rests, [30 + 9, 60 + 9, 120 + 9]);
}

#[test]
fn a_load_is_the_larger_share_of_a_limit() {
    let limits = LoadLimits { requests_max: 100, bytes_max: 1_000, window: WINDOW };
    let load = |permille, measure| Load { permille, measure };
    assert_eq!(limits.load(100, 900, WINDOW), load(1_000, Measure::Requests));
    assert_eq!(limits.load(100, 1_100, WINDOW), load(1_100, Measure::Bytes));
    assert_eq!(limits.load(100, 1_100, 2 * WINDOW), load(550, Measure::Bytes), "a window that took longer");
    let off = LoadLimits { requests_max: 0, bytes_max: 0, window: WINDOW };
    assert!(off.is_off());
    assert_eq!(off.load(u64::MAX, u64::MAX, WINDOW).permille, 0);
}
