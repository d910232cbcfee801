use super::*;
use crate::table::TableMeta;
use crate::types::SEQUENCE_NUMBER_MAX;
use crate::version::version_of;
use bytes::Bytes;
use proptest::prelude::*;

type Tables = Vec<(Family, usize, TableMeta)>;

fn meta(number: u64, smallest: u8, largest: u8, bytes: u64) -> TableMeta {
    TableMeta {
        number,
        file_bytes: bytes,
        smallest_key: Bytes::copy_from_slice(&[smallest]),
        largest_key: Bytes::copy_from_slice(&[largest]),
        smallest_sequence: number,
        largest_sequence: number,
        entries: 10,
        tombstones: 0,
        global_sequence: None,
    }
}

fn options() -> CompactionOptions {
    CompactionOptions {
        level0_tables: 2,
        level1_bytes: 100,
        level_factor: 10,
        table_bytes: 50,
        periodic_compaction_seconds: 0,
        ..CompactionOptions::default()
    }
}

const F: Family = Family(7);
const LAST: usize = LEVEL_COUNT - 1;

fn plan_with(version: &Version, options: &CompactionOptions, in_flight: &InFlight) -> Option<Plan> {
    let families = FamilyMap::default();
    let (now_ms, oldest_reader) = (1000, SEQUENCE_NUMBER_MAX);
    Planner { version, options, families: &families, in_flight, now_ms, oldest_reader }.plan()
}

fn plan(version: &Version) -> Option<Plan> {
    plan_with(version, &options(), &InFlight::default())
}

