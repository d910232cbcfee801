//! Sequence numbers, memtables, and what readers see.
//!
//! A batch gets its sequence number and its memtable together ([`Writes::begin`], under the lock that orders commits),
//! is inserted without a lock, and is then reported ([`Writes::inserted`]). Numbers become visible in order
//! (`order.rs`): a batch that is inserted early waits, invisible, for those before it.
//!
//! Invariants:
//! 1. A memtable holds a contiguous range of sequence numbers: it is frozen under the lock, so each number assigned
//!    before belongs to it or an older one, each later number to a newer one. It is flushed only when all its batches
//!    are inserted and the log is durable, and then everything up to its last number is visible.
//! 2. The visible number only grows. A reader that finds the same read state before and after it has loaded the visible
//!    number sees every write up to that number: a batch gets a number only while its memtable is in the
//!    read state, so a change of memtables shows between the loads.

use super::completion::{Completion, Completions};
use super::order::{Arrival, Due, Order};
use crate::dead_ranges::DeadRanges;
use crate::lock::{Mutex, Rank, Unfinished};
use crate::log::{Appended, FIRST_POSITION, MemtablePin};
use crate::memtable::Memtable;
use crate::read::ReadState;
use crate::version::VersionSet;
use crate::{Result, SequenceNumber};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A memtable and its state in the write path.
pub(crate) struct MemtableSlot {
    pub(crate) memtable: Arc<Memtable>,
    /// Counts up, in the order of freezing.
    pub(crate) id: u64,
    /// The oldest log segment with a batch of this memtable; `u64::MAX` while there is none.
    log_pin: AtomicU64,
    /// Batches with a number and not yet inserted.
    unfinished: AtomicU64,
    /// Set once, under the lock.
    frozen: AtomicBool,
    /// The largest number assigned to it. Changed under the lock.
    last_sequence: AtomicU64,
}

impl MemtableSlot {
    fn new(id: u64, dead: &Arc<DeadRanges>) -> Arc<MemtableSlot> {
        Arc::new(MemtableSlot {
            memtable: Arc::new(Memtable::beside(dead)),
            id,
            log_pin: AtomicU64::new(u64::MAX),
            unfinished: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            last_sequence: AtomicU64::new(0),
        })
    }

    /// Records that the log's `segment` holds a batch of it. Called while the segment is still the newest.
    pub(crate) fn pin_log(&self, segment: u64) {
        self.log_pin.fetch_min(segment, Ordering::AcqRel);
    }

    fn log_pin(&self) -> Option<u64> {
        Some(self.log_pin.load(Ordering::Acquire)).filter(|segment| *segment != u64::MAX)
    }

    /// Everything up to this number is visible once the memtable may be flushed; 0 if no number was assigned.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.last_sequence.load(Ordering::Acquire)
    }
}

/// A batch's number and memtable.
pub(crate) struct Ticket {
    pub(crate) sequence: SequenceNumber,
    pub(crate) slot: Arc<MemtableSlot>,
    /// The number is not visible before the log is durable up to here; 0 if it need not be.
    pub(crate) log_end: u64,
    /// Of a batch, until it is in its memtable.
    unfinished: Option<Unfinished>,
}

impl Ticket {
    /// What its writer waits for.
    pub(crate) fn due(&self) -> Due {
        Due { sequence: self.sequence, log_end: self.log_end }
    }
}

/// Bounds on memory; see `Options`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimits {
    pub(crate) memtable_bytes: u64,
    pub(crate) memtables_max: usize,
    pub(crate) level0_tables_max: usize,
    /// From this share of each bound on writers are slowed.
    pub(crate) soft_percent: u64,
}

struct State {
    next_sequence: SequenceNumber,
    active: Arc<MemtableSlot>,
    /// Oldest first.
    frozen: VecDeque<Arc<MemtableSlot>>,
    /// Bytes of the frozen ones.
    frozen_bytes: u64,
    level0_tables: usize,
    /// Read states that are not current any more and that may be held, oldest first.
    past: VecDeque<Past>,
    /// What was visible when the current read state was installed: no snapshot of it has a smaller number.
    installed_at: SequenceNumber,
    /// No number is assigned except to the holder.
    held: bool,
}

