//! Events to come, ordered by virtual time and, within a moment, by when they were planned.

use std::collections::BTreeMap;
use std::time::Duration;

/// A queue of events.
#[derive(Debug)]
pub struct EventHeap<E> {
    events: BTreeMap<(Duration, u64), E>,
    next_sequence: u64,
}

impl<E> Default for EventHeap<E> {
    fn default() -> Self {
        EventHeap { events: BTreeMap::new(), next_sequence: 0 }
    }
}

impl<E> EventHeap<E> {
    /// Plans an event.
    pub fn push(&mut self, at: Duration, event: E) {
        self.next_sequence += 1;
        self.events.insert((at, self.next_sequence), event);
    }

    /// When the next event is due.
    pub fn next_time(&self) -> Option<Duration> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Duration, E)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }

    /// Number of planned events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing is planned.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}