fn numbers(tables: &[Arc<Table>]) -> Vec<u64> {
    let mut numbers: Vec<_> = tables.iter().map(|table| table.meta().number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn nothing_is_due_below_the_targets() {
    let version = version_of(vec![
        (F, 0, meta(9, 0, 9, 1000)),
        (F, LAST - 1, meta(1, 0, 3, 700)),
        (F, LAST, meta(2, 0, 9, 5000)),
    ]);
    assert!(plan(&version).is_none());
}

#[test]
fn a_shard_goes_to_the_base_with_all_that_is_connected() {
    let version = version_of(vec![
        (F, 0, meta(11, 10, 20, 10)),
        (F, 0, meta(12, 40, 50, 10)),
        (F, 0, meta(13, 20, 30, 10)),
        (F, 0, meta(14, 28, 29, 10)),
        (F, LAST, meta(1, 0, 9, 10)),
        (F, LAST, meta(2, 12, 14, 10)),
        (F, LAST, meta(3, 30, 39, 10)),
        (F, LAST, meta(4, 45, 46, 10)),
    ]);
    let plan = plan(&version).expect("a key may be in two tables");
    assert_eq!((plan.from, plan.to, plan.change), (0, LAST, TableChange::Merge));
    assert_eq!(numbers(&plan.inputs), [11, 13, 14]);
    assert_eq!(numbers(&plan.overlaps), [2, 3]);
}

#[test]
fn a_shard_that_is_small_against_what_is_below_is_merged_within_itself() {
    let mut tables = vec![(F, 0, meta(11, 0, 9, 10)), (F, 0, meta(12, 0, 9, 10)), (F, 0, meta(10, 0, 9, 60))];
    tables.push((F, LAST, meta(1, 0, 9, 900)));
    let plan = plan(&version_of(tables)).expect("three tables");
    assert_eq!((plan.from, plan.to, plan.change), (0, 0, TableChange::Merge));
    assert_eq!(numbers(&plan.inputs), [11, 12], "the large old one is not written again");
}

/// Else it would be due again, with as many tables, for ever.
#[test]
fn tables_beside_each_other_are_no_reason_to_merge_a_shard_within_itself() {
    let mut tables = vec![(F, 0, meta(11, 0, 4, 10)), (F, 0, meta(12, 5, 9, 10)), (F, 0, meta(10, 0, 9, 60))];
    tables.push((F, LAST, meta(1, 0, 9, 900)));
    let plan = plan(&version_of(tables)).expect("three tables, two over each key");
    assert_eq!((plan.from, plan.to, plan.change), (0, LAST, TableChange::Merge));
    assert_eq!(numbers(&plan.inputs), [10, 11, 12]);
}

#[test]
fn tables_alone_in_their_range_move_together() {
    let version = version_of(vec![
        (F, LAST - 1, meta(5, 10, 20, 1000)),
        (F, LAST - 1, meta(6, 30, 40, 1000)),
        (F, LAST - 1, meta(7, 60, 70, 1000)),
        (F, LAST, meta(1, 21, 29, 500)),
        (F, LAST, meta(2, 65, 66, 500)),
    ]);
    let plan = plan(&version).expect("more is above the last level than in it");
    assert_eq!((plan.from, plan.to, plan.change), (LAST - 1, LAST, TableChange::Move));
    assert_eq!(numbers(&plan.inputs), [5, 6]);
}

#[test]
fn from_a_level_goes_what_has_least_to_be_merged_with() {
    let version = version_of(vec![
        (F, LAST - 1, meta(5, 10, 20, 1000)),
        (F, LAST - 1, meta(6, 30, 40, 1000)),
        (F, LAST, meta(1, 0, 15, 3000)),
        (F, LAST, meta(2, 16, 29, 3000)),
        (F, LAST, meta(3, 35, 36, 3000)),
    ]);
    let plan = plan(&version).expect("over the target");
    assert_eq!((numbers(&plan.inputs), numbers(&plan.overlaps)), (vec![6], vec![3]));
}

#[test]
fn a_table_of_tombstones_is_rewritten_at_the_bottom_and_goes_down_above_it() {
    let dead = |number, smallest, largest| TableMeta { tombstones: 5, ..meta(number, smallest, largest, 10) };
    let version = version_of(vec![(F, LAST, dead(1, 0, 9)), (F, LAST, meta(2, 10, 19, 10))]);
    let at_the_bottom = plan(&version).expect("half of it is dead");
    assert_eq!((at_the_bottom.from, at_the_bottom.to, numbers(&at_the_bottom.inputs)), (LAST, LAST, vec![1]));
    let version = version_of(vec![(F, LAST - 1, dead(5, 0, 9)), (F, LAST, meta(2, 5, 19, 5000))]);
    let above = plan(&version).expect("half of it is dead");
    assert_eq!((above.from, above.to, numbers(&above.overlaps)), (LAST - 1, LAST, vec![2]));
    let families = FamilyMap::default();
    let held = Planner {
        version: &version,
        options: &options(),
        families: &families,
        in_flight: &InFlight::default(),
        now_ms: 1000,
        oldest_reader: 4,
    };
    assert!(held.plan().is_none(), "a transaction may need the tombstones");
}

#[test]
fn the_most_urgent_of_all_families_comes_first() {
    let other = Family(8);
    let version = version_of(vec![
        (F, 0, meta(11, 0, 9, 10)),
        (F, 0, meta(12, 0, 9, 10)),
        (other, 0, meta(2, 0, 9, 1)),
        (other, 0, meta(3, 0, 9, 1)),
        (other, 0, meta(4, 0, 9, 1)),
    ]);
    let plan = plan(&version).expect("both are due");
    assert_eq!((plan.family, plan.from, plan.inputs.len()), (other, 0, 3));
}

/// Panics unless the plan takes everything that it must: no table left behind in a level that it passes or writes to
/// overlaps it, and what is left of a shard is older or younger than all of the plan.
fn assert_whole(plan: &Plan, levels: &FamilyLevels) {
    assert!(!plan.inputs.is_empty() && plan.to >= plan.from && plan.to < LEVEL_COUNT);
    assert!(plan.overlaps.is_empty() || plan.change == TableChange::Merge && plan.from != plan.to);
    let taken = |table: &Table| plan.tables().any(|(_, input)| input.meta().number == table.meta().number);
    for (level, table) in plan.tables() {
        assert!(levels.levels[level].iter().any(|there| there.meta().number == table.meta().number));
    }
    if plan.change == TableChange::Drop {
        return;
    }
    let touches = |table: &Table| match plan.change {
        TableChange::Merge => {
            let all = || plan.tables().map(|(_, input)| input.meta());
            let smallest = all().map(|meta| &meta.smallest_key).min().expect("inputs");
            let largest = all().map(|meta| &meta.largest_key).max().expect("inputs");
            let meta = table.meta();
            meta.smallest_key <= *largest && *smallest <= meta.largest_key
        }
        _ => plan.inputs.iter().any(|input| input.meta().overlaps(table.meta())),
    };
    for level in plan.from..=plan.to {
        for table in levels.levels[level].iter().filter(|table| !taken(table)) {
            let beside = match level {
                0 if plan.to == 0 => {
                    let all = || plan.inputs.iter().map(|input| input.meta());
                    let newest = all().map(|meta| meta.largest_sequence).max().expect("inputs");
                    let oldest = all().map(|meta| meta.smallest_sequence).min().expect("inputs");
                    table.meta().largest_sequence < oldest || table.meta().smallest_sequence > newest
                }
                // Above the output only what is merged must not leave anything older than itself behind.
                _ if level < plan.to && level == plan.from && level > 0 => true,
                0 => !plan.inputs.iter().any(|input| input.meta().overlaps(table.meta())),
                _ => !touches(table),
            };
            assert!(beside || !touches(table), "table {} of level {level} is left behind", table.meta().number);
        }
    }
}

/// The tables after a plan, by metadata alone: a merge makes one table for each 50 bytes of half its input.
fn after(tables: &Tables, plan: &Plan, next: &mut u64) -> Tables {
    let gone = numbers(&plan.tables().map(|(_, table)| table.clone()).collect::<Vec<_>>());
    let mut left: Tables = tables.iter().filter(|(_, _, meta)| !gone.contains(&meta.number)).cloned().collect();
    let all = || plan.tables().map(|(_, table)| table.meta());
    match plan.change {
        TableChange::Drop => {}
        TableChange::Move => left.extend(all().map(|meta| (plan.family, plan.to, meta.clone()))),
        TableChange::Merge => {
            *next += 1;
            left.push((
                plan.family,
                plan.to,
                TableMeta {
                    number: *next,
                    file_bytes: plan.bytes() * 3 / 4 + 1,
                    smallest_key: all().map(|meta| &meta.smallest_key).min().expect("inputs").clone(),
                    largest_key: all().map(|meta| &meta.largest_key).max().expect("inputs").clone(),
                    smallest_sequence: all().map(|meta| meta.smallest_sequence).min().expect("inputs"),
                    largest_sequence: all().map(|meta| meta.largest_sequence).max().expect("inputs"),
                    entries: 10,
                    tombstones: 0,
                    global_sequence: None,
                },
            ));
        }
    }
    left
}

/// Levels with random tables: overlapping in L0, disjoint below. Deeper ones are older.
fn any_levels() -> impl Strategy<Value = Tables> {
    let level0 = prop::collection::vec((any::<u8>(), 0u8..40, 1u64..80), 0..10);
    let deeper = prop::collection::vec(prop::collection::btree_set(any::<u8>(), 0..20), LAST);
    (level0, deeper, 1u64..400, any::<bool>()).prop_map(|(level0, deeper, bytes, dead)| {
        let mut tables = Vec::new();
        let mut number = 1;
        for level in (1..=LAST).rev() {
            let bounds: Vec<u8> = deeper[level - 1].iter().copied().collect();
            for pair in bounds.chunks_exact(2) {
                let tombstones = if dead && number % 3 == 0 { 6 } else { 0 };
                let meta = TableMeta { tombstones, ..meta(number, pair[0], pair[1], bytes + number) };
                tables.push((F, level, meta));
                number += 1;
            }
        }
        for (start, length, bytes) in level0 {
            tables.push((F, 0, meta(number, start, start.saturating_add(length), bytes)));
            number += 1;
        }
        tables
    })
}

proptest! {
    /// Several compactions run, and end in any order: no two touch the same tables or ranges, each takes what it must,
    /// the version that each leaves is in order, and it ends with nothing due.
    #[test]
    fn plans_never_overlap_and_always_come_to_an_end(tables in any_levels(), order in prop::collection::vec(any::<prop::sample::Index>(), 400)) {
        let mut tables = tables;
        let mut next = 10_000;
        let mut in_flight = InFlight::default();
        let mut running: Vec<(u64, Plan)> = Vec::new();
        for pick in order {
            let version = version_of(tables.clone());
            let Some(levels) = version.family(F) else { return Ok(()) };
            let planned = (running.len() < 3).then(|| plan_with(&version, &options(), &in_flight)).flatten();
            if let Some(plan) = planned {
                assert_whole(&plan, levels);
                for (_, other) in &running {
                    let of_both = plan.tables().any(|(_, a)| other.tables().any(|(_, b)| a.meta().number == b.meta().number));
                    prop_assert!(!of_both, "a table is in two plans");
                    prop_assert!(plan.claims().iter().all(|a| other.claims().iter().all(|b| !a.conflicts(b))));
                }
                let id = in_flight.enter(plan.claims());
                running.push((id, plan));
                continue;
            }
            if running.is_empty() {
                let due = Planner {
                    version: &version,
                    options: &options(),
                    families: &FamilyMap::default(),
                    in_flight: &in_flight,
                    now_ms: 1000,
                    oldest_reader: SEQUENCE_NUMBER_MAX,
                };
                prop_assert!(due.due(F, levels).is_empty(), "something is due, and nothing is planned");
                return Ok(());
            }
            let (id, plan) = running.swap_remove(pick.index(running.len()));
            tables = after(&tables, &plan, &mut next);
            in_flight.leave(id);
        }
        prop_assert!(false, "it does not come to an end");
    }

    #[test]
    fn the_debt_is_nothing_when_nothing_is_due(tables in any_levels()) {
        let version = version_of(tables);
        let Some(levels) = version.family(F) else { return Ok(()) };
        let debt = debt_bytes(&version, |_| options());
        if plan(&version).is_none() {
            prop_assert_eq!(debt, 0);
        }
        let targets = Targets::new(levels, &options());
        let over = (1..LAST).any(|level| levels.level_bytes(level) > targets.bytes[level]);
        prop_assert!(debt > 0 || !over, "what is over a target is debt");
    }
}

fn plan_at(version: &Version, options: &CompactionOptions, now_ms: u64) -> Option<Plan> {
    let families = FamilyMap::default();
    let in_flight = InFlight::default();
    let oldest_reader = SEQUENCE_NUMBER_MAX;
    Planner { version, options, families: &families, in_flight: &in_flight, now_ms, oldest_reader }.plan()
}

/// What is dead in level 0 of an idle family stayed for ever.
#[test]
fn dead_tables_of_level_0_go_down_when_nothing_has_come_for_a_while_and_that_pays() {
    let dead = TableMeta { tombstones: 5, ..meta(9, 0, 99, 10) };
    let options = CompactionOptions { idle_look_ms: 500, ..options() };
    let below = |count: u64| {
        let tables = (0..count).map(|at| (F, LAST, meta(at + 1, at as u8 * 2, at as u8 * 2 + 1, 100)));
        version_of(tables.chain([(F, 0, dead.clone())]).collect())
    };
    assert!(plan_at(&below(5), &options, 499).is_none(), "written when the clock began, it is too young");
    let due = plan_at(&below(5), &options, 500).expect("half of it is dead, and nothing comes");
    assert_eq!((due.from, due.to, numbers(&due.inputs), due.overlaps.len()), (0, LAST, vec![9], 5));
    assert!(plan_at(&below(6), &options, 500).is_none(), "5 dead versions are not worth 60 that live");
    let alone = plan_at(&below(0), &options, 500).expect("there is nothing that it could be merged with");
    assert_eq!((alone.from, alone.change, numbers(&alone.inputs)), (0, TableChange::Merge, vec![9]));
    let periodic = CompactionOptions { periodic_compaction_seconds: 2, ..options.clone() };
    let living = version_of(vec![(F, 0, meta(9, 0, 99, 10))]);
    assert!(plan_at(&living, &options, 1_000_000).is_none(), "nothing of it is dead");
    assert!(plan_at(&living, &periodic, 1999).is_none());
    let old = plan_at(&living, &periodic, 2000);
    assert!(old.is_some_and(|plan| plan.from == 0), "it is looked at again");
}

#[test]
fn small_neighbours_become_one_table_but_not_with_one_that_is_large_against_them() {
    let row = |bytes: &[u64]| {
        let tables = bytes.iter().enumerate();
        version_of(tables.map(|(at, bytes)| (F, LAST, meta(at as u64 + 1, at as u8, at as u8, *bytes))).collect())
    };
    let due = |bytes: &[u64]| plan(&row(bytes)).map(|plan| numbers(&plan.inputs));
    assert_eq!(due(&[5; 7]), None, "too few");
    assert_eq!(due(&[5; 8]), Some((1..=8).collect()));
    assert_eq!(due(&[5; 12]), Some((1..=10).collect()), "no more than one table holds");
    assert_eq!(due(&[24, 2, 2, 2, 2, 2, 2, 2]), None, "it has grown: it waits for as much again");
    assert_eq!(due(&[24, 2, 2, 2, 2, 2, 2, 2, 2]), Some((2..=9).collect()));
    assert_eq!(due(&[5, 5, 5, 25, 5, 5, 5, 5, 5]), None, "a large one between them");
}
