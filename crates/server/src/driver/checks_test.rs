use super::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Some day.
const START_MS: u64 = 20_000 * DAY_MS + 5 * HOUR_MS;

fn at(wall_ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(wall_ms), wall_ms }
}

fn leading(regions: u64) -> Checks {
    let mut checks = Checks::new(Duration::from_millis(DAY_MS), Duration::ZERO);
    (2..2 + regions).for_each(|region| checks.leads(RegionId(region), START_MS));
    checks
}

#[test]
fn every_region_has_its_turn_once_in_an_interval_and_one_at_a_time() {
    let mut checks = leading(100);
    let (mut seen, mut in_the_first_half) = (Vec::new(), 0);
    for minute in 0..24 * 60 + 5 {
        let wall_ms = START_MS + minute * 60_000;
        while let Some(region) = checks.next(at(wall_ms)) {
            assert_eq!(checks.next(at(wall_ms + 1)), None, "one is under way");
            seen.push(region);
            in_the_first_half += u64::from(minute < 12 * 60);
            checks.ended(region, true, wall_ms);
        }
    }
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(different.len(), 100);
    assert!((100..103).contains(&seen.len()), "each once: {}", seen.len());
    assert!((25..75).contains(&in_the_first_half), "they are spread: {in_the_first_half}");
}

#[test]
fn a_region_is_compared_once_in_an_interval_although_its_leader_changes_more_often() {
    let region = RegionId(7);
    let mut compared = 0;
    for hour in 0..10 * 24 {
        let mut leader = Checks::new(Duration::from_millis(DAY_MS), Duration::ZERO);
        leader.leads(region, START_MS + hour * HOUR_MS);
        compared += u64::from(leader.next(at(START_MS + (hour + 1) * HOUR_MS)).is_some());
    }
    assert_eq!(compared, 10);
}

#[test]
fn a_check_that_does_not_end_or_could_not_begin_leaves_the_turn_to_others() {
    let mut checks = leading(3);
    let all_due = START_MS + DAY_MS;
    let first = checks.next(at(all_due)).expect("all are due");
    assert_eq!(checks.next(at(all_due + HOUR_MS / 8)), None);
    let second = checks.next(at(all_due + HOUR_MS / 4)).expect("the first one takes too long");
    assert_ne!(first, second);
    checks.ended(second, false, all_due + HOUR_MS / 4);
    let retry_ms = checks.due_ms[&second];
    assert!(retry_ms <= all_due + HOUR_MS / 4 + DAY_MS / RETRY_SHARE, "what failed is tried again sooner");
    let third = checks.next(at(all_due + HOUR_MS / 4)).expect("the next one");
    assert!(third != first && third != second);
    checks.leads_no_more(third);
    assert!(checks.under_way.is_none() && !checks.due_ms.contains_key(&third));
}

#[test]
fn the_placement_group_is_not_due_and_without_an_interval_nothing_is() {
    let mut checks = leading(0);
    checks.leads(PLACEMENT_REGION, START_MS);
    assert_eq!(checks.next(at(START_MS + 2 * DAY_MS)), None);
    let mut checks = Checks::new(Duration::ZERO, Duration::ZERO);
    checks.leads(RegionId(2), START_MS);
    assert_eq!(checks.next(at(START_MS + 1000 * DAY_MS)), None);
}
