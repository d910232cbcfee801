//! Numbers, memtables and publication, without any thread or disk (the tables are empty).

use super::*;
use crate::dead_ranges::DeadRanges;
use crate::measure::Recorder;
use crate::table::BlockCache;
use crate::version::{ManifestOptions, TableCache, VersionSet};
use crate::{Family, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::path::Path;

fn memtables(memtable_bytes: u64, memtables_max: usize) -> (Memtables, VersionSet) {
    let env = SimMachine::from_seed(1).env();
    let versions = VersionSet::open(&env, Path::new("/db"), ManifestOptions::default()).expect("opens");
    let tables = TableCache::new(&env, versions.tables_dir(), Arc::new(BlockCache::new(0)), 1 << 20, 16);
    let limits = MemoryLimits { memtable_bytes, memtables_max, level0_tables_max: 8, soft_percent: 100 };
    let read_state = ReadState {
        dead: None,
        memtables: Vec::new(),
        version: versions.current(),
        tables: Arc::new(tables),
        recorder: Recorder::off(env.clock.clone()),
        clock: env.clock.clone(),
    };
    (Memtables::new(limits, 0, read_state, Arc::new(DeadRanges::new(0, 0))), versions)
}

fn answer(log: &Arc<parking_lot::Mutex<Vec<u64>>>, number: u64) -> Completion {
    let log = log.clone();
    Completion { done: Box::new(move |_| log.lock().push(number)), result: Ok(number) }
}

fn begin(writes: &Memtables) -> Option<Ticket> {
    writes.begin(false, |_| Ok(None)).expect("nothing fails").map(|(ticket, _)| ticket)
}

fn inserted(writes: &Memtables, ticket: &mut Ticket, answers: Option<Completion>) -> bool {
    let (left, flushable) = writes.inserted(ticket, answers);
    assert!(left.is_none(), "writes go on");
    flushable
}

fn batch() -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"key", [0; 100]);
    batch
}

#[test]
fn numbers_become_visible_in_order_whatever_the_order_of_finishing() {
    let mut rng = Rng::new(3);
    for _ in 0..50 {
        let (writes, _versions) = memtables(1 << 20, 2);
        let answered: Arc<parking_lot::Mutex<Vec<u64>>> = Arc::default();
        let mut tickets: Vec<Ticket> = (0..20).map(|_| begin(&writes).expect("written")).collect();
        rng.shuffle(&mut tickets);
        let mut finished = [false; 21];
        for mut ticket in tickets {
            finished[ticket.sequence as usize] = true;
            writes.completions.expect();
            let answer = answer(&answered, ticket.sequence);
            inserted(&writes, &mut ticket, Some(answer));
            let expected = finished[1..].iter().take_while(|done| **done).count() as u64;
            assert_eq!(writes.visible(), expected);
        }
        writes.completions.run();
        assert_eq!(*answered.lock(), (1..=20).collect::<Vec<_>>(), "answers follow the numbers");
        assert!(writes.completions.all_answered());
    }
}

#[test]
fn an_answer_after_all_waits_for_every_number_given_out() {
    let (writes, _versions) = memtables(1 << 20, 2);
    let answered: Arc<parking_lot::Mutex<Vec<u64>>> = Arc::default();
    (0..4).for_each(|_| writes.completions.expect());
    assert!(writes.answer_after_all(answer(&answered, 1)).is_none());
    let mut tickets = [begin(&writes).expect("written"), begin(&writes).expect("written")];
    assert!(writes.answer_after_all(answer(&answered, 4)).is_none());
    for (ticket, number) in tickets.iter_mut().zip(2..) {
        inserted(&writes, ticket, Some(answer(&answered, number)));
    }
    writes.completions.run();
    assert_eq!(*answered.lock(), [1, 2, 4, 3], "4 was registered before 3");
}

#[test]
fn an_append_that_fails_takes_no_number() {
    let (writes, _versions) = memtables(1 << 20, 2);
    assert!(writes.begin(true, |_| Err(crate::Error::NoSpace { what: "a test".into() })).is_err());
    assert_eq!(begin(&writes).expect("written").sequence, 1);
}

#[test]
fn a_memtable_with_an_unfinished_batch_is_not_flushed() {
    let (writes, versions) = memtables(1 << 20, 3);
    let mut first = begin(&writes).expect("written");
    assert_eq!(writes.freeze_active(), 1);
    let mut second = begin(&writes).expect("written");
    assert_ne!(first.slot.id, second.slot.id, "the number given out before the freeze stays with its memtable");
    assert!(!inserted(&writes, &mut second, None));
    assert_eq!(writes.visible(), 0);
    assert!(writes.flushable().is_none());
    first.slot.pin_log(5);
    assert_eq!(writes.log_pin(), (Some(5), true));
    assert!(inserted(&writes, &mut first, None), "now it may be flushed");
    assert_eq!(writes.visible(), 2);
    let slot = writes.flushable().expect("all finished");
    assert_eq!(slot.last_sequence(), 1);
    writes.install(&versions, Some(&slot));
    assert_eq!(writes.log_pin(), (None, true));
}

#[test]
fn full_memory_accepts_nothing_until_a_flush() {
    let (writes, versions) = memtables(4096, 2);
    let fill = |mut ticket: Ticket| {
        let mut large = WriteBatch::new();
        large.put(Family::DEFAULT, b"key", [0; 5000]);
        ticket.slot.memtable.apply(&large, ticket.sequence);
        inserted(&writes, &mut ticket, None);
    };
    fill(begin(&writes).expect("written"));
    let (ticket, frozen) = writes.begin(false, |_| Ok(None)).expect("healthy").expect("capacity after a freeze");
    assert!(frozen);
    fill(ticket);
    assert!(begin(&writes).is_none() && !writes.has_capacity(), "two memtables are full");
    assert_eq!(writes.memory().0, 2);
    let slot = writes.flushable().expect("the first is frozen");
    writes.install(&versions, Some(&slot));
    assert!(writes.has_capacity());
    assert!(begin(&writes).is_some());
}

#[test]
fn a_reader_sees_what_is_visible_and_keeps_it() {
    let (writes, versions) = memtables(1 << 20, 3);
    let edit = |versions: &VersionSet| {
        let mut edit = crate::version::VersionEdit::new();
        edit.create_family(Family::DEFAULT, "default");
        versions.apply(edit).expect("applied")
    };
    edit(&versions);
    writes.install(&versions, None);
    let mut ticket = begin(&writes).expect("written");
    ticket.slot.memtable.apply(&batch(), ticket.sequence);
    let (state, sequence) = writes.read_point();
    assert_eq!(state.get(Family::DEFAULT, b"key", sequence).expect("memory"), None, "not published yet");
    inserted(&writes, &mut ticket, None);
    let (state, sequence) = writes.read_point();
    assert!(state.get(Family::DEFAULT, b"key", sequence).expect("memory").is_some());
    writes.freeze_active();
    let slot = writes.flushable().expect("finished");
    writes.install(&versions, Some(&slot));
    assert!(state.get(Family::DEFAULT, b"key", sequence).expect("memory").is_some(), "the old state pins it");
}