/// A read state that is not current any more.
struct Past {
    state: Weak<ReadState>,
    /// Since when (monotonic).
    since: Duration,
    /// As [`State::installed_at`].
    installed_at: SequenceNumber,
}

/// See the head of this file.
pub(crate) struct Writes {
    limits: MemoryLimits,
    state: Mutex<State>,
    /// Whether memtables or level 0 are beyond their soft bounds.
    pressed: AtomicBool,
    pub(crate) order: Order<Completion>,
    read_state: ArcSwap<ReadState>,
    pub(crate) completions: Completions,
    pub(crate) dead: Arc<DeadRanges>,
}

impl Writes {
    /// Nothing in memory; everything up to `flushed` is in the tables of `tables`, which has no memtables.
    pub(crate) fn new(
        limits: MemoryLimits,
        flushed: SequenceNumber,
        tables: ReadState,
        dead: Arc<DeadRanges>,
    ) -> Writes {
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
        Writes {
            limits,
            pressed: AtomicBool::new(limits.is_pressed(&state)),
            state: Mutex::new(Rank::Writes, state),
            order: Order::new(flushed, FIRST_POSITION),
            read_state: ArcSwap::from_pointee(read_state),
            completions: Completions::default(),
            dead,
        }
    }

    /// The newest number that readers may use.
    pub(crate) fn visible(&self) -> SequenceNumber {
        self.order.visible()
    }

