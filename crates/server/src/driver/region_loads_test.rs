use super::*;
use crate::driver::Sample;

const WINDOW: Duration = Duration::from_secs(1);
const REGION: RegionId = RegionId(2);
const CHILD: RegionId = RegionId(1_000);

struct Rig {
    loads: RegionLoads,
    now: Duration,
}

impl Rig {
    fn new(requests_max: u64) -> Rig {
        let limits = LoadLimits { requests_max, bytes_max: 0, window: WINDOW };
        let mut rig = Rig { loads: RegionLoads::new(limits, Rng::new(1), Duration::ZERO), now: Duration::ZERO };
        rig.loads.leads(PLACEMENT_REGION, rig.now);
        rig.loads.leads(REGION, rig.now);
        rig
    }

    /// A window in which so many requests for each of these regions are served.
    fn window(&mut self, regions: &[RegionId], requests: u64) -> Vec<RegionId> {
        self.loads.look(self.now);
        for region in regions {
            for number in 0..requests {
                let key = number.to_be_bytes();
                self.loads.table.count(*region, 1, 10, &mut |_| Sample::raw(&key, &key));
            }
        }
        self.now += WINDOW;
        self.loads.look(self.now).into_iter().map(|(region, _)| region).collect()
    }

    fn windows(&mut self, regions: &[RegionId], requests: u64) -> Vec<RegionId> {
        for _ in 1..WINDOWS {
            assert!(self.window(regions, requests).is_empty());
        }
        self.window(regions, requests)
    }
}

#[test]
fn a_region_of_which_much_is_served_is_due_and_never_the_placement_group() {
    let mut rig = Rig::new(100);
    assert_eq!(rig.windows(&[REGION, PLACEMENT_REGION], 100), [REGION]);
    assert!(rig.loads.regions[&REGION].served.sample().len() > SAMPLES_MIN);
}

#[test]
fn a_region_of_which_less_is_served_is_neither_due_nor_sampled() {
    let mut rig = Rig::new(100);
    for _ in 0..50 {
        assert!(rig.window(&[REGION], 99).is_empty());
    }
    assert!(rig.loads.regions[&REGION].served.sample().is_empty());
}

#[test]
fn only_the_leader_counts() {
    let mut rig = Rig::new(100);
    rig.windows(&[REGION], 100);
    rig.loads.leads_no_more(REGION);
    for _ in 0..20 {
        assert!(rig.window(&[REGION], 1_000).is_empty());
    }
    rig.loads.leads(REGION, rig.now);
    assert_eq!(rig.windows(&[REGION], 100), [REGION], "from the beginning");
}

#[test]
fn without_limits_nothing_is_counted() {
    let mut rig = Rig::new(0);
    rig.window(&[REGION], 1_000);
    assert!(rig.loads.regions.is_empty());
}

#[test]
fn a_streak_ends_when_the_range_changes() {
    let mut rig = Rig::new(100);
    for _ in 0..9 {
        rig.window(&[REGION], 100);
    }
    rig.loads.range_changed(REGION);
    assert!(rig.loads.regions[&REGION].served.sample().is_empty(), "those of the old range");
    assert_eq!(rig.windows(&[REGION], 100), [REGION]);
}

#[test]
fn both_parts_of_a_split_settle_whether_the_new_one_is_led_already_or_not() {
    for is_led in [true, false] {
        let mut rig = Rig::new(100);
        rig.windows(&[REGION], 100);
        let inherited = rig.loads.regions.get_mut(&REGION).unwrap().windows.split();
        rig.loads.splitting.insert(REGION, inherited);
        if is_led {
            rig.loads.leads(CHILD, rig.now);
        }
        rig.loads.split_ended(REGION, &[REGION, CHILD], rig.now);
        if !is_led {
            rig.loads.leads(CHILD, rig.now);
        }
        assert!(rig.loads.splitting.is_empty() && rig.loads.made.is_empty());
        for _ in 0..9 {
            assert!(rig.window(&[REGION, CHILD], 100).is_empty());
        }
        assert_eq!(rig.windows(&[REGION, CHILD], 100), [REGION, CHILD]);
        for region in [REGION, CHILD] {
            let windows = &mut rig.loads.regions.get_mut(&region).unwrap().windows;
            assert!(!windows.split_helped(rig.now, WINDOW), "each has as much load as both before");
        }
    }
}

#[test]
fn a_region_whose_split_failed_rests() {
    let mut rig = Rig::new(100);
    rig.windows(&[REGION], 100);
    let inherited = rig.loads.regions.get_mut(&REGION).unwrap().windows.split();
    rig.loads.splitting.insert(REGION, inherited);
    rig.loads.split_ended(REGION, &[], rig.now);
    for _ in 0..29 {
        assert!(rig.window(&[REGION], 100).is_empty());
    }
    assert_eq!(rig.windows(&[REGION], 100), [REGION]);
}

#[test]
fn parts_that_another_node_leads_are_forgotten() {
    let mut rig = Rig::new(100);
    rig.windows(&[REGION], 100);
    let inherited = rig.loads.regions.get_mut(&REGION).unwrap().windows.split();
    rig.loads.splitting.insert(REGION, inherited);
    rig.loads.split_ended(REGION, &[REGION, CHILD], rig.now);
    assert_eq!(rig.loads.made.len(), 1);
    for _ in 0..10 {
        rig.window(&[], 0);
    }
    assert!(rig.loads.made.is_empty());
}

#[test]
fn a_bounded_number_of_regions_is_sampled_and_the_others_get_their_turn() {
    let mut rig = Rig::new(10);
    let regions: Vec<RegionId> = (2..SAMPLED_MAX as u64 + 7).map(RegionId).collect();
    regions.iter().for_each(|region| rig.loads.leads(*region, rig.now));
    let due = rig.windows(&regions, 10);
    assert_eq!(due, regions[..SAMPLED_MAX]);
    for region in due {
        rig.loads.leads_no_more(region);
    }
    assert_eq!(rig.windows(&regions, 10), regions[SAMPLED_MAX..]);
}
