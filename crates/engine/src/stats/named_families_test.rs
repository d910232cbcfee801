use super::*;

fn family(number: u32, bytes: u64) -> FamilyStats {
    let level =
        |bytes, score, target_bytes| LevelStats { tables: 1, bytes, entries: 10, tombstones: 2, target_bytes, score };
    FamilyStats {
        family: number,
        name: format!("family {number}"),
        range_tombstones: 3,
        levels: vec![level(bytes, f64::from(number), None), level(bytes, 0.0, Some(100))],
    }
}

#[test]
fn few_families_are_all_named() {
    let families: Vec<FamilyStats> = (0..METRIC_FAMILIES_MAX as u32).map(|number| family(number, 1)).collect();
    assert_eq!(*named(&families), families[..]);
}

#[test]
fn of_many_families_the_largest_are_named_and_the_others_summed() {
    let count = 1_000;
    let families: Vec<FamilyStats> = (0..count).map(|number| family(number, u64::from(number % 500))).collect();
    let shown = named(&families);
    let (others, largest) = shown.split_last().expect("not empty");
    // Each size is there twice.
    let numbers: Vec<u32> = largest.iter().map(|stats| stats.family).collect();
    let expected: Vec<u32> = (490..500).chain(990..1_000).collect();
    assert_eq!(numbers, expected);
    let rest = u64::from(count) - METRIC_FAMILIES_MAX as u64;
    let bytes = |shown: &[FamilyStats], level: usize| shown.iter().map(|stats| stats.levels[level].bytes).sum::<u64>();
    assert_eq!((others.name.as_str(), others.range_tombstones), (OTHERS, 3 * rest));
    assert_eq!((bytes(&shown, 0), bytes(&shown, 1)), (bytes(&families, 0), bytes(&families, 1)), "nothing is lost");
    let level = others.levels[0];
    assert_eq!((level.tables, level.entries, level.tombstones), (rest, 10 * rest, 2 * rest));
    assert_eq!((level.score, level.target_bytes), (989.0, None), "the most urgent one");
    assert_eq!(others.levels[1].target_bytes, Some(100 * rest));
}

#[test]
fn the_number_of_series_does_not_grow_with_the_number_of_families() {
    let lines = |count: u32| {
        let families = (0..count).map(|number| family(number, u64::from(number))).collect();
        crate::Stats { families, ..crate::Stats::default() }.to_prometheus().lines().count()
    };
    assert_eq!(lines(1_000), lines(METRIC_FAMILIES_MAX as u32 + 1));
    assert!(lines(1_000) > lines(1));
}
