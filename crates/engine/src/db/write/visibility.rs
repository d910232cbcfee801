//! The order in which commits become visible and durable, and what each commit waits for.
//!
//! A commit gets its number and its place in the log under a lock of the caller ([`Visibility::assign`]). After that
//! all writers run at once: each inserts its batch into the memtable and reports it ([`Visibility::inserted`]). A
//! number is visible when it and all before it are inserted, and as durable as their writers have requested.
//!
//! Durability: a sync that started when the log ended at `W` makes everything below `W` durable. Up to [`SYNCS_MAX`]
//! syncs run at once, each on the thread of a writer that needs it ([`Visibility::wait`]): a writer that needs more
//! than the syncs in flight will give starts the next; if all slots are taken it waits. The end of a sync wakes all
//! waiters that it has made durable, all at once, and one of those that no sync in flight covers, to start the next. So
//! no answer waits for a chain of threads that wake each other, and the disk has a next sync while an answer travels.
//!
//! While no more writers wait than that, each makes its own sync: what the disk does in parallel is free. With
//! more, one sync at a time gathers larger groups: a sync costs 20 us of processor and a wake-up as much, and several
//! on one file slow each other down (measured on a loaded machine, commits per second with 16 and 64 writers: one at a
//! time 41,000 and 89,000, two 42,000 and 76,000, four 33,000 and 69,000; with 2 and 4 writers one at a time gave a
//! tenth of four).
//!
//! The file is compiled twice: with the primitives of the standard library, and, in tests, with those of a model
//! checker that tries schedules (`visibility_model_test.rs`).

use super::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering::SeqCst, SYNCS_MAX, yield_now};
use crate::planted::{self, Bug};
use std::collections::VecDeque;

/// Condition variables that the waiters of syncs share. More than syncs in flight, so that waiters of different syncs
/// rarely use the same one (which would only cause spurious wake-ups).
const SYNC_ENDS: u64 = 2 * SYNCS_MAX as u64;

/// How often a writer checks whether those before it have inserted before it sleeps: they need about a
/// microsecond, unless they were descheduled; a yield lets them run.
const SPINS: u32 = 20;

/// Writes have stopped: what is not durable and visible yet never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// What a commit waits for: 0 means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// This number is visible.
    pub(crate) sequence: u64,
    /// The log is durable up to this position.
    pub(crate) log_end: u64,
}

/// See the head of this file. `A` is the answer to a commit that no caller waits for; answers that are due are passed
/// to the function that each call supplies, in order, under the lock.
pub(crate) struct Visibility<A> {
    state: Mutex<State<A>>,
    /// As in the state; for threads that read without the lock.
    visible: AtomicU64,
    durable: AtomicU64,
    /// Where the waiters of the sync with this number (modulo) wait.
    sync_ends: [Condvar; SYNC_ENDS as usize],
    /// Where those wait that only lack other batches.
    published: Condvar,
}

struct State<A> {
    visible: u64,
    durable: u64,
    /// The log's end: everything below was appended.
    written: u64,
    /// The numbers above `visible`, in order.
    numbers: VecDeque<Number<A>>,
    /// Batches that have a number and are not in memory.
    missing: u64,
    /// Ingests that have a number and whose tables are not in the version.
    installing: u64,
    /// Answers to logged commits, in order.
    answers: VecDeque<(Due, A)>,
    syncs: [Option<SyncInFlight>; SYNCS_MAX],
    next_sync: u64,
    /// Threads that wait for a sync.
    waiting_for_sync: u64,
    /// Those of them that no sync in flight covers.
    uncovered: u64,
    /// Threads at `published`.
    waiting_for_publication: u64,
    stopped: bool,
}

impl<A> State<A> {
    /// How many numbers of this kind have nothing behind them yet.
    fn pending(&mut self, arrival: Arrival) -> &mut u64 {
        match arrival {
            Arrival::InMemory => &mut self.missing,
            Arrival::InTables => &mut self.installing,
        }
    }

    /// A slot for one more sync, if another one in flight is worthwhile.
    fn slot(&self) -> Option<usize> {
        let running = self.syncs.iter().flatten().count() as u64;
        let writers = self.waiting_for_sync + running + 1;
        let at_once = if writers <= SYNCS_MAX as u64 { SYNCS_MAX as u64 } else { 1 };
        if running >= at_once { None } else { self.syncs.iter().position(Option::is_none) }
    }
}

struct Number<A> {
    inserted: bool,
    arrival: Arrival,
    /// Its writer requires the log to be durable up to here.
    log_end: u64,
    answers: Vec<A>,
}

/// How what has a number becomes readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A batch: its writer puts it into memory at once, and needs neither another thread nor a lock that orders commits
    /// for that.
    InMemory,
    /// An ingest: its tables go into the version after a sync of the log, which needs the lock that orders commits.
    InTables,
}

#[derive(Clone, Copy)]
struct SyncInFlight {
    id: u64,
    /// It makes everything below durable.
    target: u64,
}

