//! Sequence numbers, memtables, and what readers see.
//!
//! A batch gets its sequence number and its memtable together ([`Memtables::begin`], under the lock that orders
//! commits), is inserted without a lock, and is then reported ([`Memtables::inserted`]). Numbers become visible in
//! order (`visibility.rs`): a batch that is inserted early waits, invisible, for those before it. `capacity.rs` decides
//! whether there is memory for a batch, `read_states.rs` has the readers' side, `memtable_replay.rs` that of recovery.
//!
//! Invariants:
//! 1. A memtable holds a contiguous range of sequence numbers: it is frozen under the lock, so each number assigned
//!    before belongs to it or an older one, each later number to a newer one. It is flushed only when all its batches
//!    are inserted and the log is durable, and then everything up to its last number is visible.
//! 2. The visible number only grows. A reader that finds the same read state before and after it has loaded the visible
//!    number sees every write up to that number: a batch gets a number only while its memtable is in the
//!    read state, so a change of memtables shows between the loads.

use super::capacity::{Capacity, MemoryLimits};
use super::completion::{Completion, Completions};
use super::memtable_slot::{MemtableSlot, Ticket};
use super::read_states::Past;
use super::visibility::{Arrival, Due, Visibility};
use crate::dead_ranges::DeadRanges;
use crate::lock::{Mutex, Rank, Unfinished};
use crate::log::{Appended, FIRST_POSITION, MemtablePin};
use crate::memtable::Memtable;
use crate::read::ReadState;
use crate::version::VersionSet;
use crate::{Result, SequenceNumber};
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct State {
    pub(super) next_sequence: SequenceNumber,
    pub(super) active: Arc<MemtableSlot>,
    /// Oldest first.
    pub(super) frozen: VecDeque<Arc<MemtableSlot>>,
    /// Bytes of the frozen ones.
    pub(super) frozen_bytes: u64,
    pub(super) level0_tables: usize,
    /// Read states that are not current any more and that may be held, oldest first.
    pub(super) past: VecDeque<Past>,
    /// What was visible when the current read state was installed: no snapshot of it has a smaller number.
    pub(super) installed_at: SequenceNumber,
    /// No number is assigned except to the holder.
    pub(super) held: bool,
}

/// See the head of this file.
pub(crate) struct Memtables {
    pub(super) limits: MemoryLimits,
    pub(super) state: Mutex<State>,
    /// Whether memtables or level 0 are beyond their soft bounds.
    pub(super) pressed: AtomicBool,
    pub(crate) visibility: Visibility<Completion>,
    pub(super) read_state: ArcSwap<ReadState>,
    pub(crate) completions: Completions,
    pub(crate) dead: Arc<DeadRanges>,
}

impl Memtables {
    /// Nothing in memory; everything up to `flushed` is in the tables of `tables`, which has no memtables.
    pub(crate) fn new(
        limits: MemoryLimits,
        flushed: SequenceNumber,
        tables: ReadState,
        dead: Arc<DeadRanges>,
    ) -> Memtables {
        assert!(tables.memtables.is_empty(), "memtables are made here");
        let active = MemtableSlot::new(1, &dead);
        let level0_tables = tables.version.level0_depth();
        let read_state = ReadState { memtables: vec![active.memtable.clone()], dead: Some(dead.clone()), ..tables };
        let state = State {
            next_sequence: flushed + 1,
            active,
            frozen: VecDeque::new(),
            frozen_bytes: 0,
            level0_tables,
            past: VecDeque::new(),
            installed_at: flushed,
            held: false,
        };
        Memtables {
            limits,
            pressed: AtomicBool::new(limits.is_pressed(&state)),
            state: Mutex::new(Rank::Writes, state),
            visibility: Visibility::new(flushed, FIRST_POSITION),
            read_state: ArcSwap::from_pointee(read_state),
            completions: Completions::default(),
            dead,
        }
    }

    /// The newest number that readers may use.
    pub(crate) fn visible(&self) -> SequenceNumber {
        self.visibility.visible()
    }

    /// Takes the next number for a batch that `append` puts into the log under that number. `None` while there is no
    /// capacity in memory: wait for the flush or the compaction. If `append` fails, the number is not taken. The flag
    /// says whether a memtable was frozen, so that the flush must be woken. Under the lock that orders commits.
    pub(crate) fn begin(
        &self,
        durable: bool,
        append: impl FnOnce(SequenceNumber) -> Result<Option<Appended>>,
    ) -> Result<Option<(Ticket, bool)>> {
        let mut state = self.state.lock();
        let frozen = match self.capacity(&state) {
            Capacity::None => return Ok(None),
            Capacity::InActive => false,
            Capacity::AfterFreeze => {
                self.freeze(&mut state);
                true
            }
        };
        if !state.frozen.is_empty() {
            self.note_pressure(&state);
        }
        Ok(Some((self.give_number(&mut state, durable, Arrival::InMemory, append)?, frozen)))
    }

