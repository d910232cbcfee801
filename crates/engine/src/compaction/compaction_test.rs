use super::harness::{DIR, FAMILIES, Layer, Sizes, random_batch, random_batch_of_all};
use crate::types::{LEVEL_COUNT, SEQUENCE_NUMBER_MAX};
use crate::version::VersionEdit;
use crate::{Error, Family, Range, WriteBatch};
use kontiki_env::fs::{CrashMode, Op};
use kontiki_env::rng::Rng;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Random operations against the model; the highest level below 0 that was reached is returned.
fn play(seed: u64, sizes: Sizes, steps: u64, batch: fn(&mut Rng) -> WriteBatch) -> usize {
    let mut rng = Rng::new(seed).child("operations");
    let mut layer = Layer::new(seed, sizes);
    let mut highest = LEVEL_COUNT;
    for _ in 0..steps {
        match rng.below(100) {
            0..60 => layer.write(&batch(&mut rng)),
            60..66 => layer.flush().expect("a healthy disk"),
            66..76 => drop(layer.compact_step().expect("a healthy disk")),
            76..80 => layer.take_snapshot(),
            80..84 if !layer.snapshots.is_empty() => {
                let at = rng.below(layer.snapshots.len() as u64) as usize;
                layer.snapshots.remove(at);
            }
            84..86 => layer.reopen().expect("a healthy disk"),
            86..87 => layer.compact_all(Family(rng.below(u64::from(FAMILIES)) as u32)).expect("a healthy disk"),
            87..88 => layer.advance(Duration::from_millis(rng.below(1000))),
            88..90 => drop(layer.context.versions.remove_obsolete(&layer.context.tables).expect("a healthy disk")),
            _ => {
                layer.check_now(&mut rng).expect("a healthy disk");
                if let Some((sequence, state)) = rng.pick(&layer.snapshots) {
                    layer.check_reads(state, *sequence, &mut rng).expect("a healthy disk");
                }
            }
        }
        let version = layer.context.versions.current();
        highest = highest
            .min(version.tables().map(|(_, level, _)| level).filter(|level| *level > 0).min().unwrap_or(LEVEL_COUNT));
    }
    highest
}

#[test]
fn reads_agree_with_the_model_at_tiny_sizes() {
    let highest = (0..8).map(|seed| play(seed, Sizes::tiny(), 1200, random_batch)).min();
    assert!(highest <= Some(LEVEL_COUNT - 3), "the sizes are meant to fill three levels, not to {highest:?}");
}

#[test]
fn reads_agree_with_the_model_at_medium_sizes() {
    for seed in 100..106 {
        play(seed, Sizes::medium(), 1500, random_batch_of_all);
    }
}

#[test]
fn reads_agree_with_the_model_under_range_deletes_and_expiry() {
    for seed in 200..212 {
        play(seed, Sizes::tiny(), 1200, random_batch_of_all);
    }
}

#[test]
fn after_compacting_everything_only_live_versions_are_left() {
    let mut rng = Rng::new(7);
    let mut layer = Layer::new(7, Sizes::tiny());
    for round in 0..30 {
        for _ in 0..20 {
            layer.write(&random_batch_of_all(&mut rng));
        }
        if round == 10 {
            layer.take_snapshot();
        }
        layer.flush().expect("a healthy disk");
        while layer.compact_step().expect("a healthy disk") {}
    }
    let (sequence, state) = &layer.snapshots[0];
    for family in (0..FAMILIES).map(Family) {
        layer.compact_all(family).expect("a healthy disk");
    }
    layer.check_reads(state, *sequence, &mut rng).expect("a healthy disk");
    layer.advance(Duration::from_secs(10)); // Half of what expires has expired.
    layer.snapshots.clear();
    for family in (0..FAMILIES).map(Family) {
        // Something on top, so that everything is merged once more.
        let mut batch = WriteBatch::new();
        batch.put(family, b"", b"");
        batch.put(family, b"zz", b"");
        layer.write(&batch);
    }
    layer.flush().expect("a healthy disk");
    for family in (0..FAMILIES).map(Family) {
        layer.compact_all(family).expect("a healthy disk");
        let version = layer.context.versions.current();
        let tables = version.tables().filter(|(of, _, _)| *of == family);
        let (entries, tombstones) = tables.fold((0, 0), |(entries, tombstones), (_, _, table)| {
            (entries + table.meta().entries, tombstones + table.meta().tombstones)
        });
        let live = layer.expected(family, &Range::all(), crate::Direction::Forward, SEQUENCE_NUMBER_MAX - 1);
        assert_eq!((entries, tombstones), (live.len() as u64, 0));
    }
}

