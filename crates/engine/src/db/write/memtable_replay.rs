//! Memtables as recovery fills them, while no other thread writes.

use super::memtable_slot::MemtableSlot;
use super::memtables::{Memtables, State};
use crate::{SequenceNumber, WriteBatch};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Memtables {
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
            self.visibility.set_visible(sequence);
        }
    }

    /// Recovery: the memtable that is filled.
    pub(crate) fn active(&self) -> Arc<MemtableSlot> {
        self.state.lock().active.clone()
    }

    /// Recovery: inserts a replayed batch at the number it had.
    pub(crate) fn replay(&self, batch: &WriteBatch, sequence: SequenceNumber, segment: u64) {
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
        self.visibility.set_visible(sequence);
    }
}