    /// From now on, or no longer, [`Memtables::begin`] finds no capacity. Waiters for capacity are not notified.
    pub(crate) fn set_held(&self, held: bool) {
        let mut state = self.state.lock();
        assert!(state.held != held, "one holds at a time");
        state.held = held;
    }

    /// As [`Memtables::begin`] for the holder, already durable and without a check of capacity: nothing is inserted
    /// into the memtable.
    pub(crate) fn begin_held(&self, append: impl FnOnce(SequenceNumber) -> Result<Appended>) -> Result<Ticket> {
        let mut state = self.state.lock();
        assert!(state.held, "the caller holds");
        self.give_number(&mut state, true, Arrival::InTables, |sequence| append(sequence).map(Some))
    }

    fn give_number(
        &self,
        state: &mut State,
        durable: bool,
        arrival: Arrival,
        append: impl FnOnce(SequenceNumber) -> Result<Option<Appended>>,
    ) -> Result<Ticket> {
        let sequence = state.next_sequence;
        let appended = append(sequence)?;
        let slot = state.active.clone();
        state.next_sequence += 1;
        // Before another thread can know the number: a frozen memtable knows the batches that it waits for.
        slot.unfinished.fetch_add(1, Ordering::SeqCst);
        slot.last_sequence.store(sequence, Ordering::Release);
        let mut log_end = 0;
        if let Some(appended) = &appended {
            slot.pin_log(appended.position.segment);
            self.visibility.note_appended(appended.end);
            log_end = if durable { appended.end } else { 0 };
        }
        self.visibility.assign(sequence, log_end, arrival);
        let unfinished = (arrival == Arrival::InMemory).then(Unfinished::begin);
        Ok(Ticket { sequence, slot, log_end, unfinished })
    }

    /// The batch of the ticket is in its memtable. `answer` is due when its number is visible; it is returned if writes
    /// have stopped. The flag says whether a frozen memtable may be flushed now.
    pub(crate) fn inserted(&self, ticket: &mut Ticket, answer: Option<Completion>) -> (Option<Completion>, bool) {
        let left = self.visibility.inserted(ticket.sequence, answer, &mut |answer| self.completions.push([answer]));
        let unfinished = ticket.slot.unfinished.fetch_sub(1, Ordering::SeqCst);
        assert!(unfinished > 0, "each ticket was counted");
        ticket.unfinished = None;
        (left, unfinished == 1 && ticket.slot.frozen.load(Ordering::SeqCst))
    }

    /// Answers a logged commit when its answer is due, after those before it. It is returned if writes have stopped.
    pub(crate) fn answer(&self, due: Due, answer: Completion) -> Option<Completion> {
        self.visibility.answer(due, answer, &mut |answer| self.completions.push([answer]))
    }

    /// Answers a commit after all those that have a number by now. It is returned if writes have stopped.
    pub(crate) fn answer_after_all(&self, answer: Completion) -> Option<Completion> {
        self.visibility.answer_after_all(answer, &mut |answer| self.completions.push([answer]))
    }

    /// Freezes the active memtable unless an older one waits for its flush already: to unpin the log.
    pub(crate) fn freeze_oldest(&self) {
        let mut state = self.state.lock();
        if state.frozen.is_empty() && state.active.last_sequence() > 0 {
            self.freeze(&mut state);
        }
    }

    /// Freezes the active memtable if none waits for its flush, it has at least so many bytes, and something in it is
    /// dead. Returns whether it did.
    pub(crate) fn freeze_dead(&self, bytes_min: u64, now_ms: u64) -> bool {
        let mut state = self.state.lock();
        let memtable = &state.active.memtable;
        let dead = memtable.has_dead(now_ms) && memtable.approximate_bytes() as u64 >= bytes_min;
        let freezes = dead && state.frozen.is_empty();
        if freezes {
            self.freeze(&mut state);
        }
        freezes
    }

    /// Freezes the active memtable if it holds anything, whatever the limits; returns the id up to which memtables
    /// must be flushed for everything so far to be in tables.
    pub(crate) fn freeze_active(&self) -> u64 {
        let mut state = self.state.lock();
        if state.active.last_sequence() > 0 {
            self.freeze(&mut state);
        }
        state.active.id - 1
    }

