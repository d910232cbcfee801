//! What readers read: the current memtables and version, and earlier ones that snapshots and iterators hold.

use super::memtables::{Memtables, State};
use crate::SequenceNumber;
use crate::memtable::Memtable;
use crate::read::ReadState;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A read state that is not current any more.
pub(super) struct Past {
    state: Weak<ReadState>,
    /// Since when (monotonic).
    since: Duration,
    /// As `State::installed_at`.
    installed_at: SequenceNumber,
}

/// See [`Memtables::held`].
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

impl Memtables {
    /// As [`Memtables::read_point`], for the length of a call. Counts no reference, so readers on several processors do
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

    /// A state to read from and the number to read at; see invariant 2 of `memtables.rs`.
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

    /// Readers get this one from now on, with the present memtables.
    pub(super) fn set_read_state(&self, state: &mut State, next: ReadState) {
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