#[test]
fn obsolete_files_are_deleted_after_the_last_reader() {
    let mut layer = Layer::new(3, Sizes::tiny());
    for i in 0..20u32 {
        layer.put(format!("key{i:03}").as_bytes(), &[b'x'; 30]);
    }
    layer.flush().expect("a healthy disk");
    let old: Vec<_> = layer.context.versions.current().tables().map(|(_, _, table)| table.meta().number).collect();
    let state = layer.read_state();
    let mut entries =
        state.entries(Family(0), Range::all(), crate::Direction::Forward, layer.sequence).expect("a healthy disk");
    assert!(entries.next().transpose().expect("a healthy disk").is_some());
    drop(state);
    layer.put(b"key000", b"new");
    layer.flush().expect("a healthy disk");
    layer.compact_all(Family(0)).expect("a healthy disk");
    let remove = |layer: &Layer| layer.context.versions.remove_obsolete(&layer.context.tables).expect("a healthy disk");
    let present = |layer: &Layer| -> BTreeSet<String> {
        layer.machine.env().fs.list(&Path::new(DIR).join("tables")).expect("a healthy disk").into_iter().collect()
    };
    remove(&layer);
    assert!(old.iter().all(|number| present(&layer).contains(&format!("{number:06}.sst"))), "an iterator needs it");
    let mut rest = 0;
    while entries.next().transpose().expect("the files are still there").is_some() {
        rest += 1;
    }
    assert_eq!(rest, 19);
    drop(entries);
    assert!(remove(&layer) >= 1);
    let live: BTreeSet<String> = layer
        .context
        .versions
        .current()
        .tables()
        .map(|(_, _, table)| format!("{:06}.sst", table.meta().number))
        .collect();
    assert_eq!(present(&layer), live);
}

/// Power off at every operation of a workload of flushes and compactions: a reopened directory holds what was
/// flushed, and everything that it holds is sound.
#[test]
fn power_loss_at_any_operation_keeps_what_was_flushed() {
    for (mode, name) in
        [(CrashMode::LoseUnsynced, "lose"), (CrashMode::KeepUnsynced, "keep"), (CrashMode::Random, "random")]
    {
        let mut at = 0;
        loop {
            let seed = 1000 + at;
            let mut rng = Rng::new(seed).child(name);
            let mut layer = Layer::new(seed, Sizes::tiny());
            layer.machine.fs.power_off_after(at);
            let flushed = workload(&mut layer, &mut rng);
            let finished = !layer.machine.fs.is_off();
            layer.machine.fs.crash(mode);
            layer.reopen().unwrap_or_else(|error| panic!("power loss ({name}) after {at} operations: {error}"));
            assert!(layer.sequence >= flushed, "power loss ({name}) after {at} operations loses a flush");
            layer.check_now(&mut rng).expect("a healthy disk");
            let report = crate::inspect::check(&layer.machine.env(), Path::new(DIR)).expect("readable");
            assert_eq!(report.problems, Vec::new(), "power loss ({name}) after {at} operations");
            layer.context.versions.remove_obsolete(&layer.context.tables).expect("a healthy disk");
            let tables = layer.machine.env().fs.list(&Path::new(DIR).join("tables")).expect("a healthy disk");
            assert_eq!(tables.len(), layer.context.versions.current().tables().count(), "orphans are removed");
            if finished {
                assert!(at > 50, "the workload has {at} operations only");
                break;
            }
            at += 1;
        }
    }
}

