//! A filter of the layer above drops entries in compactions: they are deleted as by a write, and never come back.

use super::*;
use crate::{CompactionFilter, FilterHandle, FilterPass};
use kontiki_env::fs::CrashMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Drops entries of the default family with a number below the limit.
#[derive(Default)]
struct Below(AtomicU64);

struct BelowPass(u64);

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

impl CompactionFilter for Below {
    fn filters(&self, family: Family) -> bool {
        family == Family::DEFAULT
    }

    fn begin(&self, family: Family) -> Option<Box<dyn FilterPass>> {
        assert!(self.filters(family) || family == OTHER || family.is_reserved());
        self.filters(family).then(|| Box::new(BelowPass(self.0.load(Ordering::SeqCst))) as Box<dyn FilterPass>)
    }
}

impl FilterPass for BelowPass {
    fn drops(&mut self, _: &[u8], value: Option<&[u8]>) -> crate::Result<bool> {
        Ok(number(value.expect("small values are in tables")) < self.0)
    }
}

fn open_filtered(machine: &SimMachine, filter: &Arc<Below>) -> Db {
    let options = Options { compaction_filter: Some(FilterHandle(filter.clone())), ..small_options() };
    Db::open_in(&machine.env(), Path::new(DIR), options).expect("opens")
}

/// Of each key the newest value, or nothing if that one may be dropped.
fn check(db: &Db, newest: &BTreeMap<String, u64>, limit: u64, gone: &mut BTreeMap<String, u64>) {
    let found: BTreeMap<String, u64> =
        dump(&db.snapshot(), Family::DEFAULT).into_iter().map(|(key, value)| (key, number(value.as_bytes()))).collect();
    for (key, written) in newest {
        match found.get(key) {
            Some(value) => assert_eq!(value, written, "{key}: an older value came back"),
            None => {
                assert!(*written < limit, "{key}: {written} was dropped, the limit is {limit}");
                gone.insert(key.clone(), *written);
            }
        }
        let was_gone = gone.get(key) == Some(written);
        assert!(!was_gone || !found.contains_key(key), "{key}: what was dropped came back");
    }
    assert_eq!(found.keys().filter(|key| !newest.contains_key(*key)).count(), 0);
}

#[test]
fn what_is_dropped_never_comes_back_over_compactions_and_crashes() {
    let mut dropped = 0;
    for seed in 0..12 {
        let (mut rng, filter) = (Rng::new(seed), Arc::new(Below::default()));
        let mut machine = new_machine(seed);
        let mut db = open_filtered(&machine, &filter);
        let (mut newest, mut gone) = (BTreeMap::new(), BTreeMap::new());
        for round in 1..600u64 {
            let key = format!("{:03}", rng.below(60));
            db.write(put(&key, &format!("{round:040}")), Durability::Sync).expect("written");
            newest.insert(key, round);
            if rng.chance(1, 20) {
                filter.0.store(rng.below(round), Ordering::SeqCst);
            }
            let limit = round; // The highest that there can have been.
            match rng.below(60) {
                0 => db.compact_range(Family::DEFAULT, Range::all()).expect("compacted"),
                1 => {
                    let snapshot = db.snapshot();
                    let seen = dump(&snapshot, Family::DEFAULT);
                    filter.0.store(round, Ordering::SeqCst);
                    db.compact_range(Family::DEFAULT, Range::all()).expect("compacted");
                    assert_eq!(dump(&snapshot, Family::DEFAULT), seen, "a snapshot keeps what it sees");
                }
                2 => db.flush().expect("flushed"),
                3 => {
                    machine.fs.power_off();
                    drop(db);
                    machine.fs.crash(CrashMode::LoseUnsynced);
                    machine = restarted(&machine, seed * 1_000 + round);
                    db = open_filtered(&machine, &filter);
                }
                _ => {}
            }
            if round.is_multiple_of(10) {
                check(&db, &newest, limit, &mut gone);
            }
        }
        dropped += gone.len();
    }
    assert!(dropped > 200, "the test did little: {dropped}");
}

#[test]
fn a_manual_compaction_drops_what_lies_in_the_last_level_already() {
    let (machine, filter) = (new_machine(1), Arc::new(Below::default()));
    let db = open_filtered(&machine, &filter);
    for i in 0..100 {
        db.write(put(&format!("{i:03}"), &format!("{i:040}")), Durability::Buffered).expect("written");
    }
    db.compact_range(Family::DEFAULT, Range::all()).expect("compacted");
    filter.0.store(50, Ordering::SeqCst);
    db.compact_range(Family::DEFAULT, Range::all()).expect("compacted");
    let levels = db.stats().families[0].levels.clone();
    assert_eq!(levels.iter().map(|level| level.entries).sum::<u64>(), 50, "{levels:?}");
    assert_eq!(dump(&db.snapshot(), Family::DEFAULT).len(), 50);
    let filtered: u64 = db.stats().compaction.levels.iter().map(|level| level.versions_filtered).sum();
    assert_eq!(filtered, 50);
}
