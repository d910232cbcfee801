//! A number that only grows, and that is returned only when it is durable.

use crate::call::CallId;

/// The number, and the calls that wait for a greater one to be durable.
#[derive(Debug)]
pub(crate) struct Growing {
    durable: u64,
    waiting: Vec<(CallId, u64)>,
    in_flight: Option<u64>,
}

impl Growing {
    /// The state of a new leader.
    pub fn new(durable: u64) -> Growing {
        Growing { durable, waiting: Vec::new(), in_flight: None }
    }

    /// What is durable.
    pub fn get(&self) -> u64 {
        self.durable
    }

    /// The call waits until a number of at least `wanted` is durable.
    pub fn wait_for(&mut self, id: CallId, wanted: u64) {
        assert!(wanted > self.durable, "what is durable already is answered at once");
        self.waiting.push((id, wanted));
    }

    /// The number to write now, if there is one: until [`Growing::written`] or [`Growing::failed`] it is in flight.
    pub fn take_unwritten(&mut self) -> Option<u64> {
        assert!(self.in_flight.is_none(), "one write at a time");
        self.in_flight = self.waiting.iter().map(|(_, wanted)| *wanted).max();
        self.in_flight
    }

    /// What was in flight is durable; returns the calls that waited for it.
    pub fn written(&mut self) -> Vec<CallId> {
        let Some(written) = self.in_flight.take() else { return Vec::new() };
        assert!(written > self.durable, "it never goes back");
        self.durable = written;
        self.waiting.extract_if(.., |(_, wanted)| *wanted <= written).map(|(id, _)| id).collect()
    }

    /// The write failed, or its outcome is unknown: it is repeated, or a greater number is written.
    pub fn failed(&mut self) {
        self.in_flight = None;
    }

    /// The calls that wait.
    pub fn waiting(&self) -> impl Iterator<Item = CallId> {
        self.waiting.iter().map(|(id, _)| *id)
    }
}