/// Returns the last sequence number that was flushed for sure.
fn workload(layer: &mut Layer, rng: &mut Rng) -> u64 {
    let mut flushed = 0;
    for _ in 0..6 {
        for _ in 0..8 {
            layer.write(&random_batch_of_all(rng));
        }
        if layer.flush().is_err() {
            return flushed;
        }
        flushed = layer.sequence;
        while layer.compact_step().unwrap_or(false) {}
        let _ = layer.context.versions.remove_obsolete(&layer.context.tables);
    }
    flushed
}

#[test]
fn a_full_disk_fails_a_flush_without_a_trace_and_a_later_one_succeeds() {
    for free_bytes in (0..4000).step_by(97) {
        let mut rng = Rng::new(free_bytes);
        let mut layer = Layer::new(free_bytes, Sizes::tiny());
        for _ in 0..10 {
            layer.write(&random_batch_of_all(&mut rng));
        }
        layer.flush().expect("a healthy disk");
        for _ in 0..40 {
            layer.write(&random_batch_of_all(&mut rng));
        }
        let fs = layer.machine.fs.clone();
        fs.set_quota(Some(fs.used_bytes() + free_bytes));
        let before = fs.used_bytes();
        let result = layer.flush().and_then(|()| {
            while layer.compact_step()? {}
            Ok(())
        });
        if let Err(error) = &result {
            assert!(error.is_retryable(), "{error}");
            layer.check_now(&mut rng).expect("reads go on");
            if !layer.memtable.is_empty() {
                assert_eq!(fs.used_bytes(), before, "a failed flush leaves nothing");
            }
        }
        fs.set_quota(None);
        layer.flush().expect("there is space again");
        while layer.compact_step().expect("there is space again") {}
        layer.check_now(&mut rng).expect("a healthy disk");
        layer.reopen().expect("a healthy disk");
        layer.check_now(&mut rng).expect("a healthy disk");
    }
}

#[test]
fn a_failed_sync_of_the_manifest_is_final() {
    let mut rng = Rng::new(5);
    let mut layer = Layer::new(5, Sizes::medium());
    layer.write(&random_batch_of_all(&mut rng));
    layer.machine.fs.fail_next(Op::Sync, 1, |path| path.to_string_lossy().contains("MANIFEST"));
    assert!(matches!(layer.flush(), Err(Error::Io { .. })));
    assert!(matches!(layer.flush(), Err(Error::Stopped(_))));
    assert!(layer.context.versions.is_stopped());
    layer.check_now(&mut rng).expect("reads go on");
    let refused = layer.context.versions.remove_obsolete(&layer.context.tables);
    assert!(matches!(refused, Err(Error::Stopped(_))), "nothing is removed on the strength of an unsure edit");
    layer.machine.fs.crash(CrashMode::Random);
    layer.reopen().expect("either the edit is there with its table, or it is not");
    layer.check_now(&mut rng).expect("a healthy disk");
}

#[test]
fn a_failed_table_write_leaves_the_version_as_it_was() {
    for op in [Op::Create, Op::Write, Op::Sync, Op::Rename, Op::SyncDir, Op::Read] {
        let mut rng = Rng::new(11);
        let mut layer = Layer::new(11, Sizes { block_cache_bytes: 0, files_max: 1, ..Sizes::tiny() });
        for _ in 0..3 {
            for _ in 0..10 {
                layer.write(&random_batch_of_all(&mut rng));
            }
            layer.flush().expect("a healthy disk");
        }
        layer.machine.fs.fail_next(op, 1, |path| path.to_string_lossy().contains("tables"));
        assert!(matches!(layer.compact_step(), Err(Error::Io { .. })), "{op:?}");
        layer.machine.fs.clear_faults();
        layer.check_now(&mut rng).expect("a healthy disk");
        while layer.compact_step().expect("a healthy disk") {}
        layer.check_now(&mut rng).expect("a healthy disk");
        layer.reopen().expect("a healthy disk");
        layer.check_now(&mut rng).expect("a healthy disk");
    }
}