    /// The oldest frozen memtable, if all its batches have finished.
    pub(crate) fn flushable(&self) -> Option<Arc<MemtableSlot>> {
        let state = self.state.lock();
        let oldest = state.frozen.front()?;
        (oldest.unfinished.load(Ordering::SeqCst) == 0).then(|| oldest.clone())
    }

    /// The frozen memtables whose batches have all finished, oldest first, as long as none is missing. If one alone is
    /// frozen, so is the active one.
    pub(crate) fn flushable_together(&self) -> Vec<Arc<MemtableSlot>> {
        let mut state = self.state.lock();
        if state.frozen.len() == 1 && state.active.last_sequence() > 0 {
            self.freeze(&mut state);
        }
        state.frozen.iter().take_while(|slot| slot.unfinished.load(Ordering::SeqCst) == 0).cloned().collect()
    }

    /// The version has changed; `flushed` are the memtables that are in its tables now, the oldest. The version is read
    /// under the lock, so that of two concurrent changes the later one stays.
    pub(crate) fn install<'a>(&self, versions: &VersionSet, flushed: impl IntoIterator<Item = &'a Arc<MemtableSlot>>) {
        let mut state = self.state.lock();
        let version = versions.current();
        for flushed in flushed {
            let oldest = state.frozen.pop_front().expect("a flushed memtable was frozen");
            assert_eq!(oldest.id, flushed.id, "memtables are flushed in order");
            assert!(oldest.last_sequence() <= self.visible(), "only visible writes are flushed");
            state.frozen_bytes = state.frozen.iter().map(|slot| slot.memtable.approximate_bytes() as u64).sum();
        }
        let before = self.read_state.load().version.flushed_sequence();
        assert!(version.flushed_sequence() >= before, "what is in tables stays there");
        state.level0_tables = version.level0_depth();
        self.note_pressure(&state);
        let current = self.read_state.load_full();
        self.set_read_state(&mut state, ReadState { version, ..(*current).clone() });
    }

    /// The oldest log segment that an unflushed memtable needs, and whether there is anything unflushed at all.
    pub(crate) fn log_pin(&self) -> (Option<u64>, bool) {
        let state = self.state.lock();
        let all = state.frozen.iter().chain(std::iter::once(&state.active));
        (all.filter_map(|slot| slot.log_pin()).min(), !state.frozen.is_empty() || state.active.last_sequence() > 0)
    }

    /// The unflushed memtables with logged batches, oldest first.
    pub(crate) fn memtable_pins(&self) -> Vec<MemtablePin> {
        let state = self.state.lock();
        let pin = |slot: &Arc<MemtableSlot>| {
            Some(MemtablePin {
                id: slot.id,
                frozen: slot.frozen.load(Ordering::SeqCst),
                segment: slot.log_pin()?,
                last_sequence: slot.last_sequence(),
                families: slot.memtable.families().into_iter().collect(),
            })
        };
        state.frozen.iter().chain(std::iter::once(&state.active)).filter_map(pin).collect()
    }

    /// Number of memtables and their bytes.
    pub(crate) fn memory(&self) -> (usize, u64) {
        let state = self.state.lock();
        let memtables = state.memtables();
        (memtables.len(), memtables.iter().map(|memtable| memtable.approximate_bytes() as u64).sum())
    }

    /// The id of the newest memtable that was flushed, 0 if none was.
    pub(crate) fn flushed_id(&self) -> u64 {
        let state = self.state.lock();
        state.frozen.front().map_or(state.active.id, |oldest| oldest.id) - 1
    }

    pub(super) fn freeze(&self, state: &mut State) {
        assert!(state.active.last_sequence() > 0, "an empty memtable is never frozen");
        assert!(state.active.last_sequence() < state.next_sequence, "assigned numbers are below the next");
        let next = MemtableSlot::new(state.active.id + 1, &self.dead);
        let full = std::mem::replace(&mut state.active, next);
        full.frozen.store(true, Ordering::SeqCst);
        state.frozen_bytes += full.memtable.approximate_bytes() as u64;
        state.frozen.push_back(full);
        let current = self.read_state.load_full();
        self.set_read_state(state, (*current).clone());
    }
}

impl State {
    pub(super) fn memtable_bytes(&self) -> u64 {
        self.frozen_bytes + self.active.memtable.approximate_bytes() as u64
    }

    /// Newest first.
    pub(super) fn memtables(&self) -> Vec<Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev()).map(|slot| slot.memtable.clone()).collect()
    }
}

#[cfg(test)]
#[path = "memtables_test.rs"]
mod tests;