    /// As [`Writes::read_point`], for the length of a call. Counts no reference, so readers on several processors do
    /// not take a cache line from each other.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&ReadState, SequenceNumber) -> R) -> R {
        let mut read_state = self.read_state.load();
        loop {
            let sequence = self.visible();
            let again = self.read_state.load();
            if Arc::ptr_eq(&read_state, &again) {
                drop(again);
                return read(&read_state, sequence);
            }
            read_state = again;
        }
    }

    /// A state to read from and the number to read at; see invariant 2.
    pub(crate) fn read_point(&self) -> (Arc<ReadState>, SequenceNumber) {
        let mut read_state = self.read_state.load_full();
        loop {
            let sequence = self.visible();
            let again = self.read_state.load();
            if Arc::ptr_eq(&read_state, &again) {
                return (read_state, sequence);
            }
            read_state = arc_swap::Guard::into_inner(again);
        }
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

    /// From now on, or no longer, [`Writes::begin`] finds no capacity. Waiters for capacity are not notified.
    pub(crate) fn set_held(&self, held: bool) {
        let mut state = self.state.lock();
        assert!(state.held != held, "one holds at a time");
        state.held = held;
    }

    /// As [`Writes::begin`] for the holder, already durable and without a check of capacity: nothing is inserted into
    /// the memtable.
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
            self.order.written(appended.end);
            log_end = if durable { appended.end } else { 0 };
        }
        self.order.open(sequence, log_end, arrival);
        let unfinished = (arrival == Arrival::InMemory).then(Unfinished::begin);
        Ok(Ticket { sequence, slot, log_end, unfinished })
    }

    /// Whether [`Writes::begin`] would succeed.
    pub(crate) fn has_room(&self) -> bool {
        self.capacity(&self.state.lock()) != Capacity::None
    }

    /// Why [`Writes::begin`] would not succeed.
    pub(crate) fn full_reason(&self) -> Option<FullReason> {
        let state = self.state.lock();
        match self.capacity(&state) {
            Capacity::None if state.held => Some(FullReason::Ingest),
            Capacity::None if state.level0_tables >= self.limits.level0_tables_max => Some(FullReason::Level0),
            Capacity::None => Some(FullReason::Memtables),
            Capacity::InActive | Capacity::AfterFreeze => None,
        }
    }

    /// Whether memtables or level 0 are so full that writers are slowed.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Bytes of memtables, and the tables of level 0 that a read may have to read.
    pub(crate) fn owed(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.memtable_bytes(), state.level0_tables as u64)
    }

    fn note_pressure(&self, state: &State) {
        let pressed = self.limits.is_pressed(state);
        // Written rarely, so that readers do not take the cache line from each other.
        if pressed != self.is_pressed() {
            self.pressed.store(pressed, Ordering::Relaxed);
        }
    }

    /// The batch of the ticket is in its memtable. `answer` is due when its number is visible; it is returned if writes
    /// have stopped. The flag says whether a frozen memtable may be flushed now.
    pub(crate) fn inserted(&self, ticket: &mut Ticket, answer: Option<Completion>) -> (Option<Completion>, bool) {
        let left = self.order.inserted(ticket.sequence, answer, &mut |answer| self.completions.push([answer]));
        let unfinished = ticket.slot.unfinished.fetch_sub(1, Ordering::SeqCst);
        assert!(unfinished > 0, "each ticket was counted");
        ticket.unfinished = None;
        (left, unfinished == 1 && ticket.slot.frozen.load(Ordering::SeqCst))
    }

    /// Answers a logged commit when its answer is due, after those before it. It is returned if writes have stopped.
    pub(crate) fn answer(&self, due: Due, answer: Completion) -> Option<Completion> {
        self.order.answer(due, answer, &mut |answer| self.completions.push([answer]))
    }

    /// Answers a commit after all those that have a number by now. It is returned if writes have stopped.
    pub(crate) fn answer_after_all(&self, answer: Completion) -> Option<Completion> {
        self.order.answer_after_all(answer, &mut |answer| self.completions.push([answer]))
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

    /// The next number. For recovery: no other thread takes one.
    pub(crate) fn next_sequence(&self) -> SequenceNumber {
        self.state.lock().next_sequence
    }

    /// Recovery: tables hold numbers up to this one, which are not assigned again though neither the log nor the
    /// manifest may know of them. That is the case of a copy that an earlier version has made during an ingest.
    pub(crate) fn raise_to(&self, sequence: SequenceNumber) {
        let mut state = self.state.lock();
        if sequence >= state.next_sequence {
            tracing::info!(sequence, "tables are newer than the log");
            state.active.last_sequence.store(sequence, Ordering::Release);
            state.next_sequence = sequence + 1;
            self.order.set_visible(sequence);
        }
    }

    /// Recovery: the memtable that is filled.
    pub(crate) fn active(&self) -> Arc<MemtableSlot> {
        self.state.lock().active.clone()
    }

    /// Recovery: inserts a replayed batch at the number it had.
    pub(crate) fn replay(&self, batch: &crate::WriteBatch, sequence: SequenceNumber, segment: u64) {
        let mut state = self.state.lock();
        self.replay_number_in(&mut state, sequence, segment);
        state.active.memtable.apply(batch, sequence);
    }

    /// Recovery: a number was assigned to something that is not in the log.
    pub(crate) fn replay_number(&self, sequence: SequenceNumber, segment: u64) {
        self.replay_number_in(&mut self.state.lock(), sequence, segment);
    }

    fn replay_number_in(&self, state: &mut State, sequence: SequenceNumber, segment: u64) {
        assert!(sequence >= state.next_sequence, "the caller has checked the order");
        state.active.last_sequence.store(sequence, Ordering::Release);
        state.active.pin_log(segment);
        state.next_sequence = sequence + 1;
        self.order.set_visible(sequence);
    }

    /// Whether the active memtable has reached its limit.
    pub(crate) fn active_is_full(&self) -> bool {
        self.is_full(&self.state.lock())
    }

    fn is_full(&self, state: &State) -> bool {
        state.active.memtable.approximate_bytes() as u64 >= self.limits.memtable_bytes
    }

    fn capacity(&self, state: &State) -> Capacity {
        if state.held {
            return Capacity::None;
        }
        if state.level0_tables >= self.limits.level0_tables_max {
            return Capacity::None;
        }
        if !self.is_full(state) {
            return Capacity::InActive;
        }
        // The frozen ones, the full active one, and the new one.
        if state.frozen.len() + 2 <= self.limits.memtables_max { Capacity::AfterFreeze } else { Capacity::None }
    }

    fn freeze(&self, state: &mut State) {
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

    /// Readers get this one from now on, with the present memtables.
    fn set_read_state(&self, state: &mut State, next: ReadState) {
        let since = next.clock.monotonic();
        // Before readers can have the next one.
        let visible = self.visible();
        let past = self.read_state.swap(Arc::new(ReadState { memtables: state.memtables(), ..next }));
        state.past.retain(|past| past.state.strong_count() > 0);
        let installed_at = std::mem::replace(&mut state.installed_at, visible);
        state.past.push_back(Past { state: Arc::downgrade(&past), since, installed_at });
    }

    /// No snapshot that is held has a smaller number.
    pub(crate) fn oldest_snapshot(&self) -> SequenceNumber {
        let state = self.state.lock();
        let held = state.past.iter().find(|past| past.state.strong_count() > 0);
        held.map_or(state.installed_at, |past| past.installed_at)
    }

    /// What snapshots and iterators hold.
    pub(crate) fn held(&self) -> HeldStates {
        let state = self.state.lock();
        let current = self.read_state.load_full();
        let mut held = HeldStates::default();
        // The one reference that readers take it from, and ours.
        held.readers += (Arc::strong_count(&current) as u64).saturating_sub(2);
        let mut only_past: BTreeMap<*const Memtable, u64> = BTreeMap::new();
        for (past, since) in state.past.iter().filter_map(|past| Some((past.state.upgrade()?, past.since))) {
            held.readers += (Arc::strong_count(&past) as u64).saturating_sub(1);
            held.past_states += 1;
            held.oldest_past_since.get_or_insert(since);
            let gone = past.memtables.iter().filter(|mine| !current.memtables.iter().any(|now| Arc::ptr_eq(now, mine)));
            only_past.extend(gone.map(|memtable| (Arc::as_ptr(memtable), memtable.approximate_bytes() as u64)));
        }
        held.past_memtable_bytes = only_past.values().sum();
        held
    }
}

/// See [`Writes::held`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldStates {
    /// Snapshots and iterators.
    pub(crate) readers: u64,
    /// Read states that are not current any more and that they hold.
    pub(crate) past_states: u64,
    /// Since when the oldest of these is not current any more (monotonic).
    pub(crate) oldest_past_since: Option<Duration>,
    /// Bytes of memtables that only these have.
    pub(crate) past_memtable_bytes: u64,
}

/// Why there is no capacity for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FullReason {
    /// Commits are held back for an ingest.
    Ingest,
    /// A family has too many tables in level 0.
    Level0,
    /// Memtables wait for their flush.
    Memtables,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Capacity {
    None,
    InActive,
    AfterFreeze,
}

impl MemoryLimits {
    fn is_pressed(&self, state: &State) -> bool {
        let memory_max = self.memtable_bytes.saturating_mul(self.memtables_max as u64);
        let beyond = |amount: u64, max: u64| u128::from(amount) * 100 > u128::from(max) * u128::from(self.soft_percent);
        beyond(state.memtable_bytes(), memory_max) || beyond(state.level0_tables as u64, self.level0_tables_max as u64)
    }
}

impl State {
    fn memtable_bytes(&self) -> u64 {
        self.frozen_bytes + self.active.memtable.approximate_bytes() as u64
    }

    /// Newest first.
    fn memtables(&self) -> Vec<Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev()).map(|slot| slot.memtable.clone()).collect()
    }
}

#[cfg(test)]
#[path = "writes_test.rs"]
mod tests;