#[test]
fn a_compaction_that_is_stopped_changes_nothing() {
    let mut rng = Rng::new(13);
    let mut layer = Layer::new(13, Sizes::tiny());
    for _ in 0..3 {
        layer.write(&random_batch_of_all(&mut rng));
        layer.flush().expect("a healthy disk");
    }
    let before: Vec<_> =
        layer.context.versions.current().tables().map(|(_, level, table)| (level, table.meta().number)).collect();
    layer.context.stop.store(true, Ordering::Relaxed);
    assert!(matches!(layer.compact_all(Family(0)), Err(Error::Closed)));
    let after: Vec<_> =
        layer.context.versions.current().tables().map(|(_, level, table)| (level, table.meta().number)).collect();
    assert_eq!(before, after);
}

/// Found by the metamorphic test: one table of level 0, rewritten where it is, lost a tombstone that hid what an older
/// table beside it holds.
#[test]
fn a_rewrite_within_level_0_keeps_what_hides_older_tables_beside_it() {
    let mut layer = Layer::new(1, Sizes::medium());
    layer.put(b"gone", b"old");
    layer.flush().expect("a healthy disk");
    let mut batch = WriteBatch::new();
    batch.delete(Family(0), b"gone");
    batch.put(Family(0), b"other", b"new");
    layer.write(&batch);
    layer.flush().expect("a healthy disk");
    let version = layer.context.versions.current();
    let newest = version.family(Family(0)).expect("it exists").levels[0][0].clone();
    assert_eq!(newest.meta().tombstones, 1, "newest first");
    super::run::run(&layer.context, version, super::plan::rewrite(Family(0), 0, &[newest])).expect("a healthy disk");
    layer.check_now(&mut Rng::new(1)).expect("a healthy disk");
    layer.compact_all(Family(0)).expect("a healthy disk");
    layer.check_now(&mut Rng::new(2)).expect("a healthy disk");
    let left: u64 = layer.context.versions.current().tables().map(|(_, _, table)| table.meta().entries).sum();
    assert_eq!(left, 1, "merged with what it hides, the tombstone is dropped");
}

/// A compaction is planned, its family is dropped, and then it runs to its end.
#[test]
fn what_is_made_of_a_family_that_is_dropped_meanwhile_is_thrown_away() {
    let mut rng = Rng::new(51);
    let mut layer = Layer::new(51, Sizes::tiny());
    for _ in 0..4 {
        (0..8).for_each(|_| layer.write(&random_batch(&mut rng)));
        layer.flush().expect("a healthy disk");
    }
    let context = layer.context.clone();
    let version = context.versions.current();
    let plan = super::plan::Planner {
        version: &version,
        options: &context.options,
        families: &context.families.all(),
        in_flight: &context.state.in_flight(),
        now_ms: layer.now_ms(),
        oldest_reader: u64::MAX,
    };
    let plan = plan.plan().expect("level 0 is full");
    let (dropped, other) = (plan.family, Family(1 - plan.family.0));
    let mut edit = VersionEdit::new();
    edit.drop_family(dropped);
    context.versions.apply(edit).expect("a healthy disk");
    super::run::run(&context, version.clone(), plan).expect("its result is not wanted");
    layer.compact_all(dropped).expect("there is nothing to do");
    // Memory still has writes to it.
    (0..8).for_each(|_| layer.write(&random_batch(&mut rng)));
    layer.flush().expect("a healthy disk");
    let after = context.versions.current();
    assert!(after.family(dropped).is_none() && after.tables().all(|(family, _, _)| family == other));
    drop(version);
    context.versions.remove_obsolete(&context.tables).expect("a healthy disk");
    let there = layer.machine.env().fs.list(context.versions.tables_dir()).expect("listed");
    assert_eq!(there.len(), after.tables().count(), "no file is left behind");
    let state = layer.read_state();
    let expected = layer.expected(other, &Range::all(), crate::Direction::Forward, layer.sequence);
    let mut entries = state.entries(other, Range::all(), crate::Direction::Forward, layer.sequence).expect("there");
    assert_eq!(super::harness::drain(&mut *entries, usize::MAX).expect("readable"), expected);
    layer.reopen().expect("a healthy disk");
    assert!(layer.context.versions.current().dropped_families().contains_key(dropped));
}
