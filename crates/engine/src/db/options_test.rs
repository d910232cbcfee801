use super::*;

fn refused(change: impl FnOnce(&mut Options), expected: &[&str]) {
    let mut options = Options::default();
    change(&mut options);
    let error = options.validate().expect_err("out of range").to_string();
    expected.iter().for_each(|part| assert!(error.contains(part), "{part} is missing in: {error}"));
}

#[test]
fn the_defaults_are_in_range() {
    Options::default().validate().expect("defaults");
}

#[test]
fn field_value_and_range_are_named() {
    refused(|o| o.memtable_bytes = 1, &["memtable_bytes", "is 1", "4096", "4294967296"]);
    refused(|o| o.memtables_max = 1, &["memtables_max", "is 1", "from 2 to 64"]);
    refused(|o| o.level0_tables_max = 4, &["level0_tables_max", "is 4", "from 5 to 1000"]);
    refused(|o| o.log_segment_bytes = 100, &["log_segment_bytes", "is 100", "4096"]);
    refused(|o| o.log_bytes_max = 64 << 20, &["log_bytes_max", "67108864", "268435456"]);
    refused(|o| o.group_bytes_max = 0, &["group_bytes_max", "is 0"]);
    refused(|o| o.open_tables_max = 0, &["open_tables_max", "is 0", "from 16"]);
}

#[test]
fn families_must_make_sense() {
    let spec = |number, name: &str| FamilySpec::new(Family(number), name);
    refused(|o| o.families = vec![spec(0, "other")], &["number 0", "other"]);
    refused(|o| o.families = vec![spec(3, "default")], &["number 3"]);
    refused(|o| o.families = vec![spec(3, "")], &["1 to 64 bytes"]);
    refused(|o| o.families = vec![spec(3, "a"), spec(3, "b")], &["number 3", "once"]);
    refused(|o| o.families = vec![spec(3, "a"), spec(4, "a")], &["number 4", "once"]);
    refused(|o| o.families = vec![spec(16_370, "mine")], &["number 16370", "store's own"]);
    refused(|o| o.families = vec![spec(3, "kontiki.mine")], &["kontiki.mine", "16368", "16383"]);
    let own = Options { families: vec![spec(16_383, "kontiki.meta"), spec(16_384, "mine")], ..Options::default() };
    own.validate().expect("a reserved number and a reserved name belong together");
    let named = Options { families: vec![spec(0, "default"), spec(5, "five")], ..Options::default() };
    named.validate().expect("fine");
    assert_eq!(named.all_families().collect::<Vec<_>>(), [(Family(0), "default"), (Family(5), "five")]);
}

/// At its bound writers wait for a compaction of level 0; one that is never due would stop them for ever.
#[test]
fn a_family_compacts_level_0_before_writers_wait_for_that() {
    let family = |level0_tables| {
        let mut spec = FamilySpec::new(Family(3), "f");
        spec.options.compaction = Some(CompactionOptions { level0_tables, ..CompactionOptions::default() });
        spec
    };
    let parts = ["number 3", "\"f\"", "compaction.level0_tables is 24", "below level0_tables_max, which is 24"];
    refused(|o| o.families = vec![family(24)], &parts);
    Options { families: vec![family(23)], ..Options::default() }.validate().expect("one is due before");
    let parts = ["level0_tables is 23", "level0_tables_max, which is 8"];
    refused(|o| (o.families, o.level0_tables_max) = (vec![family(23)], 8), &parts);
}

#[test]
fn a_memory_budget_is_split_and_kept() {
    for shift in [0, 23, 25, 29, 32, 35, 38] {
        let budget = 1u64 << shift;
        let options = Options::with_memory_budget(budget);
        options.validate().expect("every budget gives options in range");
        let memtables = options.memtable_bytes * options.memtables_max as u64;
        let all = memtables + options.cache_bytes + options.table_cache_bytes;
        assert!(all <= budget.max(MEMORY_BUDGET_BYTES_MIN) + (1 << 20), "2^{shift}: {all}");
        assert!(shift < 23 || all > budget / 10 * 9, "2^{shift}: {all} leaves memory unused");
        assert!(options.log_bytes_max >= 2 * memtables, "memtables are flushed for their own size");
    }
    Options::auto().validate().expect("this machine has enough");
}
