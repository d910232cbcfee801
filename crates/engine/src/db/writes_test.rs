//! Numbers, memtables and publication, without any thread or disk (the tables are empty).

use super::*;
use crate::cache::BlockCache;
use crate::version::{ManifestOptions, VersionSet};
use crate::{Family, WriteBatch};
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::path::Path;

fn writes(memtable_bytes: u64, memtables_max: usize) -> (Writes, VersionSet) {
    let env = SimMachine::from_seed(1).env();
    let versions = VersionSet::open(&env, Path::new("/db"), ManifestOptions::default()).expect("opens");
    let tables = TableCache::new(&env, versions.tables_dir(), Arc::new(BlockCache::new(0)), 1 << 20, 16);
    let limits = MemoryLimits { memtable_bytes, memtables_max, level0_tables_max: 8 };
    (Writes::new(limits, 0, versions.current(), Arc::new(tables), env.clock.clone()), versions)
}

fn answer(log: &Arc<Mutex<Vec<u64>>>, number: u64) -> Completion {
    let log = log.clone();
    Completion { done: Box::new(move |_| log.lock().push(number)), result: Ok(number) }
}

fn batch() -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"key", &[0; 100]);
    batch
}

#[test]
fn numbers_become_visible_in_order_whatever_the_order_of_finishing() {
    let mut rng = Rng::new(3);
    for _ in 0..50 {
        let (writes, _versions) = writes(1 << 20, 2);
        let answered: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (mut tickets, _) = writes.begin(20).expect("room");
        rng.shuffle(&mut tickets);
        let mut finished = [false; 21];
        for ticket in tickets {
            let sequence = ticket.sequence;
            writes.complete_after(sequence, vec![answer(&answered, sequence * 10)]);
            finished[sequence as usize] = true;
            writes.finish(ticket, vec![answer(&answered, sequence)]);
            let expected = finished[1..].iter().take_while(|done| **done).count() as u64;
            assert_eq!(writes.visible(), expected);
        }
        writes.completions.run();
        let expected: Vec<u64> = (1..=20).flat_map(|sequence| [sequence * 10, sequence]).collect();
        assert_eq!(*answered.lock(), expected, "answers follow the numbers");
    }
}

#[test]
fn an_answer_after_all_waits_for_every_number_given_out() {
    let (writes, _versions) = writes(1 << 20, 2);
    let answered: Arc<Mutex<Vec<u64>>> = Arc::default();
    writes.complete_after_all(answer(&answered, 1));
    let (tickets, _) = writes.begin(2).expect("room");
    writes.complete_after_all(answer(&answered, 4));
    for (ticket, number) in tickets.into_iter().zip(2..) {
        writes.finish(ticket, vec![answer(&answered, number)]);
    }
    writes.completions.run();
    assert_eq!(*answered.lock(), [1, 2, 4, 3], "4 was asked for before 3");
}

#[test]
fn a_memtable_with_an_unfinished_batch_is_not_flushed() {
    let (writes, versions) = writes(1 << 20, 3);
    let (mut first, _) = writes.begin(1).expect("room");
    assert_eq!(writes.freeze_active(), 1);
    let (mut second, _) = writes.begin(1).expect("room");
    let (first, second) = (first.pop().expect("one"), second.pop().expect("one"));
    assert_ne!(first.slot.id, second.slot.id, "the number given out before the freeze stays with its memtable");
    assert!(!writes.finish(second, vec![]));
    assert_eq!(writes.visible(), 0);
    assert!(writes.flushable().is_none());
    first.slot.pin_log(5);
    assert_eq!(writes.log_pin(), (Some(5), true));
    assert!(writes.finish(first, vec![]), "now it may be flushed");
    assert_eq!(writes.visible(), 2);
    let slot = writes.flushable().expect("all finished");
    assert_eq!(slot.last_sequence(), 1);
    writes.install(&versions, Some(&slot));
    assert_eq!(writes.log_pin(), (None, true));
}

#[test]
fn full_memory_has_no_room_until_a_flush() {
    let (writes, versions) = writes(4096, 2);
    let fill = |tickets: Vec<Ticket>| {
        for ticket in tickets {
            let mut large = WriteBatch::new();
            large.put(Family::DEFAULT, b"key", &[0; 5000]);
            ticket.slot.memtable.apply(&large, ticket.sequence);
            writes.finish(ticket, vec![]);
        }
    };
    fill(writes.begin(1).expect("room").0);
    let (tickets, frozen) = writes.begin(1).expect("room after a freeze");
    assert!(frozen);
    fill(tickets);
    assert!(writes.begin(1).is_none() && !writes.has_room(), "two memtables are full");
    assert_eq!(writes.memory().0, 2);
    let slot = writes.flushable().expect("the first is frozen");
    writes.install(&versions, Some(&slot));
    assert!(writes.has_room());
    assert!(writes.begin(1).is_some());
}

#[test]
fn a_reader_sees_what_is_visible_and_keeps_it() {
    let (writes, versions) = writes(1 << 20, 3);
    let edit = |versions: &VersionSet| {
        let mut edit = crate::version::VersionEdit::new();
        edit.create_family(Family::DEFAULT, "default");
        versions.apply(edit).expect("applied")
    };
    edit(&versions);
    writes.install(&versions, None);
    let (mut tickets, _) = writes.begin(1).expect("room");
    let ticket = tickets.pop().expect("one");
    ticket.slot.memtable.apply(&batch(), ticket.sequence);
    let (state, sequence) = writes.read_point();
    assert_eq!(state.get(Family::DEFAULT, b"key", sequence).expect("memory"), None, "not published yet");
    writes.finish(ticket, vec![]);
    let (state, sequence) = writes.read_point();
    assert!(state.get(Family::DEFAULT, b"key", sequence).expect("memory").is_some());
    writes.freeze_active();
    let slot = writes.flushable().expect("finished");
    writes.install(&versions, Some(&slot));
    assert!(state.get(Family::DEFAULT, b"key", sequence).expect("memory").is_some(), "the old state pins it");
}