impl<A> Visibility<A> {
    /// Everything up to `visible` is visible, and the log durable up to `durable`, where it ends.
    pub(crate) fn new(visible: u64, durable: u64) -> Visibility<A> {
        let state = State {
            visible,
            durable,
            written: durable,
            numbers: VecDeque::new(),
            missing: 0,
            installing: 0,
            answers: VecDeque::new(),
            syncs: [None; SYNCS_MAX],
            next_sync: 0,
            waiting_for_sync: 0,
            uncovered: 0,
            waiting_for_publication: 0,
            stopped: false,
        };
        Visibility {
            state: Mutex::new(state),
            visible: AtomicU64::new(visible),
            durable: AtomicU64::new(durable),
            sync_ends: std::array::from_fn(|_| Condvar::new()),
            published: Condvar::new(),
        }
    }

    /// The newest number that readers may use.
    pub(crate) fn visible(&self) -> u64 {
        self.visible.load(SeqCst)
    }

    /// The log is durable up to this position.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(SeqCst)
    }

    /// For recovery, when no thread writes: everything up to `visible` is visible.
    pub(crate) fn set_visible(&self, visible: u64) {
        let mut state = self.lock();
        assert!(state.numbers.is_empty() && visible >= state.visible, "the visible number only grows");
        state.visible = visible;
        self.visible.store(visible, SeqCst);
    }

    /// The number `sequence`, the next one, was assigned; it is not visible before the log is durable up to `log_end`.
    pub(crate) fn assign(&self, sequence: u64, log_end: u64, arrival: Arrival) {
        let mut state = self.lock();
        let next = state.visible + state.numbers.len() as u64 + 1;
        assert_eq!(sequence, next, "numbers are given out one after the other");
        state.numbers.push_back(Number { inserted: false, arrival, log_end, answers: Vec::new() });
        *state.pending(arrival) += 1;
    }

    /// The log ends at this position now. In the order of the log.
    pub(crate) fn note_appended(&self, end: u64) {
        let mut state = self.lock();
        assert!(end >= state.written, "the log only grows");
        state.written = end;
    }

    /// What has this number is in its memtable, or in the version. `answer` is due when the number is visible; it is
    /// returned if it was stopped.
    pub(crate) fn inserted(&self, sequence: u64, answer: Option<A>, give: &mut dyn FnMut(A)) -> Option<A> {
        let mut state = self.lock();
        let at = sequence.checked_sub(state.visible + 1).expect("a number that is not inserted is not visible");
        let number = state.numbers.get_mut(at as usize).expect("it was given out");
        assert!(!number.inserted, "a batch is inserted once");
        number.inserted = true;
        let arrival = number.arrival;
        let pending = state.pending(arrival);
        *pending -= 1;
        let all_inserted = *pending == 0;
        if state.stopped {
            // Nothing becomes visible, but a caller that needs all batches in memory still waits: see
            // `wait_all_inserted`.
            let wake = all_inserted && state.waiting_for_publication > 0;
            drop(state);
            if wake {
                self.published.notify_all();
            }
            return answer;
        }
        let number = state.numbers.get_mut(at as usize).expect("it was given out");
        number.answers.extend(answer);
        let changed = self.publish(&mut state, give);
        let wake = (changed || all_inserted) && state.waiting_for_publication > 0;
        drop(state);
        if wake {
            self.published.notify_all();
        }
        None
    }

    /// An answer that is given when it is due, after all answers that were announced here before. It is returned if
    /// this was stopped.
    pub(crate) fn answer(&self, due: Due, answer: A, give: &mut dyn FnMut(A)) -> Option<A> {
        let mut state = self.lock();
        if state.stopped {
            return Some(answer);
        }
        state.answers.push_back((due, answer));
        self.publish(&mut state, give);
        None
    }

    /// An answer for when every number assigned by now is visible. It is returned if it was stopped.
    pub(crate) fn answer_after_all(&self, answer: A, give: &mut dyn FnMut(A)) -> Option<A> {
        let mut state = self.lock();
        if state.stopped {
            return Some(answer);
        }
        match state.numbers.back_mut() {
            Some(last) => last.answers.push(answer),
            None => give(answer),
        }
        None
    }

    /// Waits until everything that is due for a commit has happened, and syncs the log where that is needed: `sync`
    /// gets the slot of the sync and how far the log is durable.
    pub(crate) fn wait<E>(
        &self,
        due: Due,
        sync: &dyn Fn(usize, u64) -> Result<(), E>,
        give: &mut dyn FnMut(A),
    ) -> Result<(), SyncError<E>> {
        if due.log_end == 0 {
            for spin in 0..SPINS {
                if self.visible() >= due.sequence {
                    return Ok(());
                }
                if spin > SPINS / 2 { yield_now() } else { std::hint::spin_loop() }
            }
        }
        let mut state = self.lock();
        loop {
            if state.durable >= due.log_end && state.visible >= due.sequence {
                return Ok(());
            }
            if state.stopped {
                return Err(SyncError::Stopped(Stopped));
            }
            if state.durable >= due.log_end {
                state = self.wait_for_publication(state);
                continue;
            }
            let covering = state.syncs.iter().flatten().filter(|sync| sync.target >= due.log_end);
            if let Some(id) = covering.map(|sync| sync.id).min() {
                state = self.wait_for_sync(id, state);
                continue;
            }
            let Some(slot) = state.slot() else {
                state.uncovered += 1;
                let id = state.next_sync;
                state = self.wait_for_sync(id, state);
                state.uncovered -= 1;
                continue;
            };
            let started = SyncInFlight { id: state.next_sync, target: state.written };
            state.next_sync += 1;
            state.syncs[slot] = Some(started);
            let durable = state.durable;
            drop(state);
            let outcome = sync(slot, durable);
            state = self.lock();
            state.syncs[slot] = None;
            if let Err(error) = outcome {
                // What it was to make durable is in an unknown state, and another sync might succeed without it.
                state.stopped = true;
                drop(state);
                self.wake_all();
                return Err(SyncError::Failed(error));
            }
            self.end_sync(&mut state, started, give);
        }
    }

    /// Records the end of a sync and wakes those that wait for it.
    fn end_sync(&self, state: &mut MutexGuard<'_, State<A>>, ended: SyncInFlight, give: &mut dyn FnMut(A)) {
        if ended.target > state.durable {
            state.durable = ended.target;
            self.durable.store(ended.target, SeqCst);
            if self.publish(state, give) && state.waiting_for_publication > 0 {
                self.published.notify_all();
            }
        }
        self.sync_ends[(ended.id % SYNC_ENDS) as usize].notify_all();
        if state.uncovered > 0 && !planted::is_set(Bug::ForgetTheNextSync) {
            let next = &self.sync_ends[(state.next_sync % SYNC_ENDS) as usize];
            // Where an old sync uses the same condition variable, one wake-up might reach a waiter of that.
            let shared = state.syncs.iter().flatten().any(|sync| sync.id % SYNC_ENDS == state.next_sync % SYNC_ENDS);
            if shared { next.notify_all() } else { next.notify_one() }
        }
    }

    /// Waits until every batch that has a number is in memory. The caller prevents new numbers, and may hold
    /// the locks that order commits for that.
    pub(crate) fn wait_all_inserted(&self) {
        let mut state = self.lock();
        while state.missing > 0 {
            state.waiting_for_publication += 1;
            state = self.published.wait_for_insertions(state);
            state.waiting_for_publication -= 1;
        }
    }

    /// Whether an ingest has its number and its tables are not in the version. Under the lock that orders commits none
    /// begins.
    pub(crate) fn is_installing(&self) -> bool {
        self.lock().installing > 0
    }

    /// Waits until every ingest that has a number has installed its tables or has failed. Not under the lock that
    /// orders commits, which an ingest needs.
    pub(crate) fn wait_all_installed(&self) {
        let mut state = self.lock();
        while state.installing > 0 {
            state = self.wait_for_publication(state);
        }
    }

    /// Nothing more becomes durable or visible. Returns the answers that are left, those to logged commits first.
    pub(crate) fn stop(&self) -> Vec<A> {
        let mut state = self.lock();
        state.stopped = true;
        let mut left: Vec<A> = state.answers.drain(..).map(|(_, answer)| answer).collect();
        left.extend(state.numbers.iter_mut().flat_map(|number| std::mem::take(&mut number.answers)));
        drop(state);
        self.wake_all();
        left
    }

    fn wake_all(&self) {
        self.sync_ends.iter().for_each(Condvar::notify_all);
        self.published.notify_all();
    }

    /// Makes visible what may be, and gives the answers that are due. Returns whether anything became visible.
    fn publish(&self, state: &mut State<A>, give: &mut dyn FnMut(A)) -> bool {
        if state.stopped {
            // A batch that is inserted late has no number to be visible at any more; its answer was or is an error.
            return false;
        }
        let before = state.visible;
        while state.numbers.front().is_some_and(|first| first.inserted && first.log_end <= state.durable) {
            let first = state.numbers.pop_front().expect("there is a first");
            state.visible += 1;
            first.answers.into_iter().for_each(&mut *give);
        }
        self.visible.store(state.visible, SeqCst);
        let is_due = |due: &Due| due.sequence <= state.visible && due.log_end <= state.durable;
        while state.answers.front().is_some_and(|(due, _)| is_due(due)) {
            let (_, answer) = state.answers.pop_front().expect("there is a first");
            give(answer);
        }
        state.visible > before
    }

    /// Waits for the end of a sync; the caller checks again.
    fn wait_for_sync<'a>(&self, id: u64, mut state: MutexGuard<'a, State<A>>) -> MutexGuard<'a, State<A>> {
        state.waiting_for_sync += 1;
        let mut state = self.sync_ends[(id % SYNC_ENDS) as usize].wait(state);
        state.waiting_for_sync -= 1;
        state
    }

    fn wait_for_publication<'a>(&self, mut state: MutexGuard<'a, State<A>>) -> MutexGuard<'a, State<A>> {
        state.waiting_for_publication += 1;
        let mut state = self.published.wait(state);
        state.waiting_for_publication -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock()
    }
}

/// Why a wait ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyncError<E> {
    /// The sync that this thread made has failed.
    Failed(E),
    /// Writes have stopped.
    Stopped(Stopped),
}
